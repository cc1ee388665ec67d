package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// The tags of a tree's nodes. A number that was parsed from JSON keeps its text, whatever its tag.
const (
	stringTag = "!!str"
	intTag    = "!!int"
	floatTag  = "!!float"
	boolTag   = "!!bool"
	nullTag   = "!!null"
	mergeTag  = "!!merge"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// splitJSON cuts a stream of JSON objects behind each of them. ok is false for what is not all JSON: YAML may start with a
// brace too.
func splitJSON(data []byte) (chunks [][]byte, ok bool) {
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	start, end := 0, 0
	for {
		if err := decoder.Decode(new(json.RawMessage)); err != nil {
			break
		}
		if end > 0 {
			chunks = append(chunks, data[start:end])
			start = end
		}
		end = int(decoder.InputOffset())
		if i := bytes.IndexByte(data[end:], '\n'); i >= 0 && len(bytes.TrimSpace(data[end:end+i])) == 0 {
			end += i + 1 // the line break belongs to what it ends
		}
	}
	if end == 0 || len(bytes.TrimSpace(data[end:])) > 0 {
		return nil, false
	}
	return append(chunks, data[start:]), true
}

// parseJSON returns JSON as a tree, with keys in their order, numbers as they are written, and lines.
func parseJSON(data []byte) (*yaml.Node, error) {
	p := jsonParser{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1, column: 1}
	p.decoder.UseNumber()
	return p.value()
}

type jsonParser struct {
	data    []byte
	decoder *json.Decoder
	counted int // bytes that line and column are behind
	line    int
	column  int
}

// advance moves line and column to an offset.
func (p *jsonParser) advance(to int) {
	passed := p.data[p.counted:to]
	if i := bytes.LastIndexByte(passed, '\n'); i >= 0 {
		p.line += bytes.Count(passed, []byte("\n"))
		p.column, passed = 1, passed[i+1:]
	}
	p.column += utf8.RuneCount(passed)
	p.counted = to
}

// next moves to where the next token starts.
func (p *jsonParser) next() {
	at := int(p.decoder.InputOffset())
	for at < len(p.data) && strings.IndexByte(" \t\r\n,:", p.data[at]) >= 0 {
		at++
	}
	p.advance(at)
}

func (p *jsonParser) value() (*yaml.Node, error) {
	p.next()
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line, Column: p.column}
	token, err := p.decoder.Token()
	if err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	switch token := token.(type) {
	case json.Delim:
		return node, p.children(node, token)
	case string:
		node.Tag, node.Value = stringTag, token
	case json.Number:
		node.Tag, node.Value = floatTag, token.String()
		if _, err := token.Int64(); err == nil {
			node.Tag = intTag
		}
	case bool:
		node.Tag, node.Value = boolTag, fmt.Sprint(token)
	default:
		node.Tag, node.Value = nullTag, "null"
	}
	return node, nil
}

// children reads the keys and values of an object, or the items of an array, whose opening bracket has been read.
func (p *jsonParser) children(node *yaml.Node, open json.Delim) error {
	node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
	if open == '{' {
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
	}
	for p.decoder.More() {
		child, err := p.value()
		if err != nil {
			return err
		}
		node.Content = append(node.Content, child)
	}
	_, err := p.decoder.Token() // the closing bracket
	return err
}

// newNode returns a value as a tree without positions, its keys in the order in which it encodes.
func newNode(value any) (*yaml.Node, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode what is added: %w", err)
	}
	node, err := parseJSON(encoded)
	if err != nil {
		return nil, err
	}
	forgetPositions(node)
	quoteAmbiguous(node)
	return node, nil
}

// quoteAmbiguous quotes strings that Kubernetes, which reads YAML 1.1, would take for something else: "on", "1e3".
func quoteAmbiguous(node *yaml.Node) {
	if node.Tag == stringTag && !strings.Contains(node.Value, "\n") {
		var plain any
		if err := sigsyaml.Unmarshal([]byte(node.Value), &plain); err != nil || plain != any(node.Value) {
			node.Style = yaml.DoubleQuotedStyle
			if strings.Contains(node.Value, `"`) { // JSON, say: more readable so
				node.Style = yaml.SingleQuotedStyle
			}
		}
	}
	for _, child := range node.Content {
		quoteAmbiguous(child)
	}
}

func forgetPositions(node *yaml.Node) {
	node.Line, node.Column = 0, 0
	for _, child := range node.Content {
		forgetPositions(child)
	}
}

// compactJSON writes a tree that was parsed from JSON on one line.
func compactJSON(node *yaml.Node) []byte {
	out := &bytes.Buffer{}
	writeJSON(out, node)
	return out.Bytes()
}

func writeJSON(out *bytes.Buffer, node *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		for i := 0; i+1 < len(node.Content); i += 2 {
			if i > 0 {
				out.WriteByte(',')
			}
			writeJSON(out, node.Content[i])
			out.WriteByte(':')
			writeJSON(out, node.Content[i+1])
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, item := range node.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			writeJSON(out, item)
		}
		out.WriteByte(']')
	default:
		if node.Tag != stringTag {
			out.WriteString(node.Value)
			return
		}
		writeJSONString(out, node.Value)
	}
}

// writeJSONString leaves "<", ">" and "&" as people wrote them.
func writeJSONString(out *bytes.Buffer, value string) {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value)   // a string always encodes
	out.Truncate(out.Len() - 1) // the line break that Encode adds
}

// formatJSON writes a tree with the indentation of the text that it was parsed from; on one line if that was.
func formatJSON(root *yaml.Node, original []byte) ([]byte, error) {
	body := bytes.TrimSpace(original)
	before, after, _ := bytes.Cut(original, body)
	formatted := compactJSON(root)
	if indent, several := jsonIndent(body); several {
		out := &bytes.Buffer{}
		if err := json.Indent(out, formatted, "", indent); err != nil {
			return nil, fmt.Errorf("indent JSON: %w", err)
		}
		formatted = out.Bytes()
	}
	if bytes.Contains(body, []byte("\r\n")) {
		formatted = bytes.ReplaceAll(formatted, []byte("\n"), []byte("\r\n"))
	}
	return slices.Concat(before, formatted, after), nil
}

// jsonIndent returns what indents the first key; several is false for JSON on one line.
func jsonIndent(body []byte) (indent string, several bool) {
	_, second, several := strings.Cut(string(body), "\n")
	return second[:len(second)-len(strings.TrimLeft(second, " \t"))], several
}
