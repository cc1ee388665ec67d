package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/pillion-dev/pillion/test/installation"
)

// openTerminal returns both ends of a terminal: ours, and that of the program that writes to it.
func openTerminal(t *testing.T) (ours, its *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	unlocked, number := int32(0), uint32(0)
	for request, argument := range map[uintptr]unsafe.Pointer{
		syscall.TIOCSPTLCK: unsafe.Pointer(&unlocked), syscall.TIOCGPTN: unsafe.Pointer(&number), // as ioctl_tty(2) has it
	} {
		if _, _, fault := syscall.Syscall(syscall.SYS_IOCTL, ours.Fd(), request, uintptr(argument)); fault != 0 {
			t.Fatal(fault)
		}
	}
	its, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = its.Close() })
	return ours, its
}

// written returns what a command writes to a file, which is closed, as it is read from another.
func written(t *testing.T, to, from *os.File, args ...string) string {
	t.Helper()
	command := rootCommand()
	command.SetOut(to)
	command.SetErr(io.Discard)
	command.SetArgs(args)
	read := make(chan string)
	go func() {
		text, _ := io.ReadAll(from) // of a terminal whose other end is closed reading ends in an error
		read <- string(text)
	}()
	if err := command.ExecuteContext(t.Context()); err != nil {
		t.Error(err)
	}
	_ = to.Close()
	return <-read
}

// TestCommandsThatWaitForStdinEndAtOnce interrupts a command as Ctrl-C does, once it reads what nobody writes.
func TestCommandsThatWaitForStdinEndAtOnce(t *testing.T) {
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(profile, []byte(siteProfile), 0o600); err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	command := exec.CommandContext(t.Context(), binary, "review", "--profiles", profile) //nolint:gosec // it was built above
	command.Stdin = from
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- command.Wait() }()
	// It has taken the first byte once the pipe is empty, and then waits for more.
	if _, err := to.WriteString("{"); err != nil {
		t.Fatal(err)
	}
	for left := int32(1); left > 0; runtime.Gosched() {
		if _, _, fault := syscall.Syscall(syscall.SYS_IOCTL, from.Fd(), syscall.TIOCINQ, uintptr(unsafe.Pointer(&left))); fault != 0 {
			t.Fatal(fault)
		}
	}
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
		if !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
			t.Errorf("it ended otherwise: %v", err)
		}
	case <-time.After(10 * time.Second):
		_ = command.Process.Kill()
		t.Error("it goes on")
	}
}

func TestOutputThatIsLostIsAnError(t *testing.T) {
	directory := t.TempDir()
	profile, pod := filepath.Join(directory, "site.yaml"), filepath.Join(directory, "review.yaml")
	review := "{apiVersion: admission.k8s.io/v1, kind: AdmissionReview, request: {uid: u, operation: CREATE, namespace: web, " +
		"resource: {version: v1, resource: pods}, object: {spec: {containers: [{name: app}]}}}}\n"
	if err := errors.Join(os.WriteFile(profile, []byte(siteProfile), 0o600), os.WriteFile(pod, []byte(review), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"version"},
		{"docs"},
		{"docs", "Applied", "-o", "json"},
		{"review", "-f", pod, "-p", profile},
		{"profiles", "-p", profile},
		{"profiles", "-p", profile, "-n", "kube-system"},
		{"profiles", "site", "-p", profile},
	} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		command := rootCommand()
		command.SetOut(full)
		command.SetErr(io.Discard)
		command.SetArgs(args)
		if err := command.ExecuteContext(t.Context()); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v: %v", args, err)
		}
		_ = full.Close()
	}
}

func TestColorsAreForTerminals(t *testing.T) {
	const bold = "\x1b[1mPortCollision\x1b[0m"
	tests := map[string]struct {
		environment map[string]string
		isTerminal  bool
		want        bool
	}{
		"on a terminal":                             {isTerminal: true, want: true},
		"not in a pipe":                             {},
		"not where NO_COLOR is set":                 {environment: map[string]string{"NO_COLOR": "1"}, isTerminal: true},
		"not on a terminal that is dumb":            {environment: map[string]string{"TERM": "dumb"}, isTerminal: true},
		"where NO_COLOR is empty, as if it was not": {environment: map[string]string{"NO_COLOR": ""}, isTerminal: true, want: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_COLOR", "")
			t.Setenv("TERM", "xterm-256color")
			for key, value := range test.environment {
				t.Setenv(key, value)
			}
			ours, its := openTerminal(t)
			if !test.isTerminal {
				var err error
				if ours, its, err = os.Pipe(); err != nil {
					t.Fatal(err)
				}
			}
			got := written(t, its, ours, "docs", "PortCollision")
			if !strings.Contains(got, "PortCollision") {
				t.Fatalf("nothing is printed: %q", got)
			}
			if strings.Contains(got, bold) != test.want || strings.Contains(got, "\x1b") != test.want {
				t.Errorf("%q", got)
			}
		})
	}
}

// What people are shown on a terminal is, but for colors, what everybody else gets.
func TestColorsAreAllThatATerminalGetsMore(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm-256color")
	path := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(path, []byte(shelfProfiles), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"docs"}, {"profiles", "-p", path, "-n", "web"}, {"profiles", "site", "-p", path, "-n", "web"}} {
		ours, its := openTerminal(t)
		onTerminal := written(t, its, ours, args...)
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		plain := written(t, to, from, args...)
		for _, code := range []string{"\x1b[0m", "\x1b[1m", "\x1b[2m", "\r"} {
			onTerminal = strings.ReplaceAll(onTerminal, code, "")
		}
		if onTerminal != plain || strings.Contains(plain, "\x1b") {
			t.Errorf("%v: %q, %q", args, onTerminal, plain)
		}
	}
}
