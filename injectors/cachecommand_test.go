package injectors

import (
	"bufio"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestACacheThatIgnoresSIGTERMEndsByTheSignalOfItsCommand(t *testing.T) {
	tests := map[string]struct {
		signal, program string
	}{
		"SIGKILL, which cannot be ignored":     {"KILL", `trap "" TERM INT; echo up; while :; do sleep 60; done`},
		"SIGTERM, to what has a handler of it": {"TERM", `trap "exit 0" TERM; echo up; while :; do sleep 1; done`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			command := cacheCommand(test.signal)
			for i := range command {
				command[i] = strings.ReplaceAll(command[i], "$$", "$") // as the kubelet does
			}
			command = append(command, "sh", "-c", test.program)
			process := exec.CommandContext(t.Context(), command[0], command[1:]...) //nolint:gosec // it is the injectors' own
			process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			stdout, err := process.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := process.Start(); err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(-process.Process.Pid, syscall.SIGKILL) //nolint:errcheck // what it started, such as sleep
			if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "up\n" {
				t.Fatalf("it said %q: %v", line, err)
			}
			if err := process.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if _, err := process.Process.Wait(); err != nil { // else the test takes as long as go test lets it
				t.Fatal(err)
			}
		})
	}
}

func TestACacheThatDiesTakesItsContainerWithIt(t *testing.T) {
	command := cacheCommand("KILL")
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], "$$", "$")
	}
	err := exec.CommandContext(t.Context(), command[0], append(command[1:], "sh", "-c", "exit 71")...).Run() //nolint:gosec // as above
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 71 {
		t.Errorf("it ended with %v, want the cache's own status, 71", err)
	}
}
