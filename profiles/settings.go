package profiles

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/api/resource"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// SettingSource says where the value of a setting came from.
type SettingSource string

// The sources of settings. A value that a profile spells out and that is the default all the same counts as the default: the API
// server stores both alike.
const (
	SettingDefault    SettingSource = "default"
	SettingProfile    SettingSource = "profile"
	SettingNamespace  SettingSource = "namespace"
	SettingAnnotation SettingSource = "annotation"
	// SettingPicked is that of a port which was taken in the Pod, so that another was picked (onPortConflict: Pick).
	SettingPicked SettingSource = "picked"
)

// Setting is one value of a profile's effective spec: of a field of its pattern, or of a parameter of a custom one.
type Setting struct {
	// Path is the field's below the pattern, or the parameter's name: what follows the slash in an annotation that overrides it.
	Path   string          `json:"path"`
	Value  json.RawMessage `json:"value"`
	Source SettingSource   `json:"source"`
	// From is the key of the annotation that the value is from.
	From string `json:"from,omitempty"`
	// Overridable says that annotations may change it.
	Overridable bool `json:"overridable,omitempty"`
}

// settings returns the values of the effective spec with overrides, sorted by their paths; none if that is not valid.
func (p *Profile) settings(overrides []override) []Setting {
	switch {
	case len(p.Problems) > 0 || p.Pattern == nil:
		return nil
	case p.custom != nil:
		return p.parameterSettings(overrides)
	default:
		return p.fieldSettings(overrides)
	}
}

// parameterSettings returns the parameters of a custom pattern that have a value.
func (p *Profile) parameterSettings(overrides []override) []Setting {
	effective, problems := p.effective(overrides)
	if len(problems) > 0 || effective.bound == nil {
		return nil
	}
	var settings []Setting
	for name, value := range effective.bound.Values() {
		setting := p.setting(name, value, SettingDefault)
		for i := range overrides {
			if overrides[i].path == name {
				setting.from(&overrides[i])
			}
		}
		settings = append(settings, setting)
	}
	slices.SortFunc(settings, byPath)
	return settings
}

func (p *Profile) setting(path string, value any, source SettingSource) Setting {
	encoded, _ := json.Marshal(value) // it was decoded from JSON
	return Setting{Path: path, Value: encoded, Source: source, Overridable: p.mayOverride(path)}
}

// from says that an override gave the value.
func (s *Setting) from(o *override) {
	s.Source, s.From = SettingAnnotation, o.key
	if o.namespace != "" {
		s.Source = SettingNamespace
	}
}

// fieldSettings returns the fields of a built-in pattern.
func (p *Profile) fieldSettings(overrides []override) []Setting {
	document := map[string]any{}
	if err := utiljson.Unmarshal(p.document, &document); err != nil {
		return nil
	}
	given := make([]any, len(overrides))
	if len(p.overrideAll(document, overrides)) > 0 || len(p.absentFrom(document)) > 0 {
		return nil
	}
	for i := range overrides {
		given[i], _ = p.parse(overrides[i]) // it was read a moment ago
	}
	if _, errs := p.decode(document); len(errs) > 0 {
		return nil
	}
	walk := settingsWalk{profile: p, overrides: overrides, given: given}
	walk.object("", document, p.schema.structural, nil)
	return walk.settings
}

// settingsWalk collects the leaves of a document: what is no object. A list is one leaf, as it is overridden as a whole.
type settingsWalk struct {
	profile   *Profile
	overrides []override
	given     []any // the overrides' values
	settings  []Setting
}

// object goes through an object whose default, if one of its parents' has one for it, is standard.
func (w *settingsWalk) object(path string, object map[string]any, at *structuralschema.Structural, standard map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		var next *structuralschema.Structural
		if at != nil {
			if property, ok := at.Properties[name]; ok {
				next = &property
			} else if at.AdditionalProperties != nil {
				next = at.AdditionalProperties.Structural
			}
		}
		nextStandard, there := standard[name]
		if !there && next != nil {
			nextStandard = next.Default.Object
		}
		w.value(strings.TrimPrefix(path+"."+name, "."), object[name], next, nextStandard)
	}
}

