package profiles

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mattbaird/jsonpatch"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// Result is what became of a profile for a Pod.
type Result string

// The results.
const (
	Applied  Result = "Applied"
	Skipped  Result = "Skipped"
	Rejected Result = "Rejected"
)

// Outcome says what became of one profile for one Pod, and why.
type Outcome struct {
	// Profile is the name that was asked for, or that of the profile that chose the Pod. It is empty where the request for
	// profiles itself cannot be read.
	Profile string `json:"profile,omitempty"`
	// Namespace is the profile's; empty for a ClusterPatternProfile.
	Namespace string               `json:"namespace,omitempty"`
	Kind      v1alpha1.PatternKind `json:"kind,omitempty"`
	Revision  string               `json:"revision,omitempty"`
	Source    Source               `json:"source"`
	Result    Result               `json:"result"`
	Reason    weave.Reason         `json:"reason"`
	// Message is a sentence that says what became of the profile, and what to change if that is not what was wanted.
	Message string `json:"message"`
	// Warning tells people of what they may not expect, although nothing was refused; often empty.
	Warning string `json:"warning,omitempty"`
	// Containers are those that the profile adds or has added.
	Containers []string `json:"containers,omitempty"`

	policy   v1alpha1.FailurePolicy
	enforced bool
	// profileRevision is the profile's own where the Pod changed the effective spec.
	profileRevision string
	// picked is the effective spec with the ports that were picked because its own were taken; nil if none were.
	picked *effectiveSpec
}

// denies tells whether the Pod is refused because of this outcome: what was asked for cannot be done, or what policy insists on. Of a
// profile that enforces the failure policy speaks only where the profile itself is broken; a Pod could else be made so that the
// profile does not fit.
func (o *Outcome) denies() bool {
	return o.Result == Rejected && (o.Source != SourceMatch || o.policy == v1alpha1.FailurePolicyFail ||
		(o.enforced && o.Reason != ReasonProfileNotReady))
}

// warn adds a sentence for people.
func (o *Outcome) warn(warning string) {
	switch {
	case warning == "":
	case o.Warning == "":
		o.Warning = warning
	case !strings.Contains(o.Warning, warning): // it may be tried again
		o.Warning += "; " + warning
	}
}

// Decision is what becomes of a Pod.
type Decision struct {
	// Outcomes has an entry for every profile that was considered, in the order in which they start; several if several
	// things are wrong with one.
	Outcomes []Outcome

	// Allowed is false if something that was asked for, or that policy insists on, cannot be done.
	Allowed bool

	// Patch turns the Pod of the request into Pod. It is empty if nothing is to be done and if the Pod is refused.
	Patch []jsonpatch.JsonPatchOperation

	// Warnings are sentences for whoever creates the Pod.
	Warnings []string

	// Unknown are the names that were asked for and that the Snapshot does not have for the namespace. The API server may
	// know more.
	Unknown []string

	woven *corev1.Pod // shares what it holds with the Pod of the request and with the Snapshot
}

// then returns the Decision that next, about the woven Pod, adds to this one.
func (d Decision) then(next Decision) Decision {
	for i := range next.Outcomes {
		outcome := &next.Outcomes[i]
		known := slices.ContainsFunc(d.Outcomes, func(o Outcome) bool {
			return o.Profile == outcome.Profile && o.Namespace == outcome.Namespace && o.Result != Skipped
		})
		if !known || outcome.denies() {
			d.Outcomes = append(d.Outcomes, *outcome)
		}
	}
	d.Warnings = append(d.Warnings, slices.DeleteFunc(next.Warnings, func(w string) bool { return slices.Contains(d.Warnings, w) })...)
	if d.Allowed = next.Allowed; !d.Allowed {
		d.Patch = nil
		return d
	}
	d.Patch, d.woven = append(d.Patch, next.Patch...), next.woven
	return d
}

// Pod returns the woven Pod, or the Pod of the request if nothing is to be done. It is the caller's own.
func (d *Decision) Pod() *corev1.Pod { return d.woven.DeepCopy() }

// Denying returns the outcomes for which the Pod is refused; none if it is allowed.
func (d *Decision) Denying() []Outcome {
	var denying []Outcome
	for i := range d.Outcomes {
		if d.Outcomes[i].denies() {
			denying = append(denying, d.Outcomes[i])
		}
	}
	return denying
}

