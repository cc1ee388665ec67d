package apiserver

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// assetsVariable names the directory of the binaries, as envtest and setup-envtest do.
const assetsVariable = "KUBEBUILDER_ASSETS"

const module = "module github.com/pillion-dev/pillion"

// Root returns the directory of Pillion's module: the working directory or one above it.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if isRoot(at) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod with %q at or above %s: run this within Pillion's module", module, dir)
		}
	}
}

func isRoot(dir string) bool {
	file, err := os.Open(filepath.Join(dir, "go.mod"))
	if err != nil {
		return false
	}
	defer file.Close() //nolint:errcheck // it was only read
	line, _ := bufio.NewReader(file).ReadString('\n')
	return strings.TrimSpace(line) == module
}

// assets returns the directory of the binaries: KUBEBUILDER_ASSETS, or else bin/k8s of the module.
func assets() (string, error) {
	if dir := os.Getenv(assetsVariable); dir != "" {
		return dir, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "bin", "k8s"), nil
}

// binary returns the path of an executable of the assets.
func binary(name string) (string, error) {
	dir, err := assets()
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no %s in %s: run make controlplane COMPONENTS=%s (or set %s)", name, dir, name, assetsVariable)
	case err != nil:
		return "", fmt.Errorf("find %s: %w", name, err)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return "", fmt.Errorf("%s is no executable: remove it and run make controlplane", path)
	}
	return path, nil
}

// Kubectl returns the path of kubectl.
func Kubectl() (string, error) { return binary("kubectl") }

// Program returns the path of a program that lies beside the API server, such as kubelet, or says how to get it.
func Program(name string) (string, error) { return binary(name) }
