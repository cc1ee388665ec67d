package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/report"
)

const lintedPod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations: {pillion.dev/inject: site}\nspec:\n  containers: [{name: app}]\n"

const missingFile = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="1" failures="1" errors="0" time="0.000">
  <testsuite name="missing.yaml" tests="1" failures="1" errors="0" skipped="0" time="0.000">
    <testcase name="Unreadable: no such file or directory" classname="missing.yaml" file="missing.yaml" time="0.000">
      <failure message="missing.yaml: error: no such file or directory (Unreadable)">missing.yaml: error: no such file or directory (Unreadable)</failure>
    </testcase>
  </testsuite>
</testsuites>
`

func TestLint(t *testing.T) {
	unknown := strings.Replace(lintedPod, ": site}", ": sit}", 1)
	warned := strings.Replace(lintedPod, "inject: site}", "inject: site, other.pillion.dev/ref: x}", 1)
	tests := map[string]struct {
		files      map[string]string
		stdin      string
		args       []string
		want       string
		wantStderr string
		wantErr    string
	}{
		"profiles and workloads together, and nothing is wrong": {
			files:      map[string]string{"deploy/profiles/site.yaml": siteProfile, "deploy/pod.yaml": lintedPod, "deploy/values.yaml": "a: 1\n"},
			args:       []string{"deploy"},
			wantStderr: "3 files, 1 profile, 0 Namespaces, 1 workload (1 document for other tools ignored): 0 errors, 0 warnings\n",
		},
		"an error, at the annotation": {
			files:      map[string]string{"a.yaml": siteProfile, "b.yaml": unknown},
			args:       []string{"."},
			want:       "b.yaml:5:17: error: Pod p: profile sit is not available in namespace default; did you mean site? (ProfileNotAvailable)\n",
			wantStderr: "2 files, 1 profile, 0 Namespaces, 1 workload: 1 error, 0 warnings\n",
			wantErr:    "lint found 1 error",
		},
		"stdin, with profiles that are not checked": {
			files:      map[string]string{"profiles/site.yaml": siteProfile + "---\n" + strings.ReplaceAll(siteProfile, "name: site", "name: Bad")},
			stdin:      unknown,
			args:       []string{"-", "--profiles", "profiles"},
			want:       "stdin:5:17: error: Pod p: profile sit is not available in namespace default; did you mean site? (ProfileNotAvailable)\n",
			wantStderr: "1 file, 0 profiles, 0 Namespaces, 1 workload: 1 error, 0 warnings\n",
			wantErr:    "lint found 1 error",
		},
		"profiles and Namespaces of a cluster, from stdin": {
			files: map[string]string{"pod.yaml": lintedPod},
			stdin: "apiVersion: v1\nkind: List\nitems:\n- " + strings.TrimSpace(strings.ReplaceAll(siteProfile, "\n", "\n  ")) +
				"\n  status: {observedGeneration: 1}\n",
			args:       []string{"pod.yaml", "-p", "-"},
			wantStderr: "1 file, 0 profiles, 0 Namespaces, 1 workload: 0 errors, 0 warnings\n",
		},
		"profiles that are given twice are the same ones": {
			files:      map[string]string{"deploy/site.yaml": siteProfile, "deploy/pod.yaml": lintedPod},
			args:       []string{"deploy", "-p", "./deploy/site.yaml"},
			wantStderr: "2 files, 1 profile, 0 Namespaces, 1 workload: 0 errors, 0 warnings\n",
		},
		"profiles that cannot be read": {
			files:      map[string]string{"pod.yaml": strings.Replace(lintedPod, ": site}", ": none}", 1), "profiles/a.yaml": "a: [\n"},
			args:       []string{"pod.yaml", "-p", "profiles", "-p", "missing"},
			want:       "missing: error: no such file or directory (Unreadable)\nprofiles/a.yaml:1: error: this is not YAML that Kubernetes reads: did not find expected node content (InvalidManifest)\n",
			wantStderr: "1 file, 0 profiles, 0 Namespaces, 1 workload: 2 errors, 0 warnings\n",
			wantErr:    "lint found 2 errors",
		},
		"a warning is no failure": {
			files:      map[string]string{"a.yaml": siteProfile, "b.yaml": warned},
			args:       []string{"."},
			want:       "b.yaml:5:43: warning: Pod p: annotation other.pillion.dev/ref has no effect: profile other is not applied to this Pod (OverrideWithoutEffect)\n",
			wantStderr: "2 files, 1 profile, 0 Namespaces, 1 workload: 0 errors, 1 warning\n",
		},
		"a warning is a failure if it is to be one": {
			files:      map[string]string{"a.yaml": siteProfile, "b.yaml": warned},
			args:       []string{".", "--fail-on-warnings"},
			want:       "b.yaml:5:43: warning: Pod p: annotation other.pillion.dev/ref has no effect: profile other is not applied to this Pod (OverrideWithoutEffect)\n",
			wantStderr: "2 files, 1 profile, 0 Namespaces, 1 workload: 0 errors, 1 warning\n",
			wantErr:    "lint found 1 warning, and --fail-on-warnings is set",
		},
		"the namespace of what names none": {
			files: map[string]string{
				"a.yaml": strings.Replace(siteProfile, "spec:\n", "spec:\n  allowedNamespaces: {matchLabels: {team: web}}\n", 1), "b.yaml": lintedPod,
				"ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {team: web}}\n",
			},
			args:       []string{".", "-n", "web"},
			wantStderr: "3 files, 1 profile, 1 Namespace, 1 workload: 0 errors, 0 warnings\n",
		},
		"what pillion test expects is not applied": {
			files:      map[string]string{"a.yaml": siteProfile, "tests/b.golden.yaml": lintedPod + "pillion: woven\n"},
			args:       []string{"."},
			wantStderr: "1 file, 1 profile, 0 Namespaces, 0 workloads: 0 errors, 0 warnings\n",
		},
		"a missing file is a finding without a line": {
			args:    []string{"missing.yaml", "-o", "junit"},
			want:    missingFile,
			wantErr: "lint found 1 error",
		},
		"a name that a terminal would obey": {
			files:      map[string]string{"d/a\n::error::\x1b[31m.yaml": ""},
			args:       []string{"d"},
			want:       "d/a ::error::\ufffd[31m.yaml:1: error: the file holds no object (InvalidManifest)\n",
			wantStderr: "1 file, 0 profiles, 0 Namespaces, 0 workloads: 1 error, 0 warnings\n",
			wantErr:    "lint found 1 error",
		},
		"no path": {
			wantErr: "name files or directories to check, or - for stdin, for example: pillion lint deploy/",
		},
		"a form that there is not": {
			args:    []string{".", "-o", "xml"},
			wantErr: `--output "xml" is unknown; write one of text, json, yaml, sarif, junit`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := run(t, test.files, test.stdin, append([]string{"lint"}, test.args...)...)
			if diff := cmp.Diff(test.want, stdout); diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantStderr, stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
			if got := message(err); got != test.wantErr {
				t.Errorf("error %q, want %q", got, test.wantErr)
			}
		})
	}
}

func TestLintReports(t *testing.T) {
	files := map[string]string{"a.yaml": siteProfile, "b.yaml": strings.Replace(lintedPod, ": site}", ": sit, other.pillion.dev/ref: x}", 1)}
	findings := []report.Finding{
		{
			File: "b.yaml", Line: 5, Column: 17, Severity: report.Error, Reason: "ProfileNotAvailable",
			Message: "Pod p: profile sit is not available in namespace default; did you mean site?",
		},
		{
			File: "b.yaml", Line: 5, Column: 42, Severity: report.Warning, Reason: "OverrideWithoutEffect",
			Message: "Pod p: annotation other.pillion.dev/ref has no effect: profile other is not applied to this Pod",
		},
	}
	tests := map[string]func(t *testing.T, text string){
		"json": func(t *testing.T, text string) { checkLintReport(t, findings, []byte(text)) },
		"yaml": func(t *testing.T, text string) {
			encoded, err := yaml.YAMLToJSON([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			checkLintReport(t, findings, encoded)
		},
		"sarif": func(t *testing.T, text string) {
			want := &strings.Builder{}
			if err := report.SARIF(want, thisBuild().Version, findings, reasonText); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.String(), text); diff != "" {
				t.Errorf("SARIF (-want +got):\n%s", diff)
			}
		},
		"junit": func(t *testing.T, text string) {
			type suite struct {
				Name     string `xml:"name,attr"`
				Tests    int    `xml:"tests,attr"`
				Failures int    `xml:"failures,attr"`
			}
			var read struct {
				Suites []suite `xml:"testsuite"`
			}
			if err := xml.Unmarshal([]byte(text), &read); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]suite{{"a.yaml", 1, 0}, {"b.yaml", 2, 1}}, read.Suites); diff != "" {
				t.Errorf("suites (-want +got):\n%s", diff)
			}
		},
	}
	for form, check := range tests {
		t.Run(form, func(t *testing.T) {
			stdout, stderr, err := run(t, files, "", "lint", ".", "-o", form)
			if stderr != "" || message(err) != "lint found 1 error" {
				t.Errorf("stderr %q, error %v", stderr, err)
			}
			check(t, stdout)
		})
	}
}

func checkLintReport(t *testing.T, findings []report.Finding, encoded []byte) {
	t.Helper()
	want := lintReport{
		APIVersion: "pillion.dev/v1alpha1", Kind: "LintReport", Findings: findings,
		Summary: lintSummary{Files: 2, Profiles: 1, Workloads: 1, Errors: 1, Warnings: 1},
	}
	got := lintReport{}
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// Whatever is among the files, each is told of with its name, and the others are checked as if it were not there.
func TestLintOfBadFiles(t *testing.T) {
	bad := map[string]string{
		"empty.yaml":     "",
		"comments.yaml":  "# nothing\n",
		"binary.yaml":    "\x7fELF\x00\x00",
		"utf16.yaml":     "\xff\xfek\x00:\x00",
		"latin1.yaml":    "kind: M\xfcller\n",
		"syntax.yaml":    "a: [\n",
		"tabs.yaml":      "a:\n\tb: 1\n",
		"duplicate.yaml": "kind: A\nkind: B\n",
		"bomb.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
		"helm.yaml":  "apiVersion: v1\nkind: Pod\nmetadata: {name: {{ .Release.Name }}}\n",
		"deep.yaml":  strings.Repeat("[", 20_000),
		"crlf.yaml":  "apiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  annotations:\r\n    pillion.dev/inject: sit\r\nspec:\r\n  containers: []\r\n",
		"list.json":  `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"}]}`,
		"large.yaml": "a: '" + strings.Repeat("x", manifest.MaxFileBytes) + "'\n",
	}
	files := map[string]string{"site.yaml": siteProfile, "good.yaml": lintedPod}
	for name, text := range bad {
		files["bad/"+name] = text
	}
	want := []string{
		"bad/binary.yaml:1:5", "bad/bomb.yaml:1:1", "bad/comments.yaml:1", "bad/crlf.yaml:5:5", "bad/deep.yaml:1", "bad/duplicate.yaml:2:1",
		"bad/empty.yaml:1", "bad/helm.yaml:3:18", "bad/large.yaml", "bad/latin1.yaml:1:8", "bad/list.json:1:43", "bad/syntax.yaml:1",
		"bad/tabs.yaml:2:1", "bad/utf16.yaml:1:1",
	}
	stdout, stderr, err := run(t, files, "", "lint", ".")
	var got []string
	for line := range strings.Lines(stdout) {
		where, _, _ := strings.Cut(line, ": error: ")
		got = append(got, where)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s\n%s", diff, stdout)
	}
	if !strings.Contains(stderr, "1 profile, 0 Namespaces, 3 workloads: 14 errors") || err == nil {
		t.Errorf("stderr %q, error %v", stderr, err)
	}
}

