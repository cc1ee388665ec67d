package manifest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPositions(t *testing.T) {
	type question struct{ object, path string }
	tests := map[string]struct {
		text string
		want map[question]Position
	}{
		"a block": {
			text: "# of x\nkind: A\nspec:\n  after:\n  - a\n  -   b\n",
			want: map[question]Position{
				{"", ""}:                   {2, 1},
				{"", "spec"}:               {3, 1},
				{"", "spec.after[1]"}:      {6, 7},
				{"", "spec.after[2]"}:      {4, 3},
				{"", "spec.absent.deeper"}: {3, 1},
				{"/spec", "after[0]"}:      {5, 5},
			},
		},
		"on one line, with characters of several bytes": {
			text: "---\n{ü: 1, spec: {a: [1, {b: c}]}}\n",
			want: map[question]Position{
				{"", ""}:               {2, 1},
				{"", "spec.a[1].b"}:    {2, 23},
				{"/spec/a/1", "b"}:     {2, 23},
				{"/spec/none", "spec"}: {2, 8},
			},
		},
		"keys with dots, slashes and brackets": {
			text: "a:\n  b.c/d: 1\n  b: {c: 2}\n  x[0]: {y.z: 3}\n",
			want: map[question]Position{
				{"", "a[b.c/d]"}:     {2, 3},
				{"", "a.b.c/d"}:      {2, 3},
				{"", "a.b.c"}:        {3, 7},
				{"", "a.x[0].y.z"}:   {4, 10},
				{"/a/b.c~1d", ""}:    {2, 3},
				{"", "a.b.c.absent"}: {3, 7},
			},
		},
		"a List": {
			text: "kind: List\nitems:\n- kind: A\n- kind: List\n  items:\n  - {kind: B, metadata: {name: x}}\n",
			want: map[question]Position{
				{"/items/0", ""}:                      {3, 3},
				{"/items/1/items/0", "metadata.name"}: {6, 26},
			},
		},
		"what aliases and merge keys stand for": {
			text: "x: &x\n  a: {b: 1}\ny: *x\nz:\n  <<: *x\n  c: 1\nw: {<<: [{d: 1}, *x]}\n",
			want: map[question]Position{
				{"", "y.a.b"}: {2, 7},
				{"", "z.a.b"}: {2, 7},
				{"", "z.c"}:   {6, 3},
				{"", "w.a"}:   {2, 3},
				{"", "w.d"}:   {7, 11},
			},
		},
		"JSON": {
			text: "{\n\t\"kind\": \"A\",\n  \"spec\": {\"ü\": 1, \"after\": [ \"a\",\n\"b\" ]}\n}\n",
			want: map[question]Position{
				{"", ""}:              {1, 1},
				{"", "kind"}:          {2, 2},
				{"", "spec.after"}:    {3, 20},
				{"", "spec.after[0]"}: {3, 31},
				{"", "spec.after[1]"}: {4, 1},
			},
		},
		"line breaks that only YAML knows": {
			text: "kind: A # \u2028\na: 1\rb: 2\nc: 3\n",
			want: map[question]Position{{"", "kind"}: {1, 0}, {"", "a"}: {2, 0}, {"", "b"}: {2, 0}, {"", "c"}: {3, 0}},
		},
		"line breaks of Windows and a byte order mark": {
			text: "\ufeffkind: A\r\nspec:\r\n  a: 1\r\n",
			want: map[question]Position{{"", "kind"}: {1, 1}, {"", "spec.a"}: {3, 3}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			document := only(t, test.text)
			got := map[question]Position{}
			for q := range test.want {
				got[q] = document.FieldPosition(q.object, q.path)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("positions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPositionsInDocumentsBehindOthers(t *testing.T) {
	tests := map[string]struct {
		text string
		want Position // of the field a in the last document
	}{
		"in YAML":                        {"kind: A\n---\n# comment\nkind: B\na: 1\n", Position{5, 1}},
		"on the line of its separator":   {"kind: A\n--- {kind: B, a: 1}\n", Position{2, 15}},
		"in JSON":                        {"{\"kind\": \"A\"}\n\n{\n \"a\": 1}", Position{4, 2}},
		"in JSON on one line":            {`{"ü":"A"}{"b":1}{"c":1, "a": 1}`, Position{1, 25}},
		"in JSON on a line that is more": {"{\"k\":\n\"A\"}{\"a\": 1}\n", Position{2, 6}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := Parse("x", []byte(test.text))
			document := file.Documents[len(file.Documents)-1]
			if got := document.Position("/a"); document.Err != nil || got != test.want {
				t.Errorf("%v, error %v; want %v", got, document.Err, test.want)
			}
		})
	}
}
