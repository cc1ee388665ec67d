package profiles

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// problemsAfter returns what is wrong with the profile's after beside the other profiles: names that nothing has, and circles.
func (s *Snapshot) problemsAfter(profile *Profile) field.ErrorList {
	if len(profile.Problems) > 0 || len(profile.after) == 0 {
		return nil
	}
	problems := s.circles(profile)
	path := field.NewPath("spec", "after")
	for i, name := range profile.after {
		if s.meant(profile.Namespace, name) == nil {
			problems = append(problems, field.NotFound(path.Index(i), name))
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

// circles finds the names in a profile's after that lead back to it.
func (s *Snapshot) circles(profile *Profile) field.ErrorList {
	var problems field.ErrorList
	for i, name := range profile.after {
		if way := s.way(profile.Namespace, name, profile, map[*Profile]bool{}); way != nil {
			problems = append(problems, field.Invalid(field.NewPath("spec", "after").Index(i), name, fmt.Sprintf(
				"leads back to the profile itself (%s after %s); remove one of these", profile.Name, strings.Join(way, " after "))))
		}
	}
	return problems
}

// way returns the names that lead by after from what a name means in a namespace to a profile; nil if there is no way.
func (s *Snapshot) way(namespace, name string, to *Profile, seen map[*Profile]bool) []string {
	if name == to.Name && namespace == to.Namespace {
		return []string{name}
	}
	profile := s.meant(namespace, name)
	if profile == nil || seen[profile] {
		return nil
	}
	seen[profile] = true
	for _, next := range profile.after {
		if way := s.way(profile.Namespace, next, to, seen); way != nil {
			return append([]string{name}, way...)
		}
	}
	return nil
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
	problems = s.circles(profile)
	for _, name := range profile.after {
		if s.meant(profile.Namespace, name) == nil {
			warnings = append(warnings, fmt.Sprintf(
				"spec.after names %s, which no profile has yet: until there is one, this profile is not ready", name))
		}
	}
	return problems, warnings
}
