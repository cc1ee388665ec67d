package webhook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/profiles"
)

// Static is a Cluster of what it is given, for use without one: on the command line and in unit tests. A namespace that it was
// not given exists, without labels of its own or annotations.
type Static struct {
	Profiles   *profiles.Snapshot
	Namespaces map[string]profiles.Namespace // by name
}

// Snapshot returns the profiles.
func (s Static) Snapshot() *profiles.Snapshot { return s.Profiles }

// Namespace returns a namespace, with the label that every one has. Every one is known.
func (s Static) Namespace(name string) (profiles.Namespace, bool) {
	namespace := namespaceOr(s.Namespaces[name], name)
	if namespace.Labels[corev1.LabelMetadataName] != name {
		labels := map[string]string{}
		maps.Copy(labels, namespace.Labels)
		labels[corev1.LabelMetadataName] = name
		namespace.Labels = labels
	}
	return namespace, true
}

// Live knows no more than Namespace.
func (s Static) Live(_ context.Context, namespace string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
	known, _ := s.Namespace(namespace)
	return known, nil, nil
}

// NewReview returns the admission review that the API server sends when a Pod, in JSON, is created in a namespace.
func NewReview(namespace string, pod []byte) *admissionv1.AdmissionReview {
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	review := &admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID:             types.UID("00000000-0000-4000-8000-000000000001"),
		Kind:            kind,
		Resource:        resource,
		RequestKind:     &kind,
		RequestResource: &resource,
		Namespace:       namespace,
		Operation:       admissionv1.Create,
	}}
	review.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	review.Request.Object.Raw = pod
	return review
}

// Ask sends an admission review, in JSON, to a handler on one of its paths, and returns the answer. An answer other than HTTP 200
// is an error.
func Ask(ctx context.Context, handler http.Handler, path string, review []byte) (*admissionv1.AdmissionReview, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(review))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	written := &written{header: http.Header{}}
	handler.ServeHTTP(written, request)
	if status := cmp.Or(written.status, http.StatusOK); status != http.StatusOK {
		return nil, fmt.Errorf("the webhook answers HTTP %d: %s", status, strings.TrimSpace(written.body.String()))
	}
	answer := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(written.body.Bytes(), answer); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	if answer.Response == nil {
		return nil, errors.New("the answer has no response")
	}
	return answer, nil
}

// written is an http.ResponseWriter that keeps what is written.
type written struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header returns the headers, which nobody reads.
func (w *written) Header() http.Header { return w.header }

// WriteHeader keeps the first status.
func (w *written) WriteHeader(status int) { w.status = cmp.Or(w.status, status) }

// Write keeps the content.
func (w *written) Write(content []byte) (int, error) { return w.body.Write(content) }

// Apply does with the patch of an answer what the API server does. Without a patch the object stays as it is.
func Apply(object, patch []byte) ([]byte, error) {
	if len(patch) == 0 {
		return object, nil
	}
	decoded, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	if object, err = decoded.Apply(object); err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	return object, nil
}
