package webhook

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
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
		expectSame[review](t, body)
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

// FuzzDecode decodes any bytes by both decoders: as the review of a Pod, as that of a workload, and as a Pod. Keys that are there twice,
// which the API server never sends, are theirs to read as they like: a null or a list behind a value is not merged with it here.
func FuzzDecode(f *testing.F) {
	const pod = `{"metadata":{"name":"a","labels":{"a":"b"},"creationTimestamp":null,"managedFields":[{"fieldsV1":{"f:a":{}}}]},` +
		`"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":1,"memory":"1Gi"}},"ports":[{"containerPort":80}],` +
		`"livenessProbe":{"httpGet":{"port":"web"}}},null],"volumes":[{"emptyDir":{}}],"activeDeadlineSeconds":1.0,"os":null}}`
	const inReview = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE",` +
		`"resource":{"version":"v1","resource":"pods"},"userInfo":{"extra":{"a":["b"]}},"dryRun":true,"oldObject":null,"object":`
	for _, seed := range []string{
		pod, inReview + pod + "}}", inReview + `{"spec":{"template":` + pod + "}}}}", inReview + `{"spec":{"jobTemplate":{"spec":{"template":` + pod + "}}}}}}",
		"null", "[]", `{"a":"\ud800","b":1e400}`, `{"metadata":{"name":"` + "\xff" + `"}}`, strings.Repeat(`{"a":`, 10001),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		expectSame[review](t, body)
		expectSame[workloadReview](t, body)
		expectSame[corev1.Pod](t, body)
	})
}

func expectSame[T any](t interface {
	Helper()
	Fatalf(format string, args ...any)
}, body []byte,
) {
	t.Helper()
	var decoded, wanted T
	strict, wantedErr := kjson.UnmarshalStrict(body, &wanted)
	if slices.ContainsFunc(strict, func(err error) bool { return strings.Contains(err.Error(), "duplicate field") }) {
		return
	}
	err := unmarshal(body, &decoded)
	if (err != nil) != (wantedErr != nil) {
		t.Fatalf("%T: want error %v, got %v", wanted, wantedErr, err)
	}
	if err == nil && !reflect.DeepEqual(wanted, decoded) {
		t.Fatalf("want %+v\ngot  %+v", wanted, decoded)
	}
}
