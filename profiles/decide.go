package profiles

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// The bounds of a Pod, which bound the work of a request.
const (
	// maxContainers is how many containers a Pod may have, of all kinds, for Pillion to weave into it.
	maxContainers = 250
	// maxAnnotationBytes is what the API server allows a Pod's annotations to hold, keys and values together
	// (TotalAnnotationSizeLimitB in k8s.io/apimachinery/pkg/api/validation).
	maxAnnotationBytes = 256 << 10
)

// maxRounds bounds how often a Pod is looked at anew because what was woven into it made an enforcing profile match.
const maxRounds = 8

// maxToldProblems bounds how many of a profile's problems whoever creates a Pod is told.
const maxToldProblems = 10

// Decide says what becomes of the Pod that is created. The same inputs give the same Decision.
func (r Request) Decide(snapshot *Snapshot) Decision {
	shared := newShared()
	decision := r.decide(snapshot, shared)
	for range maxRounds {
		// A label that a profile added may be what an enforcing profile matches.
		if !decision.Allowed || len(decision.Patch) == 0 || !snapshot.enforcesMore(r.Namespace, &decision) {
			break
		}
		again := r
		again.Pod = decision.woven
		next := again.decide(snapshot, shared)
		if next.Allowed && len(next.Patch) == 0 {
			break
		}
		decision = decision.then(next)
	}
	if !decision.Allowed {
		decision.woven = r.Pod
	}
	decision.Warnings = capped(decision.Warnings)
	return decision
}

// enforcesMore tells whether an enforcing profile chooses the woven Pod that was not considered for the Pod of the request.
func (s *Snapshot) enforcesMore(namespace Namespace, decision *Decision) bool {
	if !s.enforces {
		return false
	}
	return slices.ContainsFunc(s.matched(namespace, decision.woven.Labels), func(profile *Profile) bool {
		return profile.match.enforce && !slices.ContainsFunc(decision.Outcomes, func(outcome Outcome) bool {
			return outcome.Profile == profile.Name && outcome.Namespace == profile.Namespace && outcome.Reason != ReasonConditionNotMet
		})
	})
}

// decide decides about the Pod as it is.
func (r Request) decide(snapshot *Snapshot, shared *shared) Decision {
	if isExempt(snapshot, r.Namespace, r.Pod) {
		return Decision{Allowed: true, woven: r.Pod}
	}
	d := r.deciderFor(snapshot, shared)
	d.choose()
	d.resolve()
	d.order = d.ordered()
	if r.Final {
		return d.verify()
	}
	return d.decide()
}

// deciderFor returns what decides about the Pod as it is, before it has looked for profiles.
func (r Request) deciderFor(snapshot *Snapshot, shared *shared) *decider {
	d := &decider{
		snapshot: snapshot, request: &r, namespace: r.Namespace, pod: r.Pod, shared: shared,
		bare: withClaims(withoutReserved(r.Pod), r.ClaimVolumes),
	}
	d.matched = snapshot.matched(r.Namespace, d.bare.Labels)
	d.options = snapshot.options.Weave
	d.options.IsOurs, d.options.MayPrecede = d.isOurs, d.mayPrecede
	d.hardening = injectors.HardeningFor(d.bare)
	d.overrides, d.inherited = overridesOf(d.pod.Annotations, ""), overridesOf(d.namespace.Annotations, d.namespace.Name)
	return d
}

// isExempt tells whether a Pod is never touched: one that stands for a kubelet's static Pod, or one in an excluded namespace.
func isExempt(snapshot *Snapshot, namespace Namespace, pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror || slices.Contains(snapshot.options.ExcludedNamespaces, namespace.Name)
}

// decider decides about one Pod.
type decider struct {
	snapshot  *Snapshot
	request   *Request
	namespace Namespace
	pod       *corev1.Pod
	bare      *corev1.Pod // the Pod without what is reserved
	hardening injectors.Hardening
	matched   []*Profile // whose selectors choose the Pod
	options   weave.Options
	names     map[*Profile][]string // of the containers that profiles add, as they are asked for

	candidates []*candidate
	order      []*candidate // the candidates as they start
	outcomes   []Outcome    // of what has no candidate
	unknown    []string
	warnings   []string

	// What expressions see, made when the first asks.
	view, namespaceObject any
	values                map[string]any // of conditions that do not enforce
	shared                *shared

	overrides, inherited map[string][]override // by profile: of the Pod, and of its namespace

	before map[string]v1alpha1.Injected // what the Pod's marks say, read when it is asked for first
}

