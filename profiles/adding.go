package profiles

import (
	"cmp"
	"crypto/sha256"
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
	c.effectiveSpec, c.problems = profile.effective(d.overridesOf(profile.Name))
	if len(c.problems) > 0 || !isWoven(d.pod) {
		return false
	}
	what := d.added(c, nil)
	return len(what.problems) == 0 && weave.IsPresent(d.pod, &what.fragment, d.options)
}

// isOthers tells whether the Pod says that a container is of another profile: of profile a-b and not part b of profile a.
func (d *decider) isOthers(container, profile string) bool {
	for name, entry := range d.injected() {
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
		weaver := weave.NewWeaver(d.pod, d.options)
		isEnforced := slices.ContainsFunc(ordered, func(c *candidate) bool { return c.enforced && !c.present && len(c.problems) == 0 })
		for _, p := range present {
			weaver.Occupy(p.fragment)
			if p.enforced || !isEnforced { // what is enforced starts ahead of what is not, though it comes later
				weaver.PlaceBehind(p.fragment)
			}
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
		if len(c.problems) == 0 && c.pattern != nil && (c.present || !c.unjudged) {
			applied[c.profile.Name] = c
		}
	}
	return applied
}

// present is what a profile adds that the Pod has already.
type present struct {
	fragment weave.Fragment
	enforced bool
}

// presentFragments returns what the profiles add that the Pod has already, with the ports that they were given. What an enforcing
// profile added is compared: no mark is trusted.
func (d *decider) presentFragments(ordered []*candidate) []present {
	if !slices.ContainsFunc(ordered, func(c *candidate) bool { return c.present || d.mayBePresent(c) }) {
		return nil
	}
	applied := appliedOf(ordered)
	bare := weave.NewWeaver(d.bare, d.options)
	var found []present
	for rank := byEnforcement; rank <= byPolicy; rank++ {
		for _, c := range ordered {
			if c.rank() != rank || c.pattern == nil || (!c.present && !d.mayBePresent(c)) {
				continue
			}
			what := d.addedAt(bare, c, applied)
			if !c.present {
				if len(what.problems) > 0 || len(d.differences(what)) > 0 {
					continue
				}
				c.present = true
				c.alreadyInjected(d.injected()[c.profile.Name])
			}
			if len(what.problems) == 0 {
				bare.Occupy(what.fragment)
				found = append(found, present{what.fragment, c.enforced})
			}
			if c.enforced {
				d.compare(c, what)
			}
		}
	}
	return found
}

// mayBePresent tells whether the Pod may have what an enforcing profile without containers adds, though a container that came later
// has nothing of it.
func (d *decider) mayBePresent(c *candidate) bool {
	return c.enforced && len(c.problems) == 0 && c.profile.custom != nil && len(c.profile.custom.Containers()) == 0 &&
		(d.request.Final || isWoven(d.pod))
}

// addedAt returns what a candidate added to the Pod that has it already, at the ports that it was given there.
func (d *decider) addedAt(bare *weave.Weaver, c *candidate, applied map[string]*candidate) *added {
	what := d.added(c, applied)
	if c.profile.onPortConflict != v1alpha1.PortConflictPick || len(what.problems) > 0 {
		return what
	}
	// The ports that its containers declare are what it was given. One that declares none listens where it does without the others.
	has := map[weave.Port]bool{}
	for _, name := range containerNames(&what.fragment) {
		for _, containers := range [][]corev1.Container{d.pod.Spec.InitContainers, d.pod.Spec.Containers} {
			for i := range containers {
				if containers[i].Name != name {
					continue
				}
				for _, port := range containers[i].Ports {
					has[weave.Port{Port: port.ContainerPort, Protocol: cmp.Or(port.Protocol, corev1.ProtocolTCP)}] = true
				}
			}
		}
	}
	if len(has) > 0 {
		at, _ := d.fitted(func(port int32, protocol corev1.Protocol) bool {
			return !has[weave.Port{Port: port, Protocol: cmp.Or(protocol, corev1.ProtocolTCP)}]
		}, c, applied)
		if len(at.problems) == 0 && len(d.differences(at)) == 0 {
			return at
		}
	}
	at, _ := d.fitted(bare.Taken, c, applied)
	return at
}

// differences are those between what is added and what the Pod has of it.
func (d *decider) differences(what *added) []string {
	return weave.Differences(d.pod, &what.fragment, d.options)
}

// isOurs tells whether a container is one that a profile of this Pod adds, by its name: another is the app's, whatever its name.
func (d *decider) isOurs(name string) bool {
	return v1alpha1.IsReservedName(name) && d.adds(name, func(*candidate) bool { return true })
}

// mayPrecede tells whether an init container may start ahead of what is enforced: one that leads others, or is enforced as well.
func (d *decider) mayPrecede(name string) bool {
	return slices.Contains(d.options.LeadingContainers, name) || d.adds(name, func(c *candidate) bool { return c.enforced })
}

// adds tells whether some of the candidates add a container of the name.
func (d *decider) adds(name string, some func(*candidate) bool) bool {
	return slices.ContainsFunc(d.candidates, func(c *candidate) bool {
		return some(c) && slices.Contains(d.containersOf(c.profile), name)
	})
}

// compare makes the outcome of an enforcing profile that the Pod has already.
func (d *decider) compare(c *candidate, what *added) {
	problems := what.problems
	if len(problems) == 0 {
		if differences := d.differences(what); len(differences) > 0 {
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
	d.presentFragments(d.order)
	outcomes := slices.Clone(d.outcomes)
	for _, c := range d.order {
		if c.unjudged {
			continue
		}
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
	what, request := d.fitted(weaver.Taken, c, applied)
	if len(what.problems) > 0 {
		return what.problems
	}
	problems := slices.Concat(d.unsuited(c, what, request), d.exceeding(weaver, c, &what.fragment))
	if len(problems) > 0 {
		return append(problems, weaver.Check(what.fragment)...)
	}
	c.outcome.Containers = containerNames(&what.fragment)
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

// fitted returns what a candidate adds, with other ports if its own are taken and the profile says to pick. Its outcome knows what was
// picked.
func (d *decider) fitted(taken injectors.Taken, c *candidate, applied map[string]*candidate) (*added, injectors.Request) {
	c.outcome.picked = nil
	what := d.added(c, applied)
	request := d.input(c, applied)
	if c.profile.onPortConflict != v1alpha1.PortConflictPick || len(what.problems) > 0 || !portsTaken(taken, &what.fragment) {
		return what, request
	}
	picked := *c
	picked.isPicked = true
	if c.bound != nil {
		bound, ok := c.bound.Pick(taken)
		if !ok {
			return what, request
		}
		picked.bound = bound
	} else {
		if c.profile.injector.Pick == nil {
			return what, request
		}
		pattern := c.profile.injector.Pick(c.pattern, taken)
		if pattern == nil {
			return what, request
		}
		picked.pattern, picked.configuration = pattern, configuration(c.profile.injector, pattern)
	}
	c.outcome.picked = &picked.effectiveSpec
	return d.build(&picked, applied), d.input(&picked, applied)
}

// portsTaken tells whether a port of a Fragment is taken.
func portsTaken(taken injectors.Taken, fragment *weave.Fragment) bool {
	return slices.ContainsFunc(fragment.AllPorts(), func(port weave.Port) bool { return taken(port.Port, port.Protocol) })
}

func (d *decider) input(c *candidate, applied map[string]*candidate) injectors.Request {
	patterns := make(map[string]*v1alpha1.Pattern, len(applied))
	for name, other := range applied {
		if c.profile.mayMean(other.profile) {
			patterns[name] = other.pattern
		}
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
		memorable = memorable && i == 0 && source != nil && c.profile.mayMean(source.profile) && source.pattern == source.profile.Pattern
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
	result, problems := d.evaluate(c)
	if len(problems) > 0 {
		return &added{problems: problems}
	}
	if c.bound != c.profile.bound {
		return d.build(c, nil)
	}
	key := fragmentKey{profile: c.profile, hardening: d.hardening, result: sha256.Sum256([]byte(result.Key()))}
	return d.snapshot.memory.remembered(key, func() *added { return newAdded(result.Fragment(d.hardening)) })
}

// evaluate evaluates the expressions of a candidate's custom pattern: once for a request, as what they see is the same however often
// the Pod is looked at, but for ports that were picked.
func (d *decider) evaluate(c *candidate) (*injectors.CustomResult, []weave.Problem) {
	known, ok := d.shared.evaluated[c.profile]
	if !ok || c.isPicked {
		known.result, known.problems = c.bound.EvaluateWithin(d.shared.of(c.profile), d.podView(), d.namespaceView())
		if !c.isPicked {
			d.shared.evaluated[c.profile] = known
		}
	}
	return known.result, known.problems
}

// build makes what the candidate adds, for this Pod alone.
func (d *decider) build(c *candidate, applied map[string]*candidate) *added {
	if c.bound == nil {
		return &added{fragment: injectors.Build(c.profile.injector, d.input(c, applied), d.hardening)}
	}
	result, problems := d.evaluate(c)
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
