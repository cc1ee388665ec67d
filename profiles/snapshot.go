package profiles

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// Options are the settings of an installation that decisions depend on.
type Options struct {
	// Images are the images of the patterns' programs.
	Images injectors.Images

	// ExcludedNamespaces are never touched, whatever their labels or their Pods' annotations say.
	ExcludedNamespaces []string

	Weave weave.Options

	// PodSecurity is how what is added is held to the Pod Security Standards.
	PodSecurity PodSecurity
}

// Namespace is what decisions know of a Pod's namespace. It must not be changed.
type Namespace struct {
	Name                string
	Labels, Annotations map[string]string
}

// Snapshot is the profiles of a cluster at one moment. It is immutable: a request reads it once, and whatever changes
// makes another.
type Snapshot struct {
	options    Options
	cluster    map[string]*Profile
	namespaced map[string]map[string]*Profile // by namespace and name
	matching   matchIndex                     // ClusterPatternProfiles with match
	inside     map[string][]*Profile          // PatternProfiles with match, by namespace
	enforces   bool                           // some profile does
	plan       *Plan
	security   *podSecurity
	// given are the profiles that it was made of.
	given []*Profile
	// readers are the names of the profiles that read from one, by its namespace and name.
	readers map[[2]string][]string
	// memory remembers what profiles add. Nothing but the time that a decision takes depends on it.
	memory *memory
}

// NewSnapshot returns a Snapshot of profiles, in any order. The cost is linear in their number, with no compilation.
func NewSnapshot(options Options, profiles []*Profile) *Snapshot {
	s := &Snapshot{
		options:    options,
		cluster:    map[string]*Profile{},
		namespaced: map[string]map[string]*Profile{},
		inside:     map[string][]*Profile{},
		security:   newPodSecurity(options.PodSecurity),
		memory:     newMemory(),
	}
	sorted := slices.SortedFunc(slices.Values(profiles), byName)
	for _, profile := range sorted {
		s.put(profile)
	}
	s.given = slices.Clone(sorted)
	s.findReaders(sorted)
	for i, profile := range sorted {
		if profile.ended != nil && len(s.Readers(profile)) > 0 {
			sorted[i] = profile.stillRead()
			s.put(sorted[i])
		}
	}
	problems := s.problemsBesides(sorted)
	for i, profile := range sorted {
		if errs := problems[profile]; len(errs) > 0 {
			sorted[i] = profile.unusable(errs)
			s.put(sorted[i])
		}
	}
	s.plan = NewPlan(sorted, options.ExcludedNamespaces)
	s.index(sorted)
	return s
}

// findReaders finds who reads from whom.
func (s *Snapshot) findReaders(profiles []*Profile) {
	s.readers = map[[2]string][]string{}
	for _, profile := range profiles {
		if profile.Deleted {
			continue
		}
		for _, name := range profile.sources() {
			if source := s.meant(profile.Namespace, name); source != nil && source != profile {
				key := [2]string{source.Namespace, source.Name}
				s.readers[key] = append(s.readers[key], profile.Scope())
			}
		}
	}
}

// Readers returns which profiles that are not deleted read from one, for people and sorted by their names.
func (s *Snapshot) Readers(profile *Profile) []string {
	return s.readers[[2]string{profile.Namespace, profile.Name}]
}

// put files a profile under its name.
func (s *Snapshot) put(profile *Profile) {
	if profile.Namespace == "" {
		s.cluster[profile.Name] = profile
		return
	}
	if s.namespaced[profile.Namespace] == nil {
		s.namespaced[profile.Namespace] = map[string]*Profile{}
	}
	s.namespaced[profile.Namespace][profile.Name] = profile
}

// index files the profiles whose match chooses Pods. A match that gets no entry chooses none, whoever calls.
func (s *Snapshot) index(profiles []*Profile) {
	var matching []*Profile
	for _, profile := range profiles {
		if profile.match == nil {
			continue
		}
		if selection, _ := s.plan.Of(profile); selection == nil {
			continue
		}
		s.enforces = s.enforces || profile.match.enforce
		if profile.Namespace == "" {
			matching = append(matching, profile)
		} else {
			s.inside[profile.Namespace] = append(s.inside[profile.Namespace], profile)
		}
	}
	s.matching = newMatchIndex(matching)
}

// Profile returns the profile that serves under a name: a PatternProfile of a namespace, or a ClusterPatternProfile where that is
// empty. nil if there is none.
func (s *Snapshot) Profile(namespace, name string) *Profile { return s.find(namespace, name) }

// Plan returns which Pods the API server has to send for the profiles' match.
func (s *Snapshot) Plan() *Plan { return s.plan }

// With returns a Snapshot that also has profiles that were read from the API server just now, in place of what it had of their names.
// Each may be one that others wait for, or that gets or takes an entry: all are looked at together again.
func (s *Snapshot) With(live ...*Profile) *Snapshot {
	if len(live) == 0 {
		return s
	}
	isLive := map[[2]string]bool{}
	for _, profile := range live {
		isLive[[2]string{profile.Namespace, profile.Name}] = true
	}
	given := slices.DeleteFunc(slices.Clone(s.given), func(p *Profile) bool { return isLive[[2]string{p.Namespace, p.Name}] })
	return NewSnapshot(s.options, append(given, live...))
}

// Len returns the number of profiles.
func (s *Snapshot) Len() int {
	n := len(s.cluster)
	for _, profiles := range s.namespaced {
		n += len(profiles)
	}
	return n
}

// asked returns the profile that a Pod of a namespace means by a name: the namespace's own, else the cluster's if it may use
// that. nil if there is none; the caller must not tell the two apart.
func (s *Snapshot) asked(namespace Namespace, name string) *Profile {
	if profile := s.find(namespace.Name, name); profile != nil {
		return profile
	}
	if profile := s.find("", name); profile != nil && profile.Allows(namespace) {
		return profile
	}
	return nil
}

func (s *Snapshot) find(namespace, name string) *Profile {
	if namespace == "" {
		return s.cluster[name]
	}
	return s.namespaced[namespace][name]
}

// usable returns the names that Pods of a namespace may ask for, sorted.
func (s *Snapshot) usable(namespace Namespace) []string {
	var names []string
	for name, profile := range s.cluster {
		if profile.Allows(namespace) {
			names = append(names, name)
		}
	}
	for name := range s.namespaced[namespace.Name] {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// matched returns the profiles that choose a Pod by their match: those that enforce first, for what expressions cost in all is bounded,
// then the cluster's, and by their names.
func (s *Snapshot) matched(namespace Namespace, podLabels map[string]string) []*Profile {
	matched := s.matching.matching(namespace.Labels, podLabels)
	for _, profile := range s.inside[namespace.Name] {
		if profile.match.matches(nil, podLabels) {
			matched = append(matched, profile)
		}
	}
	slices.SortFunc(matched, func(a, b *Profile) int {
		return cmp.Or(first(a.match.enforce, b.match.enforce), first(a.Namespace == "", b.Namespace == ""), byName(a, b))
	})
	return matched
}

// first compares so that what is true comes first.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

func byName(a, b *Profile) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Namespace, b.Namespace)
}
