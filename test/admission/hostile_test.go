package admission

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/webhook"
)

const (
	jsonType = "application/json"
	// hostileProfile is one that Pods ask for, forbiddenProfile one of the cluster's that they may not use, and foreignProfile
	// one of another namespace.
	hostileProfile   = "hostile"
	forbiddenProfile = "hostile-forbidden"
	foreignProfile   = "hostile-foreign"
	// portProfile lets Pods choose the port of its cache.
	portProfile = "any-port"
	maxBody     = 7 << 20
	// callTimeout is how long the API server waits for an answer where a Pod asks.
	callTimeout = 5 * time.Second
)

// TestHostileInput sends requests to the webhook's listener as no API server would. After each, a normal one is answered.
func TestHostileInput(t *testing.T) {
	h := newHostile(t)
	t.Run("requests", h.requests)
	t.Run("requests about workloads", h.workloads)
	t.Run("what is no creation of a Pod is let pass", h.untouched)
	t.Run("Pods", h.pods)
	t.Run("values of annotations", h.values)
	t.Run("names of profiles", h.names)
	t.Run("connections", h.connections)
}

type hostile struct {
	client    *http.Client
	tls       *tls.Config
	url       string
	namespace string
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	profile := site(hostileProfile)
	profile.Spec.Overridable = []string{"ref", "mountPath", "period", "env", "image", "resources", "sizeLimit", "depth"}
	create(t, profile)
	forbidden := site(forbiddenProfile)
	forbidden.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "body"}}
	create(t, forbidden)
	create(t, inNamespace(namespace(t, nil), site(foreignProfile)))
	port := cache(portProfile)
	port.Spec.Overridable = []string{"port"}
	create(t, port)
	h := &hostile{
		client: pillion.client(t), tls: pillion.tls(t),
		url: "https://" + pillion.address + webhook.PathPods, namespace: namespace(t, nil),
	}
	h.checkNormal(t)
	return h
}

// run runs a subtest after which a normal request is answered.
func (h *hostile) run(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		test(t)
		h.checkNormal(t)
	})
}

func (h *hostile) checkNormal(t *testing.T) {
	t.Helper()
	answer := h.review(t, h.request(t, pod("", v1alpha1.InjectKey, hostileProfile)))
	if !answer.Allowed || len(answer.Patch) == 0 {
		t.Fatalf("a normal request is not answered as it should be: %+v", answer)
	}
}

// request is an admission request for a Pod, as its JSON.
func (h *hostile) request(t *testing.T, p *corev1.Pod) *admissionv1.AdmissionRequest {
	t.Helper()
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return &admissionv1.AdmissionRequest{
		UID: "0123", Namespace: h.namespace, Operation: admissionv1.Create,
		Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Object:   apiruntime.RawExtension{Raw: raw},
	}
}

func encode(t *testing.T, request *admissionv1.AdmissionRequest) []byte {
	t.Helper()
	encoded, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// review sends a request that has to be answered with a review, and returns the response in it.
func (h *hostile) review(t *testing.T, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	return h.reviewBytes(t, encode(t, request))
}

func (h *hostile) reviewBytes(t *testing.T, body []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	status, answer := h.send(t, http.MethodPost, jsonType, bytes.NewReader(body))
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(answer, review); status != http.StatusOK || err != nil || review.Response == nil {
		t.Fatalf("HTTP %d, want 200 with a review: %v %.300s", status, err, answer)
	}
	if review.Response.UID != "0123" || review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview" {
		t.Errorf("the answer is a %s %s of uid %q", review.APIVersion, review.Kind, review.Response.UID)
	}
	return review.Response
}

func (h *hostile) send(t *testing.T, method, contentType string, body io.Reader) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, h.url, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := h.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

// denied checks that a response is a refusal with its reasons.
func denied(t *testing.T, answer *admissionv1.AdmissionResponse, says ...string) {
	t.Helper()
	if answer.Allowed || answer.Result == nil || len(answer.Patch) > 0 {
		t.Fatalf("it is not refused: %+v", answer)
	}
	if err := missing(answer.Result.Message, says...); err != nil {
		t.Error(err)
	}
}

