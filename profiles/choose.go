package profiles

import (
	"fmt"
	"slices"
	"sync"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
	"github.com/pillion-dev/pillion/weave"
)

// maxInside is how many of a namespace's own profiles may choose one Pod, which bounds what a tenant has the webhook do.
const maxInside = 64

// choose collects the candidates: what is asked for, and what policy adds to it.
func (d *decider) choose() {
	asked := requestOf(d.pod.Annotations, d.namespace)
	d.chooseAsked(&asked)
	d.chooseEnforced()
	if asked.declined {
		return
	}
	woven := isWoven(d.pod)
	inside := 0
	for i, profile := range d.matched {
		switch {
		case profile.match.enforce:
			continue
		case profile.Namespace != "":
			inside++
			if inside > maxInside {
				d.refuseRest(d.matched[i:])
				return
			}
		}
		if woven && (d.isCandidate(profile.Name) || !d.has(profile)) { // as by the entry of a match: what is woven is not chosen anew
			continue
		}
		untrue, problem := d.conditionsOf(profile)
		d.decideBy(profile, untrue, problem)
	}
}

// unmet is an enforcing profile that does not choose the Pod, by the condition that is not true.
type unmet struct {
	profile *Profile
	untrue  string
}

// chooseEnforced collects what is enforced. Conditions see the Pod without the containers of all profiles that may be enforced on it.
// Where such a container is there though its profile is not, it may be the app, hidden behind the name: then they see it. What is
// chosen is compared, and hides nothing.
func (d *decider) chooseEnforced() {
	var enforcing []*Profile
	for _, profile := range d.matched {
		if profile.match.enforce {
			enforcing = append(enforcing, profile)
		}
	}
	var open []unmet
	view := d.lazyValues(enforcing)
	for _, profile := range enforcing {
		if untrue := d.chooseIfMet(profile, view, d.shared.cluster); untrue != "" {
			open = append(open, unmet{profile, untrue})
		}
	}
	for slices.ContainsFunc(open, func(u unmet) bool { return d.hasContainerOf(u.profile) }) {
		hiding := slices.DeleteFunc(slices.Clone(enforcing), func(profile *Profile) bool {
			return slices.ContainsFunc(open, func(u unmet) bool { return u.profile == profile })
		})
		view = d.lazyValues(hiding)
		before := len(open)
		open = slices.DeleteFunc(open, func(u unmet) bool { return d.chooseIfMet(u.profile, view, d.shared.again) == "" })
		if len(open) == before {
			break
		}
	}
	// What other profiles added may have made a condition untrue since the profile was woven. A mark that is forged brings no more than
	// a comparison.
	view = sync.OnceValue(func() map[string]any { return d.valuesOf(d.podView()) })
	for _, u := range open {
		if _, marked := d.injected()[u.profile.Name]; marked && d.hasContainerOf(u.profile) && d.chooseIfMet(u.profile, view, d.shared.again) == "" {
			continue
		}
		d.decideBy(u.profile, u.untrue, nil)
	}
}

// lazyValues returns what conditions that enforce read, without the containers of some profiles, made when it is asked for first.
func (d *decider) lazyValues(hidden []*Profile) func() map[string]any {
	return sync.OnceValue(func() map[string]any { return d.valuesOf(d.strictView(hidden)) })
}

// chooseIfMet chooses an enforcing profile whose conditions are true, and refuses one of which they cannot be evaluated. It returns the
// condition that is not true, if that is known.
func (d *decider) chooseIfMet(profile *Profile, values func() map[string]any, budget *expressions.Budget) (untrue string) {
	if !d.shared.met[profile] && len(profile.match.conditions) > 0 {
		untrue, problem := evaluateConditions(profile, values(), budget)
		if untrue != "" && problem == nil {
			return untrue
		}
		if problem != nil {
			d.decideBy(profile, untrue, problem)
			return ""
		}
		d.shared.met[profile] = true // though what is woven may change what they see
	}
	d.decideBy(profile, "", nil)
	return ""
}

