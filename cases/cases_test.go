package cases_test

import (
	"bytes"
	"encoding/xml"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/pillion-dev/pillion/cases"
	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
	"github.com/pillion-dev/pillion/weave"
)

// decisions returns the settings that decisions depend on, as the command has them.
func decisions(settings config.Config) profiles.Options {
	return profiles.Options{
		Images:             injectors.DefaultImages(settings.Images.Registry),
		ExcludedNamespaces: settings.ExcludedNamespaces,
		Weave:              weave.Options{LeadingContainers: settings.LeadingContainers},
		PodSecurity: profiles.PodSecurity{
			Mode: profiles.PodSecurityMode(settings.PodSecurity.Mode), Enforce: settings.PodSecurity.Enforce,
			EnforceVersion: settings.PodSecurity.EnforceVersion,
		},
	}
}

// run runs the cases in paths.
func run(t *testing.T, options cases.Options, paths ...string) *cases.Report {
	t.Helper()
	options.Decisions = decisions
	ran, err := cases.Run(t.Context(), paths, options)
	if err != nil {
		t.Fatal(err)
	}
	return ran
}

// inside writes files into a directory that becomes the current one, so that messages name them as they are named here.
func inside(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// problemsIn returns all problems of a report, each on a line.
func problemsIn(ran *cases.Report) []string {
	var all []string
	for _, file := range ran.Files {
		for _, problem := range file.Problems {
			all = append(all, problem.String())
		}
	}
	return all
}

// failuresIn returns all failures of a report: the line, the field, the message and the difference.
func failuresIn(ran *cases.Report) []string {
	var all []string
	for _, file := range ran.Files {
		for i := range file.Cases {
			for _, failure := range file.Cases[i].Failures {
				all = append(all, strings.TrimSuffix(failure.String(), "\n"))
			}
		}
	}
	return all
}

const theProfiles = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: cache}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
  overridable: [local.memory]
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: sessions}
spec:
  cacheAmbassador: {protocol: Redis, envPrefix: SESSIONS, local: {memory: 64Mi}}
  match:
    namespaceSelector: {matchLabels: {env: prod}}
    conditions: [{name: not-batch, expression: "!('batch' in object.metadata.?labels.orValue({}))"}]
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: mine, namespace: shop}
spec:
  cacheAmbassador: {protocol: Memcached, envPrefix: MINE, local: {memory: 64Mi}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: web}}
