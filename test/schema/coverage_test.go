package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// TestEveryCELRuleRefusesSomeCase lists the rules that no case provokes.
func TestEveryCELRuleRefusesSomeCase(t *testing.T) {
	b := newBoth(t)
	var refusals strings.Builder
	for _, c := range readCases(t) {
		if len(c.WantErrors) > 0 {
			_, err := b.create(t.Context(), c.object(t))
			fmt.Fprintln(&refusals, err)
		}
	}
	messages := map[string]string{} // and where they are first
	for kind, definition := range schemas(t) {
		walk(definition, kind, func(path string, at *apiextensionsv1.JSONSchemaProps) {
			for _, rule := range at.XValidations {
				message := rule.Message
				if message == "" {
					t.Errorf("%s: the rule %s has no message that says what to write", path, rule.Rule)
				}
				if _, ok := messages[message]; !ok {
					messages[message] = path
				}
			}
		})
	}
	if len(messages) < 10 {
		t.Fatalf("only %d rules were found", len(messages))
	}
	for message, path := range messages {
		if !strings.Contains(refusals.String(), message) {
			t.Errorf("%s: no case provokes the rule that says %q", path, message)
		}
	}
}

// TestEveryBoundIsKeptByTheAPIServerAndByPillion breaks each bound, enum, pattern, list type, type and required field of the
// schema in a case that is accepted, one at a time.
func TestEveryBoundIsKeptByTheAPIServerAndByPillion(t *testing.T) {
	b := newBoth(t)
	var accepted []map[string]any
	for _, c := range readCases(t) {
		if len(c.WantErrors) == 0 && (c.Kind == "" || c.Kind == clusterKind) {
			accepted = append(accepted, c.object(t))
		}
	}
	spec := schemas(t)[clusterKind].Properties["spec"]
	broken := 0
	walk(&spec, "spec", func(path string, at *apiextensionsv1.JSONSchemaProps) {
		for _, violation := range violations(at) {
			t.Run(path+"/"+violation.name, func(t *testing.T) {
				object, where := violation.in(accepted, path)
				if object == nil {
					t.Fatalf("no accepted case sets %s: write one", path)
				}
				_, refusal := b.create(t.Context(), object)
				said := false
				for _, cause := range causes(refusal) {
					said = said || (strings.HasPrefix(cause.Field, where) && strings.Contains(cause.Message, violation.says))
				}
				if !said {
					t.Errorf("the API server does not say %q of %s but: %v", violation.says, where, refusal)
				}
				if problems := b.compile(t, object); !strings.Contains(problems, violation.says) {
					t.Errorf("in process it is not said %q of %s but: %v", violation.says, where, problems)
				}
			})
			broken++
		}
	})
	if broken < 100 {
		t.Errorf("only %d bounds were found", broken)
	}
}

// TestWhatTheAPIServerStoresCanBeDecoded writes extreme integers to each field that takes one: where the API server would
// store an object that does not decode, one profile keeps all from being listed.
func TestWhatTheAPIServerStoresCanBeDecoded(t *testing.T) {
	b := newBoth(t)
	tried := 0
	for kind, definition := range schemas(t) {
		var accepted []map[string]any
		for _, c := range readCases(t) {
			object := c.object(t)
			if len(c.WantErrors) == 0 && object["kind"] == kind {
				accepted = append(accepted, object)
			}
		}
		spec := definition.Properties["spec"]
		walk(&spec, "spec", func(path string, at *apiextensionsv1.JSONSchemaProps) {
			if at.Type != "integer" && !at.XIntOrString {
				return
			}
			for _, extreme := range []any{int64(3_000_000_000), int64(-3_000_000_000), int64(math.MaxInt64), 1e30, 1.5, "x"} {
				extremely := violation{value: func(any) (any, bool) { return extreme, true }}
				object, where := extremely.in(accepted, path)
				if object == nil {
					continue // another kind has the case: both have the same patterns
				}
				tried++
				stored, refusal := b.create(t.Context(), object)
				if refusal != nil {
					continue
				}
				if err := decode(stored.Object); err != nil {
					t.Errorf("%s of %v is stored in a %s, and cannot be decoded: %v", where, extreme, kind, err)
				}
			}
		})
	}
	if tried < 100 {
		t.Errorf("only %d values were tried", tried)
	}
}

