package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/profiles"
)

// memory returns a Cluster that is connected to nothing.
func memory(t *testing.T) *informed {
	t.Helper()
	c, err := newMemory(profiles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func site(uid types.UID, generation int64) *v1alpha1.ClusterPatternProfile {
	profile := &v1alpha1.ClusterPatternProfile{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPatternProfile"},
		ObjectMeta: metav1.ObjectMeta{Name: "site", UID: uid, Generation: generation},
	}
	profile.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
	return profile
}

// kept passes a profile through what the informers do with it.
func kept(t *testing.T, c *informed, object any) *compiledProfile {
	t.Helper()
	transformed, err := c.keep(object)
	if err != nil {
		t.Fatal(err)
	}
	compiled, ok := transformed.(*compiledProfile)
	if !ok {
		t.Fatalf("kept as %T", transformed)
	}
	c.put(compiled)
	return compiled
}

func TestProfilesAreKeptCompiled(t *testing.T) {
	c := memory(t)
	first := kept(t, c, site("a", 1))
	if kept(t, c, first) != first {
		t.Error("what is kept already is transformed again")
	}
	if key, err := toolscache.MetaNamespaceKeyFunc(first); err != nil || key != "site" {
		t.Errorf("the informer's key is %q, %v", key, err)
	}
	if kept(t, c, site("a", 1)).profile != first.profile {
		t.Error("a profile of which only the status has changed is compiled again")
	}
	if kept(t, c, site("a", 2)).profile == first.profile {
		t.Error("a profile of which the spec has changed is not compiled again")
	}
	if again := kept(t, c, site("b", 1)); again.profile == first.profile {
		t.Error("a profile that was deleted and made anew is not compiled again")
	}
	c.rebuild()
	if n := c.Snapshot().Len(); n != 1 {
		t.Errorf("the Snapshot has %d profiles, want 1", n)
	}
}

func TestWhatIsDeletedIsForgotten(t *testing.T) {
	tests := map[string]func(object any) any{
		"seen to be deleted":       func(object any) any { return object },
		"deleted while it was out": func(object any) any { return toolscache.DeletedFinalStateUnknown{Key: "site", Obj: object} },
	}
	for name, deleted := range tests {
		t.Run(name, func(t *testing.T) {
			c := memory(t)
			compiled := kept(t, c, site("a", 1))
			namespace := namespaceObject()
			namespace.Name, namespace.Labels = "web", map[string]string{"team": "web"}
			c.put(namespace)
			if known, ok := c.Namespace("web"); !ok || known.Labels["team"] != "web" {
				t.Fatalf("namespace web: %v, %t", known, ok)
			}

			c.remove(deleted(compiled))
			c.remove(deleted(namespace))
			c.rebuild()
			if n := c.Snapshot().Len(); n != 0 {
				t.Errorf("the Snapshot has %d profiles, want none", n)
			}
			if _, ok := c.Namespace("web"); ok {
				t.Error("the namespace is known still")
			}
		})
	}
}

// apiServer is a client that has a namespace and the profiles it is given, and counts what it is asked.
type apiServer struct {
	profiles []*v1alpha1.ClusterPatternProfile
	asked    int
}

func (s *apiServer) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	s.asked++
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		object.Name, object.Labels = key.Name, map[string]string{"team": "web"}
		object.Annotations = map[string]string{"owner": "jane", corev1.LastAppliedConfigAnnotation: "{}"}
		return nil
	case *v1alpha1.ClusterPatternProfile:
		for _, profile := range s.profiles {
			if profile.Name == key.Name {
				profile.DeepCopyInto(object)
				return nil
			}
		}
	}
	return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("patternprofiles").GroupResource(), key.Name)
}

func (s *apiServer) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	s.asked++
	if list, ok := list.(*v1alpha1.ClusterPatternProfileList); ok {
		for _, profile := range s.profiles {
			list.Items = append(list.Items, *profile.DeepCopy())
		}
	}
	return nil
}