`

// TestTheExamplesPass runs the suite that examples/ offers to copy.
func TestTheExamplesPass(t *testing.T) {
	ran := run(t, cases.Options{}, filepath.FromSlash("../examples/tests"))
	if !ran.OK() || ran.Cases < 20 {
		t.Errorf("%d cases, %d failed; if a golden file differs and should, run pillion test examples/tests --update\n%s\n%s",
			ran.Cases, ran.Failed, strings.Join(problemsIn(ran), "\n"), strings.Join(failuresIn(ran), "\n"))
	}
	seen := map[string]bool{}
	for _, file := range ran.Files {
		for i := range file.Cases {
			for _, outcome := range file.Cases[i].Outcomes {
				if outcome.Result == profiles.Applied {
					seen[string(outcome.Kind)] = true
				}
			}
		}
	}
	want := []string{"CacheAmbassador", "Custom", "GitSync", "PrometheusAdapter", "TemplateProcessor"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("patterns of which the examples weave one (-want +got):\n%s", diff)
	}
}

// TestExpectations has each expectation once as it comes, and once or more as it does not.
func TestExpectations(t *testing.T) {
	const asks = `pod: {metadata: {annotations: {pillion.dev/inject: %}}, spec: {initContainers: [{name: migrate}], containers: ` +
		`[{name: app}]}}`
	cache := strings.Replace(asks, "%", "cache", 1)
	both := strings.Replace(asks, "%", `"mine, cache"`, 1)
	unknown := strings.Replace(asks, "%", "cahce", 1)
	twice := strings.Replace(asks, "%", `"cahce, seshions"`, 1)
	const plain = `pod: {spec: {containers: [{name: app}]}}`
	const own = `pod: {metadata: {annotations: {pillion.dev/inject: cache}}, spec: {containers: [{name: app, env: [{name: ` +
		`CACHE_HOST, value: x}]}]}}`
	const batch = "namespace: {name: live, labels: {env: prod}}\n  pod: {metadata: {labels: {batch: x}}, spec: {containers: " +
		"[{name: app}]}}"
	const live = "namespace: {name: live, labels: {env: prod}}\n  " + plain
	tests := map[string]struct {
		pod, expect string
		want        []string // failures; none where the case passes
	}{
		"allowed, and it is": {pod: cache, expect: `{allowed: true}`},
		"allowed, and it is refused": {
			pod: unknown, expect: `{allowed: true}`,
			want: []string{"expect.allowed (line 10): the Pod is refused: Pillion refuses this Pod: profile cahce is not available in " +
				"namespace " +
				"default; did you mean cache? (ProfileNotAvailable)"},
		},
		"something of a Pod that is refused": {
			pod: unknown, expect: `{containers: [app]}`,
			want: []string{"expect (line 10): the Pod is refused: Pillion refuses this Pod: profile cahce is not available in namespace " +
				"default; did you mean cache? (ProfileNotAvailable)"},
		},
		"denied, and it is": {pod: unknown, expect: `{denied: true}`},
		"denied, and it is allowed": {
			pod: cache, expect: `{denied: true}`,
			want: []string{"expect.denied (line 10): the Pod is allowed, with pillion-cache (sidecar), migrate (init), app"},
		},
		"denied for its reason":               {pod: unknown, expect: `{denied: {reasons: [ProfileNotAvailable]}}`},
		"denied twice for one and the same":   {pod: twice, expect: `{denied: {reasons: [ProfileNotAvailable]}}`},
		"denied with words of its message":    {pod: unknown, expect: `{denied: {message: did you mean cache}}`},
		"denied with several pieces of words": {pod: twice, expect: `{denied: {message: [cahce, seshions]}}`},
		"denied for another reason": {
			pod: unknown, expect: `{denied: {reasons: [MountPathTaken, ProfileNotAvailable]}}`,
			want: []string{"expect.denied.reasons (line 10): not as expected\n  expected -, got +\n    -MountPathTaken\n     " +
				"ProfileNotAvailable"},
		},
		"denied with other words": {
			pod: unknown, expect: `{denied: {message: [cahce, sessions]}}`,
			want: []string{`expect.denied.message[1] (line 10): the message has no "sessions": Pillion refuses this Pod: profile ` +
				`cahce is not ` +
				"available in namespace default; did you mean cache? (ProfileNotAvailable)"},
		},
		"the containers in their order": {pod: cache, expect: `{containers: [pillion-cache (sidecar), migrate (init), app]}`},
		"the containers in another order": {
			pod: cache, expect: `{containers: [migrate (init), pillion-cache (sidecar), app]}`,
			want: []string{"expect.containers (line 10): not as expected\n  expected -, got +\n    -migrate (init)\n     " +
				"pillion-cache (sidecar)\n" +
				"    +migrate (init)\n     app"},
		},
		"a container of another kind": {
			pod: cache, expect: `{containers: [pillion-cache (init), migrate (init), app]}`,
			want: []string{"expect.containers (line 10): not as expected\n  expected -, got +\n    -pillion-cache (init)\n" +
				"    +pillion-cache (sidecar)\n     migrate (init)\n     app"},
		},
		"the profiles in any order": {
			pod: "namespace: shop\n  " + both, expect: `{injected: [mine, cache]}`,
			want: []string{"expect (line 11): the Pod is refused: "},
		},
		"the profile that is woven":    {pod: cache, expect: `{injected: [cache]}`},
		"no profile":                   {pod: plain, expect: `{injected: []}`},
		"policy without being asked":   {pod: live, expect: `{injected: [sessions]}`},
		"policy that leaves a Pod out": {pod: batch, expect: `{skipped: {sessions: ConditionNotMet}}`},
		"a profile that is not woven": {
			pod: plain, expect: `{injected: [cache]}`,
			want: []string{"expect.injected (line 10): not as expected\n  expected -, got +\n    -cache"},
		},
		"no profile, and one is woven": {
			pod: cache, expect: `{injected: []}`,
			want: []string{"expect.injected (line 10): not as expected\n  expected -, got +\n    +cache"},
		},
		"left out for another reason": {
			pod: batch, expect: `{skipped: {sessions: AlreadyInjected}}`,
			want: []string{"expect.skipped.sessions (line 11): expected AlreadyInjected, got ConditionNotMet"},
		},
		"left out, and it is woven": {
			pod: cache, expect: `{skipped: {cache: Applied}}`,
			want: []string{"expect.skipped.cache (line 10): expected Applied, got Applied, which is no reason to be left out"},
		},
		"left out, and nobody thought of it": {
			pod: plain, expect: `{skipped: {sessions: ConditionNotMet}}`,
			want: []string{"expect.skipped.sessions (line 10): profile sessions was not considered at all, and should have been left " +
				"out " +
				"(ConditionNotMet)"},
		},
		"all outcomes":          {pod: batch, expect: `{outcomes: [sessions: ConditionNotMet]}`},
		"all outcomes of none":  {pod: plain, expect: `{outcomes: []}`},
		"outcomes of a refusal": {pod: unknown, expect: `{denied: true, outcomes: [cahce: ProfileNotAvailable]}`},
		"an outcome is missing": {
			pod: cache, expect: `{outcomes: []}`,
			want: []string{"expect.outcomes (line 10): not as expected\n  expected -, got +\n    +cache: Applied"},
		},
		"a warning":  {pod: own, expect: `{warnings: [keeps its own value]}`},
		"no warning": {pod: cache, expect: `{warnings: []}`},
		"a warning that does not come": {
			pod: cache, expect: `{warnings: [keeps its own value]}`,
			want: []string{`expect.warnings[0] (line 10): no warning has "keeps its own value": there is none`},
		},
		"a warning with other words": {
			pod: own, expect: `{warnings: [removes its own value]}`,
			want: []string{`expect.warnings[0] (line 10): no warning has "removes its own value": there is "profile cache: the app ` +
				`keeps its ` +
				`own value of app: CACHE_HOST"`},
		},
		"no warning, and one comes": {
			pod: own, expect: `{warnings: []}`,
			want: []string{`expect.warnings (line 10): expected none, got "profile cache: the app keeps its own value of app: ` +
				`CACHE_HOST"`},
		},
		"several things at once": {
			pod: cache, expect: `{containers: [app], injected: []}`,
			want: []string{
				"expect.containers (line 10): not as expected\n  expected -, got +\n    +pillion-cache (sidecar)\n    +migrate (init)\n  " +
					"   app",
				"expect.injected (line 10): not as expected\n  expected -, got +\n    +cache",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inside(t, map[string]string{"profiles/all.yaml": theProfiles, "a_test.yaml": `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
# a comment


profiles: [profiles]
cases:
- name: it is so
  ` + test.pod + `
  expect: ` + test.expect + "\n"})
			ran := run(t, cases.Options{}, ".")
			if len(problemsIn(ran)) > 0 {
				t.Fatal(problemsIn(ran))
			}
			got := failuresIn(ran)
			for i := range min(len(got), len(test.want)) { // one that is told by its beginning
				if strings.HasSuffix(test.want[i], ": ") && strings.HasPrefix(got[i], test.want[i]) {
					got[i] = test.want[i]
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if passed := len(test.want) == 0; ran.OK() != passed || ran.Files[0].Cases[0].Passed != passed {
				t.Errorf("passed is %t", !passed)
			}
		})
	}
}

