package profiles

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// matches tells whether the selectors choose a Pod. A selector that is absent chooses everything.
func (m *match) matches(namespaceLabels, podLabels map[string]string) bool {
	return (m.namespaces == nil || m.namespaces.Matches(labels.Set(namespaceLabels))) &&
		(m.pods == nil || m.pods.Matches(labels.Set(podLabels)))
}

// matchIndex finds the profiles whose match chooses a Pod without asking each of them: every profile is filed under one label
// that the Pod or its namespace must have, so that the cost does not grow with the profiles that do not match.
type matchIndex struct {
	byLabel map[label][]*Profile
	byKey   map[label][]*Profile // label.value is empty: the label must be there
	rest    []*Profile           // no label is required
}

// label is a label of a Pod or of its namespace.
type label struct {
	ofNamespace bool
	key, value  string
}

// newMatchIndex files each profile under the required label that the fewest others require.
func newMatchIndex(profiles []*Profile) matchIndex {
	index := matchIndex{byLabel: map[label][]*Profile{}, byKey: map[label][]*Profile{}}
	wanted := map[label]int{}
	for _, profile := range profiles {
		for _, alternatives := range profile.match.required() {
			for _, l := range alternatives {
				wanted[l]++
			}
		}
	}
	crowd := func(alternatives []label) int {
		most := 0
		for _, l := range alternatives {
			most = max(most, wanted[l])
		}
		return most
	}
	for _, profile := range profiles {
		var best []label
		for _, alternatives := range profile.match.required() {
			if best == nil || crowd(alternatives) < crowd(best) {
				best = alternatives
			}
		}
		index.file(profile, best)
	}
	return index
}

func (index *matchIndex) file(profile *Profile, under []label) {
	if under == nil {
		index.rest = append(index.rest, profile)
		return
	}
	for _, l := range under {
		if l.value == "" {
			index.byKey[l] = append(index.byKey[l], profile)
		} else {
			index.byLabel[l] = append(index.byLabel[l], profile)
		}
	}
}

// required returns, for every label that the match requires, the alternatives one of which must be there.
func (m *match) required() [][]label {
	var required [][]label
	collect := func(requirements labels.Requirements, ofNamespace bool) {
		for i := range requirements {
			requirement := &requirements[i]
			switch requirement.Operator() {
			case selection.Equals, selection.DoubleEquals, selection.In:
				var alternatives []label
				for value := range requirement.Values() {
					if value == "" { // a label may be there with an empty value: as good as its key
						alternatives = []label{{ofNamespace: ofNamespace, key: requirement.Key()}}
						break
					}
					alternatives = append(alternatives, label{ofNamespace, requirement.Key(), value})
				}
				required = append(required, alternatives)
			case selection.Exists, selection.GreaterThan, selection.LessThan:
				required = append(required, []label{{ofNamespace: ofNamespace, key: requirement.Key()}})
			default: // NotIn and DoesNotExist require nothing that is there
			}
		}
	}
	collect(m.namespaceRequirements, true)
	collect(m.podRequirements, false)
	return required
}

// matching returns the profiles whose match chooses a Pod, in no particular order, each once.
func (index *matchIndex) matching(namespaceLabels, podLabels map[string]string) []*Profile {
	var matching []*Profile
	consider := func(profiles []*Profile) {
		for _, profile := range profiles {
			if profile.match.matches(namespaceLabels, podLabels) {
				matching = append(matching, profile)
			}
		}
	}
	consider(index.rest)
	for _, side := range []struct {
		ofNamespace bool
		labels      map[string]string
	}{{true, namespaceLabels}, {false, podLabels}} {
		for key, value := range side.labels {
			consider(index.byKey[label{ofNamespace: side.ofNamespace, key: key}])
			if value != "" {
				consider(index.byLabel[label{side.ofNamespace, key, value}])
			}
		}
	}
	return matching
}
