package cases_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/cases"
)

// TestTheDocumentsCasesPass runs the files that docs/testing.md shows, with a workload beside them.
func TestTheDocumentsCasesPass(t *testing.T) {
	read := func(path string) string {
		t.Helper()
		content, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	document := read("../docs/testing.md")
	files := map[string]string{
		"profiles/site-content.yaml": read("../examples/site-content.yaml"), "profiles/page-cache.yaml": read("../examples/page-cache.yaml"),
		"shop.yaml": `apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec: {template: {metadata: {annotations: {pillion.dev/inject: "site-content, page-cache"}}, spec: {containers: [{name: app}]}}}
`,
	}
	for _, sample := range regexp.MustCompile("(?s)\n```yaml\n# ([^\n]*)\n(.*?)```\n").FindAllStringSubmatch(document, -1) {
		files[sample[1]] = sample[2]
	}
	inside(t, files)
	if ran := run(t, cases.Options{}, "tests"); !ran.OK() || ran.Cases != 3 {
		t.Errorf("%d cases, problems %q, failures %q", ran.Cases, problemsIn(ran), failuresIn(ran))
	}

	changed := strings.Replace(files["tests/shop_test.yaml"], "annotations: {pillion.dev/inject: site-content}", "annotations: "+
		"{}", 1)
	// A line stands for that with the path.
	if err := os.WriteFile(filepath.FromSlash("tests/shop_test.yaml"), []byte("\n"+changed), 0o600); err != nil {
		t.Fatal(err)
	}
	c := run(t, cases.Options{}, "tests").Files[0].Cases[0]
	_, shown, _ := strings.Cut(document, "\nFAIL ")
	shown, _, _ = strings.Cut(shown, "\n```")
	got := fmt.Sprintf("tests/shop_test.yaml:%d: %s\n%s", c.Line, c.Name, c.Explanation())
	if got = strings.TrimSuffix(strings.ReplaceAll(got, "\n", "\n     "), "\n     "); got != shown {
		t.Errorf("a case that fails says\n%s\nand the document shows\n%s", got, shown)
	}
}
