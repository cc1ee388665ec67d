package manifest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTakesFilesApart(t *testing.T) {
	type document struct {
		Number, Line int
		Kind         string
	}
	tests := map[string]struct {
		text string
		want []document
	}{
		"a single document": {
			text: "kind: A\n",
			want: []document{{1, 1, "A"}},
		},
		"comments ahead of the first separator belong to the first document": {
			text: "# license\n\n---\n# of A\nkind: A\n--- # of B\nkind: B\n",
			want: []document{{1, 5, "A"}, {2, 7, "B"}},
		},
		"empty documents are not counted": {
			text: "---\n---\n# nothing\n---\nkind: A\n---\n",
			want: []document{{0, 1, ""}, {0, 2, ""}, {1, 5, "A"}, {0, 6, ""}},
		},
		"a document that starts on the line of its separator": {
			text: "--- {kind: A}\n---\t{x: 1}\n",
			want: []document{{1, 1, "A"}, {2, 2, ""}},
		},
		"dashes inside of a document separate nothing": {
			text: "kind: A\ntext: |\n  ---\n  b\n----: c\n",
			want: []document{{1, 1, "A"}},
		},
		"directives belong to the document behind them": {
			text: "%YAML 1.1\n---\nkind: A\n",
			want: []document{{1, 3, "A"}},
		},
		"line breaks of Windows": {
			text: "kind: A\r\n---\r\nkind: B\r\n",
			want: []document{{1, 1, "A"}, {2, 3, "B"}},
		},
		"JSON objects one after another": {
			text: "{\"kind\": \"A\"}\n{\n \"kind\": \"B\"}{\"kind\":\"C\"}\n\n",
			want: []document{{1, 1, "A"}, {2, 2, "B"}, {3, 3, "C"}},
		},
		"YAML that starts with a brace is not JSON": {
			text: "{kind: A}\n",
			want: []document{{1, 1, "A"}},
		},
		"a byte order mark": {
			text: "\ufeffkind: A\n",
			want: []document{{1, 1, "A"}},
		},
		"an empty file": {text: ""},
		"a file of blanks": {
			text: "\n \n",
			want: []document{{0, 1, ""}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := Parse("test.yaml", []byte(test.text))
			var got []document
			var raw []byte
			for _, d := range file.Documents {
				if d.Err != nil {
					t.Error(d.Err)
				}
				kind, _ := d.Object["kind"].(string)
				got = append(got, document{d.Number, d.Line, kind})
				raw = append(raw, d.Raw...)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("documents (-want +got):\n%s", diff)
			}
			if string(raw) != test.text {
				t.Errorf("the documents together are %q, want the file", raw)
			}
		})
	}
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"a key that stands twice, in the second document": {
			text: "kind: A\n---\nkind: B\nmetadata:\n  name: x\n  name: y\nkind: B\n",
			want: []string{
				`f.yaml:7:1: the key "kind" is on line 3 already; remove one of them`,
				`f.yaml:6:3: the key "name" is on line 5 already; remove one of them`,
			},
		},
		"a key that stands twice in JSON": {
			text: "{\n\"kind\": \"A\",\n\"kind\": \"B\"\n}",
			want: []string{`f.yaml:3:1: the key "kind" is on line 2 already; remove one of them`},
		},
		"a tab": {
			text: "a: 1\n---\nkind: B\nspec:\n\tx: 1\n",
			want: []string{"f.yaml:5:1: this is not YAML that Kubernetes reads: found character that cannot start any token; indent by spaces, not by tabs"},
		},
		"a scalar": {
			text: "hello\n",
			want: []string{"f.yaml:1:1: this is no Kubernetes object: write a mapping with apiVersion and kind"},
		},
		"a list": {
			text: "\n- a\n",
			want: []string{"f.yaml:2:1: this is no Kubernetes object: write a mapping with apiVersion and kind"},
		},
		"bytes that are no text": {
			text: "a: \x00\x01\n",
			want: []string{"f.yaml:1:4: the file is binary: it has a byte 0 here"},
		},
		"another document behind an end marker": {
			text: "kind: A\n...\nkind: B\n",
			want: []string{`f.yaml:2: another document follows "..."; start it with a line "---"`},
		},
		"an alias to nothing": {
			text: "kind: *a\n",
			want: []string{"f.yaml:1: this is not YAML that Kubernetes reads: unknown anchor 'a' referenced"},
		},
		"aliases that multiply": {
			text: "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
				"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n" +
				"g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n",
			want: []string{"f.yaml:1:1: this is not YAML that Kubernetes reads: document contains excessive aliasing"},
		},
		"an anchor that holds itself": {
			text: "a: &a\n  b: *a\n",
			want: []string{"f.yaml:1:1: this is not YAML that Kubernetes reads: anchor 'a' value contains itself"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := Parse("f.yaml", []byte(test.text))
			var got []string
			for _, d := range file.Documents {
				if d.Err != nil {
					got = append(got, strings.Split(d.Err.Error(), "\n")...)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yml": "kind: B\n", "a.yaml": "kind: A\n", "c.JSON": `{"kind":"C"}`, "notes.txt": "no", "sub/d.yaml": "kind: D\n",
		"empty/README": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, MaxFileBytes+1); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		paths      []string
		want       []string
		wantErrors []string
	}{
		"a directory's manifests, sorted, without subdirectories": {
			paths: []string{dir},
			want:  []string{filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yml"), filepath.Join(dir, "c.JSON")},
		},
		"a file is read whatever its name": {
			paths: []string{filepath.Join(dir, "notes.txt")},
			want:  []string{filepath.Join(dir, "notes.txt")},
		},
		"stdin among files": {
			paths: []string{filepath.Join(dir, "b.yml"), Stdin},
			want:  []string{filepath.Join(dir, "b.yml"), "stdin"},
		},
		"what cannot be read does not keep the rest from being read": {
			paths: []string{filepath.Join(dir, "missing.yaml"), filepath.Join(dir, "empty"), huge, filepath.Join(dir, "a.yaml")},
			want:  []string{filepath.Join(dir, "a.yaml")},
			wantErrors: []string{
				filepath.Join(dir, "missing.yaml") + ": no such file or directory",
				filepath.Join(dir, "empty") + ": the directory has no file that ends in .yaml, " +
					".yml or .json; subdirectories are not looked into",
				huge + ": the file is larger than 32 MiB, which no manifest is",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files, errs := ReadFiles(test.paths, strings.NewReader("kind: S\n"))
			var got, gotErrors []string
			for _, file := range files {
				got = append(got, file.Name)
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

// FuzzPatch holds what people may write to what is promised: no crash, whatever it is; and where something can be added, nothing
// but the addition changes, and an addition can be made again elsewhere.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{
		"a: 1\n", "{}", "{\"a\": [1, \"\\u00fc\"]}", "a: &x [1, *x]", "a:\n- b\n-\n  c: d\n# e\n", "? a\n: b\n", "a: |\n  b\n \n# c",
		"{a: {b: 'c''d', e: \"f\\\"}\"}}", "--- !x {a: 1}\n", "a: >-\n  b\nc:\n", "<<: {a: 1}\n", "a: 1\r\nb:\r\n" +
			"  c: 2", "\ufeffa: 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := Parse("f.yaml", text)
		var raw []byte
		for _, document := range file.Documents {
			raw = append(raw, document.Raw...)
			if _, err := document.Templates(); err != nil || document.Object == nil {
				continue
			}
			if _, there := document.Object["pillion-added"]; there {
				continue
			}
			patched, err := document.Patch(nil)
			if err != nil || !bytes.Equal(patched, document.Raw) {
				t.Errorf("without additions: %q, %v", patched, err)
			}
			patched, err = document.Patch([]patchOperation{add("/pillion-added", map[string]string{"x": "y: [z"})})
			if err != nil {
				continue // refused is better than wrong
			}
			again := Parse("f.yaml", patched)
			if len(again.Documents) != 1 || again.Documents[0].Err != nil {
				t.Fatalf("what was written cannot be read: %q", patched)
			}
			got := again.Documents[0].Object
			if diff := cmp.Diff(any(map[string]any{"x": "y: [z"}), got["pillion-added"]); diff != "" {
				t.Errorf("the addition (-want +got):\n%s", diff)
			}
			delete(got, "pillion-added")
			if diff := cmp.Diff(document.Object, got); diff != "" {
				t.Errorf("the rest (-want +got):\n%s", diff)
			}
		}
		if !bytes.Equal(raw, text) {
			t.Errorf("the documents together are %q", raw)
		}
	})
}
