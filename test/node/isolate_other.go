//go:build !linux

package node

import (
	"fmt"
	"os"
	"syscall"
)

// Isolate says that it cannot be done here, and runs nothing.
func Isolate(func() int) int {
	fmt.Fprintln(os.Stderr, "skipped: these tests need a node of Kubernetes, which only Linux can be")
	return 0
}

func apart() *syscall.SysProcAttr { return nil }

func snapshotter(string) string { return "" }

func cgroupPath(string) string { return "" }

func endAll(string) error { return nil }
