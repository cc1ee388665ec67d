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

	isJSON  bool
	offset  int // lines of the file before Raw
	root    *yaml.Node
	content []byte // the content as JSON
}

// Empty tells whether there is nothing in the document but comments and blanks.
func (d *Document) Empty() bool { return d.Object == nil && d.Err == nil }

// IsJSON tells whether the document is from a file of JSON.
func (d *Document) IsJSON() bool { return d.isJSON }

// Errorf returns an *Error about a line of the document. Zero means the line on which it starts.
func (d *Document) Errorf(line int, format string, args ...any) error {
	if line == 0 {
		line = d.Line
	}
	return &Error{File: d.File, Document: d.Number, Line: line, Err: fmt.Errorf(format, args...)}
}

// parse fills root, content and Object, or Err.
func (d *Document) parse() {
	root, err := d.parseTree()
	if err != nil {
		d.Err = err
		return
	}
	if root == nil {
		return
	}
	d.root = root
	d.Line = root.Line + d.offset
	if root.Kind != yaml.MappingNode {
		d.Err = d.Errorf(0, "this is no Kubernetes object: write a mapping with apiVersion and kind")
		return
	}
	if d.Err = errors.Join(d.duplicates(root)...); d.Err != nil {
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

// syntaxError makes an error of the YAML library one of the file.
func (d *Document) syntaxError(err error) error {
	line, message := d.locate(err)
	return d.Errorf(line, "this is not YAML that Kubernetes reads: %s", message)
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
		line = n + d.offset
	}
	return line, strings.TrimPrefix(message, found[0])
}

// duplicates returns an error for every key that stands twice in one mapping: decoders keep one of them, not all the same.
func (d *Document) duplicates(node *yaml.Node) []error {
	var errs []error
	if node.Kind == yaml.MappingNode {
		first := map[string]int{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if line, there := first[key.Value]; there && key.Kind == yaml.ScalarNode && key.Tag != mergeTag {
				errs = append(errs, d.Errorf(key.Line+d.offset, "the key %q is on line %d already; remove one of them",
					key.Value, line+d.offset))
				continue
			}
			first[key.Value] = key.Line
		}
	}
	for _, child := range node.Content { // an alias has no Content
		errs = append(errs, d.duplicates(child)...)
	}
	return errs
}
