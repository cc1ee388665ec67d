package webhook_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// FuzzBody sends any bytes as a request, on each kind of path and in chunks, too: it is never answered with a fault of ours, twice the
// same, and what is answered with 200 is a review of the same request, with a patch that applies.
func FuzzBody(f *testing.F) {
	const review = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE",` +
		`"namespace":"web","resource":{"version":"v1","resource":"pods"},"object":`
	const pod = `{"metadata":{"annotations":{"pillion.dev/inject":"site"}},"spec":{"containers":[{"name":"app"}]}}`
	for _, seed := range []string{
		review + pod + "}}",
		review + `{"metadata":{},"spec":{"containers":[]}}` + "}}",
		review + `{"metadata":{"annotations":{"pillion.dev/inject":"nosuch\u202e"}}}` + "}}",
		review + "null}}",
		review + `"x"}}`,
		review + `{"metadata":{"annotations":{"a":"` + "\xff" + `"}}}}}`,
		review + strings.Repeat(`{"a":`, 20000),
		strings.Replace(review+pod+"}}", "CREATE", "UPDATE", 1),
		strings.Replace(review+pod+"}}", `"resource":"pods"`, `"resource":"nodes"`, 1),
		strings.Replace(review+pod+"}}", "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1),
		strings.Replace(review+pod+"}}", `"uid":"u-1"`, `"uid":""`, 1),
		`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`,
		"", "{}", "null", "[]", "{", "\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{webhook.PathPods, profiles.PathEnforce + "fuzz", profiles.PathVerify} {
			handler, logged := newHandler(t)
			response := postTo(handler, path, body)
			if strings.Contains(logged.String(), "panic") {
				t.Fatalf("%s: a panic:\n%s", path, logged)
			}
			if again := postInChunks(handler, path, body); again.Code != response.Code || !bytes.Equal(again.Body.Bytes(), response.Body.Bytes()) {
				t.Fatalf("%s: the same request in chunks has another answer:\n%d %s\n%d %s", path, response.Code, response.Body, again.Code, again.Body)
			}
			if response.Code == http.StatusOK {
				expectAnswer(t, body, response.Body.Bytes())
			} else if !slices.Contains([]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}, response.Code) {
				t.Fatalf("%s: status %d: %s", path, response.Code, response.Body)
			}
		}
	})
}

// expectAnswer fails unless a body with status 200 is a review that answers the request.
func expectAnswer(t *testing.T, body, answer []byte) {
	t.Helper()
	asked, answered := &admissionv1.AdmissionReview{}, &admissionv1.AdmissionReview{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, asked); err != nil {
		t.Fatalf("what is no review is answered: %v", err)
	}
	if strict, err := kjson.UnmarshalStrict(answer, answered); err != nil || len(strict) > 0 {
		t.Fatalf("the answer is no review: %v %v\n%s", err, strict, answer)
	}
	response := answered.Response
	switch {
	case answered.APIVersion != "admission.k8s.io/v1" || answered.Kind != "AdmissionReview" || answered.Request != nil:
		t.Fatalf("the answer is no review of v1: %s", answer)
	case response == nil || response.UID == "" || response.UID != asked.Request.UID:
		t.Fatalf("the answer is to another request than %s: %s", asked.Request.UID, answer)
	case !response.Allowed && (response.Result == nil || response.Result.Message == "" || len(response.Patch) > 0):
		t.Fatalf("a refusal without a reason, or with a patch: %s", answer)
	case (len(response.Patch) > 0) != (response.PatchType != nil):
		t.Fatalf("a patch without its type, or a type without a patch: %s", answer)
	}
	if len(response.Patch) == 0 {
		return
	}
	patch, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	if !hasParents(asked.Request.Object.Raw) {
		return // the API server always sends them
	}
	if _, err := patch.Apply(asked.Request.Object.Raw); err != nil {
		t.Fatalf("the patch %s does not apply: %v", response.Patch, err)
	}
}

