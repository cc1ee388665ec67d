package profiles

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// rank is the order in which candidates are added, so that none takes the place of one that has a better right to it: what is asked for
// never gives way to policy, nor policy that enforces to what is asked for.
type rank int

const (
	byEnforcement rank = iota
	byRequest
	byPolicy
)

func (c *candidate) rank() rank {
	switch {
	case c.enforced:
		return byEnforcement
	case c.source != SourceMatch:
		return byRequest
	default:
		return byPolicy
	}
}

// has tells whether the Pod has what a profile adds. A container of the name counts unless the Pod says that it is another profile's.
func (d *decider) has(profile *Profile) bool {
	if profile.custom == nil {
		return hasContainer(d.pod, v1alpha1.ReservedName(profile.Name, ""))
	}
	names := profile.custom.Containers()
	if len(names) > 0 {
		return slices.ContainsFunc(names, func(name string) bool { return hasContainer(d.pod, name) && !d.isOthers(name, profile.Name) })
	}
	c := &candidate{profile: profile}
	c.effectiveSpec, c.problems = profile.effective(overridesOf(d.pod.Annotations)[profile.Name])
	if len(c.problems) > 0 || !isWoven(d.pod) {
		return false
	}
	what := d.added(c, nil)
	return len(what.problems) == 0 && weave.IsPresent(d.pod, &what.fragment, d.snapshot.options.Weave)
}

// isOthers tells whether the Pod says that a container is of another profile: of profile a-b and not part b of profile a.
func (d *decider) isOthers(container, profile string) bool {
	for name, entry := range injectedBefore(d.pod) {
		if name != profile && slices.Contains(entry.Containers, container) {
			return true
		}
	}
	return false
}

// weave tries to add every candidate, by rank. A profile that is refused may be one that others read from: they are tried again without
// it until nothing more is refused.
func (d *decider) weave(ordered []*candidate) *weave.Weaver {
	present := d.presentFragments(ordered)
	for {
		weaver := weave.NewWeaver(d.pod, d.snapshot.options.Weave)
		for _, fragment := range present {
			weaver.Occupy(fragment)
		}
		applied := appliedOf(ordered)
		refused := false
		for rank := byEnforcement; rank <= byPolicy; rank++ {
			for _, c := range ordered {
				if c.rank() == rank && !c.present && len(c.problems) == 0 {
					c.problems = d.add(weaver, c, applied)
					refused = refused || len(c.problems) > 0
				}
			}
		}
		if !refused {
			return weaver
		}
	}
}

// appliedOf returns the candidates whose files others may read, by name.
func appliedOf(ordered []*candidate) map[string]*candidate {
	applied := map[string]*candidate{}
	for _, c := range ordered {
		if len(c.problems) == 0 && c.pattern != nil {
			applied[c.profile.Name] = c
		}
	}
	return applied
}

// presentFragments returns what the profiles add that the Pod has already, with the ports that they were given. What an enforcing
// profile added is compared: no mark is trusted.
func (d *decider) presentFragments(ordered []*candidate) []weave.Fragment {
	if !slices.ContainsFunc(ordered, func(c *candidate) bool { return c.present }) {
		return nil
	}
	applied := appliedOf(ordered)
	bare := weave.NewWeaver(d.bare, d.snapshot.options.Weave)
	var present []weave.Fragment
	for rank := byEnforcement; rank <= byPolicy; rank++ {
		for _, c := range ordered {
			if c.rank() != rank || !c.present || c.pattern == nil {
				continue
			}
			what, _ := d.fitted(bare, c, applied)
			if len(what.problems) == 0 {
				bare.Occupy(what.fragment)
				present = append(present, what.fragment)
			}
			if c.enforced {
				d.compare(c, what)
			}
		}
	}
	return present
}

// compare makes the outcome of an enforcing profile that the Pod has already.
func (d *decider) compare(c *candidate, what *added) {
	problems := what.problems
	if len(problems) == 0 {
		if differences := weave.Differences(d.pod, &what.fragment, d.snapshot.options.Weave); len(differences) > 0 {
			problems = []weave.Problem{{Reason: ReasonInjectionChanged, Message: fmt.Sprintf(
				"%s is enforced, and the Pod does not have what it adds as it adds it: %s; remove what is named %s from the Pod's manifest",
				c.profile.Scope(), strings.Join(differences, "; "), v1alpha1.ReservedName(c.profile.Name, ""))}}
		}
	}
	if len(problems) > 0 {
		c.present, c.problems = false, problems
	}
}

