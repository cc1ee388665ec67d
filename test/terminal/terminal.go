// Package terminal is where the demonstrations type: commands as people do, and what they print, indented below them.
package terminal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// patience is how long what a command has started may keep its output open when it is told to end.
const patience = 5 * time.Second

// Terminal runs commands in a directory.
type Terminal struct {
	Out io.Writer
	Dir string

	// Path are directories that programs are looked for in first. Env is NAME=VALUE, beside this process's own.
	Path, Env []string
}

// Heading begins a part of a demonstration.
func (t *Terminal) Heading(number int, title string) {
	_, _ = fmt.Fprintf(t.Out, "\n%d. %s\n", number, title)
}

// Say prints a line of the demonstration's own.
func (t *Terminal) Say(format string, arguments ...any) {
	_, _ = fmt.Fprintf(t.Out, "   "+format+"\n", arguments...)
}

// Run prints a command of bash, runs it, and prints what it prints. A command that fails returns an *exec.ExitError.
func (t *Terminal) Run(ctx context.Context, command string) error {
	t.Say("$ %s", strings.ReplaceAll(command, "\n", "\n     "))
	out := &lines{each: t.show}
	err := t.run(ctx, command, out)
	out.end()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// Background is Run for a command that goes on until the context ends. It returns when the command has printed a line that begins
// with a text; what it prints later is not shown.
func (t *Terminal) Background(ctx context.Context, command, begins string) error {
	t.Say("$ %s &", command)
	begun, ended := make(chan struct{}), make(chan error, 1)
	out := &lines{each: func(line string) {
		select {
		case <-begun:
			return
		default:
		}
		t.show(line)
		if strings.HasPrefix(line, begins) {
			close(begun)
		}
	}}
	go func() { ended <- t.run(ctx, command, out) }()
	select {
	case <-begun:
		return nil
	case err := <-ended:
		return fmt.Errorf("%s: it ended without a line that begins with %q: %w", command, begins, err)
	}
}

// Quietly runs a command that is not worth showing, and returns what it prints. What it complains of is told if it fails.
func (t *Terminal) Quietly(ctx context.Context, command string) (string, error) {
	var said bytes.Buffer
	if err := t.run(ctx, command, &said); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, &said)
	}
	return strings.TrimSpace(said.String()), nil
}

func (t *Terminal) run(ctx context.Context, command string, out io.Writer) error {
	bash := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail; "+command)
	bash.Dir, bash.Env, bash.WaitDelay = t.Dir, t.environment(), patience
	bash.Stdout, bash.Stderr = out, out
	endTogether(bash)
	return bash.Run()
}

func (t *Terminal) environment() []string {
	path := append(append([]string{}, t.Path...), os.Getenv("PATH"))
	return append(append(os.Environ(), t.Env...), "PATH="+strings.Join(path, string(os.PathListSeparator)))
}

// show prints a line that a command has printed.
func (t *Terminal) show(line string) {
	_, _ = fmt.Fprintln(t.Out, strings.TrimRight("     "+line, " "))
}

// lines calls a function for each line that is written, as soon as it is there.
type lines struct {
	each func(string)
	part []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.call(line)
		l.part = rest
	}
}

// end is for what has no end of line.
func (l *lines) end() {
	if len(l.part) > 0 {
		l.call(l.part)
	}
}

func (l *lines) call(line []byte) {
	// Of what a program writes over itself on a screen, the last is what stays.
	line = bytes.TrimRight(line, "\r ")
	l.each(string(line[bytes.LastIndexByte(line, '\r')+1:]))
}

// IgnoreFailure drops the error of a command that failed: it has said why itself.
func IgnoreFailure(err error) error {
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return nil
	}
	return err
}

// Steps returns a function that prints what begins, with the seconds since the start.
func Steps(out io.Writer) func(string) {
	start := time.Now()
	return func(what string) {
		_, _ = fmt.Fprintf(out, "%4.1fs %s\n", time.Since(start).Seconds(), what)
	}
}