// TestWhatDecidesBesidesThePod has the same Pod with another user, namespace, setting or dry run.
func TestWhatDecidesBesidesThePod(t *testing.T) {
	const profile = `- apiVersion: pillion.dev/v1alpha1
  kind: ClusterPatternProfile
  metadata: {name: cache}
  spec:
    cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
    match:
      namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}
      conditions: [{name: c, expression: %}]
`
	const workload = `apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: shop, namespace: team}
  spec: {template: {spec: {containers: [{name: app}]}}}
- apiVersion: batch/v1
  kind: Job
  metadata: {name: once}
  spec: {template: {spec: {containers: [{name: app}]}}}
`
	const pod = "pod: {spec: {containers: [{name: app}]}}"
	tests := map[string]struct {
		condition, source, more string
		flags                   []string
	}{
		"a user by name":          {`request.userInfo.username == 'jane'`, pod, "user: jane", nil},
		"a user with groups":      {`'devs' in request.userInfo.groups`, pod, "user: {username: jane, groups: [devs]}", nil},
		"a user is authenticated": {`'system:authenticated' in request.userInfo.groups`, pod, "user: jane", nil},
		"a ServiceAccount": {
			`'system:serviceaccounts:ci' in request.userInfo.groups`, pod, `user: "system:serviceaccount:ci:default"`, nil,
		},
		"a Deployment's Pods are created by its controller": {
			`request.userInfo.username.endsWith(':replicaset-controller')`, "file: apps.yaml", "object: Deployment/shop", nil,
		},
		"a Deployment's namespace": {
			`namespaceObject.metadata.name == 'team'`, "file: apps.yaml", "object: Deployment/shop", nil,
		},
		"another namespace than the manifest leaves open": {
			`namespaceObject.metadata.name == 'team'`, "file: apps.yaml", "object: Job/once\n  namespace: team", nil,
		},
		"a namespace's annotation": {
			`namespaceObject.metadata.annotations['a'] == 'b'`, pod, "namespace: {name: x, annotations: {a: b}}", nil,
		},
		"a namespace of the document": {`namespaceObject.metadata.labels['own'] == 'yes'`, pod, "namespace: team", nil},
		"dry run":                     {`request.dryRun`, pod, "dryRun: true", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			document := func(condition string) string {
				return "apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\nprofiles:\n" +
					strings.Replace(profile, "%", `"`+condition+`"`, 1) +
					"namespaces: [{name: team, labels: {own: \"yes\"}}]\ncases:\n- name: it is so\n  " + test.source + "\n  " + test.more +
					"\n  expect: {injected: [cache]}\n"
			}
			inside(t, map[string]string{
				"apps.yaml": workload, "so_test.yaml": document(test.condition), "not.test.yml": document("!(" + test.condition + ")"),
			})
			ran := run(t, cases.Options{}, ".")
			failed := told(ran)
			if len(problemsIn(ran)) > 0 || len(failed) != 1 || !strings.HasPrefix(failed[0], "not.test.yml: expect.injected (line ") ||
				!strings.HasSuffix(failed[0], "-cache") {
				t.Errorf("%d failed, problems %q, failures %q", ran.Failed, problemsIn(ran), failed)
			}
		})
	}
}

