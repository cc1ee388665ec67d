//go:build unix

package terminal

import (
	"os/exec"
	"syscall"
)

// endTogether has a command end with all that it has started.
func endTogether(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
}