// hasParents tells whether an object has metadata and spec, as every Pod from the API server has, and each list holds objects.
func hasParents(raw []byte) bool {
	var pod struct {
		Metadata json.RawMessage `json:"metadata"`
		Spec     struct {
			Containers     []map[string]any `json:"containers"`
			InitContainers []map[string]any `json:"initContainers"`
		} `json:"spec"`
	}
	err := json.Unmarshal(raw, &pod)
	isNull := func(m map[string]any) bool { return m == nil }
	return err == nil && len(pod.Metadata) > 0 && string(pod.Metadata) != "null" && len(pod.Spec.Containers) > 0 &&
		!slices.ContainsFunc(pod.Spec.Containers, isNull) && !slices.ContainsFunc(pod.Spec.InitContainers, isNull)
}

// newCompiler makes the compiler of the fuzz targets once, for its CEL rules take a while to compile.
var newCompiler = sync.OnceValues(profiles.NewCompiler)

// newSnapshot makes their profiles.
var newSnapshot = sync.OnceValues(func() (*profiles.Snapshot, error) {
	compiler, err := newCompiler()
	if err != nil {
		return nil, err
	}
	var compiled []*profiles.Profile
	for name, spec := range map[string]string{
		"site":  `{gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}, overridable: [ref, env, resources]}`,
		"cache": `{cacheAmbassador: {protocol: Memcached, local: {}}, match: {podSelector: {matchLabels: {app: web}}}}`,
	} {
		object := map[string]any{}
		document := "{apiVersion: pillion.dev/v1alpha1, kind: ClusterPatternProfile, metadata: {name: " + name + "}, spec: " +
			spec + "}"
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			return nil, err
		}
		profile, _ := compiler.Object(object)
		if len(profile.Problems) > 0 {
			return nil, profile.Problems.ToAggregate()
		}
		compiled = append(compiled, profile)
	}
	return profiles.NewSnapshot(profiles.Options{Images: injectors.DefaultImages("")}, compiled), nil
})

func newHandler(t *testing.T) (http.Handler, *bytes.Buffer) {
	t.Helper()
	snapshot, err := newSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := newCompiler()
	if err != nil {
		t.Fatal(err)
	}
	logged := &bytes.Buffer{}
	return webhook.NewHandler(webhook.Static{Profiles: snapshot}, webhook.Options{
		Logger: slog.New(slog.NewTextHandler(logged, nil)), Compiler: compiler,
	}), logged
}

func postTo(handler http.Handler, path string, body []byte) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, request)
	return response
}

// postInChunks posts a body whose length is not told.
func postInChunks(handler http.Handler, path string, body []byte) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, path, io.MultiReader(bytes.NewReader(body)))
	request.Header.Set("Content-Type", "application/json")
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, request)
	return response
}

