package admission

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

func amounts(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: quantity(cpu), corev1.ResourceMemory: quantity(memory)}
}

// TestAPodWithResourcesOfItsOwnIsNotRefusedForWhatIsIgnored compares Pods that policy chooses with the same ones that it does not.
func TestAPodWithResourcesOfItsOwnIsNotRefusedForWhatIsIgnored(t *testing.T) {
	t.Parallel()
	createReady(t, matching(site("fitting"), "fitting", v1alpha1.FailurePolicyIgnore))
	plain, chosen := namespace(t, nil), namespace(t, map[string]string{"fitting": ""})
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		stored, err := server.Clientset.CoreV1().Pods(chosen).Create(ctx, pod(chosen), dryRun())
		return err == nil && len(added(stored)) == 1, err
	})
	if err != nil {
		t.Fatalf("the profile chooses no Pod: %v", err)
	}

	for _, test := range []struct {
		name             string
		requests, limits corev1.ResourceList
		containers       func(*corev1.ResourceRequirements)
		leftOut          bool
		warns            []string
	}{
		{name: "there is room", requests: amounts("100m", "128Mi"), limits: amounts("2", "1Gi")},
		{
			name: "the Pod's requests are used up", requests: amounts("20m", "32Mi"), limits: amounts("2", "1Gi"), leftOut: true,
			warns: []string{"PodResourcesExceeded", "30m of cpu", "20m", "spec.resources.requests"},
		},
		{
			name: "one of them is", requests: corev1.ResourceList{corev1.ResourceCPU: quantity("20m")}, leftOut: true,
			warns: []string{"PodResourcesExceeded", "cpu"},
		},
		{
			name: "the Pod has limits alone, and containers request as much", limits: amounts("20m", "32Mi"), leftOut: true,
			containers: func(r *corev1.ResourceRequirements) { r.Limits = nil },
			warns:      []string{"PodResourcesExceeded", "spec.resources.limits"},
		},
		{name: "the sidecar's limit is above the Pod's", requests: amounts("100m", "128Mi"), limits: amounts("1", "200Mi")},
		{
			name: "the Pod is Guaranteed, and containers say nothing", requests: amounts("1", "1Gi"), limits: amounts("1", "1Gi"),
			containers: func(r *corev1.ResourceRequirements) { *r = corev1.ResourceRequirements{} },
		},
		{
			name: "the Pod is Guaranteed by its limits alone", limits: amounts("1", "1Gi"),
			containers: func(r *corev1.ResourceRequirements) { *r = corev1.ResourceRequirements{} },
			warns:      []string{"request for cpu, which was 1, becomes 10m", "memory, which was 1Gi, becomes 32Mi", "no longer Guaranteed"},
		},
		{
			name: "the Pod is Guaranteed as its limits follow from the containers'", requests: amounts("2", "128Mi"),
			warns: []string{"limit of cpu, which was 2, becomes 2500m", "memory, which was 128Mi, becomes 384Mi", "no longer Guaranteed"},
		},
		{
			name: "containers are Guaranteed, and the Pod is not", requests: amounts("150m", "200Mi"), limits: amounts("4", "4Gi"),
			containers: func(r *corev1.ResourceRequirements) { *r = corev1.ResourceRequirements{Limits: amounts("50m", "64Mi")} },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			podIn := func(namespace string) *corev1.Pod {
				p := pod(namespace)
				p.Spec.Resources = &corev1.ResourceRequirements{Requests: test.requests, Limits: test.limits}
				for i := range p.Spec.Containers {
					if test.containers != nil {
						test.containers(&p.Spec.Containers[i].Resources)
					}
				}
				return p
			}
			before, _ := admit(t, podIn(plain))
			after, warnings := admit(t, podIn(chosen))
			if leftOut := len(added(after)) == 0; leftOut != test.leftOut {
				t.Errorf("added %q", added(after))
			}
			if err := missing(strings.Join(warnings, "\n"), test.warns...); err != nil || len(warnings) > len(test.warns) {
				t.Errorf("warnings %q: %v", warnings, err)
			}
			kept := before.Status.QOSClass == after.Status.QOSClass
			if told := strings.Contains(strings.Join(warnings, "\n"), "no longer Guaranteed"); kept == told {
				t.Errorf("the QoS class was %s and is %s, warnings %q", before.Status.QOSClass, after.Status.QOSClass, warnings)
			}
		})
	}
}

