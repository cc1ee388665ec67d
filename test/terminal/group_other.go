//go:build !unix

package terminal

import "os/exec"

// endTogether can do nothing here: what a command has started may outlive it.
func endTogether(*exec.Cmd) {}
