package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/terminal"
)

// newTerminal returns a terminal in a directory, with the manifests named and a kubeconfig there, and Pillion as a plugin of kubectl.
func newTerminal(out io.Writer, server *apiserver.Server, pillion, dir string, names ...string) (*terminal.Terminal, error) {
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		content, err := manifests.ReadFile("manifests/" + name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := apiserver.WriteKubeconfig(server.Config, kubeconfig); err != nil {
		return nil, err
	}
	// kubectl runs the program of this name for "kubectl pillion".
	if err := os.Symlink(pillion, filepath.Join(dir, "kubectl-pillion")); err != nil {
		return nil, fmt.Errorf("make Pillion a plugin of kubectl: %w", err)
	}
	return &terminal.Terminal{
		Out: out, Dir: dir, Path: []string{dir, filepath.Dir(kubectl)}, Env: []string{"KUBECONFIG=" + kubeconfig},
	}, nil
}

// exports returns the lines for another terminal that make it like this one.
func exports(t *terminal.Terminal) string {
	return fmt.Sprintf("export %s\n  export PATH=%s:$PATH", strings.Join(t.Env, " "), strings.Join(t.Path, string(os.PathListSeparator)))
}
