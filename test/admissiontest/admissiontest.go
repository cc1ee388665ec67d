// Package admissiontest lets you unit-test your own profiles: it sends Pods through Pillion's real admission handler, without a
// cluster, and returns what the API server would make of the answer.
//
//	webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("profiles/")))
//	result := admissiontest.Must(webhook.CreateYAML(deployment))
//	if result.Denied {
//		t.Fatal(result.Message)
//	}
//
// It needs no *testing.T and starts nothing that would have to be stopped.
package admissiontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// Must returns value, or panics if there is an error: profiles that do not compile, a manifest that is none. A denial is not an
// error.
func Must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Webhook is Pillion's admission handler with the profiles and namespaces that it was given. It is safe for concurrent use.
type Webhook struct {
	handler http.Handler
}

// New returns a Webhook. It takes tenths of a second, in which the profiles are compiled: tests may share one. Everything that is
// wrong with the profiles, in any file, is in the error.
func New(options ...Option) (*Webhook, error) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	s := &settings{options: defaultOptions(), namespaces: manifest.Namespaces{}}
	for _, option := range options {
		option(s)
	}
	compiled, errs := manifest.ProfilesIn(compiler, s.files, corev1.NamespaceDefault)
	if err := errors.Join(append(s.errs, errs...)...); err != nil {
		return nil, err
	}
	namespaces := manifest.NamespacesIn(s.files)
	maps.Copy(namespaces, s.namespaces)
	known := webhook.Static{Profiles: profiles.NewSnapshot(s.options, compiled), Namespaces: namespaces}
	return &Webhook{handler: webhook.NewHandler(known, webhook.Options{Compiler: compiler})}, nil
}

// ServeHTTP answers admission reviews over HTTP, on the path of the webhook: for use with package httptest.
func (w *Webhook) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	w.handler.ServeHTTP(response, request)
}

// Create creates a Pod: it returns what the API server would make of the webhook's answer. The Pod is not changed. One that names
// no namespace is in "default". The Pod of a Result may be created again, as when the API server calls a webhook twice.
func (w *Webhook) Create(pod *corev1.Pod) (*Result, error) {
	typed := *pod
	typed.APIVersion, typed.Kind = "v1", "Pod"
	raw, err := json.Marshal(&typed)
	if err != nil {
		return nil, fmt.Errorf("encode the Pod: %w", err)
	}
	return w.CreateRaw(pod.Namespace, raw)
}

// CreateYAML creates the Pod of a manifest in YAML or JSON: a Pod, or any workload, whose Pod template is taken. The manifest may
// hold other objects beside the one workload; they are ignored.
func (w *Webhook) CreateYAML(text string) (*Result, error) {
	template, err := onlyTemplate(manifest.Parse("manifest", []byte(text)))
	if err != nil {
		return nil, err
	}
	raw, err := template.Raw()
	if err != nil {
		return nil, err
	}
	return w.CreateRaw(template.Namespace, raw)
}

// CreateFile creates the Pod of a file, as CreateYAML does.
func (w *Webhook) CreateFile(path string) (*Result, error) {
	files, errs := manifest.ReadFiles([]string{path}, strings.NewReader(""))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	template, err := onlyTemplate(files...)
	if err != nil {
		return nil, err
	}
	raw, err := template.Raw()
	if err != nil {
		return nil, err
	}
	return w.CreateRaw(template.Namespace, raw)
}

// CreateRaw creates a Pod from its JSON, which may have fields that package corev1 does not know.
func (w *Webhook) CreateRaw(namespace string, raw []byte) (*Result, error) {
	review := NewReview(namespace, raw)
	response, err := w.Review(review)
	if err != nil {
		return nil, err
	}
	return newResult(review.Request.Object.Raw, response)
}

// Review sends an admission review, of a Pod, a workload or a profile, and returns the response. An answer other than HTTP 200 is an
// error.
func (w *Webhook) Review(review *admissionv1.AdmissionReview) (*admissionv1.AdmissionResponse, error) {
	body, err := json.Marshal(review)
	if err != nil {
		return nil, fmt.Errorf("encode the admission review: %w", err)
	}
	answer, err := webhook.Ask(context.Background(), w, webhook.PathFor(review), body)
	if err != nil {
		return nil, err
	}
	if answer.Response.UID != review.Request.UID {
		return nil, errors.New("the answer is not to this admission review")
	}
	return answer.Response, nil
}

// NewReview returns the admission review that the API server sends when a Pod, in JSON, is created in a namespace; "default" if
// that is empty. It may be changed before it is sent, to one of an update for instance.
func NewReview(namespace string, pod []byte) *admissionv1.AdmissionReview {
	if namespace == "" {
		namespace = corev1.NamespaceDefault
	}
	return webhook.NewReview(namespace, pod)
}

// Result is what becomes of a Pod.
type Result struct {
	// Pod is the Pod with what was added to it; nil if it is denied. Raw is the same as JSON, with the fields that package
	// corev1 does not know.
	Pod *corev1.Pod
	Raw []byte

	// Denied tells whether the Pod is refused, and Message what kubectl says then.
	Denied  bool
	Message string

	// Warnings are what kubectl prints whether or not the Pod is refused.
	Warnings []string

	// Patch is the RFC 6902 patch that was applied; nil if nothing was added.
	Patch []byte

	// Response is the webhook's answer itself.
	Response *admissionv1.AdmissionResponse
}

// newResult does with a response what the API server does.
func newResult(raw []byte, response *admissionv1.AdmissionResponse) (*Result, error) {
	result := &Result{Raw: raw, Warnings: response.Warnings, Response: response, Patch: response.Patch}
	if !response.Allowed {
		result.Denied, result.Raw = true, nil
		if response.Result != nil {
			result.Message = response.Result.Message
		}
		return result, nil
	}
	var err error
	if result.Raw, err = webhook.Apply(raw, response.Patch); err != nil {
		return nil, err
	}
	result.Pod = &corev1.Pod{}
	if err := json.Unmarshal(result.Raw, result.Pod); err != nil {
		return nil, fmt.Errorf("decode the Pod: %w", err)
	}
	return result, nil
}

// Container returns the init container or container of a name; nil if the Pod has none of it, or is denied.
func (r *Result) Container(name string) *corev1.Container {
	if r.Pod == nil {
		return nil
	}
	for _, containers := range [][]corev1.Container{r.Pod.Spec.InitContainers, r.Pod.Spec.Containers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}

// Injected returns the names of the containers that Pillion has added, in the order in which they start.
func (r *Result) Injected() []string {
	if r.Pod == nil {
		return nil
	}
	var names []string
	for _, containers := range [][]corev1.Container{r.Pod.Spec.InitContainers, r.Pod.Spec.Containers} {
		for i := range containers {
			if v1alpha1.IsReservedName(containers[i].Name) {
				names = append(names, containers[i].Name)
			}
		}
	}
	return names
}

// onlyTemplate returns the one Pod template in files.
func onlyTemplate(files ...manifest.File) (*manifest.Template, error) {
	var templates []manifest.Template
	var errs []error
	for i := range files {
		for _, document := range files[i].Documents {
			found, err := document.Templates()
			templates = append(templates, found...)
			errs = append(errs, document.Err, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(templates) != 1 {
		return nil, fmt.Errorf("the manifest has %d Pods and workloads, want one", len(templates))
	}
	return &templates[0], nil
}
