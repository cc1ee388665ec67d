package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asStandIn makes the program of this test be the stand-in.
const asStandIn = "PILLION_TEST_RUNS_STAND_IN"

// patience is how long a test waits for what it expects. Machines are slow.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asStandIn) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// server is a repository to sync from, and the volume to sync to.
type server struct {
	t      *testing.T
	bare   string // what is synced
	work   string // where commits are made
	volume string
	home   string
}

func newServer(t *testing.T) *server {
	t.Helper()
	folder := t.TempDir()
	s := &server{
		t: t, bare: filepath.Join(folder, "site.git"), work: filepath.Join(folder, "work"),
		volume: filepath.Join(folder, "volume"), home: filepath.Join(folder, "home"),
	}
	for _, dir := range []string{s.volume, s.home} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.git(folder, "init", "--quiet", "--bare", "--initial-branch=main", s.bare)
	s.git(folder, "init", "--quiet", "--initial-branch=main", s.work)
	return s
}

// git runs git with an identity and without this machine's configuration.
func (s *server) git(folder string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "protocol.file.allow=always"},
		args...)...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "HOME="+s.home, "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits files and pushes them to main. It returns the commit.
func (s *server) push(files map[string]string) string {
	s.t.Helper()
	for name, content := range files {
		path := filepath.Join(s.work, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.git(s.work, "add", "--all")
	s.git(s.work, "commit", "--quiet", "--message=change")
	s.git(s.work, "push", "--quiet", s.bare, "main")
	return s.git(s.work, "rev-parse", "HEAD")
}

// args are flags of the pattern, with some replaced or, if they end in -, left out.
func (s *server) args(base []string, changes ...string) []string {
	args := slices.Clone(base)
	changes = append([]string{
		"--repo=file://" + s.bare, "--root=" + s.volume + "/.git-sync", "--link=" + s.volume + "/current",
		"--sync-timeout=50s",
	}, changes...)
	if slices.Contains(base, "--max-failures=-1") {
		changes = append([]string{"--period=20ms", "--init-period=20ms", "--error-file=" + s.volume + "/error.json"}, changes...)
	}
	for _, change := range changes {
		name, _, _ := strings.Cut(change, "=")
		args = slices.DeleteFunc(args, func(arg string) bool { return strings.HasPrefix(arg, name+"=") })
		args = append(args, change)
	}
	return args
}

// process is a stand-in that runs.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	log  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (s *server) start(environment []string, args ...string) *process {
	s.t.Helper()
	p := &process{t: s.t, cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Env = append([]string{
		asStandIn + "=1", "HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always", // submodules by path
	}, environment...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // its status is looked at by those whom it concerns
		close(p.done)
	}()
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// wait returns the exit status, once the process has ended by itself.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("it did not end within %s:\n%s", patience, p.output())
		return 0
	}
}

// await waits for a condition while the process runs.
func (p *process) await(what string, condition func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.done:
			if condition() {
				return
			}
			p.t.Fatalf("it ended with %d before %s:\n%s", p.cmd.ProcessState.ExitCode(), what, p.output())
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %s: %s\n%s", patience, what, p.output())
		}
	}
}

// has tells whether a file of the link has this content.
func (s *server) has(name, content string) func() bool {
	return func() bool {
		got, err := os.ReadFile(filepath.Join(s.volume, "current", name))
		return err == nil && string(got) == content
	}
}

func TestThePushedFilesAppearAndNobodySeesHalfOfThem(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"a": "0", "b": "0"})
	p := s.start(nil, s.args(continuousArgs, "--stale-worktree-timeout=1h")...)
	p.await("the first sync", s.has("a", "0"))

	// A reader that goes through the link, and one that keeps the directory that it led to, as programs do.
	stop, problems := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(problems)
		for {
			select {
			case <-stop:
				return
			default:
			}
			directory, err := filepath.EvalSymlinks(filepath.Join(s.volume, "current"))
			if err != nil {
				problems <- fmt.Errorf("the link led nowhere: %w", err)
				return
			}
			a, errA := os.ReadFile(filepath.Join(directory, "a"))
			b, errB := os.ReadFile(filepath.Join(directory, "b"))
			if _, err := os.ReadFile(filepath.Join(s.volume, "current", "a")); err != nil || errA != nil || errB != nil {
				problems <- errors.Join(errors.New("a file was missing"), err, errA, errB)
				return
			}
			if !bytes.Equal(a, b) {
				problems <- fmt.Errorf("the files are of two commits: %s and %s", a, b)
				return
			}
		}
	}()
	for i := 1; i <= 5; i++ {
		n := fmt.Sprint(i)
		s.push(map[string]string{"a": n, "b": n})
		p.await("push "+n, s.has("a", n))
	}
	close(stop)
	if err := <-problems; err != nil {
		t.Error(err)
	}
	if target, err := os.Readlink(s.volume + "/current"); err != nil || filepath.IsAbs(target) {
		t.Errorf("the link leads to %q (%v); an absolute path is another one in the app's container", target, err)
	}
	if info, err := os.Stat(s.volume + "/current/a"); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the file has mode %v (%v); want 0644, so that any user reads it", info.Mode(), err)
	}
}

