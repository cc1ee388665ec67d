package injectors

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func TestAPodIsKeptGuaranteedWhereItsContainersMakeItSo(t *testing.T) {
	const equal = `resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: 1000m, memory: 1024Mi}}`
	tests := map[string]struct {
		spec string
		want bool
	}{
		"every container's requests equal its limits": {`{containers: [{name: a, ` + equal + `}, {name: b, ` + equal + `}]}`, true},
		"limits alone are requests":                   {`{containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]}`, true},
		"a container without resources":               {`{containers: [{name: a, ` + equal + `}, {name: b}]}`, false},
		"an init container without resources":         {`{containers: [{name: a, ` + equal + `}], initContainers: [{name: b}]}`, false},
		"a request below the limit":                   {`{containers: [{name: a, resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}}]}`, false},
		"a limit of zero":                             {`{containers: [{name: a, resources: {limits: {cpu: 0, memory: 1Gi}}}]}`, false},
		"no containers":                               {`{}`, false},
		"the Pod's own resources decide, where it has some": {
			`{resources: {requests: {cpu: 2}, limits: {cpu: 4}}, containers: [{name: a, ` + equal + `}]}`, false,
		},
		"they are Guaranteed by themselves, whatever containers have": {`{` + equal + `, containers: [{name: a, ` + equal + `}]}`, false},
		"empty ones do not": {`{resources: {}, containers: [{name: a, ` + equal + `}]}`, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{}
			if err := yaml.UnmarshalStrict([]byte("spec: "+test.spec), pod); err != nil {
				t.Fatal(err)
			}
			if got := HardeningFor(pod).Guaranteed; got != test.want {
				t.Errorf("kept Guaranteed: %t", got)
			}
		})
	}
}

func TestInAGuaranteedPodOnlyRequestsWithALimitAreRaised(t *testing.T) {
	list := func(cpu, memory, storage string) corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
			corev1.ResourceEphemeralStorage: resource.MustParse(storage),
		}
	}
	limits := list("500m", "256Mi", "1Gi")
	delete(limits, corev1.ResourceEphemeralStorage)
	for guaranteed, want := range map[bool]corev1.ResourceList{
		false: list("10m", "32Mi", "1Gi"),
		true:  list("500m", "256Mi", "1Gi"),
	} {
		spec := siteContent(func(spec *v1alpha1.GitSync) {
			spec.Resources.Requests.EphemeralStorage = new(resource.MustParse("1Gi"))
		})
		request := Request{Profile: "x", Pattern: &v1alpha1.Pattern{GitSync: spec}, Images: DefaultImages("")}
		got := Build(gitSyncInjector(), request, Hardening{Guaranteed: guaranteed}).InitContainers[0].Resources
		if diff := cmp.Diff(corev1.ResourceRequirements{Requests: want, Limits: limits}, got); diff != "" {
			t.Errorf("Guaranteed: %t (-want +got):\n%s", guaranteed, diff)
		}
		got.Requests[corev1.ResourceCPU] = resource.MustParse("7")
		if limit := got.Limits[corev1.ResourceCPU]; limit.String() == "7" {
			t.Error("requests and limits are one map")
		}
	}
}
