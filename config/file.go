package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The tags that a YAML scalar gets by its form, or by being written so.
const (
	tagString = "!!str"
	tagInt    = "!!int"
	tagBool   = "!!bool"
	tagNull   = "!!null"
)

// file reads the configuration file. viper folds the case of keys and keeps the last of several, so that the nodes are read here.
func (f *findings) file(path string, content []byte) []setting {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		f.add(path, "", "is empty; write a key such as logLevel, or name no file")
		return nil
	case err != nil:
		f.add(path, "", "is no YAML: %v", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		f.add(path, "", "holds more than one document; only the first would be read")
	}
	reader := &fileReader{findings: f, path: path, byPath: map[string]key{}}
	for _, key := range keys() {
		reader.byPath[key.path] = key
	}
	reader.mapping("", document.Content[0])
	return reader.settings
}

type fileReader struct {
	*findings
	path     string
	byPath   map[string]key
	settings []setting
}

// at returns the place of a node.
func (r *fileReader) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", r.path, node.Line) }

// mapping reads the keys below a path, which is empty for the whole file.
func (r *fileReader) mapping(path string, node *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		r.add(r.at(node), path, "%s; write keys and values here, such as \"namespace: pillion-system\"", describe(node))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if name.Kind != yaml.ScalarNode || name.ShortTag() != tagString {
			r.add(r.at(name), path, "a key that %s; keys are words", describe(name))
			continue
		}
		child := name.Value
		if path != "" {
			child = path + "." + name.Value
		}
		folded := strings.ToLower(name.Value)
		if line, ok := lines[folded]; ok {
			r.add(r.at(name), child, "is given twice, in line %d too", line)
			continue
		}
		lines[folded] = name.Line
		r.child(child, name, value)
	}
}

// child reads the value of one key.
func (r *fileReader) child(path string, name, value *yaml.Node) {
	key, known := r.byPath[path]
	switch {
	case strings.Contains(name.Value, "."): // would read as one path with its parents
		r.add(r.at(name), path, "unknown key; write one key below the other rather than a dot")
	case known:
		parsed, err := fromNode(key, value)
		r.settings = append(r.settings, r.accept(key, parsed, err, r.at(name))...)
	case r.isSection(path):
		if value.Kind == yaml.ScalarNode && value.ShortTag() == tagNull {
			r.add(r.at(name), path, "is empty; write keys below it, or leave it out")
			return
		}
		r.mapping(path, value)
	default:
		r.add(r.at(name), path, "unknown key%s", suggestion(path, spellPath))
	}
}

func (r *fileReader) isSection(path string) bool {
	for known := range r.byPath {
		if strings.HasPrefix(known, path+".") {
			return true
		}
	}
	return false
}

// fromNode returns the value of a key in the file. Types are those of YAML: a number in quotes is a string.
func fromNode(key key, node *yaml.Node) (any, error) {
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		return nil, errors.New("anchors and aliases are not supported; write the value itself")
	}
	if node.Kind == yaml.ScalarNode && (node.ShortTag() == tagNull || node.ShortTag() == tagString && node.Value == "") {
		return nil, errors.New("is empty; give it a value, or leave it out")
	}
	switch key.value.(type) {
	case bool:
		if isScalar(node, tagBool) {
			return parseBool(strings.ToLower(node.Value))
		}
		return nil, fmt.Errorf("%s; write true or false", describe(node))
	case int64:
		if isScalar(node, tagInt) {
			return parse(key, node.Value)
		}
		return nil, fmt.Errorf("%s; write a whole number", describe(node))
	case time.Duration:
		isOff := key.off != "" && isScalar(node, tagInt) && node.Value == "0"
		if isScalar(node, tagString) || isOff {
			return parse(key, node.Value)
		}
		return nil, fmt.Errorf("%s; write a duration, for example 500ms, 10s or 1h30m", describe(node))
	case []string:
		return list(node)
	default:
		if isScalar(node, tagString) {
			return parse(key, node.Value)
		}
		return nil, fmt.Errorf("%s; write a string, in quotes if it looks like something else", describe(node))
	}
}

func list(node *yaml.Node) (any, error) {
	if node.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s; write a list, for example [first, second]", describe(node))
	}
	items := make([]string, 0, len(node.Content))
	var errs []error
	for _, item := range node.Content {
		switch {
		case item.Anchor != "" || !isScalar(item, tagString):
			errs = append(errs, fmt.Errorf("line %d: %s; write a string", item.Line, describe(item)))
		case item.Value == "":
			errs = append(errs, fmt.Errorf("line %d: an empty item; leave it out", item.Line))
		default:
			items = append(items, item.Value)
		}
	}
	return items, join(errs)
}

func isScalar(node *yaml.Node, tag string) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == tag
}

// describe says what a node is, for people.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "has keys of its own"
	case yaml.SequenceNode:
		return "is a list"
	case yaml.AliasNode:
		return "is an alias"
	default:
		switch node.ShortTag() {
		case tagString:
			return fmt.Sprintf("is the string %q", node.Value)
		case tagInt, "!!float":
			return "is the number " + node.Value
		case tagBool:
			return "is the truth value " + node.Value
		case tagNull:
			return "is empty"
		default:
			return "is of the type " + node.ShortTag()
		}
	}
}
