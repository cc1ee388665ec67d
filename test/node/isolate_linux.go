package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Isolate runs this program twice more in namespaces of their own (of processes, mounts, network, IPC and host name): as the
// first process there, and below it to call run. It returns the exit code for os.Exit. Whatever happens to any of them, kill -9
// included, the kernel ends every process that run started and takes the mounts and interfaces with them; directories and cgroups
// are removed here, or by the next Isolate where this process was killed too.
//
//	func TestMain(m *testing.M) { os.Exit(node.Isolate(m.Run)) }
func Isolate(run func() int) int {
	role, dir, _ := strings.Cut(os.Getenv(variable), ":")
	switch role {
	case roleInit:
		code, err := first(dir)
		if err != nil {
			fmt.Fprintf(os.Stderr, "set up the namespaces of a node: %s\n", err)
			return 1
		}
		return code
	case roleRun:
		return run()
	default:
		code, err := outside()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}
}

// patienceWithLeftovers is how long what a node leaves may resist being removed.
const patienceWithLeftovers = 30 * time.Second

// ofNamespaces are the namespaces that a node has of its own.
const ofNamespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// isolation is what outlives the namespaces and is removed by the process outside.
type isolation struct {
	dir  string
	lock *os.File
}

// outside makes what the namespaces cannot take away, runs this program in them, and removes it again.
func outside() (code int, err error) {
	if err := check(); err != nil {
		return 0, err
	}
	// From here on nobody who ends this process leaves anything behind.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	space, err := prepare()
	if err != nil {
		return 0, fmt.Errorf("prepare the directories and cgroups of a node: %w", err)
	}
	defer func() {
		if removed := space.remove(); removed != nil {
			err = errors.Join(err, fmt.Errorf("remove what the node left: %w", removed))
		}
	}()
	// From outside, the API server is reached through a socket that both sides see: the networks have nothing in common.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("listen for clients outside of the node: %w", err)
	}
	defer listener.Close() //nolint:errcheck // the process is about to end
	go forward(listener, func() (net.Conn, error) { return net.Dial("unix", socketPath(space.dir)) })
	return runIn(space, listener.Addr().String(), signals)
}

// runIn runs this program in the namespaces, passes on the signals that come, and returns its exit code.
func runIn(space *isolation, forwarder string, signals <-chan os.Signal) (int, error) {
	select {
	case s := <-signals:
		return 1, fmt.Errorf("ended by signal %s", s)
	default:
	}
	runtime.LockOSThread() // the child ends with the thread that started it
	defer runtime.UnlockOSThread()

	child := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it ends with this process
	child.Env = append(os.Environ(), variable+"="+roleInit+":"+space.dir, forwardVariable+"="+forwarder)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	// In a process group of its own, so that what a terminal sends on Ctrl-C comes once, from here.
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: ofNamespaces, Pdeathsig: unix.SIGKILL, Setpgid: true}
	if err := child.Start(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return 0, fmt.Errorf("make the namespaces of a node: %w. In a container root lacks CAP_SYS_ADMIN: "+
				"run it with --privileged", err)
		}
		return 0, fmt.Errorf("make the namespaces of a node: %w", err)
	}
	go func() {
		for s := range signals {
			_ = child.Process.Signal(s)
		}
	}()
	err := child.Wait()
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		return max(ended.ExitCode(), 1), nil
	}
	return 0, err
}

// prefix begins the names of the directories and cgroups of nodes.
const prefix = "pillion-node-"

// prepare removes what earlier nodes left that were killed, and makes a directory and cgroups for this one. The directory is
// locked as long as this process lives: that is how the next one knows. While it is made, the directory above is locked, so that
// nobody takes it for left before it is locked itself.
func prepare() (*isolation, error) {
	parent, err := os.Open(os.TempDir())
	if err != nil {
		return nil, err
	}
	defer parent.Close() //nolint:errcheck // closing it unlocks it
	if err := unix.Flock(int(parent.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", parent.Name(), err)
	}
	if err := sweep(parent.Name()); err != nil {
		return nil, err
	}
	space := &isolation{}
	if space.dir, err = os.MkdirTemp(parent.Name(), prefix); err != nil {
		return nil, err
	}
	if space.lock, err = lock(space.dir); err != nil {
		return nil, errors.Join(err, os.Remove(space.dir))
	}
	for _, sub := range []string{dirTmp, dirConfig, dirLogs, dirLib, dirVarLog} {
		if err := os.Mkdir(filepath.Join(space.dir, sub), 0o755); err != nil {
			return nil, errors.Join(err, space.remove())
		}
	}
	if err := makeCgroups(filepath.Base(space.dir)); err != nil {
		return nil, errors.Join(err, space.remove())
	}
	return space, nil
}

// sweep removes what the nodes of processes left that are gone.
func sweep(parent string) error {
	left, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		// In a directory that everybody may write to, only one's own is one's own.
		var info unix.Stat_t
		if err := unix.Lstat(dir, &info); err != nil || int(info.Uid) != os.Geteuid() || info.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		held, err := lock(dir)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			continue // it runs
		case err != nil:
			return err
		}
		if err := (&isolation{dir: dir, lock: held}).remove(); err != nil {
			return fmt.Errorf("remove what an earlier node left: %w", err)
		}
	}
	return nil
}

// lock locks a directory, or says at once that another process has.
func lock(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
	}
	return file, nil
}

// remove removes the directory and the cgroups. Where this process's own node has ended that is done at once; what is left of one
// that was killed may be written to until the kernel has ended the last process of it.
func (i *isolation) remove() error {
	var last error
	_ = wait.PollUntilContextTimeout(context.Background(), 10*time.Millisecond, patienceWithLeftovers, true,
		func(context.Context) (bool, error) {
			last = os.RemoveAll(i.dir)
			return last == nil, nil
		})
	return errors.Join(removeCgroups(filepath.Base(i.dir)), last, i.lock.Close())
}
