package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// The folders of the two pinned modules, and the requirement in each that is the pin.
const (
	kubernetesDir    = "kubernetes"
	kubernetesModule = "k8s.io/kubernetes"
	etcdDir          = "etcd"
	etcdModule       = "go.etcd.io/etcd/server/v3"
)

// component is one program of the control plane.
type component struct {
	name string
	// pkg is the main package that builds it.
	pkg string
	// dir is the pinned module that it is built in.
	dir string
	// usually says how long a first build takes; it is printed, so that nobody takes a wait for a hang.
	usually string
	// versionArgs make it print its version and exit.
	versionArgs []string
	// prebuilt says that setup-envtest's archives hold it.
	prebuilt bool
	// byDefault says that it is wanted when none is named.
	byDefault bool
}

// allComponents is every component, in the order that builds them soonest: each leaves packages for the next.
func allComponents() []component {
	version := []string{"--version"}
	return []component{
		{
			name: "kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", dir: kubernetesDir,
			usually: "about 5 minutes on 2 cores", versionArgs: version, prebuilt: true, byDefault: true,
		},
		{
			name: "etcd", pkg: etcdModule, dir: etcdDir,
			usually: "about half a minute on 2 cores", versionArgs: version, prebuilt: true, byDefault: true,
		},
		{
			name: "kube-controller-manager", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", dir: kubernetesDir,
			usually: "about 2 minutes on 2 cores after kube-apiserver", versionArgs: version,
		},
		{
			name: "kube-scheduler", pkg: "k8s.io/kubernetes/cmd/kube-scheduler", dir: kubernetesDir,
			usually: "some seconds after kube-controller-manager", versionArgs: version,
		},
		{
			name: "kubelet", pkg: "k8s.io/kubernetes/cmd/kubelet", dir: kubernetesDir,
			usually: "about half a minute on 2 cores after the others", versionArgs: version,
		},
		{
			name: "kube-proxy", pkg: "k8s.io/kubernetes/cmd/kube-proxy", dir: kubernetesDir,
			usually: "some seconds after the others", versionArgs: version,
		},
		{
			name: "kubectl", pkg: "k8s.io/kubernetes/cmd/kubectl", dir: kubernetesDir,
			usually: "about half a minute on 2 cores after the others", versionArgs: []string{"version", "--client"}, prebuilt: true,
		},
	}
}

// defaultComponents is what an API server with storage takes.
func defaultComponents() []component {
	var some []component
	for _, c := range allComponents() {
		if c.byDefault {
			some = append(some, c)
		}
	}
	return some
}

// names joins the names of components for a message.
func names(components []component) string {
	list := make([]string, len(components))
	for i, c := range components {
		list[i] = c.name
	}
	return strings.Join(list, ", ")
}

// pin is the version that one module folder pins.
type pin struct {
	// version is canonical semver, such as v1.37.1.
	version string
	// fingerprint changes with anything that would change the program: its go.mod, the build's flags, the platform.
	fingerprint string
}

// pins is every pin.
type pins struct {
	kubernetes, etcd pin
}

// of gives the pin that a component is built from.
func (p pins) of(c component) pin {
	if c.dir == etcdDir {
		return p.etcd
	}
	return p.kubernetes
}

// readPins reads the go.mod files under root.
func readPins(root string) (pins, error) {
	kubernetes, err := readPin(filepath.Join(root, kubernetesDir, "go.mod"), kubernetesModule)
	if err != nil {
		return pins{}, err
	}
	etcd, err := readPin(filepath.Join(root, etcdDir, "go.mod"), etcdModule)
	if err != nil {
		return pins{}, err
	}
	return pins{kubernetes: kubernetes, etcd: etcd}, nil
}

func readPin(file, module string) (pin, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return pin{}, fmt.Errorf("no %s here: run in the folder of the controlplane module, or name it with --modules", file)
	}
	if err != nil {
		return pin{}, fmt.Errorf("read the pinned version: %w", err)
	}
	return parsePin(file, data, module)
}

// parsePin finds the required version of a module in a go.mod file's text. file is for messages only.
func parsePin(file string, data []byte, module string) (pin, error) {
	mod, err := modfile.Parse(file, data, nil)
	if err != nil {
		return pin{}, fmt.Errorf("read the pinned version: %w", err)
	}
	for _, req := range mod.Require {
		if req.Mod.Path != module {
			continue
		}
		v := req.Mod.Version
		if semver.Canonical(v) != v || semver.Prerelease(v) != "" {
			return pin{}, fmt.Errorf("%s requires %s %s: want a released version, such as v1.2.3", file, module, v)
		}
		recipe := sha256.New()
		fmt.Fprintf(recipe, "%s/%s\n%s\n", runtime.GOOS, runtime.GOARCH, strings.Join(buildFlags(v), "\n"))
		recipe.Write(data)
		return pin{version: v, fingerprint: hex.EncodeToString(recipe.Sum(nil))[:16]}, nil
	}
	return pin{}, fmt.Errorf("%s does not require %s", file, module)
}
