package cases

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pillion-dev/pillion/manifest"
)

// reader collects what is wrong with a document while it is read.
type reader struct {
	document *manifest.Document
	problems []Problem
}

// value is a value of a document and where it stands.
type value struct {
	in *reader
	// pointer is a JSON pointer, and field the same for people: cases[0].expect.
	pointer, field string
	content        any
}

// line returns the line of the file on which the value's key or item stands.
func (v value) line() int { return v.position().Line }

func (v value) position() manifest.Position { return v.in.document.Position(v.pointer) }

// problem notes what is wrong with the value.
func (v value) problem(format string, args ...any) {
	v.in.problems = append(v.in.problems, v.problemHere(format, args...))
}

// problemHere returns what is wrong with the value.
func (v value) problemHere(format string, args ...any) Problem {
	message := fmt.Sprintf(format, args...)
	if v.field != "" {
		message = v.field + ": " + message
	}
	at := v.position()
	return Problem{File: v.in.document.File, Line: at.Line, Column: at.Column, Message: message}
}

// under returns a value below this one.
func (v value) under(key string, content any) value {
	field := key
	if v.field != "" {
		field = v.field + "." + key
	}
	return value{in: v.in, pointer: v.pointer + "/" + escape(key), field: field, content: content}
}

// escape makes a key a token of a JSON pointer (RFC 6901).
func escape(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

// mapping returns the keys and values of a mapping; ok is false, and a problem noted, if it is none.
func (v value) mapping(example string) (content map[string]any, ok bool) {
	if content, ok = v.content.(map[string]any); !ok {
		v.problem("%s; write keys and values: %s", describe(v.content), example)
	}
	return content, ok
}

// fields returns the values of a mapping by their keys, which must be among those known.
func (v value) fields(example string, known ...string) map[string]value {
	content, ok := v.mapping(example)
	if !ok {
		return nil
	}
	fields := map[string]value{}
	for _, key := range slices.Sorted(maps.Keys(content)) {
		field := v.under(key, content[key])
		switch {
		case !slices.Contains(known, key):
			field.problem("this field is unknown%s; there are %s", meant(key, known), strings.Join(known, ", "))
		case content[key] == nil:
			field.problem("is empty; give it a value, or leave it out")
		default:
			fields[key] = field
		}
	}
	return fields
}

// has tells whether a mapping has a key, whatever its value.
func (v value) has(key string) bool {
	content, _ := v.content.(map[string]any)
	_, there := content[key]
	return there
}

// meant names the word that differs from what is written in case, in a plural or in a letter or two.
func meant(written string, known []string) string {
	for _, word := range known {
		if strings.EqualFold(written, word) || strings.EqualFold(strings.TrimSuffix(written, "s"), strings.TrimSuffix(word, "s")) {
			return fmt.Sprintf(", did you mean %s?", word)
		}
	}
	for _, word := range known {
		if len(written) > 3 && differByOne(written, word) {
			return fmt.Sprintf(", did you mean %s?", word)
		}
	}
	return ""
}

// differByOne tells whether two words are the same but for a letter that is missing, another, or swapped with its neighbor.
func differByOne(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	at := 0
	for at < len(a) && a[at] == b[at] {
		at++
	}
	switch len(b) - len(a) {
	case 0:
		return at == len(a) || a[at+1:] == b[at+1:] ||
			at+1 < len(a) && a[at] == b[at+1] && a[at+1] == b[at] && a[at+2:] == b[at+2:]
	case 1:
		return a[at:] == b[at+1:]
	default:
		return false
	}
}

// list returns the items of a list.
func (v value) list(example string) []value {
	content, ok := v.content.([]any)
	if !ok {
		v.problem("%s; write a list: %s", describe(v.content), example)
		return nil
	}
	items := make([]value, len(content))
	for i := range content {
		n := strconv.Itoa(i)
		items[i] = value{in: v.in, pointer: v.pointer + "/" + n, field: v.field + "[" + n + "]", content: content[i]}
	}
	return items
}

// text returns a string that is not empty; ok is false, and a problem noted, if it is none.
func (v value) text() (text string, ok bool) {
	text, ok = v.content.(string)
	switch {
	case !ok:
		v.problem("%s; write text%s", describe(v.content), quoted(v.content))
	case strings.TrimSpace(text) == "":
		v.problem("is empty; give it a value, or leave it out")
		ok = false
	}
	return text, ok
}

// quoted shows how what YAML takes for something else is written as text.
func quoted(content any) string {
	switch content := content.(type) {
	case bool, int64:
		return fmt.Sprintf(`, in quotes if it is meant so: "%v"`, content)
	default:
		return ""
	}
}

// texts returns the strings of a list. It is never nil: an empty list says "nothing".
func (v value) texts(example string) []string {
	texts := []string{}
	for _, item := range v.list(example) {
		text, ok := item.text()
		switch {
		case !ok:
		case slices.Contains(texts, text):
			item.problem("%q is there twice; remove one of them", text)
		default:
			texts = append(texts, text)
		}
	}
	return texts
}

// strings returns a mapping of strings, of which some may be empty: labels, annotations.
func (v value) strings(example string) map[string]string {
	content, ok := v.mapping(example)
	if !ok {
		return nil
	}
	strs := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(content)) {
		text, ok := content[key].(string)
		if !ok {
			v.under(key, content[key]).problem("%s; write text%s", describe(content[key]), quoted(content[key]))
		}
		strs[key] = text
	}
	return strs
}

// boolean returns a truth value.
func (v value) boolean() (is, ok bool) {
	if is, ok = v.content.(bool); !ok {
		v.problem("%s; write true or false", describe(v.content))
	}
	return is, ok
}

// describe says what a value is, for people.
func describe(content any) string {
	switch content := content.(type) {
	case nil:
		return "is empty"
	case string:
		const most = 40
		if len(content) > most {
			content = strings.ToValidUTF8(content[:most], "") + "…"
		}
		return fmt.Sprintf("is the text %q", content)
	case bool:
		return fmt.Sprintf("is the truth value %t", content)
	case []any:
		return "is a list"
	case map[string]any:
		return "has keys of its own"
	default:
		return fmt.Sprintf("is the number %v", content)
	}
}

// problemsOf takes errors of package manifest apart. What they do not say is taken from the place given.
func problemsOf(err error, otherwise Problem) []Problem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []Problem
		for _, err := range joined.Unwrap() {
			all = append(all, problemsOf(err, otherwise)...)
		}
		return all
	}
	if at := (*manifest.Error)(nil); errors.As(err, &at) {
		return []Problem{{File: at.File, Line: at.Line, Column: at.Column, Message: at.Err.Error()}}
	}
	otherwise.Message += err.Error()
	return []Problem{otherwise}
}
