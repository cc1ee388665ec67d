package admissiontest_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/admissiontest"
)

func askingFor(namespace, names string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "shop-", Namespace: namespace, Annotations: map[string]string{v1alpha1.InjectKey: names},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}},
	}
}

func cacheProfile() *v1alpha1.ClusterPatternProfile {
	return &v1alpha1.ClusterPatternProfile{
		ObjectMeta: metav1.ObjectMeta{Name: "typed-cache"},
		Spec: v1alpha1.ClusterPatternProfileSpec{
			ProfileSpec: v1alpha1.ProfileSpec{Pattern: v1alpha1.Pattern{CacheAmbassador: &v1alpha1.CacheAmbassador{
				Protocol: "Memcached", Local: &v1alpha1.LocalCache{},
			}}},
			AllowedNamespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}},
		},
	}
}

func TestANamespaceSetsAParameter(t *testing.T) {
	for name, option := range map[string]admissiontest.Option{
		"as an object": admissiontest.WithNamespaces(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "web", Annotations: map[string]string{"site.pillion.dev/ref": "prod"},
		}}),
		"in YAML": admissiontest.WithYAML(`{apiVersion: v1, kind: Namespace, metadata: {name: web, annotations: {site.pillion.dev/ref: prod}}}`),
	} {
		t.Run(name, func(t *testing.T) {
			webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/profiles"), option))
			result := admissiontest.Must(webhook.Create(askingFor("web", "site")))
			if result.Denied || !slices.Contains(result.Pod.Spec.InitContainers[0].Args, "--ref=prod") {
				t.Errorf("%s\n%s", result.Message, result.Raw)
			}
		})
	}
}

func TestCreate(t *testing.T) {
	unasked := askingFor("web", "")
	unasked.Annotations = nil
	web := admissiontest.WithNamespace("web", map[string]string{"team": "web"})
	files := admissiontest.WithProfilesFrom("testdata/profiles")
	tests := map[string]struct {
		options     []admissiontest.Option
		pod         *corev1.Pod
		want        []string // containers
		wantDenial  string
		wantWarning string
	}{
		"a Pod that asks for a profile of a file": {
			options: []admissiontest.Option{files},
			pod:     askingFor("", "site"),
			want:    []string{"pillion-site"},
		},
		"a Pod that asks for two": {
			options: []admissiontest.Option{files, web, admissiontest.WithProfiles(cacheProfile())},
			pod:     askingFor("web", "typed-cache, site"),
			want:    []string{"pillion-site", "pillion-typed-cache"},
		},
		"a Pod in a namespace whose label asks": {
			options: []admissiontest.Option{files, admissiontest.WithNamespace("web", map[string]string{v1alpha1.InjectKey: "site"})},
			pod:     unasked,
			want:    []string{"pillion-site"},
		},
		"a Pod in a namespace whose label asks, in a file": {
			options: []admissiontest.Option{files},
			pod:     func() *corev1.Pod { p := unasked.DeepCopy(); p.Namespace = "labeled"; return p }(),
			want:    []string{"pillion-site"},
		},
		"a namespace that is given is ahead of that of a file": {
			options: []admissiontest.Option{files, admissiontest.WithNamespace("labeled", nil)},
			pod:     func() *corev1.Pod { p := unasked.DeepCopy(); p.Namespace = "labeled"; return p }(),
		},
		"a namespace that sets a field to what is not allowed": {
			options: []admissiontest.Option{files, admissiontest.WithNamespaces(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: "web", Annotations: map[string]string{"site.pillion.dev/repo": "https://git.example.com/other.git"},
			}})},
			pod: askingFor("web", "site"),
			wantDenial: "Pillion refuses this Pod: annotation site.pillion.dev/repo of namespace web: profile site does not let Pods change repo; " +
				"it allows ref. Remove the annotation, or ask whoever owns the profile to list the field in spec.overridable (FieldNotOverridable)",
		},
		"a Pod that asks for nothing": {
			options: []admissiontest.Option{files, web},
			pod:     unasked,
		},
		"a Pod that may not use the profile": {
			options:    []admissiontest.Option{admissiontest.WithProfiles(cacheProfile())},
			pod:        askingFor("other", "typed-cache"),
			wantDenial: "Pillion refuses this Pod: profile typed-cache is not available in namespace other (ProfileNotAvailable)",
		},
		"an override of what is not asked for": {
			options: []admissiontest.Option{files},
			pod: func() *corev1.Pod {
				p := askingFor("web", "none")
				p.Annotations["site.pillion.dev/ref"] = "v2"
				return p
			}(),
			wantWarning: "annotation site.pillion.dev/ref has no effect: profile site is not applied to this Pod",
		},
		"a namespace that the installation excludes": {
			options: []admissiontest.Option{files},
			pod:     askingFor("kube-system", "site"),
		},
		"settings of another installation": {
			options: []admissiontest.Option{files, admissiontest.WithOptions(profiles.Options{Images: injectors.DefaultImages("")})},
			pod:     askingFor("kube-system", "site"),
			want:    []string{"pillion-site"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			webhook := admissiontest.Must(admissiontest.New(test.options...))
			before := test.pod.DeepCopy()
			result := admissiontest.Must(webhook.Create(test.pod))
			if diff := cmp.Diff(test.want, result.Injected()); diff != "" {
				t.Errorf("containers (-want +got):\n%s", diff)
			}
			if result.Message != test.wantDenial || result.Denied != (test.wantDenial != "") || (result.Pod == nil) != result.Denied {
				t.Errorf("denied %t: %q, want %q", result.Denied, result.Message, test.wantDenial)
			}
			if got := strings.Join(result.Warnings, "\n"); got != test.wantWarning {
				t.Errorf("warnings %q, want %q", got, test.wantWarning)
			}
			if (len(result.Patch) > 0) != (len(test.want) > 0) {
				t.Errorf("patch: %s", result.Patch)
			}
			if diff := cmp.Diff(before, test.pod); diff != "" {
				t.Errorf("the Pod was changed (-before +after):\n%s", diff)
			}
			if result.Pod != nil {
				again := admissiontest.Must(webhook.Create(result.Pod))
				if again.Patch != nil {
					t.Errorf("the webhook, called again, adds: %s", again.Patch)
				}
			}
		})
	}
}