// Denial says every reason for which the Pod is refused, and how to mend it. It is empty if the Pod is allowed.
func (d *Decision) Denial() string {
	var messages []string
	for _, outcome := range d.Denying() {
		messages = append(messages, fmt.Sprintf("%s (%s)", outcome.Message, outcome.Reason))
	}
	switch len(messages) {
	case 0:
		return ""
	case 1:
		return "Pillion refuses this Pod: " + messages[0]
	default:
		numbered := make([]string, len(messages))
		for i, message := range messages {
			numbered[i] = fmt.Sprintf("[%d] %s", i+1, message)
		}
		return fmt.Sprintf("Pillion refuses this Pod for %d reasons: %s", len(messages), strings.Join(numbered, "; "))
	}
}

// marks are the annotations and labels that tell what was woven and what was left out.
func marks(pod *corev1.Pod, outcomes []Outcome) weave.Marks {
	injected := map[string]v1alpha1.Injected{}
	skipped := map[string]string{}
	for i := range outcomes {
		switch outcome := &outcomes[i]; outcome.Result {
		case Applied:
			injected[outcome.Profile] = v1alpha1.Injected{
				Kind: outcome.Kind, Revision: outcome.Revision, Profile: outcome.profileRevision, Namespace: outcome.Namespace, Containers: outcome.Containers,
			}
		case Rejected:
			why := string(outcome.Reason) + ": " + outcome.Message
			if before, more := skipped[outcome.Profile]; more {
				why = before + "; " + why
			}
			skipped[outcome.Profile] = why
		case Skipped:
		}
	}
	m := weave.Marks{Annotations: map[string]string{}, Labels: map[string]string{}}
	if len(injected) > 0 {
		m.Annotations[freeKey(pod, v1alpha1.InjectedKey)] = encode(injected)
		m.Labels[v1alpha1.InjectedKey] = "true"
	}
	if len(skipped) > 0 {
		m.Annotations[v1alpha1.SkippedKey] = encode(skipped)
		m.Labels[v1alpha1.SkippedKey] = "true"
	}
	return m
}

// dropSkipped takes from marks what tells of what was left out.
func dropSkipped(m weave.Marks) {
	delete(m.Annotations, v1alpha1.SkippedKey)
	delete(m.Labels, v1alpha1.SkippedKey)
}

// freeKey returns an annotation key that the Pod does not have: key itself, or with the suffix ".2", ".3" and so on.
func freeKey(pod *corev1.Pod, key string) string {
	free := key
	for n := 2; ; n++ {
		if _, taken := pod.Annotations[free]; !taken {
			return free
		}
		free = fmt.Sprintf("%s.%d", key, n)
	}
}

// MaxMarkBytes bounds how much of a Pod's marks is read: whoever writes the Pod writes them.
const MaxMarkBytes = 64 << 10

// MarksOf returns what a Pod's annotations say was woven into it, JSON of v1alpha1.Injected by the profiles' names: an annotation for each
// weaving, in their order, as far as they are read. It is evidence, not proof.
func MarksOf(annotations map[string]string) []string {
	var keys []string
	for key := range annotations {
		if isInjectedKey(key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { // .10 is after .9
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	marks := make([]string, 0, len(keys))
	read := 0
	for _, key := range keys {
		if read += len(annotations[key]); read > MaxMarkBytes {
			break
		}
		marks = append(marks, annotations[key])
	}
	return marks
}

// injectedBefore returns what the Pod's marks say, by profile. Where several tell of one the last counts.
func injectedBefore(pod *corev1.Pod) map[string]v1alpha1.Injected {
	before := map[string]v1alpha1.Injected{}
	for _, mark := range MarksOf(pod.Annotations) {
		entries := map[string]v1alpha1.Injected{}
		if json.Unmarshal([]byte(mark), &entries) == nil {
			maps.Copy(before, entries)
		}
	}
	return before
}

func isInjectedKey(key string) bool {
	return key == v1alpha1.InjectedKey || strings.HasPrefix(key, v1alpha1.InjectedKey+".")
}

// encode returns JSON with sorted keys.
func encode[V any](m map[string]V) string {
	encoded, _ := json.Marshal(m) // maps of strings and structs of strings always encode
	return string(encoded)
}
