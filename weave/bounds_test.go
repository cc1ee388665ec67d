package weave_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/weave"
)

func TestWhatTheClusterMayChangeOfAContainerHasBounds(t *testing.T) {
	const where = "container pillion-x "
	tests := map[string]struct {
		profile func(*corev1.Container)
		pod     func(*corev1.Container)
		want    string
	}{
		"a message path of the API server": {
			pod: func(c *corev1.Container) { c.TerminationMessagePath = corev1.TerminationMessagePathDefault },
		},
		"a message path that is not set": {
			pod: func(c *corev1.Container) { c.TerminationMessagePath = "" },
		},
		"a message path that hides a file of the image": {
			pod:  func(c *corev1.Container) { c.TerminationMessagePath = "/etc/sync.conf" },
			want: where + `has terminationMessagePath set to "/etc/sync.conf", which profile x does not set`,
		},
		"a message path that the profile sets": {
			profile: func(c *corev1.Container) { c.TerminationMessagePath = "/tmp/last" },
			pod:     func(c *corev1.Container) { c.TerminationMessagePath = "/tmp/last" },
		},
		"another message path than the profile's": {
			profile: func(c *corev1.Container) { c.TerminationMessagePath = "/tmp/last" },
			pod:     func(c *corev1.Container) { c.TerminationMessagePath = "/sync" },
			want:    where + `has terminationMessagePath set to "/sync", and profile x says "/tmp/last"`,
		},
		"pulled always": {
			pod: func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullAlways },
		},
		"pulled as the API server sets it for a tag": {
			pod: func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullIfNotPresent },
		},
		"pulled as the API server is yet to set it": {
			pod: func(c *corev1.Container) { c.ImagePullPolicy = "" },
		},
		"never pulled": {
			pod:  func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullNever },
			want: where + `has imagePullPolicy set to "Never", which profile x does not set`,
		},
		"never pulled, as the profile says": {
			profile: func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullNever },
			pod:     func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullNever },
		},
		"not always pulled, as the profile says": {
			profile: func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullAlways },
			pod:     func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullIfNotPresent },
			want:    where + `has imagePullPolicy set to "IfNotPresent", and profile x says "Always"`,
		},
		"higher limits, and more of them": {
			pod: func(c *corev1.Container) { c.Resources.Limits = limits("memory", "1Gi", "ephemeral-storage", "1Gi") },
		},
		"an equal limit, written otherwise": {
			pod: func(c *corev1.Container) { c.Resources.Limits = limits("memory", "65536Ki") },
		},
		"any requests": {
			pod: func(c *corev1.Container) { c.Resources.Requests = limits("memory", "1", "cpu", "64") },
		},
		"a lower limit": {
			pod:  func(c *corev1.Container) { c.Resources.Limits = limits("memory", "1Mi", "cpu", "1") },
			want: where + "has resources.limits.memory set to 1Mi, and profile x says at least 64Mi",
		},
		"a limit is gone": {
			pod:  func(c *corev1.Container) { c.Resources.Limits = limits("cpu", "1") },
			want: where + `is without resources.limits.memory, which profile x sets to "64Mi"`,
		},
		"a device": {
			pod:  func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}} },
			want: where + `has resources.claims set to [{"name":"gpu"}], which profile x does not set`,
		},
		"another device than the profile's": {
			profile: func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "nic"}} },
			pod:     func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}} },
			want:    where + `has resources.claims set to [{"name":"gpu"}], and profile x says [{"name":"nic"}]`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			test.pod(&pod.Spec.InitContainers[2])
			if test.profile != nil {
				test.profile(&fragment.InitContainers[1])
			}
			var want []string
			if test.want != "" {
				want = []string{test.want}
			}
			if diff := cmp.Diff(want, weave.Differences(pod, &fragment, options())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestThePullPolicyOfAnImageIsTheAPIServers(t *testing.T) {
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	tests := map[string]corev1.PullPolicy{ // by image
		"sync":                            corev1.PullAlways,
		"sync:latest":                     corev1.PullAlways,
		"sync:1":                          corev1.PullIfNotPresent,
		"sync" + digest:                   corev1.PullIfNotPresent,
		"sync:1" + digest:                 corev1.PullIfNotPresent,
		"sync:latest" + digest:            corev1.PullAlways,
		"registry.example.com:5000/sync":  corev1.PullAlways,
		"registry.example.com/sync:1":     corev1.PullIfNotPresent,
		"registry.example.com:5000/a/b:1": corev1.PullIfNotPresent,
	}
	for image, policy := range tests {
		t.Run(image, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			fragment.InitContainers[1].Image, pod.Spec.InitContainers[2].Image = image, image
			pod.Spec.InitContainers[2].ImagePullPolicy = corev1.PullIfNotPresent
			var want []string
			if policy == corev1.PullAlways {
				want = []string{`container pillion-x has imagePullPolicy set to "IfNotPresent", which profile x does not set`}
			}
			if diff := cmp.Diff(want, weave.Differences(pod, &fragment, options())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// limits returns resources from their names and quantities.
func limits(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}
