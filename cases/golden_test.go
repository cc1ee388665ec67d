package cases_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/cases"
)

const goldenCase = `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
profiles: [profiles]
cases:
- name: it is woven
  pod:
    metadata: {annotations: {pillion.dev/inject: cache}}
    spec: {containers: [{name: app, image: nginx}]}
  expect: {golden: golden/app.golden.yaml}
`

func TestGoldenFilesAreWrittenOnceAndThenCompared(t *testing.T) {
	inside(t, map[string]string{"profiles/all.yaml": theProfiles, "a_test.yaml": goldenCase})
	path := filepath.FromSlash("golden/app.golden.yaml")

	want := []string{"expect.golden (line 9): golden/app.golden.yaml is not there; write it with --update, and read it"}
	if diff := cmp.Diff(want, failuresIn(run(t, cases.Options{}, "."))); diff != "" {
		t.Fatalf("before it is written (-want +got):\n%s", diff)
	}
	ran := run(t, cases.Options{Update: true}, ".")
	if !ran.OK() || ran.Files[0].Cases[0].Written != path {
		t.Fatalf("it is not written: %+v", ran.Files)
	}
	written, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(written), "name: pillion-cache\n") || !strings.Contains(string(written), "image: "+
		"nginx\n") {
		t.Fatalf("not the woven Pod: %v\n%s", err, written)
	}
	if ran := run(t, cases.Options{}, "."); !ran.OK() {
		t.Fatalf("it differs from what was written: %q", failuresIn(ran))
	}

	for name, content := range map[string]string{
		"nothing differs":                string(written),
		"git checked it out for Windows": strings.ReplaceAll(string(written), "\n", "\r\n"),
	} {
		t.Run("an update touches nothing where "+name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			before := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
			if err := os.Chtimes(path, before, before); err != nil {
				t.Fatal(err)
			}
			if ran := run(t, cases.Options{Update: true}, "."); !ran.OK() || ran.Files[0].Cases[0].Written != "" {
				t.Errorf("written: %+v", ran.Files)
			}
			if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(before) {
				t.Errorf("touched: %v %v", info.ModTime(), err)
			}
			if ran := run(t, cases.Options{}, "."); !ran.OK() {
				t.Errorf("it differs: %q", failuresIn(ran))
			}
		})
	}

	if err := os.WriteFile(path, []byte(strings.Replace(string(written), "nginx", "apache", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	got := failuresIn(run(t, cases.Options{}, "."))
	if len(got) != 1 || !strings.Contains(got[0], "differs from golden/app.golden.yaml; if that is meant, run with --update") ||
		!strings.Contains(got[0], "\n    -    image: apache\n    +    image: nginx\n") {
		t.Errorf("a golden file that differs: %q", got)
	}
	if ran := run(t, cases.Options{Update: true}, "."); !ran.OK() || ran.Files[0].Cases[0].Written != path {
		t.Errorf("it is not written again: %+v", ran.Files)
	}
}

func TestGoldenFilesOfPodsThatAreRefusedAreNotWritten(t *testing.T) {
	inside(t, map[string]string{"profiles/all.yaml": theProfiles, "a_test.yaml": strings.Replace(goldenCase, "inject: "+
		"cache", "inject: cahce", 1)})
	if ran := run(t, cases.Options{Update: true}, "."); ran.OK() {
		t.Error("all is well")
	}
	if entries, err := os.ReadDir("golden"); err == nil {
		t.Errorf("written: %v", entries)
	}
}

func TestStaleGoldenFiles(t *testing.T) {
	files := map[string]string{
		"profiles/all.yaml": theProfiles, "tests/golden/app.golden.yaml": "", "tests/golden/gone.golden.yaml": "",
		"tests/golden/notes.yaml": "", "other/b.golden.yaml": "",
	}
	files["tests/a_test.yaml"] = strings.Replace(goldenCase, "[profiles]", "[../profiles]", 1)
	inside(t, files)
	const told = ": no case uses this golden file; remove it"
	want := []string{filepath.FromSlash("tests/golden/gone.golden.yaml") + told}
	for name, test := range map[string]struct {
		options cases.Options
		path    string
		want    []string
	}{
		"in a directory that is tested":        {cases.Options{Update: true}, "tests", want},
		"also where only some cases run":       {cases.Options{Only: nothing()}, "tests", want},
		"not where one file of several is run": {cases.Options{}, filepath.FromSlash("tests/a_test.yaml"), nil},
		"in a directory with an absolute path": {
			cases.Options{}, absolute(t, "tests"), []string{absolute(t, "tests/golden/gone.golden.yaml") + told},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, problemsIn(run(t, test.options, test.path))); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("not where a file cannot be read, for its cases may use them", func(t *testing.T) {
		if err := os.WriteFile(filepath.FromSlash("tests/b_test.yaml"), []byte("x: y\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := problemsIn(run(t, cases.Options{}, "tests")); len(got) != 1 || !strings.Contains(got[0], "b_test.yaml") {
			t.Errorf("problems %q", got)
		}
	})
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	absolute, err := filepath.Abs(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}
