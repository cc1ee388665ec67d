package profiles_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
)

// resourceful is a custom profile with one container, of init containers or containers, that requests 10m of CPU and 32Mi of memory.
func resourceful(list, more string) string {
	return fmt.Sprintf(`custom: {template: {%s: [{image: "registry.example.com/a:1", %s
	  resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: 500m, memory: 128Mi}}}]}}`, list, more)
}

func TestWhatIsAddedFitsIntoThePodsOwnResources(t *testing.T) {
	sidecar := resourceful("initContainers", "restartPolicy: Always,")
	const (
		small     = `{name: app, resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {cpu: "1", memory: 64Mi}}}`
		plain     = `{name: app}`
		tight     = `{name: app, resources: {limits: {cpu: "1", memory: 1Gi}}}`
		unlimited = `{name: app, resources: {requests: {cpu: 20m, memory: 16Mi}}}`
	)
	tests := map[string]struct {
		profile  string // sidecar where it is empty
		spec     string
		refused  []string // what each refusal says
		warnings []string // what the warning says
	}{
		"the Pod's requests have room": {
			spec: `{resources: {requests: {cpu: 30m, memory: 48Mi}, limits: {cpu: "2", memory: 1Gi}}, containers: [` + small + `]}`,
		},
		"the Pod's requests are used up": {
			spec: `{resources: {requests: {cpu: 29m, memory: 48Mi}, limits: {cpu: "2", memory: 1Gi}}, containers: [` + small + `]}`,
			refused: []string{"with what profile x adds, the Pod's containers request 30m of cpu together, and the Pod itself has 29m " +
				"(spec.resources.requests): raise that to 30m"},
		},
		"each of them is told": {
			spec: `{resources: {requests: {cpu: 20m, memory: 16Mi}}, containers: [` + small + `]}`,
			refused: []string{
				"request 30m of cpu together, and the Pod itself has 20m",
				"request 48Mi of memory together, and the Pod itself has 16Mi",
			},
		},
		"a request that is not set is held to the limit": {
			spec:    `{resources: {limits: {cpu: "1"}}, containers: [` + tight + `]}`,
			refused: []string{"request 1010m of cpu together, and the Pod itself has 1 (spec.resources.limits)"},
		},
		"a limit alone of a container is its request, too": {
			spec:    `{resources: {requests: {cpu: "1", memory: 2Gi}}, containers: [` + tight + `]}`,
			refused: []string{"request 1010m of cpu together, and the Pod itself has 1"},
		},
		"what the Pod exceeds by itself may not become more": {
			spec:    `{resources: {requests: {cpu: 10m}}, containers: [` + small + `]}`,
			refused: []string{"request 30m of cpu together, and the Pod itself has 10m"},
		},
		"an init container that ends before the app needs no more": {
			profile: resourceful("initContainers", ""),
			spec:    `{resources: {requests: {cpu: 20m, memory: 32Mi}}, containers: [` + small + `]}`,
		},
		"an init container of the app runs beside the sidecar": {
			spec: `{resources: {requests: {cpu: 209m, memory: 1Gi}}, containers: [` + small + `],
			  initContainers: [{name: setup, resources: {requests: {cpu: 200m}}}]}`,
			refused: []string{"request 210m of cpu together, and the Pod itself has 209m"},
		},
		"what leads the list of init containers ends before the sidecar starts": {
			spec: `{resources: {requests: {cpu: 209m, memory: 1Gi}}, containers: [` + small + `],
			  initContainers: [{name: istio-init, resources: {requests: {cpu: 200m}}}]}`,
		},
		"a container's limit is held to the Pod's": {
			profile: resourceful("containers", ""),
			spec:    `{resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: 499m, memory: 1Gi}}, containers: [` + small + `]}`,
			refused: []string{"profile x adds container pillion-x with a limit of 500m of cpu, and the Pod itself has 499m " +
				"(spec.resources.limits): raise that to 500m"},
		},
		"a sidecar's is not": {
			spec: `{resources: {requests: {cpu: 200m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}, containers: [` + unlimited + `]}`,
		},
		"resources of which the Pod has none of its own": {
			profile: strings.ReplaceAll(sidecar, "memory: 32Mi", "memory: 32Mi, ephemeral-storage: 1Gi"),
			spec:    `{resources: {requests: {cpu: "1"}}, containers: [` + small + `]}`,
		},
		"the Pod's empty resources are none": {
			spec: `{resources: {}, containers: [` + small + `]}`,
		},
		"the Pod's limits are its requests while no container has any": {
			spec: `{resources: {limits: {cpu: "1", memory: 1Gi}}, containers: [` + plain + `]}`,
			warnings: []string{"profile x: the Pod's own request for cpu, which was 1, becomes 10m, its request for memory, which was 1Gi, " +
				"becomes 32Mi, and its QoS class is Burstable and no longer Guaranteed", "set it in spec.resources"},
		},
		"where another container has one they are not": {
			spec: `{resources: {limits: {cpu: "1", memory: 1Gi}}, containers: [` + unlimited + `]}`,
		},
		"the Pod's limits follow from the containers' if all have one": {
			spec:     `{resources: {requests: {cpu: "1", memory: 100Mi}}, containers: [` + small + `]}`,
			warnings: []string{"limit of cpu, which was 1, becomes 1500m", "memory, which was 100Mi, becomes 192Mi", "no longer Guaranteed"},
		},
		"the Pod is Guaranteed by its own resources": {
			spec: `{resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: "1", memory: 1Gi}}, containers: [` + plain + `]}`,
		},
		"the Pod is Burstable by its own resources, and would be Guaranteed by its containers'": {
			spec: `{resources: {requests: {cpu: 1010m, memory: 2Gi}, limits: {cpu: "4", memory: 4Gi}}, containers: [` + tight + `]}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.profile == "" {
				test.profile = sidecar
			}
			decision := profiles.Decide(snapshotOf(t, cluster("x", test.profile)), web(), podOf(t, asking("x"), test.spec))
			var refused []string
			for _, outcome := range decision.Outcomes {
				if outcome.Result == profiles.Rejected && outcome.Reason == profiles.ReasonPodResourcesExceeded {
					refused = append(refused, outcome.Message)
				}
			}
			if len(refused) != len(test.refused) || decision.Allowed == (len(test.refused) > 0) {
				t.Fatalf("allowed: %t, %q", decision.Allowed, refused)
			}
			for i := range refused {
				if !strings.Contains(refused[i], test.refused[i]) {
					t.Errorf("it does not say %q: %s", test.refused[i], refused[i])
				}
			}
			warnings := strings.Join(decision.Warnings, "\n")
			for _, part := range test.warnings {
				if !strings.Contains(warnings, part) {
					t.Errorf("no warning says %q: %q", part, warnings)
				}
			}
			if len(decision.Warnings) > len(test.warnings) {
				t.Errorf("warnings: %q", warnings)
			}
			if !decision.Allowed {
				return
			}
			woven := decision.Pod()
			for _, container := range slices.Concat(woven.Spec.InitContainers, woven.Spec.Containers) {
				if cpu := container.Resources.Requests[corev1.ResourceCPU]; container.Name == "pillion-x" && cpu.String() != "10m" {
					t.Errorf("what is added requests %s of cpu", cpu.String())
				}
			}
		})
	}
}

func TestAPodThatIsGuaranteedByItsContainersStaysSo(t *testing.T) {
	const app = `{containers: [{name: app, resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: "1", memory: 1Gi}}}]}`
	tests := map[string]struct {
		profile     string
		cpu, memory string // what is added requests
	}{
		"a sidecar that requests less than its limits": {resourceful("initContainers", "restartPolicy: Always,"), "500m", "128Mi"},
		"an init container that does":                  {resourceful("initContainers", ""), "500m", "128Mi"},
		"a container that does":                        {resourceful("containers", ""), "500m", "128Mi"},
		"one with a limit alone": {
			`custom: {template: {containers: [{image: "a:1", resources: {limits: {cpu: 250m}}}]}}`, "250m", "128Mi",
		},
		"one with a request alone, above the default limit": {
			`custom: {template: {containers: [{image: "a:1", resources: {requests: {memory: 2Gi}}}]}}`, "500m", "2Gi",
		},
		"one whose amounts a parameter gives": {
			`custom: {parameters: [{name: cpu, type: quantity, default: 50m}], template: {containers: [{image: "a:1",
			  resources: {requests: {cpu: "${params.cpu}"}, limits: {cpu: 100m}}}]}}`, "100m", "128Mi",
		},
		"one without resources": {`custom: {template: {containers: [{image: "a:1"}]}}`, "500m", "128Mi"},
		"a built-in pattern": {
			`gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, resources: {limits: {cpu: 100m, memory: 64Mi}}}`,
			"100m", "64Mi",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshotOf(t, cluster("x", test.profile)), web(), podOf(t, asking("x"), app))
			if !decision.Allowed || len(decision.Warnings) > 0 {
				t.Fatalf("allowed: %t, %s, warnings %q", decision.Allowed, decision.Denial(), decision.Warnings)
			}
			woven := decision.Pod()
			if !injectors.HardeningFor(woven).Guaranteed {
				t.Error("the woven Pod is not Guaranteed")
			}
			added := containerOf(woven, "pillion-x")
			if added == nil {
				t.Fatal("nothing is added")
			}
			want := corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(test.cpu), corev1.ResourceMemory: resource.MustParse(test.memory),
			}
			if diff := cmp.Diff(corev1.ResourceRequirements{Requests: want, Limits: want}, added.Resources); diff != "" {
				t.Errorf("resources of what is added (-want +got):\n%s", diff)
			}
		})
	}
}

// A limit of zero would take the class from the Pod, however it comes into the template.
func TestALimitOfZeroIsNotAdded(t *testing.T) {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		t.Run("as it is written: "+string(name), func(t *testing.T) {
			p := compile(t, cluster("x", fmt.Sprintf(
				`custom: {template: {containers: [{image: "a:1", resources: {limits: {%s: 0}}}]}}`, name)))
			if len(p.Problems) != 1 || !strings.Contains(p.Problems[0].Field, "resources.limits["+string(name)+"]") {
				t.Errorf("problems: %v", p.Problems)
			}
		})
		t.Run("as an expression yields it: "+string(name), func(t *testing.T) {
			snapshot := snapshotOf(t, cluster("x", fmt.Sprintf(`custom: {parameters: [{name: most, type: quantity, default: 1Gi}],
			  template: {containers: [{image: "a:1", resources: {limits: {%s: "${params.most}"}}}]}}, overridable: [most]`, name)))
			pod := podOf(t, `{annotations: {pillion.dev/inject: x, x.pillion.dev/most: "0"}}`,
				`{containers: [{name: app, resources: {limits: {cpu: "1", memory: 1Gi}}}]}`)
			decision := profiles.Decide(snapshot, web(), pod)
			if decision.Allowed || !strings.Contains(decision.Denial(), "limits["+string(name)+"]") {
				t.Errorf("allowed: %t, it does not name the limit: %s", decision.Allowed, decision.Denial())
			}
		})
	}
}

func TestProfilesShareThePodsOwnResources(t *testing.T) {
	sidecar := resourceful("initContainers", "restartPolicy: Always,")
	const chosen = `, match: {}`
	tests := map[string]struct {
		cpu      string // of the Pod, whose app requests 10m
		profiles []source
		asked    string
		want     []string
	}{
		"there is room for both": {
			cpu: "30m", profiles: []source{cluster("a", sidecar+chosen), cluster("b", sidecar+chosen)},
			want: []string{"a Match Applied Applied", "b Match Applied Applied"},
		},
		"the second does not fit": {
			cpu: "29m", profiles: []source{cluster("a", sidecar+chosen), cluster("b", sidecar+chosen)},
			want: []string{"a Match Applied Applied", "b Match Rejected PodResourcesExceeded"},
		},
		"what is asked for comes before policy": {
			cpu: "29m", profiles: []source{cluster("a", sidecar+chosen), cluster("b", sidecar)}, asked: "b",
			want: []string{"a Match Rejected PodResourcesExceeded", "b Annotation Applied Applied"},
		},
		"one that is too large leaves the room to others": {
			cpu: "29m",
			profiles: []source{
				cluster("a", strings.ReplaceAll(sidecar, "cpu: 10m", "cpu: 20m")+chosen), cluster("b", sidecar+chosen),
			},
			want: []string{"a Match Rejected PodResourcesExceeded", "b Match Applied Applied"},
		},
		"an init container does not run beside the sidecar that starts after it": {
			cpu: "20m",
			profiles: []source{
				cluster("a", strings.ReplaceAll(resourceful("initContainers", ""), "cpu: 10m", "cpu: 20m")+chosen),
				cluster("b", sidecar+chosen),
			},
			want: []string{"a Match Applied Applied", "b Match Applied Applied"},
		},
		"an init container runs beside the sidecar that starts before it": {
			cpu: "20m",
			profiles: []source{
				cluster("a", sidecar+chosen),
				cluster("b", strings.ReplaceAll(resourceful("initContainers", ""), "cpu: 10m", "cpu: 20m")+chosen),
			},
			want: []string{"a Match Applied Applied", "b Match Rejected PodResourcesExceeded"},
		},
		"an init container that was taken first runs beside a sidecar that starts before it": {
			cpu: "20m",
			profiles: []source{
				cluster("a", sidecar+chosen),
				cluster("b", strings.ReplaceAll(resourceful("initContainers", ""), "cpu: 10m", "cpu: 20m")),
			},
			asked: "b",
			want:  []string{"a Match Rejected PodResourcesExceeded", "b Annotation Applied Applied"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			metadata := `{}`
			if test.asked != "" {
				metadata = asking(test.asked)
			}
			pod := podOf(t, metadata, `{resources: {requests: {cpu: `+test.cpu+`}, limits: {cpu: "1"}},
			  containers: [{name: app, resources: {requests: {cpu: 10m}}}]}`)
			before := pod.DeepCopy()
			decision := profiles.Decide(snapshotOf(t, test.profiles...), web(), pod)
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" || !decision.Allowed {
				t.Errorf("%s (-want +got):\n%s", decision.Denial(), diff)
			}
			if diff := cmp.Diff(before, pod); diff != "" {
				t.Errorf("the Pod was changed (-before +after):\n%s", diff)
			}
			woven := decision.Pod()
			if again := profiles.Decide(snapshotOf(t, test.profiles...), web(), woven); !again.Allowed || len(again.Patch) > 0 {
				t.Errorf("the woven Pod is woven again: %q", outcomes(&again))
			}
		})
	}
}

func TestWhatIsEnforcedMustFitIntoThePodsOwnResources(t *testing.T) {
	sidecar := resourceful("initContainers", "restartPolicy: Always,")
	snapshot := snapshotOf(t, cluster("x", sidecar+`, failurePolicy: Ignore, match: {enforce: true, namespaceSelector: {matchLabels: {team: web}}}`))
	pod := podOf(t, `{}`, `{resources: {requests: {cpu: 10m}}, containers: [{name: app, resources: {requests: {cpu: 10m}}}]}`)
	if decision := profiles.Decide(snapshot, web(), pod); decision.Allowed {
		t.Error("a Pod without room for what is enforced is allowed")
	}
}

func TestAContainersRequestMustNotExceedItsLimit(t *testing.T) {
	snapshot := snapshotOf(t,
		cluster("site", `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, resources: {limits: {memory: 64Mi}}},
		  overridable: [resources]`),
		cluster("own", `custom: {parameters: [{name: mem, type: quantity, default: 64Mi}], template: {initContainers: [{image: "a:1",
		  restartPolicy: Always, resources: {requests: {memory: "${params.mem}"}, limits: {memory: 128Mi}}}]}}, overridable: [mem]`))
	for annotations, says := range map[string]string{
		`pillion.dev/inject: site, site.pillion.dev/resources.requests.memory: 1Gi`: "must be at most limits.memory",
		`pillion.dev/inject: own, own.pillion.dev/mem: 1Gi`:                         "is more than the limit, 128Mi",
	} {
		decision := profiles.Decide(snapshot, web(), podOf(t, `{annotations: {`+annotations+`}}`, appOnly))
		if decision.Allowed || !strings.Contains(decision.Denial(), "requests") || !strings.Contains(decision.Denial(), says) {
			t.Errorf("%s: allowed: %t, it does not say %q: %s", annotations, decision.Allowed, says, decision.Denial())
		}
	}
	p := compile(t, cluster("x", `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site,
	  resources: {requests: {memory: 1Gi}, limits: {memory: 64Mi}}}`))
	if len(p.Problems) != 1 || p.Problems[0].Field != "spec.gitSync.resources.requests.memory" {
		t.Errorf("problems of a profile whose request is above its limit: %v", p.Problems)
	}
}
