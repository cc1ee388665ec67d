package controller

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// everything is the CEL of a selector without requirements.
const everything = "true"

// selectorCEL returns a selector as CEL over a map of labels, given as CEL. It cannot err.
func selectorCEL(labels string, selector *metav1.LabelSelector) string {
	var terms []string
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		terms = append(terms, requirementCEL(labels, metav1.LabelSelectorRequirement{
			Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{selector.MatchLabels[key]},
		}))
	}
	for _, requirement := range selector.MatchExpressions {
		terms = append(terms, requirementCEL(labels, requirement))
	}
	if len(terms) == 0 {
		return everything
	}
	return strings.Join(terms, " && ")
}

func requirementCEL(labels string, r metav1.LabelSelectorRequirement) string {
	is := fmt.Sprintf("%s in %s", literal(r.Key), labels)
	values := make([]string, len(r.Values))
	for i, value := range r.Values {
		values[i] = literal(value)
	}
	isOneOf := fmt.Sprintf("%s && %s[%s] in [%s]", is, labels, literal(r.Key), strings.Join(values, ", "))
	switch r.Operator {
	case metav1.LabelSelectorOpIn:
		return isOneOf
	case metav1.LabelSelectorOpNotIn:
		return "!(" + isOneOf + ")"
	case metav1.LabelSelectorOpExists:
		return is
	case metav1.LabelSelectorOpDoesNotExist:
		return "!(" + is + ")"
	default: // no selector that was compiled has another
		return "false"
	}
}

// literal returns a string as CEL, which has all of Go's escapes.
func literal(s string) string { return strconv.Quote(s) }
