package webhook

import (
	"cmp"
	"encoding/json"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

// auditKey is that of the only audit annotation. The API server writes the name of the entry and a slash before it, and drops a key
// that has a slash of its own.
const auditKey = "outcome"

// maxAudited bounds how many outcomes an audit annotation tells. A Pod may ask for 32 profiles.
const maxAudited = 64

// audit is the value of the audit annotation.
type audit struct {
	Profiles []told `json:"profiles"`
	// More is how many further outcomes there are.
	More int `json:"more,omitempty"`
}

// told is what audit annotations and metrics tell of an outcome: never a message, which may quote what the Pod or the profile says.
type told struct {
	Profile   string          `json:"profile,omitempty"`
	Namespace string          `json:"namespace,omitempty"`
	Revision  string          `json:"revision,omitempty"`
	Result    profiles.Result `json:"result"`
	Reason    weave.Reason    `json:"reason"`

	// exists tells whether there is such a profile. Else its name is what somebody wrote.
	exists bool
}

func compareTold(a, b told) int {
	return cmp.Or(
		cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Result, b.Result),
		cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Revision, b.Revision),
	)
}

// exists tells whether the profile of an outcome does. The snapshot may not know yet one that was just read.
func exists(snapshot *profiles.Snapshot, outcome *profiles.Outcome) bool {
	return outcome.Kind != "" || snapshot.Profile(outcome.Namespace, outcome.Profile) != nil
}

// toldOf returns what is told of a decision, each once and sorted: a profile may have several problems of a kind. Where the Pod is
// refused nothing was applied to it.
func toldOf(decision *profiles.Decision, snapshot *profiles.Snapshot) []told {
	all := make([]told, 0, len(decision.Outcomes))
	for i := range decision.Outcomes {
		if o := &decision.Outcomes[i]; decision.Allowed || o.Result != profiles.Applied {
			all = append(all, told{
				Profile: o.Profile, Namespace: o.Namespace, Revision: o.Revision, Result: o.Result, Reason: o.Reason,
				exists: exists(snapshot, o),
			})
		}
	}
	slices.SortFunc(all, compareTold)
	return slices.Compact(all)
}

// annotate writes what was decided of a Pod for the API server's audit log.
//
// An entry may be called again for the Pod that it wove, and the API server drops what differs from the first answer, with a line in
// its log. So profiles that the Pod has at the current revision, by its marks, are told as applied, whoever wove it; and conditions
// that are not met are told only where nothing else is, for they are not looked at in a Pod that is woven.
func annotate(response *admissionv1.AdmissionResponse, annotations map[string]string, all []told) error {
	if len(all) == 0 {
		return nil
	}
	all = stable(slices.Clone(all), annotations)
	value := audit{Profiles: all}
	if len(all) > maxAudited {
		value.Profiles, value.More = all[:maxAudited], len(all)-maxAudited
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	response.AuditAnnotations = map[string]string{auditKey: string(encoded)}
	return nil
}

// stable tells of a Pod with annotations the same when it is woven as when it was not yet.
func stable(all []told, annotations map[string]string) []told {
	isUnmet := func(t told) bool { return t.Reason == profiles.ReasonConditionNotMet }
	if !slices.ContainsFunc(all, func(t told) bool { return !isUnmet(t) }) {
		return all
	}
	all = slices.DeleteFunc(all, isUnmet)
	if !slices.ContainsFunc(all, func(t told) bool { return t.Reason == profiles.ReasonAlreadyInjected }) {
		return all
	}
	revisions := revisionsOf(annotations)
	for i := range all {
		t := &all[i]
		if t.Reason == profiles.ReasonAlreadyInjected && t.Revision != "" && revisions[t.Profile] == t.Revision {
			t.Result, t.Reason = profiles.Applied, profiles.ReasonApplied
		}
	}
	return all
}

// revisionsOf returns the revisions at which profiles were woven into a Pod, by its marks.
func revisionsOf(annotations map[string]string) map[string]string {
	revisions := map[string]string{}
	for _, mark := range profiles.MarksOf(annotations) {
		entries := map[string]v1alpha1.Injected{}
		if json.Unmarshal([]byte(mark), &entries) != nil {
			continue // written by somebody else
		}
		for profile := range entries {
			revisions[profile] = entries[profile].Revision
		}
	}
	return revisions
}