// FuzzProfileReview sends any object as a profile that is written: it is answered, twice the same, and never with a fault of
// ours.
func FuzzProfileReview(f *testing.F) {
	const custom = `{"custom":{"parameters":[{"name":"a","type":"integer","default":1}],"template":{"containers":[{"image":"a",` +
		`"args":["${params.a}"]}]}},"overridable":["a"],"onPortConflict":"Pick","after":["site"]}`
	const gitSync = `{"gitSync":{"repo":"https://git.example.com/site.git","mountPath":"/srv"},"match":{"podSelector":{},` +
		`"conditions":[{"name":"a","expression":"object.spec.containers.all(c, c.name != 'a')"}]}}`
	for _, seed := range []struct{ metadata, spec string }{
		{`{"name":"a"}`, custom},
		{`{"name":"a"}`, gitSync},
		{`{"name":"A_"}`, `{}`},
		{`{}`, `null`},
		{`1`, `[]`},
		{`{"name":"a"}`, strings.Replace(custom, "params.a", "[1,2,3].map(a, [1,2,3].map(b, a/0))", 1)},
		{`{"name":"a"}`, strings.Replace(custom, "${params.a}", "${", 1)},
		{`{"name":"a","deletionTimestamp":0}`, custom},
		{`{"name":"a","annotations":{"pillion.dev/release":1}}`, custom},
	} {
		f.Add("CREATE", seed.metadata, seed.spec, "null")
		f.Add("UPDATE", seed.metadata, seed.spec, custom)
	}
	f.Fuzz(func(t *testing.T, operation, metadata, spec, oldSpec string) {
		object := func(spec string) string {
			return `{"apiVersion":"pillion.dev/v1alpha1","kind":"PatternProfile","metadata":` + metadata + `,"spec":` + spec + `}`
		}
		body := []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"` + operation +
			`","namespace":"web","resource":{"group":"pillion.dev","version":"v1alpha1","resource":"patternprofiles"},"object":` +
			object(spec) + `,"oldObject":` + object(oldSpec) + `}}`)
		handler, logged := newHandler(t)
		response := postTo(handler, profiles.PathProfiles, body)
		if strings.Contains(logged.String(), "panic") {
			t.Fatalf("a panic:\n%s", logged)
		}
		if response.Code != http.StatusOK {
			if response.Code != http.StatusBadRequest {
				t.Fatalf("status %d: %s", response.Code, response.Body)
			}
			return
		}
		expectAnswer(t, body, response.Body.Bytes())
		if again := postTo(handler, profiles.PathProfiles, body); !bytes.Equal(again.Body.Bytes(), response.Body.Bytes()) {
			t.Fatalf("the same request has two answers:\n%s\n%s", response.Body, again.Body)
		}
	})
}

// FuzzWorkload sends any bytes as a workload: it is never refused or changed, and never answered with a fault of ours.
func FuzzWorkload(f *testing.F) {
	const template = `{"template":{"metadata":{"labels":{"app":"web"},"annotations":{"pillion.dev/inject":"site,nosuch"}},` +
		`"spec":{"containers":[{"name":"app"}]}}}`
	for _, spec := range []string{template, `{"jobTemplate":{"spec":` + template + `}}`, "null", "[]", `{"template":null}`} {
		for _, metadata := range []string{`{"name":"a","annotations":{"pillion.dev/inject":"site"}}`, `{"labels":{"pillion.dev/inject":"` + "\xff" + `"}}`, "1"} {
			f.Add("CREATE", "apps", "deployments", metadata, spec)
			f.Add("UPDATE", "batch", "cronjobs", metadata, spec)
		}
	}
	f.Add("DELETE", "", "nodes", "null", "[1]")
	f.Fuzz(func(t *testing.T, operation, group, resource, metadata, spec string) {
		body := []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"` + operation +
			`","namespace":"web","resource":{"group":"` + group + `","version":"v1","resource":"` + resource + `"},"object":{"metadata":` +
			metadata + `,"spec":` + spec + `}}}`)
		handler, logged := newHandler(t)
		response := postTo(handler, profiles.PathWorkloads+"pods", body)
		if strings.Contains(logged.String(), "panic") {
			t.Fatalf("a panic:\n%s", logged)
		}
		if response.Code != http.StatusOK {
			if response.Code != http.StatusBadRequest {
				t.Fatalf("status %d: %s", response.Code, response.Body)
			}
			return
		}
		expectAnswer(t, body, response.Body.Bytes())
		answered := admissionv1.AdmissionReview{}
		if err := json.Unmarshal(response.Body.Bytes(), &answered); err != nil {
			t.Fatal(err)
		}
		if r := answered.Response; !r.Allowed || len(r.Patch) > 0 || len(r.Warnings) > 10 {
			t.Fatalf("not a plain yes with warnings: %s", response.Body)
		}
		if again := postTo(handler, profiles.PathWorkloads+"pods", body); !bytes.Equal(again.Body.Bytes(), response.Body.Bytes()) {
			t.Fatalf("the same request has two answers:\n%s\n%s", response.Body, again.Body)
		}
	})
}
