//go:build linux

package main

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
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// running is a node outside of this process's namespaces.
type running struct {
	command    *exec.Cmd
	kubeconfig string
	namespaces []string
	rest       chan string // what it writes from then on
}

// start starts a node whose temporary files are in a directory, and waits until it is ready.
func start(t *testing.T, program, tmp string) *running {
	t.Helper()
	r := &running{command: exec.Command(program), rest: make(chan string, 1)}
	r.command.Env = append(os.Environ(), "TMPDIR="+tmp)
	r.command.Stderr = os.Stderr
	out, err := r.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.command.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if after, ok := strings.CutPrefix(lines.Text(), "export KUBECONFIG="); ok {
			r.kubeconfig = after
			break
		}
	}
	if r.kubeconfig == "" {
		t.Fatalf("the node said no kubeconfig: %v", r.command.Wait())
	}
	go func() {
		var rest strings.Builder
		for lines.Scan() {
			fmt.Fprintln(&rest, lines.Text())
		}
		r.rest <- rest.String()
	}()
	// Any thread may have started the child.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.command.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []byte
	for _, file := range threads {
		content, _ := os.ReadFile(file) // threads come and go
		children = append(children, content...)
	}
	child := strings.Fields(string(children))
	if len(child) != 1 {
		t.Fatalf("the process outside has the children %q, want one", child)
	}
	for _, kind := range []string{"pid", "mnt", "net"} {
		name, err := os.Readlink("/proc/" + child[0] + "/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		r.namespaces = append(r.namespaces, name)
	}
	return r
}

// processes returns the processes that are in one of the node's namespaces.
func (r *running) processes(t *testing.T) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && slices.Contains(r.namespaces, name) {
			pid := filepath.Base(filepath.Dir(filepath.Dir(link)))
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			found = append(found, pid+" "+strings.TrimSpace(string(comm)))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// runPod runs a Pod from outside, which proves that the kubeconfig is good there.
func (r *running) runPod(t *testing.T) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", r.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods := clients.CoreV1().Pods(metav1.NamespaceDefault)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pause"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "pause", Image: "localhost/pause:1"}}},
	}
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the Pod to run", func(ctx context.Context) error {
		found, err := pods.Get(ctx, "pause", metav1.GetOptions{})
		if err == nil && found.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("its status is %+v", found.Status)
		}
		return err
	})
}

func await(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	var last error
	ask := func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		return last == nil, nil
	}
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 2*time.Minute, true, ask)
	if err != nil {
		t.Fatalf("wait for %s: %s: %v", what, err, last)
	}
}

// cgroups returns the cgroups of a node, by the name of its directory.
func cgroups(t *testing.T, name string) []string {
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

func TestNothingIsLeftOfANodeThatWasKilledOrToldToEnd(t *testing.T) {
	tmp, err := os.MkdirTemp("", "kill-") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	program := filepath.Join(t.TempDir(), "node")
	if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %s\n%s", err, said)
	}
	before := interfaces(t)

	killed := start(t, program, tmp)
	killed.runPod(t)
	dir := filepath.Dir(killed.kubeconfig)
	if found := killed.processes(t); len(found) < 12 {
		t.Fatalf("only %d processes are in the node's namespaces: %q", len(found), found)
	}
	if len(cgroups(t, filepath.Base(dir))) == 0 {
		t.Fatal("the node has no cgroups")
	}
	if err := killed.command.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = killed.command.Wait()
	await(t, "every process of the node to end", func(context.Context) error {
		if found := killed.processes(t); len(found) > 0 {
			return fmt.Errorf("there are %q", found)
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), tmp) {
		t.Errorf("mounts of the node are seen outside:\n%s", mounts)
	}
	if after := interfaces(t); after != before {
		t.Errorf("the interfaces are\n%s\nwant\n%s", after, before)
	}

	// Nobody could remove these. The next node does.
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the directory of the node that was killed: %s", err)
	}
	told := start(t, program, tmp)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the node that was killed is still there: %v", err)
	}
	if left := cgroups(t, filepath.Base(dir)); len(left) > 0 {
		t.Errorf("cgroups of the node that was killed are still there: %q", left)
	}
	told.runPod(t)
	if err := told.command.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest := <-told.rest
	if err := told.command.Wait(); err != nil {
		t.Errorf("the node that was told to end says %v, want exit code 0", err)
	}
	if !strings.Contains(rest, "stopping the node") {
		t.Errorf("the node that was told to end wrote %q", rest)
	}
	if found := told.processes(t); len(found) > 0 {
		t.Errorf("processes are left: %q", found)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	if left := cgroups(t, filepath.Base(filepath.Dir(told.kubeconfig))); len(left) > 0 {
		t.Errorf("cgroups are left: %q", left)
	}
}