// injected returns what the Pod's marks say was woven into it.
func (d *decider) injected() map[string]v1alpha1.Injected {
	if d.before == nil {
		d.before = injectedBefore(d.pod)
	}
	return d.before
}

// overridesOf returns what the Pod and its namespace change of a profile.
func (d *decider) overridesOf(profile string) []override {
	return over(d.inherited[profile], d.overrides[profile])
}

// candidate is a profile that was asked for or that chose the Pod.
type candidate struct {
	profile  *Profile
	source   Source
	enforced bool
	// unjudged says that the candidate of a final Pod is there for those that read from it, and for nothing else.
	unjudged bool
	effectiveSpec
	outcome  Outcome
	problems []weave.Problem
	present  bool // the Pod has what it adds

	isPicked bool // other ports than its own were chosen
}

// resolve finds the effective spec of every candidate, and whether the Pod has it already.
func (d *decider) resolve() {
	for _, c := range d.candidates {
		c.outcome = c.profile.outcome(c.source)
		c.outcome.enforced = c.enforced
		c.resolve(d.overridesOf(c.profile.Name))
		if c.present = d.has(c.profile); c.present {
			c.alreadyInjected(d.injected()[c.profile.Name])
		}
	}
	for _, profile := range slices.Sorted(maps.Keys(d.overrides)) {
		if d.isUnknown(profile) || d.isCandidate(profile) {
			continue
		}
		d.warnings = append(d.warnings, fmt.Sprintf("%s has no effect: profile %s is not applied to this Pod",
			annotationNames(d.overrides[profile]), shown(profile)))
	}
}

// resolve finds the effective spec of a candidate, or why it has none.
func (c *candidate) resolve(overrides []override) {
	if len(c.profile.Problems) > 0 {
		c.problems = []weave.Problem{{Reason: ReasonProfileNotReady, Message: fmt.Sprintf("%s cannot be used until it is mended: %s",
			c.profile.Scope(), told(c.profile.Problems))}}
		return
	}
	c.effectiveSpec, c.problems = c.profile.effective(overrides)
	c.outcome.Revision = c.revision
	if c.revision != c.profile.Revision {
		c.outcome.profileRevision = c.profile.Revision
	}
	if len(c.profile.Broken) > 0 {
		c.outcome.Warning = fmt.Sprintf("%s cannot be used as it is; its last good revision, %s, was used: %s",
			c.profile.Scope(), c.profile.Revision, told(c.profile.Broken))
	}
}

// told says what is wrong with a profile to whoever creates a Pod.
func told(problems field.ErrorList) string {
	return strings.Join(FirstProblems(problems, maxToldProblems), ", ")
}

// FirstProblems returns a sentence for each of some problems, and at last how many more there are.
func FirstProblems(problems field.ErrorList, most int) []string {
	told := make([]string, 0, most+1)
	for i, problem := range problems {
		if i == most {
			return append(told, fmt.Sprintf("and %d more", len(problems)-i))
		}
		told = append(told, problem.Error())
	}
	return told
}

func (d *decider) isUnknown(name string) bool { return slices.Contains(d.unknown, name) }

// alreadyInjected makes the outcome of a candidate whose containers the Pod has. An override or a profile that is wrong by now is
// no reason to refuse it.
func (c *candidate) alreadyInjected(before v1alpha1.Injected) {
	if c.enforced && len(c.problems) > 0 {
		c.present = false // what cannot be made cannot be compared
		return
	}
	c.problems = nil
	c.outcome.Result, c.outcome.Reason = Skipped, ReasonAlreadyInjected
	c.outcome.Containers = before.Containers
	c.outcome.Message = fmt.Sprintf("the Pod has the containers of profile %s already", c.profile.Name)
	switch {
	case before.Revision == "":
		c.outcome.Warning = fmt.Sprintf("profile %s was not woven: the Pod has a container of its name, %s, and no record of where that "+
			"is from; rename the container if it is the app's own", c.profile.Name, v1alpha1.ReservedName(c.profile.Name, ""))
	case c.revision != "" && before.Revision != c.revision:
		c.outcome.Warning = fmt.Sprintf("profile %s is at revision %s, but this Pod has its containers at revision %s; "+
			"remove them from its manifest, with their volumes and mounts, to get the current ones", c.profile.Name, c.revision, before.Revision)
	}
}

