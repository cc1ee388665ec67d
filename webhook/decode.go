package webhook

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// unmarshal decodes what the API server sends as Kubernetes does: names of fields by their case, the last of those that are there twice,
// and what is no UTF-8 replaced. It takes less time than Kubernetes' own decoder, which waits in the way of every Pod.
func unmarshal(body []byte, into any) error {
	return json.Unmarshal(body, into, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// checkReview says what is wrong with a review itself, whatever it is of: with its kind, or with its request, which may be absent.
func checkReview(meta metav1.TypeMeta, uid types.UID, absent bool) error {
	switch {
	case meta.APIVersion != admissionv1.SchemeGroupVersion.String() || meta.Kind != "AdmissionReview":
		return faultf(http.StatusBadRequest, "the body is not an AdmissionReview of admission.k8s.io/v1")
	case absent:
		return faultf(http.StatusBadRequest, "the admission review has no request")
	case uid == "":
		return faultf(http.StatusBadRequest, "the request of the admission review has no uid")
	}
	return nil
}
