# What can be made here. `make` alone lists it.
#
# All of it needs Go, make and git; the race detector also needs a C compiler. The tests of availability make a network namespace:
# they want root, or a kernel that lets users make namespaces; those on a real node want root. Nothing but `make install` writes
# outside of bin/ and Go's own caches.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:

# What may be set, in the environment or after `make`.
FUZZTIME ?= 2m
API_PATHS ?= ./api/...
CRD_DIR ?= api/crds
BENCH ?= .
BENCHTIME ?= 1s
BENCHCOUNT ?= 1
BENCHPACKAGES ?= ./profiles ./webhook
SOAK ?= .
KEEP ?=
NODE ?=
ROUNDS ?= 12
INSTALL_DIR ?= $(HOME)/.local/bin
COMPONENTS ?= kube-apiserver etcd kubectl
PLATFORMS ?= linux/amd64,linux/arm64
PUSH ?=
IMAGES ?=

# The API server and etcd that tests start.
export KUBEBUILDER_ASSETS := $(CURDIR)/bin/k8s
# Each module says itself what it is built from; a workspace around this one has no say.
export GOWORK := off

VERSION = $(shell git describe --always --dirty 2>/dev/null || echo v0.0.0-dev)

##@ Develop

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-zA-Z_-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## build bin/pillion, and link the plugin of kubectl, bin/kubectl-pillion, to it
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pillion ./cmd/pillion
	ln -sf pillion bin/kubectl-pillion
	cp hack/kubectl_complete-pillion bin/

.PHONY: install
install: build ## copy pillion and the plugin of kubectl to INSTALL_DIR (default ~/.local/bin), which PATH has to have
	mkdir -p '$(INSTALL_DIR)'
	install -m 755 bin/pillion hack/kubectl_complete-pillion '$(INSTALL_DIR)'
	ln -sf pillion '$(INSTALL_DIR)/kubectl-pillion'

.PHONY: generate
generate: bin/tools/controller-gen bin/tools/helm ## write the deep copies, CRDs, references in docs/, and deploy/ from the chart
	API_PATHS='$(API_PATHS)' CRD_DIR='$(CRD_DIR)' hack/generate.sh

.PHONY: fmt
fmt: bin/tools/golangci-lint ## format the Go code of every module
	for module in $$(hack/modules.sh); do (cd "$$module" && $(CURDIR)/bin/tools/golangci-lint fmt ./...); done

.PHONY: clean
clean: ## remove bin/ (Go's caches stay, so making it again is quick)
	rm -rf bin

##@ Release

.PHONY: images
images: ## build the images of a release into bin/images, without a daemon; VERSION, PLATFORMS, IMAGES="pillion", PUSH=registry.example.com/x
	@go -C images/build run . --version '$(VERSION)' --platforms '$(PLATFORMS)' --push '$(PUSH)' $(IMAGES)

##@ Check

.PHONY: verify
verify: controlplane bin/tools/controller-gen bin/tools/helm ## fail if a generated file, a go.mod or the chart is not right; changes nothing
	API_PATHS='$(API_PATHS)' CRD_DIR='$(CRD_DIR)' hack/verify.sh
	@echo "verify: applying the chart to a real API server, with each set of values, and deploy/"
	go test -count 1 -run '^(TestEverySetOfValuesInstalls|TestTheBaseIsTheFile|TestKubectlInstalls|TestMonitoringApplies)$$' ./test/chart

.PHONY: lint
lint: bin/tools/golangci-lint ## run the linters, which also hold the direction of dependencies
	hack/lint.sh

.PHONY: test
test: controlplane bin/tools/helm ## run every test, with a real API server, then every fuzz target for 5 s
	hack/test.sh
	FUZZTIME=5s hack/fuzz.sh

.PHONY: fuzz
fuzz: controlplane ## run every fuzz target for FUZZTIME (default 2m); FUZZ='^FuzzX' picks some
	FUZZTIME='$(FUZZTIME)' hack/fuzz.sh