func (h *hostile) requests(t *testing.T) {
	good := encode(t, h.request(t, pod("", v1alpha1.InjectKey, hostileProfile)))
	header := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":`
	deep := func(open, closed string) string {
		return strings.Repeat(open, 100_000) + strings.Repeat(closed, 100_000)
	}
	// A reader that is no bytes.Reader is sent in chunks, without a length.
	const none = "none" // a content type
	chunked := func(text string) io.Reader { return io.MultiReader(strings.NewReader(text)) }
	for _, test := range []struct {
		name, method, contentType string
		body                      io.Reader
		want                      int
	}{
		{name: "an empty body", body: http.NoBody, want: http.StatusBadRequest},
		{name: "an empty body in chunks", body: chunked(""), want: http.StatusBadRequest},
		{name: "truncated JSON", body: bytes.NewReader(good[:len(good)/2]), want: http.StatusBadRequest},
		{name: "JSON with more behind it", body: strings.NewReader(string(good) + "}"), want: http.StatusBadRequest},
		{name: "no JSON", body: strings.NewReader("apiVersion: admission.k8s.io/v1"), want: http.StatusBadRequest},
		{name: "a list", body: strings.NewReader("[]"), want: http.StatusBadRequest},
		{name: "null", body: strings.NewReader("null"), want: http.StatusBadRequest},
		{name: "request: null", body: strings.NewReader(header + "null}"), want: http.StatusBadRequest},
		{name: "no request", body: strings.NewReader(strings.TrimSuffix(header, `,"request":`) + "}"), want: http.StatusBadRequest},
		{
			name: "no uid", body: bytes.NewReader(bytes.Replace(good, []byte(`"uid":"0123"`), []byte(`"uid":""`), 1)),
			want: http.StatusBadRequest,
		},
		{name: "100,000 lists in each other", body: strings.NewReader(header + deep("[", "]") + "}"), want: http.StatusBadRequest},
		{
			name: "100,000 objects in each other as the Pod",
			body: strings.NewReader(header + `{"uid":"0123","operation":"CREATE","resource":{"version":"v1","resource":"pods"},"object":` +
				deep(`{"a":`, "}")[:600_000-1] + "}}"), want: http.StatusBadRequest,
		},
		{
			name: "another content type", contentType: "application/yaml", body: bytes.NewReader(good),
			want: http.StatusUnsupportedMediaType,
		},
		{name: "no content type", contentType: none, body: bytes.NewReader(good), want: http.StatusUnsupportedMediaType},
		{
			name: "a content type that only begins as it should", contentType: "application/jsonp", body: bytes.NewReader(good),
			want: http.StatusUnsupportedMediaType,
		},
		{name: "GET", method: http.MethodGet, body: http.NoBody, want: http.StatusMethodNotAllowed},
		{name: "PUT", method: http.MethodPut, body: bytes.NewReader(good), want: http.StatusMethodNotAllowed},
		{name: "DELETE", method: http.MethodDelete, body: http.NoBody, want: http.StatusMethodNotAllowed},
		{
			name: "a body over 7 MiB", body: strings.NewReader(strings.Repeat(" ", maxBody+1)), want: http.StatusRequestEntityTooLarge,
		},
		{
			name: "a body over 7 MiB in chunks", body: chunked(strings.Repeat(" ", maxBody+1)), want: http.StatusRequestEntityTooLarge,
		},
		{
			name: "two million empty containers", want: http.StatusRequestEntityTooLarge,
			body: bytes.NewReader(bytes.Replace(good, []byte(`"containers":[`), []byte(`"containers":[`+strings.Repeat("{},", 2_000_000)), 1)),
		},
		{
			name: "a million containers that are null", want: http.StatusRequestEntityTooLarge,
			body: bytes.NewReader(bytes.Replace(good, []byte(`"containers":[`), []byte(`"containers":[`+strings.Repeat("null,", 1_000_000)), 1)),
		},
		{
			name: "a review of v1beta1", body: bytes.NewReader(bytes.Replace(good, []byte("k8s.io/v1"), []byte("k8s.io/v1beta1"), 1)),
			want: http.StatusBadRequest,
		},
		{
			name: "a review of a version that does not exist", want: http.StatusBadRequest,
			body: bytes.NewReader(bytes.Replace(good, []byte("k8s.io/v1"), []byte("k8s.io/v9"), 1)),
		},
		{
			name: "another kind of object", want: http.StatusBadRequest,
			body: bytes.NewReader(bytes.Replace(good, []byte(`"AdmissionReview"`), []byte(`"TokenReview"`), 1)),
		},
		{
			name: "a Pod that is none", want: http.StatusBadRequest,
			body: bytes.NewReader(bytes.Replace(good, []byte(`"containers":[`), []byte(`"containers":[7,`), 1)),
		},
	} {
		h.run(t, test.name, func(t *testing.T) {
			method, contentType := test.method, test.contentType
			if method == "" {
				method = http.MethodPost
			}
			switch contentType {
			case "":
				contentType = jsonType
			case none:
				contentType = ""
			}
			status, answer := h.send(t, method, contentType, test.body)
			if status != test.want {
				t.Errorf("HTTP %d, want %d: %.300s", status, test.want, answer)
			}
		})
	}
	h.run(t, "another path", func(t *testing.T) {
		other := *h
		other.url = "https://" + pillion.address + "/metrics"
		if status, answer := other.send(t, http.MethodPost, jsonType, bytes.NewReader(good)); status != http.StatusNotFound {
			t.Errorf("HTTP %d, want 404: %.300s", status, answer)
		}
	})
}

