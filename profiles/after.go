package profiles

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxToldCircle is the largest circle of profiles that is told name by name.
const maxToldCircle = 16

// problemsBesides returns what is wrong with profiles that can be used by themselves, beside each other: names in after that nothing
// has, circles, and what is enforced but comes after what is not, or reads from it. The cost is linear in all that they name.
func (s *Snapshot) problemsBesides(profiles []*Profile) map[*Profile]field.ErrorList {
	circles := circlesOf(profiles, s.meantAfter)
	problems := map[*Profile]field.ErrorList{}
	for _, profile := range profiles {
		if len(profile.Problems) > 0 {
			continue
		}
		found := slices.Concat(s.toldCircles(profile, circles), s.unenforced(profile))
		for i, name := range profile.after {
			if s.meant(profile.Namespace, name) == nil {
				found = append(found, field.NotFound(field.NewPath("spec", "after").Index(i), name))
			}
		}
		if len(found) > 0 {
			problems[profile] = found
		}
	}
	return problems
}

// meant returns the profile that a name in after means: in a namespace its own, else the cluster's.
func (s *Snapshot) meant(namespace, name string) *Profile {
	if namespace != "" {
		if profile := s.namespaced[namespace][name]; profile != nil {
			return profile
		}
	}
	return s.cluster[name]
}

// meantAfter returns the profiles that a profile comes after.
func (s *Snapshot) meantAfter(profile *Profile) []*Profile {
	meant := make([]*Profile, 0, len(profile.after))
	for _, name := range profile.after {
		if other := s.meant(profile.Namespace, name); other != nil {
			meant = append(meant, other)
		}
	}
	return meant
}

// toldCircles finds the names in a profile's after that lead back to it: those of profiles in the same circle.
func (s *Snapshot) toldCircles(profile *Profile, circles map[*Profile][]*Profile) field.ErrorList {
	circle := circles[profile]
	if len(circle) == 0 {
		return nil
	}
	var problems field.ErrorList
	for i, name := range profile.after {
		other := s.meant(profile.Namespace, name)
		if other == nil || len(circles[other]) == 0 || &circles[other][0] != &circle[0] { // another circle, or none
			continue
		}
		through := fmt.Sprintf("through some of %d profiles that come after each other", len(circle))
		if len(circle) <= maxToldCircle {
			through = profile.Name + " after " + strings.Join(s.way(other, profile, map[*Profile]bool{}), " after ")
		}
		problems = append(problems, field.Invalid(field.NewPath("spec", "after").Index(i), name,
			fmt.Sprintf("leads back to the profile itself (%s); remove one of these", through)))
	}
	return problems
}

// way returns the names that lead by after from one profile to another; nil if there is no way.
func (s *Snapshot) way(from, to *Profile, seen map[*Profile]bool) []string {
	if from == to {
		return []string{to.Name}
	}
	if seen[from] {
		return nil
	}
	seen[from] = true
	for _, next := range s.meantAfter(from) {
		if way := s.way(next, to, seen); way != nil {
			return append([]string{from.Name}, way...)
		}
	}
	return nil
}

// circlesOf returns, for each profile that leads back to itself, all that are in its circles: what each of them leads to and is led to
// by, which are its strongly connected component in the graph (R. Tarjan, Depth-first search and linear graph algorithms, 1972).
func circlesOf(profiles []*Profile, next func(*Profile) []*Profile) map[*Profile][]*Profile {
	search := circleSearch{next: next, number: map[*Profile]int{}, low: map[*Profile]int{}, open: map[*Profile]bool{}, circles: map[*Profile][]*Profile{}}
	for _, profile := range profiles {
		if search.number[profile] == 0 {
			search.visit(profile)
		}
	}
	return search.circles
}

// circleSearch is one depth-first search.
type circleSearch struct {
	next        func(*Profile) []*Profile
	number, low map[*Profile]int // from 1, in the order of the visits
	stack       []*Profile
	open        map[*Profile]bool // those on the stack
	circles     map[*Profile][]*Profile
}

