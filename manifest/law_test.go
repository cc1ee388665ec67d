package manifest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// FuzzOnlyAdditionsDiffer holds what Patch writes to the law that removing what was added gives the text as it was, byte for byte: for
// manifests of every style that people write, drawn by a number.
func FuzzOnlyAdditionsDiffer(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(seed)
	}
	f.Fuzz(checkOnlyAdditionsDiffer)
}

func TestOnlyAdditionsDiffer(t *testing.T) {
	for seed := range uint64(500) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { checkOnlyAdditionsDiffer(t, seed) })
	}
}

func checkOnlyAdditionsDiffer(t *testing.T, seed uint64) {
	t.Helper()
	w := &writer{random: rand.New(rand.NewPCG(seed, 0)), lineBreak: "\n"} //nolint:gosec // drawn again from the same number
	if w.one(4) {
		w.lineBreak = "\r\n"
	}
	text := w.manifest()
	file := Parse("f.yaml", []byte(text))
	d := file.Documents[0]
	if len(file.Documents) != 1 || d.Err != nil {
		t.Fatalf("what was drawn is no manifest: %v\n%s", d.Err, text)
	}
	operations := additionsTo(d)
	patched, err := d.Patch(operations)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	root, e := cloneNode(d.root), editor{emptied: map[*yaml.Node]bool{}}
	for _, operation := range operations {
		if err := e.apply(root, operation); err != nil {
			t.Fatal(err)
		}
	}
	s := newSplicer(root, d.Raw, e.emptied, d.isJSON)
	want, err := s.result()
	if diff := cmp.Diff(string(want), string(patched)); err != nil || diff != "" {
		t.Errorf("the text was not kept: %v (-want +got):\n%s", err, diff)
	}
	for _, edit := range s.edits {
		if removed := string(d.Raw[edit.start:edit.end]); !emptiness.MatchString(removed) {
			t.Errorf("%q is removed for %q", removed, edit.text)
		}
	}
}

// emptiness is what an addition takes the place of.
var emptiness = regexp.MustCompile(`^\s*(\[\s*\]|\{\s*\}|null|~)?$`)

// additionsTo returns what an injection adds to the Pod of a document: to its annotations, its init containers, its first container and
// its volumes, each of which may be absent, empty or null.
func additionsTo(d *Document) []patchOperation {
	var operations []patchOperation
	at := func(path string) (value any) { return lookUp(d.Object, path) }
	addKey := func(path, key string, value any) {
		if at(path) == nil {
			operations = append(operations, add(path, object{}))
		}
		operations = append(operations, add(path+"/"+key, value))
	}
	addItem := func(in map[string]any, path, name string, first bool, value any) {
		list, there := in[name].([]any)
		if !there {
			operations = append(operations, add(path+"/"+name, []any{}))
		}
		index := len(list)
		if first {
			index = 0
		}
		operations = append(operations, add(fmt.Sprintf("%s/%s/%d", path, name, index), value))
	}
	if at("/metadata") == nil {
		operations = append(operations, add("/metadata", object{}))
	}
	addKey("/metadata/annotations", "pillion.dev~1injected", `{"site":{"kind":"gitSync"}}`)
	spec := d.Object["spec"].(map[string]any)
	addItem(spec, "/spec", "initContainers", true, object{"name": "pillion-site", "args": []any{"--x=y", "on"}, "n": object{"limits": object{"cpu": "1"}}})
	app := spec["containers"].([]any)[0].(map[string]any)
	addItem(app, "/spec/containers/0", "volumeMounts", false, object{"name": "pillion-site", "mountPath": "/srv"})
	addItem(app, "/spec/containers/0", "env", false, object{"name": "X", "value": "1"})
	addItem(spec, "/spec", "volumes", false, object{"name": "pillion-site", "emptyDir": object{}})
	return operations
}

// writer writes a manifest in a style that it draws at every step.
type writer struct {
	random    *rand.Rand
	lineBreak string
	anchors   int
}

func (w *writer) one(of int) bool { return w.random.IntN(of) == 0 }

func (w *writer) choose(of ...string) string { return of[w.random.IntN(len(of))] }

