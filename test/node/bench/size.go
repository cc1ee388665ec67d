package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/installed"
)

const mib = 1 << 20

// sizes are how much Pillion takes.
type sizes struct {
	Processes []process

	// ImageMiB is Pillion's image as it is pulled, compressed, for the platform of this machine.
	ImageMiB float64
}

// process is one of Pillion's on the node.
type process struct {
	Pod, Container string

	// ResidentMiB is VmRSS of the process. WorkingSetMiB is what the kubelet says of the container, which counts against its limit.
	ResidentMiB, WorkingSetMiB float64
}

func (b *bench) sizes(ctx context.Context) (*sizes, error) {
	all := &sizes{}
	var err error
	if all.ImageMiB, err = imageMiB(filepath.Join(b.Root, "bin", "images", "test", "pillion.json")); err != nil {
		return nil, err
	}
	pods, err := b.Clientset.CoreV1().Pods(installed.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	workingSets, err := b.workingSets(ctx)
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		for _, status := range pods.Items[i].Status.ContainerStatuses {
			if status.State.Running == nil {
				continue
			}
			p, err := processOf(&pods.Items[i], &status)
			if err != nil {
				return nil, err
			}
			p.WorkingSetMiB = workingSets[p.Pod+"/"+p.Container]
			all.Processes = append(all.Processes, *p)
		}
	}
	if len(all.Processes) == 0 {
		return nil, fmt.Errorf("no Pod of %s runs", installed.Namespace)
	}
	return all, nil
}

// imageMiB reads what the build of the image says of it.
func imageMiB(path string) (float64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var built struct {
		Platforms []struct {
			Platform   string `json:"platform"`
			Compressed int64  `json:"compressed"`
		} `json:"platforms"`
	}
	if err := json.Unmarshal(content, &built); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	for _, p := range built.Platforms {
		if p.Platform == "linux/"+runtime.GOARCH && p.Compressed > 0 {
			return float64(p.Compressed) / mib, nil
		}
	}
	return 0, fmt.Errorf("%s says nothing of linux/%s", path, runtime.GOARCH)
}

// workingSets asks the kubelet for the working sets of Pillion's containers, in MiB, by POD/CONTAINER.
func (b *bench) workingSets(ctx context.Context) (map[string]float64, error) {
	content, err := b.Clientset.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + node.Name + "/proxy/stats/summary").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var summary struct {
		Pods []struct {
			PodRef     struct{ Name, Namespace string }
			Containers []struct {
				Name   string
				Memory struct{ WorkingSetBytes float64 }
			}
		}
	}
	if err := json.Unmarshal(content, &summary); err != nil {
		return nil, fmt.Errorf("read what the kubelet says of memory: %w", err)
	}
	found := map[string]float64{}
	for _, pod := range summary.Pods {
		if pod.PodRef.Namespace != installed.Namespace {
			continue
		}
		for _, container := range pod.Containers {
			found[pod.PodRef.Name+"/"+container.Name] = container.Memory.WorkingSetBytes / mib
		}
	}
	return found, nil
}

// processOf finds the process of a container, by its cgroup, and how much memory it has.
func processOf(pod *corev1.Pod, status *corev1.ContainerStatus) (*process, error) {
	_, id, _ := strings.Cut(status.ContainerID, "://")
	cgroups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	total, found := 0.0, 0
	for _, cgroup := range cgroups {
		content, err := os.ReadFile(cgroup)
		if err != nil || !bytes.Contains(content, []byte(id)) {
			continue // it may have ended
		}
		resident, err := residentMiB(filepath.Join(filepath.Dir(cgroup), "status"))
		if err != nil {
			return nil, err
		}
		total += resident
		found++
	}
	if found == 0 {
		return nil, fmt.Errorf("container %s of Pod %s has no process", status.Name, pod.Name)
	}
	return &process{Pod: pod.Name, Container: status.Name, ResidentMiB: total}, nil
}

func residentMiB(path string) (float64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("%s says nothing of VmRSS", path)
}
