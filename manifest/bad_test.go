package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRefusesWhatIsNoText(t *testing.T) {
	const helm = `this is a template of Helm, by its "{{", and not YAML yet; render it first`
	tests := map[string]struct {
		text string
		want []string
	}{
		"UTF-16, as PowerShell writes it":  {"\xff\xfek\x00:\x00", []string{"f:1:1: the file is UTF-16; save it as UTF-8"}},
		"UTF-16 of the other order":        {"\xfe\xff\x00k\x00:", []string{"f:1:1: the file is UTF-16; save it as UTF-8"}},
		"UTF-16 without a byte order mark": {"k\x00:\x00 \x001\x00", []string{"f:1:1: the file is UTF-16; save it as UTF-8"}},
		"UTF-32":                           {"\x00\x00\xfe\xff\x00\x00\x00k", []string{"f:1:1: the file is UTF-32; save it as UTF-8"}},
		"a program":                        {"\x7fELF\x02\x01\x01\x00", []string{"f:1:8: the file is binary: it has a byte 0 here"}},
		"an archive":                       {"kind: A\n\x1f\x8b\x08", []string{"f:2:2: the byte 0x8b here is not UTF-8; save the file as UTF-8"}},
		"Latin-1":                          {"kind: A\nname: ü\nx: M\xfcller\n", []string{"f:3:5: the byte 0xfc here is not UTF-8; save the file as UTF-8"}},
		"a control character": {"a: 1\nb: x\x1b[31m\n", []string{"f:2:5: this is not YAML that Kubernetes reads: the control character U+001B " +
			"is not allowed; remove it, or write it as an escape in double quotes"}},
		"a template's value":  {"kind: A\nmetadata:\n  name: {{ .Release.Name }}\n", []string{"f:3:9: " + helm}},
		"a template's action": {"kind: A\n---\nkind: B\n{{- if .Values.x }}\na: 1\n{{- end }}\n", []string{"f:4:1: " + helm}},
		"a template's item":   {"args:\n  - {{ .Values.x }}\n", []string{"f:2:5: " + helm}},
		"a template that is nothing else": {
			`{{ include "all" . }}` + "\n---\n{{ range .Values.list }}\na: 1\n---\n{{ end }}\n",
			[]string{"f:1:1: " + helm, "f:3:1: " + helm, "f:6:1: " + helm},
		},
		"braces in strings and comments are no template": {"# {{ x }}\na: '{{ x }}'\nb: \"{{\"\nc: |\n  x: {{ y }}\n", nil},
		"an error beside such braces":                    {"a: '{{ x }}'\nb: [\n", []string{"f:2: this is not YAML that Kubernetes reads: did not find expected node content"}},
		"a tab in the indentation": {"a:\n  b:\n  \tc: 1\n", []string{
			"f:3:3: this is not YAML that Kubernetes reads: found character that cannot start any token; indent by spaces, not by tabs",
		}},
		"a byte order mark, line breaks of Windows": {"\ufeff---\r\nkind: A\r\n---\r\nkind: B\r\n", nil},
		"nesting without end":                       {strings.Repeat("[", 100_000), []string{"f:1: this is not YAML that Kubernetes reads: exceeded max depth of 10000"}},
		"JSON that is not whole":                    {"{\"a\": {\n\"b\": 1\n", []string{"f:2: this is not YAML that Kubernetes reads: did not find expected ',' or '}'"}},
		"comments in JSON":                          {"{\n  // no\n  \"a\": 1\n}", []string{"f:2: this is not YAML that Kubernetes reads: did not find expected ',' or '}'"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := Parse("f", []byte(test.text))
			var got []string
			raw := ""
			for _, document := range file.Documents {
				raw += string(document.Raw)
				if document.Err != nil {
					got = append(got, document.Err.Error())
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if raw != test.text {
				t.Errorf("the documents together are not the file: %q", raw)
			}
		})
	}
}

// What is small may be meant to become large, and what is large may be meant to become larger: both end soon, in an error or in objects.
func TestParseIsBounded(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += strings.ReplaceAll("N: &N [*P,*P,*P,*P,*P,*P,*P,*P,*P]\n", "N", string(c))
		bomb = strings.ReplaceAll(bomb, "P", string(c-1))
	}
	tests := map[string]struct {
		text string
		want string
	}{
		"aliases that multiply":    {bomb, "document contains excessive aliasing"},
		"documents without end":    {strings.Repeat("---\n", 8<<20), "more than 20000 documents"},
		"keys without end":         {strings.Repeat("a:\n", 10<<20), "more than 1000000 lines and values"},
		"items on one line":        {strings.Repeat("[a,", 10<<20), "more than 1000000 lines and values"},
		"the same key all over":    {strings.Repeat("a:\n", 50_000), `the key "a" is on line 1 already`},
		"one value of many bytes":  {"a: \"" + strings.Repeat("x", 8<<20) + "\"\n", ""},
		"objects in JSON, deep in": {strings.Repeat(`{"kind":"List","items":[`, 4_000) + strings.Repeat("]}", 4_000), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			started := time.Now()
			file := Parse("f", []byte(test.text))
			took := time.Since(started)
			runtime.ReadMemStats(&after)
			message := ""
			for _, document := range file.Documents {
				document.Objects()
				if document.Err != nil {
					message += document.Err.Error() + "\n"
				}
			}
			if (message == "") != (test.want == "") || !strings.Contains(message, test.want) || len(message) > 20_000 {
				t.Errorf("error %.200q, want %q", message, test.want)
			}
			if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 1000 {
				t.Errorf("made %d MiB of memory", made)
			}
			if took > 30*time.Second { // tenths of a second, on a machine that does nothing else
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestReadTrees(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"deploy/b.yaml": "kind: B\n", "deploy/sub/deeper/a.yml": "kind: A\n", "deploy/sub/notes.txt": "no", "deploy/.git/x.yaml": "a: [\n",
		"deploy/.hidden.yaml": "a: [\n", "deploy/a.golden.yaml": "kind: G\n", "other/c.json": `{"kind":"C"}`, "none/README": "", "locked/d.yaml": "kind: D\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"deploy/sub/up": "..", "deploy/sub/dir.yaml": "../../other", "deploy/linked.yaml": "../other/c.json",
		"loops/a.yaml": "b.yaml", "loops/b.yaml": "a.yaml", "loops/gone.yaml": "nowhere", "top": "deploy",
	} {
		if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		paths      []string
		want       []string // with * behind those that were found in a directory
		wantErrors []string
	}{
		"subdirectories, but neither hidden ones nor those behind links": {
			paths: []string{"deploy"},
			want:  []string{"deploy/b.yaml*", "deploy/linked.yaml*", "deploy/sub/deeper/a.yml*"},
		},
		"a link that is named is followed": {
			paths: []string{"top/"},
			want:  []string{"top/b.yaml*", "top/linked.yaml*", "top/sub/deeper/a.yml*"},
		},
		"a file is read once": {
			paths: []string{"deploy/b.yaml", "./deploy/", "other", "deploy"},
			want:  []string{"deploy/b.yaml", "deploy/linked.yaml*", "deploy/sub/deeper/a.yml*", "other/c.json*"},
		},
		"what is hidden or golden is read if it is named": {
			paths: []string{"deploy/.hidden.yaml", "deploy/a.golden.yaml"},
			want:  []string{"deploy/.hidden.yaml", "deploy/a.golden.yaml"},
		},
		"links that lead nowhere, and the others are read": {
			paths: []string{"loops", "other"},
			want:  []string{"other/c.json*"},
			wantErrors: []string{
				"loops/a.yaml: too many levels of symbolic links", "loops/b.yaml: too many levels of symbolic links",
				"loops/gone.yaml: no such file or directory",
			},
		},
		"a directory without manifests": {
			paths:      []string{"none"},
			wantErrors: []string{"none: the directory has no file that ends in .yaml, .yml or .json"},
		},
		"stdin": {
			paths: []string{Stdin, "other"},
			want:  []string{"stdin", "other/c.json*"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files, errs := ReadTrees(test.paths, strings.NewReader("kind: S\n"))
			var got, gotErrors []string
			for _, file := range files {
				name := file.Name
				if file.Found {
					name += "*"
				}
				got = append(got, name)
			}
			for _, err := range errs {
				gotErrors = append(gotErrors, err.Error())
				if typed := (*Error)(nil); !errors.As(err, &typed) {
					t.Errorf("%q is a %T, want an *Error", err, err)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantErrors, gotErrors); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}
