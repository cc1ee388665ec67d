package profiles

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// exceeding says where the API server would refuse the Pod, because what a candidate adds is more than the Pod's own resources, those
// of spec.resources, have for all its containers. Where it is not, but the Pod's QoS class or requests change, the outcome says so.
func (d *decider) exceeding(weaver *weave.Weaver, c *candidate, fragment *weave.Fragment) []weave.Problem {
	if !injectors.HasPodResources(d.pod) {
		return nil // what is added keeps a Pod Guaranteed that is so by its containers
	}
	before, woven := d.wovenWith(weaver, c, fragment)
	problems := slices.Concat(requestsExceeded(c, before, woven), limitsExceeded(c, fragment, d.pod.Spec.Resources))
	if len(problems) == 0 {
		c.outcome.warn(changedPodResources(c, before, woven))
	}
	return problems
}

// wovenWith returns the Pod with the Fragments that a Weaver has taken, and with a candidate's in its place among them: an init
// container runs beside the sidecars that stand before it, so that what a Pod requests depends on their order.
func (d *decider) wovenWith(weaver *weave.Weaver, c *candidate, fragment *weave.Fragment) (before, woven *corev1.Pod) {
	ahead := slices.Clone(d.snapshot.options.Weave.LeadingContainers)
	var names []string
	isLater := false
	for _, other := range d.order {
		names = append(names, other.profile.Name)
		isLater = isLater || other == c
		if !isLater || other.present {
			ahead = append(ahead, other.outcome.Containers...)
		}
	}
	before, _ = weaver.Weave(names, weave.Marks{})
	inits := before.Spec.InitContainers
	place := slices.IndexFunc(inits, func(container corev1.Container) bool { return !slices.Contains(ahead, container.Name) })
	if place < 0 {
		place = len(inits)
	}
	copied := *before
	copied.Spec.InitContainers = slices.Insert(slices.Clone(inits), place, fragment.InitContainers...)
	copied.Spec.Containers = slices.Concat(before.Spec.Containers, fragment.Containers)
	return before, &copied
}

// requestsExceeded finds what all containers together request more of than the Pod has, since the candidate was added. Where the Pod
// has no request of its own the API server makes it of theirs, and holds that to the Pod's limit.
func requestsExceeded(c *candidate, before, woven *corev1.Pod) []weave.Problem {
	var problems []weave.Problem
	own := woven.Spec.Resources
	for _, name := range slices.Sorted(maps.Keys(union(own.Requests, own.Limits))) {
		most, where := own.Limits[name], "spec.resources.limits"
		if request, ok := own.Requests[name]; ok {
			most, where = request, "spec.resources.requests"
		}
		requested, _ := aggregate(woven, name, requestIn)
		already, _ := aggregate(before, name, requestIn)
		if requested.Cmp(most) <= 0 || requested.Cmp(already) <= 0 {
			continue // what the Pod exceeds by itself, and the profile adds nothing to, is the API server's to refuse
		}
		problems = append(problems, weave.Problem{Reason: ReasonPodResourcesExceeded, Message: fmt.Sprintf(
			"with what profile %s adds, the Pod's containers request %s of %s together, and the Pod itself has %s (%s): "+
				"raise that to %[2]s, or lower the requests of the profile or of the Pod's containers",
			c.profile.Name, requested.String(), name, most.String(), where)})
	}
	return problems
}

// limitsExceeded finds containers whose limit is higher than the Pod's. Init containers may have such limits.
func limitsExceeded(c *candidate, fragment *weave.Fragment, own *corev1.ResourceRequirements) []weave.Problem {
	var problems []weave.Problem
	for i := range fragment.Containers {
		container := &fragment.Containers[i]
		for _, name := range slices.Sorted(maps.Keys(container.Resources.Limits)) {
			limit := container.Resources.Limits[name]
			if most, ok := own.Limits[name]; ok && limit.Cmp(most) > 0 {
				problems = append(problems, weave.Problem{Reason: ReasonPodResourcesExceeded, Message: fmt.Sprintf(
					"profile %s adds container %s with a limit of %s of %s, and the Pod itself has %s (spec.resources.limits): "+
						"raise that to %[3]s, or lower the limit of the profile",
					c.profile.Name, container.Name, limit.String(), name, most.String())})
			}
		}
	}
	return problems
}

