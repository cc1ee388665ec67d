package profiles

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// Explanation says what becomes of a Pod and why, for people. Its Decision is that of Decide.
type Explanation struct {
	// Namespace is the Pod's.
	Namespace string `json:"namespace"`
	// Allowed, Denial and Warnings are the Decision's.
	Allowed  bool     `json:"allowed"`
	Denial   string   `json:"denial,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Exempt is why Pillion never touches the Pod; nil if it does.
	Exempt *Cause `json:"exempt,omitempty"`
	// Asks is what asks for profiles; nil if nothing does.
	Asks *Asks `json:"asks,omitempty"`
	// Profiles are those that were considered, in the order in which they start, and then the others, by their names.
	Profiles []Explained `json:"profiles"`

	Decision Decision `json:"-"`
}

// Cause is a reason and its sentence.
type Cause struct {
	Reason  weave.Reason `json:"reason"`
	Message string       `json:"message"`
}

// causef makes a Cause of a format for its sentence.
func causef(reason weave.Reason, format string, args ...any) *Cause {
	return &Cause{reason, fmt.Sprintf(format, args...)}
}

// Asks is the annotation of a Pod, or the label of its namespace, that asks for profiles.
type Asks struct {
	Source Source `json:"source"`
	Key    string `json:"key"`
	Value  string `json:"value"`
	// Profiles are the names, each once, as far as they can be read.
	Profiles []string `json:"profiles,omitempty"`
	// Declined says that it asks for none.
	Declined bool `json:"declined,omitempty"`
	// Replaces is the value of the namespace's label that the Pod's annotation stands in the place of.
	Replaces string `json:"replaces,omitempty"`
}

// Explained says of one profile what became of it.
type Explained struct {
	// Profile is its name, or the one that was asked for. It is empty where what asks cannot be read.
	Profile string `json:"profile,omitempty"`
	// Namespace is that of a PatternProfile; empty for a ClusterPatternProfile.
	Namespace string               `json:"namespace,omitempty"`
	Kind      v1alpha1.PatternKind `json:"kind,omitempty"`
	// Considered says that the Decision has an outcome of it. Of the others Result is Skipped.
	Considered bool   `json:"considered"`
	Source     Source `json:"source,omitempty"`
	// Enforced says that its match enforces and brought it to the Pod: nothing that the Pod asks for or declines changes that.
	Enforced bool   `json:"enforced,omitempty"`
	Result   Result `json:"result"`
	Cause
	// More are further causes, where several things are wrong.
	More    []Cause `json:"more,omitempty"`
	Warning string  `json:"warning,omitempty"`
	// Denies says that the Pod is refused because of it.
	Denies bool `json:"denies,omitempty"`
	// Order counts, from 1, the profiles that the Pod has in the end, as they start; of a Pod that is refused, those that it would have.
	Order    int    `json:"order,omitempty"`
	Revision string `json:"revision,omitempty"`
	// Containers are those that the profile adds, or has added.
	Containers []string `json:"containers,omitempty"`
	// Settings are the values of its effective spec. There are none where that is not valid, or was not looked at.
	Settings []Setting `json:"settings,omitempty"`
}

// Scope names the profile for people, as Profile.Scope does.
func (e *Explained) Scope() string {
	return (&Profile{Namespace: e.Namespace, Name: e.Profile}).Scope()
}

// Explain says what becomes of the Pod, and why, to whoever may create Pods in its namespace: of ClusterPatternProfiles that the
// namespace may not use, and that do not choose the Pod, it tells nothing.
func (r Request) Explain(snapshot *Snapshot) Explanation { return r.explain(snapshot, false) }

// ExplainToReader is Explain for who has read the ClusterPatternProfiles himself, from files or by his own right in the cluster:
// nothing is hidden from him by not telling, and that allowedNamespaces leaves out his namespace is what he wants to know.
func (r Request) ExplainToReader(snapshot *Snapshot) Explanation { return r.explain(snapshot, true) }

func (r Request) explain(snapshot *Snapshot, toReader bool) Explanation {
	r.Final = false // it says what becomes of the Pod, not whether a webhook after us changed it
	decision := r.Decide(snapshot)
	e := explainer{
		Explanation: Explanation{
			Namespace: r.Namespace.Name, Allowed: decision.Allowed, Denial: decision.Denial(), Warnings: decision.Warnings,
			Exempt: exemption(snapshot, r.Namespace, r.Pod), Asks: asksOf(r.Pod, r.Namespace), Profiles: []Explained{}, Decision: decision,
		},
		request: &r, snapshot: snapshot, toReader: toReader, bare: withoutReserved(r.Pod), seen: map[*Profile]bool{},
		overrides: overridesOf(r.Pod.Annotations, ""), inherited: overridesOf(r.Namespace.Annotations, r.Namespace.Name),
	}
	e.considered()
	e.others()
	return e.Explanation
}

// exemption says why a Pod is never touched; nil if it may be.
func exemption(snapshot *Snapshot, namespace Namespace, pod *corev1.Pod) *Cause {
	if !isExempt(snapshot, namespace, pod) {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return &Cause{ReasonMirrorPod, "the Pod stands for a static Pod of a kubelet, which Pillion never touches"}
	}
	return causef(ReasonNamespaceExcluded, "namespace %s is one that Pillion never touches (excludedNamespaces in its configuration)",
		namespace.Name)
}

// asksOf returns what asks for profiles; nil if nothing does.
func asksOf(pod *corev1.Pod, namespace Namespace) *Asks {
	asked := requestOf(pod.Annotations, namespace)
	asks := &Asks{Source: asked.source, Key: v1alpha1.InjectKey, Profiles: asked.names, Declined: asked.declined}
	label, isLabeled := namespace.Labels[v1alpha1.InjectKey]
	value, annotated := pod.Annotations[v1alpha1.InjectKey]
	switch {
	case annotated:
		asks.Value, asks.Replaces = value, label
	case isLabeled:
		asks.Value = label
	default:
		return nil
	}
	return asks
}

// explainer makes one Explanation.
type explainer struct {
	Explanation
	request              *Request
	snapshot             *Snapshot
	toReader             bool
	bare                 *corev1.Pod // the Pod without what is reserved, as selectors see it
	seen                 map[*Profile]bool
	overrides, inherited map[string][]override
}

// considered tells of the profiles that the Decision has outcomes of.
func (e *explainer) considered() {
	type identity struct {
		profile, namespace string
		unavailable        bool
	}
	at := map[identity]int{}
	for i := range e.Decision.Outcomes {
		outcome := &e.Decision.Outcomes[i]
		id := identity{outcome.Profile, outcome.Namespace, outcome.Reason == ReasonProfileNotAvailable}
		cause := Cause{outcome.Reason, outcome.Message}
		if known, again := at[id]; again && outcome.Result == Rejected {
			entry := &e.Profiles[known]
			entry.Denies = entry.Denies || outcome.denies()
			if entry.Result == Rejected {
				if entry.Cause != cause && !slices.Contains(entry.More, cause) { // a mount that is there twice collides twice
					entry.More = append(entry.More, cause)
				}
				continue
			}
			entry.Result, entry.Cause = Rejected, cause // it was woven at first, and refused at another look
			continue
		}
		at[id] = len(e.Profiles)
		e.Profiles = append(e.Profiles, Explained{
			Profile: outcome.Profile, Namespace: outcome.Namespace, Kind: outcome.Kind, Considered: true, Source: outcome.Source,
			Result: outcome.Result, Cause: cause, Warning: outcome.Warning, Denies: outcome.denies(), Revision: outcome.Revision,
			Containers: outcome.Containers,
		})
		if profile := e.snapshot.find(outcome.Namespace, outcome.Profile); profile != nil && !id.unavailable {
			e.seen[profile] = true
			e.Profiles[at[id]].Enforced = outcome.Source == SourceMatch && profile.enforces()
			e.Profiles[at[id]].Settings = e.settings(profile, outcome)
		}
	}
	order := 0
	for i := range e.Profiles {
		if entry := &e.Profiles[i]; entry.Reason == ReasonApplied || entry.Reason == ReasonAlreadyInjected {
			order++
			entry.Order = order
		}
	}
}

// settings returns the values of the effective spec of a profile that was considered; none of one whose condition is not true,
// which is not for this Pod.
func (e *explainer) settings(profile *Profile, outcome *Outcome) []Setting {
	if outcome.Reason == ReasonConditionNotMet {
		return nil
	}
	overrides := over(e.inherited[profile.Name], e.overrides[profile.Name])
	return withPicked(profile.settings(overrides), profile.pickedSettings(outcome.picked, overrides))
}

// others tells of the profiles that are there for the namespace and that nothing brought to this Pod.
func (e *explainer) others() {
	var rest []*Profile
	for _, profile := range e.snapshot.cluster {
		if !e.seen[profile] && (e.toReader || profile.Allows(e.request.Namespace)) {
			rest = append(rest, profile)
		}
	}
	for _, profile := range e.snapshot.namespaced[e.request.Namespace.Name] {
		if !e.seen[profile] {
			rest = append(rest, profile)
		}
	}
	for _, profile := range slices.SortedFunc(slices.Values(rest), byName) {
		e.Profiles = append(e.Profiles, Explained{
			Profile: profile.Name, Namespace: profile.Namespace, Kind: profile.Kind, Result: Skipped, Cause: e.whyNot(profile),
		})
	}
}

// whyNot says why nothing brought a profile to the Pod. The order is that in which people have to mend things.
func (e *explainer) whyNot(profile *Profile) Cause {
	for _, why := range []func(*Profile) *Cause{
		e.notThere, e.exempted, e.declinedOrReplaced, e.notAllowed, e.shadowed, e.notAsked, e.notSelected,
	} {
		if cause := why(profile); cause != nil {
			return *cause
		}
	}
	return e.notChosen(profile)
}

// notThere is about a profile that cannot choose Pods, whatever its spec says.
func (e *explainer) notThere(profile *Profile) *Cause {
	switch {
	case len(profile.Problems) > 0 && profile.match == nil:
		return causef(ReasonProfileNotReady, "%s cannot be used, for anybody, until it is mended: %s",
			profile.Scope(), told(profile.Problems))
	case profile.Deleted && profile.ended != nil && profile.match == nil:
		return causef(ReasonBeingDeleted, "%s is being deleted: its match chooses no Pods any more, and only who asks still gets it",
			profile.Scope())
	default:
		return nil
	}
}

// exempted is about a profile that the Pod would get, but for being exempt.
func (e *explainer) exempted(profile *Profile) *Cause {
	if e.Exempt != nil && (e.isMeant(profile, e.asked()) || e.selects(profile)) {
		return e.Exempt
	}
	return nil
}

// declinedOrReplaced is about a profile that the namespace's label asks for in vain.
func (e *explainer) declinedOrReplaced(profile *Profile) *Cause {
	if e.Asks == nil || e.Asks.Replaces == "" || profile.match != nil && e.selects(profile) {
		return nil
	}
	label := parseRequest(e.Asks.Replaces, ".", "", SourceNamespace)
	if !e.isMeant(profile, label.names) {
		return nil
	}
	if e.Asks.Declined {
		return causef(ReasonDeclined, "the label of namespace %s asks for it, and the Pod's annotation %s: %s declines; remove the "+
			"annotation, or write the profile's name in it", e.request.Namespace.Name, v1alpha1.InjectKey, v1alpha1.None)
	}
	return causef(ReasonLabelReplaced, "the label of namespace %s asks for it, and the Pod's annotation %s replaces the label; add %s to "+
		"the annotation", e.request.Namespace.Name, v1alpha1.InjectKey, profile.Name)
}

// notAllowed is about a ClusterPatternProfile that Pods of the namespace may not ask for; a match needs no permission.
func (e *explainer) notAllowed(profile *Profile) *Cause {
	namespace := e.request.Namespace
	asksInVain := slices.Contains(e.Decision.Unknown, profile.Name)
	if profile.Allows(namespace) || profile.match != nil && !asksInVain {
		return nil
	}
	return causef(ReasonNamespaceNotAllowed,
		"spec.allowedNamespaces of %s wants %s: for those who ask there it is as if it did not exist",
		profile.Scope(), wantedBy(profile.allowed, namespace.Labels, "namespace "+namespace.Name))
}

// shadowed is about a ClusterPatternProfile in whose place those who ask get one of their namespace.
func (e *explainer) shadowed(profile *Profile) *Cause {
	if profile.Namespace != "" {
		return nil
	}
	own := e.snapshot.find(e.request.Namespace.Name, profile.Name)
	if own == nil || profile.match != nil && !slices.Contains(e.asked(), profile.Name) {
		return nil
	}
	return causef(ReasonShadowed, "%s has the same name: it is what Pods of namespace %s get that ask for %s",
		own.Scope(), own.Namespace, profile.Name)
}

// notAsked is about a profile that only those get that ask.
func (e *explainer) notAsked(profile *Profile) *Cause {
	switch {
	case profile.match != nil:
		return nil
	case e.Asks == nil:
		return causef(ReasonNotRequested, "nothing asks for it, and it has no match; to get it, give the Pod the annotation %s: %s",
			v1alpha1.InjectKey, profile.Name)
	case e.Asks.Declined:
		return causef(ReasonNotRequested, "%s asks for %s, and it has no match", e.Asks.Where(e.Namespace), v1alpha1.None)
	default:
		return causef(ReasonNotRequested, "%s does not name it, and it has no match; to get it, add %s there",
			e.Asks.Where(e.Namespace), profile.Name)
	}
}

// Where names the annotation or label for people.
func (a *Asks) Where(namespace string) string {
	if a.Source == SourceNamespace {
		return fmt.Sprintf("the label %s of namespace %s", a.Key, namespace)
	}
	return "the Pod's annotation " + a.Key
}

// notSelected is about a profile whose match does not choose the Pod by its selectors, or has no entry in the webhook
// configuration.
func (e *explainer) notSelected(profile *Profile) *Cause {
	if _, refused := e.snapshot.plan.Of(profile); refused != nil {
		return causef(weave.Reason(refused.Reason), "the match of %s applies to nobody: %s", profile.Scope(), refused.Message)
	}
	if e.selects(profile) {
		return nil
	}
	var sides []string
	for _, side := range []struct {
		field    string
		selector labels.Selector
		labels   map[string]string
		of       string
	}{
		{"namespaceSelector", profile.match.namespaces, e.request.Namespace.Labels, "namespace " + e.Namespace},
		{"podSelector", profile.match.pods, e.bare.Labels, "the Pod"},
	} {
		if side.selector != nil && !side.selector.Matches(labels.Set(side.labels)) {
			sides = append(sides, fmt.Sprintf("spec.match.%s wants %s", side.field, wantedBy(side.selector, side.labels, side.of)))
		}
	}
	return &Cause{ReasonSelectorNotMatched, strings.Join(sides, "; ")}
}

// notChosen is about a profile whose selectors choose the Pod, and which the Decision does not tell of.
func (e *explainer) notChosen(profile *Profile) Cause {
	switch {
	case e.Asks != nil && e.Asks.Declined:
		return *causef(ReasonDeclined, "its match chooses the Pod, and %s declines: %s", e.Asks.Where(e.Namespace), v1alpha1.None)
	case isWoven(e.request.Pod):
		return *causef(ReasonWovenBefore, "its match chooses the Pod, which was woven before, as its label %s tells; match adds nothing to "+
			"such a Pod, unless it enforces", v1alpha1.InjectedKey)
	case profile.Namespace != "":
		return *causef(ReasonTooManyProfiles, "more than %d PatternProfiles of namespace %s choose this Pod, and only so many apply",
			maxInside, profile.Namespace)
	default: // a match that gets no entry chooses nobody
		return *causef(ReasonTooManySelections, "the match of %s has no entry in the webhook configuration", profile.Scope())
	}
}

// asked returns the names that are asked for.
func (e *explainer) asked() []string {
	if e.Asks == nil {
		return nil
	}
	return e.Asks.Profiles
}

// isMeant tells whether one of some names means the profile in the Pod's namespace.
func (e *explainer) isMeant(profile *Profile, names []string) bool {
	return slices.Contains(names, profile.Name) && e.snapshot.asked(e.request.Namespace, profile.Name) == profile
}

// selects tells whether the selectors of the profile's match choose the Pod.
func (e *explainer) selects(profile *Profile) bool {
	return profile.match != nil && profile.match.matches(e.request.Namespace.Labels, e.bare.Labels)
}

// wantedBy says what a selector wants that some labels do not have: "env in (prod), and namespace web has env=dev".
func wantedBy(selector labels.Selector, has map[string]string, of string) string {
	var wants, found []string
	for _, requirement := range requirements(selector) {
		if requirement.Matches(labels.Set(has)) {
			continue
		}
		wants = append(wants, requirement.String())
		if value, there := has[requirement.Key()]; there {
			found = append(found, requirement.Key()+"="+value)
		} else {
			found = append(found, "no label "+requirement.Key())
		}
	}
	if len(wants) == 0 { // a selector that selects nothing
		return "what no labels are"
	}
	return fmt.Sprintf("%s, and %s has %s", strings.Join(wants, " and "), of, strings.Join(slices.Compact(found), " and "))
}

// Names returns the names of the profiles that the Pod has in the end, as they start.
func (e *Explanation) Names() []string {
	var names []string
	for i := range e.Profiles {
		if e.Profiles[i].Order > 0 {
			names = append(names, e.Profiles[i].Profile)
		}
	}
	return names
}
