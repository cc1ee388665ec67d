package cases_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/cases"
	"github.com/pillion-dev/pillion/manifest"
)

// TestBadFiles has a file that cannot be read beside one that can, which is run.
func TestBadFiles(t *testing.T) {
	const good = `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
profiles: [profiles]
cases:
- {name: it is woven, pod: {metadata: {annotations: {pillion.dev/inject: cache}}, spec: {containers: [{name: app}]}}, expect: {injected: [cache]}}
`
	tests := map[string]struct {
		bad  string
		want string // the beginning of the one problem; none if it is no bad file after all
	}{
		"CRLF":            {strings.ReplaceAll(good, "\n", "\r\n"), ""},
		"a byte order":    {"\uFEFF" + good, ""},
		"several":         {good + "---\n" + strings.Replace(good, "it is", "it is not", 1), ""},
		"empty":           {"", "bad_test.yaml:1: the file holds no PatternTest"},
		"comments":        {"# nothing\n---\n", "bad_test.yaml:1: the file holds no PatternTest"},
		"Helm":            {"kind: PatternTest\n{{- range .Values.cases }}\n- {{ . }}\n{{- end }}\n", "bad_test.yaml:2"},
		"binary":          {"\x00\x01\x02\xff\xfe", "bad_test.yaml:1"},
		"no mapping":      {"- a\n", "bad_test.yaml:1"},
		"a duplicate key": {good + "cases: []\n", `bad_test.yaml:6:1: the key "cases" is on line 4 already; remove one of them`},
		"huge":            {strings.Repeat("#", manifest.MaxFileBytes+1), "bad_test.yaml: the file is larger than 32 MiB"},
		"something else": {
			"suite: test a chart\ntests: []\n",
			"bad_test.yaml:1:1: this is no PatternTest: write apiVersion: pillion.dev/v1alpha1 and kind: PatternTest, and give files",
		},
		"of a later version": {
			strings.Replace(good, "v1alpha1", "v1", 1),
			`bad_test.yaml:1:1: apiVersion: is the text "pillion.dev/v1"; write pillion.dev/v1alpha1`,
		},
		"a profile": {strings.Split(theProfiles, "---")[0], "bad_test.yaml:1:1: this is a ClusterPatternProfile: write it below"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inside(t, map[string]string{"profiles/all.yaml": theProfiles, "good_test.yaml": good, "bad_test.yaml": test.bad})
			ran := run(t, cases.Options{}, ".")
			got := problemsIn(ran)
			switch {
			case test.want == "" && (len(got) > 0 || ran.Cases < 2 || !ran.OK()):
				t.Errorf("%d cases, problems %q, failures %q", ran.Cases, got, failuresIn(ran))
			case test.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], test.want) || ran.Cases != 1 || ran.Failed != 0):
				t.Errorf("%d cases, problems %q, want %q", ran.Cases, got, test.want)
			}
		})
	}
}

// nothing selects no case.
func nothing() *regexp.Regexp { return regexp.MustCompile("^$") }

func TestAFileThatIsGivenTwiceIsRunOnce(t *testing.T) {
	inside(t, map[string]string{"profiles/all.yaml": theProfiles, "tests/a_test.yaml": `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
profiles: [../profiles]
cases:
- {name: it is left alone, pod: {spec: {containers: [{name: app}]}}, expect: {containers: [app]}}
`})
	if ran := run(t, cases.Options{}, "tests/a_test.yaml", ".", "./tests/"); !ran.OK() || ran.Cases != 1 || len(ran.Files) != 1 {
		t.Errorf("%d cases, problems %q", ran.Cases, problemsIn(ran))
	}
}

func TestPathsThatHoldNothing(t *testing.T) {
	inside(t, map[string]string{
		"profiles/all.yaml": theProfiles, ".hidden/a_test.yaml": "x", "none/deployment.yaml": "kind: " +
			"Deployment\n", "none/test.yaml": "x: y\n",
	})
	want := []string{
		"missing: no such file or directory",
		"none: no file in this directory or below has a name that ends in _test.yaml or .test.yaml",
		".: no file in this directory or below has a name that ends in _test.yaml or .test.yaml",
	}
	ran := run(t, cases.Options{}, "missing", "none", ".")
	if diff := cmp.Diff(want, problemsIn(ran)); diff != "" || ran.OK() {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
