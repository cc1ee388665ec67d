package profiles

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// Available is a profile that Pods of a namespace may ask for, or that chooses them.
type Available struct {
	*Profile
	// MayAsk is false for a profile that chooses Pods of the namespace, and that they may not ask for by its name.
	MayAsk bool
	// Chosen are the Pods that get the profile without asking; nil: none.
	Chosen *Chosen
}

// Chosen says which Pods of a namespace a profile's match chooses.
type Chosen struct {
	// Pods is the label selector; empty: all.
	Pods string `json:"podSelector,omitempty"`
	// Conditions are the names of those that have to be true, too.
	Conditions []string `json:"conditions,omitempty"`
	// Enforced says that nobody can decline it.
	Enforced bool `json:"enforced,omitempty"`
}

// Available returns what there is for Pods of a namespace, by name. What they may neither ask for nor get is not told of.
func (s *Snapshot) Available(namespace Namespace) []Available {
	if s.Excludes(namespace.Name) {
		return nil
	}
	var available []Available
	for _, name := range s.usable(namespace) {
		profile := s.asked(namespace, name)
		available = append(available, Available{profile, true, s.chosen(namespace, profile)})
	}
	for _, profile := range s.cluster {
		isListed := slices.ContainsFunc(available, func(a Available) bool { return a.Profile == profile })
		if chosen := s.chosen(namespace, profile); chosen != nil && !isListed {
			available = append(available, Available{profile, false, chosen})
		}
	}
	slices.SortFunc(available, func(a, b Available) int { return byName(a.Profile, b.Profile) })
	return available
}

// Excludes tells whether Pods of a namespace are never touched.
func (s *Snapshot) Excludes(namespace string) bool {
	return slices.Contains(s.options.ExcludedNamespaces, namespace)
}

// chosen says which Pods of a namespace the match of a profile chooses; nil if none.
func (s *Snapshot) chosen(namespace Namespace, profile *Profile) *Chosen {
	if profile.match == nil || (profile.match.namespaces != nil && !profile.match.namespaces.Matches(labels.Set(namespace.Labels))) {
		return nil
	}
	if selection, _ := s.plan.Of(profile); selection == nil {
		return nil
	}
	chosen := &Chosen{Enforced: profile.match.enforce}
	if selector := profile.match.podSelector; selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		chosen.Pods = metav1.FormatLabelSelector(selector)
	}
	for i := range profile.match.conditions {
		chosen.Conditions = append(chosen.Conditions, profile.match.conditions[i].name)
	}
	return chosen
}

// Overridable returns what Pods may change, as the profile lists it.
func (p *Profile) Overridable() []string { return slices.Clone(p.overridable) }

// Description says what the pattern of the profile does, in the words of its API.
func (c *Compiler) Description(p *Profile) string {
	if p.injector.Field == "" {
		return ""
	}
	return oneLine(c.patterns[p.injector.Field].structural.Description)
}

// Parameter is what Pods may change of a profile by one annotation: a field of the pattern, or a parameter of a custom one.
type Parameter struct {
	// Name is the path of the field, Annotation the key that sets it.
	Name       string `json:"name"`
	Annotation string `json:"annotation"`
	// Type is string, integer, boolean, quantity, duration, array or object. The values of the last two are JSON.
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
	// Value is what Pods get that say nothing, as the annotation would have it; nil if there is none.
	Value *string `json:"value,omitempty"`
	// Namespace tells that Value is from an annotation of the namespace.
	Namespace bool `json:"fromNamespace,omitempty"`
	// Default is what a profile gets that says nothing.
	Default *string `json:"default,omitempty"`
	// Required says that a Pod has to set it; Sample is a value that it could write.
	Required bool   `json:"required,omitempty"`
	Sample   string `json:"example,omitempty"`

	// What a value is held to.
	Enum      []string `json:"enum,omitempty"`
	Minimum   string   `json:"minimum,omitempty"`
	Maximum   string   `json:"maximum,omitempty"`
	MinLength int64    `json:"minLength,omitempty"`
	MaxLength int64    `json:"maxLength,omitempty"`
	Pattern   string   `json:"pattern,omitempty"`
	Rules     []string `json:"rules,omitempty"`

	// Fields says that the fields of this object follow, each a Parameter of its own.
	Fields bool `json:"-"`
}

