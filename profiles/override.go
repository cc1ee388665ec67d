package profiles

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// effectiveSpec is what a profile means for one Pod.
type effectiveSpec struct {
	pattern       *v1alpha1.Pattern
	revision      string
	configuration string                 // see injectors.Injector
	bound         *injectors.BoundCustom // of a custom pattern
}

// effective returns the spec with the overrides of a Pod and its namespace. It is held to the same schema as the profile itself, so
// that an annotation can never say what a profile could not. All problems are reported.
func (p *Profile) effective(overrides []override) (effectiveSpec, []weave.Problem) {
	if p.custom != nil {
		return p.effectiveCustom(overrides)
	}
	if len(overrides) == 0 && len(p.left) == 0 {
		return effectiveSpec{pattern: p.Pattern, revision: p.Revision, configuration: p.configuration}, nil
	}
	document := map[string]any{}
	if err := utiljson.Unmarshal(p.document, &document); err != nil { // it was encoded by us
		return effectiveSpec{}, []weave.Problem{{Reason: ReasonInvalidOverride, Message: err.Error()}}
	}
	problems := append(p.overrideAll(document, overrides), p.notGiven(document, overrides)...)
	if len(problems) > 0 {
		return effectiveSpec{}, problems
	}
	pattern, errs := p.decode(document)
	for _, err := range errs {
		problems = append(problems, weave.Problem{
			Reason:  ReasonInvalidOverride,
			Message: fmt.Sprintf("profile %s with %s is not valid: %s", p.Name, annotationNames(overrides), err.Error()),
		})
	}
	if len(problems) > 0 {
		return effectiveSpec{}, problems
	}
	return effectiveSpec{
		pattern: pattern, revision: revision(p.injector.Field, canonicalJSON(p.injector.Field, pattern)), configuration: configuration(p.injector, pattern),
	}, nil
}

// effectiveCustom returns a custom pattern with the parameters that a Pod and its namespace give. All problems are reported.
func (p *Profile) effectiveCustom(overrides []override) (effectiveSpec, []weave.Problem) {
	effective := effectiveSpec{pattern: p.Pattern, revision: p.Revision, bound: p.bound}
	if len(overrides) == 0 && p.bound != nil {
		return effective, nil
	}
	var problems []weave.Problem
	given := map[string]any{}
	for _, override := range overrides {
		if problem := p.notOverridable(override); problem != nil {
			problems = append(problems, *problem)
			continue
		}
		err := injectors.CheckText(override.value)
		if err == nil {
			given[override.path], err = p.custom.Parse(override.path, override.value)
		}
		if err != nil {
			problems = append(problems, weave.Problem{
				Reason: ReasonInvalidOverride, Message: fmt.Sprintf("annotation %s: %v", override.name(), err),
			})
		}
	}
	if len(problems) > 0 {
		return effectiveSpec{}, problems
	}
	if effective.bound, problems = p.custom.Bind(given); len(problems) > 0 {
		return effectiveSpec{}, problems
	}
	if values := valuesOf(effective.bound); len(given) > 0 && (p.bound == nil || !bytes.Equal(values, valuesOf(p.bound))) {
		effective.revision = revision(p.injector.Field, slices.Concat(p.document, values))
	}
	return effective, nil
}

// longestPath is how long a path may be in the key of an annotation.
const longestPath = 63

// valuesOf returns the values of a custom pattern's parameters as JSON.
func valuesOf(bound *injectors.BoundCustom) []byte {
	values, _ := json.Marshal(bound.Values()) // of strings, integers and booleans
	return values
}

// notOverridable says why a Pod may not change a field; nil if it may.
func (p *Profile) notOverridable(override override) *weave.Problem {
	if p.mayOverride(override.path) {
		return nil
	}
	allowed := "it allows none to be changed"
	if len(p.overridable) > 0 {
		allowed = "it allows " + strings.Join(p.overridable, ", ")
	}
	end := "."
	if len(override.path) <= longestPath && !p.has(override.path) {
		end = cmp.Or(Suggest(override.path, p.overridable), end)
	}
	return &weave.Problem{Reason: ReasonFieldNotOverridable, Message: fmt.Sprintf(
		"annotation %s: profile %s does not let Pods change %s; %s%s Remove the annotation, or ask whoever owns the profile "+
			"to list the field in spec.overridable", override.name(), p.Name, shown(override.path), allowed, end)}
}

