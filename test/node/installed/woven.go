package installed

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// steady is how often in a row a dry run has to tell the same: which replica of the webhook answers is chance.
const steady = 5

// AwaitWoven waits until Pods of a template get these profiles and no others, none included, by dry runs. A profile is Ready, and
// a namespace has a label, a moment before the API server and each replica of the webhook go by it.
func (c *Cluster) AwaitWoven(t *testing.T, namespace string, template *corev1.PodTemplateSpec, profiles ...string) {
	t.Helper()
	inRow := 0
	want := slices.Sorted(slices.Values(profiles))
	c.Eventually(t, fmt.Sprintf("Pods in namespace %s that get %q", namespace, profiles), func(ctx context.Context) error {
		pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
		pod.ObjectMeta = metav1.ObjectMeta{
			Namespace: namespace, GenerateName: "dry-run-", Labels: pod.Labels, Annotations: pod.Annotations,
		}
		err := c.Client.Create(ctx, pod, client.DryRunAll)
		if err == nil {
			err = isWoven(pod, want)
		}
		if err != nil {
			inRow = 0
			return err
		}
		inRow++
		if inRow < steady {
			return fmt.Errorf("so far %d times in a row", inRow)
		}
		return nil
	})
}

func isWoven(pod *corev1.Pod, want []string) error {
	got, err := Woven(pod)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("the Pod has %q; skipped: %s", got, pod.Annotations[v1alpha1.SkippedKey])
	}
	return err
}

// Woven returns the names of the profiles that a Pod bears the marks and the containers of, sorted. One without the other is an
// error.
func Woven(pod *corev1.Pod) ([]string, error) {
	names, marked := []string{}, map[string]bool{}
	for key, value := range pod.Annotations {
		if key != v1alpha1.InjectedKey && !strings.HasPrefix(key, v1alpha1.InjectedKey+".") {
			continue
		}
		var marks map[string]v1alpha1.Injected
		if err := json.Unmarshal([]byte(value), &marks); err != nil {
			return nil, fmt.Errorf("annotation %s of Pod %s: %w", key, pod.Name, err)
		}
		for _, profile := range slices.Sorted(maps.Keys(marks)) {
			for _, container := range marks[profile].Containers {
				marked[container] = true
				if !containers(pod)[container] {
					return nil, fmt.Errorf("profile %s has marked Pod %s, which does not have its container %s", profile, pod.Name, container)
				}
			}
			names = append(names, profile)
		}
	}
	for name := range containers(pod) {
		if v1alpha1.IsReservedName(name) && !marked[name] {
			return nil, fmt.Errorf("no profile has marked Pod %s for its container %s", pod.Name, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// containers are the names of all that the Pod's spec starts.
func containers(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names[container.Name] = true
	}
	return names
}
