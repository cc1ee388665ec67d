package lint_test

import (
	"bytes"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/lint"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/report"
)

// FuzzFiles holds lint to what it promises whatever a file holds: no crash, the same findings each time, every one with a reason and a
// place that the file has, and reports that can be written.
func FuzzFiles(f *testing.F) {
	for _, seed := range []string{
		"", "# nothing\n", "a: [", site, deployment, fmt.Sprintf(pod, "pillion.dev/inject: 'site, no', site.pillion.dev/ref: 1"),
		site + "  after: [a]\n---\n" + deployment + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {pillion.dev/inject: a.b}}\n",
		"kind: List\nitems: [{kind: List, items: [1, {apiVersion: v1, kind: Pod, spec: {}}]}]", "\xff\xfea\x00", "a: \x00", "\ufeffkind: {{ .x }}\r\n",
		"a: &a [*a]\n", "{\"a\": 1}{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"spec\":{\"containers\":1}}", "? [a]\n: b\n<<: {kind: Pod, apiVersion: v1}\n",
		"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {a.pillion.dev/: x, pillion.dev/: y, /: z, \"[]\": 1}}\nspec: {}\n",
	} {
		f.Add([]byte(seed))
	}
	options := options(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		check := func() lint.Result { return lint.Files([]manifest.File{manifest.Parse("f.yaml", text)}, nil, options) }
		result := check()
		if diff := cmp.Diff(result, check()); diff != "" {
			t.Errorf("the same file again (-first +second):\n%s", diff)
		}
		lines := bytes.Split(text, []byte("\n"))
		for _, finding := range result.Findings {
			if finding.Reason == "" || finding.Message == "" || finding.File != "f.yaml" {
				t.Errorf("%+v says too little", finding)
			}
			if finding.Line < 1 || finding.Line > len(lines) {
				t.Errorf("%+v in a file of %d lines", finding, len(lines))
			} else if at := utf8.RuneCount(lines[finding.Line-1]) + 1; finding.Column > at {
				t.Errorf("%+v on a line of %d characters", finding, at-1)
			}
		}
		if err := report.SARIF(&bytes.Buffer{}, "", result.Findings, nil); err != nil {
			t.Error(err)
		}
	})
}
