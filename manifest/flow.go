package manifest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// visitFlow writes what was added to a collection in brackets as JSON, which YAML includes.
func (s *splicer) visitFlow(node *yaml.Node) {
	step := 1
	if node.Kind == yaml.MappingNode {
		step = 2
	}
	var added [][]*yaml.Node
	original := 0
	for i := 0; i+step <= len(node.Content); i += step {
		entry := node.Content[i : i+step]
		value := entry[step-1]
		switch {
		case entry[0].Line == 0:
			added = append(added, entry)
			continue
		case len(added) > 0: // only lists gain something ahead of what they have
			at := s.offset(entry[0].Line, entry[0].Column)
			separator := s.separatorAt(at)
			s.edits = append(s.edits, edit{at, at, s.flowEntries(added, separator) + "," + separator})
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

// separatorAt returns what separates the entry at an offset from the one before: a line break and the indentation, where JSON has an
// entry on each line, or else a space.
func (s *splicer) separatorAt(at int) string {
	start := bytes.LastIndexByte(s.text[:at], '\n') + 1
	if indent := s.text[start:at]; s.json && start > 0 && len(bytes.TrimSpace(indent)) == 0 {
		return s.lineBreak + string(indent)
	}
	return " "
}

// flowEntries writes entries of a collection, on lines of their own if that is what separates them.
func (s *splicer) flowEntries(entries [][]*yaml.Node, separator string) string {
	var texts []string
	for _, entry := range entries {
		value := entry[len(entry)-1]
		text := s.flowValue(value, separator)
		if len(entry) == 2 {
			text = string(compactJSON(entry[0])) + ": " + text
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ","+separator)
}

// flowValue writes a value on one line, or indented as the entries around it.
func (s *splicer) flowValue(value *yaml.Node, separator string) string {
	text := compactJSON(value)
	if separator == " " {
		return string(text)
	}
	out := &bytes.Buffer{}
	if err := json.Indent(out, text, strings.TrimPrefix(separator, s.lineBreak), s.jsonStep); err != nil {
		s.failed = true
	}
	return strings.ReplaceAll(out.String(), "\n", s.lineBreak)
}

// replaceFlow writes what was added to an empty value in its place, or into it if it is brackets with comments.
func (s *splicer) replaceFlow(value *yaml.Node) {
	start := s.behindProperties(s.offset(value.Line, value.Column))
	end := s.emptyEnd(start)
	if end < start {
		s.failed = true
		return
	}
	separator := " "
	if s.json { // as the line is indented that has the key
		line := bytes.LastIndexByte(s.text[:start], '\n') + 1
		indent := s.text[line:start]
		indent = indent[:len(indent)-len(bytes.TrimLeft(indent, " \t"))]
		if key := s.text[line+len(indent)]; line > 0 && key == '"' && isFirstKey(s.text[line+len(indent):start]) {
			separator = s.lineBreak + string(indent)
		}
	}
	text := s.flowValue(value, separator)
	if bytes.ContainsRune(s.text[start:end], '#') {
		start, end, text = start+1, start+1, text[1:len(text)-1]
	}
	if end == start && start > 0 && s.text[start-1] == ':' {
		text = " " + text
	}
	s.edits = append(s.edits, edit{start, end, text})
}

// isFirstKey tells whether a text of JSON is a key and the colon behind it.
func isFirstKey(text []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(text))
	_, err := decoder.Token()
	return err == nil && string(bytes.TrimSpace(text[decoder.InputOffset():])) == ":"
}

// appendFlow writes entries behind the last one, ahead of comments that are there.
func (s *splicer) appendFlow(node *yaml.Node, comma bool, added [][]*yaml.Node) {
	start := s.behindProperties(s.offset(node.Line, node.Column))
	end, last := s.flowEnd(start)
	if end < 0 {
		s.failed = true
		return
	}
	separator := ""
	if comma {
		first := slices.IndexFunc(node.Content, func(n *yaml.Node) bool { return n.Line > 0 })
		separator = s.separatorAt(s.offset(node.Content[first].Line, node.Content[first].Column))
	}
	text := s.flowEntries(added, separator)
	switch {
	case s.text[last-1] == ',' && comma:
		text = separator + text
	case comma:
		text = "," + separator + text
	}
	s.edits = append(s.edits, edit{last, last, text})
}

// emptyEnd returns where a value ends that stands for emptiness; the offset itself if there is nothing, less if it is not found.
func (s *splicer) emptyEnd(start int) int {
	switch rest := s.text[start:]; {
	case len(rest) > 0 && (rest[0] == '{' || rest[0] == '['):
		end, _ := s.flowEnd(start)
		return end + 1
	case bytes.HasPrefix(bytes.ToLower(rest[:min(len(rest), len("null"))]), []byte("null")):
		return start + len("null")
	case bytes.HasPrefix(rest, []byte("~")):
		return start + 1
	default:
		return start
	}
}

// behindProperties returns the offset of what follows an anchor and a tag ("&a !!map {}").
func (s *splicer) behindProperties(at int) int {
	for at < len(s.text) && (s.text[at] == '&' || s.text[at] == '!') {
		behind := at + max(bytes.IndexAny(s.text[at:], " \t\r\n,]}"), 0)
		next := behind
		for next < len(s.text) && (s.text[next] == ' ' || s.text[next] == '\t') {
			next++
		}
		if behind == at || next == len(s.text) || s.text[next] == '\r' || s.text[next] == '\n' || s.text[next] == '#' {
			return behind
		}
		at = next
	}
	return at
}

// flowEnd returns the offset of the bracket that closes the one at an offset, -1 if it is not found, and where what precedes that ends,
// not counting blanks and comments.
func (s *splicer) flowEnd(open int) (end, last int) {
	depth := 0
	fresh := true     // a quote here opens a quoted scalar; inside a plain one it is a letter
	property := false // an anchor or a tag, behind which it opens one too
	for at := open; at < len(s.text); at++ {
		c := s.text[at]
		switch c {
		case ' ', '\t', '\r', '\n':
			fresh = fresh || property
			property = false
			continue
		case '#':
			if strings.IndexByte(" \t\r\n", s.text[at-1]) >= 0 {
				at = lineEnd(s.text, at) - 1
				continue
			}
			fresh = false
		case '{', '[':
			depth++
			fresh = true
		case '}', ']':
			depth--
			if depth == 0 {
				return at, last
			}
			fresh = false
		case ',', ':':
			fresh = true
		case '"', '\'':
			if fresh {
				at = s.quoteEnd(at, c)
			}
			fresh = false
		default:
			property = property || fresh && (c == '&' || c == '!')
			fresh = false
		}
		last = at + 1
	}
	return -1, last
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

// jsonStep returns what indents the first key of an object that has it on a line of its own, further than the object itself.
func jsonStep(text []byte) string {
	_, second, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	if step := string(second[:len(second)-len(bytes.TrimLeft(second, " \t"))]); step != "" {
		return step
	}
	return "  "
}