// told returns what failed in which file.
func told(ran *cases.Report) []string {
	var all []string
	for _, file := range ran.Files {
		for i := range file.Cases {
			for _, failure := range file.Cases[i].Failures {
				all = append(all, file.File+": "+strings.TrimSuffix(failure.String(), "\n"))
			}
		}
	}
	return all
}

func TestSettings(t *testing.T) {
	const head = `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
profiles: [profiles]
`
	const aCase = `- name: %
  namespace: shop
  pod: {metadata: {annotations: {pillion.dev/inject: cache}}, spec: {containers: [{name: app}]}}
`
	untouched := strings.Replace(aCase, "%", "untouched", 1) + "  expect: {injected: []}\n"
	woven := strings.Replace(aCase, "%", "woven", 1) + "  expect: {injected: [cache]}\n"
	const excluded = "configuration: {excludedNamespaces: [kube-system, shop]}\n"
	tests := map[string]struct {
		document string
		args     []string
		environ  []string
	}{
		"the defaults":            {document: head + "cases:\n" + woven},
		"the document's":          {document: head + excluded + "cases:\n" + untouched},
		"the case's":              {document: head + "cases:\n" + untouched + "  " + excluded + woven},
		"a flag's":                {document: head + "cases:\n" + untouched, args: []string{"--excluded-namespaces=shop"}},
		"the environment's":       {document: head + "cases:\n" + untouched, environ: []string{"PILLION_EXCLUDED_NAMESPACES=shop"}},
		"Pillion's own namespace": {document: head + "configuration: {namespace: shop}\ncases:\n" + untouched},
		"the case's before the document's": {
			document: head + excluded + "cases:\n" + untouched + woven + "  configuration: {excludedNamespaces: [other]}\n",
		},
		"the document's before a flag's": {
			document: head + "configuration: {excludedNamespaces: " +
				"[other]}\ncases:\n" + woven, args: []string{"--excluded-namespaces=shop"},
		},
		"a setting in a section": {document: head + "configuration: {images: {registry: registry.example.com}}\ncases:\n" + woven},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inside(t, map[string]string{"profiles/all.yaml": theProfiles, "a_test.yaml": test.document})
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			config.AddFlags(flags, config.Decisions)
			if err := flags.Parse(test.args); err != nil {
				t.Fatal(err)
			}
			if ran := run(t, cases.Options{Flags: flags, Environ: test.environ}, "."); !ran.OK() {
				t.Errorf("problems %q, failures %q", problemsIn(ran), failuresIn(ran))
			}
		})
	}
}