func TestCreateYAML(t *testing.T) {
	webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/profiles")))
	tests := map[string]struct {
		text    string
		want    []string
		wantErr string
	}{
		"a workload among other objects": {
			text: `apiVersion: v1
kind: Service
---
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    metadata: {annotations: {pillion.dev/inject: site}}
    spec: {containers: [{name: app, fieldOfTomorrow: 1}]}
`,
			want: []string{"pillion-site"},
		},
		"a workload in a namespace, whose template has no metadata": {
			text: "{apiVersion: batch/v1, kind: Job, metadata: {namespace: labeled}, spec: {template: " +
				"{spec: {containers: [{name: app}]}}}}",
			want: []string{"pillion-site"},
		},
		"no workload": {
			text:    "kind: Service\n",
			wantErr: "the manifest has 0 Pods and workloads, want one",
		},
		"two workloads": {
			text:    "{apiVersion: v1, kind: Pod, spec: {}}\n---\n{apiVersion: v1, kind: Pod, spec: {}}\n",
			wantErr: "the manifest has 2 Pods and workloads, want one",
		},
		"what is no manifest": {
			text:    "hello",
			wantErr: "manifest:1:1: this is no Kubernetes object: write a mapping with apiVersion and kind",
		},
		"a Pod that the handler cannot decode": {
			text:    "{apiVersion: v1, kind: Pod, spec: {containers: 1}}",
			wantErr: "the webhook answers HTTP 400: the body is not an admission review of a Pod",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			result, err := webhook.CreateYAML(test.text)
			if (err == nil) != (test.wantErr == "") || (err != nil && !strings.HasPrefix(err.Error(), test.wantErr)) {
				t.Fatalf("error %v, want %q", err, test.wantErr)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(test.want, result.Injected()); diff != "" {
				t.Errorf("containers (-want +got):\n%s", diff)
			}
			if strings.Contains(test.text, "Tomorrow") && !strings.Contains(string(result.Raw), `"fieldOfTomorrow":1`) {
				t.Errorf("a field that is not known is gone: %s", result.Raw)
			}
		})
	}
}

func TestCreateFile(t *testing.T) {
	webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/profiles")))
	result := admissiontest.Must(webhook.CreateFile("testdata/deployment.yaml"))
	if container := result.Container("pillion-site"); container == nil {
		t.Error("pillion-site is missing")
	}
	if container := result.Container("app"); container == nil || len(container.VolumeMounts) != 1 {
		t.Errorf("the app: %+v", container)
	}
	if _, err := webhook.CreateFile("testdata/missing.yaml"); err == nil {
		t.Error("a file that is not there is no error")
	}
}

func TestNewTellsAllThatIsWrong(t *testing.T) {
	_, err := admissiontest.New(
		admissiontest.WithProfilesFrom("testdata/missing"),
		admissiontest.WithYAML("apiVersion: pillion.dev/v1alpha1\nkind: ClusterPatternProfile\nmetadata: {name: x}\nspec: {}\n"),
		admissiontest.WithYAML("a: [\n"),
	)
	for _, want := range []string{
		"testdata/missing: no such file or directory", "text 1:4:1: ClusterPatternProfile x: ", "text 2:",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestReview(t *testing.T) {
	webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/profiles")))
	pod := []byte(`{"metadata": {"annotations": {"pillion.dev/inject": "site"}}, "spec": {"containers": [{"name": "app"}]}}`)
	review := admissiontest.NewReview("", pod)
	if response := admissiontest.Must(webhook.Review(review)); !response.Allowed || response.Patch == nil {
		t.Errorf("a create: %+v", response)
	}
	review.Request.Operation = admissionv1.Update
	if response := admissiontest.Must(webhook.Review(review)); !response.Allowed || response.Patch != nil {
		t.Errorf("an update: %+v", response)
	}
	review.Request.UID = ""
	if _, err := webhook.Review(review); err == nil || !strings.Contains(err.Error(), "HTTP 400") {
		t.Errorf("a review without a uid: %v", err)
	}
}

func TestReviewOfAProfile(t *testing.T) {
	webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/profiles")))
	review := admissiontest.NewReview("", []byte(`{"apiVersion": "pillion.dev/v1alpha1", "kind": "PatternProfile", "metadata": {"name": "a"},
		"spec": {"gitSync": {"repo": "https://git.example.com/site.git", "mountPath": "/srv"}, "overridable": ["nosuch"]}}`))
	review.Request.Resource = metav1.GroupVersionResource{Group: "pillion.dev", Version: "v1alpha1", Resource: "patternprofiles"}
	response := admissiontest.Must(webhook.Review(review))
	if response.Allowed || !strings.Contains(response.Result.Message, "spec.overridable[0]") {
		t.Errorf("response %+v, want a refusal of spec.overridable[0]", response)
	}
}

func TestServeHTTP(t *testing.T) {
	webhook := admissiontest.Must(admissiontest.New())
	recorder := httptest.NewRecorder()
	webhook.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/inject/pods", http.NoBody))
	if recorder.Code != http.StatusMethodNotAllowed {
		t.Errorf("a GET: HTTP %d", recorder.Code)
	}
}

func TestMustPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/missing")))
}
