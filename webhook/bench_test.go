package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// BenchmarkHandler is the whole handler, the bytes of a review to the bytes of its answer, with 1,000 profiles and namespaces.
func BenchmarkHandler(b *testing.B) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		b.Fatal(err)
	}
	compiled := make([]*profiles.Profile, 1000)
	namespaces := map[string]profiles.Namespace{}
	for i := range compiled {
		profile := &v1alpha1.ClusterPatternProfile{}
		profile.Name = fmt.Sprintf("profile-%d", i)
		profile.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPatternProfile"}
		profile.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
		compiled[i] = compiler.Cluster(profile)
		namespaces[fmt.Sprintf("ns-%d", i)] = profiles.Namespace{Labels: map[string]string{"team": "web"}}
	}
	handler := webhook.NewHandler(webhook.Static{
		Profiles:   profiles.NewSnapshot(profiles.Options{Images: injectors.DefaultImages("")}, compiled),
		Namespaces: namespaces,
	}, webhook.Options{})
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","annotations":{"pillion.dev/inject":"profile-500"}},
		"spec":{"containers":[{"name":"web","image":"nginx:1.29","ports":[{"containerPort":8080}]},
		{"name":"log","image":"busybox:1.37"},{"name":"api","image":"api:3","env":[{"name":"A","value":"1"}]}]}}`
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Namespace: "ns-500", Operation: admissionv1.Create,
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: []byte(pod)},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		request := httptest.NewRequest(http.MethodPost, webhook.PathPods, bytes.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		if response.Code != http.StatusOK || !bytes.Contains(response.Body.Bytes(), []byte(`"patch"`)) {
			b.Fatal(response.Code, response.Body.String())
		}
	}
}
