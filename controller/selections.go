package controller

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// maxSelections is how many selections of one failure policy get an entry each. The API server calls webhooks one after
// another and gives a Pod's creation 34 seconds in all.
const maxSelections = 10

// selection is what one entry of the webhook configuration is called for. Profiles with equal selections share an entry.
type selection struct {
	Policy     v1alpha1.FailurePolicy `json:"policy"`
	Namespaces metav1.LabelSelector   `json:"namespaceSelector"`
	Pods       metav1.LabelSelector   `json:"podSelector"`

	// Inside marks the selection that PatternProfiles of one policy share; in are their namespaces, which do not belong to
	// its identity: the entry keeps its name while they come and go.
	Inside bool `json:"inside"`
	in     []string
}

// id names the selection: a hash of what it selects.
func (s *selection) id() string {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("encode a selection of label selectors: %v", err)) // strings only: it cannot fail
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:4])
}

// path is where the webhook is called for the selection.
func (s *selection) path() string {
	if s.Inside || (isEmpty(s.Namespaces) && isEmpty(s.Pods)) {
		return profiles.PathAny + s.id()
	}
	return profiles.PathMatch + s.id()
}

// refusal is why a profile's match gets no entry.
type refusal struct {
	reason, message string
}

// plan is which selections get entries, and which profile is served by which.
type plan struct {
	// selections are in the order of their entries: those that may refuse a Pod first, so that it waits for no others.
	selections []selection
	// cluster is the id of the selection that serves a ClusterPatternProfile with match, by the profile's name.
	cluster map[string]string
	// inside is the id of the selection that serves the PatternProfiles of a policy.
	inside map[v1alpha1.FailurePolicy]string
	// refused are the ClusterPatternProfiles whose match gets no entry, by name.
	refused map[string]refusal
}

// planSelections decides which entries the profiles with match get. Profiles that do not compile are among them: their failure
// policy speaks of them as well.
func planSelections(cluster []v1alpha1.ClusterPatternProfile, namespaced []v1alpha1.PatternProfile, excluded []string) plan {
	p := plan{cluster: map[string]string{}, inside: map[v1alpha1.FailurePolicy]string{}, refused: map[string]refusal{}}
	byPolicy := map[v1alpha1.FailurePolicy]map[string]selection{}
	for _, profile := range oldestFirst(cluster) {
		p.add(byPolicy, profile)
	}
	p.widen(byPolicy)
	for _, policy := range []v1alpha1.FailurePolicy{v1alpha1.FailurePolicyFail, v1alpha1.FailurePolicyIgnore} {
		for _, id := range slices.Sorted(maps.Keys(byPolicy[policy])) {
			p.selections = append(p.selections, byPolicy[policy][id])
		}
		if in := namespacesOf(namespaced, policy, excluded); len(in) > 0 {
			inside := selection{Policy: policy, Inside: true, in: in}
			p.inside[policy] = inside.id()
			p.selections = append(p.selections, inside)
		}
	}
	return p
}

// add gives the profile's match a selection, or refuses it.
func (p *plan) add(byPolicy map[v1alpha1.FailurePolicy]map[string]selection, profile *v1alpha1.ClusterPatternProfile) {
	if errs := validateMatch(profile.Spec.Match); len(errs) > 0 {
		p.refused[profile.Name] = refusal{ReasonInvalidSelector, errs.ToAggregate().Error()}
		return
	}
	policy := policyOf(&profile.Spec.ProfileSpec)
	selected := selection{
		Policy:     policy,
		Namespaces: canonical(profile.Spec.Match.NamespaceSelector),
		Pods:       canonical(profile.Spec.Match.PodSelector),
	}
	if policy == v1alpha1.FailurePolicyFail && isEmpty(selected.Namespaces) {
		p.refused[profile.Name] = refusal{ReasonInvalidSelector, "failurePolicy Fail wants a spec.match.namespaceSelector that " +
			"is not empty: an outage would stop every Pod of the cluster"}
		return
	}
	if byPolicy[policy] == nil {
		byPolicy[policy] = map[string]selection{}
	}
	id := selected.id()
	if _, shared := byPolicy[policy][id]; !shared && policy == v1alpha1.FailurePolicyFail && len(byPolicy[policy]) == maxSelections {
		p.refused[profile.Name] = refusal{ReasonTooManySelections, fmt.Sprintf("older profiles with failurePolicy Fail already "+
			"have %d different matches, and the API server calls each in turn: use the match of one of them, or failurePolicy "+
			"Ignore", maxSelections)}
		return
	}
	byPolicy[policy][id] = selected
	p.cluster[profile.Name] = id
}