// override sets one field in the document, or says why not.
func (p *Profile) override(document map[string]any, override override) *weave.Problem {
	if problem := p.notOverridable(override); problem != nil {
		return problem
	}
	value, err := p.parse(override)
	if err == nil {
		err = setAt(document, strings.Split(override.path, "."), value)
	}
	if err != nil {
		return &weave.Problem{Reason: ReasonInvalidOverride, Message: fmt.Sprintf("annotation %s: %v", override.name(), err)}
	}
	return nil
}

// has tells whether there is such a field or parameter, whoever may change it.
func (p *Profile) has(path string) bool {
	if p.custom != nil {
		return slices.ContainsFunc(p.Pattern.Custom.Parameters, func(declared v1alpha1.Parameter) bool { return declared.Name == path })
	}
	_, err := p.schema.typeAt(path)
	return err == nil
}

// mayOverride tells whether a field, or an object that it lies in, is listed.
func (p *Profile) mayOverride(path string) bool {
	return slices.ContainsFunc(p.overridable, func(listed string) bool {
		return path == listed || strings.HasPrefix(path, listed+".")
	})
}

// parse decodes an annotation's value as the field's type wants: a string field takes it literally, others are JSON.
func (p *Profile) parse(override override) (any, error) {
	if err := injectors.CheckText(override.value); err != nil {
		return nil, err
	}
	at, err := p.schema.typeAt(override.path)
	if err != nil {
		return nil, err
	}
	if at.Type == "string" || at.XIntOrString {
		return override.value, nil
	}
	var value any
	if err := utiljson.Unmarshal([]byte(override.value), &value); err != nil || value == nil {
		return nil, fmt.Errorf("%q is not %s", shorten(override.value), example(at))
	}
	return value, checkTexts(value)
}

// checkTexts is injectors.CheckText for all strings of a JSON value, which may be written as escapes.
func checkTexts(value any) error {
	switch value := value.(type) {
	case string:
		return injectors.CheckText(value)
	case []any:
		for _, element := range value {
			if err := checkTexts(element); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, element := range value {
			if err := injectors.CheckText(key); err != nil {
				return err
			}
			if err := checkTexts(element); err != nil {
				return err
			}
		}
	}
	return nil
}

// example says what a field that is not a string takes.
func example(at *structuralschema.Structural) string {
	switch at.Type {
	case "boolean":
		return "a boolean; write true or false"
	case "integer":
		return "an integer; write a number, for example 10"
	case "array":
		return `a JSON array; write it as in ["a", "b"]`
	default:
		return `a JSON object; write it as in {"key": "value"}`
	}
}

// setAt sets a value at a path of objects, which are made where they are absent.
func setAt(document map[string]any, path []string, value any) error {
	for _, name := range path[:len(path)-1] {
		next, there := document[name]
		if !there {
			next = map[string]any{}
			document[name] = next
		}
		object, ok := next.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is not an object", name)
		}
		document = object
	}
	document[path[len(path)-1]] = value
	return nil
}

// decode applies the pattern's schema to a document, which is changed, and decodes and validates it.
func (p *Profile) decode(document map[string]any) (*v1alpha1.Pattern, field.ErrorList) {
	path := field.NewPath(p.injector.Field)
	if errs := p.schema.apply(path, document); len(errs) > 0 {
		return nil, errs
	}
	pattern := &v1alpha1.Pattern{}
	if err := decodeInto(map[string]any{p.injector.Field: document}, pattern); err != nil {
		return nil, field.ErrorList{field.Invalid(path, field.OmitValueType{}, err.Error())}
	}
	if errs := p.injector.Validate(pattern, path); len(errs) > 0 {
		return nil, errs
	}
	return pattern, nil
}

func annotationNames(overrides []override) string {
	names := make([]string, len(overrides))
	for i := range overrides {
		names[i] = overrides[i].name()
	}
	if len(names) == 1 {
		return "annotation " + names[0]
	}
	return "annotations " + strings.Join(names, ", ")
}

// shown is a key of the user's for a message: as it is, unless a reader would not see it as it is or is made to read all day.
func shown(key string) string {
	const most = 253 + 1 + 63 // what the API server takes: a DNS name, a slash and a name
	if len(key) <= most && injectors.CheckText(key) == nil {
		return key
	}
	return strconv.QuoteToASCII(shorten(key))
}

// shorten cuts a value of the user's for a message.
func shorten(value string) string {
	const most = 64
	value = injectors.WithoutCredentials(value)
	if len(value) <= most {
		return value
	}
	return strings.ToValidUTF8(value[:most], "") + "…"
}
