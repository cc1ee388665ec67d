package profiles

import (
	"slices"
	"strings"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// order returns names so that every profile comes after those that it reads from, and otherwise by name. sources tells what a
// profile reads from; names that are not among those to be ordered do not count. Profiles that read from each other in a
// circle come last, by name.
func order(names []string, sources map[string][]string) []string {
	remaining := slices.Sorted(slices.Values(names))
	ordered := make([]string, 0, len(remaining))
	for len(remaining) > 0 {
		next := slices.IndexFunc(remaining, func(name string) bool {
			return !slices.ContainsFunc(sources[name], func(source string) bool {
				return source != name && slices.Contains(remaining, source)
			})
		})
		if next < 0 {
			return append(ordered, remaining...)
		}
		ordered = append(ordered, remaining[next])
		remaining = slices.Delete(remaining, next, next+1)
	}
	return ordered
}

// override is one annotation that changes a field of a profile.
type override struct {
	key, path, value string
}

// overridesOf returns the overrides among annotations by profile, each list sorted by its key.
func overridesOf(annotations map[string]string) map[string][]override {
	var overrides map[string][]override
	for key, value := range annotations {
		profile, path, ok := v1alpha1.ParseOverrideKey(key)
		if !ok {
			continue
		}
		if overrides == nil {
			overrides = map[string][]override{}
		}
		overrides[profile] = append(overrides[profile], override{key, path, value})
	}
	for _, list := range overrides {
		slices.SortFunc(list, func(a, b override) int { return strings.Compare(a.key, b.key) })
	}
	return overrides
}
