//go:build unix

package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// leash makes commands end with this process, however it ends: a panic in a test, a timeout of go test and SIGKILL run no
// deferred function. Each command gets a watcher that waits for the end of a FIFO whose only writer is this process; the
// kernel closes it. The watcher is in the command's process group, so that an orderly stop ends it too.
type leash struct {
	dir  string
	fifo *os.File
}

func newLeash(dir string) (*leash, error) {
	path := filepath.Join(dir, "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make the FIFO %s: %w", path, err)
	}
	// For reading too: a FIFO that is opened only for writing waits for a reader.
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the FIFO: %w", err)
	}
	return &leash{dir: dir, fifo: fifo}, nil
}

// wrap returns the path of a script that becomes the command, with a watcher that ends it and removes the directory.
func (l *leash) wrap(command string) (string, error) {
	path := filepath.Join(l.dir, filepath.Base(command))
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s\n{ cat %s; kill -KILL $$; rm -rf %s; } </dev/null >/dev/null 2>&1 &\nexec %s \"$@\"\n",
		quote(pidFile(path)), quote(l.fifo.Name()), quote(l.dir), quote(command))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		return "", fmt.Errorf("write a script that runs %s: %w", command, err)
	}
	return path, nil
}

// pidFile is where a script that wrap made writes the id of its process, which becomes the command's.
func pidFile(script string) string { return script + ".pid" }

func (l *leash) close() error { return l.fifo.Close() }

// quote returns a word of the shell that is text, whatever is in it.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
