package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// Document is one document of a file.
type Document struct {
	// File is the file's name, for messages.
	File string
	// Number counts the documents of the file from 1; zero if this one is empty.
	Number int
	// Line is the line of the file on which its content starts.
	Line int
	// Raw is its text, the line that separates it from the one before it included.
	Raw []byte
	// Object is its content as the API server would decode it. nil if it is empty or Err is set.
	Object map[string]any
	// Err is why it cannot be used: an *Error, or several joined.
	Err error

	isJSON bool
	offset int // lines of the file before Raw
	indent int // characters before Raw on the line on which it starts
	column int // in which the content starts
	// otherBreaks says that YAML breaks lines where there is no line feed.
	otherBreaks bool
	root        *yaml.Node
	content     []byte // the content as JSON
}

// Empty tells whether there is nothing in the document but comments and blanks.
func (d *Document) Empty() bool { return d.Object == nil && d.Err == nil }

// IsJSON tells whether the document is from a file of JSON.
func (d *Document) IsJSON() bool { return d.isJSON }

// JSON returns the content as JSON; nil if there is none that can be used.
func (d *Document) JSON() []byte {
	if d.Object == nil {
		return nil
	}
	return d.content
}

// Errorf returns an *Error about a line of the document. Zero means the line on which it starts.
func (d *Document) Errorf(line int, format string, args ...any) error {
	if line == 0 {
		return d.ErrorAt(d.Start(), format, args...)
	}
	return d.ErrorAt(Position{Line: line}, format, args...)
}

// ErrorAt returns an *Error about a place in the document.
func (d *Document) ErrorAt(at Position, format string, args ...any) error {
	return &Error{File: d.File, Document: d.Number, Line: at.Line, Column: at.Column, Err: fmt.Errorf(format, args...)}
}

// parse fills root, content and Object, or Err.
func (d *Document) parse() {
	if isNothing(d.Raw) {
		return
	}
	if n := values(d.Raw); n > maxValues {
		d.Err = d.Errorf(0, "the document has more than %d lines and values, which no manifest has", maxValues)
		return
	}
	d.otherBreaks = !d.isJSON && hasOtherBreaks(d.Raw)
	root, err := d.parseTree()
	if err != nil {
		d.Err = err
		return
	}
	if root == nil {
		return
	}
	d.root = root
	d.Line, d.column = d.fileLine(root.Line), d.columnOf(root)
	if root.Kind != yaml.MappingNode {
		d.Err = d.Errorf(0, "%w", ErrNoObject)
		return
	}
	if d.Err = errors.Join(d.duplicates(root, nil)...); d.Err != nil {
		return
	}
	if d.isJSON {
		d.content = d.Raw
	} else if d.content, err = sigsyaml.YAMLToJSON(d.Raw); err != nil {
		d.Err = d.syntaxError(err)
		return
	}
	if err := utiljson.Unmarshal(d.content, &d.Object); err != nil {
		d.Object, d.Err = nil, d.Errorf(0, "%w", err)
	}
}

// parseTree returns the content of the document as a tree, nil if there is none.
func (d *Document) parseTree() (*yaml.Node, error) {
	if d.isJSON {
		root, err := parseJSON(d.Raw)
		if err != nil {
			return nil, d.Errorf(0, "%w", err)
		}
		return root, nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(d.Raw))
	document := &yaml.Node{}
	if err := decoder.Decode(document); err != nil {
		if isEOF(err) {
			return nil, nil //nolint:nilnil // nothing there is no error
		}
		return nil, d.syntaxError(err)
	}
	if err := decoder.Decode(&yaml.Node{}); !isEOF(err) {
		if at, ok := unrendered(d.Raw); ok {
			return nil, d.unrendered(at)
		}
		line, _ := d.locate(err)
		return nil, d.Errorf(line, `another document follows "..."; start it with a line "---"`)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil //nolint:nilnil // nothing there is no error
	}
	return root, nil
}

var lineInMessage = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?(?:line (\d+): )?`)

// syntaxError makes an error of the YAML library one of the file. A template is told as such, whatever the library stumbled over.
func (d *Document) syntaxError(err error) error {
	if at, ok := unrendered(d.Raw); ok {
		return d.unrendered(at)
	}
	line, message := d.locate(err)
	at := Position{Line: line}
	if line == 0 {
		at = d.Start()
	}
	if indent := bytes.TrimLeft(d.lineText(line), " "); len(indent) > 0 && indent[0] == '\t' {
		at.Column = 1 + len(d.lineText(line)) - len(indent)
		message += "; indent by spaces, not by tabs"
	}
	if strings.Contains(message, "control characters are not allowed") {
		place, found := controlCharacter(d.Raw)
		at = Position{place.Line + d.offset, place.Column}
		message = fmt.Sprintf("the control character %U is not allowed; remove it, or write it as an escape in double quotes", found)
	}
	return d.ErrorAt(at, "this is not YAML that Kubernetes reads: %s", message)
}

func (d *Document) unrendered(at Position) error {
	return d.ErrorAt(Position{at.Line + d.offset, at.Column}, "%w", ErrUnrendered)
}

// locate takes the line out of an error of the YAML library, whose lines count from the document. The line that it returns counts
// from the file; zero if there is none.
func (d *Document) locate(err error) (line int, message string) {
	if err == nil {
		return 0, ""
	}
	message = strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	found := lineInMessage.FindStringSubmatch(message)
	if n, err := strconv.Atoi(found[1]); err == nil {
		line = d.fileLine(n)
	}
	return line, strings.TrimPrefix(message, found[0])
}

// duplicates adds an error for every key that stands twice in one mapping: decoders keep one of them, not all the same.
func (d *Document) duplicates(node *yaml.Node, errs []error) []error {
	if node.Kind == yaml.MappingNode {
		first := make(map[string]int, len(node.Content)/2)
		for i := 0; i+1 < len(node.Content) && len(errs) < maxErrors; i += 2 {
			key := node.Content[i]
			if line, there := first[key.Value]; there && key.Kind == yaml.ScalarNode && key.Tag != mergeTag {
				errs = append(errs, d.ErrorAt(d.positionOf(key), "the key %q is on line %d already; remove one of them",
					key.Value, d.fileLine(line)))
				continue
			}
			first[key.Value] = key.Line
		}
	}
	for _, child := range node.Content { // an alias has no Content
		errs = d.duplicates(child, errs)
	}
	return errs
}
