package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// terminal runs commands against the API server as people do: kubectl, and Pillion as its plugin.
type terminal struct {
	dir        string // where manifests are
	kubectl    string
	kubeconfig string
	path       string // directories for $PATH
}

// newTerminal returns a terminal whose files are in a directory.
func newTerminal(server *apiserver.Server, pillion, dir string) (*terminal, error) {
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		return nil, err
	}
	t := &terminal{dir: dir, kubectl: kubectl, kubeconfig: filepath.Join(dir, "kubeconfig")}
	if err := apiserver.WriteKubeconfig(server.Config, t.kubeconfig); err != nil {
		return nil, err
	}
	// kubectl runs the program of this name for "kubectl pillion".
	if err := os.Symlink(pillion, filepath.Join(dir, "kubectl-pillion")); err != nil {
		return nil, fmt.Errorf("make Pillion a plugin of kubectl: %w", err)
	}
	t.path = dir + string(os.PathListSeparator) + filepath.Dir(kubectl)
	return t, nil
}

// save writes a manifest of the demonstration where commands find it.
func (t *terminal) save(manifest string) error {
	content, err := manifests.ReadFile("manifests/" + manifest)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.dir, manifest), content, 0o600)
}

// run runs kubectl with arguments, and prints the command and what it prints. A command that fails says so itself.
func (t *terminal) run(ctx context.Context, out io.Writer, arguments ...string) error {
	command := exec.CommandContext(ctx, t.kubectl, arguments...)
	command.Dir = t.dir
	command.Env = append(os.Environ(), "KUBECONFIG="+t.kubeconfig, "PATH="+t.path+string(os.PathListSeparator)+os.Getenv("PATH"))
	printed, err := command.CombinedOutput()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		return fmt.Errorf("run kubectl: %w", err)
	}
	_, _ = fmt.Fprintf(out, "   $ kubectl %s\n", strings.Join(arguments, " "))
	lines := bufio.NewScanner(bytes.NewReader(printed))
	for lines.Scan() {
		_, _ = fmt.Fprintln(out, strings.TrimRight("     "+lines.Text(), " "))
	}
	return lines.Err()
}
