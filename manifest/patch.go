package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	rfc6902 "github.com/evanphx/json-patch/v5"
	"github.com/mattbaird/jsonpatch"
	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Patch returns the text of the document with additions: RFC 6902 operations "add", at an index of a list or at a key that is
// not there. What was there stays as it is written, comments and formatting included. A document with YAML aliases is written
// anew, with the aliases replaced by what they stand for: an addition to one place must not show in another.
//
// Whatever is returned has been read back, and is exactly the document with the operations applied.
func (d *Document) Patch(operations []jsonpatch.JsonPatchOperation) ([]byte, error) {
	if len(operations) == 0 {
		return d.Raw, nil
	}
	want, err := d.patched(operations)
	if err != nil {
		return nil, err
	}
	root := cloneNode(d.root)
	e := editor{emptied: map[*yaml.Node]bool{}}
	for _, operation := range operations {
		if err := e.apply(root, operation); err != nil {
			return nil, d.Errorf(0, "add %s: %w", operation.Path, err)
		}
	}
	for _, write := range d.writers(&e) {
		text, err := write(root)
		if err == nil && d.readsAs(text, want) {
			return text, nil
		}
	}
	return nil, d.Errorf(0, "the additions cannot be written into this document; write it in plain block style, "+
		"for example by kubectl create --dry-run=client -o yaml -f")
}

// writers are the ways to write the document, the one that keeps most of its text first.
func (d *Document) writers(e *editor) []func(*yaml.Node) ([]byte, error) {
	if d.isJSON {
		return []func(*yaml.Node) ([]byte, error){
			func(root *yaml.Node) ([]byte, error) { return spliceJSON(root, d.Raw, e.emptied) },
			func(root *yaml.Node) ([]byte, error) { return formatJSON(root, d.Raw) },
		}
	}
	anew := func(root *yaml.Node) ([]byte, error) { return writeAnew(root, d.Raw) }
	if hasAlias(d.root) {
		return []func(*yaml.Node) ([]byte, error){anew}
	}
	return []func(*yaml.Node) ([]byte, error){
		func(root *yaml.Node) ([]byte, error) { return splice(root, d.Raw, e.emptied) },
		anew,
	}
}

// patched returns the content with the operations applied, by another implementation of RFC 6902.
func (d *Document) patched(operations []jsonpatch.JsonPatchOperation) (any, error) {
	encoded, err := json.Marshal(operations)
	if err != nil {
		return nil, d.Errorf(0, "encode the patch: %w", err)
	}
	patch, err := rfc6902.DecodePatch(encoded)
	if err != nil {
		return nil, d.Errorf(0, "decode the patch: %w", err)
	}
	patched, err := patch.Apply(d.content)
	if err != nil {
		return nil, d.Errorf(0, "apply the patch: %w", err)
	}
	return decodeJSON(patched)
}

func (d *Document) readsAs(text []byte, want any) bool {
	if !d.isJSON {
		var err error
		if text, err = sigsyaml.YAMLToJSON(text); err != nil {
			return false
		}
	}
	got, err := decodeJSON(text)
	return err == nil && reflect.DeepEqual(got, want)
}

func decodeJSON(data []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

// editor applies operations to a tree. What it adds has no position.
type editor struct {
	// emptied are nodes of the text that were empty ("{}", "[]", "null" or nothing) before something was added.
	emptied map[*yaml.Node]bool
}

func (e *editor) apply(root *yaml.Node, operation jsonpatch.JsonPatchOperation) error {
	tokens := splitPointer(operation.Path)
	if operation.Operation != "add" || len(tokens) == 0 {
		return fmt.Errorf("the operation %q is no addition", operation.Operation)
	}
	value, err := newNode(operation.Value)
	if err != nil {
		return err
	}
	parent := root
	for _, token := range tokens[:len(tokens)-1] {
		if _, parent = child(parent, token); parent == nil {
			return fmt.Errorf("there is no %s", token)
		}
	}
	last := tokens[len(tokens)-1]
	switch parent.Kind {
	case yaml.MappingNode:
		return e.addKey(parent, last, value)
	case yaml.SequenceNode:
		return e.addItem(parent, last, value)
	default:
		return errors.New("it is neither in an object nor in a list")
	}
}

// addKey adds a key to a mapping. A key with null is as good as absent.
func (e *editor) addKey(mapping *yaml.Node, key string, value *yaml.Node) error {
	if _, present := child(mapping, key); present != nil {
		if present.Kind != yaml.ScalarNode || present.Tag != nullTag {
			return errors.New("it is there already")
		}
		e.emptied[present] = true
		present.Kind, present.Tag, present.Value, present.Content = value.Kind, value.Tag, value.Value, value.Content
		return nil
	}
	e.adding(mapping)
	name := &yaml.Node{Kind: yaml.ScalarNode, Tag: stringTag, Value: key}
	quoteAmbiguous(name)
	mapping.Content = append(mapping.Content, name, value)
	return nil
}

func (e *editor) addItem(sequence *yaml.Node, index string, value *yaml.Node) error {
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 || i > len(sequence.Content) {
		return fmt.Errorf("the list has no place %q", index)
	}
	e.adding(sequence)
	sequence.Content = slices.Insert(sequence.Content, i, value)
	return nil
}

// adding notes an empty collection of the text before it is filled.
func (e *editor) adding(collection *yaml.Node) {
	if len(collection.Content) == 0 && collection.Line > 0 {
		e.emptied[collection] = true
		collection.Style &^= yaml.FlowStyle
	}
}

// cloneNode copies a tree, with aliases and merge keys replaced by what they stand for.
func cloneNode(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		expanded := cloneNode(node.Alias)
		forgetPositions(expanded)
		return expanded
	}
	clone := *node
	clone.Anchor = ""
	clone.Content = nil
	if node.Kind != yaml.MappingNode {
		for _, item := range node.Content {
			clone.Content = append(clone.Content, cloneNode(item))
		}
		return &clone
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := cloneNode(node.Content[i]), cloneNode(node.Content[i+1])
		if key.Tag == mergeTag {
			merged = append(merged, mergedPairs(value)...)
			continue
		}
		clone.Content = append(clone.Content, key, value)
	}
	for i := 0; i+1 < len(merged); i += 2 {
		if _, present := child(&clone, merged[i].Value); present == nil {
			clone.Content = append(clone.Content, merged[i], merged[i+1])
		}
	}
	return &clone
}

// mergedPairs returns the keys and values that a merge key takes over: those of a mapping, or of several, the first of which
// wins.
func mergedPairs(value *yaml.Node) []*yaml.Node {
	if value.Kind != yaml.SequenceNode {
		return value.Content
	}
	var pairs []*yaml.Node
	for _, mapping := range value.Content {
		pairs = append(pairs, mapping.Content...)
	}
	return pairs
}

func hasAlias(node *yaml.Node) bool {
	return node.Kind == yaml.AliasNode || slices.ContainsFunc(node.Content, hasAlias)
}