func TestARefIsABranchATagOrACommit(t *testing.T) {
	s := newServer(t)
	first := s.push(map[string]string{"page": "first"})
	s.git(s.work, "tag", "--annotate", "--message=v1", "v1")
	s.push(map[string]string{"page": "second"})
	s.git(s.work, "push", "--quiet", "--tags", s.bare)
	s.git(s.bare, "config", "uploadpack.allowAnySHA1InWant", "true") // as hosts of git do

	for ref, want := range map[string]string{"main": "second", "HEAD": "second", "v1": "first", "refs/tags/v1": "first", first: "first"} {
		t.Run(ref, func(t *testing.T) {
			of := *s
			of.t, of.volume = t, t.TempDir()
			p := of.start(nil, of.args(onceArgs, "--ref="+ref)...)
			if status := p.wait(); status != 0 || !of.has("page", want)() {
				t.Errorf("it ended with %d and has not the page of the %s commit:\n%s", status, want, p.output())
			}
		})
	}
}

func TestDepthSparseFilesAndSubmodules(t *testing.T) {
	s := newServer(t)
	theme := newServer(t)
	theme.push(map[string]string{"colors": "blue"})
	s.push(map[string]string{"docs/page": "page", "code/main": "main"})
	s.git(s.work, "submodule", "--quiet", "add", theme.bare, "theme")
	s.push(map[string]string{"docs/page": "page 2"})
	patterns := filepath.Join(t.TempDir(), "sparse")
	if err := os.WriteFile(patterns, []byte("/docs/\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		args          []string
		present, gone []string
		commits       string
	}{
		"one commit and no submodules": {
			args: []string{"--depth=1", "--submodules=off"}, present: []string{"docs/page", "code/main"}, gone: []string{"theme/colors"}, commits: "1",
		},
		"all commits and submodules": {
			args: []string{"--depth=0", "--submodules=recursive"}, present: []string{"docs/page", "theme/colors"}, commits: "2",
		},
		"submodules, but not theirs": {args: []string{"--submodules=shallow"}, present: []string{"theme/colors"}, commits: "1"},
		"some of the files": {
			args: []string{"--submodules=off", "--sparse-checkout-file=" + patterns}, present: []string{"docs/page"}, gone: []string{"code/main"}, commits: "1",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			of := *s
			of.t, of.volume = t, t.TempDir()
			p := of.start(nil, of.args(onceArgs, test.args...)...)
			if status := p.wait(); status != 0 {
				t.Fatalf("it ended with %d:\n%s", status, p.output())
			}
			for _, file := range test.present {
				if _, err := os.Stat(filepath.Join(of.volume, "current", file)); err != nil {
					t.Errorf("%s is not there", file)
				}
			}
			for _, file := range test.gone {
				if _, err := os.Stat(filepath.Join(of.volume, "current", file)); err == nil {
					t.Errorf("%s is there", file)
				}
			}
			if commits := of.git(filepath.Join(of.volume, "current"), "rev-list", "--count", "HEAD"); commits != test.commits {
				t.Errorf("the history has %s commits; want %s", commits, test.commits)
			}
		})
	}
}

func TestFailuresBeforeTheFirstSyncAreTold(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "page"})
	told := func() string {
		content, _ := os.ReadFile(s.volume + "/error.json")
		return string(content)
	}
	p := s.start(nil, s.args(continuousArgs, "--ref=late")...)
	for range 6 { // each failure writes the file anew
		p.await("a failure", func() bool { return strings.Contains(told(), "couldn't find remote ref late") })
		if err := os.Remove(s.volume + "/error.json"); err != nil {
			t.Fatal(err)
		}
	}
	s.git(s.work, "push", "--quiet", s.bare, "HEAD:late")
	p.await("the first sync", s.has("page", "page"))
	p.await("no failure to tell", func() bool { return told() == "" })
}

func TestFailuresBeforeTheFirstSyncEndIt(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "page"})
	for name, test := range map[string]struct {
		args     []string
		failures int
		want     string
	}{
		"a ref that is not there":        {args: s.args(continuousArgs, "--ref=nosuch", "--max-failures=3"), failures: 3, want: "couldn't find remote ref nosuch"},
		"a repository that is not there": {args: s.args(continuousArgs, "--repo=file:///nosuch", "--max-failures=2"), failures: 2, want: "/nosuch"},
		"once":                           {args: s.args(onceArgs, "--ref=nosuch"), failures: 1, want: "couldn't find remote ref nosuch"},
		"a password that cannot be read": {
			args:     s.args(onceArgs, "--username=git", "--password-file=/nosuch/password"),
			failures: 1, want: `can't read password file "/nosuch/password": open /nosuch/password`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := s.start(nil, test.args...)
			if status := p.wait(); status != 1 {
				t.Errorf("it ended with %d; want 1", status)
			}
			lines := strings.Split(strings.TrimSpace(p.output()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(p.output(), fmt.Sprintf("aborting after %d: ", test.failures)) {
				t.Errorf("the last line is %q; want %d failures", last, test.failures)
			}
			if !strings.Contains(p.output(), test.want) {
				t.Errorf("the log has no %q:\n%s", test.want, p.output())
			}
			if _, err := os.Lstat(s.volume + "/current"); err == nil {
				t.Error("the link is there, and the app would start")
			}
		})
	}
}