func (w *settingsWalk) value(path string, value any, at *structuralschema.Structural, standard any) {
	if object, ok := value.(map[string]any); ok && len(object) > 0 {
		objectStandard, _ := standard.(map[string]any)
		w.object(path, object, at, objectStandard)
		return
	}
	setting := w.profile.setting(path, value, SettingProfile)
	if standard != nil && isSame(value, standard, at) {
		setting.Source = SettingDefault
	}
	for i := range w.overrides { // the Pod's own come last, and win
		if gives(&w.overrides[i], w.given[i], path) {
			setting.from(&w.overrides[i])
		}
	}
	w.settings = append(w.settings, setting)
}

// isSame tells whether two values of a field are one: durations and quantities may be written in several ways, and what is read
// from the API server as typed objects is written in one of them.
func isSame(a, b any, at *structuralschema.Structural) bool {
	oneText, otherText := fmt.Sprint(a), fmt.Sprint(b)
	if oneText == otherText || at == nil {
		return oneText == otherText
	}
	if at.XIntOrString {
		one, err := resource.ParseQuantity(oneText)
		other, otherErr := resource.ParseQuantity(otherText)
		return err == nil && otherErr == nil && one.Cmp(other) == 0
	}
	one, err := time.ParseDuration(oneText)
	other, otherErr := time.ParseDuration(otherText)
	return at.Type == "string" && err == nil && otherErr == nil && one == other
}

// gives tells whether an override has a value for a path: it is its own, or lies in the object that it gives.
func gives(o *override, value any, path string) bool {
	if path == o.path {
		return true
	}
	below, ok := strings.CutPrefix(path, o.path+".")
	if !ok {
		return false
	}
	for name := range strings.SplitSeq(below, ".") {
		object, isObject := value.(map[string]any)
		if value, ok = object[name]; !isObject || !ok {
			return false
		}
	}
	return true
}

// pickedSettings returns the settings of the ports of an effective spec that were picked in the place of the profile's own.
func (p *Profile) pickedSettings(picked *effectiveSpec, overrides []override) []Setting {
	own, problems := p.effective(overrides)
	if picked == nil || len(problems) > 0 {
		return nil
	}
	// The own port may follow from another field. To pick where nothing is taken writes it down.
	free := func(int32, corev1.Protocol) bool { return false }
	if own.bound != nil {
		if bound, ok := own.bound.Pick(free); ok {
			own.bound = bound
		}
	} else if pattern := p.injector.Pick(own.pattern, free); pattern != nil {
		own.pattern = pattern
	}
	before := p.numbers(&own)
	var settings []Setting
	for path, value := range p.numbers(picked) {
		if before[path] != value {
			settings = append(settings, p.setting(path, value, SettingPicked))
		}
	}
	return settings
}

// numbers returns the numbers of an effective spec by their paths.
func (p *Profile) numbers(spec *effectiveSpec) map[string]int64 {
	var leaves map[string]any
	if spec.bound != nil {
		leaves = spec.bound.Values()
	} else {
		leaves = leavesOf(p.injector.Field, spec.pattern)
	}
	numbers := map[string]int64{}
	for path, value := range leaves {
		if number, ok := value.(int64); ok {
			numbers[path] = number
		}
	}
	return numbers
}

// withPicked puts the settings of ports that were picked in the place of those that they replace.
func withPicked(settings, picked []Setting) []Setting {
	for _, setting := range picked {
		if i := slices.IndexFunc(settings, func(s Setting) bool { return s.Path == setting.Path }); i >= 0 {
			settings[i] = setting
		} else { // the port follows from other fields unless it is given
			settings = append(settings, setting)
		}
	}
	slices.SortFunc(settings, byPath)
	return settings
}

func byPath(a, b Setting) int { return strings.Compare(a.Path, b.Path) }

// leavesOf returns the values of a pattern's fields that are no objects, by their paths.
func leavesOf(field string, pattern *v1alpha1.Pattern) map[string]any {
	leaves := map[string]any{}
	encoded, err := json.Marshal(pattern)
	document := map[string]any{}
	if err != nil || utiljson.Unmarshal(encoded, &document) != nil {
		return leaves
	}
	var collect func(path string, value any)
	collect = func(path string, value any) {
		if object, ok := value.(map[string]any); ok {
			for name := range object {
				collect(strings.TrimPrefix(path+"."+name, "."), object[name])
			}
			return
		}
		leaves[path] = value
	}
	collect("", document[field])
	return leaves
}
