package terminal

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestWhatCommandsPrintStandsIndentedBelowThem(t *testing.T) {
	tests := map[string]struct {
		command, want string
		fails         bool
	}{
		"lines and complaints in their order": {
			command: "echo one; echo two >&2; echo; printf three",
			want:    "   $ echo one; echo two >&2; echo; printf three\n     one\n     two\n\n     three\n",
		},
		"a command of two lines": {command: "echo \\\n  one", want: "   $ echo \\\n       one\n     one\n"},
		"the last of what is written over itself": {
			command: `printf '10%%\r100%%\n'`, want: "   $ printf '10%%\\r100%%\\n'\n     100%\n",
		},
		"a failure in front of a pipe": {command: "false | cat", want: "   $ false | cat\n", fails: true},
		"programs of the path, in the directory, with the environment": {
			command: "tool", want: "   $ tool\n     here and set\n",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out := &bytes.Buffer{}
			terminal := &Terminal{Out: out, Dir: "testdata/dir", Path: []string{"../path"}, Env: []string{"SETTING=set"}}
			err := terminal.Run(t.Context(), tc.command)
			if (err != nil) != tc.fails || out.String() != tc.want {
				t.Errorf("it prints %q (%v), want %q", out, err, tc.want)
			}
			if failed := (*exec.ExitError)(nil); tc.fails && (!errors.As(err, &failed) || IgnoreFailure(err) != nil) {
				t.Errorf("the error is %v, want that of a command that failed", err)
			}
		})
	}
}

func TestACommandThatIsToldToEndEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := writer(func(p []byte) {
		if strings.Contains(string(p), "begun") {
			cancel()
		}
	})
	began := time.Now()
	err := (&Terminal{Out: out}).Run(ctx, "printf 'be'; echo gun; sleep 600 & sleep 600")
	if err == nil || time.Since(began) > patience {
		t.Errorf("after %s it ended with %v", time.Since(began), err)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestAQuietCommandSaysWhatItComplainsOfOnlyIfItFails(t *testing.T) {
	terminal := &Terminal{}
	if said, err := terminal.Quietly(t.Context(), "echo one"); said != "one" || err != nil {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := terminal.Quietly(t.Context(), "echo why >&2; false"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("the error is %v", err)
	}
}

func TestACommandInTheBackgroundIsShownUntilItHasBegunAndEndsWithTheContext(t *testing.T) {
	out := &bytes.Buffer{}
	terminal := &Terminal{Out: out}
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	command := "echo $$ > " + dir + "/pid; echo first; echo begun now; echo more; sleep 600"
	if err := terminal.Background(ctx, command, "begun"); err != nil {
		t.Fatal(err)
	}
	if want := "   $ " + command + " &\n     first\n     begun now\n"; out.String() != want {
		t.Errorf("it prints %q, want %q", out, want)
	}
	pid, err := terminal.Quietly(t.Context(), "cat "+dir+"/pid")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := terminal.Quietly(t.Context(), "kill -0 "+pid); err != nil {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("process %s goes on", pid)
		}
	}
	if err := terminal.Background(t.Context(), "echo first", "begun"); err == nil || !strings.Contains(err.Error(), "begun") {
		t.Errorf("a command that ends before it has begun: %v", err)
	}
}
