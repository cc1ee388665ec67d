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
	return newSplicer(root, text, emptied, false).result()
}

// spliceJSON is splice for JSON.
func spliceJSON(root *yaml.Node, text []byte, emptied map[*yaml.Node]bool) ([]byte, error) {
	return newSplicer(root, text, emptied, true).result()
}

const byteOrderMark = "\ufeff"

type splicer struct {
	text      []byte
	lines     []int // where each line starts
	emptied   map[*yaml.Node]bool
	lineBreak string

	json     bool   // and not YAML
	jsonStep string // what indents JSON

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

func newSplicer(root *yaml.Node, text []byte, emptied map[*yaml.Node]bool, isJSON bool) *splicer {
	s := &splicer{text: text, emptied: emptied, lineBreak: "\n", json: isJSON}
	if bytes.Contains(text, []byte("\r\n")) {
		s.lineBreak = "\r\n"
	}
	for at := 0; at < len(text); at = lineEnd(text, at) {
		s.lines = append(s.lines, at)
	}
	s.lines = append(s.lines, len(text)) // an empty value may end the text
	if isJSON {
		s.jsonStep = jsonStep(text)
	} else {
		s.measure(root)
	}
	s.visit(root)
	return s
}

func (s *splicer) result() ([]byte, error) {
	if s.failed {
		return nil, errors.New("the text is not laid out as its structure says")
	}
	return s.edited(), nil
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
	case s.json || node.Style&yaml.FlowStyle != 0:
		s.visitFlow(node)
	case node.Kind == yaml.MappingNode:
		s.visitMapping(node)
	default:
		s.visitSequence(node)
	}
}

func (s *splicer) visitMapping(mapping *yaml.Node) {
	added := &yaml.Node{Kind: yaml.MappingNode}
	var last, lastValue *yaml.Node
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
		last, lastValue = key, value
	}
	if len(added.Content) == 0 {
		return
	}
	if last == nil { // an empty mapping that is not below a key
		s.failed = true
		return
	}
	indent := mapping.Content[0].Column - 1
	at := s.blockEnd(s.lastLine(lastValue, last.Line), func(lineIndent int, line []byte) bool { return lineIndent < indent },
		func(lineIndent int) bool { return lineIndent >= indent })
	s.insertBlock(at, indent, added)
}

func (s *splicer) visitSequence(sequence *yaml.Node) {
	indent := s.dashIndent(sequence)
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
	at := s.blockEnd(s.lastLine(last, last.Line), func(lineIndent int, line []byte) bool {
		return lineIndent < indent || (lineIndent == indent && !isItem(line))
	}, func(lineIndent int) bool { return lineIndent > indent })
	s.insertBlock(at, indent, &yaml.Node{Kind: yaml.SequenceNode, Content: added})
}

// fill writes what was added to an empty value of a block mapping below its key, and removes what stood for the emptiness. Where that is on
// another line than the key, or has comments in it, the addition takes its place.
func (s *splicer) fill(key, value *yaml.Node) {
	start := s.behindProperties(s.offset(value.Line, value.Column))
	end := s.emptyEnd(start)
	if end < start {
		s.failed = true
		return
	}
	if end > start && (value.Line > key.Line || bytes.ContainsRune(s.text[start:end], '#')) {
		s.replaceFlow(value)
		return
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
	at := s.offset(key.Line, key.Column)
	s.insertBlock(lineEnd(s.text, max(at, end)), indent, bare)
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

// lastLine returns the last line of a node that its indentation does not tell: strings in quotes, what is in brackets, and the blank
// lines that a block scalar keeps may stand anywhere. least is what it is otherwise.
func (s *splicer) lastLine(node *yaml.Node, least int) int {
	switch {
	case node.Line == 0:
		return least
	case node.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.FlowStyle) != 0 || s.emptied[node]:
		start := s.behindProperties(s.offset(node.Line, node.Column))
		end := start
		switch {
		case start >= len(s.text):
		case s.text[start] == '"', s.text[start] == '\'':
			end = s.quoteEnd(start, s.text[start])
		case s.text[start] == '{', s.text[start] == '[':
			end, _ = s.flowEnd(start)
		}
		if end > start {
			least = max(least, node.Line+bytes.Count(s.text[start:min(end, len(s.text))], []byte("\n")))
		}
	case node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		least = max(least, s.lastKept(node))
	default:
		for _, child := range node.Content {
			least = max(least, s.lastLine(child, child.Line))
		}
	}
	return least
}

// lastKept returns the last line of a block scalar that keeps the blank lines at its end ("|+"); its first line for others.
func (s *splicer) lastKept(scalar *yaml.Node) int {
	header, _, _ := bytes.Cut(s.text[s.offset(scalar.Line, scalar.Column):lineEnd(s.text, s.lineStart(scalar.Line))], []byte("#"))
	if !bytes.ContainsRune(header, '+') {
		return scalar.Line
	}
	return scalar.Line + strings.Count(scalar.Value, "\n")
}

// dashIndent returns what is ahead of the dashes of a list, which is at an anchor or a tag behind its key if it has one.
func (s *splicer) dashIndent(sequence *yaml.Node) int {
	first := slices.IndexFunc(sequence.Content, func(item *yaml.Node) bool { return item.Line > 0 })
	if at := s.offset(sequence.Line, sequence.Column); first >= 0 && at < len(s.text) && s.text[at] != '-' {
		for line := sequence.Content[first].Line; line > sequence.Line; line-- {
			content := s.line(line)
			if trimmed := bytes.TrimLeft(content, " "); isItem(trimmed) {
				return len(content) - len(trimmed)
			}
		}
	}
	return sequence.Column - 1
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
	if line == 1 && !s.json && bytes.HasPrefix(s.text, []byte(byteOrderMark)) { // which has no column
		at += len(byteOrderMark)
	}
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
	if step%2 != 0 {
		step = 2 // by one space, or three, the encoder writes lists that nobody can read
	}
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