// workloads are sent to a path of their own. A fault lets them pass, as every answer does.
func (h *hostile) workloads(t *testing.T) {
	other := *h
	other.url = "https://" + pillion.address + profiles.WorkloadsPath(profiles.PathPods)
	review := func(object string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"0123","operation":"CREATE","namespace":"` +
			h.namespace + `","resource":{"group":"apps","version":"v1","resource":"deployments"},"object":` + object + `}}`
	}
	template := func(annotations, spec string) string {
		return review(`{"metadata":{"name":"web"},"spec":{"template":{"metadata":{"annotations":` + annotations + `},"spec":` + spec + `}}}`)
	}
	const asks = `{"pillion.dev/inject":"hostile-nosuch"}`
	for name, test := range map[string]struct {
		body string
		want int
	}{
		"an empty body":               {"", http.StatusBadRequest},
		"truncated JSON":              {review("{")[:100], http.StatusBadRequest},
		"request: null":               {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`, http.StatusBadRequest},
		"a review of v1beta1":         {strings.Replace(review("{}"), "k8s.io/v1", "k8s.io/v1beta1", 1), http.StatusBadRequest},
		"100,000 objects in a spec":   {template(asks, strings.Repeat(`{"a":`, 100_000)+"1"+strings.Repeat("}", 100_000)), http.StatusBadRequest},
		"a spec that is a list":       {template(asks, "[]"), http.StatusBadRequest},
		"a body over 7 MiB":           {strings.Repeat(" ", maxBody+1), http.StatusRequestEntityTooLarge},
		"a quantity of 1e999999":      {template(asks, `{"containers":[{"resources":{"limits":{"cpu":"1e999999"}}}]}`), http.StatusOK},
		"1,000 containers":            {template(asks, `{"containers":[`+strings.Repeat(`{"name":"a"},`, 999)+`{}]}`), http.StatusOK},
		"256 KiB of annotations":      {template(`{"a":"`+strings.Repeat("x", 256<<10)+`","pillion.dev/inject":"hostile"}`, "{}"), http.StatusOK},
		"300,000 annotations":         {template(`{`+strings.Repeat(`"a":"",`, 300_000)+`"pillion.dev/inject":"hostile"}`, "{}"), http.StatusOK},
		"800,000 annotations":         {template(`{`+strings.Repeat(`"a":"",`, 800_000)+`"a":""}`, "{}"), http.StatusRequestEntityTooLarge},
		"bytes that are not UTF-8":    {template(`{"a":"`+"\xff"+`"}`, "{}"), http.StatusOK},
		"a name that leads elsewhere": {template(`{"pillion.dev/inject":"../x"}`, "{}"), http.StatusOK},
		"nothing":                     {review("null"), http.StatusOK},
	} {
		h.run(t, name, func(t *testing.T) {
			start := time.Now()
			status, answer := other.send(t, http.MethodPost, jsonType, strings.NewReader(test.body))
			if status != test.want {
				t.Errorf("HTTP %d, want %d: %.300s", status, test.want, answer)
			}
			if took := time.Since(start); took >= callTimeout {
				t.Errorf("answered after %s", took)
			}
			if reviewed := (admissionv1.AdmissionReview{}); status == http.StatusOK &&
				(json.Unmarshal(answer, &reviewed) != nil || reviewed.Response == nil || !reviewed.Response.Allowed) {
				t.Errorf("it is not let pass: %.300s", answer)
			}
		})
	}
}

func (h *hostile) untouched(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.AdmissionRequest){
		"an update": func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update },
		"a deletion": func(r *admissionv1.AdmissionRequest) {
			r.Operation, r.Object = admissionv1.Delete, apiruntime.RawExtension{}
		},
		"a connection":  func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Connect },
		"a subresource": func(r *admissionv1.AdmissionRequest) { r.SubResource = "ephemeralcontainers" },
		"a Deployment": func(r *admissionv1.AdmissionRequest) {
			r.Resource.Group, r.Resource.Resource = "apps", "deployments"
		},
		"a Pod of another group": func(r *admissionv1.AdmissionRequest) { r.Resource.Group = "example.com" },
	} {
		h.run(t, name, func(t *testing.T) {
			request := h.request(t, pod("", v1alpha1.InjectKey, hostileProfile))
			change(request)
			if answer := h.review(t, request); !answer.Allowed || len(answer.Patch) > 0 || len(answer.Warnings) > 0 {
				t.Errorf("it is not let pass untouched: %+v", answer)
			}
		})
	}
}

func (h *hostile) pods(t *testing.T) {
	h.run(t, "1,000 containers are refused with the limit", func(t *testing.T) {
		p := pod("", v1alpha1.InjectKey, hostileProfile)
		for i := range 1000 {
			p.Spec.Containers = append(p.Spec.Containers, container(fmt.Sprintf("c%d", i)))
		}
		request, start := h.request(t, p), time.Now()
		denied(t, h.review(t, request), "1002 containers", "at most 250", "PodTooLarge")
		if took := time.Since(start); took >= callTimeout {
			t.Errorf("answered after %s, when the API server has given up", took)
		}
	})
	h.run(t, "more than 256 KiB of annotations are refused with the limit", func(t *testing.T) {
		p := pod("", v1alpha1.InjectKey, hostileProfile, "example.com/large", strings.Repeat("x", 256<<10))
		denied(t, h.review(t, h.request(t, p)), "at most 262144", "PodTooLarge")
	})
	h.run(t, "annotations that injection would make too large are refused", func(t *testing.T) {
		p := pod("", v1alpha1.InjectKey, hostileProfile, "example.com/large", strings.Repeat("x", 256<<10-60))
		denied(t, h.review(t, h.request(t, p)), "262144")
	})
	h.run(t, "bytes that are not UTF-8 are refused", func(t *testing.T) {
		body := encode(t, h.request(t, pod("", v1alpha1.InjectKey, hostileProfile, "example.com/note", "HERE")))
		denied(t, h.reviewBytes(t, bytes.Replace(body, []byte("HERE"), []byte{0xff, 0xfe}, 1)), "not UTF-8")
	})
	h.run(t, "a port of 70000 is refused with the bound", func(t *testing.T) {
		ask := func(port string) *admissionv1.AdmissionResponse {
			key := v1alpha1.OverrideKey(portProfile, "port")
			return h.review(t, h.request(t, pod("", v1alpha1.InjectKey, portProfile, key, port)))
		}
		denied(t, ask("70000"), v1alpha1.OverrideKey(portProfile, "port"), "65535")
		if answer := ask("7000"); !answer.Allowed {
			t.Errorf("a port that there is, is refused: %+v", answer)
		}
	})
	h.run(t, "a Pod that asks for 33 profiles is refused with the limit", func(t *testing.T) {
		var names []string
		for i := range 33 {
			names = append(names, fmt.Sprintf("p%d", i))
		}
		denied(t, h.review(t, h.request(t, pod("", v1alpha1.InjectKey, strings.Join(names, ",")))), "33 profiles", "at most 32")
	})
}

// values are annotations that override a field: each comes out as one literal value, or is refused.
func (h *hostile) values(t *testing.T) {
	for name, value := range map[string]string{
		"a newline":           "v1\n--one-time",
		"quotes":              `v1"'`,
		"a template":          "{{ .Env }}",
		"a variable":          "$(HOME)",
		"an escaped variable": "$$(HOME)",
		"a command":           "v1; rm -rf /",
		"backticks":           "`id`",
		"a leading dash":      "--upload-pack=x",
		"a backslash":         `v1\n`,
		"nothing":             "",
		"a slash and dots":    "../../etc/passwd",
		"a tilde":             "~1/~0",
	} {
		h.run(t, "a string with "+name, func(t *testing.T) {
			answer := h.override(t, "ref", value)
			if !answer.Allowed {
				denied(t, answer, v1alpha1.OverrideKey(hostileProfile, "ref"))
				return
			}
			want := "--ref=" + strings.ReplaceAll(value, "$", "$$") // as the kubelet wants a literal $
			if args := h.injected(t, answer).Args; !slices.Contains(args, want) {
				t.Errorf("no argument is %q: %q", want, args)
			}
		})
		h.run(t, "a variable's value with "+name, func(t *testing.T) {
			env, err := json.Marshal([]v1alpha1.EnvVar{{Name: "HOSTILE", Value: value}})
			if err != nil {
				t.Fatal(err)
			}
			answer := h.override(t, "env", string(env))
			if !answer.Allowed {
				denied(t, answer, v1alpha1.OverrideKey(hostileProfile, "env"))
				return
			}
			want := corev1.EnvVar{Name: "HOSTILE", Value: strings.ReplaceAll(value, "$", "$$")}
			if variables := h.injected(t, answer).Env; !slices.Contains(variables, want) {
				t.Errorf("no variable is %v: %v", want, variables)
			}
		})
	}
	for name, value := range map[string]string{
		"NUL": "v1\x00", "a control character": "v1\x1b[31m", "a right-to-left override": "v1\u202etxt", "an isolate": "v1\u2066",
		"a mark of direction": "v1\u200f", "a replacement character": "v1\ufffd", "DEL": "v1\x7f", "a C1 control": "v1\u0085",
	} {
		h.run(t, "a string with "+name+" is refused", func(t *testing.T) {
			denied(t, h.override(t, "ref", value), v1alpha1.OverrideKey(hostileProfile, "ref"))
		})
		h.run(t, "JSON with "+name+" is refused", func(t *testing.T) {
			denied(t, h.override(t, "env", `[{"name":"A","value":"`+value+`"}]`), v1alpha1.OverrideKey(hostileProfile, "env"))
		})
		h.run(t, "a name with "+name+" is refused", func(t *testing.T) {
			denied(t, h.review(t, h.request(t, pod("", v1alpha1.InjectKey, value))), "InvalidRequest")
		})
	}
	for name, override := range map[string][2]string{
		"a quantity without end":           {"sizeLimit", "1e999999"},
		"a quantity without end in JSON":   {"resources", `{"limits":{"memory":"1e999999"}}`},
		"a negative quantity":              {"resources.limits.memory", "-1Mi"},
		"a bad image reference":            {"image", "registry.example.com/UPPER//x:"},
		"an image with a space":            {"image", "x y"},
		"a negative duration":              {"period", "-30s"},
		"a duration beyond int64":          {"period", "9999999999999h"},
		"a duration without a unit":        {"period", "30"},
		"an integer beyond int64":          {"depth", "99999999999999999999"},
		"an integer that is a float":       {"depth", "1e400"},
		"JSON that is cut off":             {"env", `[{"name":"A"`},
		"JSON of another type":             {"env", `{"name":"A"}`},
		"JSON null":                        {"env", `null`},
		"an unknown field in JSON":         {"env", `[{"name":"A","valueFrom":{}}]`},
		"a deep nesting":                   {"env", strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000)},
		"a path that climbs":               {"mountPath", "/srv/../etc"},
		"a field that is not overridable":  {"repo", "https://evil.example.com/x.git"},
		"a field that does not exist":      {"resources.limits.nvidia", "1"},
		"a field with an empty name":       {"", "x"},
		"a field with a pointer's escapes": {"env/~1", "x"},
	} {
		h.run(t, name+" is refused where it is written", func(t *testing.T) {
			denied(t, h.override(t, override[0], override[1]), v1alpha1.OverrideKey(hostileProfile, override[0]))
		})
	}
}

func (h *hostile) override(t *testing.T, field, value string) *admissionv1.AdmissionResponse {
	t.Helper()
	p := pod("", v1alpha1.InjectKey, hostileProfile, v1alpha1.OverrideKey(hostileProfile, field), value)
	return h.review(t, h.request(t, p))
}

// injected returns the container that a patch adds.
func (h *hostile) injected(t *testing.T, answer *admissionv1.AdmissionResponse) corev1.Container {
	t.Helper()
	var operations []struct {
		Op, Path string
		Value    json.RawMessage
	}
	if err := json.Unmarshal(answer.Patch, &operations); err != nil {
		t.Fatal(err)
	}
	for _, operation := range operations {
		if strings.HasPrefix(operation.Path, "/spec/initContainers") {
			var containers []corev1.Container
			one := corev1.Container{}
			if json.Unmarshal(operation.Value, &containers) == nil && len(containers) == 1 {
				return containers[0]
			}
			if json.Unmarshal(operation.Value, &one) == nil && one.Name != "" {
				return one
			}
		}
	}
	t.Fatalf("no container is added: %s", answer.Patch)
	return corev1.Container{}
}

// names asks for profiles that may not be used here: the answer does not tell whether they exist.
func (h *hostile) names(t *testing.T) {
	words := map[string]string{}
	for name, asked := range map[string]string{
		"one that does not exist": "hostile-nosuchone", "one that is not allowed here": forbiddenProfile,
		"another namespace's": foreignProfile,
	} {
		h.run(t, name, func(t *testing.T) {
			answer := h.review(t, h.request(t, pod("", v1alpha1.InjectKey, asked)))
			denied(t, answer, "ProfileNotAvailable")
			words[name] = strings.ReplaceAll(answer.Result.Message, asked, "NAME")
		})
	}
	for name, said := range words {
		if said != words["one that does not exist"] {
			t.Errorf("%s is answered %q, and one that does not exist %q", name, said, words["one that does not exist"])
		}
	}
	for _, asked := range []string{
		"../x", "default/" + hostileProfile, "/etc/passwd", "x.y", "X", "-x", "x-", "*", strings.Repeat("x", 41), "a b",
	} {
		h.run(t, asked+" is no name", func(t *testing.T) {
			denied(t, h.review(t, h.request(t, pod("", v1alpha1.InjectKey, asked))), "InvalidRequest")
		})
	}
}

func (h *hostile) connections(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		err := apiserver.Await(context.Background(), func(context.Context) (bool, error) {
			now := runtime.NumGoroutine()
			return now < before+50, fmt.Errorf("%d goroutines, and %d before", now, before)
		})
		if err != nil {
			t.Error("connections that have gone leave something behind:", err)
		}
	})
	h.run(t, "plaintext is refused", func(t *testing.T) {
		response, err := http.Post(strings.Replace(h.url, "https", "http", 1), jsonType, strings.NewReader("{}"))
		if err == nil {
			defer response.Body.Close() //nolint:errcheck // it was only read
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("HTTP %d, want 400 or a broken connection", response.StatusCode)
			}
		}
	})
	h.run(t, "TLS 1.2 is refused", func(t *testing.T) {
		config := h.tls.Clone()
		config.MaxVersion = tls.VersionTLS12
		if connection, err := tls.Dial("tcp", pillion.address, config); err == nil {
			t.Error("the handshake succeeded", connection.Close())
		}
	})
	h.run(t, "slow headers are timed out", func(t *testing.T) {
		connection := h.dial(t, "http/1.1")
		if _, err := io.WriteString(connection, "POST "+webhook.PathPods+" HTTP/1.1\r\nHost: x\r\n"); err != nil {
			t.Fatal(err)
		}
		awaitClosed(t, connection)
	})
	h.run(t, "a slow body is timed out", func(t *testing.T) {
		connection := h.dial(t, "http/1.1")
		_, err := io.WriteString(connection, "POST "+webhook.PathPods+
			" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
		if err != nil {
			t.Fatal(err)
		}
		awaitClosed(t, connection)
	})
	h.run(t, "large headers are refused", func(t *testing.T) {
		connection := h.dial(t, "http/1.1")
		large := strings.Repeat("x", 128<<10)
		_, _ = io.WriteString(connection, "POST "+webhook.PathPods+" HTTP/1.1\r\nHost: x\r\nX: "+large+"\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err == nil {
			defer response.Body.Close() //nolint:errcheck // it was only read
			if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("HTTP %d, want 431 or a broken connection", response.StatusCode)
			}
		}
	})
	h.run(t, "500 connections without a handshake harm nobody", func(t *testing.T) {
		for range 500 {
			connection, err := net.Dial("tcp", pillion.address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = connection.Close() })
		}
		h.checkNormal(t)
	})
	h.run(t, "500 connections with slow headers harm nobody, and are closed", func(t *testing.T) {
		connections := make([]*tls.Conn, 500)
		for i := range connections {
			connections[i] = h.dial(t, "http/1.1")
			if _, err := io.WriteString(connections[i], "POST "+webhook.PathPods+" HTTP/1.1\r\nHost: x\r\n"); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				h.checkNormal(t)
			}
		}
		h.checkNormal(t)
		for _, connection := range connections {
			awaitClosed(t, connection)
			if t.Failed() {
				return // the others would take as long
			}
		}
	})
	h.run(t, "nonsense in place of a handshake is refused", func(t *testing.T) {
		for _, text := range []string{"\x00", strings.Repeat("\xff", 1000), "\x16\x03\x01\xff\xff" + strings.Repeat("x", 100_000)} {
			connection, err := net.Dial("tcp", pillion.address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(connection, text)
			if text == "\x00" {
				_ = connection.Close()
				continue
			}
			awaitClosed(t, connection)
			_ = connection.Close()
		}
	})
	h.run(t, "500 connections that have become idle harm nobody, and are closed", h.idle)
	h.run(t, "rapid resets harm nobody", func(t *testing.T) {
		var group sync.WaitGroup
		for range 4 {
			connection := h.dial(t, "h2")
			group.Go(func() { h.resets(t, connection) })
		}
		for range 20 {
			h.checkNormal(t)
		}
		group.Wait()
	})
}

