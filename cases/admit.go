package cases

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// answer is what the webhook says of a Pod.
type answer struct {
	*admissionv1.AdmissionResponse
	raw []byte // the Pod with what is added to it, as JSON; nil if it is refused
	pod *corev1.Pod
}

// message is why the Pod is refused.
func (a *answer) message() string {
	if a.Result == nil {
		return ""
	}
	return a.Result.Message
}

// admit sends the Pod of a request to the webhook's handler, and does with the answer what the API server does.
func (w *world) admit(ctx context.Context, path string, request request) (*answer, error) {
	body, err := json.Marshal(reviewOf(request))
	if err != nil {
		return nil, fmt.Errorf("encode the admission review: %w", err)
	}
	sent, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	sent.Header.Set("Content-Type", "application/json")
	written := &response{header: http.Header{}}
	known := webhook.Static{Profiles: w.snapshot, Namespaces: request.namespaces}
	webhook.NewHandler(known, webhook.Options{Compiler: w.compiler}).ServeHTTP(written, sent)
	if status := cmp.Or(written.status, http.StatusOK); status != http.StatusOK {
		return nil, fmt.Errorf("the webhook answers HTTP %d: %s", status, strings.TrimSpace(written.body.String()))
	}
	review := admissionv1.AdmissionReview{}
	if err := json.Unmarshal(written.body.Bytes(), &review); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	if review.Response == nil {
		return nil, errors.New("the answer has no response")
	}
	got := &answer{AdmissionResponse: review.Response}
	if got.Allowed {
		if err := got.apply(request.raw); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// apply applies the patch to the Pod.
func (a *answer) apply(raw []byte) (err error) {
	a.raw = raw
	if len(a.Patch) > 0 {
		patch, err := jsonpatch.DecodePatch(a.Patch)
		if err != nil {
			return fmt.Errorf("decode the patch: %w", err)
		}
		if a.raw, err = patch.Apply(raw); err != nil {
			return fmt.Errorf("apply the patch: %w", err)
		}
	}
	a.pod, err = decode(a.raw)
	return err
}

func decode(raw []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, pod); err != nil {
		return nil, fmt.Errorf("decode the Pod: %w", err)
	}
	return pod, nil
}

// reviewOf returns what the API server sends when the Pod is created.
func reviewOf(request request) *admissionv1.AdmissionReview {
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	review := &admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID:             types.UID("00000000-0000-4000-8000-000000000001"),
		Kind:            kind,
		Resource:        resource,
		RequestKind:     &kind,
		RequestResource: &resource,
		Namespace:       request.namespace,
		Operation:       admissionv1.Create,
		UserInfo:        request.user,
		DryRun:          &request.dryRun,
	}}
	review.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	review.Request.Object.Raw = request.raw
	return review
}

// decide returns the decision that the handler makes, with every profile that was considered.
func (w *world) decide(request request) (profiles.Decision, error) {
	pod, err := decode(request.raw)
	if err != nil {
		return profiles.Decision{}, err
	}
	return profiles.Request{
		Namespace: request.namespaces.Get(request.namespace), Pod: pod, User: request.user, DryRun: request.dryRun,
	}.Decide(w.snapshot), nil
}

// response is an http.ResponseWriter that keeps what is written.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header returns the headers, which nobody reads.
func (r *response) Header() http.Header { return r.header }

// WriteHeader keeps the first status.
func (r *response) WriteHeader(status int) { r.status = cmp.Or(r.status, status) }

// Write keeps the content.
func (r *response) Write(content []byte) (int, error) { return r.body.Write(content) }
