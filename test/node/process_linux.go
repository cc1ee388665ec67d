package node

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart keeps signals from a process that a terminal sends to this one. It ends with the namespaces at the latest.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// snapshotter returns how containerd can store images below a directory: by layers over each other, or, where the file system
// there does not allow that, as in most containers, by copies.
func snapshotter(dir string) string {
	at, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return "native"
	}
	defer os.RemoveAll(at) //nolint:errcheck // the directory above is removed too
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(at, sub), 0o755); err != nil {
			return "native"
		}
	}
	merged := filepath.Join(at, "merged")
	layers := fmt.Sprintf("lowerdir=%s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", at)
	if err := unix.Mount("overlay", merged, "overlay", 0, layers); err != nil {
		return "native"
	}
	if err := unix.Unmount(merged, unix.MNT_DETACH); err != nil {
		return "native"
	}
	return "overlayfs"
}
