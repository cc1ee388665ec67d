package controller

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// Bounds of what is believed of one Pod. Whoever may create Pods may write a mark, and none may cost much memory. Pillion's own
// marks are far below them.
const (
	maxMarkProfiles = 64
	maxRevision     = 64 // bytes
	maxOwnerKind    = 63 // bytes, as in the API
	maxOwnerName    = validation.DNS1123SubdomainMaxLength
)

// podIndex is what is remembered of woven Pods. Many are alike in all that matters here, so a Pod takes no more than its name,
// its owner's, and a pointer to what it shares with others.
type podIndex struct {
	pods   map[podKey]indexedPod
	shapes map[shapeKey]*podShape
	// carried is how many Pods carry a revision of a profile.
	carried map[types.NamespacedName]map[string]int
}

type podKey struct{ namespace, name string }

type indexedPod struct {
	shape *podShape
	owner string // the controlling owner's name, of a Pod that asks
}

// shapeKey is a hash of what a shape is made of.
type shapeKey [sha256.Size]byte

// podShape is what alike Pods of a namespace have in common.
type podShape struct {
	key       shapeKey
	namespace string
	carried   []carriedProfile
	// asked are the names that the Pods' own annotation asks for, where they have an owner, who may create more of them.
	asked     []string
	ownerKind string
	pods      int
}

type carriedProfile struct {
	profile  types.NamespacedName
	revision string
}

func newPodIndex() *podIndex {
	return &podIndex{
		pods: map[podKey]indexedPod{}, shapes: map[shapeKey]*podShape{}, carried: map[types.NamespacedName]map[string]int{},
	}
}

// put remembers a Pod, in place of what was remembered of it. It returns what the counts of which have changed.
func (x *podIndex) put(pod *metav1.PartialObjectMetadata) []types.NamespacedName {
	if pod.DeletionTimestamp != nil || pod.Labels[v1alpha1.InjectedKey] != "true" {
		return x.remove(pod)
	}
	now := x.indexed(pod)
	key := podKey{now.shape.namespace, pod.Name}
	before, known := x.pods[key]
	x.pods[key] = now
	if before.shape == now.shape {
		return nil
	}
	changed := x.count(now.shape, 1)
	if known {
		changed = append(changed, x.count(before.shape, -1)...)
	}
	return changed
}

// remove forgets a Pod. It returns what the counts of which have changed.
func (x *podIndex) remove(pod *metav1.PartialObjectMetadata) []types.NamespacedName {
	key := podKey{pod.Namespace, pod.Name}
	before, known := x.pods[key]
	if !known {
		return nil
	}
	delete(x.pods, key)
	return x.count(before.shape, -1)
}

// count adds to the number of Pods of a shape, and forgets a shape that has none.
func (x *podIndex) count(shape *podShape, by int) []types.NamespacedName {
	changed := make([]types.NamespacedName, 0, len(shape.carried))
	for _, carried := range shape.carried {
		changed = append(changed, carried.profile)
		revisions := x.carried[carried.profile]
		if revisions == nil {
			revisions = map[string]int{}
			x.carried[carried.profile] = revisions
		}
		if revisions[carried.revision] += by; revisions[carried.revision] == 0 {
			delete(revisions, carried.revision)
		}
		if len(revisions) == 0 {
			delete(x.carried, carried.profile)
		}
	}
	if shape.pods += by; shape.pods == 0 {
		delete(x.shapes, shape.key)
	}
	return changed
}

// indexed returns what is to be remembered of a Pod. A shape that is new has no Pods yet.
func (x *podIndex) indexed(pod *metav1.PartialObjectMetadata) indexedPod {
	owner, asked := "", []string(nil)
	ownerKind := ""
	if controller := metav1.GetControllerOf(pod); controller != nil {
		if asked = askedBy(pod); len(asked) > 0 {
			ownerKind, owner = bounded(controller.Kind, maxOwnerKind), ownerOf(pod.Name, controller.Name)
		}
	}
	marks := profiles.MarksOf(pod.Annotations)

	hash := sha256.New()
	write := func(texts ...string) {
		_, _ = fmt.Fprintf(hash, "%d:", len(texts))
		for _, text := range texts {
			_, _ = fmt.Fprintf(hash, "%d %s", len(text), text)
		}
	}
	write(pod.Namespace, ownerKind)
	write(asked...)
	write(marks...)
	key := shapeKey(hash.Sum(nil))
	shape, known := x.shapes[key]
	if !known {
		shape = &podShape{key: key, namespace: pod.Namespace, carried: readMarks(marks, pod.Namespace), ownerKind: ownerKind}
		for _, name := range asked {
			shape.asked = append(shape.asked, strings.Clone(name)) // it is a piece of the annotation
		}
		x.shapes[key] = shape
	}
	return indexedPod{shape, owner}
}

// askedBy returns the names that a Pod's own annotation asks for.
func askedBy(pod *metav1.PartialObjectMetadata) []string {
	value, ok := pod.Annotations[v1alpha1.InjectKey]
	if !ok {
		return nil
	}
	return profiles.AskedNames(map[string]string{v1alpha1.InjectKey: value}, profiles.Namespace{})
}

// ownerOf returns the name of a Pod's owner. Most Pods' names begin with it, and it takes no memory then.
func ownerOf(pod, owner string) string {
	if strings.HasPrefix(pod, owner) {
		return pod[:len(owner)]
	}
	return bounded(owner, maxOwnerName)
}

// bounded returns a text, or the beginning of a longer one, without what is cut off staying in memory.
func bounded(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.Clone(cut(text, length))
}

// readMarks reads the revision of each profile that the marks of a Pod tell of, the later if several do. A mark that cannot be
// read tells nothing, nor does what no mark of ours says: names that no profile can have, and profiles of other namespaces.
func readMarks(marks []string, namespace string) []carriedProfile {
	read := map[types.NamespacedName]string{}
	for _, mark := range marks {
		entries := map[string]v1alpha1.Injected{}
		if json.Unmarshal([]byte(mark), &entries) != nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			entry := entries[name]
			revision := entry.Profile
			if revision == "" {
				revision = entry.Revision
			}
			if !isProfileName(name) || (entry.Namespace != "" && entry.Namespace != namespace) || len(revision) > maxRevision {
				continue
			}
			key := types.NamespacedName{Name: name}
			if entry.Namespace != "" {
				key.Namespace = namespace
			}
			if _, known := read[key]; known || len(read) < maxMarkProfiles {
				read[key] = revision
			}
		}
	}
	carried := make([]carriedProfile, 0, len(read))
	for profile, revision := range read {
		carried = append(carried, carriedProfile{profile, revision})
	}
	return carried
}

// isProfileName tells whether a profile can have a name.
func isProfileName(name string) bool {
	return len(name) <= v1alpha1.MaxProfileNameLength && name != v1alpha1.None && len(validation.IsDNS1123Label(name)) == 0
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

// visitAskers visits the owners of Pods that ask for profiles by name, each as often as it has such Pods.
func (x *podIndex) visitAskers(wanted map[string]bool, visit func(profile string, owner asker)) {
	asking := map[*podShape][]string{}
	for _, shape := range x.shapes {
		for _, name := range shape.asked {
			if wanted[name] {
				asking[shape] = append(asking[shape], name)
			}
		}
	}
	if len(asking) == 0 {
		return
	}
	for _, pod := range x.pods {
		for _, name := range asking[pod.shape] {
			visit(name, asker{pod.shape.ownerKind, pod.shape.namespace, pod.owner})
		}
	}
}
