package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// splice returns the text that a tree was parsed from, with what has been added to the tree (it has no position) put in where
// it belongs. It relies on the text's being indented as people do; the caller reads the result back and so finds out.
func splice(root *yaml.Node, text []byte, emptied map[*yaml.Node]bool) ([]byte, error) {
	s := &splicer{text: text, emptied: emptied, lineBreak: "\n"}
	if bytes.Contains(text, []byte("\r\n")) {
		s.lineBreak = "\r\n"
	}
	s.measure(root)
	for at := 0; at < len(text); at = lineEnd(text, at) {
		s.lines = append(s.lines, at)
	}
	s.lines = append(s.lines, len(text)) // an empty value may end the text
	s.visit(root)
	if s.failed {
		return nil, errors.New("the text is not laid out as its structure says")
	}
	return s.edited(), nil
}

type splicer struct {
	text      []byte
	lines     []int // where each line starts
	emptied   map[*yaml.Node]bool
	lineBreak string

	step    int  // columns by which a mapping is indented below its key
	compact bool // lists stand below the first letter of their key, as kubectl writes them
	edits   []edit
	failed  bool
}

// edit replaces a part of the text, which may be empty.
type edit struct {
	start, end int
	text       string
}

// measure finds out how the text is indented, from the first mapping and the first list below a key.
func (s *splicer) measure(root *yaml.Node) {
	var step, list int
	var visit func(node *yaml.Node)
	visit = func(node *yaml.Node) {
		for i, value := range node.Content {
			if node.Kind == yaml.MappingNode && i%2 == 1 && node.Content[i-1].Line > 0 && value.Line > node.Content[i-1].Line {
				indent := value.Column - node.Content[i-1].Column
				switch {
				case value.Kind == yaml.MappingNode && step == 0:
					step = indent
				case value.Kind == yaml.SequenceNode && list == 0:
					list = indent + 1
				}
			}
			visit(value)
		}
	}
	visit(root)
	s.step, s.compact = cmp.Or(max(step, 0), 2), list <= 1
}

// visit finds what has been added below a node of the text.
func (s *splicer) visit(node *yaml.Node) {
	switch {
	case node.Kind != yaml.MappingNode && node.Kind != yaml.SequenceNode:
	case node.Style&yaml.FlowStyle != 0:
		s.visitFlow(node)
	case node.Kind == yaml.MappingNode:
		s.visitMapping(node)
	default:
		s.visitSequence(node)
	}
}

func (s *splicer) visitMapping(mapping *yaml.Node) {
	added := &yaml.Node{Kind: yaml.MappingNode}
	var last *yaml.Node
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		switch {
		case key.Line == 0:
			added.Content = append(added.Content, key, value)
			continue
		case s.emptied[value]:
			s.fill(key, value)
		default:
			s.visit(value)
		}
		last = key
	}
	if len(added.Content) == 0 {
		return
	}
	if last == nil { // an empty mapping that is not below a key
		s.failed = true
		return
	}
	indent := mapping.Content[0].Column - 1
	at := s.blockEnd(last.Line, func(lineIndent int, line []byte) bool { return lineIndent < indent },
		func(lineIndent int) bool { return lineIndent >= indent })
	s.insertBlock(at, indent, added)
}

func (s *splicer) visitSequence(sequence *yaml.Node) {
	indent := sequence.Column - 1
	var added []*yaml.Node
	var last *yaml.Node
	for _, item := range sequence.Content {
		if item.Line == 0 {
			added = append(added, item)
			continue
		}
		if len(added) > 0 {
			s.insertBlock(s.itemStart(item, indent), indent, &yaml.Node{Kind: yaml.SequenceNode, Content: added})
			added = nil
		}
		s.visit(item)
		last = item
	}
	if len(added) == 0 {
		return
	}
	if last == nil {
		s.failed = true
		return
	}
	at := s.blockEnd(last.Line, func(lineIndent int, line []byte) bool {
		return lineIndent < indent || (lineIndent == indent && !isItem(line))
	}, func(lineIndent int) bool { return lineIndent > indent })
	s.insertBlock(at, indent, &yaml.Node{Kind: yaml.SequenceNode, Content: added})
}

