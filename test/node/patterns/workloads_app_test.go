package patterns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// workload is an app that uses with its first instructions what patterns promise it, and reports what came of it.
const workload = "localhost/workload:1"

func init() { programs[workload] = "./test/node/patterns/testdata/workload" }

// serving makes the app stay, and report again when it is asked to.
const serving = "-serve=:8080"

// appReport is what the app tells of its first instructions, or of later ones.
type appReport struct {
	Pod     string             `json:"pod"`
	Files   map[string]appFile `json:"files"`
	Cached  string             `json:"cached"`
	Counted string             `json:"counted"`
	Errors  []string           `json:"errors"`
}

// appFile is a file as the app sees it.
type appFile struct {
	Content    string `json:"content"`
	Mode       string `json:"mode"`
	Filesystem string `json:"filesystem"`
	ReadOnly   bool   `json:"readOnly"`
}

// reportAtStart is what a container of the workload told at its first instructions. It fails the test if the container was
// started more than once: then those were not its first.
func reportAtStart(t *testing.T, pod *corev1.Pod, container string) appReport {
	t.Helper()
	var report appReport
	cluster.Eventually(t, "what container "+container+" of Pod "+pod.Name+" found at its start", func(ctx context.Context) error {
		log, err := cluster.Logs(ctx, pod.Namespace, pod.Name, container)
		if err != nil {
			return err
		}
		line, _, isWhole := strings.Cut(log, "\n")
		if !isWhole {
			return errors.New("it has not said anything yet")
		}
		return json.Unmarshal([]byte(line), &report)
	})
	now := &corev1.Pod{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(pod), now); err != nil {
		t.Fatal(err)
	}
	if now.UID != pod.UID || statusOf(now, container).RestartCount > 0 {
		t.Errorf("Pod %s is another one or its container %s was restarted: %+v", pod.Name, container, statusOf(now, container))
	}
	return report
}

// reportNow has the app look again.
func reportNow(ctx context.Context, pod *corev1.Pod) (report appReport, err error) {
	code, body, err := installed.Get(ctx, "http://"+pod.Status.PodIP+":8080/now")
	if err != nil {
		return report, err
	}
	if code != 200 {
		return report, fmt.Errorf("the app answers %d: %s", code, body)
	}
	err = json.Unmarshal([]byte(body), &report)
	return report, err
}

// checkContents compares what the app read, by path. Nothing may have failed.
func (r appReport) checkContents(t *testing.T, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for path, file := range r.Files {
		got[path] = file.Content
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the app of Pod %s read (-want +got):\n%s", r.Pod, diff)
	}
	for _, problem := range r.Errors {
		t.Errorf("the app of Pod %s: %s", r.Pod, problem)
	}
}

// statuses are those of all containers, in the order in which they start.
func statuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// statusOf is that of one container. Of one that is not there it says nothing.
func statusOf(pod *corev1.Pod, container string) corev1.ContainerStatus {
	for _, status := range statuses(pod) {
		if status.Name == container {
			return status
		}
	}
	return corev1.ContainerStatus{}
}

// checkWoven compares the profiles that a Pod has.
func checkWoven(t *testing.T, pod *corev1.Pod, profiles ...string) {
	t.Helper()
	got, err := installed.Woven(pod)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(profiles)), got); diff != "" && len(profiles)+len(got) > 0 {
		t.Errorf("profiles of Pod %s (-want +got):\n%s", pod.Name, diff)
	}
}