// decide builds and weaves what can be, and judges what cannot.
func (d *decider) decide() Decision {
	ordered := d.order
	weaver := d.weave(ordered)
	outcomes := slices.Clone(d.outcomes)
	for _, c := range ordered {
		outcomes = append(outcomes, c.outcomesWith(weaver)...)
	}
	decision := Decision{Outcomes: outcomes, Allowed: true, woven: d.pod, Unknown: d.unknown}
	for i := range outcomes {
		if outcomes[i].denies() {
			decision.Allowed = false
		}
	}
	if decision.Allowed && !d.finish(&decision, weaver, ordered) {
		return d.decide()
	}
	for _, leftOut := range []bool{true, false} { // what was left out is told first: the rest may be cut off
		for i := range outcomes {
			if warning := outcomes[i].warning(); warning != "" && leftOut == (outcomes[i].Result == Rejected) {
				decision.Warnings = append(decision.Warnings, warning)
			}
		}
	}
	decision.Warnings = append(decision.Warnings, d.warnings...)
	return decision
}

// capped returns at most ten warnings: the API server cuts each of them once there is too much text in all.
func capped(warnings []string) []string {
	const most = 10
	if excess := len(warnings) - most; excess > 0 {
		warnings = append(warnings[:most-1:most-1], fmt.Sprintf("there are %d more warnings", excess+1))
	}
	return warnings
}

// finish weaves the Pod of a Decision that allows it. It is false if the Pod would exceed what the API server takes and policy
// was made to give way, so that everything is to be decided again.
func (d *decider) finish(decision *Decision, weaver *weave.Weaver, ordered []*candidate) bool {
	names := make([]string, len(ordered))
	for i, c := range ordered {
		names[i] = c.profile.Name
	}
	size := 0
	told := marks(d.pod, decision.Outcomes)
	for range 2 {
		woven, patch := weaver.Weave(names, told)
		if size = annotationBytes(woven); len(patch) == 0 || size <= maxAnnotationBytes {
			decision.woven, decision.Patch = woven, patch
			return true
		}
		dropSkipped(told) // what was left out is told by a warning, too
	}
	problem := weave.Problem{Reason: ReasonPodTooLarge, Message: fmt.Sprintf(
		"the Pod's annotations would hold %d bytes with the configuration that profiles add; the API server takes at most %d: "+
			"shorten the Pod's annotations", size, maxAnnotationBytes)}
	if dropPolicy(ordered, problem) {
		return false
	}
	decision.Allowed = false
	decision.Outcomes = append(decision.Outcomes, Outcome{
		Source: SourceAnnotation, Result: Rejected, Reason: problem.Reason, Message: problem.Message,
	})
	return true
}

// dropPolicy gives the problem to every candidate that only policy wants. It is false if there is none.
func dropPolicy(ordered []*candidate, problem weave.Problem) (dropped bool) {
	for _, c := range ordered {
		if c.rank() == byPolicy && !c.present && len(c.problems) == 0 {
			c.problems = []weave.Problem{problem}
			dropped = true
		}
	}
	return dropped
}

// ordered returns the candidates in the order in which they start: what is enforced first.
func (d *decider) ordered() []*candidate {
	byName, enforced := map[string]*candidate{}, map[string]bool{}
	names := make([]string, 0, len(d.candidates))
	for _, c := range slices.SortedFunc(slices.Values(d.candidates), byPatternAndName) {
		byName[c.profile.Name], enforced[c.profile.Name] = c, c.enforced
		names = append(names, c.profile.Name)
	}
	waitsFor := map[string][]string{}
	for _, c := range d.candidates {
		waitsFor[c.profile.Name] = slices.DeleteFunc(slices.Concat(c.sources(), c.profile.after), func(name string) bool {
			other := byName[name]
			return other == nil || !c.profile.mayMean(other.profile)
		})
	}
	ordered := make([]*candidate, 0, len(names))
	for _, name := range order(names, enforced, waitsFor) {
		ordered = append(ordered, byName[name])
	}
	return ordered
}

