package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
)

func TestReview(t *testing.T) {
	const review = `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "operation": "CREATE",
		"namespace": "web", "resource": {"version": "v1", "resource": "pods"},
		"object": {"metadata": {"annotations": {"pillion.dev/inject": "%s"}}, "spec": {"containers": [{"name": "app"}]}}}}`
	const inYAML = `apiVersion: admission.k8s.io/v1
kind: AdmissionReview
request:
  uid: u
  operation: CREATE
  namespace: web
  resource: {version: v1, resource: pods}
  object: {metadata: {}, spec: {containers: [{name: app}]}}
`
	const denial = "Pillion refuses this Pod: profile sit is not available in namespace " +
		"web; did you mean site? (ProfileNotAvailable)"
	const byName = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: web-cache}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
  match: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}
`
	type answer struct {
		Allowed bool
		Message string
		Patched bool
	}
	tests := map[string]struct {
		stdin   string
		files   map[string]string
		args    []string
		want    *answer
		wantErr string
	}{
		"a Pod that asks gets a patch": {
			stdin: fmt.Sprintf(review, "site"),
			want:  &answer{Allowed: true, Patched: true},
		},
		"a review in a file": {
			files: map[string]string{"review.json": fmt.Sprintf(review, "site")},
			args:  []string{"-f", "review.json"},
			want:  &answer{Allowed: true, Patched: true},
		},
		"a review in YAML, of a Pod that asks for nothing": {
			stdin: inYAML,
			want:  &answer{Allowed: true},
		},
		"the label of a Namespace among the profiles asks": {
			stdin: inYAML,
			files: map[string]string{
				"profiles/ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {pillion.dev/inject: site}}\n",
			},
			want: &answer{Allowed: true, Patched: true},
		},
		"every namespace has the label with its name": {
			stdin: inYAML,
			files: map[string]string{"profiles/match.yaml": byName},
			want:  &answer{Allowed: true, Patched: true},
		},
		"a denial is an answer": {
			stdin: fmt.Sprintf(review, "sit"),
			want:  &answer{Message: denial},
		},
		"a denial is an error with --fail-on-denial": {
			stdin:   fmt.Sprintf(review, "sit"),
			args:    []string{"--fail-on-denial"},
			want:    &answer{Message: denial},
			wantErr: denial,
		},
		"an update is let pass": {
			stdin: strings.Replace(fmt.Sprintf(review, "site"), "CREATE", "UPDATE", 1),
			want:  &answer{Allowed: true},
		},
		"a profile that is written is reviewed beside those that are there": {
			stdin: strings.Replace(strings.Replace(inYAML, `{version: v1, resource: pods}`,
				`{group: pillion.dev, version: v1alpha1, resource: clusterpatternprofiles}`, 1),
				`{metadata: {}, spec: {containers: [{name: app}]}}`, `{apiVersion: pillion.dev/v1alpha1, kind: ClusterPatternProfile, `+
					`metadata: {name: a}, spec: {cacheAmbassador: {protocol: Memcached, local: {}}, after: [site, a]}}`, 1),
			want: &answer{Message: `ClusterPatternProfile.pillion.dev "a" is invalid: spec.after[1]: Invalid value: "a": is the profile ` +
				"itself; remove it"},
		},
		"nothing at all": {
			wantErr: "the webhook answers HTTP 400: the body is empty",
		},
		"what is no review": {
			stdin:   "kind: Pod\n",
			wantErr: "the webhook answers HTTP 400: the body is not an AdmissionReview of admission.k8s.io/v1",
		},
		"what is neither JSON nor YAML": {
			stdin:   "{\n\t: ]",
			wantErr: "read the admission review: stdin:1: this is not YAML that Kubernetes reads: ",
		},
		"two reviews": {
			stdin:   inYAML + "---\n" + inYAML,
			wantErr: "read the admission review: stdin:10:1: this is a second one; give one at a time",
		},
		"bytes that are no text": {
			stdin:   "kind: \xff\n",
			wantErr: "read the admission review: stdin:1:7: the byte 0xff here is not UTF-8; save the file as UTF-8",
		},
		"a file that is not there": {
			args:    []string{"-f", "missing.json"},
			wantErr: "read the admission review: missing.json: no such file or directory",
		},
		"profiles that are not there": {
			args:    []string{"--profiles", "missing"},
			wantErr: "missing: no such file or directory",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"profiles/site.yaml": siteProfile}
			for name, text := range test.files {
				files[name] = text
			}
			stdout, stderr, err := run(t, files, test.stdin, append([]string{"review", "--profiles", "profiles"}, test.args...)...)
			if got := message(err); (err == nil) != (test.wantErr == "") || !strings.HasPrefix(got, test.wantErr) {
				t.Errorf("error %q, want %q", got, test.wantErr)
			}
			if stderr != "" {
				t.Errorf("stderr: %s", stderr)
			}
			var got *answer
			if stdout != "" {
				answered := admissionv1.AdmissionReview{}
				if err := json.Unmarshal([]byte(stdout), &answered); err != nil {
					t.Fatal(err)
				}
				got = &answer{Allowed: answered.Response.Allowed, Patched: len(answered.Response.Patch) > 0}
				if answered.Response.Result != nil {
					got.Message = answered.Response.Result.Message
				}
				if answered.Response.UID != "u" || !strings.HasPrefix(stdout, "{\n  \"") {
					t.Errorf("not the answer to this review, or not indented:\n%s", stdout)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReviewOfAWorkloadWarns(t *testing.T) {
	const deployment = `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "namespace": "web",
		"operation": "CREATE", "resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "object": {"metadata": {"name": "web"},
		"spec": {"template": {"metadata": {"annotations": {"pillion.dev/inject": "sit"}}, "spec": {"containers": [{"name": "app"}]}}}}}}`
	stdout, _, err := run(t, map[string]string{"profiles/site.yaml": siteProfile}, deployment, "review", "--profiles", "profiles")
	answered := admissionv1.AdmissionReview{}
	if err := errors.Join(err, json.Unmarshal([]byte(stdout), &answered)); err != nil {
		t.Fatal(err)
	}
	if warnings := answered.Response.Warnings; !answered.Response.Allowed || !strings.Contains(strings.Join(warnings, "\n"), "did you mean site?") {
		t.Errorf("allowed %t, warnings %q", answered.Response.Allowed, warnings)
	}
}
