package controller

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// podIndex is what is remembered of woven Pods. Those of a workload are alike in all that matters here, so a Pod takes no more
// than its name and a pointer to what it shares with others.
type podIndex struct {
	pods   map[podKey]*podShape
	shapes map[shapeKey]*podShape
	// carried is how many Pods carry a revision of a profile.
	carried map[types.NamespacedName]map[string]int
}

type podKey struct{ namespace, name string }

// shapeKey is a hash of what a shape is made of.
type shapeKey [sha256.Size]byte

// podShape is what alike Pods of a namespace have in common.
type podShape struct {
	key       shapeKey
	namespace string
	// carried is the revision of each profile that the Pods carry.
	carried map[types.NamespacedName]string
	// asked are the names that the Pods' own annotation asks for, for Pods of an owner that is not looked at itself.
	asked []string
	owner string // "KIND NAMESPACE/NAME"
	pods  int
}

func newPodIndex() *podIndex {
	return &podIndex{
		pods: map[podKey]*podShape{}, shapes: map[shapeKey]*podShape{}, carried: map[types.NamespacedName]map[string]int{},
	}
}

// put remembers a Pod, in place of what was remembered of it. It returns what the counts of which have changed.
func (x *podIndex) put(pod *metav1.PartialObjectMetadata) []types.NamespacedName {
	if pod.DeletionTimestamp != nil || pod.Labels[v1alpha1.InjectedKey] != "true" {
		return x.remove(pod)
	}
	shape := x.shapeOf(pod)
	key := podKey{shape.namespace, pod.Name}
	before, known := x.pods[key]
	if before == shape {
		return nil
	}
	x.pods[key] = shape
	changed := x.count(shape, 1)
	if known {
		changed = append(changed, x.count(before, -1)...)
	}
	return changed
}

// remove forgets a Pod. It returns what the counts of which have changed.
func (x *podIndex) remove(pod *metav1.PartialObjectMetadata) []types.NamespacedName {
	key := podKey{pod.Namespace, pod.Name}
	shape, known := x.pods[key]
	if !known {
		return nil
	}
	delete(x.pods, key)
	return x.count(shape, -1)
}

// count adds to the number of Pods of a shape, and forgets a shape that has none.
func (x *podIndex) count(shape *podShape, by int) []types.NamespacedName {
	changed := make([]types.NamespacedName, 0, len(shape.carried))
	for profile, revision := range shape.carried {
		changed = append(changed, profile)
		revisions := x.carried[profile]
		if revisions == nil {
			revisions = map[string]int{}
			x.carried[profile] = revisions
		}
		if revisions[revision] += by; revisions[revision] == 0 {
			delete(revisions, revision)
		}
		if len(revisions) == 0 {
			delete(x.carried, profile)
		}
	}
	if shape.pods += by; shape.pods == 0 {
		delete(x.shapes, shape.key)
	}
	return changed
}

// shapeOf returns the shape of a Pod.
func (x *podIndex) shapeOf(pod *metav1.PartialObjectMetadata) *podShape {
	owner := ""
	if controller := metav1.GetControllerOf(pod); controller != nil && !isLookedAt(controller) {
		owner = fmt.Sprintf("%s %s/%s", controller.Kind, pod.Namespace, controller.Name)
	}
	hash := sha256.New()
	write := func(text string) { _, _ = fmt.Fprintf(hash, "%d %s", len(text), text) }
	write(pod.Namespace)
	write(owner)
	if owner != "" {
		write(pod.Annotations[v1alpha1.InjectKey])
	}
	keys := injectedKeys(pod.Annotations)
	for _, key := range keys {
		write(pod.Annotations[key])
	}
	key := shapeKey(hash.Sum(nil))
	if shape, known := x.shapes[key]; known {
		return shape
	}
	shape := &podShape{key: key, namespace: pod.Namespace, owner: owner, carried: map[types.NamespacedName]string{}}
	for _, key := range keys {
		readInjected(pod.Annotations[key], shape.carried)
	}
	if owner != "" {
		asking := map[string]string{}
		if value, ok := pod.Annotations[v1alpha1.InjectKey]; ok {
			asking[v1alpha1.InjectKey] = value
		}
		shape.asked = profiles.AskedNames(asking, profiles.Namespace{Name: shape.namespace})
	}
	x.shapes[key] = shape
	return shape
}

// isLookedAt tells whether what the controlling owner's template asks for is looked up there, or at its own owner.
func isLookedAt(owner *metav1.OwnerReference) bool {
	group, _, _ := strings.Cut(owner.APIVersion, "/")
	switch owner.Kind {
	case "ReplicaSet", "StatefulSet", "DaemonSet":
		return group == appsv1.GroupName
	case "Job":
		return group == batchv1.GroupName
	}
	return false
}

// injectedKeys returns the keys of the annotations that tell what was woven, in the order in which it was.
func injectedKeys(annotations map[string]string) []string {
	var keys []string
	for key := range annotations {
		if key == v1alpha1.InjectedKey || strings.HasPrefix(key, v1alpha1.InjectedKey+".") {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { // .10 is after .9
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return keys
}

// readInjected reads the revision of each profile that an annotation tells of. One that cannot be read tells nothing.
func readInjected(value string, into map[types.NamespacedName]string) {
	entries := map[string]v1alpha1.Injected{}
	if json.Unmarshal([]byte(value), &entries) != nil {
		return
	}
	for profile, entry := range entries {
		revision := entry.Profile
		if revision == "" {
			revision = entry.Revision
		}
		into[types.NamespacedName{Namespace: entry.Namespace, Name: profile}] = revision
	}
}

// counts returns how many Pods carry a profile.
func (x *podIndex) counts(profile types.NamespacedName, revision string) v1alpha1.PodCounts {
	counts := v1alpha1.PodCounts{}
	for carried, pods := range x.carried[profile] {
		if carried == revision {
			counts.Current += int32(pods)
		} else {
			counts.Outdated += int32(pods)
		}
	}
	return counts
}

// askers returns the owners of Pods that ask for a profile by name, in the namespaces that are chosen, each once.
func (x *podIndex) askers(profile string, chosen func(namespace string) bool) []string {
	owners := map[string]bool{}
	for _, shape := range x.shapes {
		if slices.Contains(shape.asked, profile) && chosen(shape.namespace) {
			owners[shape.owner] = true
		}
	}
	return slices.Sorted(maps.Keys(owners))
}

// all returns everything that has counts.
func (x *podIndex) all() []types.NamespacedName {
	return slices.Collect(maps.Keys(x.carried))
}
