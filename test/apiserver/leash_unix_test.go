//go:build unix

package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// childVariable tells this test binary, run by TestAServerEndsWithTheProcessThatStartedIt, that it is the process to end.
const childVariable = "PILLION_TEST_APISERVER_CHILD"

// TestAServerEndsWithTheProcessThatStartedIt starts a server in a process of its own and kills that: nothing may stay behind.
func TestAServerEndsWithTheProcessThatStartedIt(t *testing.T) {
	temporary := t.TempDir()
	if os.Getenv(childVariable) != "" {
		start(t)
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), childVariable+"=1", "TMPDIR="+temporary)
	output, err := child.CombinedOutput()
	if child.ProcessState == nil || child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process was to be killed, not to end with %v: %s", err, output)
	}
	err = apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		files, err := filepath.Glob(filepath.Join(temporary, "pillion-apiserver-*"))
		processes := processesNaming(t, temporary)
		return len(files)+len(processes) == 0, errors.Join(err, fmt.Errorf("files %q, processes %q", files, processes))
	})
	if err != nil {
		t.Errorf("something of the server is still there: %v", err)
	}
}

// processesNaming returns the command lines of the processes that have text in theirs.
func processesNaming(t *testing.T, text string) []string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "ps", "-eo", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}
