package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// page is the page as far as it is written.
type page struct{ text strings.Builder }

func (p *page) line(format string, values ...any) { fmt.Fprintf(&p.text, format+"\n", values...) }

// common is the section about what all patterns with a container of their own have.
const common = "Settings of the container that a pattern adds"

// kind writes what belongs to one kind. The patterns have sections of their own, for both kinds have the same.
func (p *page) kind(crd, first *apiextensionsv1.CustomResourceDefinition) error {
	schema, spec := schemaOf(crd), specOf(crd)
	scope := "one for the cluster"
	if crd.Spec.Scope == apiextensionsv1.NamespaceScoped {
		scope = "one for a namespace"
	}
	p.line("\n## %s\n", crd.Spec.Names.Kind)
	p.line("`apiVersion: %s/%s`, %s. kubectl takes `%s` for it, and `%s` for both kinds.\n",
		crd.Spec.Group, crd.Spec.Versions[0].Name, scope,
		strings.Join(crd.Spec.Names.ShortNames, "`, `"), strings.Join(crd.Spec.Names.Categories, "`, `"))
	p.line("%s\n", plain(schema.Description))
	p.rules(schema.XValidations)
	p.rules(spec.XValidations)
	var rest []string
	for _, name := range order(spec) {
		property := spec.Properties[name]
		if isPattern(&property) {
			if !reflect.DeepEqual(property, specOf(first).Properties[name]) {
				return fmt.Errorf("spec.%s differs between the kinds, and this page has one section for it", name)
			}
			continue
		}
		rest = append(rest, name)
	}
	if len(rest) == len(spec.Properties) {
		return errors.New("no field of spec is a pattern")
	}
	p.line("`spec` has one of the [patterns](#patterns), and:\n")
	p.table(spec, rest)
	return nil
}

// isPattern tells whether a field of spec is a pattern: they alone are objects with a section of their own.
func isPattern(property *apiextensionsv1.JSONSchemaProps) bool {
	_, hasImage := property.Properties["image"]
	_, hasTemplate := property.Properties["template"]
	return property.Type == "object" && (hasImage || hasTemplate)
}

// patterns writes a section for each pattern, and one for what most of them share.
func (p *page) patterns(spec *apiextensionsv1.JSONSchemaProps) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(spec.Properties)) {
		if property := spec.Properties[name]; isPattern(&property) {
			names = append(names, name)
		}
	}
	shared := sharedBy(spec, names)
	p.line("\n## Patterns\n")
	p.line("A profile has exactly one of %s.\n", "`"+strings.Join(names, "`, `")+"`")
	for _, name := range names {
		pattern := spec.Properties[name]
		p.line("### %s\n", name)
		p.line("%s\n", plain(pattern.Description))
		p.rules(pattern.XValidations)
		own := slices.DeleteFunc(order(&pattern), func(field string) bool { return shared[field] })
		if len(own) < len(pattern.Properties) {
			p.line("Beside these it has the [settings of the container](#%s).\n", anchor(common))
		}
		p.table(&pattern, own)
	}
	p.line("### %s\n", common)
	pattern := spec.Properties[names[slices.IndexFunc(names, func(name string) bool {
		_, found := spec.Properties[name].Properties["image"]
		return found
	})]]
	p.line("Each built-in pattern has these fields beside its own.\n")
	p.table(&pattern, slices.DeleteFunc(order(&pattern), func(field string) bool { return !shared[field] }))
}

// sharedBy returns the fields that all patterns with an image have alike.
func sharedBy(spec *apiextensionsv1.JSONSchemaProps, names []string) map[string]bool {
	shared, first := map[string]bool{}, true
	for _, name := range names {
		fields := spec.Properties[name].Properties
		if _, found := fields["image"]; !found {
			continue
		}
		if first {
			for field := range fields {
				shared[field] = true
			}
		}
		for field := range shared {
			other := spec.Properties[name].Properties[field]
			same := false
			for _, each := range names {
				if property, found := spec.Properties[each].Properties[field]; found && each != name {
					same = same || reflect.DeepEqual(property, other)
				}
			}
			if _, found := fields[field]; !found || !same {
				delete(shared, field)
			}
		}
		first = false
	}
	return shared
}

// status writes the status, which both kinds have alike, and what kubectl prints.
func (p *page) status(crd *apiextensionsv1.CustomResourceDefinition) {
	status := schemaOf(crd).Properties["status"]
	p.line("## Status\n")
	p.line("%s What the conditions mean is in [policy](policy.md#conditions-of-a-profile).\n", plain(status.Description))
	p.table(&status, order(&status))
	p.line("`kubectl get` prints:\n")
	p.line("| column | from | |\n|---|---|---|")
	for _, column := range crd.Spec.Versions[0].AdditionalPrinterColumns {
		wide := ""
		if column.Priority > 0 {
			wide = "with `-o wide`"
		}
		p.line("| %s | %s | %s |", column.Name, code(column.JSONPath), wide)
	}
	p.line("")
}

// rules writes the messages of rules in CEL.
func (p *page) rules(rules apiextensionsv1.ValidationRules) {
	for _, rule := range rules {
		where := ""
		if rule.FieldPath != "" {
			where = " (" + code(strings.TrimPrefix(rule.FieldPath, ".")) + ")"
		}
		p.line("- %s%s", plain(rule.Message), where)
	}
	if len(rules) > 0 {
		p.line("")
	}
}

// table writes fields of an object, and what is in them.
func (p *page) table(object *apiextensionsv1.JSONSchemaProps, fields []string) {
	p.line("| field | type | default | meaning |\n|---|---|---|---|")
	p.rows("", object, fields)
	p.line("")
}

func (p *page) rows(prefix string, object *apiextensionsv1.JSONSchemaProps, fields []string) {
	for _, field := range fields {
		property := object.Properties[field]
		path := prefix + field
		kind := typeOf(&property)
		if slices.Contains(object.Required, field) {
			kind += ", **required**"
		}
		p.line("| %s | %s | %s | %s |", code(path), kind, defaultOf(&property), meaning(&property))
		p.inside(path, &property)
	}
}

// inside writes the fields of what a field holds: an object, or each item of a list, or each value of a map.
func (p *page) inside(path string, property *apiextensionsv1.JSONSchemaProps) {
	switch {
	case isSelector(property):
	case property.Type == "array" && property.Items != nil:
		p.inside(path+"[]", property.Items.Schema)
	case property.AdditionalProperties != nil && property.AdditionalProperties.Schema != nil:
		p.inside(path+".*", property.AdditionalProperties.Schema)
	default:
		p.rows(path+".", property, order(property))
	}
}

// order is that of a table: what is required first, then by name.
func order(object *apiextensionsv1.JSONSchemaProps) []string {
	names := slices.Sorted(maps.Keys(object.Properties))
	slices.SortStableFunc(names, func(a, b string) int {
		required := func(name string) int {
			if slices.Contains(object.Required, name) {
				return 0
			}
			return 1
		}
		return required(a) - required(b)
	})
	return names
}

// anchor is the address of a heading in its page.
func anchor(heading string) string { return strings.ReplaceAll(strings.ToLower(heading), " ", "-") }
