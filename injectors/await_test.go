package injectors

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// commandOf is the command that the kubelet would run in the container.
func commandOf(t *testing.T, lifecycle *corev1.Lifecycle) *exec.Cmd {
	t.Helper()
	command := lifecycle.PostStart.Exec.Command
	return exec.CommandContext(t.Context(), command[0], command[1:]...) //nolint:gosec // it is the injectors' own
}

func TestAHookWaitsUntilItsCommandSucceeds(t *testing.T) {
	file := filepath.Join(t.TempDir(), `a "file" of $HOME`)
	command := commandOf(t, awaited(time.Minute, "test", "-e", file))
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended before its command succeeded: %v", err)
	case <-time.After(300 * time.Millisecond): // a few rounds
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAHookSaysWhatItWaitedForInVain(t *testing.T) {
	said, err := commandOf(t, awaited(time.Second, "test", "-e", "/git/$current/")).CombinedOutput()
	if err == nil {
		t.Error("it succeeded")
	}
	if got, want := string(said), "gave up: test -e /git/$current/\n"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
}

func TestWhatAHookAsksForItsOwnSakeIsNotSaid(t *testing.T) {
	said, err := commandOf(t, awaited(time.Second, "echo", "PONG")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(said)) != "" {
		t.Errorf("it said %q (%v), want nothing", said, err)
	}
}

func TestAHookWithoutItsProgramGivesUp(t *testing.T) {
	said, err := commandOf(t, awaited(time.Second, "no-such-program", "ping")).CombinedOutput()
	if err == nil || !strings.Contains(string(said), "no-such-program ping") {
		t.Errorf("it said %q (%v), want an error that names the program", said, err)
	}
}

// gitSyncHook is the hook of git-sync, looking at a directory of the test's.
func gitSyncHook(t *testing.T, timeout time.Duration) (command *exec.Cmd, link, failure string) {
	t.Helper()
	dir := t.TempDir()
	link, failure = filepath.Join(dir, "current"), filepath.Join(dir, "error.json")
	return commandOf(t, hook(firstSyncMain, timeout, link+"/", failure)), link, failure
}

func TestTheHookOfGitSyncGivesUpAfterFiveFailuresWithTheCause(t *testing.T) {
	command, _, failure := gitSyncHook(t, time.Minute)
	if err := os.WriteFile(failure, []byte("of a run before"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	command.Stdout = &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	gone := func() bool { _, err := os.Stat(failure); return os.IsNotExist(err) }
	for n := range 6 { // the first is not of this run
		for !gone() {
			time.Sleep(time.Millisecond)
		}
		if n == 5 {
			break
		}
		written := failure + ".new"
		if err := errors.Join(os.WriteFile(written, []byte(`{"Err":"ref v`+strconv.Itoa(n)+` not found"}`), 0o600),
			os.Rename(written, failure)); err != nil {
			t.Fatal(err)
		}
	}
	if err := command.Wait(); err == nil {
		t.Error("it succeeded")
	}
	if got, want := said.String(), `gave up after 5 failures: {"Err":"ref v4 not found"}`+"\n"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
}

func TestTheHookOfGitSyncIsContentWithFilesFromBefore(t *testing.T) {
	command, link, _ := gitSyncHook(t, time.Minute)
	if err := os.Mkdir(link, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := command.Run(); err != nil {
		t.Error(err)
	}
}

func TestTheHookOfGitSyncGivesUpInTime(t *testing.T) {
	command, link, _ := gitSyncHook(t, time.Second)
	if err := os.Symlink("nowhere", link); err != nil { // a link is no files yet
		t.Fatal(err)
	}
	if said, err := command.Output(); err == nil || string(said) != "gave up after 0 failures: \n" {
		t.Errorf("it said %q (%v)", said, err)
	}
}
