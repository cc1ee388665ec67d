package schema

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// TestNoFieldLosesAZeroToItsDefault finds fields whose zero value the Go type does not encode, so that it would become the default
// wherever a profile passes through that type: in clients, in revisions, and beside an override of another field. Such a field wants a
// pointer, or a schema that refuses the zero value.
func TestNoFieldLosesAZeroToItsDefault(t *testing.T) {
	spec := schemas(t)[clusterKind].Properties["spec"]
	found := 0
	walkFields(reflect.TypeFor[v1alpha1.ClusterPatternProfileSpec](), &spec, "spec", func(path string, field reflect.StructField, at *apiextensionsv1.JSONSchemaProps) {
		if at.Default == nil || !strings.Contains(field.Tag.Get("json"), ",omit") {
			return
		}
		found++
		if zero := zeroOf(field.Type); zero != "" && string(at.Default.Raw) != zero && admits(at, zero) {
			t.Errorf("%s: the default is %s, and %s is admitted and never encoded", path, at.Default.Raw, zero)
		}
	})
	if found < 30 {
		t.Errorf("only %d fields with a default were found", found)
	}
}

// walkFields visits the fields of a Go type with their schemas.
func walkFields(of reflect.Type, at *apiextensionsv1.JSONSchemaProps, path string, visit func(string, reflect.StructField, *apiextensionsv1.JSONSchemaProps)) {
	switch of.Kind() {
	case reflect.Pointer:
		walkFields(of.Elem(), at, path, visit)
	case reflect.Slice:
		if at.Items != nil && at.Items.Schema != nil {
			walkFields(of.Elem(), at.Items.Schema, path+"[]", visit)
		}
	case reflect.Map:
		if at.AdditionalProperties != nil && at.AdditionalProperties.Schema != nil {
			walkFields(of.Elem(), at.AdditionalProperties.Schema, path+".*", visit)
		}
	case reflect.Struct:
		for i := range of.NumField() {
			field := of.Field(i)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" && strings.Contains(options, "inline") {
				walkFields(field.Type, at, path, visit)
				continue
			}
			if property, ok := at.Properties[name]; ok {
				visit(path+"."+name, field, &property)
				walkFields(field.Type, &property, path+"."+name, visit)
			}
		}
	default:
	}
}

// zeroOf returns the zero value of a type in JSON; empty for a type that tells it from no value.
func zeroOf(of reflect.Type) string {
	switch of.Kind() {
	case reflect.String:
		return `""`
	case reflect.Bool:
		return "false"
	case reflect.Slice:
		return "[]"
	case reflect.Map:
		return "{}"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "0"
	default:
		return ""
	}
}

// admits tells whether a schema admits a zero value, as far as its bounds say.
func admits(at *apiextensionsv1.JSONSchemaProps, zero string) bool {
	for _, value := range at.Enum {
		if string(value.Raw) == zero {
			return true
		}
	}
	switch {
	case len(at.Enum) > 0:
		return false
	case zero == "0":
		return at.Minimum == nil || *at.Minimum <= 0
	case zero == "[]":
		return at.MinItems == nil || *at.MinItems == 0
	case zero == "{}":
		return at.MinProperties == nil || *at.MinProperties == 0
	case zero == `""`:
		return (at.MinLength == nil || *at.MinLength == 0) && (at.Pattern == "" || regexp.MustCompile(at.Pattern).MatchString("")) &&
			!slices.ContainsFunc(at.XValidations, refusesEmpty)
	default:
		return true
	}
}

// matching is a rule that is nothing but a match.
var matching = regexp.MustCompile(`^self\.matches\('([^']*)'\)$`)

func refusesEmpty(rule apiextensionsv1.ValidationRule) bool {
	match := matching.FindStringSubmatch(rule.Rule)
	return len(match) == 2 && !regexp.MustCompile(strings.ReplaceAll(match[1], `\\`, `\`)).MatchString("")
}
