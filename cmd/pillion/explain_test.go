package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/profiles"
)

// TestExplainIsAsItWas holds what explain prints to golden files, for people and for programs.
func TestExplainIsAsItWas(t *testing.T) {
	cases, err := filepath.Glob("testdata/explain/*/in.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatal("there is no case", err)
	}
	for _, in := range cases {
		dir := filepath.Dir(in)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Chdir(dir)
			for file, args := range map[string][]string{
				"want.txt": nil, "want.json": {"-o", "json", "--diff=false"},
			} {
				golden(t, filepath.ToSlash(filepath.Join(dir, file)), string(explainHere(t, args...)))
			}
		})
	}
}

// explainHere explains in.yaml by the profiles of the tests.
func explainHere(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	command := rootCommand()
	command.SetOut(&out)
	command.SetErr(&errs)
	command.SetArgs(append([]string{"explain", "-f", "in.yaml", "-p", "../profiles.yaml"}, args...))
	if err := command.ExecuteContext(t.Context()); err != nil || errs.Len() > 0 {
		t.Fatal(err, errs.String())
	}
	return out.Bytes()
}

func TestExplainSaysTheSameInAllForms(t *testing.T) {
	t.Chdir("testdata/explain/overridden-by-namespace-and-pod")
	asJSON := explainHere(t, "-o", "json")
	fromYAML, err := yaml.YAMLToJSON(explainHere(t, "-o", "yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var one, other any
	if err := json.Unmarshal(asJSON, &one); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(fromYAML, &other); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one, other); diff != "" {
		t.Error(diff)
	}
	if !bytes.HasPrefix(asJSON, []byte("{\n  \"apiVersion\": \"pillion.dev/v1alpha1\",\n  \"kind\": \"ExplanationList\",\n")) {
		t.Errorf("%.200s", asJSON)
	}
}

// TestTheDiffOfExplainIsThatOfInject: a file of one workload gives one diff.
func TestTheDiffOfExplainIsThatOfInject(t *testing.T) {
	files := map[string]string{"site.yaml": siteProfile, "cache.yaml": cacheProfile, "in.yaml": `# leads
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop # mine
spec:
  template:
    metadata:
      annotations:
        pillion.dev/inject: site, cache
    spec:
      containers:
      - name: app
`}
	injected, _, err := run(t, files, "", "inject", "-f", "in.yaml", "-p", "site.yaml", "-p", "cache.yaml", "--diff")
	if err != nil {
		t.Fatal(err)
	}
	explained, _, err := run(t, files, "", "explain", "-f", "in.yaml", "-p", "site.yaml", "-p", "cache.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(injected, "\n") // "diff in.yaml in.yaml"
	if !strings.Contains(explained, want) {
		t.Errorf("the diff of inject\n%s\nis not in\n%s", want, explained)
	}
	none, _, err := run(t, files, "", "explain", "-f", "in.yaml", "-p", "site.yaml", "-p", "cache.yaml", "--diff=false")
	if err != nil || strings.Contains(none, "@@") {
		t.Error("a diff that is not wanted is there", err, none)
	}
}

func TestExplainTellsWhatItCannot(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations: {pillion.dev/inject: sit}\nspec:\n  containers: [{name: app}]\n"
	offline := []string{"-p", "site.yaml", "-f", "in.yaml"}
	tests := map[string]struct {
		in     string
		args   []string
		err    string
		stderr string
		out    []string
	}{
		"nothing to explain": {err: "say what to explain: a workload such as deploy/shop or pod/shop-0, or a file by -f"},
		"files and workloads": {
			args: []string{"deploy/shop", "-f", "in.yaml"}, err: "give either workloads of the cluster or files by -f, not both",
		},
		"a workload without a cluster": {
			args: []string{"deploy/shop", "-p", "site.yaml"}, err: "with --profiles no cluster is read: give the workload as a file by -f",
		},
		"a dry run without a cluster": {args: append([]string{"--dry-run"}, offline...), err: "so that there is nothing to try"},
		"an unknown type": {
			args: []string{"svc/shop"},
			err:  `"svc" is no type with Pods that Pillion knows; write one of po, deploy, sts, ds, rs, rc, job, cj, podtemplate`,
		},
		"a type alone":        {args: []string{"deploy"}, err: "deploy is not enough: name the object too, as in deploy/NAME"},
		"a type without name": {args: []string{"deploy/"}, err: `"deploy/" names no object: write it as TYPE/NAME`},
		"an unknown form":     {args: append([]string{"-o", "xml"}, offline...), err: `--output "xml" is unknown`},
		"a file that is not there": {
			args: []string{"-p", "site.yaml", "-f", "no.yaml"}, err: "what the error above is about is not explained", stderr: "error: no.yaml: no such file",
		},
		"an empty file": {args: offline, err: "what the error above is about is not explained", stderr: "error: in.yaml:1: the file holds no object"},
		"a file without Pods": {
			in: "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\n", args: offline,
			err: "there is nothing to explain: Service shop is given, which has no Pod template",
		},
		"one bad document among good ones": {
			in: pod + "---\na: [\n---\n" + pod, args: offline, err: "what the error above is about is not explained", stderr: "error: in.yaml:",
			out: []string{"Pod p in namespace default (in.yaml:1)", "Pod p in namespace default (in.yaml:"},
		},
		"workloads of other API groups than theirs": {
			in: "apiVersion: v1\nkind: Deployment\nmetadata: {name: wrong}\n---\n" + pod, args: offline,
			err:    "what the error above is about is not explained",
			stderr: "error: in.yaml:1:1: Deployment wrong: apiVersion v1 has no kind Deployment; write apps/v1\n", out: []string{"Pod p in namespace default"},
		},
		"somebody else's kind of the same name, and a List": {
			in: "apiVersion: example.com/v1\nkind: Deployment\nmetadata: {name: other}\n---\napiVersion: v1\nkind: List\nitems:\n" +
				"- {apiVersion: v1, kind: Service, metadata: {name: s}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: app}]}}\n",
			args: offline, out: []string{"Pod p in namespace default (in.yaml:9)", "Without Pods, and so left out: Deployment other and Service s."},
		},
		"many objects without Pods": {
			in: pod + strings.Repeat("---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n", 30), args: offline,
			out: []string{"Service s, Service s and 20 others."},
		},
		"an annotation that nothing reads": {
			in: strings.Replace(pod, "/inject:", "/injcet:", 1), args: offline,
			out: []string{"warning: nothing reads the annotation pillion.dev/injcet; did you mean pillion.dev/inject?"},
		},
		"a template that is not valid": {
			in: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec:\n  template:\n    spec: {containers: [{name: 1}]}\n", args: offline,
			err: "what the error above is about is not explained", stderr: "Deployment shop: spec.containers[0].name is a number to YAML",
		},
		"a refused Pod, for CI": {
			in: pod, args: append([]string{"--fail-on-denial"}, offline...), err: "refused: Pod p in namespace default", out: []string{"did you mean site?"},
		},
		"a refused Pod": {in: pod, args: offline, out: []string{"ProfileNotAvailable: profile sit is not available in namespace default; did you mean site?"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			out, stderr, err := run(t, map[string]string{"site.yaml": siteProfile, "in.yaml": test.in}, "", append([]string{"explain"}, test.args...)...)
			if !strings.Contains(message(err), test.err) || (test.err == "") != (err == nil) {
				t.Errorf("want the error %q, got %v", test.err, err)
			}
			if !strings.Contains(stderr, test.stderr) {
				t.Errorf("want %q on stderr, got %q", test.stderr, stderr)
			}
			for _, want := range test.out {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in\n%s", want, out)
				}
			}
			if strings.Contains(out, "\x1b") {
				t.Error("there are escape sequences where no terminal is")
			}
		})
	}
}

func TestExplainReadsStdin(t *testing.T) {
	out, _, err := run(t, map[string]string{"site.yaml": siteProfile},
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {pillion.dev/inject: site}}\nspec: {containers: [{name: app}]}\n",
		"explain", "-f", "-", "-p", "site.yaml", "-n", "web")
	if err != nil || !strings.HasPrefix(out, "Pod p in namespace web (stdin:1)\nThe Pod gets site.\n") {
		t.Error(err, out)
	}
}

