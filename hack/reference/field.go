package main

import (
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// durations begins the pattern of what is a duration.
const durations = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`

func isSelector(property *apiextensionsv1.JSONSchemaProps) bool {
	_, labels := property.Properties["matchLabels"]
	_, expressions := property.Properties["matchExpressions"]
	return labels && expressions
}

// typeOf names the type of a field as people write it.
func typeOf(property *apiextensionsv1.JSONSchemaProps) string {
	switch {
	case isSelector(property):
		return "label selector"
	case property.XIntOrString:
		return "quantity"
	case property.Type == "string" && property.Pattern == durations:
		return "duration"
	case property.Format == "date-time":
		return "time"
	case property.Type == "array" && property.Items != nil:
		if property.Items.Schema.Type == "object" {
			return "list of objects"
		}
		return "list of " + plural(typeOf(property.Items.Schema))
	case property.AdditionalProperties != nil && property.AdditionalProperties.Schema != nil:
		return "map of " + plural(typeOf(property.AdditionalProperties.Schema))
	case property.Type == "":
		return "any"
	}
	return property.Type
}

func plural(name string) string {
	if before, found := strings.CutSuffix(name, "y"); found {
		return before + "ies"
	}
	return name + "s"
}

func defaultOf(property *apiextensionsv1.JSONSchemaProps) string {
	if property.Default == nil {
		return ""
	}
	return code(strings.Trim(string(property.Default.Raw), `"`))
}

// meaning is the description of a field, its bounds, and the messages of its rules.
func meaning(property *apiextensionsv1.JSONSchemaProps) string {
	parts := []string{}
	if property.Description != "" {
		parts = append(parts, plain(property.Description))
	}
	own := bounds(property)
	if list := property.Items; list != nil && list.Schema != nil && len(list.Schema.Properties) == 0 {
		for _, bound := range bounds(list.Schema) {
			own = append(own, "each "+bound)
		}
		own = append(own, messages(list.Schema)...)
	}
	if values := property.AdditionalProperties; values != nil && values.Schema != nil && len(values.Schema.Properties) == 0 {
		for _, bound := range bounds(values.Schema) {
			own = append(own, "each "+bound)
		}
		own = append(own, messages(values.Schema)...)
	}
	own = append(own, messages(property)...)
	for i := range own {
		own[i] = "• " + own[i]
	}
	return strings.Join(append(parts, own...), "<br>")
}

// messages are those of the rules of a field, and of an object in a list.
func messages(property *apiextensionsv1.JSONSchemaProps) []string {
	var all []string
	for _, rule := range property.XValidations {
		where := ""
		if rule.FieldPath != "" {
			where = code(strings.TrimPrefix(rule.FieldPath, ".")) + ": "
		}
		all = append(all, where+plain(rule.Message))
	}
	if property.Items != nil && property.Items.Schema != nil && len(property.Items.Schema.Properties) > 0 {
		all = append(all, messages(property.Items.Schema)...)
	}
	return all
}

// bounds are what the schema itself says of values.
func bounds(property *apiextensionsv1.JSONSchemaProps) []string {
	var all []string
	if len(property.Enum) > 0 {
		values := make([]string, len(property.Enum))
		for i := range property.Enum {
			values[i] = code(strings.Trim(string(property.Enum[i].Raw), `"`))
		}
		all = append(all, "one of "+strings.Join(values, ", "))
	}
	all = append(all, between(property.Minimum, property.Maximum, "")...)
	if property.Pattern != durations && property.Format != "date-time" {
		all = append(all, between(property.MinLength, property.MaxLength, " characters")...)
	}
	all = append(all, between(property.MinItems, property.MaxItems, " items")...)
	all = append(all, between(property.MinProperties, property.MaxProperties, " entries")...)
	if property.XListType != nil && *property.XListType == "set" {
		all = append(all, "none twice")
	}
	if property.Pattern != "" && property.Pattern != durations && !property.XIntOrString {
		all = append(all, "matches "+code(property.Pattern))
	}
	return all
}

// between says what a minimum and a maximum allow.
func between[N int64 | float64](least, most *N, unit string) []string {
	switch {
	case least != nil && most != nil:
		return []string{fmt.Sprintf("from %v to %v%s", number(*least), number(*most), unit)}
	case least != nil:
		return []string{fmt.Sprintf("at least %v%s", number(*least), unit)}
	case most != nil:
		return []string{fmt.Sprintf("at most %v%s", number(*most), unit)}
	}
	return nil
}

// number writes 65535 so, and not as 65535e+00.
func number[N int64 | float64](n N) int64 { return int64(n) }