func TestWhatIsAskedForInVainIsRememberedBriefly(t *testing.T) {
	forOthers := site("a", 1)
	forOthers.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "others"}}
	tests := map[string]*apiServer{
		"a profile that does not exist":     {},
		"a profile that is for others only": {profiles: []*v1alpha1.ClusterPatternProfile{forOthers}},
	}
	for name, server := range tests {
		t.Run(name, func(t *testing.T) {
			c := memory(t)
			c.live = server
			namespace := namespaceObject()
			namespace.Name = "web"
			c.put(namespace)
			ask := func() {
				if _, _, err := c.Live(t.Context(), "web", []string{"site"}, false); err != nil {
					t.Fatal(err)
				}
			}
			ask()
			once := server.asked
			if once == 0 {
				t.Fatal("the API server was not asked at all")
			}
			ask()
			if server.asked != once {
				t.Errorf("asked %d times, and then %d more", once, server.asked-once)
			}
		})
	}
}

func TestPolicyIsReadWithoutCompilingWhatMemoryHas(t *testing.T) {
	c := memory(t)
	known := kept(t, c, site("a", 1))
	other := site("b", 1)
	other.Name = "other"
	c.live = &apiServer{profiles: []*v1alpha1.ClusterPatternProfile{site("a", 1), other}}
	namespace, read, err := c.Live(t.Context(), "web", nil, true)
	if err != nil || namespace.Labels["team"] != "web" || len(read) != 2 {
		t.Fatalf("read %v, %d profiles, %v", namespace, len(read), err)
	}
	if read[0] != known.profile || read[1].Name != "other" {
		t.Errorf("read %v, want what memory has and the other", read)
	}
}

func TestACertificateThatDoesNotVerifyIsCounted(t *testing.T) {
	c := memory(t)
	ca, leaf := newAuthority(t, "127.0.0.1")
	presented := &certificate{}
	metrics := NewMetrics(c.Snapshot, presented)
	refused, untrusted := errors.New("expired"), errors.New("a caBundle is another")
	for _, step := range []struct {
		choice certs.Choice
		offer  certs.Pair
		want   string
	}{
		{choice: certs.Choice{Refused: refused, Untrusted: certs.ErrNoCertificate}, want: "faulty 1, trusted 0"},
		{offer: leaf, want: "faulty 0, trusted 1"},
		{choice: certs.Choice{Refused: refused}, want: "faulty 1, trusted 1"},
		{choice: certs.Choice{Untrusted: untrusted}, want: "faulty 0, trusted 0"},
		{want: "faulty 0, trusted 1"},
	} {
		if len(step.offer.Key) > 0 {
			presented.Choose(step.offer, ca.Certificate, nil, time.Now())
		}
		presented.note(slog.New(slog.DiscardHandler), step.choice)
		got := []string{"faulty 0", "trusted 0"}
		for i, metric := range []string{"pillion_certificate_faulty", "pillion_certificate_trusted"} {
			if strings.Contains((&counted{metrics: metrics}).scrape(), metric+" 1\n") {
				got[i] = strings.Replace(got[i], "0", "1", 1)
			}
		}
		if strings.Join(got, ", ") != step.want {
			t.Errorf("after %+v: %s, want %s", step.choice, got, step.want)
		}
	}
}

func TestAProfileIsCompiledAnewWhereWhatItDependsOnHasChanged(t *testing.T) {
	lastGood := func(generation int64) *v1alpha1.LastGood {
		spec := `{"gitSync":{"repo":"https://git.example.com/old.git","mountPath":"/srv/site"}}`
		return &v1alpha1.LastGood{Generation: generation, Spec: apiextensionsv1.JSON{Raw: []byte(spec)}}
	}
	tests := map[string]struct {
		change func(profile *v1alpha1.ClusterPatternProfile)
		// want says that what is compiled is another profile, wantAnew that its spec is compiled again.
		want, wantAnew bool
	}{
		"conditions and counts": {
			change: func(profile *v1alpha1.ClusterPatternProfile) {
				profile.Status.Conditions = []metav1.Condition{{Type: "Ready"}}
				profile.Status.Pods = &v1alpha1.PodCounts{Current: 1}
			},
		},
		"labels and finalizers": {
			change: func(profile *v1alpha1.ClusterPatternProfile) {
				profile.Labels, profile.Finalizers = map[string]string{"a": "b"}, []string{"a.example.com/b"}
			},
		},
		"the spec":             {change: func(profile *v1alpha1.ClusterPatternProfile) { profile.Generation = 2 }, want: true, wantAnew: true},
		"the object":           {change: func(profile *v1alpha1.ClusterPatternProfile) { profile.UID = "b" }, want: true, wantAnew: true},
		"a last good revision": {change: func(profile *v1alpha1.ClusterPatternProfile) { profile.Status.LastGood = lastGood(1) }, want: true},
		"the controller has seen the spec": {
			change: func(profile *v1alpha1.ClusterPatternProfile) { profile.Status.ObservedGeneration = 1 }, want: true,
		},
		"it is being deleted": {
			change: func(profile *v1alpha1.ClusterPatternProfile) { profile.DeletionTimestamp = &metav1.Time{} }, want: true,
		},
		"it is released": {
			change: func(profile *v1alpha1.ClusterPatternProfile) {
				profile.Annotations = map[string]string{v1alpha1.ReleaseKey: "true"}
			},
			want: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := memory(t)
			before := kept(t, c, site("a", 1))
			changed := site("a", 1)
			test.change(changed)
			after := kept(t, c, changed)
			if other := after.profile != before.profile; other != test.want {
				t.Errorf("another profile: %t, want %t", other, test.want)
			}
			if anew := after.profile.Pattern != before.profile.Pattern; anew != test.wantAnew {
				t.Errorf("the spec is compiled anew: %t, want %t", anew, test.wantAnew)
			}
		})
	}
}