// Other commands read files the same way: what they say of a bad one has its name and line.
func TestInjectOfBadFiles(t *testing.T) {
	files := map[string]string{
		"profiles/site.yaml": siteProfile, "in/a.yaml": "kind: \xff\n", "in/b.yaml": "kind: {{ x }}\n", "in/c.yaml": "a: [\n",
		"in/d.yaml": lintedPod, "in/e.yaml": "a: \x00\n",
	}
	stdout, stderr, err := run(t, files, "", "inject", "-f", "in", "-p", "profiles")
	if !strings.Contains(stdout, "pillion-site") || message(err) != "what the 4 errors above are about was left out" {
		t.Errorf("error %v; stdout:\n%s", err, stdout)
	}
	want := "error: in/a.yaml:1:7: the byte 0xff here is not UTF-8; save the file as UTF-8\n" +
		`error: in/b.yaml:1:7: this is a template of Helm, by its "{{", and not YAML yet; render it first` + "\n" +
		"error: in/c.yaml:1: this is not YAML that Kubernetes reads: did not find expected node content\n" +
		"error: in/e.yaml:1:4: the file is binary: it has a byte 0 here\n"
	if diff := cmp.Diff(want, stderr); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
}

// The examples are what people begin with.
func TestLintFindsNothingInTheExamples(t *testing.T) {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(examples); err != nil {
		t.Fatal(err)
	}
	stdout, _, err := run(t, nil, "", "lint", examples)
	if stdout != "" || err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
}