// Parameters returns what Pods of a namespace may change of the profile, in its order. The fields of an object follow it.
// There are none of a profile that cannot be used.
func (p *Profile) Parameters(namespace Namespace) []Parameter {
	inherited := overridesOf(namespace.Annotations, namespace.Name)[p.Name]
	switch {
	case p.Pattern == nil:
		return nil
	case p.custom != nil:
		return p.customParameters(inherited)
	default:
		return p.fieldParameters(inherited)
	}
}

// fieldParameters returns the fields of a built-in pattern that Pods may change.
func (p *Profile) fieldParameters(inherited []override) []Parameter {
	own := p.decodedDocument()
	document := own
	if _, problems := p.effective(inherited); len(inherited) > 0 && !slices.ContainsFunc(problems, isNoGap) {
		document = p.decodedDocument()
		_ = p.overrideAll(document, inherited) // it has no problem
	}
	lister := &fieldLister{profile: p.Name, own: own, document: document, required: map[string]string{}}
	for _, required := range p.absentFrom(document) {
		path, example := p.givenBy(&required)
		lister.required[path] = example
	}
	for _, path := range p.overridable {
		if at, err := p.schema.typeAt(path); err == nil {
			lister.list(path, at)
		}
	}
	return lister.parameters
}

// isNoGap tells whether a problem is another than that something is not given yet.
func isNoGap(problem weave.Problem) bool { return problem.Reason != injectors.ReasonParameterRequired }

func (p *Profile) decodedDocument() map[string]any {
	document := map[string]any{}
	_ = utiljson.Unmarshal(p.document, &document) // it was encoded by us
	return document
}

// fieldLister lists fields, each once.
type fieldLister struct {
	profile       string
	own, document map[string]any    // without and with what the namespace says
	required      map[string]string // what a Pod has to give, with examples
	parameters    []Parameter
}