.PHONY: bench
bench: controlplane ## measure decisions, and Pod creates through the API server against a no-op webhook (minutes)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime '$(BENCHTIME)' -count '$(BENCHCOUNT)' $(BENCHPACKAGES)
	go run ./test/bench

# The kubelet and containerd want root, and programs of Debian's packages. What is missing is said before anything is built.
.PHONY: test-node
test-node: node-needs node test-images bin/tools/helm ## run the tests on a real node; wants root and Debian packages, and says which
	go test -v -count 1 -p 1 -timeout 30m ./test/node/...

.PHONY: bench-node
bench-node: node-needs node test-images bin/tools/helm ## measure on a real node how Pods start and end with each pattern, and Pillion's size; ROUNDS
	go run ./test/node/bench --rounds $(ROUNDS)

# It wants the machine for itself: certificates that live for five seconds fail calls where nobody gets the CPU to renew them.
.PHONY: soak
soak: controlplane ## let certificates, processes and the API server fail under traffic, for hours; SOAK='^TestX' picks some tests
	go test -v -count 1 -timeout 6h -run '$(SOAK)' ./test/availability -soak

##@ Try

.PHONY: demo
demo: $(if $(NODE),demo-on-node,demo-on-loopback) ## show what Pillion does to Pods; NODE=1 runs them, on a real node; KEEP=1 leaves it running

.PHONY: demo-on-loopback
demo-on-loopback: controlplane build
	go build -o bin/demo ./test/demo
	@KEEP='$(KEEP)' exec bin/demo # not by go run, which calls an end by Ctrl-C a failure

# What is missing is said before anything is built, whatever make does at once.
.PHONY: demo-on-node
demo-on-node: node-needs
	@$(MAKE) --silent node bin/tools/helm
	@$(MAKE) --silent test-images IMAGES='pillion git-sync gomplate memcached nginx nginx-exporter'
	@go build -o bin/demo-node ./test/node/demo
	@KEEP='$(KEEP)' exec bin/demo-node

.PHONY: controlplane
controlplane: ## fetch or build kube-apiserver, etcd and kubectl into bin/k8s (minutes, the first time); COMPONENTS names others
	@go -C test/controlplane run . --dest ../../bin/k8s $(COMPONENTS)

.PHONY: controlplane-all
controlplane-all: ## the same with kube-controller-manager, kube-scheduler, kubelet and kube-proxy
	@go -C test/controlplane run . --dest ../../bin/k8s all

.PHONY: node-needs
node-needs:
	@go run ./test/node/run --check

.PHONY: node
node: controlplane-all bin/k8s/coredns ## the same with CoreDNS: all that a real node takes but Debian's packages

bin/k8s/coredns: test/node/dns/main.go test/node/dns/go.mod test/node/dns/go.sum
	@echo "building CoreDNS, once until test/node/dns changes; the first time takes about a minute"
	@mkdir -p $(@D)
	@CGO_ENABLED=0 go -C test/node/dns build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../../$@.unfinished .
	@touch $@.unfinished && mv $@.unfinished $@

# What has not changed is not built again.
.PHONY: test-images
test-images: ## build what stands for the default images on a real node of the tests into bin/images/test; IMAGES names some
	@go -C images/build run . --test --version '$(VERSION)' $(IMAGES)

# The tools are built when what pins them changes. The rename makes a build that was interrupted leave nothing.
bin/tools/controller-gen: tool := sigs.k8s.io/controller-tools/cmd/controller-gen
bin/tools/golangci-lint: tool := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/tools/helm: tool := helm.sh/helm/v4/cmd/helm
bin/tools/controller-gen bin/tools/golangci-lint bin/tools/helm: tools/go.mod tools/go.sum
	@echo "building $(@F), once until tools/go.mod changes; the first time may take minutes"
	@mkdir -p $(@D)
	@CGO_ENABLED=0 go -C tools build -trimpath -buildvcs=false -ldflags '-s -w' -o ../$@.unfinished $(tool)
	@touch $@.unfinished && mv $@.unfinished $@
