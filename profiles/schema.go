package profiles

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/injectors"
)

// schema is a part of a CustomResourceDefinition's schema, applied in process as the API server applies it: defaults, bounds,
// enums, unions, list types and CEL rules.
type schema struct {
	structural *structuralschema.Structural
	openAPI    validation.SchemaValidator
	rules      *cel.Validator
	root       bool
	// alternatives are those of the fields that annotations can set.
	alternatives alternatives
}

// schemas are those of a profile's CustomResourceDefinition. The patterns' are the same in both kinds of profiles, and by far the largest
// part: apart they are compiled once.
type schemas struct {
	// profile is the schema of all but the patterns, whose fields are opaque to it.
	profile *schema
	// patterns are the schemas of those fields.
	patterns map[string]*apiextensions.JSONSchemaProps
	// required says what is wrong with a profile that has no value at a path, such as gitSync.repo, and does not let Pods give one. These
	// rules look into patterns from outside, where the profile's schema sees nothing.
	required map[string]string
}

func loadSchemas(crd []byte, fields []string) (schemas, error) {
	props, err := loadProps(crd)
	if err != nil {
		return schemas{}, err
	}
	spec := props.Properties["spec"]
	loaded := schemas{patterns: map[string]*apiextensions.JSONSchemaProps{}, required: map[string]string{}}
	for _, name := range fields {
		pattern, ok := spec.Properties[name]
		if !ok {
			return schemas{}, fmt.Errorf("the schema has no field spec.%s", name)
		}
		loaded.patterns[name] = &pattern
		anything := true
		spec.Properties[name] = apiextensions.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &anything}
	}
	spec.XValidations = slices.DeleteFunc(spec.XValidations, func(rule apiextensions.ValidationRule) bool {
		path := strings.TrimPrefix(rule.FieldPath, ".")
		pattern, _, isBelow := strings.Cut(path, ".")
		if isBelow = isBelow && slices.Contains(fields, pattern); isBelow {
			loaded.required[path] = rule.Message
		}
		return isBelow
	})
	props.Properties["spec"] = spec
	loaded.profile, err = newSchema(props, true)
	return loaded, err
}

// loadProps returns the schema of the only version of a CustomResourceDefinition in YAML.
func loadProps(crd []byte) (*apiextensions.JSONSchemaProps, error) {
	definition := apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(crd, &definition); err != nil {
		return nil, fmt.Errorf("decode CustomResourceDefinition: %w", err)
	}
	if len(definition.Spec.Versions) != 1 {
		return nil, fmt.Errorf("CustomResourceDefinition %s has %d versions, want one", definition.Name, len(definition.Spec.Versions))
	}
	props := &apiextensions.JSONSchemaProps{}
	v1props := definition.Spec.Versions[0].Schema.OpenAPIV3Schema
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v1props, props, nil); err != nil {
		return nil, fmt.Errorf("convert the schema of %s: %w", definition.Name, err)
	}
	return props, nil
}

func newSchema(props *apiextensions.JSONSchemaProps, root bool) (*schema, error) {
	structural, err := structuralschema.NewStructural(props)
	if err != nil {
		return nil, fmt.Errorf("make the schema structural: %w", err)
	}
	openAPI, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		return nil, fmt.Errorf("make a validator of the schema: %w", err)
	}
	return &schema{
		structural:   structural,
		openAPI:      openAPI,
		rules:        cel.NewValidator(structural, root, celconfig.PerCallLimit),
		root:         root,
		alternatives: alternativesOf(structural),
	}, nil
}

// apply sets the defaults in object, which is changed, and returns all that is wrong with it, unknown fields included, in the order of
// the fields: the validators that are used walk over maps. No error repeats a password.
func (s *schema) apply(path *field.Path, object map[string]any) field.ErrorList {
	errs := s.validate(path, object)
	for _, err := range errs {
		if value, ok := err.BadValue.(string); ok {
			err.BadValue = injectors.WithoutCredentials(value)
		}
	}
	sortErrors(errs)
	return errs
}