// idle opens connections that send a request each and then no more. The webhook that it asks has one bound that can close them while
// the test runs: how long they may be idle.
func (h *hostile) idle(t *testing.T) {
	options := pillion.options()
	options.ListenAddress, options.HealthAddress = mustFreeAddress(t), mustFreeAddress(t)
	options.ReadHeaderTimeout, options.ReadTimeout, options.WriteTimeout = time.Minute, time.Minute, time.Minute
	options.IdleTimeout = time.Second
	stop := pillion.runWebhook(server.Config, options)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
	})
	awaitStatus(t, options.HealthAddress, http.StatusOK, "ok")
	asked := *h
	asked.url = "https://" + options.ListenAddress + webhook.PathPods

	connections := make([]*tls.Conn, 500)
	for i := range connections {
		connections[i] = h.dialAt(t, options.ListenAddress, "http/1.1")
	}
	asked.checkNormal(t) // the handshakes are complete, and none of the connections can have been closed yet
	for _, connection := range connections {
		if _, err := io.WriteString(connection, "GET "+webhook.PathPods+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	asked.checkNormal(t)
	for _, connection := range connections {
		awaitClosed(t, connection)
		if t.Failed() {
			return // the others would take as long
		}
	}
	asked.checkNormal(t)
}

// resets opens streams and resets them at once, as CVE-2023-44487 did, until the server hangs up.
func (h *hostile) resets(t *testing.T, connection *tls.Conn) {
	if _, err := io.WriteString(connection, http2.ClientPreface); err != nil {
		t.Error(err)
		return
	}
	framer := http2.NewFramer(connection, connection)
	if err := framer.WriteSettings(); err != nil {
		t.Error(err)
		return
	}
	go func() { _, _ = io.Copy(io.Discard, connection) }() // answers nobody reads would block the server's writes
	var fields bytes.Buffer
	encoder := hpack.NewEncoder(&fields)
	for _, field := range [][2]string{
		{":method", http.MethodPost},
		{":scheme", "https"},
		{":authority", "x"},
		{":path", webhook.PathPods},
		{"content-type", jsonType},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true}); err != nil {
			t.Error(err)
			return
		}
	}
	for i := range uint32(20_000) {
		stream := 2*i + 1
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: fields.Bytes(), EndHeaders: true})
		if err == nil {
			err = framer.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
		if err != nil {
			return // the server has had enough
		}
	}
}

// dial returns a TLS connection that speaks a protocol.
func (h *hostile) dial(t *testing.T, protocol string) *tls.Conn {
	t.Helper()
	return h.dialAt(t, pillion.address, protocol)
}

func (h *hostile) dialAt(t *testing.T, address, protocol string) *tls.Conn {
	t.Helper()
	config := h.tls.Clone()
	config.NextProtos = []string{protocol}
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if got := connection.ConnectionState().NegotiatedProtocol; got != protocol {
		t.Fatalf("the server speaks %q, not %s", got, protocol)
	}
	return connection
}

// awaitClosed reads until the server closes the connection.
func awaitClosed(t *testing.T, connection net.Conn) {
	t.Helper()
	if err := connection.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, connection)
	timeout := net.Error(nil)
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the server keeps the connection")
	}
}
