package profiles

import (
	"slices"
	"strings"
	"sync"

	"github.com/pillion-dev/pillion/api/v1alpha1"
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
}

// Namespace is what decisions know of a Pod's namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Snapshot is the profiles of a cluster at one moment. It is immutable: a request reads it once, and whatever changes
// makes another.
type Snapshot struct {
	options    Options
	cluster    map[string]*Profile
	namespaced map[string]map[string]*Profile // by namespace and name
	matching   matchIndex                     // ClusterPatternProfiles with match
	inside     map[string][]*Profile          // PatternProfiles with match, by namespace
	// live are profiles that were read from the API server after the Snapshot was made; they come first.
	live []*Profile
	// fragments remember what profiles add, which is the same for most Pods. Nothing but the time that a decision takes depends
	// on them.
	fragments *sync.Map // *weave.Fragment by fragmentKey
}

// fragmentKey is all that what a profile adds depends on, beside the Snapshot's options.
type fragmentKey struct {
	profile   *Profile
	source    *v1alpha1.Pattern // of the profile that it reads from; nil: it reads from none
	hardening injectors.Hardening
}

// NewSnapshot returns a Snapshot of profiles, in any order. The cost is linear in their number, with no compilation.
func NewSnapshot(options Options, profiles []*Profile) *Snapshot {
	s := &Snapshot{
		options:    options,
		cluster:    map[string]*Profile{},
		namespaced: map[string]map[string]*Profile{},
		inside:     map[string][]*Profile{},
		fragments:  &sync.Map{},
	}
	sorted := slices.SortedFunc(slices.Values(profiles), byName)
	var matching []*Profile
	for _, profile := range sorted {
		if profile.Namespace == "" {
			s.cluster[profile.Name] = profile
			if profile.match != nil {
				matching = append(matching, profile)
			}
			continue
		}
		if s.namespaced[profile.Namespace] == nil {
			s.namespaced[profile.Namespace] = map[string]*Profile{}
		}
		s.namespaced[profile.Namespace][profile.Name] = profile
		if profile.match != nil {
			s.inside[profile.Namespace] = append(s.inside[profile.Namespace], profile)
		}
	}
	s.matching = newMatchIndex(matching)
	return s
}

// With returns a Snapshot that also has profiles that were read from the API server just now, ahead of what it had of their
// names. It is cheap: the rest is shared.
func (s *Snapshot) With(live ...*Profile) *Snapshot {
	if len(live) == 0 {
		return s
	}
	overlaid := *s
	overlaid.live = slices.Concat(live, s.live)
	overlaid.fragments = &sync.Map{} // the live ones are gone after this request, and must be forgotten with it
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