// starts is when a pattern's containers start among those of a Pod.
var starts = func() map[v1alpha1.PatternKind]int {
	order := map[v1alpha1.PatternKind]int{}
	for i, injector := range injectors.All() {
		order[injector.Kind] = i
	}
	return order
}()

func byPatternAndName(a, b *candidate) int {
	return cmp.Or(starts[a.profile.Kind]-starts[b.profile.Kind], strings.Compare(a.profile.Name, b.profile.Name))
}

// mayMean tells whether a name in a profile may mean another: a ClusterPatternProfile never means one of a namespace.
func (p *Profile) mayMean(other *Profile) bool { return p.Namespace != "" || other.Namespace == "" }

// unfit says why nothing at all can be woven into the Pod; nil if something can.
func (d *decider) unfit() *weave.Problem {
	spec := &d.pod.Spec
	if n := len(spec.InitContainers) + len(spec.Containers) + len(spec.EphemeralContainers); n > maxContainers {
		return &weave.Problem{Reason: ReasonPodTooLarge, Message: fmt.Sprintf(
			"the Pod has %d containers; Pillion weaves into Pods of at most %d", n, maxContainers)}
	}
	if size := annotationBytes(d.pod); size > maxAnnotationBytes {
		return &weave.Problem{Reason: ReasonPodTooLarge, Message: fmt.Sprintf(
			"the Pod's annotations hold %d bytes; the API server takes at most %d", size, maxAnnotationBytes)}
	}
	if (spec.OS != nil && spec.OS.Name == corev1.Windows) || spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows) {
		return &weave.Problem{Reason: ReasonWindowsNotSupported, Message: "the Pod is for Windows nodes, and the patterns' programs are " +
			"for Linux; set the annotation " + v1alpha1.InjectKey + ": none"}
	}
	return nil
}

// outcomesWith returns the candidate's outcome, or one for each of its problems.
func (c *candidate) outcomesWith(weaver *weave.Weaver) []Outcome {
	if c.present {
		return []Outcome{c.outcome}
	}
	if len(c.problems) == 0 {
		c.outcome.Result, c.outcome.Reason = Applied, ReasonApplied
		c.outcome.Message = fmt.Sprintf("%s adds %s", c.profile.Scope(),
			cmp.Or(strings.Join(c.outcome.Containers, ", "), "no container"))
		if kept := weaver.KeptEnv(c.profile.Name); len(kept) > 0 {
			c.outcome.warn(fmt.Sprintf("profile %s: the app keeps its own value of %s", c.profile.Name, strings.Join(kept, ", ")))
		}
		return []Outcome{c.outcome}
	}
	problems := c.problems
	if excess := len(problems) - maxToldProblems; excess > 0 {
		problems = append(slices.Clone(problems[:maxToldProblems]), weave.Problem{
			Reason: problems[0].Reason, Message: fmt.Sprintf("profile %s: there are %d more problems", c.profile.Name, excess),
		})
	}
	outcomes := make([]Outcome, len(problems))
	for i, problem := range problems {
		outcomes[i] = c.outcome
		outcomes[i].Containers = nil
		outcomes[i].Result, outcomes[i].Reason, outcomes[i].Message = Rejected, problem.Reason, problem.Message
	}
	return outcomes
}

// warning is what whoever creates the Pod is told about an outcome that does not refuse it.
func (o *Outcome) warning() string {
	if o.Result == Rejected && !o.denies() {
		return fmt.Sprintf("Pillion left out profile %s: %s (%s)", o.Profile, o.Message, o.Reason)
	}
	return o.Warning
}

func annotationBytes(pod *corev1.Pod) int {
	size := 0
	for key, value := range pod.Annotations {
		size += len(key) + len(value)
	}
	return size
}
