package profiles

import (
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
	// live are profiles that were read from the API server after the Snapshot was made; they come first.
	live []*Profile
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
	for i, profile := range sorted {
		if errs := s.problemsAfter(profile); len(errs) > 0 {
			sorted[i] = profile.unusable(errs)
		}
	}
	for _, profile := range sorted {
		s.put(profile)
	}
	s.plan = NewPlan(sorted, options.ExcludedNamespaces)
	s.index(sorted)
	return s
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

// With returns a Snapshot that also has profiles that were read from the API server just now, ahead of what it had of their
// names. It is cheap: the rest is shared.
func (s *Snapshot) With(live ...*Profile) *Snapshot {
	if len(live) == 0 {
		return s
	}
	overlaid := *s
	overlaid.live = slices.Concat(live, s.live)
	overlaid.memory = newMemory() // the live ones are gone after this request, and must be forgotten with it
	return &overlaid
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
	for _, profile := range s.live {
		if profile.Namespace == namespace && profile.Name == name {
			return profile
		}
	}
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

// matched returns the profiles that choose a Pod by their match, sorted.
func (s *Snapshot) matched(namespace Namespace, podLabels map[string]string) []*Profile {
	matched := s.matching.matching(namespace.Labels, podLabels)
	for _, profile := range s.inside[namespace.Name] {
		if profile.match.matches(nil, podLabels) {
			matched = append(matched, profile)
		}
	}
	if len(s.live) > 0 {
		matched = s.replacedByLive(matched, namespace, podLabels)
	}
	slices.SortFunc(matched, byName)
	return matched
}

// replacedByLive returns the profiles that chose a Pod with those that were read live in place of what memory had of them.
func (s *Snapshot) replacedByLive(matched []*Profile, namespace Namespace, podLabels map[string]string) []*Profile {
	current := slices.DeleteFunc(matched, func(profile *Profile) bool { return s.find(profile.Namespace, profile.Name) != profile })
	for _, profile := range s.live {
		if profile.match == nil || s.find(profile.Namespace, profile.Name) != profile || slices.Contains(current, profile) {
			continue
		}
		inScope := profile.Namespace == "" || profile.Namespace == namespace.Name
		if inScope && profile.match.matches(namespace.Labels, podLabels) {
			current = append(current, profile)
		}
	}
	return current
}

func byName(a, b *Profile) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Namespace, b.Namespace)
}
