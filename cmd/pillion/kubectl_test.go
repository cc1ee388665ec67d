package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

func TestKubectlRunsThePlugin(t *testing.T) {
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary, err := installation.Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	completion, err := filepath.Abs("../../hack/kubectl_complete-pillion")
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"kubectl-pillion": binary, "kubectl_complete-pillion": completion} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		args           []string
		stdout, stderr string // what each has
		never          string // what stdout has not
		fails          bool
	}{
		"docs": {
			args: []string{"pillion", "docs", "ProfileNotAvailable"}, stdout: "ProfileNotAvailable\n\nThe Pod asks for a profile that",
		},
		"version": {args: []string{"pillion", "version"}, stdout: "pillion "},
		"help is of kubectl pillion": {
			args: []string{"pillion", "help", "docs"}, stdout: "  kubectl pillion docs where-to-look", never: "\n  pillion ",
		},
		"what is wrong begins with the name of the program": {
			args: []string{"pillion", "docs", "PortColision"}, fails: true,
			stderr: "did you mean PortCollision? kubectl pillion docs lists all of them",
		},
		"a command that there is not": {
			args: []string{"pillion", "dosc"}, fails: true, stderr: `unknown command "dosc" for "kubectl pillion"`,
		},
		"completion": {args: []string{"__complete", "pillion", "docs", "ProfileNot"}, stdout: "ProfileNotAvailable"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), kubectl, test.args...) //nolint:gosec // the kubectl of the tests
			command.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "KUBECONFIG=", "HOME="+dir)
			stdout, stderr := &bytes.Buffer{}, &bytes.Buffer{}
			command.Stdout, command.Stderr = stdout, stderr
			if err := command.Run(); (err != nil) != test.fails {
				t.Errorf("%v: %s%s", err, stdout, stderr)
			}
			if !strings.Contains(stdout.String(), test.stdout) || (test.never != "" && strings.Contains(stdout.String(), test.never)) {
				t.Errorf("printed: %s", stdout)
			}
			if !strings.Contains(stderr.String(), test.stderr) || (test.fails && !strings.HasPrefix(stderr.String(), "pillion: ")) {
				t.Errorf("told: %s", stderr)
			}
			if strings.Contains(stdout.String()+stderr.String(), "\x1b") {
				t.Errorf("colors where there is no terminal: %q", stdout)
			}
		})
	}
}