// decode reads an object as a typed client does.
func decode(object map[string]any) error {
	encoded, err := json.Marshal(object)
	if err != nil {
		return err
	}
	if object["kind"] == namespacedKind {
		return json.Unmarshal(encoded, &v1alpha1.PatternProfile{})
	}
	return json.Unmarshal(encoded, &v1alpha1.ClusterPatternProfile{})
}

// violation breaks one rule of a part of a schema.
type violation struct {
	name string
	// says is part of the message that has to come.
	says string
	// value replaces a value that is accepted; it is false if it cannot.
	value func(accepted any) (any, bool)
	// below is what is added to the path of the value in the message.
	below string
}

// violations returns what breaks the rules at one place of a schema.
func violations(at *apiextensionsv1.JSONSchemaProps) []violation {
	var all []violation
	add := func(name, says string, value func(any) (any, bool)) {
		all = append(all, violation{name: name, says: says, value: value})
	}
	constant := func(value any) func(any) (any, bool) { return func(any) (any, bool) { return value, true } }
	if at.Type != "" {
		add("type", "must be of type "+at.Type, constant(ofAnotherType(at.Type)))
	}
	if at.MaxLength != nil {
		add("maxLength", "Too long", constant(strings.Repeat("a", int(*at.MaxLength)+1)))
	}
	if at.MinLength != nil {
		short := strings.Repeat("a", int(*at.MinLength)-1)
		add("minLength", fmt.Sprintf("should be at least %d chars long", *at.MinLength), constant(short))
	}
	if at.Pattern != "" {
		add("pattern", "should match", constant(mismatch(at)))
	}
	if len(at.Enum) > 0 {
		add("enum", "Unsupported value", constant("NoSuchValue"))
	}
	if at.Minimum != nil {
		add("minimum", "should be greater than or equal to", constant(int64(*at.Minimum)-1))
	}
	if at.Maximum != nil {
		add("maximum", "should be less than or equal to", constant(int64(*at.Maximum)+1))
	}
	if at.MaxItems != nil {
		add("maxItems", "Too many", func(accepted any) (any, bool) { return repeat(accepted, int(*at.MaxItems)+1) })
	}
	if at.MinItems != nil {
		add("minItems", fmt.Sprintf("should have at least %d items", *at.MinItems), constant([]any{}))
	}
	if at.MaxProperties != nil {
		add("maxProperties", "Too many", func(accepted any) (any, bool) { return widen(accepted, int(*at.MaxProperties)+1) })
	}
	if at.MinProperties != nil {
		add("minProperties", fmt.Sprintf("should have at least %d properties", *at.MinProperties), constant(map[string]any{}))
	}
	if listType := at.XListType; listType != nil && *listType != "atomic" {
		add("list type "+*listType, "Duplicate value", func(accepted any) (any, bool) { return repeat(accepted, 2) })
	}
	for _, name := range at.Required {
		all = append(all, violation{
			name: "required " + name, says: "Required value", below: "." + name,
			value: func(accepted any) (any, bool) { return without(accepted, name) },
		})
	}
	return all
}

func ofAnotherType(kind string) any {
	if kind == "string" {
		return int64(7)
	}
	return "a string"
}

// mismatch returns a text that the pattern of a string does not match, and that its other bounds allow.
func mismatch(at *apiextensionsv1.JSONSchemaProps) string {
	pattern, length := regexp.MustCompile(at.Pattern), 1
	if at.MinLength != nil {
		length = max(length, int(*at.MinLength))
	}
	for _, text := range []string{"\n", " ", "-", "~", "\x00", "A", "a", "0"} {
		if text = strings.Repeat(text, length); !pattern.MatchString(text) {
			return text
		}
	}
	panic("a text that does not match " + at.Pattern)
}

