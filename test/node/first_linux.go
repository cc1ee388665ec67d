package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tunables are the settings of the kernel that a kubelet wants, for the whole machine. The machine is not the node's to change:
// the kubelet reads that they are as it wants them, and leaves them alone.
var tunables = map[string]string{
	"vm/overcommit_memory":     "1",
	"vm/panic_on_oom":          "0",
	"kernel/panic":             "10",
	"kernel/panic_on_oops":     "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// first is the first process of the namespaces: it makes them what a node needs, runs this program once more, and collects
// whatever ends there, for the shims of containerd have no other parent. It returns the program's exit code, and with it
// everything ends.
func first(dir string) (int, error) {
	if err := mountAll(dir); err != nil {
		return 0, err
	}
	if err := unix.Sethostname([]byte(Name)); err != nil {
		return 0, fmt.Errorf("set the host name: %w", err)
	}
	if err := setUpNetwork(); err != nil {
		return 0, err
	}
	// The child has the group's signals from here only, as this process has them from outside.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	// Not by exec.Cmd, which would wait for it and find that reap has. No proxy of the machine is reached from here.
	for name, value := range map[string]string{
		variable: roleRun + ":" + dir, "TMPDIR": filepath.Join(dir, dirTmp), "PATH": os.Getenv("PATH") + ":" + searchPath,
		"NO_PROXY": "*", "no_proxy": "*",
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &unix.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("run this program again: %w", err)
	}
	pid := child.Pid
	go func() {
		for s := range signals {
			if number, ok := s.(unix.Signal); ok {
				_ = unix.Kill(pid, number)
			}
		}
	}()
	return reap(pid)
}

// reap collects what ends until that is the process asked for, and returns its exit code.
func reap(child int) (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for processes: %w", err)
		case pid == child && status.Signaled():
			fmt.Fprintf(os.Stderr, "ended by signal %s\n", status.Signal())
			return 128 + int(status.Signal()), nil
		case pid == child:
			return status.ExitStatus(), nil
		}
	}
}

// mountAll gives the node its own of what it writes to by fixed names. No mount of it is seen outside.
func mountAll(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to the node: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for target, source := range map[string]string{"/var/lib": dirLib, "/var/log": dirVarLog} {
		if err := unix.Mount(filepath.Join(dir, source), target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	for name, value := range tunables {
		source := filepath.Join(dir, dirConfig, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(source, []byte(value+"\n"), 0o644); err != nil {
			return fmt.Errorf("write what the kubelet reads of %s: %w", name, err)
		}
		err := unix.Mount(source, "/proc/sys/"+name, "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mount what the kubelet reads of %s: %w", name, err)
		}
	}
	return nil
}

// setUpNetwork makes loopback work and gives it the node's address. It needs no interface to anywhere: Pods are linked to the
// node, each by a pair of its own, and Services' addresses only have to be routed somewhere for kube-proxy's rules to see them.
func setUpNetwork() error {
	ip, err := here().find("ip")
	if err != nil {
		return err
	}
	for _, args := range []string{
		"link set lo up",
		"address add " + Address + "/32 dev lo",
		"route add " + ServiceNetwork + " dev lo src " + Address,
	} {
		command := exec.Command(ip, strings.Fields(args)...) //nolint:noctx // it takes no time
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("set up the network: ip %s: %w\n%s", args, err, output)
		}
	}
	return nil
}