func (w *writer) manifest() string {
	texts := []string{"a", "x y", "", "on", "1.20", "it's {} [x], #1: y", `C:\x "y"`, "日本 ü", "{{ x }}", "a\nb\n", "a\n\n  b", "# no\n---x\n\n\n"}
	containers := []any{}
	for i := range 1 + w.random.IntN(3) {
		container := [][2]any{{"name", fmt.Sprintf("c%d", i)}, {"args", []any{w.choose(texts...), w.choose(texts...)}}}
		for _, name := range []string{"env", "volumeMounts"} {
			if value, there := w.list(name); there {
				container = append(container, [2]any{name, value})
			}
		}
		containers = append(containers, w.shuffled(container))
	}
	spec := [][2]any{{"containers", containers}, {"note", w.choose(texts...)}}
	for _, name := range []string{"initContainers", "volumes"} {
		if value, there := w.list(name); there {
			spec = append(spec, [2]any{name, value})
		}
	}
	metadata := [][2]any{{"name", "p"}, {"labels", [][2]any{{"a/b", w.choose(texts...)}}}}
	switch w.random.IntN(4) {
	case 0:
		metadata = append(metadata, [2]any{"annotations", nil})
	case 1:
		metadata = append(metadata, [2]any{"annotations", [][2]any{}})
	case 2:
		metadata = append(metadata, [2]any{"annotations", [][2]any{{"x", w.choose(texts...)}}})
	}
	pod := w.shuffled([][2]any{{"kind", "Pod"}, {"metadata", w.shuffled(metadata)}, {"spec", w.shuffled(spec)}})
	var text string
	switch {
	case w.one(4):
		text = w.json(pod, "") + w.choose("", "\n", "\n\n", " \n")
	default:
		text = w.choose("", "", "# head\n", "---\n", "--- # c\n", "# a\n\n---\n", "%YAML 1.1\n---\n") + w.mapping(pod, 0, w.comments(0)) +
			w.choose("", "", "# tail\n", "...\n", "\n\n", "...\n# c\n")
		if w.one(4) {
			text = strings.TrimSuffix(text, "\n")
		}
		if w.one(6) && !strings.HasPrefix(text, "%") && !strings.HasPrefix(text, "# a") { // else the comment is a document
			text = byteOrderMark + text
		}
	}
	return strings.ReplaceAll(text, "\n", w.lineBreak)
}

func (w *writer) shuffled(pairs [][2]any) [][2]any {
	w.random.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return pairs
}

// list draws a list of the Pod's, which may be absent.
func (w *writer) list(name string) (value any, there bool) {
	switch w.random.IntN(4) {
	case 0:
		return nil, false
	case 1:
		return nil, true
	case 2:
		return []any{}, true
	default:
		return []any{[][2]any{{"name", name}}, [][2]any{{"x", "y"}, {"name", "z"}}}[:1+w.random.IntN(2)], true
	}
}

// comments draws lines between others.
func (w *writer) comments(indent int) string {
	out := ""
	for w.one(4) {
		out += w.choose("\n", "", strings.Repeat(" ", indent)+"# c: [\tx\n", strings.Repeat(" ", indent)+"#\n")
	}
	return out
}

func (w *writer) trailing() string { return w.choose("", "", "", "", "  ", " # c", "\t# \"c {") }

func (w *writer) properties() string {
	if !w.one(8) {
		return ""
	}
	w.anchors++
	return fmt.Sprintf(" &a%d", w.anchors)
}

func (w *writer) key(name string) string {
	return w.choose(name, name, name, `"`+name+`"`, "'"+name+"'")
}

// mapping writes a mapping in block style. ahead stands before its first key, whose indentation is written if that is anything.
func (w *writer) mapping(pairs [][2]any, indent int, ahead string) string {
	out := ahead
	for i, pair := range pairs {
		if i > 0 {
			out += w.comments(indent)
		}
		if i > 0 || ahead == "" || strings.HasSuffix(ahead, "\n") {
			out += strings.Repeat(" ", indent)
		}
		out += w.key(pair[0].(string)) + ":" + w.value(pair[1], indent, false)
	}
	return out
}

