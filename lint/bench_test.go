package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/lint"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

// BenchmarkFiles is lint of a thousand workloads and a hundred profiles, a file each, from the reading on.
func BenchmarkFiles(b *testing.B) {
	dir := b.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 100 {
		write(fmt.Sprintf("profile-%d.yaml", i), fmt.Sprintf(benchProfile, i, i))
	}
	for i := range 1000 {
		write(fmt.Sprintf("workload-%d.yaml", i), fmt.Sprintf(benchWorkload, i, i%100, i))
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		files, errs := manifest.ReadTrees([]string{dir}, strings.NewReader(""))
		result := lint.Files(files, errs, lint.Options{Compiler: compiler, Namespace: "default"})
		if result.Profiles != 100 || result.Workloads != 1000 || len(result.Findings) > 0 {
			b.Fatalf("%d profiles, %d workloads, findings %v", result.Profiles, result.Workloads, result.Findings)
		}
	}
}

const benchProfile = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata:
  name: site-%d
spec:
  gitSync:
    repo: https://git.example.com/site-%d.git
    ref: main
    period: 30s
    mountPath: /srv/site
  overridable: [ref, period]
  match:
    podSelector: {matchLabels: {never: matched}}
`

const benchWorkload = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-%d
  labels: {app: a}
spec:
  replicas: 3
  selector:
    matchLabels: {app: a}
  template:
    metadata:
      labels: {app: a}
      annotations:
        pillion.dev/inject: site-%d
    spec:
      containers:
      - name: app
        image: registry.example.com/app:v1
        ports:
        - {name: http, containerPort: 8080}
        env:
        - name: SECRET
          valueFrom:
            secretKeyRef: {name: s, key: k}
        resources:
          requests: {cpu: 100m, memory: 128Mi}
          limits: {memory: 256Mi}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - {name: data, mountPath: /data}
      volumes:
      - name: data
        persistentVolumeClaim: {claimName: d}
---
apiVersion: v1
kind: Service
metadata: {name: app-%d}
spec:
  ports: [{port: 80}]
`