// fill writes what was added to an empty value of a block mapping below its key, and removes what stood for the emptiness.
func (s *splicer) fill(key, value *yaml.Node) {
	start := s.offset(value.Line, value.Column)
	end := start
	switch rest := s.text[start:]; {
	case bytes.HasPrefix(rest, []byte("null")):
		end += len("null")
	case bytes.HasPrefix(rest, []byte("~")):
		end++
	case len(rest) > 0 && (rest[0] == '{' || rest[0] == '['):
		end = s.flowEnd(start) + 1
	}
	if end > start {
		for start > 0 && s.text[start-1] == ' ' {
			start--
		}
		s.edits = append(s.edits, edit{start: start, end: end})
	}
	indent := key.Column - 1
	if value.Kind == yaml.MappingNode || !s.compact {
		indent += s.step
	}
	bare := &yaml.Node{Kind: value.Kind, Content: value.Content} // its comments are in the text
	s.insertBlock(lineEnd(s.text, s.offset(key.Line, key.Column)), indent, bare)
}

// insertBlock puts a node's text on lines of its own.
func (s *splicer) insertBlock(at, indent int, node *yaml.Node) {
	block, err := encodeBlock(node, s.step, s.compact)
	if err != nil || at < 0 {
		s.failed = true
		return
	}
	text := &strings.Builder{}
	if at > 0 && s.text[at-1] != '\n' {
		text.WriteString(s.lineBreak)
	}
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if line != "" {
			text.WriteString(strings.Repeat(" ", indent))
		}
		text.WriteString(line)
		text.WriteString(s.lineBreak)
	}
	s.edits = append(s.edits, edit{at, at, text.String()})
}

// blockEnd returns the offset behind the last line of a block: scanning starts behind a line of it and ends at a line that is
// outside. Comments behind the last line belong to the block if their indentation says so.
func (s *splicer) blockEnd(line int, outside func(int, []byte) bool, commentInside func(int) bool) int {
	end := lineEnd(s.text, s.lineStart(line))
	for at := end; at < len(s.text); {
		next := lineEnd(s.text, at)
		content := s.text[at:next]
		trimmed := bytes.TrimLeft(content, " ")
		indent := len(content) - len(trimmed)
		switch {
		case len(bytes.TrimSpace(content)) == 0: // blank lines belong to what follows them
		case isDocumentStart(content), bytes.HasPrefix(content, []byte("...")):
			return end
		case trimmed[0] == '#':
			if commentInside(indent) {
				end = next
			}
		case outside(indent, trimmed):
			return end
		default:
			end = next
		}
		at = next
	}
	return end
}

// itemStart returns the offset of the line that starts an item of a block list, or of the comments right above it.
func (s *splicer) itemStart(item *yaml.Node, indent int) int {
	line := item.Line
	for ; line > 0; line-- {
		content := s.line(line)
		if trimmed := bytes.TrimLeft(content, " "); len(content)-len(trimmed) == indent && isItem(trimmed) {
			break
		}
	}
	if line == 0 {
		return -1
	}
	for line > 1 && bytes.HasPrefix(bytes.TrimSpace(s.line(line-1)), []byte("#")) {
		line--
	}
	return s.lineStart(line)
}

func isItem(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("-"))
	return ok && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])))
}

// visitFlow writes what was added to a collection in brackets as JSON, which YAML includes.
func (s *splicer) visitFlow(node *yaml.Node) {
	step := 1
	if node.Kind == yaml.MappingNode {
		step = 2
	}
	var added [][]byte
	original := 0
	for i := 0; i+step <= len(node.Content); i += step {
		entry := node.Content[i : i+step]
		value := entry[step-1]
		switch {
		case entry[0].Line == 0:
			added = append(added, flowEntry(entry))
			continue
		case len(added) > 0: // only lists gain something ahead of what they have
			at := s.offset(entry[0].Line, entry[0].Column)
			s.edits = append(s.edits, edit{at, at, string(bytes.Join(added, []byte(", "))) + ", "})
			added = nil
		}
		original++
		if s.emptied[value] {
			s.replaceFlow(value)
		} else {
			s.visit(value)
		}
	}
	if len(added) > 0 {
		s.appendFlow(node, original > 0, added)
	}
}

func flowEntry(entry []*yaml.Node) []byte {
	if len(entry) == 1 {
		return compactJSON(entry[0])
	}
	return slices.Concat(compactJSON(entry[0]), []byte(": "), compactJSON(entry[1]))
}

