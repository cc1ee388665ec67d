package profiles

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// How many selections get an entry each. The API server calls mutating webhooks one after another and gives a Pod's creation 34
// seconds in all. A webhook that hangs costs what may be ignored 2 seconds a call, and entries of policy that enforces may be
// called twice: 10*2 + 2 (inside) + 2*2*2 + 2 (validation, all at once) = 32 seconds. What may not be ignored ends the creation
// at its first call.
const (
	maxFailSelections            = 10 // that enforce and that do not, together
	maxIgnoreSelections          = 10
	maxEnforcingIgnoreSelections = 2
)

// ReasonTooManySelections is why a profile's match gets no entry: it would be one more call for Pods than there may be.
const ReasonTooManySelections = "TooManySelections"

// Selection is what one entry of the webhook configuration is called for. Profiles with equal selections share an entry.
type Selection struct {
	Policy     v1alpha1.FailurePolicy `json:"policy"`
	Namespaces metav1.LabelSelector   `json:"namespaceSelector"`
	Pods       metav1.LabelSelector   `json:"podSelector"`

	// Inside marks the selection that PatternProfiles of one policy share; In are their namespaces, which do not belong to its
	// identity: the entry keeps its name while they come and go.
	Inside bool     `json:"inside"`
	In     []string `json:"-"`

	// Enforce marks a selection of policy that holds whatever labels and annotations of Pods and namespaces say.
	Enforce bool `json:"enforce,omitempty"`

	// Wide marks a selection of every Pod that stands in for narrower ones, which are too many.
	Wide bool `json:"-"`

	id string // of what is above; empty: not computed
}

// newSelection returns the selection of a ClusterPatternProfile with a match.
func newSelection(policy v1alpha1.FailurePolicy, m *match) Selection {
	s := Selection{
		Policy:     cmp.Or(policy, v1alpha1.FailurePolicyIgnore),
		Enforce:    m.enforce,
		Namespaces: canonical(m.namespaceSelector),
		Pods:       canonical(m.podSelector),
	}
	s.id = s.hash()
	return s
}

// ID names the selection: a hash of what it selects.
func (s *Selection) ID() string { return cmp.Or(s.id, s.hash()) }

func (s *Selection) hash() string {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("encode a selection of label selectors: %v", err)) // strings only: it cannot fail
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:4])
}

// Path is where the webhook is called for the selection. That of the validating entry of a selection that enforces is
// PathVerify with the ID.
func (s *Selection) Path() string {
	switch {
	case s.Enforce:
		return PathEnforce + s.ID()
	case s.Inside || (isEmpty(s.Namespaces) && isEmpty(s.Pods)):
		return PathAny + s.ID()
	default:
		return PathMatch + s.ID()
	}
}

// Refusal is why a profile's match gets no entry and so applies to nobody.
type Refusal struct {
	Reason, Message string
}

// Plan is which selections get entries in the webhook configuration, and which profile is served by which.
type Plan struct {
	// Selections are in the order of their entries. Those that may refuse a Pod come first, so that it waits for no others. Among
	// those of one policy the ones that enforce come first: their call decides everything, and spares the Pod the others. Then
	// those that do not, each by its ID, and at last that of PatternProfiles.
	Selections []Selection

	cluster  map[string]*Selection // by the name of the ClusterPatternProfile
	inside   map[v1alpha1.FailurePolicy]*Selection
	refused  map[string]*Refusal // by the name of the ClusterPatternProfile
	excluded []string
}

// Of returns the selection by which the Pods that the profile's match chooses are sent to the webhook, or why there is none. Both
// are nil for a profile without match, and for one in an excluded namespace.
func (p *Plan) Of(profile *Profile) (*Selection, *Refusal) {
	switch {
	case profile.match == nil:
		return nil, nil
	case profile.Namespace == "":
		return p.cluster[profile.Name], p.refused[profile.Name]
	case slices.Contains(p.excluded, profile.Namespace):
		return nil, nil
	default:
		return p.inside[policyOf(profile)], nil
	}
}

// Expects tells whether a Pod that was sent to a path, and about which outcomes tell, is what the plan has sent there: one that a
// profile of that entry chooses. Where an entry is called for more Pods than its profiles choose, any is.
func (p *Plan) Expects(path string, outcomes []Outcome) bool {
	id := path[strings.LastIndexByte(path, '/')+1:]
	at := slices.IndexFunc(p.Selections, func(s Selection) bool { return s.id == id })
	if at < 0 {
		return false
	}
	s := &p.Selections[at]
	if s.Inside || s.Wide || len(s.Namespaces.MatchLabels)+len(s.Namespaces.MatchExpressions)+len(s.Pods.MatchLabels)+len(s.Pods.MatchExpressions) == 0 {
		return true
	}
	return slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Namespace == "" && o.Profile != "" && p.cluster[o.Profile] == s })
}