func TestWhatMemoryHasServesUntilTheControllerTellsTheLastGoodRevision(t *testing.T) {
	broken := func(observed int64) *v1alpha1.ClusterPatternProfile {
		profile := site("a", 2)
		profile.Spec.GitSync = nil
		profile.Status.ObservedGeneration = observed
		return profile
	}
	c := memory(t)
	good := kept(t, c, site("a", 1)).profile
	served := kept(t, c, broken(1)).profile
	if len(served.Problems) > 0 || len(served.Broken) == 0 || served.Revision != good.Revision {
		t.Errorf("a spec that cannot be used took the place of the one in memory: %v", served.Problems)
	}
	if again := kept(t, c, broken(1)).profile; again != served {
		t.Error("the profile is compiled again though nothing has changed")
	}
	if settled := kept(t, c, broken(2)).profile; len(settled.Problems) == 0 {
		t.Error("the one in memory serves on after the controller has decided that there is no last good one")
	}
	other := broken(1)
	other.UID = "b"
	if another := kept(t, c, other).profile; len(another.Problems) == 0 {
		t.Error("a profile that was made anew is served by the one that was deleted")
	}
}

func TestNamespacesKeepTheirAnnotationsButNoManifest(t *testing.T) {
	want := profiles.Namespace{Name: "web", Labels: map[string]string{"team": "web"}, Annotations: map[string]string{"owner": "jane"}}
	c := memory(t)
	server := &apiServer{}
	c.live = server
	namespace := namespaceObject()
	if err := server.Get(t.Context(), client.ObjectKey{Name: "web"}, namespace); err != nil {
		t.Fatal(err)
	}
	transformed, err := c.keep(namespace)
	if err != nil {
		t.Fatal(err)
	}
	c.put(transformed)
	known, _ := c.Namespace("web")
	if diff := cmp.Diff(want, known); diff != "" {
		t.Errorf("in memory (-want +got):\n%s", diff)
	}
	live, _, err := c.Live(t.Context(), "web", nil, true)
	if diff := cmp.Diff(want, live); diff != "" || err != nil {
		t.Errorf("live: %v (-want +got):\n%s", err, diff)
	}
}

func TestRequestsAreCountedByEndpointAndResult(t *testing.T) {
	c := memory(t)
	c.put(namespaceObject())
	metrics := NewMetrics(c.Snapshot, &certificate{})
	handler := NewHandler(c, Options{Metrics: metrics, Compiler: c.compiler})
	review := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"DELETE"}}`
	for _, path := range []string{profiles.PathPods, profiles.PathVerify + "0123abcd", profiles.PathProfiles} {
		for _, body := range []string{review, "{"} {
			request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			request.Header.Set("Content-Type", "application/json")
			handler.ServeHTTP(httptest.NewRecorder(), request)
		}
	}
	recorder := httptest.NewRecorder()
	metrics.handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, endpoint := range []string{"mutate", "verify", "profiles"} {
		for _, result := range []string{"untouched", "fault"} {
			want := fmt.Sprintf("pillion_admission_duration_seconds_count{endpoint=%q,result=%q} 1", endpoint, result)
			if !strings.Contains(recorder.Body.String(), want) {
				t.Errorf("the metrics lack %s", want)
			}
		}
	}
}
