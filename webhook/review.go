package webhook

import (
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
)

// review is what is read of an AdmissionReview of admission.k8s.io/v1. The object is decoded at once: only Pods are sent here.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`
}

type request struct {
	UID         types.UID                   `json:"uid"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	SubResource string                      `json:"subResource"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	UserInfo    authenticationv1.UserInfo   `json:"userInfo"`
	Object      corev1.Pod                  `json:"object"`
	DryRun      bool                        `json:"dryRun"`

	// claimVolumes are profiles.Request's: of Pods that are there only in a workload's template.
	claimVolumes []string
}

// decode reads the request of an admission review.
func decode(body []byte) (*request, error) {
	decoded := review{}
	if err := unmarshal(body, &decoded); err != nil {
		if other, ok := decodeOther(body); ok {
			return other, nil
		}
		return nil, faultf(http.StatusBadRequest, "the body is not an admission review of a Pod: %s", decodeProblem(err))
	}
	if decoded.Request == nil {
		return nil, checkReview(decoded.TypeMeta, "", true)
	}
	return decoded.Request, checkReview(decoded.TypeMeta, decoded.Request.UID, false)
}

// decodeOther reads a review of something that does not decode as a Pod and need not: it is let pass.
func decodeOther(body []byte) (*request, bool) {
	review := admissionv1.AdmissionReview{}
	err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review)
	if err != nil || review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Request == nil || review.Request.UID == "" {
		return nil, false
	}
	other := &request{
		UID: review.Request.UID, Resource: review.Request.Resource, SubResource: review.Request.SubResource,
		Operation: review.Request.Operation,
	}
	return other, !createsPod(other)
}