// replaceFlow writes what was added to an empty value in its place.
func (s *splicer) replaceFlow(value *yaml.Node) {
	start := s.offset(value.Line, value.Column)
	end := start + bytes.IndexAny(s.text[start:], ",}] \t\r\n")
	if rest := s.text[start:]; len(rest) > 0 && (rest[0] == '{' || rest[0] == '[') {
		end = s.flowEnd(start) + 1
	}
	if end < start {
		s.failed = true
		return
	}
	s.edits = append(s.edits, edit{start, end, string(compactJSON(value))})
}

// appendFlow writes entries ahead of the closing bracket.
func (s *splicer) appendFlow(node *yaml.Node, comma bool, added [][]byte) {
	at := s.flowEnd(s.offset(node.Line, node.Column))
	if at < 0 {
		s.failed = true
		return
	}
	before := bytes.TrimRight(s.text[:at], " \t\r\n")
	text := string(bytes.Join(added, []byte(", ")))
	switch {
	case bytes.HasSuffix(before, []byte(",")):
		text = " " + text
	case comma:
		text = ", " + text
	}
	s.edits = append(s.edits, edit{len(before), len(before), text})
}

// flowEnd returns the offset of the bracket that closes the one at an offset; -1 if it is not found.
func (s *splicer) flowEnd(open int) int {
	depth := 0
	fresh := true // a quote here opens a quoted scalar; inside a plain one it is a letter
	for at := open; at < len(s.text); at++ {
		switch c := s.text[at]; c {
		case '{', '[':
			depth++
			fresh = true
		case '}', ']':
			depth--
			if depth == 0 {
				return at
			}
			fresh = false
		case ',', ':':
			fresh = true
		case ' ', '\t', '\r', '\n':
		case '#':
			if strings.IndexByte(" \t\n", s.text[at-1]) >= 0 {
				at = lineEnd(s.text, at) - 1
			}
		case '"', '\'':
			if fresh {
				at = s.quoteEnd(at, c)
			}
			fresh = false
		default:
			fresh = false
		}
	}
	return -1
}

// quoteEnd returns the offset of the quote that closes the one at an offset.
func (s *splicer) quoteEnd(open int, quote byte) int {
	for at := open + 1; at < len(s.text); at++ {
		switch {
		case s.text[at] == '\\' && quote == '"':
			at++
		case s.text[at] == quote && quote == '\'' && at+1 < len(s.text) && s.text[at+1] == quote:
			at++
		case s.text[at] == quote:
			return at
		}
	}
	return len(s.text)
}

// line returns a line, which counts from 1.
func (s *splicer) line(line int) []byte {
	start := s.lineStart(line)
	return s.text[start:lineEnd(s.text, start)]
}

// lineStart returns where a line starts. YAML breaks lines at more characters than a text has line feeds; then this fails.
func (s *splicer) lineStart(line int) int {
	if line > len(s.lines) {
		s.failed = true
		return len(s.text)
	}
	return s.lines[line-1]
}

// offset returns where a line and a column, which counts characters, are in the text.
func (s *splicer) offset(line, column int) int {
	at := s.lineStart(line)
	for range column - 1 {
		if at >= len(s.text) {
			break
		}
		_, size := utf8.DecodeRune(s.text[at:])
		at += size
	}
	return at
}

// edited returns the text with the edits, which do not overlap.
func (s *splicer) edited() []byte {
	slices.SortStableFunc(s.edits, func(a, b edit) int { return a.start - b.start })
	var out []byte
	at := 0
	for _, edit := range s.edits {
		if edit.start < at {
			continue // reading the text back will show that it is missing
		}
		out = append(append(out, s.text[at:edit.start]...), edit.text...)
		at = edit.end
	}
	return append(out, s.text[at:]...)
}

// encodeBlock writes a tree in block style.
func encodeBlock(node *yaml.Node, step int, compact bool) (string, error) {
	out := &bytes.Buffer{}
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(step)
	if compact {
		encoder.CompactSeqIndent()
	}
	if err := encoder.Encode(node); err != nil {
		return "", err
	}
	return out.String(), encoder.Close()
}

// writeAnew writes a whole tree, with the separator and the indentation of the text that it was parsed from.
func writeAnew(root *yaml.Node, text []byte) ([]byte, error) {
	s := &splicer{}
	s.measure(root)
	block, err := encodeBlock(root, s.step, s.compact)
	if err != nil {
		return nil, err
	}
	if first, _, _ := bytes.Cut(text, []byte("\n")); isDocumentStart(first) {
		block = "---\n" + block
	}
	if bytes.Contains(text, []byte("\r\n")) {
		block = strings.ReplaceAll(block, "\n", "\r\n")
	}
	return []byte(block), nil
}