// TestWhatFitsIntoAPodsOwnResourcesIsWhatTheAPIServerTakes holds the arithmetic to the API server's: each Pod that is woven is
// taken, and each that is refused would have been refused with what is added.
func TestWhatFitsIntoAPodsOwnResourcesIsWhatTheAPIServerTakes(t *testing.T) {
	t.Parallel()
	const template = `
custom:
  template:
    initContainers:
    - image: registry.example.com/agent:1
      resources: {requests: {cpu: %s, memory: 1Mi}}
`
	create(t, custom(t, "fit-a", fmt.Sprintf(template, "40m")))
	create(t, custom(t, "fit-b", fmt.Sprintf(template, "10m")+"      restartPolicy: Always\n"))
	create(t, custom(t, "fit-c", fmt.Sprintf(template, "70m")))
	in := namespace(t, nil)
	dry := func(p *corev1.Pod) (*corev1.Pod, error) {
		return server.Clientset.CoreV1().Pods(in).Create(t.Context(), p, dryRun())
	}
	needs := func(name, cpu string, policy corev1.ContainerRestartPolicy) corev1.Container {
		c := container(name)
		c.Resources.Requests[corev1.ResourceCPU] = quantity(cpu)
		if policy != "" {
			c.RestartPolicy = &policy
		}
		return c
	}
	for name, inits := range map[string][]corev1.Container{
		"no init containers":           nil,
		"one of the app":               {needs("setup", "75m", "")},
		"one of a mesh":                {needs("istio-init", "75m", "")},
		"a sidecar and then the app's": {needs("istio-proxy", "20m", corev1.ContainerRestartPolicyAlways), needs("setup", "50m", "")},
	} {
		t.Run(name, func(t *testing.T) {
			podWith := func(cpu int) *corev1.Pod {
				p := pod(in, v1alpha1.InjectKey, "fit-a, fit-b, fit-c")
				p.Spec.InitContainers = inits
				p.Spec.Resources = &corev1.ResourceRequirements{Requests: amounts(fmt.Sprintf("%dm", cpu), "1Gi")}
				return p
			}
			spacious, err := dry(podWith(1000))
			if err != nil || len(added(spacious)) != 3 {
				t.Fatalf("added %q: %v", added(spacious), err)
			}
			taken, refused := 0, 0
			for cpu := 75; cpu <= 115; cpu += 5 { // the Pod alone needs 75m at most
				_, byPillion := dry(podWith(cpu))
				woven := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "woven-"}, Spec: *spacious.Spec.DeepCopy()}
				woven.Spec.Resources = podWith(cpu).Spec.Resources
				_, byAPIServer := dry(woven)
				if byAPIServer == nil {
					taken++
				} else if err := missing(byAPIServer.Error(), "aggregate container requests"); err == nil {
					refused++
				} else {
					t.Fatal(err)
				}
				if (byPillion == nil) != (byAPIServer == nil) {
					t.Errorf("with %dm of cpu Pillion says %v, and the API server %v", cpu, byPillion, byAPIServer)
				}
				if byPillion != nil && missing(byPillion.Error(), "PodResourcesExceeded") != nil {
					t.Errorf("with %dm of cpu: %v", cpu, byPillion)
				}
			}
			if taken == 0 || refused == 0 {
				t.Errorf("%d Pods are taken, and %d refused: choose other amounts", taken, refused)
			}
		})
	}
}

// TestALimitRangeIsMetByTheResourcesOfTheProfile shows what docs/limits.md says of a LimitRange: its words, and what to do.
func TestALimitRangeIsMetByTheResourcesOfTheProfile(t *testing.T) {
	t.Parallel()
	fitted := site("ranged-fitted")
	fitted.Spec.GitSync.Resources = v1alpha1.Resources{
		Requests: v1alpha1.ResourceList{CPU: new(quantity("100m")), Memory: new(quantity("64Mi"))},
		Limits:   v1alpha1.ResourceList{CPU: new(quantity("200m")), Memory: new(quantity("128Mi"))},
	}
	create(t, fitted)
	createReady(t, matching(site("ranged"), "ranged", v1alpha1.FailurePolicyIgnore))
	for name, test := range map[string]struct {
		limits corev1.LimitRangeItem
		says   string
	}{
		"min": {corev1.LimitRangeItem{Min: amounts("50m", "16Mi")}, "minimum cpu usage per Container is 50m, but request is 10m"},
		"max": {corev1.LimitRangeItem{Max: amounts("1", "128Mi")}, "maximum memory usage per Container is 128Mi, but limit is 256Mi"},
		"ratio": {
			corev1.LimitRangeItem{MaxLimitRequestRatio: amounts("10", "10")},
			"max limit to request ratio per Container is 10, but provided ratio is 50",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plain, chosen := namespace(t, nil), namespace(t, map[string]string{"ranged": ""})
			test.limits.Type = corev1.LimitTypeContainer
			podIn := func(in string, annotations ...string) *corev1.Pod {
				p := pod(in, annotations...)
				for i := range p.Spec.Containers {
					p.Spec.Containers[i].Resources = corev1.ResourceRequirements{
						Requests: amounts("100m", "64Mi"), Limits: amounts("200m", "128Mi"),
					}
				}
				return p
			}
			for _, p := range []*corev1.Pod{podIn(chosen), podIn(plain, v1alpha1.InjectKey, "ranged")} {
				create(t, &corev1.LimitRange{
					ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "range"},
					Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{test.limits}},
				})
				err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
					_, err := server.Clientset.CoreV1().Pods(p.Namespace).Create(ctx, p, dryRun())
					return err != nil && missing(err.Error(), test.says) == nil, err
				})
				if err != nil {
					t.Errorf("what does not fit is not refused: %v", err)
				}
			}
			admit(t, podIn(plain))
			if stored, _ := admit(t, podIn(plain, v1alpha1.InjectKey, "ranged-fitted")); len(added(stored)) != 1 {
				t.Errorf("added %q", added(stored))
			}
		})
	}
}
