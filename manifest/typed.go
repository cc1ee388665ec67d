package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// wrongType is what package json says of a value that a field cannot hold. The field is named without indices and keys.
var wrongType = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field \w+\.([\w.]+) of type (\S+)`)

// typeError makes the error of decoding a template one that says where the value is and what to write. YAML has many ways to write what
// is not a string: no, on, 1.20.
func (t *Template) typeError(err error) error {
	found := wrongType.FindStringSubmatch(err.Error())
	if found == nil {
		return t.Document.ErrorAt(t.Position, "the Pod template of %s is not valid: %w", t.Workload(), err)
	}
	is, want := found[1], found[3]
	path, value := findTyped(t.object, strings.Split(found[2], "."), is, "")
	if path == "" {
		return t.Document.ErrorAt(t.Position, "the Pod template of %s is not valid: %w", t.Workload(), err)
	}
	advice := "write one"
	if scalar, ok := scalarText(value); ok && want == "string" {
		advice = fmt.Sprintf("write it in quotes, if that is what is meant, as in %q", scalar)
	}
	return t.Document.ErrorAt(t.At(path), "%s: %s is %s to YAML, and has to be %s: %s", t.Workload(), path, article(is), article(want), advice)
}

// findTyped returns the path of the first value that a field's path may mean and that has a type, and the value.
func findTyped(value any, names []string, is, path string) (string, any) {
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			if at, found := findTyped(item, names, is, fmt.Sprintf("%s[%d]", path, i)); at != "" {
				return at, found
			}
		}
	case map[string]any:
		if len(names) > 0 {
			if next, there := value[names[0]]; there {
				if at, found := findTyped(next, names[1:], is, strings.TrimPrefix(path+"."+names[0], ".")); at != "" {
					return at, found
				}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(value)) { // a map's keys are not among the names
			if len(names) == 0 && typeOf(value[key]) == is {
				return path + "[" + key + "]", value[key]
			}
		}
	}
	if len(names) == 0 && typeOf(value) == is {
		return path, value
	}
	return "", nil
}

// typeOf names the type of a decoded value as package json does in its errors.
func typeOf(value any) string {
	switch value.(type) {
	case bool:
		return "bool"
	case string:
		return "string"
	case int64, float64, json.Number:
		return "number"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	default:
		return ""
	}
}

func scalarText(value any) (string, bool) {
	switch value := value.(type) {
	case bool:
		return strconv.FormatBool(value), true
	case int64, float64:
		return fmt.Sprint(value), true
	default:
		return "", false
	}
}

// article names a type of JSON, or of Go, for people.
func article(name string) string {
	switch {
	case name == "bool":
		return "a boolean"
	case name == "array", strings.HasPrefix(name, "[]"):
		return "a list"
	case name == "object", strings.HasPrefix(name, "map["), strings.HasPrefix(name, "v1."):
		return "a mapping"
	case strings.HasPrefix(name, "int"):
		return "an integer"
	default:
		return "a " + name
	}
}