// changedPodResources says which of the Pod's own resources change with what a candidate adds, because the Pod leaves them open and
// the API server makes them of the containers'; "" if none does.
func changedPodResources(c *candidate, before, woven *corev1.Pod) string {
	was, becomes := defaultedPodResources(before), defaultedPodResources(woven)
	lost := isGuaranteed(was) && !isGuaranteed(becomes)
	var changes []string
	for _, name := range qosResources {
		if old, now := was.Requests[name], becomes.Requests[name]; now.Cmp(old) < 0 {
			changes = append(changes, fmt.Sprintf("request for %s, which was %s, becomes %s", name, old.String(), now.String()))
		}
		if old, now := was.Limits[name], becomes.Limits[name]; lost && now.Cmp(old) != 0 {
			changes = append(changes, fmt.Sprintf("limit of %s, which was %s, becomes %s", name, old.String(), now.String()))
		}
	}
	if len(changes) == 0 {
		return ""
	}
	class := ""
	if lost {
		class = ", and its QoS class is Burstable and no longer Guaranteed"
	}
	return fmt.Sprintf("profile %s: the Pod's own %s%s, for it follows from the containers: set it in spec.resources", c.profile.Name,
		strings.Join(changes, ", its "), class)
}

// qosResources are those that the QoS class of a Pod follows from.
var qosResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// defaultedPodResources returns the Pod's own CPU and memory as the API server completes them (DefaultPodLevelResources in
// k8s.io/kubernetes/pkg/api/pod): a request by those of the containers, or else by the Pod's limit; a limit by those of the
// containers, if all have one, but not below the request.
func defaultedPodResources(pod *corev1.Pod) corev1.ResourceRequirements {
	given := pod.Spec.Resources
	full := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, name := range qosResources {
		request, requested := given.Requests[name]
		limit, limited := given.Limits[name]
		if !requested {
			request, requested = aggregate(pod, name, requestIn)
		}
		if !requested && limited {
			request, requested = limit, true
		}
		if requested && !limited && allLimited(pod, name) {
			limit, limited = aggregate(pod, name, limitIn)
			if request.Cmp(limit) > 0 {
				limit = request
			}
		}
		if requested {
			full.Requests[name] = request
		}
		if limited {
			full.Limits[name] = limit
		}
	}
	return full
}

// isGuaranteed tells whether a Pod's own resources make its QoS class Guaranteed.
func isGuaranteed(own corev1.ResourceRequirements) bool {
	return !slices.ContainsFunc(qosResources, func(name corev1.ResourceName) bool {
		request, limit := own.Requests[name], own.Limits[name]
		return request.IsZero() || request.Cmp(limit) != 0
	})
}

// aggregate returns how much all containers of a Pod have of a resource at the same time; false if none has any. Native sidecars run
// beside all that starts after them, ordinary init containers one by one and before the others.
func aggregate(pod *corev1.Pod, name corev1.ResourceName, of func(*corev1.Container, corev1.ResourceName) (resource.Quantity, bool)) (
	resource.Quantity, bool,
) {
	var running, sidecars, most resource.Quantity
	found := false
	for i := range pod.Spec.Containers {
		amount, ok := of(&pod.Spec.Containers[i], name)
		running.Add(amount)
		found = found || ok
	}
	for i := range pod.Spec.InitContainers {
		container := &pod.Spec.InitContainers[i]
		amount, ok := of(container, name)
		found = found || ok
		starting := sidecars.DeepCopy()
		starting.Add(amount)
		if container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			running.Add(amount)
			sidecars = starting
		}
		if starting.Cmp(most) > 0 {
			most = starting
		}
	}
	if running.Cmp(most) > 0 {
		most = running
	}
	return most, found
}

// requestIn returns a container's request, which is its limit where it has only that.
func requestIn(container *corev1.Container, name corev1.ResourceName) (resource.Quantity, bool) {
	if request, ok := container.Resources.Requests[name]; ok {
		return request, true
	}
	return limitIn(container, name)
}

func limitIn(container *corev1.Container, name corev1.ResourceName) (resource.Quantity, bool) {
	limit, ok := container.Resources.Limits[name]
	return limit, ok
}

func allLimited(pod *corev1.Pod, name corev1.ResourceName) bool {
	unlimited := func(container corev1.Container) bool { _, ok := limitIn(&container, name); return !ok }
	return !slices.ContainsFunc(pod.Spec.Containers, unlimited) && !slices.ContainsFunc(pod.Spec.InitContainers, unlimited)
}

func union(a, b corev1.ResourceList) corev1.ResourceList {
	both := maps.Clone(a)
	if both == nil {
		return b
	}
	maps.Copy(both, b)
	return both
}