// annotatable is a field that an annotation can name: it has neither a dot nor what a key may not have.
var annotatable = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?$`)

// list adds a field, and then, of an object, its fields. Of a map they are the keys that it has.
func (l *fieldLister) list(path string, at *structuralschema.Structural) {
	if len(path) > longestPath || slices.ContainsFunc(l.parameters, func(p Parameter) bool { return p.Name == path }) {
		return
	}
	index := len(l.parameters)
	l.parameters = append(l.parameters, l.parameter(path, at))
	names := map[string]*structuralschema.Structural{}
	for name := range at.Properties {
		names[name] = new(at.Properties[name])
	}
	if at.AdditionalProperties != nil && at.AdditionalProperties.Structural != nil {
		entries, _ := valueAt(l.document, path).(map[string]any)
		for name := range entries {
			names[name] = at.AdditionalProperties.Structural
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if annotatable.MatchString(name) {
			l.list(path+"."+name, names[name])
			l.parameters[index].Fields = true
		}
	}
}

// parameter returns a field with what its schema says of it.
func (l *fieldLister) parameter(path string, at *structuralschema.Structural) Parameter {
	parameter := Parameter{
		Name: path, Annotation: v1alpha1.OverrideKey(l.profile, path), Type: typeOf(at), Description: oneLine(at.Description),
		Value: textOf(valueAt(l.document, path)), Default: textOf(at.Default.Object),
	}
	if own := textOf(valueAt(l.own, path)); parameter.Value != nil && (own == nil || *own != *parameter.Value) {
		parameter.Namespace = true
	}
	if example, isRequired := l.required[path]; isRequired {
		parameter.Required, parameter.Sample = true, example
	}
	for _, rule := range at.XValidations {
		if rule.Message != "" {
			parameter.Rules = append(parameter.Rules, strings.TrimSpace(strings.TrimPrefix(rule.FieldPath, ".")+" "+oneLine(rule.Message)))
		}
	}
	v := at.ValueValidation
	if v == nil {
		return parameter
	}
	for _, value := range v.Enum {
		if text := textOf(value.Object); text != nil {
			parameter.Enum = append(parameter.Enum, *text)
		}
	}
	number := func(n *float64) string {
		if n == nil {
			return ""
		}
		return strconv.FormatFloat(*n, 'f', -1, 64)
	}
	parameter.Minimum, parameter.Maximum = number(v.Minimum), number(v.Maximum)
	if v.MinLength != nil {
		parameter.MinLength = *v.MinLength
	}
	if v.MaxLength != nil {
		parameter.MaxLength = *v.MaxLength
	}
	if parameter.Type == "string" {
		parameter.Pattern = v.Pattern
	}
	return parameter
}

// typeOf says what a field takes: quantities and durations are texts of a form to the schema.
func typeOf(at *structuralschema.Structural) string {
	pattern := ""
	if at.ValueValidation != nil {
		pattern = at.ValueValidation.Pattern
	}
	switch {
	case at.XIntOrString && strings.Contains(pattern, "KMGTPE"):
		return string(v1alpha1.ParameterQuantity)
	case at.XIntOrString:
		return "integer or string"
	case at.Type == "string" && strings.Contains(pattern, "(ms|s|m|h)"):
		return string(v1alpha1.ParameterDuration)
	default:
		return at.Type
	}
}

// customParameters returns the parameters of a custom pattern that Pods may change, in the order of their declarations.
func (p *Profile) customParameters(inherited []override) []Parameter {
	var parameters []Parameter
	for i := range p.Pattern.Custom.Parameters {
		declared := &p.Pattern.Custom.Parameters[i]
		if !p.mayOverride(declared.Name) {
			continue
		}
		parameter := Parameter{
			Name: declared.Name, Annotation: v1alpha1.OverrideKey(p.Name, declared.Name), Type: string(declared.Type),
			Description: oneLine(declared.Description), Required: declared.Required, Pattern: declared.Pattern,
		}
		if declared.Type == "" {
			parameter.Type = string(v1alpha1.ParameterString)
		}
		if declared.Default != nil {
			parameter.Default = textOfJSON(declared.Default.Raw)
			parameter.Value = parameter.Default
		}
		for _, o := range inherited {
			if _, err := p.custom.Parse(o.path, o.value); o.path == declared.Name && err == nil && injectors.CheckText(o.value) == nil {
				parameter.Value, parameter.Namespace, parameter.Required = &o.value, true, false
			}
		}
		for j := range declared.Enum {
			if text := textOfJSON(declared.Enum[j].Raw); text != nil {
				parameter.Enum = append(parameter.Enum, *text)
			}
		}
		if declared.Minimum != nil {
			parameter.Minimum = *textOfJSON(declared.Minimum.Raw)
		}
		if declared.Maximum != nil {
			parameter.Maximum = *textOfJSON(declared.Maximum.Raw)
		}
		if declared.MinLength != nil {
			parameter.MinLength = int64(*declared.MinLength)
		}
		if declared.MaxLength != nil {
			parameter.MaxLength = int64(*declared.MaxLength)
		}
		parameters = append(parameters, parameter)
	}
	return parameters
}

// Example returns a value that Pods could set, or a placeholder where that is for people to choose.
func (p *Parameter) Example() string {
	switch {
	case p.Value != nil:
		return *p.Value
	case p.Default != nil:
		return *p.Default
	case p.Sample != "":
		return p.Sample
	case len(p.Enum) > 0:
		return p.Enum[0]
	case p.Minimum != "":
		return p.Minimum
	case p.Maximum != "":
		return p.Maximum
	}
	switch v1alpha1.ParameterType(p.Type) {
	case v1alpha1.ParameterInteger:
		return "1"
	case v1alpha1.ParameterBoolean:
		return "true"
	case v1alpha1.ParameterQuantity:
		return "64Mi"
	case v1alpha1.ParameterDuration:
		return "30s"
	default:
		return p.placeholder()
	}
}

// placeholder is a text for people to change: one that is allowed, if that is easily found.
func (p *Parameter) placeholder() string {
	texts := []string{"<" + p.Name + ">", p.Name, strings.ToLower(p.Name), "example", "example.com", "/example", "1"}
	for _, text := range texts {
		matches, err := regexp.MatchString(p.Pattern, text)
		if err == nil && matches && int64(len(text)) >= p.MinLength && (p.MaxLength == 0 || int64(len(text)) <= p.MaxLength) {
			return text
		}
	}
	return texts[0]
}

// valueAt returns the value at a dotted path; nil if there is none.
func valueAt(document map[string]any, path string) any {
	var at any = document
	for name := range strings.SplitSeq(path, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[name]
	}
	return at
}

// textOf writes a value as an annotation has it: a string as it is, others as JSON. It is nil for no value.
func textOf(value any) *string {
	switch value := value.(type) {
	case nil:
		return nil
	case string:
		return &value
	default:
		encoded, err := json.Marshal(value)
		if err != nil {
			return new(fmt.Sprint(value))
		}
		return new(string(encoded))
	}
}

func textOfJSON(raw []byte) *string {
	var value any
	if err := utiljson.Unmarshal(raw, &value); err != nil {
		return new(string(raw))
	}
	return textOf(value)
}

// oneLine joins the lines of a description.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
