package webhook

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/profiles"
)

// maxWorkloadWarnings is how many warnings one workload gets: the API server cuts each once they are too much text together.
const maxWorkloadWarnings = 10

// workloadReview is what is read of an AdmissionReview of a workload.
type workloadReview struct {
	metav1.TypeMeta `json:",inline"`
	Request         *workloadRequest `json:"request"`
}

type workloadRequest struct {
	UID         types.UID                   `json:"uid"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	SubResource string                      `json:"subResource"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	Object      workload                    `json:"object"`
}

// workload is what is read of a workload of any kind.
type workload struct {
	Metadata workloadMeta `json:"metadata"`
	Spec     struct {
		Template    podTemplate `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template podTemplate `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// podTemplate is a Pod template, of which controllers take no more than this.
type podTemplate struct {
	Metadata workloadMeta   `json:"metadata"`
	Spec     corev1.PodSpec `json:"spec"`
}

type workloadMeta struct {
	Name         string            `json:"name"`
	GenerateName string            `json:"generateName"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	Finalizers   []string          `json:"finalizers"`
}

// kind returns the kind of the workload that a request writes, empty if it writes none: that is let pass.
func (r *workloadRequest) kind() string {
	if r.SubResource != "" || (r.Operation != admissionv1.Create && r.Operation != admissionv1.Update) {
		return ""
	}
	return workloadKind(r.Resource)
}

// workloadKind returns the kind of a resource of workloads; empty for others.
func workloadKind(resource metav1.GroupVersionResource) string {
	switch resource.Group + "/" + resource.Version + "/" + resource.Resource {
	case "apps/v1/deployments":
		return "Deployment"
	case "apps/v1/statefulsets":
		return "StatefulSet"
	case "apps/v1/daemonsets":
		return "DaemonSet"
	case "apps/v1/replicasets":
		return "ReplicaSet"
	case "batch/v1/jobs":
		return "Job"
	case "batch/v1/cronjobs":
		return "CronJob"
	default:
		return ""
	}
}

// template returns the Pod template of a workload of a kind, and its path.
func (w *workload) template(kind string) (template *podTemplate, path string) {
	if kind == "CronJob" {
		return &w.Spec.JobTemplate.Spec.Template, "spec.jobTemplate.spec.template"
	}
	return &w.Spec.Template, "spec.template"
}

// decodeWorkload reads the request of the admission review of a workload.
func decodeWorkload(body []byte) (*workloadRequest, error) {
	decoded := workloadReview{}
	if err := unmarshal(body, &decoded); err != nil {
		other, otherErr := decodeReview(body)
		if otherErr != nil {
			return nil, otherErr
		}
		request := &workloadRequest{UID: other.UID, Resource: other.Resource, SubResource: other.SubResource, Operation: other.Operation}
		if kind := request.kind(); kind != "" {
			return nil, faultf(http.StatusBadRequest, "the object of the admission review is not a %s: %s", kind, decodeProblem(err))
		}
		return request, nil
	}
	switch {
	case decoded.APIVersion != admissionv1.SchemeGroupVersion.String() || decoded.Kind != "AdmissionReview":
		return nil, faultf(http.StatusBadRequest, "the body is not an AdmissionReview of admission.k8s.io/v1")
	case decoded.Request == nil:
		return nil, faultf(http.StatusBadRequest, "the admission review has no request")
	case decoded.Request.UID == "":
		return nil, faultf(http.StatusBadRequest, "the request of the admission review has no uid")
	}
	return decoded.Request, nil
}

// answerWorkload answers the review of a workload: always yes, with warnings of what will become of its Pods, for whoever writes it
// never sees what their creation is answered.
func (h *handler) answerWorkload(r *http.Request, body []byte) (*admissionv1.AdmissionResponse, error) {
	request, err := decodeWorkload(body)
	if err != nil {
		return nil, err
	}
	response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	kind := request.kind()
	if kind == "" {
		return response, nil
	}
	if !utf8.Valid(body) {
		response.Warnings = []string{fmt.Sprintf("the manifest of this %s holds bytes that are not UTF-8: its Pods will be refused; "+
			"write it without them", kind)}
		return response, nil
	}
	response.Warnings = h.warnOf(r, request, kind)
	return response, nil
}

// warnOf decides about the Pods of a workload, and returns what whoever writes it is to know: first what they are refused for, then
// what they are warned of, then what is written where nothing reads it. Where memory does not suffice and the API server does not
// answer nothing is said: it might be wrong.
func (h *handler) warnOf(r *http.Request, asked *workloadRequest, kind string) []string {
	template, path := asked.Object.template(kind)
	request := &request{
		UID: asked.UID, Resource: asked.Resource, Namespace: asked.Namespace, Operation: admissionv1.Create,
		UserInfo: profiles.ControllerUser(kind), Object: *asked.podOf(template), // and no dry run: the Pods will be created without
	}
	decision, err := h.decide(asPods(r), request)
	if err != nil {
		h.options.Logger.Warn("workload not decided", "path", r.URL.Path, "kind", kind, "namespace", asked.Namespace,
			"name", asked.Object.Metadata.Name, "error", err.Error())
		return nil
	}
	var warnings, reasons []string
	for _, outcome := range decision.Denying() {
		warnings = append(warnings, fmt.Sprintf("%s (%s): Pods of this %s will be refused", outcome.Message, outcome.Reason, kind))
		reasons = append(reasons, fmt.Sprintf("%s=%s", outcome.Profile, outcome.Reason))
	}
	warnings = append(warnings, decision.Warnings...)
	own := &metav1.ObjectMeta{Labels: asked.Object.Metadata.Labels, Annotations: asked.Object.Metadata.Annotations}
	for _, misplaced := range profiles.Misplaced(own, &request.Object.ObjectMeta, path) {
		warnings = append(warnings, fmt.Sprintf("%s %s: %s", kind, asked.Object.Metadata.shownName(), misplaced))
	}
	if len(warnings) > 0 {
		h.options.Logger.Info("warned", "path", r.URL.Path, "kind", kind, "namespace", asked.Namespace,
			"name", asked.Object.Metadata.Name, "warnings", len(warnings), "refused", strings.Join(reasons, " "))
	}
	return shownWarnings(warnings)
}

// podOf returns the Pod that a controller makes of a template, as far as that is known before: with no more of the template's
// metadata than controllers take, and with a name that begins with the workload's.
func (r *workloadRequest) podOf(template *podTemplate) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: r.Object.Metadata.shownName() + "-", Namespace: r.Namespace,
			Labels: template.Metadata.Labels, Annotations: template.Metadata.Annotations, Finalizers: template.Metadata.Finalizers,
		},
		Spec: template.Spec,
	}
}

// shownName names a workload that may not have its name yet.
func (m *workloadMeta) shownName() string {
	if m.Name != "" {
		return m.Name
	}
	return strings.TrimSuffix(m.GenerateName, "-")
}

// asPods returns the request as if the workload's Pods had been sent: the entry says as much about them.
func asPods(r *http.Request) *http.Request {
	copied := *r
	copied.URL = &url.URL{Path: profiles.PodsPath(r.URL.Path)}
	return &copied
}

// shownWarnings returns warnings as they can be sent in a header, each once, and not too many.
func shownWarnings(warnings []string) []string {
	var shown []string
	for _, warning := range warnings {
		warning = strings.ToValidUTF8(strings.Map(func(c rune) rune {
			if unicode.IsControl(c) { // the API server leaves out a warning that has one
				return ' '
			}
			return c
		}, warning), "\uFFFD")
		if !slices.Contains(shown, warning) {
			shown = append(shown, warning)
		}
	}
	if excess := len(shown) - maxWorkloadWarnings; excess > 0 {
		shown = append(shown[:maxWorkloadWarnings-1], fmt.Sprintf("there are %d more warnings", excess+1))
	}
	return shown
}
