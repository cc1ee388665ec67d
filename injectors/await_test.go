package injectors

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// hook is the command that the kubelet would run in the container.
func hook(t *testing.T, lifecycle *corev1.Lifecycle) *exec.Cmd {
	t.Helper()
	command := lifecycle.PostStart.Exec.Command
	return exec.CommandContext(t.Context(), command[0], command[1:]...) //nolint:gosec // it is the injectors' own
}

func TestAHookWaitsUntilItsCommandSucceeds(t *testing.T) {
	file := filepath.Join(t.TempDir(), `a "file" of $HOME`)
	command := hook(t, awaited(time.Minute, "test", "-e", file))
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
	said, err := hook(t, awaited(time.Second, "test", "-e", "/git/$current/")).CombinedOutput()
	if err == nil {
		t.Error("it succeeded")
	}
	if got, want := string(said), "gave up: test -e /git/$current/\n"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
}

func TestWhatAHookAsksForItsOwnSakeIsNotSaid(t *testing.T) {
	said, err := hook(t, awaited(time.Second, "echo", "PONG")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(said)) != "" {
		t.Errorf("it said %q (%v), want nothing", said, err)
	}
}

func TestAHookWithoutItsProgramGivesUp(t *testing.T) {
	said, err := hook(t, awaited(time.Second, "no-such-program", "ping")).CombinedOutput()
	if err == nil || !strings.Contains(string(said), "no-such-program ping") {
		t.Errorf("it said %q (%v), want an error that names the program", said, err)
	}
}
