package webhook

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/test/gen"
)

// The API server and all that is offline decode by sigs.k8s.io/json. What is absent, null or empty must be so here, too, or a patch
// would not fit.
func TestDecodingIsThatOfKubernetes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body, err := json.Marshal(&admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
			Request:  &admissionv1.AdmissionRequest{UID: "a", Object: runtime.RawExtension{Raw: []byte(gen.Cases().Draw(t, "case").Pod)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		decoded, wanted := review{}, review{}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &wanted); err != nil {
			t.Fatal(err)
		}
		if err := unmarshal(body, &decoded); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, decoded); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWhatIsNoPodIsNoPodForBothDecoders(t *testing.T) {
	for name, pod := range map[string]string{
		"null":                          `null`,
		"nulls":                         `{"metadata":null,"spec":{"containers":null,"volumes":null,"nodeSelector":null,"os":null}}`,
		"empty":                         `{"metadata":{"labels":{}},"spec":{"containers":[],"volumes":[],"nodeSelector":{}}}`,
		"a container that is null":      `{"spec":{"containers":[null]}}`,
		"keys in other cases":           `{"Metadata":{"name":"a"},"spec":{"Containers":[{}]}}`,
		"a port as text":                `{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}`,
		"a port with a fraction":        `{"spec":{"containers":[{"ports":[{"containerPort":80.5}]}]}}`,
		"a port that is too large":      `{"spec":{"containers":[{"ports":[{"containerPort":99999999999}]}]}}`,
		"a number for text":             `{"spec":{"containers":[{"name":1}]}}`,
		"a list for an object":          `{"spec":[]}`,
		"a quantity as a number":        `{"spec":{"containers":[{"resources":{"limits":{"cpu":1}}}]}}`,
		"a quantity that is none":       `{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}`,
		"a quantity that is null":       `{"spec":{"containers":[{"resources":{"limits":{"cpu":null}}}]}}`,
		"a time that is null":           `{"metadata":{"creationTimestamp":null}}`,
		"a time that is none":           `{"metadata":{"creationTimestamp":"x"}}`,
		"a port of a probe as text":     `{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":"web"}}}]}}`,
		"half a surrogate":              `{"metadata":{"name":"\ud800"}}`,
		"fields that nobody knows":      `{"spec":{"future":{"a":[1,2.5,{"b":null}]},"containers":[{"future":1}]}}`,
		"the same key twice":            `{"metadata":{"name":"a","name":"b"},"spec":{"os":{"name":"linux"},"os":{}}}`,
		"managed fields, and a comment": `{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}}}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			decoded, wanted := corev1.Pod{}, corev1.Pod{}
			wantedErr, err := kjson.UnmarshalCaseSensitivePreserveInts([]byte(pod), &wanted), unmarshal([]byte(pod), &decoded)
			if (err != nil) != (wantedErr != nil) {
				t.Fatalf("want error %v, got %v", wantedErr, err)
			}
			if diff := cmp.Diff(wanted, decoded); diff != "" && err == nil {
				t.Error(diff)
			}
		})
	}
}