func repeat(accepted any, n int) (any, bool) {
	items, ok := accepted.([]any)
	if !ok || len(items) == 0 {
		return nil, false
	}
	return slices.Repeat(items[:1], n), true
}

func widen(accepted any, n int) (any, bool) {
	entries, ok := accepted.(map[string]any)
	if !ok || len(entries) == 0 {
		return nil, false
	}
	var value any
	for _, value = range entries {
		break
	}
	wide := map[string]any{}
	for i := range n {
		wide[fmt.Sprintf("k%d", i)] = value
	}
	return wide, true
}

func without(accepted any, name string) (any, bool) {
	entries, ok := accepted.(map[string]any)
	if _, has := entries[name]; !ok || !has {
		return nil, false
	}
	rest := map[string]any{}
	for key, value := range entries {
		if key != name {
			rest[key] = value
		}
	}
	return rest, true
}

// in returns the first of the objects in which the path has a value to break, broken, and the path as it is in messages.
func (v violation) in(objects []map[string]any, path string) (object map[string]any, where string) {
	steps := strings.Split(path, ".")
	for _, candidate := range objects {
		broken := deepCopy(candidate)
		if where, ok := v.replace(broken, steps, ""); ok {
			return broken, where + v.below
		}
	}
	return nil, ""
}

// replace breaks the value at a path below a parent.
func (v violation) replace(parent map[string]any, steps []string, above string) (string, bool) {
	name, isList := strings.CutSuffix(steps[0], "[]")
	where := strings.TrimPrefix(above+"."+name, ".")
	if name == anyKey {
		if len(parent) == 0 {
			return "", false
		}
		keys := make([]string, 0, len(parent))
		for key := range parent {
			keys = append(keys, key)
		}
		name = slices.Min(keys)
		where = above
	}
	value, ok := parent[name]
	if !ok {
		return "", false
	}
	if isList {
		list, _ := value.([]any)
		return v.replaceIn(list, steps, where)
	}
	if len(steps) == 1 {
		broken, ok := v.value(value)
		parent[name] = broken
		return where, ok
	}
	child, _ := value.(map[string]any)
	return v.replace(child, steps[1:], where)
}

// replaceIn breaks the first item of a list that has something at the path.
func (v violation) replaceIn(list []any, steps []string, where string) (string, bool) {
	for i := range list {
		at := fmt.Sprintf("%s[%d]", where, i)
		if len(steps) == 1 {
			broken, ok := v.value(list[i])
			list[i] = broken
			return at, ok
		}
		item, _ := list[i].(map[string]any)
		if at, ok := v.replace(item, steps[1:], at); ok {
			return at, true
		}
	}
	return "", false
}

// anyKey stands for any key of a map in a path.
const anyKey = "*"

// walk visits a schema and all below it. A path has the names of fields joined by dots; [] follows the name of a list.
func walk(at *apiextensionsv1.JSONSchemaProps, path string, visit func(path string, at *apiextensionsv1.JSONSchemaProps)) {
	visit(path, at)
	for _, name := range sortedKeys(at.Properties) {
		property := at.Properties[name]
		walk(&property, path+"."+name, visit)
	}
	if at.Items != nil && at.Items.Schema != nil {
		walk(at.Items.Schema, path+"[]", visit)
	}
	if at.AdditionalProperties != nil && at.AdditionalProperties.Schema != nil {
		walk(at.AdditionalProperties.Schema, path+"."+anyKey, visit)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// schemas returns the schemas of the CustomResourceDefinitions by kind.
func schemas(t *testing.T) map[string]*apiextensionsv1.JSONSchemaProps {
	t.Helper()
	definitions, err := apiserver.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*apiextensionsv1.JSONSchemaProps{}
	for _, definition := range definitions {
		all[definition.Spec.Names.Kind] = definition.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	return all
}