func sortErrors(errs field.ErrorList) {
	slices.SortStableFunc(errs, func(a, b *field.Error) int {
		return cmp.Or(strings.Compare(a.Field, b.Field), strings.Compare(a.Error(), b.Error()))
	})
}

func (s *schema) validate(path *field.Path, object map[string]any) field.ErrorList {
	errs := s.prune(path, object)
	if endless := endlessQuantities(path, object, s.structural); len(endless) > 0 {
		return append(errs, endless...)
	}
	defaulting.Default(object, s.structural)
	errs = append(errs, validation.ValidateCustomResource(path, object, s.openAPI)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(path, s.structural, object)...)
	if s.rules == nil || slices.ContainsFunc(errs, blocksRules) {
		return errs
	}
	// No context and no clock: what bounds a rule is its cost, which the API server checked when it took the schema.
	broken, _ := s.rules.Validate(context.Background(), path, s.structural, object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, broken...)
}

// prune removes the fields that the schema does not know and reports them: the API server drops them, kubectl refuses them.
func (s *schema) prune(path *field.Path, object map[string]any) field.ErrorList {
	unknown := pruning.PruneWithOptions(object, s.structural, s.root, structuralschema.UnknownFieldPathOptions{
		TrackUnknownFieldPaths: true,
	})
	slices.Sort(unknown)
	errs := make(field.ErrorList, 0, len(unknown))
	for _, name := range unknown {
		at := field.NewPath(name)
		if path != nil {
			at = path.Child(name)
		}
		errs = append(errs, field.Forbidden(at, "there is no field of that name"))
	}
	return errs
}

// blocksRules tells whether CEL rules cannot be evaluated on an object with this error.
func blocksRules(err *field.Error) bool {
	switch err.Type {
	case field.ErrorTypeRequired, field.ErrorTypeTypeInvalid, field.ErrorTypeTooLong, field.ErrorTypeTooMany:
		return true
	default:
		return false
	}
}

// typeAt returns the schema of the field at a dotted path below this one. The error says which part of the path is not there.
func (s *schema) typeAt(path string) (*structuralschema.Structural, error) {
	at := s.structural
	seen := ""
	for name := range strings.SplitSeq(path, ".") {
		next, ok := at.Properties[name]
		switch {
		case ok:
			at = &next
		case at.AdditionalProperties != nil && at.AdditionalProperties.Structural != nil:
			at = at.AdditionalProperties.Structural
		case len(at.Properties) > 0:
			return nil, fmt.Errorf("there is no field %q%s; there are %s", name, in(seen),
				strings.Join(slices.Sorted(maps.Keys(at.Properties)), ", "))
		default:
			return nil, fmt.Errorf("there is no field %q%s, which is not an object", name, in(seen))
		}
		seen = strings.TrimPrefix(seen+"."+name, ".")
	}
	return at, nil
}

func in(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}

// endlessExponent is an exponent of three digits or more. To read the quantity 1e-999999999 takes years, as every digit is
// computed, and both CEL's quantity() and decoding would.
var endlessExponent = regexp.MustCompile(`[eE][+-]?\d{3}`)

// endlessQuantities finds the quantities, which are integers or strings to the schema, that nobody may try to read.
func endlessQuantities(path *field.Path, value any, at *structuralschema.Structural) field.ErrorList {
	const most = 40 // characters
	var errs field.ErrorList
	switch value := value.(type) {
	case string:
		if at.XIntOrString && (len(value) > most || endlessExponent.MatchString(value)) {
			errs = append(errs, field.Invalid(path, shorten(value), "is no quantity; write one such as 100m or 64Mi"))
		}
	case []any:
		if at.Items != nil {
			for i := range value {
				errs = append(errs, endlessQuantities(path.Index(i), value[i], at.Items)...)
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			child := field.NewPath(name)
			if path != nil {
				child = path.Child(name)
			}
			if property, ok := at.Properties[name]; ok {
				errs = append(errs, endlessQuantities(child, value[name], &property)...)
			} else if at.AdditionalProperties != nil && at.AdditionalProperties.Structural != nil {
				errs = append(errs, endlessQuantities(child, value[name], at.AdditionalProperties.Structural)...)
			}
		}
	}
	return errs
}
