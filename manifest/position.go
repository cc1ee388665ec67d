package manifest

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Position is a place in a file. Both count from 1, and a column counts characters; zero is unknown.
type Position struct{ Line, Column int }

// Start returns where the content of the document starts.
func (d *Document) Start() Position { return Position{d.Line, d.column} }

// Position returns where a JSON pointer (RFC 6901) leads in the document: the key of a mapping or the item of a sequence. Where that is
// not there it is the last on the way to it that is. What an alias or a merge key stands for is where it is written.
func (d *Document) Position(pointer string) Position {
	at, position := d.root, d.Start()
	for _, token := range splitPointer(pointer) {
		start, value := child(at, token)
		if value == nil {
			break
		}
		at, position = value, d.positionOf(start)
	}
	return position
}

// FieldPosition is Position for a path as package field of Kubernetes writes it ("spec.after[0]", "metadata.annotations[a/b]"), from the
// object that a JSON pointer leads to: an item of a List, or "" for the document.
func (d *Document) FieldPosition(object, path string) Position {
	at, position := d.nodeAt(object), d.Position(object)
	for at != nil && path != "" {
		token, rest := cutField(at, path)
		start, value := child(at, token)
		if value == nil {
			break
		}
		at, path, position = value, rest, d.positionOf(start)
	}
	return position
}

func (d *Document) positionOf(node *yaml.Node) Position {
	return Position{d.fileLine(node.Line), d.columnOf(node)}
}

// fileLine returns the line of the file for one of the document, as the YAML library counts: to it more than line feeds break lines, which
// are all that others count.
func (d *Document) fileLine(line int) int {
	if !d.otherBreaks {
		return line + d.offset
	}
	feeds := 0
	for i, r := range string(d.Raw) {
		if line <= 1 {
			break
		}
		switch {
		case r == '\n':
			line--
			feeds++
		case r == '\r' && !bytes.HasPrefix(d.Raw[i+1:], []byte("\n")), r == '\u0085', r == '\u2028', r == '\u2029':
			line--
		}
	}
	return 1 + feeds + d.offset
}

// hasOtherBreaks tells whether YAML breaks lines of a text where there is no line feed.
func hasOtherBreaks(text []byte) bool {
	for _, other := range []string{"\u0085", "\u2028", "\u2029"} {
		if bytes.Contains(text, []byte(other)) {
			return true
		}
	}
	return bytes.Count(text, []byte("\r")) > bytes.Count(text, []byte("\r\n"))
}

// columnOf returns the column of a node in the file: one on the line on which the document starts may have another before it.
func (d *Document) columnOf(node *yaml.Node) int {
	switch {
	case d.otherBreaks: // it counts from one of them
		return 0
	case node.Line == 1:
		return node.Column + d.indent
	default:
		return node.Column
	}
}

// nodeAt returns the node that a JSON pointer leads to, nil if there is none.
func (d *Document) nodeAt(pointer string) *yaml.Node {
	at := d.root
	for _, token := range splitPointer(pointer) {
		if at == nil {
			return nil
		}
		_, at = child(at, token)
	}
	return at
}

// cutField takes the first part off a field's path: an index or a key in brackets, or a name. Keys may have dots and brackets
// themselves, so the longest key of the mapping that the path starts with is meant.
func cutField(at *yaml.Node, path string) (token, rest string) {
	if inside, ok := strings.CutPrefix(path, "["); ok {
		token, rest, _ = strings.Cut(inside, "]")
		return token, rest
	}
	path = strings.TrimPrefix(path, ".")
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		end = len(path)
	}
	for _, key := range keysOf(at) {
		after, ok := strings.CutPrefix(path, key)
		if ok && len(key) > end && (after == "" || after[0] == '.' || after[0] == '[') {
			end = len(key)
		}
	}
	return path[:end], path[end:]
}

// keysOf returns the keys of a mapping.
func keysOf(node *yaml.Node) []string {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	var keys []string
	if node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(node.Content); i += 2 {
			keys = append(keys, node.Content[i].Value)
		}
	}
	return keys
}

// child returns the value of a mapping's key, or the item of a sequence, and the node that it starts with; nil if there is none.
func child(node *yaml.Node, token string) (start, value *yaml.Node) {
	switch node.Kind {
	case yaml.AliasNode:
		return child(node.Alias, token)
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == token {
				return node.Content[i], node.Content[i+1]
			}
		}
		return mergedChild(node, token)
	case yaml.SequenceNode:
		if i, ok := index(token); ok && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
	}
	return nil, nil
}

// mergedChild returns the value of a key that a mapping has by a merge key ("<<").
func mergedChild(mapping *yaml.Node, token string) (start, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Tag != mergeTag {
			continue
		}
		merged := mapping.Content[i+1]
		for merged.Kind == yaml.AliasNode {
			merged = merged.Alias
		}
		from := []*yaml.Node{merged}
		if merged.Kind == yaml.SequenceNode {
			from = merged.Content
		}
		for _, mapping := range from {
			if start, value = child(mapping, token); value != nil {
				return start, value
			}
		}
	}
	return nil, nil
}

// positionAt returns where an offset is in a text that starts at a position.
func positionAt(text []byte, offset int) Position {
	before := text[:offset]
	line := bytes.LastIndexByte(before, '\n') + 1
	return Position{1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[line:])}
}

// lineText returns the text of a line of the document's file, without its line break; nil if the document does not reach there.
func (d *Document) lineText(line int) []byte {
	n := line - d.offset
	for at := 0; at < len(d.Raw) && n > 0; n-- {
		end := lineEnd(d.Raw, at)
		if n == 1 {
			return bytes.TrimRight(d.Raw[at:end], "\r\n")
		}
		at = end
	}
	return nil
}

// Keys returns the keys of the mapping that a JSON pointer leads to, as they are written; none if there is no mapping.
func (d *Document) Keys(pointer string) []string {
	if node := d.nodeAt(pointer); node != nil {
		return slices.Clone(keysOf(node))
	}
	return nil
}