// verify judges the final Pod: every profile that is enforced on it has to be in it.
func (d *decider) verify() Decision {
	ordered := d.ordered()
	d.presentFragments(ordered)
	outcomes := slices.Clone(d.outcomes)
	for _, c := range ordered {
		if !c.present && len(c.problems) == 0 {
			c.problems = []weave.Problem{{Reason: ReasonNotInjected, Message: fmt.Sprintf(
				"%s is enforced on this Pod, which lacks what it adds: another webhook removed it, or changed the Pod after it was "+
					"woven, or the Pod could not be woven; create the Pod again, and if that does not help change what is named",
				c.profile.Scope())}}
		}
		if c.present {
			c.outcome.Reason = ReasonEnforced
		}
		outcomes = append(outcomes, c.outcomesWith(nil)...)
	}
	return Decision{Outcomes: outcomes, woven: d.pod, Allowed: !slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.denies() })}
}

// add builds what a candidate adds and gives it to the weaver.
func (d *decider) add(weaver *weave.Weaver, c *candidate, applied map[string]*candidate) []weave.Problem {
	if problem := d.unfit(); problem != nil {
		return []weave.Problem{*problem}
	}
	what, request := d.fitted(weaver, c, applied)
	if len(what.problems) > 0 {
		return what.problems
	}
	if problems := d.unsuited(c, what, request); len(problems) > 0 {
		return append(problems, weaver.Check(what.fragment)...)
	}
	c.outcome.Containers = containerNames(&what.fragment)
	c.outcome.warn(d.lostGuarantee(c, &what.fragment))
	return weaver.Add(what.fragment)
}

func containerNames(fragment *weave.Fragment) []string {
	var names []string
	for i := range fragment.InitContainers {
		names = append(names, fragment.InitContainers[i].Name)
	}
	for i := range fragment.Containers {
		names = append(names, fragment.Containers[i].Name)
	}
	return names
}

// unsuited says why the Pod cannot have what a candidate adds, beside collisions.
func (d *decider) unsuited(c *candidate, what *added, request injectors.Request) (problems []weave.Problem) {
	if c.profile.custom != nil {
		problems = injectors.CustomProblems(&what.fragment, d.bare)
	} else if c.profile.injector.Problems != nil {
		problems = c.profile.injector.Problems(request, d.bare)
	}
	level, applies := d.snapshot.security.level(d.namespace, d.request.User.Username, d.pod)
	if !applies {
		return problems
	}
	if len(what.violationsAt(level, d.snapshot.security)) == 0 { // most, and remembered
		return problems
	}
	violations := d.snapshot.security.violations(d.namespace, d.request.User.Username, d.pod, &what.fragment)
	if len(violations) > 0 {
		message := fmt.Sprintf("what profile %s adds violates Pod Security %q, which namespace %s enforces: %s",
			c.profile.Name, level.String(), d.namespace.Name, strings.Join(violations, ", "))
		if d.snapshot.options.PodSecurity.Mode == PodSecurityWarn {
			c.outcome.warn(message)
		} else {
			problems = append(problems, weave.Problem{Reason: ReasonPodSecurity, Message: message})
		}
	}
	return problems
}

// lostGuarantee says why the Pod would no longer be of the QoS class Guaranteed; "" if it stays so, or was not.
func (d *decider) lostGuarantee(c *candidate, fragment *weave.Fragment) string {
	if !d.hardening.Guaranteed {
		return ""
	}
	for _, containers := range [][]corev1.Container{fragment.InitContainers, fragment.Containers} {
		for i := range containers {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, limited := containers[i].Resources.Limits[name]
				request, requested := containers[i].Resources.Requests[name]
				if !limited || limit.IsZero() || !requested || request.Cmp(limit) != 0 {
					return fmt.Sprintf("profile %s: the Pod's QoS class is Burstable and no longer Guaranteed, for container %s has no %s "+
						"limit that equals its request", c.profile.Name, containers[i].Name, name)
				}
			}
		}
	}
	return ""
}

