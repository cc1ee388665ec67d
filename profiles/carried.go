package profiles

import (
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// CarriedState says how what a Pod carries stands to what it would get today.
type CarriedState string

// The states of what a Pod carries.
const (
	// CarriedCurrent says that a Pod created now would get the same revision.
	CarriedCurrent CarriedState = "Current"
	// CarriedOutdated says that a Pod created now would get another revision.
	CarriedOutdated CarriedState = "Outdated"
	// CarriedNoMore says that a Pod created now would not get the profile.
	CarriedNoMore CarriedState = "NoMore"
	// CarriedUnknown says that it is not known what a Pod created now would get.
	CarriedUnknown CarriedState = "Unknown"
)

// Carried is what a Pod's marks say was woven into it of one profile. It is evidence, not proof: who writes the Pod can write
// marks.
type Carried struct {
	Profile string `json:"profile"`
	// Namespace is that of a PatternProfile; empty for a ClusterPatternProfile.
	Namespace string               `json:"namespace,omitempty"`
	Kind      v1alpha1.PatternKind `json:"kind,omitempty"`
	// Revision is that of the effective spec that was woven.
	Revision   string       `json:"revision,omitempty"`
	State      CarriedState `json:"state"`
	Containers []string     `json:"containers,omitempty"`
	// Missing are the containers among them that the Pod does not have.
	Missing []string `json:"missing,omitempty"`
}

// CarriedBy returns what a Pod's marks say was woven into it, by the profiles' names. The states are not known.
func CarriedBy(pod *corev1.Pod) []Carried {
	var carried []Carried
	marks := injectedBefore(pod)
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		mark := marks[name]
		one := Carried{
			Profile: name, Namespace: mark.Namespace, Kind: mark.Kind, Revision: mark.Revision, State: CarriedUnknown,
			Containers: mark.Containers,
		}
		for _, container := range mark.Containers {
			if !hasContainer(pod, container) {
				one.Missing = append(one.Missing, container)
			}
		}
		carried = append(carried, one)
	}
	return carried
}

// Compare returns what a Pod carries with the states that follow from what would become of it today.
func (e *Explanation) Compare(carried []Carried) []Carried {
	compared := slices.Clone(carried)
	for i := range compared {
		c := &compared[i]
		c.State = CarriedNoMore
		for j := range e.Profiles {
			entry := &e.Profiles[j]
			if entry.Order == 0 || entry.Profile != c.Profile || entry.Namespace != c.Namespace {
				continue
			}
			if c.State = CarriedOutdated; entry.Revision == c.Revision {
				c.State = CarriedCurrent
			}
		}
	}
	return compared
}

// SkippedIn returns why profiles that policy chose were left out of a Pod, by their names, as its annotation tells.
func SkippedIn(pod *corev1.Pod) map[string]string {
	skipped := map[string]string{}
	if value := pod.Annotations[v1alpha1.SkippedKey]; len(value) > MaxMarkBytes || json.Unmarshal([]byte(value), &skipped) != nil {
		return nil
	}
	return skipped
}

// Without returns the Pod without what Pillion added to it: containers, volumes, mounts and marks, and what the profiles that its
// marks name give the app's containers and the Pod's metadata, as far as the Snapshot has them as they were. Pull secrets and
// host aliases stay: nothing tells them from the app's own. The Pod itself is not changed.
func (s *Snapshot) Without(namespace Namespace, pod *corev1.Pod) *corev1.Pod {
	r := Request{Namespace: namespace, Pod: pod}
	bare := r.deciderFor(s, newShared()).withoutAdditions().DeepCopy()
	withoutMarks(bare)
	return bare
}