// NewPlan decides which entries the profiles with match get. Profiles that cannot be used are among them, as far as their match
// is known: their failure policy speaks of them as well.
func NewPlan(profiles []*Profile, excluded []string) *Plan {
	p := &planner{groups: map[group]map[string]Selection{}, ids: map[string]string{}, refused: map[string]*Refusal{}}
	for _, profile := range oldestFirst(profiles) {
		p.add(profile)
	}
	p.widen(group{v1alpha1.FailurePolicyIgnore, false}, maxIgnoreSelections)
	p.widen(group{v1alpha1.FailurePolicyIgnore, true}, maxEnforcingIgnoreSelections)

	plan := &Plan{
		cluster: map[string]*Selection{}, inside: map[v1alpha1.FailurePolicy]*Selection{}, refused: p.refused, excluded: excluded,
	}
	for _, policy := range []v1alpha1.FailurePolicy{v1alpha1.FailurePolicyFail, v1alpha1.FailurePolicyIgnore} {
		for _, enforce := range []bool{true, false} {
			selections := p.groups[group{policy, enforce}]
			for _, id := range slices.Sorted(maps.Keys(selections)) {
				plan.Selections = append(plan.Selections, selections[id])
			}
		}
		if in := namespacesOf(profiles, policy, excluded); len(in) > 0 {
			inside := Selection{Policy: policy, Inside: true, In: in}
			inside.id = inside.hash()
			plan.Selections = append(plan.Selections, inside)
		}
	}
	plan.index(p.ids)
	return plan
}

// index makes the Plan's selections to be found by the profiles that they serve.
func (p *Plan) index(ids map[string]string) {
	byID := map[string]*Selection{}
	for i := range p.Selections {
		s := &p.Selections[i]
		byID[s.id] = s
		if s.Inside {
			p.inside[s.Policy] = s
		}
	}
	for name, id := range ids {
		p.cluster[name] = byID[id]
	}
}

// group is selections that are counted together.
type group struct {
	policy  v1alpha1.FailurePolicy
	enforce bool
}

// planner collects the selections of ClusterPatternProfiles.
type planner struct {
	groups  map[group]map[string]Selection // by id
	ids     map[string]string              // by the profile's name
	refused map[string]*Refusal
}

// add gives the profile's match a selection, or refuses it.
func (p *planner) add(profile *Profile) {
	selected := profile.match.selection
	if selected == nil || selected.Policy != policyOf(profile) {
		selected = new(newSelection(profile.FailurePolicy, profile.match))
	}
	in := group{selected.Policy, selected.Enforce}
	_, shared := p.groups[in][selected.id]
	if !shared && selected.Policy == v1alpha1.FailurePolicyFail && p.failing() == maxFailSelections {
		p.refused[profile.Name] = &Refusal{ReasonTooManySelections, fmt.Sprintf("older profiles with failurePolicy Fail already "+
			"have %d different matches, and the API server calls each in turn: use the match of one of them, or failurePolicy "+
			"Ignore", maxFailSelections)}
		return
	}
	if p.groups[in] == nil {
		p.groups[in] = map[string]Selection{}
	}
	p.groups[in][selected.id] = *selected
	p.ids[profile.Name] = selected.id
}

// failing returns how many selections there are whose call may not be ignored.
func (p *planner) failing() int {
	return len(p.groups[group{v1alpha1.FailurePolicyFail, false}]) + len(p.groups[group{v1alpha1.FailurePolicyFail, true}])
}

// widen replaces the selections of a group, where they are too many, by one that selects every Pod.
func (p *planner) widen(g group, most int) {
	narrow := p.groups[g]
	if len(narrow) <= most {
		return
	}
	wide := Selection{Policy: g.policy, Enforce: g.enforce, Wide: true}
	wide.id = wide.hash()
	for profile, id := range p.ids {
		if _, ok := narrow[id]; ok {
			p.ids[profile] = wide.id
		}
	}
	p.groups[g] = map[string]Selection{wide.id: wide}
}

// oldestFirst returns the ClusterPatternProfiles with match in the order in which they have a right to an entry.
func oldestFirst(profiles []*Profile) []*Profile {
	var matching []*Profile
	for _, profile := range profiles {
		if profile.Namespace == "" && profile.match != nil {
			matching = append(matching, profile)
		}
	}
	slices.SortFunc(matching, func(a, b *Profile) int {
		return cmp.Or(a.Created.Compare(b.Created.Time), cmp.Compare(a.Name, b.Name))
	})
	return matching
}

// namespacesOf returns the namespaces of the PatternProfiles with match of a policy, sorted.
func namespacesOf(profiles []*Profile, policy v1alpha1.FailurePolicy, excluded []string) []string {
	var namespaces []string
	for _, profile := range profiles {
		if profile.Namespace != "" && profile.match != nil && policyOf(profile) == policy &&
			!slices.Contains(excluded, profile.Namespace) {
			namespaces = append(namespaces, profile.Namespace)
		}
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces)
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
func policyOf(profile *Profile) v1alpha1.FailurePolicy {
	return cmp.Or(profile.FailurePolicy, v1alpha1.FailurePolicyIgnore)
}
