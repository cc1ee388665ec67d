package profiles

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// What a pattern requires may be left to the Pods that get a profile: it is absent there, and listed in overridable.

// givenByNobody finds what patterns of a spec require, and neither the profile nor any Pod could give.
func (c *Compiler) givenByNobody(spec map[string]any) field.ErrorList {
	listed, _ := spec["overridable"].([]any)
	var errs field.ErrorList
	for i := range c.injectors {
		injector := &c.injectors[i]
		pattern, ok := spec[injector.Field].(map[string]any)
		if !ok {
			continue
		}
		for _, required := range injector.Required {
			_, isSet := pattern[required.Field]
			isListed := slices.ContainsFunc(listed, func(path any) bool {
				text, _ := path.(string)
				return isWithin(text, required.Field)
			})
			if !isSet && !isListed {
				errs = append(errs, field.Required(field.NewPath("spec", injector.Field, required.Field),
					c.required[injector.Field+"."+required.Field]))
			}
		}
	}
	return errs
}

// absentFrom returns what the pattern requires and a document of it lacks.
func (p *Profile) absentFrom(document map[string]any) []injectors.Required {
	var absent []injectors.Required
	for _, required := range p.injector.Required {
		if _, isSet := document[required.Field]; !isSet {
			absent = append(absent, required)
		}
	}
	return absent
}

// notGiven says what the profile leaves to Pods, and neither this one nor its namespace gives.
func (p *Profile) notGiven(document map[string]any, overrides []override) []weave.Problem {
	if len(p.left) == 0 {
		return nil
	}
	var problems []weave.Problem
	for _, required := range p.absentFrom(document) {
		if slices.ContainsFunc(overrides, func(o override) bool { return isWithin(o.path, required.Field) }) {
			continue // that it is wrong is told
		}
		path, example := p.givenBy(&required)
		instead := "write the annotation " + v1alpha1.OverrideKey(p.Name, path)
		if example != "" {
			instead += fmt.Sprintf(", for example %s: %s", v1alpha1.OverrideKey(p.Name, path), example)
		}
		problems = append(problems, weave.Problem{Reason: injectors.ReasonParameterRequired, Message: fmt.Sprintf(
			"profile %s leaves %s to Pods, and neither this Pod nor its namespace gives it: %s", p.Name, required.Field, instead)})
	}
	return problems
}

// givenBy returns the path by which a Pod gives most simply what the profile leaves to it, and a value if one can be said.
func (p *Profile) givenBy(required *injectors.Required) (path, example string) {
	if p.mayOverride(required.Path) {
		return required.Path, required.Example
	}
	for _, listed := range p.overridable {
		if isWithin(listed, required.Field) {
			return listed, ""
		}
	}
	return required.Field, "" // of a profile that can be used one is listed
}

// ordinary returns overrides by which a Pod gives ordinary values for what the profile leaves to it, as far as some are known.
func (p *Profile) ordinary() []override {
	var given []override
	for i := range p.left {
		if path, example := p.givenBy(&p.left[i]); example != "" {
			given = append(given, override{key: v1alpha1.OverrideKey(p.Name, path), path: path, value: example})
		}
	}
	return given
}

// Left returns the fields that the profile leaves to Pods: the paths of annotations by which these give them most simply.
func (p *Profile) Left() []string {
	paths := make([]string, len(p.left))
	for i := range p.left {
		paths[i], _ = p.givenBy(&p.left[i])
	}
	return paths
}

// isWithin tells whether a path is that of a field, or of one in it.
func isWithin(path, field string) bool { return path == field || strings.HasPrefix(path, field+".") }