func (c *circleSearch) visit(profile *Profile) {
	c.number[profile] = len(c.number) + 1
	c.low[profile] = c.number[profile]
	c.stack, c.open[profile] = append(c.stack, profile), true
	for _, next := range c.next(profile) {
		switch {
		case c.number[next] == 0:
			c.visit(next)
			c.low[profile] = min(c.low[profile], c.low[next])
		case c.open[next]:
			c.low[profile] = min(c.low[profile], c.number[next])
		}
	}
	if c.low[profile] < c.number[profile] {
		return
	}
	var circle []*Profile
	for len(circle) == 0 || circle[len(circle)-1] != profile {
		top := len(c.stack) - 1
		circle = append(circle, c.stack[top])
		c.stack = c.stack[:top]
	}
	for _, member := range circle {
		delete(c.open, member)
		if len(circle) > 1 {
			c.circles[member] = circle
		}
	}
}

// unenforced finds what an enforcing profile depends on and what is not enforced: what is enforced starts before what is not, and is
// to be as it is whatever else the Pod has.
func (s *Snapshot) unenforced(profile *Profile) field.ErrorList {
	if !profile.enforces() {
		return nil
	}
	var problems field.ErrorList
	for i, name := range profile.after {
		if other := s.meant(profile.Namespace, name); other != nil && !other.enforces() {
			problems = append(problems, field.Invalid(field.NewPath("spec", "after").Index(i), name,
				"is not enforced, and what is enforced starts before what is not: enforce it as well, or remove it"))
		}
	}
	for _, name := range profile.sources() {
		if other := s.meant(profile.Namespace, name); other != nil && !other.enforces() {
			problems = append(problems, field.Invalid(field.NewPath("spec", "match", "enforce"), true, fmt.Sprintf(
				"the pattern reads from profile %s, which is not enforced, so that Pods could give it other files: enforce it as well", name)))
		}
	}
	return problems
}

// enforces tells whether the profile's match does.
func (p *Profile) enforces() bool { return p.match != nil && p.match.enforce }

// sources returns the names of the profiles that the profile's pattern reads from.
func (p *Profile) sources() []string {
	if p.Pattern == nil || p.injector.Sources == nil {
		return nil
	}
	return p.injector.Sources(p.Pattern)
}

// unusable returns what serves in place of a profile that cannot be used beside the others: the last good one, or the profile with its
// problems.
func (p *Profile) unusable(problems field.ErrorList) *Profile {
	if p.lastGood != nil {
		return p.lastGood.insteadOf(problems)
	}
	if len(p.Broken) > 0 { // it is the last good one already
		return p
	}
	refused := *p
	refused.Problems = problems
	return &refused
}

// Review says what is wrong with a profile that is to be stored, beside those that there are: problems, and warnings of what may yet be
// mended by other profiles.
func (s *Snapshot) Review(profile *Profile) (problems field.ErrorList, warnings []string) {
	problems = slices.Concat(profile.Broken, profile.Problems)
	if len(problems) > 0 {
		return problems, nil
	}
	beside := s.beside(profile)
	circles := circlesOf([]*Profile{profile}, beside.meantAfter)
	problems = slices.Concat(beside.toldCircles(profile, circles), beside.unenforced(profile))
	for _, name := range profile.after {
		if beside.meant(profile.Namespace, name) == nil {
			warnings = append(warnings, fmt.Sprintf(
				"spec.after names %s, which no profile has yet: until there is one, this profile is not ready", name))
		}
	}
	return problems, warnings
}

// beside returns the profiles by their names, with one more or in place of that of its name.
func (s *Snapshot) beside(profile *Profile) *Snapshot {
	beside := &Snapshot{cluster: s.cluster, namespaced: s.namespaced}
	if profile.Namespace == "" {
		beside.cluster = maps.Clone(s.cluster)
	} else {
		beside.namespaced = maps.Clone(s.namespaced)
		beside.namespaced[profile.Namespace] = maps.Clone(s.namespaced[profile.Namespace])
	}
	beside.put(profile)
	return beside
}
