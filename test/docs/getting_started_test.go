package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// TestGettingStarted does what docs/getting-started.md tells a newcomer to do: it runs the commands, one block after the other in one
// directory, and looks for the lines that the page shows of what they print.
func TestGettingStarted(t *testing.T) {
	var page document
	for _, document := range documents(t) {
		if document.name == "docs/getting-started.md" {
			page = document
		}
	}
	environment := newcomer(t)
	var printed string
	ran, compared := 0, 0
	for _, block := range page.blocks() {
		switch {
		case block.language == "sh" && block.mark != markElsewhere:
			ran++
			var err error
			printed, err = environment.run(t.Context(), block.text)
			if failed := err != nil; failed != (block.mark == markFails) {
				t.Fatalf("%s: the commands fail: %t (%v)\n%s", page.at(block), failed, err, printed)
			}
		case block.language == "text":
			compared++
			rest := printed
			for line := range strings.Lines(block.text) {
				line = strings.TrimSpace(line)
				_, after, found := strings.Cut(rest, line)
				if !found {
					t.Fatalf("%s: the commands do not print %q, or not behind the line before:\n%s", page.at(block), line, printed)
				}
				rest = after
			}
		}
	}
	if ran < 8 || compared < 3 {
		t.Errorf("only %d blocks were run, and %d compared", ran, compared)
	}
}

// shell is where a newcomer types.
type shell struct {
	dir string
	env []string
}

// newcomer returns a shell in an empty directory, with what the demonstration prints: a kubeconfig, and kubectl with its plugin. What
// the page makes is removed at the end.
func newcomer(t *testing.T) *shell {
	t.Helper()
	programs, dir := t.TempDir(), t.TempDir()
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pillion", "kubectl-pillion"} {
		if err := os.Symlink(binary, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := filepath.Join(programs, "kubeconfig")
	if err := apiserver.WriteKubeconfig(server.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		profile := &v1alpha1.ClusterPatternProfile{}
		profile.Name = "session-store"
		ctx := context.Background() // the test's has ended
		if err := release(ctx, profile); err != nil {
			t.Error(err)
		}
		if err := client.IgnoreNotFound(server.Client.Delete(ctx, profile)); err != nil {
			t.Error(err)
		}
	})
	path := strings.Join([]string{programs, filepath.Dir(kubectl), os.Getenv("PATH")}, string(os.PathListSeparator))
	return &shell{dir: dir, env: append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+path, "HOME="+dir)}
}

// run runs commands, of which each has to succeed, and returns what they print.
func (s *shell) run(ctx context.Context, commands string) (string, error) {
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	command.Dir, command.Env = s.dir, s.env
	printed, err := command.CombinedOutput()
	return string(printed), err
}
