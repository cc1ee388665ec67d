package profiles

import (
	"slices"
	"strings"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// order returns names so that those that are first come before the others, every profile after those that it waits for, and otherwise
// as they were. waitsFor tells what a profile waits for; names that are not among those to be ordered do not count, nor, for what is first,
// those that are not. Profiles that wait for each other in a circle come last among their like.
func order(names []string, isFirst map[string]bool, waitsFor map[string][]string) []string {
	remaining := slices.Clone(names)
	ordered := make([]string, 0, len(remaining))
	for _, first := range []bool{true, false} {
		isDue := func(name string) bool {
			return isFirst[name] == first && !slices.ContainsFunc(waitsFor[name], func(other string) bool {
				return other != name && isFirst[other] == first && slices.Contains(remaining, other)
			})
		}
		for {
			next := slices.IndexFunc(remaining, isDue)
			if next < 0 {
				break
			}
			ordered = append(ordered, remaining[next])
			remaining = slices.Delete(remaining, next, next+1)
		}
		remaining = slices.DeleteFunc(remaining, func(name string) bool {
			if isFirst[name] == first { // in a circle
				ordered = append(ordered, name)
			}
			return isFirst[name] == first
		})
	}
	return ordered
}

// override is one annotation that changes a field of a profile, of the Pod or of its namespace.
type override struct {
	key, path, value string
	// namespace is the one whose annotation it is; empty for the Pod's own.
	namespace string
}

// name is the annotation for people.
func (o *override) name() string {
	if o.namespace != "" {
		return shown(o.key) + " of namespace " + o.namespace
	}
	return shown(o.key)
}

// overridesOf returns the overrides among annotations, those of a namespace or of a Pod (""), by profile, each list sorted by its key.
func overridesOf(annotations map[string]string, namespace string) map[string][]override {
	var overrides map[string][]override
	for key, value := range annotations {
		profile, path, ok := v1alpha1.ParseOverrideKey(key)
		if !ok {
			continue
		}
		if overrides == nil {
			overrides = map[string][]override{}
		}
		overrides[profile] = append(overrides[profile], override{key, path, value, namespace})
	}
	for _, list := range overrides {
		slices.SortFunc(list, func(a, b override) int { return strings.Compare(a.key, b.key) })
	}
	return overrides
}

// over returns the namespace's overrides and then the Pod's own, which win: what both set is only the Pod's, and so is what lies in an
// object that the Pod sets as a whole.
func over(namespace, pod []override) []override {
	if len(namespace) == 0 {
		return pod
	}
	inherited := slices.DeleteFunc(slices.Clone(namespace), func(o override) bool {
		return slices.ContainsFunc(pod, func(own override) bool { return o.path == own.path || strings.HasPrefix(o.path, own.path+".") })
	})
	return append(inherited, pod...)
}