func TestFailuresAfterTheFirstSync(t *testing.T) {
	for name, test := range map[string]struct {
		limit string
		ends  bool
	}{
		"end it at the limit":        {limit: "--max-failures=3", ends: true},
		"do not without a limit":     {limit: "--max-failures=-1"},
		"end it at once with 0, too": {limit: "--max-failures=0", ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.push(map[string]string{"page": "1"})
			p := s.start(nil, s.args(continuousArgs, test.limit)...)
			p.await("the first sync", s.has("page", "1"))
			if err := os.Rename(s.bare, s.bare+".away"); err != nil {
				t.Fatal(err)
			}
			if test.ends {
				if status := p.wait(); status != 1 || !strings.Contains(p.output(), "too many failures, aborting") {
					t.Errorf("it ended with %d:\n%s", status, p.output())
				}
				return
			}
			p.await("ten failures", func() bool { return strings.Contains(p.output(), "(failure 10)") })
			if !s.has("page", "1")() {
				t.Error("the files went while the server was away")
			}
			if err := os.Rename(s.bare+".away", s.bare); err != nil {
				t.Fatal(err)
			}
			s.push(map[string]string{"page": "2"})
			p.await("the push after the server came back", s.has("page", "2"))
		})
	}
}

func TestASecondRunGoesOnWhereTheFirstEnded(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "1"})
	if p := s.start(nil, s.args(onceArgs)...); p.wait() != 0 {
		t.Fatal(p.output())
	}
	// Somebody empties the files, and a link was not finished: both are mended.
	worktree, err := filepath.EvalSymlinks(s.volume + "/current")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(worktree), os.Symlink("nowhere", s.volume+"/.git-sync-next-current")); err != nil {
		t.Fatal(err)
	}
	p := s.start(nil, s.args(continuousArgs)...)
	p.await("the files of before", s.has("page", "1"))
	s.push(map[string]string{"page": "2"})
	p.await("the push", s.has("page", "2"))
}

func TestARepositoryThatAKilledGitLeftLockedIsFetchedAnew(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "1"})
	if p := s.start(nil, s.args(onceArgs)...); p.wait() != 0 {
		t.Fatal(p.output())
	}
	s.push(map[string]string{"page": "2"})
	if err := os.WriteFile(s.volume+"/.git-sync/.git/shallow.lock", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if p := s.start(nil, s.args(onceArgs)...); p.wait() != 0 || !s.has("page", "2")() {
		t.Errorf("the page is not the second:\n%s", p.output())
	}
}

func TestOldFilesStayForAWhile(t *testing.T) {
	s := newServer(t)
	first := s.push(map[string]string{"page": "1"})
	old := filepath.Join(s.volume, ".git-sync", ".worktrees", first)

	p := s.start(nil, s.args(continuousArgs, "--stale-worktree-timeout=1h")...)
	p.await("the first sync", s.has("page", "1"))
	s.push(map[string]string{"page": "2"})
	p.await("the push", s.has("page", "2"))
	if _, err := os.Stat(filepath.Join(old, "page")); err != nil {
		t.Errorf("the old files went before their time: %v", err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done

	p = s.start(nil, s.args(continuousArgs, "--stale-worktree-timeout=50ms")...)
	p.await("the end of the old files", func() bool { _, err := os.Stat(old); return os.IsNotExist(err) })
	if !s.has("page", "2")() {
		t.Error("the new files went too")
	}
}

func TestItEndsOfSIGTERMWith143(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "1"})
	p := s.start(nil, s.args(continuousArgs)...)
	p.await("the first sync", s.has("page", "1"))
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 143 {
		t.Errorf("it ended with %d; want 143", status)
	}
}

func TestARefusedFlagEndsItAtOnce(t *testing.T) {
	s := newServer(t)
	p := s.start(nil, s.args(continuousArgs, "--verbose=1")...)
	if status := p.wait(); status != 1 || !strings.Contains(p.output(), "is no flag that Pillion gives git-sync") {
		t.Errorf("it ended with %d:\n%s", status, p.output())
	}
	if entries, _ := os.ReadDir(s.volume); len(entries) > 0 {
		t.Errorf("it wrote %v all the same", entries)
	}
}

func TestARootOfAnotherUserIsRefusedByGit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory to another user")
	}
	s := newServer(t)
	s.push(map[string]string{"page": "1"})
	root := s.volume + "/.git-sync"
	if p := s.start(nil, s.args(onceArgs)...); p.wait() != 0 {
		t.Fatal(p.output())
	}
	if err := os.Chown(root, 65533, 65533); err != nil {
		t.Fatal(err)
	}
	p := s.start(nil, s.args(onceArgs)...)
	if status := p.wait(); status != 1 || !strings.Contains(p.output(), "dubious ownership") {
		t.Errorf("it ended with %d:\n%s", status, p.output())
	}
}
