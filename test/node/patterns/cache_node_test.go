package patterns_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/test/node"
)

// signalContainer signals the first process of a running container. One that is killed has ended when it returns.
func signalContainer(t *testing.T, pod *corev1.Pod, container string, signal unix.Signal) {
	t.Helper()
	pid, err := firstProcess(pod, container)
	if err != nil {
		t.Fatal(err)
	}
	// By its handle no other process is meant that has its number by then.
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(handle) //nolint:errcheck // nothing is to be written
	if err := unix.PidfdSendSignal(handle, signal, nil, 0); err != nil {
		t.Fatal(err)
	}
	if signal == unix.SIGKILL {
		ended := []unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 60_000); n != 1 {
			t.Fatalf("process %d did not end: %v", pid, err)
		}
	}
}

// firstProcess finds a running container's process 1 among those of this machine: the one in the container's cgroup which is 1 in
// a namespace of its own.
func firstProcess(pod *corev1.Pod, container string) (int, error) {
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	at := slices.IndexFunc(statuses, func(status corev1.ContainerStatus) bool { return status.Name == container })
	if at < 0 {
		return 0, fmt.Errorf("Pod %s has no container %s", pod.Name, container)
	}
	_, id, _ := strings.Cut(statuses[at].ContainerID, "://")
	if id == "" {
		return 0, fmt.Errorf("container %s of Pod %s does not run", container, pod.Name)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(groups), id) {
			continue // another's, or it has ended
		}
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if numbers, isIt := strings.CutPrefix(line, "NSpid:"); isIt && strings.HasSuffix(strings.TrimSpace(numbers), "\t1") {
				return strconv.Atoi(filepath.Base(dir))
			}
		}
	}
	return 0, fmt.Errorf("no process is the first of container %s", id)
}

// memoryOf is what a container uses, as the kubelet saw it some seconds ago.
func memoryOf(t *testing.T, pod *corev1.Pod, container string) string {
	t.Helper()
	said, err := cluster.Kubectl(t.Context(), "get", "--raw", "/api/v1/nodes/"+node.Name+"/proxy/stats/summary")
	if err != nil {
		t.Fatal(err)
	}
	var summary struct {
		Pods []struct {
			PodRef     struct{ Name, Namespace string }
			Containers []struct {
				Name   string
				Memory struct{ RSSBytes int64 }
			}
		}
	}
	if err := json.Unmarshal([]byte(said), &summary); err != nil {
		t.Fatal(err)
	}
	for _, p := range summary.Pods {
		for _, c := range p.Containers {
			if p.PodRef.Name == pod.Name && p.PodRef.Namespace == pod.Namespace && c.Name == container {
				return resource.NewQuantity(c.Memory.RSSBytes>>20<<20, resource.BinarySI).String()
			}
		}
	}
	t.Fatalf("the kubelet says nothing of container %s", container)
	return ""
}
