//go:build !linux

package network

import (
	"fmt"
	"os"
)

// Isolate says that it cannot be done here, and runs nothing.
func Isolate(func() int) int {
	fmt.Fprintln(os.Stderr, "skipped: these tests need a network namespace of their own, which only Linux has")
	return 0
}
