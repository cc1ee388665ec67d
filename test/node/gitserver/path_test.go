package gitserver

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhoMayPushOverHTTPIsSaid(t *testing.T) {
	s := start(t, t.TempDir())
	create(t, s, "site")
	before := push(t, s, Branch, map[string]string{"a": "1"})
	clone := filepath.Join(t.TempDir(), "clone")
	git := func(args ...string) (string, error) {
		command := exec.CommandContext(t.Context(), "git", args...)
		command.Env = s.environment()
		said, err := command.CombinedOutput()
		return strings.TrimSpace(string(said)), err
	}
	for _, args := range [][]string{
		{"clone", "--quiet", s.URL("site"), clone}, {"-C", clone, "commit", "--quiet", "--allow-empty", "--message=more"},
	} {
		if said, err := git(args...); err != nil {
			t.Fatalf("%q: %v: %s", args, err, said)
		}
	}
	if said, err := git("-C", clone, "push"); err == nil || !strings.Contains(said, "403") {
		t.Errorf("nobody may push, and it says %v: %s", err, said)
	}
	if err := s.TakePushes(t.Context(), "site"); err != nil {
		t.Fatal(err)
	}
	if said, err := git("-C", clone, "push"); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	after, err := git("-C", s.Path("site"), "rev-parse", "main~1")
	if head, _ := git("-C", s.Path("site"), "rev-parse", "main"); err != nil || after != before || head == before {
		t.Errorf("main is %s after %s (%v), want a commit after %s", head, after, err, before)
	}
}