// fitted returns what a candidate adds, with other ports if its own are taken and the profile says to pick.
func (d *decider) fitted(weaver *weave.Weaver, c *candidate, applied map[string]*candidate) (*added, injectors.Request) {
	what := d.added(c, applied)
	request := d.input(c, applied)
	if c.profile.onPortConflict != v1alpha1.PortConflictPick || len(what.problems) > 0 || !portsTaken(weaver, &what.fragment) {
		return what, request
	}
	picked := *c
	if c.bound != nil {
		bound, ok := c.bound.Pick(weaver.Taken)
		if !ok {
			return what, request
		}
		picked.bound = bound
	} else {
		if c.profile.injector.Pick == nil {
			return what, request
		}
		pattern := c.profile.injector.Pick(c.pattern, weaver.Taken)
		if pattern == nil {
			return what, request
		}
		picked.pattern, picked.configuration = pattern, configuration(c.profile.injector, pattern)
	}
	return d.build(&picked, applied), d.input(&picked, applied)
}

// portsTaken tells whether a port of a Fragment is taken.
func portsTaken(weaver *weave.Weaver, fragment *weave.Fragment) bool {
	return slices.ContainsFunc(fragment.AllPorts(), func(port weave.Port) bool { return weaver.Taken(port.Port, port.Protocol) })
}

func (d *decider) input(c *candidate, applied map[string]*candidate) injectors.Request {
	patterns := make(map[string]*v1alpha1.Pattern, len(applied))
	for name, other := range applied {
		patterns[name] = other.pattern
	}
	return injectors.Request{
		Profile:       c.profile.Name,
		Pattern:       c.pattern,
		Configuration: c.configuration,
		Applied:       patterns,
		Images:        d.snapshot.options.Images,
	}
}

// added returns what the candidate adds: from the Snapshot's memory, unless the Pod's annotations change it or the profile that
// it reads from.
func (d *decider) added(c *candidate, applied map[string]*candidate) *added {
	if c.bound != nil {
		return d.addedByCustom(c)
	}
	key := fragmentKey{profile: c.profile, hardening: d.hardening}
	memorable := c.pattern == c.profile.Pattern
	for i, name := range c.sources() {
		source := applied[name]
		memorable = memorable && i == 0 && source != nil && source.pattern == source.profile.Pattern
		if memorable {
			key.source = source.pattern
		}
	}
	if !memorable {
		return d.build(c, applied)
	}
	return d.snapshot.memory.remembered(key, func() *added {
		return newAdded(injectors.Build(c.profile.injector, d.input(c, applied), d.hardening), nil)
	})
}

// addedByCustom returns what a custom pattern adds: its expressions are evaluated, and what they make is remembered by their results.
func (d *decider) addedByCustom(c *candidate) *added {
	result, problems := c.bound.Evaluate(d.podView(), d.namespaceView())
	if len(problems) > 0 {
		return &added{problems: problems}
	}
	if c.bound != c.profile.bound {
		fragment, problems := result.Fragment(d.hardening)
		return &added{fragment: fragment, problems: problems}
	}
	key := fragmentKey{profile: c.profile, hardening: d.hardening, result: result.Key()}
	return d.snapshot.memory.remembered(key, func() *added { return newAdded(result.Fragment(d.hardening)) })
}

// build makes what the candidate adds, for this Pod alone.
func (d *decider) build(c *candidate, applied map[string]*candidate) *added {
	if c.bound == nil {
		return &added{fragment: injectors.Build(c.profile.injector, d.input(c, applied), d.hardening)}
	}
	result, problems := c.bound.Evaluate(d.podView(), d.namespaceView())
	if len(problems) > 0 {
		return &added{problems: problems}
	}
	fragment, problems := result.Fragment(d.hardening)
	return &added{fragment: fragment, problems: problems}
}

// sources returns the names of the profiles that the candidate reads from.
func (c *candidate) sources() []string {
	if c.pattern == nil || c.profile.injector.Sources == nil {
		return nil
	}
	return c.profile.injector.Sources(c.pattern)
}
