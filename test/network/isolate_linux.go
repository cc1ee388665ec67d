package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable tells a process that it is in the network of its own.
const variable = "TEST_NETWORK"

// Isolate runs this program once more, in a network namespace that has nothing but loopback and Subnet, and there runs run. It returns
// the exit code for os.Exit. Nothing of it outlives the process and those that it started. Whoever is not root needs a kernel that lets
// users make namespaces:
//
//	func TestMain(m *testing.M) { os.Exit(network.Isolate(m.Run)) }
func Isolate(run func() int) int {
	if os.Getenv(variable) != "" {
		if err := setUp(); err != nil {
			fmt.Fprintf(os.Stderr, "set up the network of these tests: %s%s\n", err, advice(err))
			return 1
		}
		return run()
	}
	code, err := again()
	if err != nil {
		fmt.Fprintf(os.Stderr, "run these tests in a network namespace of their own: %s%s\n", err, advice(err))
		return 1
	}
	return code
}

// advice says what to do about an error, where it is that namespaces may not be made.
func advice(err error) string {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EUSERS) {
		return ""
	}
	return `
This user may not make namespaces here. Either run the tests as root, or let users make namespaces:
  sysctl user.max_user_namespaces=10000                     where it is 0
  sysctl kernel.unprivileged_userns_clone=1                 on Debian, where it is 0
  sysctl kernel.apparmor_restrict_unprivileged_userns=0     on Ubuntu, where it is 1
In a container root lacks CAP_SYS_ADMIN: docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined, or --privileged.`
}

// again runs this program in a namespace of its own and returns its exit code. Root that may not make one, as in most containers, tries
// what others do: one that belongs to a user namespace.
func again() (int, error) {
	runtime.LockOSThread() // the child ends with the thread that started it
	defer runtime.UnlockOSThread()
	child := program(os.Geteuid() != 0)
	err := child.Start()
	if os.Geteuid() == 0 && errors.Is(err, unix.EPERM) {
		child = program(true)
		err = child.Start()
	}
	if err != nil {
		return 0, err
	}
	err = child.Wait()
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		return max(ended.ExitCode(), 1), nil
	}
	return 0, err
}

// program is this program in a network namespace, and in a user namespace where that is wanted.
func program(inUserNamespace bool) *exec.Cmd {
	child := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it ends with this process
	child.Env = append(os.Environ(), variable+"=isolated")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if inUserNamespace {
		child.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return child
}

// setUp makes loopback work, and gives it Subnet. What loopback has is this network's own, all of it.
func setUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket) //nolint:errcheck // it was only asked
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return errors.Join(
		set(socket, unix.SIOCSIFADDR, Subnet.Addr().Next()),
		set(socket, unix.SIOCSIFNETMASK, netip.AddrFrom4([4]byte{255, 255, 255, 0})),
	)
}

// set sets an address of a second name of loopback.
func set(socket int, request uint, address netip.Addr) error {
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	bytes := address.As4()
	if err := alias.SetInet4Addr(bytes[:]); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, request, alias); err != nil {
		return fmt.Errorf("give loopback %s: %w", address, err)
	}
	return nil
}
