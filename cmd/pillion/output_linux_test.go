package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"
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
