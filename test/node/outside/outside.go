//go:build linux

// Package outside is for tests of programs that start a node: it looks at them, and at what is left of them, from outside of the
// node's namespaces.
package outside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// patience is how long anything may take that ought to happen.
const patience = 3 * time.Minute

// Program is a running program that starts a node.
type Program struct {
	// Process is the one outside of the namespaces.
	Process *os.Process

	// Temporary is the directory of its temporary files, and of nothing else.
	Temporary string

	interfaces string // those that there were before

	mu         sync.Mutex
	printed    strings.Builder
	ended      bool
	namespaces []string
	result     error
}

// Main builds the program of the package that is tested, gives its path to use, runs the tests, and returns the exit code. Every
// user can run the program.
func Main(m *testing.M, use func(path string)) int {
	dir, err := os.MkdirTemp("", "program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // there is nobody to tell
	path := filepath.Join(dir, "program")
	said, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput() //nolint:noctx // go test ends it
	if err := errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %s\n%s", err, said)
		return 1
	}
	use(path)
	return m.Run()
}

// Directory makes a directory for temporary files, and removes it after the test. The path of a socket in it has to be short.
func Directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "node-") //nolint:usetesting // that one's path is long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Start starts a program whose temporary files are in a directory, with more of an environment. It is killed after the test.
func Start(t *testing.T, path, temporary string, environment ...string) *Program {
	t.Helper()
	p := &Program{Temporary: temporary, interfaces: interfaces(t)}
	command := exec.Command(path) //nolint:noctx // it is to end as the test wants it to
	command.Env = append(append(os.Environ(), environment...), "TMPDIR="+temporary)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = command.Stdout // and so the same pipe
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p.Process = command.Process
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.mu.Lock()
			fmt.Fprintln(&p.printed, lines.Text())
			p.mu.Unlock()
		}
	}()
	go func() {
		<-read // or what it printed last would be lost
		err := command.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended, p.result = true, err
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		if t.Failed() {
			t.Logf("the program printed:\n%s", p.Output())
		}
	})
	return p
}

// Output is what it has printed.
func (p *Program) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.printed.String()
}

// AwaitLine waits for a line that begins with a text, and returns the rest of it.
func (p *Program) AwaitLine(t *testing.T, begin string) string {
	t.Helper()
	var rest string
	Await(t, fmt.Sprintf("a line that begins with %q", begin), func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		lines := strings.SplitAfter(p.printed.String(), "\n")
		at := slices.IndexFunc(lines, func(line string) bool {
			return strings.HasSuffix(line, "\n") && strings.HasPrefix(strings.TrimSpace(line), begin)
		})
		switch {
		case at >= 0:
			rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[at]), begin))
			return nil
		case p.ended:
			t.Fatalf("the program ended without a line that begins with %q: %v", begin, p.result)
		}
		return errors.New("there is none yet")
	})
	p.findNamespaces(t) // it is in them by now
	return rest
}

// AwaitEnd waits until it has ended, and returns an error if that was not with exit code 0.
func (p *Program) AwaitEnd(t *testing.T) error {
	t.Helper()
	var result error
	Await(t, "the end of the program", func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		result = p.result
		if !p.ended {
			return errors.New("it runs")
		}
		return nil
	})
	return result
}

// findNamespaces keeps the namespaces of the process below the one outside.
func (p *Program) findNamespaces(t *testing.T) {
	t.Helper()
	// Any thread may have started the child.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []byte
	for _, file := range threads {
		content, _ := os.ReadFile(file) // threads come and go
		children = append(children, content...)
	}
	child := strings.Fields(string(children))
	if len(child) == 0 {
		return // it has ended by now
	}
	var names []string
	for _, kind := range []string{"pid", "mnt", "net"} {
		if name, err := os.Readlink("/proc/" + child[0] + "/ns/" + kind); err == nil {
			names = append(names, name)
		}
	}
	p.namespaces = names
}

// Processes returns the processes that are in one of the node's namespaces.
func (p *Program) Processes(t *testing.T) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && slices.Contains(p.namespaces, name) {
			pid := filepath.Base(filepath.Dir(filepath.Dir(link)))
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			found = append(found, pid+" "+strings.TrimSpace(string(comm)))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// CheckEnded checks that it left nothing that the kernel takes away: processes, mounts and interfaces.
func (p *Program) CheckEnded(t *testing.T) {
	t.Helper()
	if len(p.namespaces) != 3 {
		t.Errorf("the program was never seen in namespaces of its own, but in %q", p.namespaces)
	}
	Await(t, "every process of the node to end", func(context.Context) error {
		if found := p.Processes(t); len(found) > 0 {
			return fmt.Errorf("there are %q", found)
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), p.Temporary) {
		t.Errorf("mounts of the node are seen outside:\n%s", mounts)
	}
	if after := interfaces(t); after != p.interfaces {
		t.Errorf("the interfaces are\n%s\nwant\n%s", after, p.interfaces)
	}
}

// CheckNothingIsLeft checks that it left nothing at all. Before it ended, its node had the name.
func (p *Program) CheckNothingIsLeft(t *testing.T, name string) {
	t.Helper()
	p.CheckEnded(t)
	if left, err := os.ReadDir(p.Temporary); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	if left := Cgroups(t, name); len(left) > 0 {
		t.Errorf("cgroups are left: %q", left)
	}
}

// NodeDirectory returns the directory of the only node whose temporary files are there. Its name is the node's.
func (p *Program) NodeDirectory(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(p.Temporary, "pillion-node-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("there are the directories of nodes %q (%v), want one", found, err)
	}
	return found[0]
}

// Cgroups returns the cgroups of a node.
func Cgroups(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/pillion-node/", "/sys/fs/cgroup/*/pillion-node/"} {
		some, err := filepath.Glob(pattern + name)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, some...)
	}
	return found
}

// Await waits for a condition, which returns why it does not hold yet.
func Await(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	var last error
	ask := func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		return last == nil, nil
	}
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, ask)
	if err != nil {
		t.Fatalf("wait for %s: %s: %v", what, err, last)
	}
}

func interfaces(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range all {
		names = append(names, strconv.Itoa(one.Index)+" "+one.Name)
	}
	return strings.Join(names, "\n")
}