// value writes what is behind a key or a dash.
func (w *writer) value(value any, indent int, item bool) string {
	step := 1 + w.random.IntN(4)
	switch value := value.(type) {
	case nil:
		return w.choose("", " null", " ~") + w.trailing() + "\n"
	case string:
		return w.text(value, indent)
	case [][2]any:
		if len(value) == 0 || w.one(6) {
			return w.properties() + " " + w.flow(value, indent) + w.trailing() + "\n"
		}
		if item && w.one(2) {
			spaces := strings.Repeat(" ", step)
			return w.mapping(value, indent+1+step, spaces)
		}
		return w.properties() + w.choose("", "", "  ", " # \"c {") + "\n" + w.mapping(value, indent+step, w.comments(indent+step))
	default:
		list := value.([]any)
		if len(list) == 0 || w.one(6) {
			return w.properties() + " " + w.flow(value, indent) + w.trailing() + "\n"
		}
		if !item && w.one(2) {
			step = 0
		}
		out := w.properties() + w.choose("", "", "  ", " # \"c {") + "\n"
		for _, element := range list {
			out += w.comments(indent+step) + strings.Repeat(" ", indent+step) + "-" + w.value(element, indent+step, true)
		}
		return out
	}
}

// text writes a string behind a key or a dash.
func (w *writer) text(value string, indent int) string {
	quoted, _ := json.Marshal(value)
	switch {
	case strings.HasSuffix(value, "\n") && w.one(2):
		inner := strings.Repeat(" ", indent+1+w.random.IntN(3))
		chomp := ""
		if strings.HasSuffix(value, "\n\n") {
			chomp = "+"
		}
		out := " |" + chomp + w.choose("", " # c") + "\n"
		for line := range strings.Lines(value) {
			if line != "\n" {
				out += inner
			}
			out += line
		}
		return out
	case value == "x y" && w.one(2):
		return w.choose(" x y", " x\n"+strings.Repeat(" ", indent+1)+"y", " \"x\n"+strings.Repeat(" ", indent+1)+"y\"", " >-\n"+strings.Repeat(" ", indent+2)+"x y") + "\n"
	case regexp.MustCompile(`^[a-z]\w*$`).MatchString(value) && value != "on":
		return " " + value + w.trailing() + "\n"
	case !strings.Contains(value, "\n") && w.one(2):
		return " '" + strings.ReplaceAll(value, "'", "''") + "'" + w.trailing() + "\n"
	default:
		return " " + string(quoted) + w.trailing() + "\n"
	}
}

// flow writes a value in brackets.
func (w *writer) flow(value any, indent int) string {
	blank := func() string {
		return w.choose("", "", " ", " ", "\n"+strings.Repeat(" ", indent+2), " # c [\n"+strings.Repeat(" ", indent+1))
	}
	switch value := value.(type) {
	case nil:
		return "null"
	case [][2]any:
		if len(value) == 0 {
			return w.choose("{}", "{ }")
		}
		out := "{" + blank()
		for i, pair := range value {
			if i > 0 {
				out += "," + blank()
			}
			out += w.key(pair[0].(string)) + ": " + w.flow(pair[1], indent) + blank()
		}
		return out + w.choose("", ",") + blank() + "}"
	case []any:
		if len(value) == 0 {
			return w.choose("[]", "[ ]", "[\n"+strings.Repeat(" ", indent+1)+"]")
		}
		out := "[" + blank()
		for i, element := range value {
			if i > 0 {
				out += "," + blank()
			}
			out += w.flow(element, indent) + blank()
		}
		return out + w.choose("", ",") + "]"
	default:
		quoted, _ := json.Marshal(value)
		return string(quoted)
	}
}

// json writes a value as JSON, with spaces and line breaks where there may be.
func (w *writer) json(value any, indent string) string {
	separator := func() string { return w.choose("", " ", "\n"+indent+"  ", "\n"+indent+"  ", "\t") }
	switch value := value.(type) {
	case [][2]any:
		out := "{"
		for i, pair := range value {
			if i > 0 {
				out += w.choose("", " ") + ","
			}
			out += separator() + `"` + pair[0].(string) + `"` + w.choose(":", ": ", " :\t") + w.json(pair[1], indent+"  ")
		}
		return out + w.choose("", " ", "\n"+indent) + "}"
	case []any:
		out := "["
		for i, element := range value {
			if i > 0 {
				out += ","
			}
			out += separator() + w.json(element, indent+"  ")
		}
		return out + w.choose("", " ", "\n"+indent) + "]"
	default:
		encoded, _ := json.Marshal(value)
		return string(encoded)
	}
}
