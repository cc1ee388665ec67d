package gitserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t *testing.T, s *Server, repo string) {
	t.Helper()
	if err := s.Create(repo); err != nil {
		t.Fatal(err)
	}
}

func push(t *testing.T, s *Server, branch string, files map[string]string) string {
	t.Helper()
	commit, err := s.PushTo(t.Context(), "site", branch, files, "a page")
	if err != nil {
		t.Fatal(err)
	}
	return commit
}

// fetch returns the files that a client gets of a branch, and its commit.
func fetch(t *testing.T, url, branch string, environment ...string) (files map[string]string, commit string, err error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	clone := exec.CommandContext(t.Context(), "git", "clone", "--quiet", "--branch="+branch, url, dir)
	clone.Env = append(slices.Clone(environment), "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0")
	if out, err := clone.CombinedOutput(); err != nil {
		return nil, string(out), err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, "", err
	}
	files = map[string]string{}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, "", err
		}
		files[entry.Name()] = string(content)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", dir, "rev-parse", "HEAD").Output()
	return files, strings.TrimSpace(string(out)), err
}

func TestWhatIsPushedIsServed(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	create(t, s, "site")
	first := push(t, s, Branch, map[string]string{"a": "1", "b": "1"})
	draft := push(t, s, "draft", map[string]string{"a": "draft"})
	second := push(t, s, Branch, map[string]string{"a": "2"})
	if first == second || first == draft {
		t.Errorf("the commits are %s, %s and %s", first, draft, second)
	}
	check := func(s *Server, branch, wantA, want string) {
		t.Helper()
		files, commit, err := fetch(t, s.URL("site"), branch)
		if err != nil || files["a"] != wantA || files["b"] != "1" || commit != want {
			t.Errorf("%s is %s with %v (%v); want %s with a=%s and b=1", branch, commit, files, err, want, wantA)
		}
	}
	check(s, Branch, "2", second)
	check(s, "draft", "draft", draft)

	// Another server goes on where this one ends.
	address := s.Address()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, said, err := fetch(t, s.URL("site"), Branch); err == nil || !strings.Contains(said, "Failed to connect") {
		t.Errorf("a stopped server: %v %s", err, said)
	}
	s, err := Start(t.Context(), dir, address)
	if err != nil {
		t.Fatal(err)
	}
	check(s, "draft", "draft", draft)
	check(s, Branch, "3", push(t, s, Branch, map[string]string{"a": "3"}))
	if err := s.Create("site"); err == nil {
		t.Error("it was created twice")
	}
}

func TestAPasswordIsAskedFor(t *testing.T) {
	s := start(t, t.TempDir())
	create(t, s, "site")
	push(t, s, Branch, map[string]string{"a": "1"})
	if err := s.Protect("site", "reader", "pass:word"); err != nil {
		t.Fatal(err)
	}
	for login, want := range map[string]string{
		"":                    "could not read Username",
		"reader:wrong@":       "Authentication failed",
		"writer:pass%3Aword@": "Authentication failed",
		"reader:pass%3Aword@": "",
	} {
		files, said, err := fetch(t, strings.Replace(s.URL("site"), "//", "//"+login, 1), Branch)
		if want == "" && (err != nil || files["a"] != "1") || want != "" && (err == nil || !strings.Contains(said, want)) {
			t.Errorf("as %q: %v, %v, %s; want %q", login, files, err, said, want)
		}
	}
}

func TestOverHTTPSTheCertificateIsTheServersOwn(t *testing.T) {
	s := start(t, t.TempDir())
	if err := s.ServeTLS(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "site")
	push(t, s, Branch, map[string]string{"a": "1"})
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, []byte(s.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	if files, said, err := fetch(t, s.TLSURL("site"), Branch, "GIT_SSL_CAINFO="+ca); err != nil || files["a"] != "1" {
		t.Errorf("%v, %v, %s", files, err, said)
	}
	if _, said, err := fetch(t, s.TLSURL("site"), Branch); err == nil || !strings.Contains(said, "certificate verification failed") {
		t.Errorf("whoever does not trust it: %v, %s", err, said)
	}
}

func TestCallersWaitUntilTheyAreReleased(t *testing.T) {
	s := start(t, t.TempDir())
	create(t, s, "site")
	push(t, s, Branch, map[string]string{"a": "1"})
	release, waiting, err := s.Hold("site")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := fetch(t, s.URL("site"), Branch)
		done <- err
	}()
	for waiting() == 0 {
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	release()
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if waiting() != 0 {
		t.Errorf("%d wait", waiting())
	}
}

func TestWhatIsNoRepositoryIsRefused(t *testing.T) {
	s := start(t, t.TempDir())
	if err := s.Create("../site"); err == nil {
		t.Error("a repository outside of the directory")
	}
	if _, err := s.Push(t.Context(), "nosuch", nil, ""); err == nil {
		t.Error("a push to what is not there")
	}
	create(t, s, "site")
	if _, err := s.Push(t.Context(), "site", map[string]string{"../a": ""}, ""); err == nil {
		t.Error("a file outside of the repository")
	}
	if _, said, err := fetch(t, s.URL("nosuch"), Branch); err == nil || !strings.Contains(said, "not found") {
		t.Errorf("%v %s", err, said)
	}
}
