module github.com/pillion-dev/pillion/test/controlplane

go 1.26.0

require (
	github.com/go-logr/logr v1.4.3
	github.com/google/go-cmp v0.7.0
	golang.org/x/mod v0.37.0
	sigs.k8s.io/controller-runtime/tools/setup-envtest v0.25.1
)

require (
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
