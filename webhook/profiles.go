package webhook

import (
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// PathFor returns the path that a review would be sent to by hand: that of profiles for a profile, that of workloads for a
// workload, else that of Pods.
func PathFor(review *admissionv1.AdmissionReview) string {
	switch {
	case review.Request != nil && isProfile(review.Request.Resource):
		return profiles.PathProfiles
	case review.Request != nil && workloadKind(review.Request.Resource) != "":
		return profiles.PathWorkloads + "pods"
	default:
		return PathPods
	}
}

func isProfile(resource metav1.GroupVersionResource) bool {
	return resource.Group == v1alpha1.Group && resource.Version == v1alpha1.GroupVersion.Version &&
		(resource.Resource == "patternprofiles" || resource.Resource == "clusterpatternprofiles")
}

// answerProfile answers the review of a profile that is written: everything that is wrong with it at once, where it stands.
func (h *handler) answerProfile(_ *http.Request, body []byte) (*admissionv1.AdmissionResponse, error) {
	request, err := decodeReview(body)
	if err != nil {
		return nil, err
	}
	response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	written := request.Operation == admissionv1.Create || request.Operation == admissionv1.Update
	if !written || request.SubResource != "" || !isProfile(request.Resource) {
		return response, nil
	}
	object := map[string]any{}
	if err := utiljson.Unmarshal(request.Object.Raw, &object); err != nil {
		return nil, faultf(http.StatusBadRequest, "the object of the admission review is not a profile: %s", decodeProblem(err))
	}
	if !specMatters(request, object) {
		return response, nil
	}
	if !utf8.Valid(body) {
		deny(response, "Pillion refuses this profile: its manifest holds bytes that are not UTF-8; write it without them")
		return response, nil
	}
	name, problems, warnings := h.judge(request, object)
	response.Warnings = warnings
	if len(problems) > 0 {
		kind, _ := object["kind"].(string)
		refusal := apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind(kind).GroupKind(), name, problems)
		response.Allowed, response.Result = false, &refusal.ErrStatus
	}
	h.options.Logger.Info("reviewed", "kind", object["kind"], "namespace", request.Namespace, "name", name,
		"allowed", response.Allowed, "problems", len(problems))
	return response, nil
}

// judge says what is wrong with a profile, and what is only suspicious.
func (h *handler) judge(
	request *admissionv1.AdmissionRequest, object map[string]any,
) (name string, problems field.ErrorList, warnings []string) {
	meta := unstructured.Unstructured{Object: object}
	if meta.GetNamespace() == "" && request.Namespace != "" {
		_ = unstructured.SetNestedField(object, request.Namespace, "metadata", "namespace") // a metadata that is none is a problem
	}
	delete(object, "status") // the last good spec would stand in for this one
	profile, ok := h.options.Compiler.Object(object)
	if !ok {
		return meta.GetName(), nil, nil
	}
	problems, warnings = h.cluster.Snapshot().Review(profile)
	slices.SortStableFunc(problems, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
	return profile.Name, problems, warnings
}

// specMatters tells whether the spec of a profile is to be judged: not where the profile is on its way out, or where it stays as
// it was, so that metadata and finalizers can be written whatever the spec is by today's rules.
func specMatters(request *admissionv1.AdmissionRequest, object map[string]any) bool {
	metadata, _ := object["metadata"].(map[string]any)
	if metadata["deletionTimestamp"] != nil {
		return false
	}
	if request.Operation == admissionv1.Create {
		return true
	}
	old := map[string]any{}
	if err := utiljson.Unmarshal(request.OldObject.Raw, &old); err != nil {
		return true
	}
	return !equality.Semantic.DeepEqual(old["spec"], object["spec"])
}

// decodeReview reads the request of an admission review whose object is left as it is.
func decodeReview(body []byte) (*admissionv1.AdmissionRequest, error) {
	review := admissionv1.AdmissionReview{}
	err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review)
	if err != nil {
		return nil, faultf(http.StatusBadRequest, "the body is not an admission review: %s", decodeProblem(err))
	}
	if review.Request == nil {
		return nil, checkReview(review.TypeMeta, "", true)
	}
	return review.Request, checkReview(review.TypeMeta, review.Request.UID, false)
}
