package webhook

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
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
			Metadata workloadMeta `json:"metadata"`
			Spec     struct {
				Template podTemplate `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
		// VolumeClaimTemplates are of StatefulSets.
		VolumeClaimTemplates []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		} `json:"volumeClaimTemplates"`
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
	if decoded.Request == nil {
		return nil, checkReview(decoded.TypeMeta, "", true)
	}
	return decoded.Request, checkReview(decoded.TypeMeta, decoded.Request.UID, false)
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
	response.Warnings, err = h.warnOf(r, request, kind)
	return response, err
}

// warnOf decides about the Pods of a workload, and returns what whoever writes it is to know: first what they are refused for, then
// what they are warned of, then what is written where nothing reads it. Where memory does not suffice and the API server does not
// answer it is a fault, which lets the workload pass: what would be said might be wrong.
func (h *handler) warnOf(r *http.Request, asked *workloadRequest, kind string) ([]string, error) {
	template, path := asked.Object.template(kind)
	request := &request{
		UID: asked.UID, Resource: asked.Resource, Namespace: asked.Namespace, Operation: admissionv1.Create,
		UserInfo: profiles.ControllerUser(kind), Object: *asked.podOf(template), // and no dry run: the Pods will be created without
		claimVolumes: asked.Object.claimVolumes(kind),
	}
	decision, err := h.decide(asPods(r), request)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, asked.Object.Metadata.Name, err)
	}
	// Each names the workload: kubectl shows equal ones once, however many workloads it applies.
	who := strings.TrimSpace(kind + " " + asked.Object.Metadata.shortName())
	var warnings []string
	for _, outcome := range decision.Denying() {
		warnings = append(warnings, fmt.Sprintf("%s (%s): Pods of %s will be refused", outcome.Message, outcome.Reason, who))
	}
	for _, warning := range slices.Concat(decision.Warnings, asked.Object.misplaced(kind, &request.Object.ObjectMeta, path)) {
		warnings = append(warnings, fmt.Sprintf("%s: %s", who, warning))
	}
	if len(warnings) > 0 {
		h.options.Logger.Info("warned", "path", r.URL.Path, "kind", kind, "namespace", asked.Namespace,
			"name", asked.Object.Metadata.Name, "warnings", len(warnings), "outcomes", logged(toldOf(&decision, h.cluster.Snapshot())))
	}
	return firstWarnings(warnings), nil
}

// misplaced returns what is written where nothing reads it.
func (w *workload) misplaced(kind string, pod *metav1.ObjectMeta, path string) []string {
	own := &metav1.ObjectMeta{Labels: w.Metadata.Labels, Annotations: w.Metadata.Annotations}
	var job *metav1.ObjectMeta
	if of := &w.Spec.JobTemplate.Metadata; kind == "CronJob" {
		job = &metav1.ObjectMeta{Labels: of.Labels, Annotations: of.Annotations}
	}
	return profiles.Misplaced(own, job, pod, path)
}

// claimVolumes returns the names of the volumes that the controller of a StatefulSet adds to its Pods.
func (w *workload) claimVolumes(kind string) (names []string) {
	if kind != "StatefulSet" {
		return nil
	}
	for i := range w.Spec.VolumeClaimTemplates {
		names = append(names, w.Spec.VolumeClaimTemplates[i].Metadata.Name)
	}
	return names
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

// shortName is shownName where little room may be: of much text the API server sends the first 256 characters of each warning.
func (m *workloadMeta) shortName() string {
	const most = 63
	name := m.shownName()
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}

// asPods returns the request as if the workload's Pods had been sent: the entry says as much about them.
func asPods(r *http.Request) *http.Request {
	copied := *r
	copied.URL = &url.URL{Path: profiles.PodsPath(r.URL.Path)}
	return &copied
}

// firstWarnings returns warnings, each once, and not too many.
func firstWarnings(warnings []string) []string {
	var first []string
	for _, warning := range warnings {
		if !slices.Contains(first, warning) {
			first = append(first, warning)
		}
	}
	if excess := len(first) - maxWorkloadWarnings; excess > 0 {
		first = append(first[:maxWorkloadWarnings-1], fmt.Sprintf("there are %d more warnings", excess+1))
	}
	return first
}
