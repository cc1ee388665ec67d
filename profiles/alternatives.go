package profiles

import (
	"regexp"
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"github.com/pillion-dev/pillion/weave"
)

// alternatives are fields of one object of which exactly one is set, by the object's path: the root's is empty.
type alternatives map[string][]string

// exactlyOne is the rule that controller-gen makes of the marker ExactlyOneOf. A test finds out if it makes another.
var (
	exactlyOne = regexp.MustCompile(`^(\(has\(self\.[A-Za-z0-9]+\)\?1:0\)\+?)+ == 1$`)
	member     = regexp.MustCompile(`has\(self\.([A-Za-z0-9]+)\)`)
)

// alternativesOf finds the alternatives of a schema that annotations can name: none are in lists, which are overridden as a whole.
func alternativesOf(at *structuralschema.Structural) alternatives {
	found := alternatives{}
	var walk func(path string, at *structuralschema.Structural)
	walk = func(path string, at *structuralschema.Structural) {
		for _, rule := range at.XValidations {
			if exactlyOne.MatchString(rule.Rule) {
				for _, match := range member.FindAllStringSubmatch(rule.Rule, -1) {
					found[path] = append(found[path], match[1])
				}
			}
		}
		for name := range at.Properties {
			property := at.Properties[name]
			walk(strings.TrimPrefix(path+"."+name, "."), &property)
		}
	}
	walk("", at)
	return found
}

// overrideAll sets what a Pod and its namespace change of a document, and returns what cannot be.
func (p *Profile) overrideAll(document map[string]any, overrides []override) []weave.Problem {
	var problems []weave.Problem
	for i := range overrides { // the namespace's come first
		if p.mayOverride(overrides[i].path) {
			p.displace(document, &overrides[i], overrides)
		}
		if problem := p.override(document, overrides[i]); problem != nil {
			problems = append(problems, *problem)
		}
	}
	return problems
}

// displace takes out of a document what an override takes the place of, where one of several fields alone can be set: who may set json
// may do so where the profile says statsd. What is set in the same place, the Pod or its namespace, is left, and found to be too much.
func (p *Profile) displace(document map[string]any, by *override, overrides []override) {
	at, path := document, ""
	for name := range strings.SplitSeq(by.path, ".") {
		if among := p.schema.alternatives[path]; slices.Contains(among, name) {
			for _, other := range among {
				otherPath := strings.TrimPrefix(path+"."+other, ".")
				if other != name && !slices.ContainsFunc(overrides, func(o override) bool {
					return o.namespace == by.namespace && isWithin(o.path, otherPath)
				}) {
					delete(at, other)
				}
			}
		}
		path = strings.TrimPrefix(path+"."+name, ".")
		next, ok := at[name].(map[string]any)
		if !ok {
			return
		}
		at = next
	}
}
