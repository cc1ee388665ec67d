package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mattbaird/jsonpatch"
)

func add(path string, value any) jsonpatch.JsonPatchOperation {
	return jsonpatch.NewPatch("add", path, value)
}

type (
	object         = map[string]any
	patchOperation = jsonpatch.JsonPatchOperation
)

func TestPatchKeepsTheText(t *testing.T) {
	volume := object{"name": "pillion-site", "emptyDir": object{"sizeLimit": "1Gi"}}
	mount := object{"name": "pillion-site", "mountPath": "/srv/site"}
	sidecar := object{"name": "pillion-site", "args": []string{"--root=/git", "1e3", "on"}}
	tests := map[string]struct {
		text       string
		operations []jsonpatch.JsonPatchOperation
		want       string
	}{
		"a list that is absent is made at the end of its object, lists standing below their key's first letter": {
			text:       "spec:\n  containers:\n  - name: app # the app\n\n    image: app:1\n\n# end\n",
			operations: []jsonpatch.JsonPatchOperation{add("/spec/volumes", []any{volume})},
			want: "spec:\n  containers:\n  - name: app # the app\n\n    image: app:1\n  volumes:\n  - emptyDir:\n" +
				"      sizeLimit: 1Gi\n    name: pillion-site\n\n# end\n",
		},
		"lists are indented where the text indents them": {
			text:       "spec:\n  containers:\n    - name: app\n      image: app:1\n",
			operations: []jsonpatch.JsonPatchOperation{add("/spec/containers/0/volumeMounts", []any{mount})},
			want: "spec:\n  containers:\n    - name: app\n      image: app:1\n      volumeMounts:\n" +
				"        - mountPath: /srv/site\n          name: pillion-site\n",
		},
		"an item goes ahead of the first one and of the comment above that": {
			text:       "spec:\n  initContainers:\n  # migrates\n  - name: migrate\n  containers:\n  - name: app\n",
			operations: []jsonpatch.JsonPatchOperation{add("/spec/initContainers/0", sidecar)},
			want: "spec:\n  initContainers:\n  - args:\n    - --root=/git\n    - \"1e3\"\n    - \"on\"\n    name: pillion-site\n" +
				"  # migrates\n  - name: migrate\n  containers:\n  - name: app\n",
		},
		"an item goes between two": {
			text:       "list:\n- a\n# of b\n- b\nother: 1\n",
			operations: []jsonpatch.JsonPatchOperation{add("/list/1", "x"), add("/list/2", "y")},
			want:       "list:\n- a\n- x\n- \"y\"\n# of b\n- b\nother: 1\n",
		},
		"an item goes behind the last one, and a comment of what follows stays with that": {
			text:       "list:\n- a\n# of other\nother: 1\n",
			operations: []jsonpatch.JsonPatchOperation{add("/list/1", "b")},
			want:       "list:\n- a\n- b\n# of other\nother: 1\n",
		},
		"empty lists, empty objects and null are filled, comments beside them kept": {
			text: "env: [] # none\nlabels: {}\nannotations: null # no\nvolumes:\nother: ~\nlast: 1\n",
			operations: []jsonpatch.JsonPatchOperation{
				add("/env/0", "a"), add("/labels/b", "c"), add("/annotations", object{"d": "e"}), add("/volumes", []string{"f"}),
				add("/other", object{"g": "h"}),
			},
			want: "env: # none\n- a\nlabels:\n  b: c\nannotations: # no\n  d: e\nvolumes:\n- f\nother:\n  g: h\nlast: 1\n",
		},
		"what is in brackets gains what it gains in brackets": {
			text: "metadata: {name: it's, labels: {}, annotations: null} # {\nspec: {containers: [{name: app, env: [], args: " +
				"['}', \"]\"]}]}\n",
			operations: []jsonpatch.JsonPatchOperation{
				add("/metadata/annotations", object{"a": "1"}), add("/metadata/labels/b", "<c>"),
				add("/spec/containers/0/env/0", object{"name": "X"}), add("/spec/containers/0/args/0", "z"),
				add("/spec/containers/0/args/3", "last"), add("/spec/volumes", []any{volume}),
			},
			want: "metadata: {name: it's, labels: {\"b\":\"<c>\"}, annotations: {\"a\":\"1\"}} # {\n" +
				"spec: {containers: [{name: app, env: [{\"name\":\"X\"}], args: [\"z\", '}', \"]\", \"last\"]}], " +
				"\"volumes\": [{\"emptyDir\":{\"sizeLimit\":\"1Gi\"},\"name\":\"pillion-site\"}]}\n",
		},
		"scripts in a block scalar are not mistaken for structure": {
			text: "spec:\n  containers:\n  - args:\n    - -c\n    - |\n      #!/bin/sh\n      volumes:\n      - x\n\n      # done\n" +
				"    name: app\n  - name: b\n    args:\n    - |\n      echo\n      # last\n",
			operations: []jsonpatch.JsonPatchOperation{
				add("/spec/containers/0/env", []string{"e"}), add("/spec/containers/1/env", []string{"f"}),
			},
			want: "spec:\n  containers:\n  - args:\n    - -c\n    - |\n      #!/bin/sh\n      volumes:\n      - x\n\n      # done\n" +
				"    name: app\n    env:\n    - e\n  - name: b\n    args:\n    - |\n      echo\n      # last\n    env:\n    - f\n",
		},
		"line breaks of Windows stay": {
			text:       "---\r\na:\r\n  b: c\r\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/d", "e")},
			want:       "---\r\na:\r\n  b: c\r\n  d: e\r\n",
		},
		"a last line without a line break gets one": {
			text:       "a:\n  b: c",
			operations: []jsonpatch.JsonPatchOperation{add("/a/d", "e")},
			want:       "a:\n  b: c\n  d: e\n",
		},
		"keys that need it are quoted, and slashes and tildes in them are meant": {
			text:       "a:\n    b: c\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/pillion.dev~1x~0y", "multi\nline\n"), add("/a/true", "true")},
			want:       "a:\n    b: c\n    pillion.dev/x~y: |\n        multi\n        line\n    \"true\": \"true\"\n",
		},
		"wide characters ahead of brackets do not shift what is added": {
			text:       "a: {ключ: {ü: 1}}\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/ключ/z", "1")},
			want:       "a: {ключ: {ü: 1, \"z\": \"1\"}}\n",
		},
		"aliases are expanded, so that an addition to one place does not show in another": {
			text: "spec:\n  containers:\n  - &app\n    name: a # first\n    mounts: &m\n    - x\n  - <<: *app\n    name: b\n" +
				"  - name: c\n    mounts: *m\n",
			operations: []jsonpatch.JsonPatchOperation{
				add("/spec/containers/0/mounts/1", "y"), add("/spec/containers/1/mounts/1", "z"), add("/spec/containers/2/env", "e"),
			},
			want: "spec:\n  containers:\n  - name: a # first\n    mounts:\n    - x\n    - \"y\"\n  - name: b\n    mounts:\n" +
				"    - x\n    - z\n" +
				"  - name: c\n    mounts:\n    - x\n    env: e\n",
		},
		"a comment in brackets stays a comment": {
			text:       "# head\nspec: { a: 1 # of a\n  }\nlist: [ # none\n]\n",
			operations: []jsonpatch.JsonPatchOperation{add("/spec/b", "c"), add("/list/0", "d")},
			want:       "# head\nspec: { a: 1, \"b\": \"c\" # of a\n  }\nlist: [\"d\" # none\n]\n",
		},
		"a layout that is too odd to add to is written anew": {
			text:       "# head\na: {b, c:   1}\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/b", "d")},
			want:       "# head\na: {b: d, c: 1}\n",
		},
		"strings may end where their indentation does not tell": {
			text:       "spec:\n  list:\n  - \"a\n b\"\n  - {c: 'd\n\n e'}\n  keep: |+\n    x\n\n\nend: >+\n  y\n\n",
			operations: []jsonpatch.JsonPatchOperation{add("/spec/list/2", "f"), add("/spec/g", "h"), add("/i", "j")},
			want: "spec:\n  list:\n  - \"a\n b\"\n  - {c: 'd\n\n e'}\n  - f\n  keep: |+\n    x\n\n\n  g: h\nend: >+\n  y\n\n" +
				"i: j\n",
		},
		"what is empty, with an anchor, over lines, or below its key": {
			text: "a: &x []\nb: [\n] # of b\nc:\n  {}\nd: !!map {} # of d\n",
			operations: []jsonpatch.JsonPatchOperation{
				add("/a/0", "1"), add("/b/0", "2"), add("/c/x", "3"), add("/d/x", "4"),
			},
			want: "a: &x\n- \"1\"\nb: # of b\n- \"2\"\nc:\n  {\"x\":\"3\"}\nd: !!map # of d\n  x: \"4\"\n",
		},
		"JSON keeps its spaces, and entries get lines where others have theirs": {
			text: "{ \"a\" : [\n\t\"x\" ,\n\t\"y\"\n ], \"b\":\t{ } ,\n\n\t\"c\": [],\n\t\"d\": [1,2 ]\n}",
			operations: []jsonpatch.JsonPatchOperation{
				add("/a/0", "w"), add("/a/3", object{"z": []any{}}), add("/b/x", "1"), add("/c/0", "2"), add("/d/1", "3"),
			},
			want: "{ \"a\" : [\n\t\"w\",\n\t\"x\" ,\n\t\"y\",\n\t{\n\t\t\"z\": []\n\t}\n ], \"b\":\t{\"x\":\"1\"} ,\n\n" +
				"\t\"c\": [\n\t\t\"2\"\n\t],\n\t\"d\": [1,\"3\", 2 ]\n}",
		},
		"lists with anchors, and lists in lists": {
			text:       "a: &x\n    - b\n    -\n      - c\nd:\n-\n  - &y e\n  -   - f\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/1/0", "1"), add("/a/2", "2"), add("/d/0/1/1", "3"), add("/d/0/2", "4"), add("/d/1", "5")},
			want:       "a: &x\n    - b\n    -\n      - \"1\"\n      - c\n    - \"2\"\nd:\n-\n  - &y e\n  -   - f\n      - \"3\"\n  - \"4\"\n- \"5\"\n",
		},
		"a list is readable however its mapping is indented": {
			text:       "a:\n   b: c\nd:\n- e\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/l", []any{object{"x": []any{"z"}, "y": object{"k": "v"}}})},
			want:       "a:\n   b: c\n   l:\n   - x:\n     - z\n     \"y\":\n       k: v\nd:\n- e\n",
		},
		"a byte order mark ahead of brackets": {
			text:       "\ufeff{a: {ü: 1}}\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/b", "c")},
			want:       "\ufeff{a: {ü: 1, \"b\": \"c\"}}\n",
		},
		"JSON stays JSON, indented as it was": {
			text:       "{\n    \"a\": {\"<b>\": 1e3, \"list\": []},\n    \"z\": null\n}\n",
			operations: []jsonpatch.JsonPatchOperation{add("/a/list/0", "x"), add("/z", object{"y": true})},
			want:       "{\n    \"a\": {\"<b>\": 1e3, \"list\": [\"x\"]},\n    \"z\": {\n        \"y\": true\n    }\n}\n",
		},
		"JSON on one line stays on one line": {
			text:       `{"a":{"😀":"\ud83d\ude00"}}`,
			operations: []jsonpatch.JsonPatchOperation{add("/a/b", "c")},
			want:       `{"a":{"😀":"\ud83d\ude00", "b": "c"}}`,
		},
		"without additions nothing changes": {
			text: "a: &x   1\n...\n",
			want: "a: &x   1\n...\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			document := only(t, test.text)
			got, err := document.Patch(test.operations)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPatchRefusesWhatIsNoAddition(t *testing.T) {
	tests := map[string]struct {
		operation jsonpatch.JsonPatchOperation
		want      string
	}{
		"a key that is there":         {add("/a/b", "x"), "add /a/b: it is there already"},
		"an index behind the end":     {add("/list/9", "x"), "apply the patch"},
		"a place that is not there":   {add("/x/y", "x"), "apply the patch"},
		"a removal":                   {jsonpatch.NewPatch("remove", "/a/b", nil), "is no addition"},
		"something inside of a value": {add("/a/b/c", "x"), "apply the patch"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			document := only(t, "a:\n  b: c\nlist: [1]\n")
			text, err := document.Patch([]jsonpatch.JsonPatchOperation{test.operation})
			if err == nil {
				t.Fatalf("no error; text:\n%s", text)
			}
			if !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "test.yaml:1:1: ") {
				t.Errorf("error %q, want %q in it", err, test.want)
			}
		})
	}
}

func only(t *testing.T, text string) *Document {
	t.Helper()
	file := Parse("test.yaml", []byte(text))
	if len(file.Documents) != 1 {
		t.Fatalf("%d documents, want one", len(file.Documents))
	}
	if err := file.Documents[0].Err; err != nil {
		t.Fatal(err)
	}
	return file.Documents[0]
}
