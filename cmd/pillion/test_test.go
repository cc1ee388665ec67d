package main

import (
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const casesOfCache = `apiVersion: pillion.dev/v1alpha1
kind: PatternTest
profiles: [cache.yaml]
cases:
- name: a Pod that asks gets its cache
  pod: {metadata: {annotations: {pillion.dev/inject: cache}}, spec: {containers: [{name: app}]}}
  expect: {containers: [pillion-cache (sidecar), app]}
- name: a Pod that does not ask gets none
  pod: {spec: {containers: [{name: app}]}}
  expect: {containers: [app]}
`

const profileOfCases = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: cache}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
`

func TestTest(t *testing.T) {
	failing := strings.Replace(casesOfCache, "[app]}\n", "[web]}\n", 1)
	tests := map[string]struct {
		cases   string
		args    []string
		want    string
		wantErr string
	}{
		"all cases pass": {cases: casesOfCache, args: []string{"."}, want: "2 cases passed\n"},
		"cases that pass are listed": {
			cases: casesOfCache, args: []string{"tests/", "-v"},
			want: "pass tests/cache_test.yaml:5: a Pod that asks gets its cache\n" +
				"pass tests/cache_test.yaml:8: a Pod that does not ask gets none\n2 cases passed\n",
		},
		"some cases": {
			cases: casesOfCache, args: []string{"tests", "--run", "^a Pod that asks", "--verbose"},
			want: "pass tests/cache_test.yaml:5: a Pod that asks gets its cache\n1 case passed (1 case not run, by --run)\n",
		},
		"no case by that name": {
			cases: casesOfCache, args: []string{"tests", "--run", "asked"}, wantErr: "--run matches no name of the 2 cases",
		},
		"an expression that is none": {
			cases: casesOfCache, args: []string{"tests", "--run", "["}, wantErr: "--run: error parsing regexp: missing closing ]: `[`",
		},
		"a form that is unknown": {
			cases: casesOfCache, args: []string{"tests", "-o", "xml"},
			wantErr: `--output "xml" is unknown; write one of text, json, yaml, junit`,
		},
		"a case fails": {
			cases: failing, args: []string{"tests"}, wantErr: "1 of 2 cases failed",
			want: `FAIL tests/cache_test.yaml:8: a Pod that does not ask gets none
     expect.containers (line 10): not as expected
       expected -, got +
         -web
         +app
     no profile was considered: the Pod asks for none, and none chooses it
`,
		},
		"a case fails, and why": {
			cases: strings.Replace(casesOfCache, "inject: cache", "inject: cahce", 1), args: []string{"tests"}, wantErr: "1 of 2 " +
				"cases failed",
			want: `FAIL tests/cache_test.yaml:5: a Pod that asks gets its cache
     expect (line 7): the Pod is refused: Pillion refuses this Pod: profile cahce is not available in namespace default; did you mean cache? (ProfileNotAvailable)
     what became of the profiles:
       cahce Rejected (ProfileNotAvailable, by Annotation): profile cahce is not available in namespace default; did you mean cache?
`,
		},
		"a file that cannot be used, beside one that can": {
			cases: casesOfCache + "---\nkind: Pod\n", args: []string{"tests"}, wantErr: "1 problem in files",
			want: "error: tests/cache_test.yaml:12:1: kind: is the text \"Pod\"; write apiVersion: pillion.dev/v1alpha1 and kind: " +
				"PatternTest\n",
		},
		"a directory without cases": {
			cases: casesOfCache, args: []string{"empty"}, wantErr: "1 problem in files",
			want: "error: empty: no file in this directory or below has a name that ends in _test.yaml or .test.yaml\n",
		},
		"no path": {
			cases: casesOfCache, wantErr: "name files or directories with test cases, for example: pillion test tests/",
		},
		"the installation's settings": {
			cases: casesOfCache, args: []string{"tests", "--excluded-namespaces=default", "--run=asks"}, wantErr: "1 of 1 case failed " +
				"(1 case not run, by --run)",
			want: `FAIL tests/cache_test.yaml:5: a Pod that asks gets its cache
     expect.containers (line 7): not as expected
       expected -, got +
         -pillion-cache (sidecar)
          app
     no profile was considered: the Pod asks for none, and none chooses it
`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"tests/cache_test.yaml": test.cases, "tests/cache.yaml": profileOfCases, "empty/x.yaml": "a: b\n"}
			stdout, _, err := run(t, files, "", append([]string{"test"}, test.args...)...)
			if diff := cmp.Diff(test.want, stdout); diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			if message(err) != test.wantErr {
				t.Errorf("error %q, want %q", message(err), test.wantErr)
			}
		})
	}
}

// TestTestForPrograms reads the forms for programs, of a run in which a case fails.
func TestTestForPrograms(t *testing.T) {
	type result struct {
		APIVersion, Kind string
		Cases, Failed    int
		Files            []struct {
			File  string
			Cases []struct {
				Name     string
				Line     int
				Passed   bool
				Outcomes []struct{ Profile, Reason string }
				Failures []struct{ Field, Diff string }
			}
		}
	}
	files := map[string]string{
		"tests/cache_test.yaml": strings.Replace(casesOfCache, "[app]}\n", "[web]}\n", 1), "tests/cache.yaml": profileOfCases,
	}
	for form, decode := range map[string]func(string, *result) error{
		"json": func(text string, r *result) error { return json.Unmarshal([]byte(text), r) },
		"yaml": func(text string, r *result) error { return yaml.Unmarshal([]byte(text), r) },
	} {
		t.Run(form, func(t *testing.T) {
			stdout, _, err := run(t, files, "", "test", "tests", "-o", form)
			if message(err) != "1 of 2 cases failed" {
				t.Errorf("error %v", err)
			}
			got := result{}
			if err := decode(stdout, &got); err != nil {
				t.Fatal(err)
			}
			if got.APIVersion != "pillion.dev/v1alpha1" || got.Kind != "PatternTestReport" || got.Cases != 2 || got.Failed != 1 {
				t.Fatalf("got %+v", got)
			}
			first, second := got.Files[0].Cases[0], got.Files[0].Cases[1]
			if !first.Passed || first.Line != 5 || len(first.Outcomes) != 1 || first.Outcomes[0].Reason != "Applied" {
				t.Errorf("the case that passes: %+v", first)
			}
			if second.Passed || len(second.Failures) != 1 || second.Failures[0].Field != "expect.containers" ||
				second.Failures[0].Diff != "-web\n+app\n" {
				t.Errorf("the case that fails: %+v", second)
			}
		})
	}
	t.Run("junit", func(t *testing.T) {
		stdout, _, err := run(t, files, "", "test", "tests", "-o", "junit")
		got := struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
		}{}
		if xmlErr := xml.Unmarshal([]byte(stdout), &got); xmlErr != nil || got.Tests != 2 || got.Failures != 1 ||
			message(err) != "1 of 2 cases failed" {
			t.Errorf("%v %v %+v", err, xmlErr, got)
		}
	})
}
