package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// cgroupParent is the cgroup that all nodes have theirs in, in every hierarchy.
const cgroupParent = "pillion-node"

// cgroupPath is the cgroup that holds the Pods of a node, in every hierarchy.
func cgroupPath(name string) string { return "/" + cgroupParent + "/" + name }

// needed are the controllers without which no kubelet starts.
var needed = []string{"cpu", "cpuset", "memory", "pids"}

// hierarchy is a mount of cgroups: one of version 2 holds all controllers, of version 1 there are several with some each.
type hierarchy struct {
	mount string
	two   bool
}

// hierarchies returns the mounts of cgroups that there are.
func hierarchies() ([]hierarchy, error) {
	file, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	var found []hierarchy
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && strings.HasPrefix(fields[2], "cgroup") {
			found = append(found, hierarchy{mount: fields[1], two: fields[2] == "cgroup2"})
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroups are mounted, at /sys/fs/cgroup or elsewhere")
	}
	return found, lines.Err()
}

// makeCgroups makes a node's cgroups, ready for the kubelet to make those of Pods in them.
func makeCgroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		at := h.mount
		for _, part := range []string{cgroupParent, name} {
			if h.two {
				delegate(at)
			}
			parent := at
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make a cgroup: %w", err)
			}
			if err := inheritCPUs(parent, at); err != nil {
				return err
			}
		}
		// Beside hierarchies of version 1 the one of version 2 has no controllers, and needs none.
		if h.two && len(all) == 1 {
			if err := checkControllers(at); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the cgroups below one have its controllers. What it cannot give is found where it is missing.
func delegate(cgroup string) {
	content, err := os.ReadFile(filepath.Join(cgroup, "cgroup.controllers"))
	if err != nil {
		return
	}
	for controller := range strings.FieldsSeq(string(content)) {
		_ = os.WriteFile(filepath.Join(cgroup, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

// checkControllers says what to do where a cgroup of version 2 lacks controllers.
func checkControllers(cgroup string) error {
	content, err := os.ReadFile(filepath.Join(cgroup, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the controllers of a cgroup: %w", err)
	}
	has := strings.Fields(string(content))
	missing := slices.DeleteFunc(slices.Clone(needed), func(controller string) bool { return slices.Contains(has, controller) })
	if len(missing) > 0 {
		return fmt.Errorf("cgroup %s lacks the controllers %s, which the cgroups above do not pass on. In a container that is so "+
			"while processes are in its topmost cgroup: run it with --cgroupns=host, or on the machine itself",
			cgroup, strings.Join(missing, ", "))
	}
	return nil
}

// inheritCPUs gives a cgroup of version 1 its parent's CPUs and memory nodes: it starts with none, and then nothing can run in
// it.
func inheritCPUs(parent, cgroup string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(cgroup, file))
		if err != nil || len(bytes.TrimSpace(own)) > 0 {
			continue // another controller's hierarchy
		}
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil || len(bytes.TrimSpace(value)) == 0 {
			continue // version 2: empty means the parent's
		}
		if err := os.WriteFile(filepath.Join(cgroup, file), value, 0); err != nil {
			return fmt.Errorf("give cgroup %s its %s: %w", cgroup, file, err)
		}
	}
	return nil
}

// removeCgroups removes a node's cgroups, and waits for that until the kernel is done with the processes that were in them. The
// parent goes with the last of them.
func removeCgroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var last error
	remove := func(context.Context) (bool, error) {
		var errs []error
		for _, h := range all {
			errs = append(errs, removeTree(filepath.Join(h.mount, cgroupPath(name))))
		}
		last = errors.Join(errs...)
		return last == nil, nil
	}
	err = wait.PollUntilContextTimeout(context.Background(), 10*time.Millisecond, patienceWithLeftovers, true, remove)
	if err != nil {
		return fmt.Errorf("remove cgroups: %w", errors.Join(err, last))
	}
	for _, h := range all {
		err := os.Remove(filepath.Join(h.mount, cgroupParent))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroups: %w", err)
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it, and kills what is still in them. Only what is in no use can be removed.
func removeTree(cgroup string) error {
	err := walk(cgroup, func(dir string) error {
		killIn(dir)
		return os.Remove(dir)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// walk visits a cgroup after those below it.
func walk(cgroup string, visit func(string) error) error {
	entries, err := os.ReadDir(cgroup)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := walk(filepath.Join(cgroup, entry.Name()), visit); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return visit(cgroup)
}

// killIn kills the processes of a cgroup.
func killIn(cgroup string) {
	content, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return
	}
	for line := range strings.FieldsSeq(string(content)) {
		// 0 stands for a process that this one cannot see.
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// endAll ends the containers of a node and the shims that hold them. It is called in the namespaces, which have no others.
func endAll(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		err := walk(filepath.Join(h.mount, cgroupPath(name)), func(dir string) error { killIn(dir); return nil })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("end containers: %w", err)
		}
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, file := range names {
		if comm, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(comm), "containerd-shim") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}