func TestTargets(t *testing.T) {
	tests := map[string][]string{
		"deploy/shop":             {"Deployment shop"},
		"deployments.apps/shop":   {"Deployment shop"},
		"po a b":                  {"Pod a", "Pod b"},
		"Pod/a sts/b cj/c":        {"Pod a", "StatefulSet b", "CronJob c"},
		"job/a rs/b ds/c rc/d":    {"Job a", "ReplicaSet b", "DaemonSet c", "ReplicationController d"},
		"podtemplate/a deploy/b ": {"PodTemplate a", "Deployment b"},
	}
	for args, want := range tests {
		targets, err := parseTargets(strings.Fields(args))
		if err != nil {
			t.Error(err)
		}
		var got []string
		for _, target := range targets {
			got = append(got, target.kind.Kind+" "+target.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q", args, got)
		}
	}
}

func TestADryRunIsComparedWithWhatWasDecided(t *testing.T) {
	site := profiles.Explained{
		Profile: "site", Result: profiles.Applied, Revision: "1", Cause: profiles.Cause{Reason: profiles.ReasonApplied},
	}
	decided := func(allowed bool, entries ...profiles.Explained) *profiles.Explanation {
		return &profiles.Explanation{Allowed: allowed, Profiles: entries}
	}
	woven := func(name, revision string) []profiles.Carried {
		return []profiles.Carried{{Profile: name, Revision: revision}}
	}
	tests := map[string]struct {
		tried   dryRun
		decided *profiles.Explanation
		agrees  bool
		differs string
	}{
		"both weave it":               {dryRun{Answer: dryRunCreated, Woven: woven("site", "1")}, decided(true, site), true, ""},
		"both refuse it":              {dryRun{Answer: dryRunDenied}, decided(false), true, ""},
		"another revision":            {dryRun{Answer: dryRunCreated, Woven: woven("site", "2")}, decided(true, site), false, "at revision 2, and what was read is at 1"},
		"nothing is woven":            {dryRun{Answer: dryRunCreated}, decided(true, site), false, "does not have ClusterPatternProfile site"},
		"more is woven":               {dryRun{Answer: dryRunCreated, Woven: woven("cache", "1")}, decided(true), false, "has profile cache"},
		"only the API server refuses": {dryRun{Answer: dryRunDenied, Message: "why"}, decided(true), false, "refuses the Pod, which what was read allows: why"},
		"only we refuse":              {dryRun{Answer: dryRunCreated}, decided(false), false, "takes the Pod, which what was read refuses"},
		"another refuses":             {dryRun{Answer: dryRunDeniedBy}, decided(true, site), false, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.tried.sent = &corev1.Pod{}
			test.tried.compare(test.decided)
			if test.tried.Agrees != test.agrees || !strings.Contains(strings.Join(test.tried.Differences, ""), test.differs) {
				t.Errorf("got %v, %q", test.tried.Agrees, test.tried.Differences)
			}
			if (test.differs == "") != (len(test.tried.Differences) == 0) {
				t.Errorf("got %q", test.tried.Differences)
			}
		})
	}
}

func TestFailOnDenialCountsWhoeverRefuses(t *testing.T) {
	pod := func(name string, verdict podVerdict, tried *dryRun) explanation {
		return explanation{Kind: "Pod", Name: name, Namespace: "web", Verdict: verdict, DryRun: tried}
	}
	explaining := explaining{explanations: []explanation{
		pod("woven", verdictWoven, nil),
		pod("tried", verdictWoven, &dryRun{Answer: dryRunCreated}),
		pod("refused", verdictRefused, nil),
		pod("refused-when-tried", verdictWoven, &dryRun{Answer: dryRunDenied}),
		pod("over-quota", verdictWoven, &dryRun{Answer: dryRunDeniedBy}),
		pod("over-quota-unread", verdictUnknown, &dryRun{Answer: dryRunDeniedBy}),
		pod("not-tried", verdictWoven, &dryRun{Answer: dryRunForbidden}),
	}}
	var want []string
	for _, name := range []string{"refused", "refused-when-tried", "over-quota", "over-quota-unread"} {
		want = append(want, "Pod "+name+" in namespace web")
	}
	if got := explaining.refused(); !slices.Equal(got, want) {
		t.Errorf("refused are %q, want %q", got, want)
	}
}