// refuseRest refuses those of the namespace's own profiles that choose the Pod and are too many, in one outcome.
func (d *decider) refuseRest(rest []*Profile) {
	told := rest[0]
	if i := slices.IndexFunc(rest, func(p *Profile) bool { return policyOf(p) == v1alpha1.FailurePolicyFail }); i >= 0 {
		told = rest[i]
	}
	outcome := told.outcome(SourceMatch)
	outcome.Result, outcome.Reason = Rejected, ReasonTooManyProfiles
	outcome.Message = fmt.Sprintf("%d PatternProfiles of namespace %s choose this Pod by their match; only the first %d by name apply, and "+
		"not %s", len(rest)+maxInside, d.namespace.Name, maxInside, told.Scope())
	d.refuse(outcome)
}

func (d *decider) isCandidate(name string) bool {
	return slices.ContainsFunc(d.candidates, func(c *candidate) bool { return c.profile.Name == name })
}

// refuse notes an outcome of what has no candidate. In a final Pod only what is enforced is judged: the rest was, when it was woven.
func (d *decider) refuse(outcome Outcome) {
	if !d.request.Final || outcome.enforced {
		d.outcomes = append(d.outcomes, outcome)
	}
}

// chooseAsked collects what is asked for.
func (d *decider) chooseAsked(asked *asked) {
	for _, problem := range asked.problems {
		d.refuse(Outcome{Source: asked.source, Result: Rejected, Reason: problem.Reason, Message: problem.Message})
	}
	for _, name := range asked.names {
		if profile := d.snapshot.asked(d.namespace, name); profile != nil {
			d.candidates = append(d.candidates, &candidate{profile: profile, source: asked.source, unjudged: d.request.Final})
			continue
		}
		if d.request.Final {
			continue
		}
		d.unknown = append(d.unknown, name)
		d.refuse(Outcome{
			Profile: name, Source: asked.source, Result: Rejected, Reason: ReasonProfileNotAvailable,
			Message: fmt.Sprintf("profile %s is not available in namespace %s%s", name, d.namespace.Name,
				Suggest(name, d.snapshot.usable(d.namespace))),
		})
	}
}

// decideBy chooses a profile by what its conditions came to. One that cannot be evaluated refuses the profile.
func (d *decider) decideBy(profile *Profile, untrue string, problem *weave.Problem) {
	if untrue == "" {
		d.chooseByPolicy(profile)
		return
	}
	outcome := profile.outcome(SourceMatch)
	outcome.Result, outcome.Reason = Skipped, ReasonConditionNotMet
	outcome.Message = fmt.Sprintf("condition %s of %s is not true of this Pod", untrue, profile.Scope())
	if problem != nil {
		outcome.Result, outcome.Reason, outcome.Message = Rejected, problem.Reason, problem.Message
	}
	d.refuse(outcome)
}

// outcome returns the beginning of an outcome of the profile.
func (p *Profile) outcome(source Source) Outcome {
	return Outcome{
		Profile: p.Name, Namespace: p.Namespace, Kind: p.Kind, Source: source,
		policy: p.FailurePolicy, enforced: source == SourceMatch && p.match != nil && p.match.enforce,
	}
}

// chooseByPolicy adds a profile that chose the Pod. A namespaced profile shadows a cluster profile for those who ask by name,
// never for policy: of two different profiles of one name the cluster's stands, and the other is refused.
func (d *decider) chooseByPolicy(profile *Profile) {
	chosen := &candidate{
		profile: profile, source: SourceMatch, enforced: profile.match.enforce, unjudged: d.request.Final && !profile.match.enforce,
	}
	i := slices.IndexFunc(d.candidates, func(c *candidate) bool { return c.profile.Name == profile.Name })
	if i < 0 {
		d.candidates = append(d.candidates, chosen)
		return
	}
	other := d.candidates[i]
	if other.profile.Namespace == profile.Namespace { // the same one, if perhaps read anew
		other.enforced, other.unjudged = chosen.enforced, chosen.unjudged
		return
	}
	if profile.Namespace == "" {
		d.candidates[i], chosen, other = chosen, other, chosen
	}
	outcome := chosen.profile.outcome(chosen.source)
	outcome.Result, outcome.Reason = Rejected, weave.ReasonNameCollision
	outcome.Message = fmt.Sprintf("%s has the name of %s, which policy applies to this Pod; rename one of them",
		chosen.profile.Scope(), other.profile.Scope())
	d.refuse(outcome)
}
