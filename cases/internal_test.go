package cases

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

func testOptions() Options {
	return Options{Decisions: func(settings config.Config) profiles.Options {
		return profiles.Options{Images: injectors.DefaultImages(""), ExcludedNamespaces: settings.ExcludedNamespaces}
	}}
}

func testLoader(t testing.TB) *loader {
	t.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return newLoader(compiler, testOptions())
}

const head = "apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\n"

const aCache = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: cache}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
`

const aCase = `cases:
- name: it is woven
  pod: {metadata: {annotations: {pillion.dev/inject: cache}}, spec: {containers: [{name: app}]}}
  expect: {injected: [cache]}
`

func write(t testing.TB, directory string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(directory, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProfilesAreCompiledOnceForASetOfThem(t *testing.T) {
	directory := t.TempDir()
	write(t, directory, map[string]string{
		"a/cache.yaml": aCache, "b/site.yaml": strings.ReplaceAll(aCache, "cache}", "site}"),
		"one_test.yaml":      head + "profiles: [a, b]\n" + aCase,
		"two_test.yaml":      head + "profiles: [b/, ./a]\n" + aCase,
		"deep/er_test.yaml":  head + "profiles: [../a/../a, ../b]\n" + aCase,
		"three_test.yaml":    head + "profiles: [a]\n" + aCase,
		"settings_test.yaml": head + "profiles: [a]\nconfiguration: {excludedNamespaces: [live]}\n" + aCase,
	})
	l, worlds := testLoader(t), map[*world]bool{}
	for _, name := range []string{"one", "two", "deep/er", "three", "settings"} {
		file := l.load(filepath.Join(directory, filepath.FromSlash(name)+"_test.yaml"))
		if len(file.problems) > 0 || len(file.cases) != 1 {
			t.Fatalf("%s: %d cases, %v", name, len(file.cases), file.problems)
		}
		worlds[file.cases[0].world] = true
	}
	if len(l.sets) != 2 || len(worlds) != 3 {
		t.Errorf("%d sets were compiled and %d snapshots made of them, want 2 and 3", len(l.sets), len(worlds))
	}
}

// TestBrokenLawsFailCases spoils a right answer, as a mistake of Pillion's would.
func TestBrokenLawsFailCases(t *testing.T) {
	directory := t.TempDir()
	write(t, directory, map[string]string{"a_test.yaml": head + "profiles: [cache.yaml]\n" + aCase, "cache.yaml": aCache})
	file := testLoader(t).load(filepath.Join(directory, "a_test.yaml"))
	if len(file.cases) != 1 {
		t.Fatal(file.problems)
	}
	c := file.cases[0]
	tests := map[string]struct {
		spoil func(got *answer, decision *profiles.Decision)
		want  string // nothing is broken where it is empty
	}{
		"nothing": {func(*answer, *profiles.Decision) {}, ""},
		"the answer is not the decision": {
			func(_ *answer, d *profiles.Decision) { d.Allowed = false }, "the webhook's answer is not the decision",
		},
		"the patch is not the decision's": {
			func(got *answer, _ *profiles.Decision) { got.Patch = append([]byte(" "), got.Patch...) }, "two decisions about the same " +
				"Pod differ",
		},
		"the Pod is not the decision's": {
			func(got *answer, _ *profiles.Decision) { got.pod.Spec.Containers[0].Image = "other" }, "the patch does not make the Pod",
		},
		"something is replaced": {
			func(got *answer, _ *profiles.Decision) { got.Patch = []byte(`[{"op": "replace", "path": "/spec"}]`) }, "does more than add",
		},
		"weaving again adds something": {
			func(got *answer, _ *profiles.Decision) { got.raw = c.request.raw }, "is woven again",
		},
		"weaving again refuses": {
			func(got *answer, _ *profiles.Decision) {
				got.raw = []byte(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"pillion.dev/inject": "none,"}}, ` +
					`"spec": {}}`)
			}, "is refused when it is created again",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := c.world.admit(t.Context(), profiles.PathPods, c.request)
			if err != nil {
				t.Fatal(err)
			}
			decision, err := c.world.decide(c.request)
			if err != nil {
				t.Fatal(err)
			}
			test.spoil(got, &decision)
			told := strings.Join(c.laws(t.Context(), got, &decision), "; ")
			if test.want == "" && told != "" || !strings.Contains(told, test.want) {
				t.Errorf("told %q, want %q", told, test.want)
			}
		})
	}
}

// TestAWebhookThatDoesNotAnswerFailsTheCase has a Pod whose admission review is too large to be read.
func TestAWebhookThatDoesNotAnswerFailsTheCase(t *testing.T) {
	directory := t.TempDir()
	large := strings.Replace(aCase, "pillion.dev/inject: cache", "big: "+strings.Repeat("x", 8<<20), 1)
	write(t, directory, map[string]string{"a_test.yaml": head + "profiles: [cache.yaml]\n" + large, "cache.yaml": aCache})
	ran, err := Run(t.Context(), []string{directory}, testOptions())
	if err != nil || ran.Failed != 1 || !strings.Contains(ran.Files[0].Cases[0].Failures[0].Message, "the webhook answers HTTP "+
		"413") {
		t.Errorf("%v %+v", err, ran)
	}
}

// FuzzParse reads whatever file: no crash, every problem has a line of the file and a sentence, and a document without has cases that
// run.
func FuzzParse(f *testing.F) {
	examples, err := filepath.Glob(filepath.FromSlash("../examples/tests/*_test.yaml"))
	if err != nil || len(examples) == 0 {
		f.Fatal("there are no examples", err)
	}
	for _, name := range examples {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(head + "profiles: [x]\nconfiguration: {podSecurity: [], images: {registry: 1}}\n" + aCase))
	f.Add([]byte(head + "namespaces: [7, {}, {name: a, labels: 1}]\ncases: [1, {expect: 1, pod: {metadata: 1}}, {file: x, " +
		"object: a/b}]\n"))
	f.Add([]byte(head + "profiles: [{apiVersion: pillion.dev/v1alpha1, kind: PatternProfile, metadata: 7}]\ncases: [{name: [], " +
		"pod: &a {spec: {}}}, *a]\n"))
	l := testLoader(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, root := range []string{"/dev", "/proc", "/sys"} { // what is read there may not end
			if strings.Contains(string(content), root) {
				return
			}
		}
		const name = "fuzzed_test.yaml"
		parsed := manifest.Parse(name, content)
		lines := strings.Count(string(content), "\n") + 1
		names := map[string]int{}
		for _, document := range parsed.Documents {
			if document.Err != nil || document.Empty() {
				continue
			}
			file := &loadedFile{name: name}
			clear(l.goldens)
			clear(l.sets)
			clear(l.worlds)
			clear(l.manifest)
			l.document(file, document, names)
			for _, problem := range file.problems {
				if problem.Message == "" || problem.File == name && (problem.Line < 1 || problem.Line > lines) {
					t.Errorf("%d lines, and a problem: %+v", lines, problem)
				}
			}
			for _, c := range file.cases {
				if len(file.problems) > 0 || c.name == "" || c.world == nil || c.request.raw == nil || c.request.namespace == "" {
					t.Errorf("a case cannot be run: %+v", c)
				}
				if c.golden == "" {
					c.run(t.Context(), false)
				}
			}
		}
	})
}