// widen replaces the selections of policy Ignore, where they are too many, by one that selects every Pod.
func (p *plan) widen(byPolicy map[v1alpha1.FailurePolicy]map[string]selection) {
	narrow := byPolicy[v1alpha1.FailurePolicyIgnore]
	if len(narrow) <= maxSelections {
		return
	}
	wide := selection{Policy: v1alpha1.FailurePolicyIgnore}
	for profile, id := range p.cluster {
		if _, ok := narrow[id]; ok {
			p.cluster[profile] = wide.id()
		}
	}
	byPolicy[v1alpha1.FailurePolicyIgnore] = map[string]selection{wide.id(): wide}
}

// oldestFirst returns the profiles with match in the order in which they have a right to an entry.
func oldestFirst(profiles []v1alpha1.ClusterPatternProfile) []*v1alpha1.ClusterPatternProfile {
	var matching []*v1alpha1.ClusterPatternProfile
	for i := range profiles {
		if profiles[i].Spec.Match != nil {
			matching = append(matching, &profiles[i])
		}
	}
	slices.SortFunc(matching, func(a, b *v1alpha1.ClusterPatternProfile) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return matching
}

// namespacesOf returns the namespaces of the PatternProfiles with match of a policy, sorted.
func namespacesOf(profiles []v1alpha1.PatternProfile, policy v1alpha1.FailurePolicy, excluded []string) []string {
	var namespaces []string
	for i := range profiles {
		profile := &profiles[i]
		if profile.Spec.Match != nil && policyOf(&profile.Spec.ProfileSpec) == policy && !slices.Contains(excluded, profile.Namespace) {
			namespaces = append(namespaces, profile.Namespace)
		}
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces)
}

// validateMatch finds what the API server would refuse the whole webhook configuration for.
func validateMatch(match *v1alpha1.ClusterMatch) field.ErrorList {
	path := field.NewPath("spec", "match")
	strict := validation.LabelSelectorValidationOptions{}
	return append(
		validation.ValidateLabelSelector(match.NamespaceSelector, strict, path.Child("namespaceSelector")),
		validation.ValidateLabelSelector(match.PodSelector, strict, path.Child("podSelector"))...)
}

// canonical returns the selector in the form that all selectors share which were written with the same parts.
func canonical(selector *metav1.LabelSelector) metav1.LabelSelector {
	if selector == nil {
		return metav1.LabelSelector{}
	}
	out := *selector.DeepCopy()
	for i := range out.MatchExpressions {
		slices.Sort(out.MatchExpressions[i].Values)
		out.MatchExpressions[i].Values = slices.Compact(out.MatchExpressions[i].Values)
	}
	compare := func(a, b metav1.LabelSelectorRequirement) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Operator, b.Operator), slices.Compare(a.Values, b.Values))
	}
	slices.SortFunc(out.MatchExpressions, compare)
	out.MatchExpressions = slices.CompactFunc(out.MatchExpressions, func(a, b metav1.LabelSelectorRequirement) bool {
		return compare(a, b) == 0
	})
	return out
}

func isEmpty(selector metav1.LabelSelector) bool {
	return len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0
}

// policyOf returns the profile's failure policy; Ignore is the default.
func policyOf(spec *v1alpha1.ProfileSpec) v1alpha1.FailurePolicy {
	return cmp.Or(spec.FailurePolicy, v1alpha1.FailurePolicyIgnore)
}
