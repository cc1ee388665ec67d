package webhook_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// profileReview returns the review of a ClusterPatternProfile that is written.
func profileReview(operation, object, oldObject string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":%q,
		"resource":{"group":"pillion.dev","version":"v1alpha1","resource":"clusterpatternprofiles"},
		"object":%s,"oldObject":%s}}`, operation, object, oldObject)
}

// written returns the JSON of a ClusterPatternProfile called site.
func written(metadata, spec string) string {
	return fmt.Sprintf(`{"apiVersion":"pillion.dev/v1alpha1","kind":"ClusterPatternProfile","metadata":{"name":"site"%s},"spec":%s}`,
		metadata, spec)
}

func TestAProfileThatIsWrittenIsAnsweredWithEveryProblem(t *testing.T) {
	const good = `{"gitSync":{"repo":"https://git.example.com/site.git","mountPath":"/srv/site"}%s}`
	const bad = `{"gitSync":{"repo":"https://git.example.com/site.git","mountPath":"srv","period":"-1s"},"overridable":["nosuch"]}`
	well := fmt.Sprintf(good, "")
	tests := map[string]struct {
		review       string
		wantFields   []string // of the problems; none: the profile is allowed
		wantWarnings []string
	}{
		"one that is well": {review: profileReview("CREATE", written("", well), "null")},
		"everything that the schema says": {
			review:     profileReview("CREATE", written("", bad), "null"),
			wantFields: []string{"spec.gitSync.mountPath", "spec.gitSync.period"},
		},
		"what the schema cannot say": {
			review: profileReview("CREATE", written("", fmt.Sprintf(good, `,"overridable":["nosuch","ref","nor.this"]`)), "null"),
			wantFields: []string{
				"spec.overridable[0]", "spec.overridable[2]",
			},
		},
		"a condition that does not compile": {
			review: profileReview("CREATE", written("", fmt.Sprintf(good,
				`,"match":{"namespaceSelector":{"matchLabels":{"a":"b"}},"conditions":[{"name":"c","expression":"nosuch"}]}`)), "null"),
			wantFields: []string{"spec.match.conditions[0].expression"},
		},
		"no pattern at all": {review: profileReview("CREATE", written("", "{}"), "null"), wantFields: []string{"spec"}},
		"a change for the worse": {
			review:     profileReview("UPDATE", written("", fmt.Sprintf(good, `,"overridable":["nosuch"]`)), written("", well)),
			wantFields: []string{"spec.overridable[0]"},
		},
		"a change for the worse, with a last good revision to serve": {
			review: profileReview("UPDATE", strings.TrimSuffix(written(`,"generation":2`, fmt.Sprintf(good, `,"overridable":["nosuch"]`)), "}")+
				`,"status":{"lastGood":{"generation":1,"spec":`+well+`}}}`, written("", well)),
			wantFields: []string{"spec.overridable[0]"},
		},
		"a spec that stays as bad as it was, under other metadata": {
			review: profileReview("UPDATE", written(`,"finalizers":["pillion.dev/in-use"],"labels":{"a":"b"}`, bad), written("", bad)),
		},
		"one that is being deleted": {
			review: profileReview("UPDATE", written(`,"deletionTimestamp":"2026-01-01T00:00:00Z"`, bad), written("", well)),
		},
		"a deletion":     {review: profileReview("DELETE", "null", written("", bad))},
		"another object": {review: strings.Replace(profileReview("CREATE", written("", bad), "null"), "clusterpatternprofiles", "things", 1)},
		"its status":     {review: strings.Replace(profileReview("UPDATE", written("", bad), "null"), `"object"`, `"subResource":"status","object"`, 1)},
		"a name in after that there is not yet": {
			review: profileReview("CREATE", written("", fmt.Sprintf(good, `,"after":["later"]`)), "null"),
			wantWarnings: []string{
				"spec.after names later, which no profile has yet: until there is one, this profile is not ready",
			},
		},
		"a circle": {
			review:     profileReview("CREATE", written("", fmt.Sprintf(good, `,"after":["other"]`)), "null"),
			wantFields: []string{"spec.after[0]"},
		},
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]any{}
	decoded := strings.Replace(written("", fmt.Sprintf(good, `,"after":["site"]`)), `"name":"site"`, `"name":"other"`, 1)
	if err := json.Unmarshal([]byte(decoded), &other); err != nil {
		t.Fatal(err)
	}
	compiled, _ := compiler.Object(other)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &cluster{memory: []*profiles.Profile{compiled}}
			_, response := send(t, c, webhook.Options{Compiler: compiler}, profiles.PathProfiles, test.review)
			if response == nil || response.UID != "u" || len(response.Patch) > 0 {
				t.Fatalf("response %v, want a review without a patch", response)
			}
			if diff := cmp.Diff(test.wantFields, fieldsOf(t, response)); diff != "" {
				t.Errorf("fields (-want +got):\n%s\n%v", diff, response.Result)
			}
			if diff := cmp.Diff(test.wantWarnings, response.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// fieldsOf returns the fields that a refusal names, each once. It fails unless the refusal is what the API server makes of an
// object that is not valid.
func fieldsOf(t *testing.T, response *admissionv1.AdmissionResponse) []string {
	t.Helper()
	if response.Allowed {
		if response.Result != nil {
			t.Errorf("a reason for what is allowed: %v", response.Result)
		}
		return nil
	}
	status := response.Result
	if status == nil || status.Code != http.StatusUnprocessableEntity || status.Reason != metav1.StatusReasonInvalid ||
		status.Details == nil || status.Details.Name != "site" || status.Details.Kind != "ClusterPatternProfile" {
		t.Fatalf("status %v, want 422, Invalid and the profile", status)
	}
	var fields []string
	for _, cause := range status.Details.Causes {
		if len(fields) == 0 || fields[len(fields)-1] != cause.Field {
			fields = append(fields, cause.Field)
		}
		if cause.Message == "" || !strings.Contains(status.Message, cause.Message) {
			t.Errorf("the message %q lacks %q", status.Message, cause.Message)
		}
	}
	return fields
}

func TestHostileReviewsOfProfiles(t *testing.T) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	const rest = `"uid":"u","operation":"CREATE","resource":{"group":"pillion.dev","version":"v1alpha1","resource":"patternprofiles"}`
	review := func(object string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{` + rest + `,"namespace":"web","object":` + object + `}}`
	}
	profile := func(metadata, spec string) string {
		return review(`{"apiVersion":"pillion.dev/v1alpha1","kind":"PatternProfile","metadata":` + metadata + `,"spec":` + spec + `}`)
	}
	tests := map[string]struct {
		path, body  string
		wantStatus  int
		wantAllowed bool
	}{
		"nothing":                         {body: "", wantStatus: http.StatusBadRequest},
		"truncated":                       {body: review("{")[:80], wantStatus: http.StatusBadRequest},
		"no review":                       {body: "{}", wantStatus: http.StatusBadRequest},
		"another version":                 {body: strings.Replace(review("{}"), "io/v1", "io/v1beta1", 1), wantStatus: http.StatusBadRequest},
		"no request":                      {body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, wantStatus: http.StatusBadRequest},
		"no uid":                          {body: strings.Replace(review("{}"), `"u"`, `""`, 1), wantStatus: http.StatusBadRequest},
		"an object that is none":          {body: review(`"x"`), wantStatus: http.StatusBadRequest},
		"an object that is too deep":      {body: review(strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000)), wantStatus: http.StatusBadRequest},
		"no object":                       {body: review("null"), wantStatus: http.StatusBadRequest},
		"an object of another kind":       {body: review(`{"apiVersion":"v1","kind":"Secret"}`), wantStatus: http.StatusOK, wantAllowed: true},
		"bytes that are not UTF-8":        {body: profile(`{"name":"a`+"\xff"+`"}`, "{}"), wantStatus: http.StatusOK},
		"metadata that is a number":       {body: profile("1", "{}"), wantStatus: http.StatusOK},
		"a spec that is a list":           {body: profile(`{"name":"a"}`, "[]"), wantStatus: http.StatusOK},
		"a spec of a million braces":      {body: profile(`{"name":"a"}`, `{"gitSync":[`+strings.Repeat("{},", 1<<18)+`{}]}`), wantStatus: http.StatusRequestEntityTooLarge},
		"a Pod, where profiles are sent":  {body: strings.Replace(review("{}"), "patternprofiles", "pods", 1), wantStatus: http.StatusOK, wantAllowed: true},
		"a profile, where Pods are sent":  {path: profiles.PathVerify + "0123abcd", body: profile(`{"name":"a"}`, "{}"), wantStatus: http.StatusOK, wantAllowed: true},
		"nothing, at the verification":    {path: profiles.PathVerify + "0123abcd", body: "", wantStatus: http.StatusBadRequest},
		"no request, at the verification": {path: profiles.PathVerify + "0123abcd", body: `{"request":null}`, wantStatus: http.StatusBadRequest},
		"a path beside":                   {path: "/validate/other", body: review("{}"), wantStatus: http.StatusNotFound},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := test.path
			if path == "" {
				path = profiles.PathProfiles
			}
			result, response := send(t, &cluster{}, webhook.Options{Compiler: compiler}, path, test.body)
			if result.StatusCode != test.wantStatus {
				t.Fatalf("status %d, want %d", result.StatusCode, test.wantStatus)
			}
			if response != nil && response.Allowed != test.wantAllowed {
				t.Errorf("allowed: %t, want %t: %v", response.Allowed, test.wantAllowed, response.Result)
			}
		})
	}
}

func TestWithoutACompilerProfilesAreNotReviewed(t *testing.T) {
	result, _ := send(t, &cluster{}, webhook.Options{}, profiles.PathProfiles, profileReview("CREATE", "{}", "null"))
	if result.StatusCode != http.StatusNotFound {
		t.Errorf("status %d, want 404", result.StatusCode)
	}
}