func TestProfilesOfTheCommandLine(t *testing.T) {
	const document = `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
cases:
- name: it is woven
  pod: {metadata: {annotations: {pillion.dev/inject: cache}}, spec: {containers: [{name: app}]}}
  expect: {injected: [cache]}
`
	inside(t, map[string]string{"all/all.yaml": theProfiles, "tests/a_test.yaml": document})
	if ran := run(t, cases.Options{Profiles: []string{"all"}}, "tests"); !ran.OK() {
		t.Errorf("problems %q, failures %q", problemsIn(ran), failuresIn(ran))
	}
	want := []string{"tests/a_test.yaml:1:1: it names no profiles; write their files or directories: profiles: [../profiles/]"}
	if diff := cmp.Diff(want, problemsIn(run(t, cases.Options{}, "tests"))); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestOnlySomeCases(t *testing.T) {
	ran := run(t, cases.Options{Only: regexp.MustCompile("^the wiki")}, filepath.FromSlash("../examples/tests"))
	if ran.Cases != 1 || ran.Excluded < 20 || !ran.OK() {
		t.Errorf("%d cases, %d excluded, problems %q", ran.Cases, ran.Excluded, problemsIn(ran))
	}
	if suites := ran.Suites(); len(suites) != 1 || suites[0].Cases[0].Name != "the wiki gets its login" {
		t.Errorf("suites %v", suites)
	}
	if ran := run(t, cases.Options{Only: regexp.MustCompile("no such case")}, "../examples/tests"); ran.OK() {
		t.Error("nothing was run, and all is well")
	}
}

// TestJUnit reads the report as a CI system would.
func TestJUnit(t *testing.T) {
	inside(t, map[string]string{"profiles/all.yaml": theProfiles, "a_test.yaml": `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
profiles: [profiles]
cases:
- {name: one that passes, pod: {spec: {containers: [{name: app}]}}, expect: {containers: [app]}}
- {name: one that <fails>, pod: {spec: {containers: [{name: app}]}}, expect: {containers: [web]}}
`, "b_test.yaml": "kind: PatternTest\n"})
	out := &bytes.Buffer{}
	if err := report.JUnit(out, run(t, cases.Options{}, ".").Suites()); err != nil {
		t.Fatal(err)
	}
	read := struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string  `xml:"name,attr"`
				File    string  `xml:"file,attr"`
				Line    int     `xml:"line,attr"`
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}{}
	if err := xml.Unmarshal(out.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if read.Tests != 3 || read.Failures != 2 || len(read.Suites) != 2 || len(read.Suites[0].Cases) != 2 ||
		len(read.Suites[1].Cases) != 1 {
		t.Fatalf("not the suites that were expected:\n%s", out)
	}
	passed, failed, unread := read.Suites[0].Cases[0], read.Suites[0].Cases[1], read.Suites[1].Cases[0]
	if passed.Name != "one that passes" || passed.Failure != nil || passed.Line != 5 || passed.File != "a_test.yaml" {
		t.Errorf("passed: %+v", passed)
	}
	if failed.Name != "one that <fails>" || failed.Failure == nil || !strings.Contains(*failed.Failure, "-web") ||
		!strings.Contains(*failed.Failure, "no profile was considered") {
		t.Errorf("failed: %+v", failed)
	}
	if unread.Name != "can be used: b_test.yaml:1:1" || unread.Failure == nil || !strings.Contains(*unread.Failure, "b_test.yaml:1:1: apiVersion: is empty; write "+
		"pillion.dev/v1alpha1") {
		t.Errorf("not read: %+v", unread)
	}
}
