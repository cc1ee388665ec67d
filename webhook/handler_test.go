package webhook_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// cluster is a Cluster whose memory and whose API server are what a test says.
type cluster struct {
	memory     []*profiles.Profile
	namespaces map[string]map[string]string // in memory
	live       func(ctx context.Context, namespace string, names []string, policy bool) (profiles.Namespace, []*profiles.Profile, error)
	asked      []string // what Live was asked
}

func (c *cluster) Snapshot() *profiles.Snapshot {
	return profiles.NewSnapshot(profiles.Options{Images: injectors.DefaultImages("")}, c.memory)
}

func (c *cluster) Namespace(name string) (profiles.Namespace, bool) {
	labels, known := c.namespaces[name]
	return profiles.Namespace{Name: name, Labels: labels}, known
}

func (c *cluster) Live(
	ctx context.Context, namespace string, names []string, policy bool,
) (profiles.Namespace, []*profiles.Profile, error) {
	c.asked = append(c.asked, fmt.Sprintf("%s %v %t", namespace, names, policy))
	return c.live(ctx, namespace, names, policy)
}

// profile compiles a gitSync profile; change sets what it differs by.
func profile(t *testing.T, name string, change func(*v1alpha1.ClusterPatternProfileSpec)) *profiles.Profile {
	t.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	object := &v1alpha1.ClusterPatternProfile{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPatternProfile"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
	object.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
	if change != nil {
		change(&object.Spec)
	}
	compiled := compiler.Cluster(object)
	if len(compiled.Problems) > 0 {
		t.Fatal(compiled.Problems)
	}
	return compiled
}

func matchingWeb(spec *v1alpha1.ClusterPatternProfileSpec) {
	spec.Match = &v1alpha1.ClusterMatch{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}},
	}
}

func enforcedOnWeb(spec *v1alpha1.ClusterPatternProfileSpec) {
	matchingWeb(spec)
	spec.Match.Enforce = true
}

// selectionOf returns the selection of a profile with match.
func selectionOf(profile *profiles.Profile) *profiles.Selection {
	selection, _ := profiles.NewPlan([]*profiles.Profile{profile}, nil).Of(profile)
	return selection
}

// entryOf returns the path of the entry that a profile with match has.
func entryOf(profile *profiles.Profile) string { return selectionOf(profile).Path() }

// verificationOf returns the path of the verification of a profile that enforces.
func verificationOf(profile *profiles.Profile) string {
	return profiles.PathVerify + selectionOf(profile).ID()
}

// answer sends a Pod with the annotation, if it is not empty, to a path and returns the HTTP answer and the response in it.
func answer(t *testing.T, c webhook.Cluster, options webhook.Options, path, inject string) (*http.Response, *admissionv1.AdmissionResponse) {
	t.Helper()
	annotations := ""
	if inject != "" {
		annotations = fmt.Sprintf(`"annotations":{"pillion.dev/inject":%q}`, inject)
	}
	body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
		"resource":{"version":"v1","resource":"pods"},"namespace":"web",
		"object":{"metadata":{%s},"spec":{"containers":[{"name":"app"}]}}}}`, annotations)
	return send(t, c, options, path, body)
}

func send(t *testing.T, c webhook.Cluster, options webhook.Options, path, body string) (*http.Response, *admissionv1.AdmissionResponse) {
	t.Helper()
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	webhook.NewHandler(c, options).ServeHTTP(recorder, request)
	result := recorder.Result()
	if result.StatusCode != http.StatusOK {
		return result, nil
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(recorder.Body.Bytes(), review); err != nil {
		t.Fatal(err)
	}
	return result, review.Response
}

func TestTheAPIServerIsAskedOnlyWhereMemoryLacksOrContradicts(t *testing.T) {
	web := map[string]map[string]string{"web": {"team": "web"}}
	fresh := func(read ...*profiles.Profile) func(
		context.Context, string, []string, bool,
	) (profiles.Namespace, []*profiles.Profile, error) {
		return func(_ context.Context, name string, names []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
			labels := map[string]string{"team": "web", v1alpha1.InjectKey: "site"}
			if len(names) == 0 {
				return profiles.Namespace{Name: name, Labels: labels}, nil, nil
			}
			return profiles.Namespace{Name: name, Labels: labels}, read, nil
		}
	}
	site, policy, enforced := profile(t, "site", nil), profile(t, "policy", matchingWeb), profile(t, "policy", enforcedOnWeb)
	other := profile(t, "other", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		enforcedOnWeb(spec)
		spec.GitSync.MountPath = "/srv/other"
	})
	many := make([]*profiles.Profile, 3)
	for i := range many {
		many[i] = profile(t, fmt.Sprintf("many-%d", i), func(spec *v1alpha1.ClusterPatternProfileSpec) {
			spec.Match = &v1alpha1.ClusterMatch{Enforce: true, NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{"many": strconv.Itoa(i)},
			}}
		})
	}
	tests := map[string]struct {
		cluster      *cluster
		path, inject string
		wantAsked    []string
		wantWoven    bool
	}{
		"a name that memory has is woven from memory": {
			cluster: &cluster{memory: []*profiles.Profile{site}, namespaces: web}, path: profiles.PathPods, inject: "site",
			wantWoven: true,
		},
		"a name that memory lacks is read": {
			cluster: &cluster{namespaces: web, live: fresh(site)}, path: profiles.PathPods, inject: "site",
			wantAsked: []string{"web [site] false"}, wantWoven: true,
		},
		"a namespace that memory lacks is read, and then what its label asks for": {
			cluster: &cluster{live: fresh(site)}, path: profiles.PathNamespaces,
			wantAsked: []string{"web [] false", "web [site] false"}, wantWoven: true,
		},
		"a namespace without the label that the entry is for is read": {
			cluster: &cluster{memory: []*profiles.Profile{site}, namespaces: web, live: fresh()}, path: profiles.PathNamespaces,
			wantAsked: []string{"web [] false"}, wantWoven: true,
		},
		"a match that memory knows is woven from memory": {
			cluster: &cluster{memory: []*profiles.Profile{policy}, namespaces: web}, path: entryOf(policy), wantWoven: true,
		},
		"a match that memory does not know is read": {
			cluster: &cluster{namespaces: web, live: func(_ context.Context, name string, _ []string, _ bool) (
				profiles.Namespace, []*profiles.Profile, error,
			) {
				return profiles.Namespace{Name: name, Labels: web["web"]}, []*profiles.Profile{policy}, nil
			}},
			path: entryOf(policy), wantAsked: []string{"web [] true"}, wantWoven: true,
		},
		"an enforcing match that memory knows is woven from memory": {
			cluster: &cluster{memory: []*profiles.Profile{enforced}, namespaces: web}, path: entryOf(enforced), wantWoven: true,
		},
		"an enforcing match that memory does not know is read": {
			cluster: &cluster{namespaces: web, live: func(_ context.Context, name string, _ []string, _ bool) (
				profiles.Namespace, []*profiles.Profile, error,
			) {
				return profiles.Namespace{Name: name, Labels: web["web"]}, []*profiles.Profile{enforced}, nil
			}},
			path: entryOf(enforced), wantAsked: []string{"web [] true"}, wantWoven: true,
		},
		"a match that memory does not know is read though it knows another that chooses the Pod": {
			cluster: &cluster{memory: []*profiles.Profile{policy}, namespaces: web, live: func(_ context.Context, name string, _ []string, _ bool) (
				profiles.Namespace, []*profiles.Profile, error,
			) {
				return profiles.Namespace{Name: name, Labels: web["web"]}, []*profiles.Profile{policy, other}, nil
			}},
			path: entryOf(other), wantAsked: []string{"web [] true"}, wantWoven: true,
		},
		"an entry that stands for too many asks nothing for a Pod that none of them chooses": {
			cluster: &cluster{memory: many, namespaces: web}, path: profiles.NewPlan(many, nil).Selections[0].Path(),
		},
		"an entry that only may choose the Pod asks nothing": {
			cluster: &cluster{namespaces: web}, path: profiles.PathAny + "0123abcd",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, response := answer(t, test.cluster, webhook.Options{}, test.path, test.inject)
			if response == nil || !response.Allowed {
				t.Fatalf("response %v, want it allowed", response)
			}
			if woven := len(response.Patch) > 0; woven != test.wantWoven {
				t.Errorf("woven: %t, want %t", woven, test.wantWoven)
			}
			if diff := gocmp.Diff(test.wantAsked, test.cluster.asked); diff != "" {
				t.Errorf("asked of the API server (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAFaultIsNoDecision(t *testing.T) {
	tests := map[string]func(context.Context, string, []string, bool) (profiles.Namespace, []*profiles.Profile, error){
		"the API server refuses": func(context.Context, string, []string, bool) (profiles.Namespace, []*profiles.Profile, error) {
			return profiles.Namespace{}, nil, errors.New("away")
		},
		"the API server hangs": func(ctx context.Context, _ string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
			<-ctx.Done() // the test's own deadline tells if nobody ends it
			return profiles.Namespace{}, nil, ctx.Err()
		},
	}
	for name, live := range tests {
		t.Run(name, func(t *testing.T) {
			result, _ := answer(t, &cluster{live: live}, webhook.Options{LiveReadTimeout: 10 * time.Millisecond}, profiles.PathPods, "site")
			if result.StatusCode != http.StatusServiceUnavailable || result.Header.Get("Retry-After") != "1" {
				t.Errorf("status %d, Retry-After %q; want 503 and 1, at which the API server tries again",
					result.StatusCode, result.Header.Get("Retry-After"))
			}
		})
	}
}

func TestWhatIsNotACreatedPodIsLetPassUntouched(t *testing.T) {
	c := &cluster{memory: []*profiles.Profile{profile(t, "site", nil)}, namespaces: map[string]map[string]string{"web": nil}}
	pod := `{"metadata":{"annotations":{"pillion.dev/inject":"site"}},"spec":{"containers":[{"name":"app"}]}}`
	tests := map[string]struct{ operation, group, resource, subResource, object string }{
		"an update":              {"UPDATE", "", "pods", "", pod},
		"a deletion":             {"DELETE", "", "pods", "", "null"},
		"an ephemeral container": {"CREATE", "", "pods", "ephemeralcontainers", pod},
		"a binding":              {"CREATE", "", "pods", "binding", `{"target":{"name":"node"}}`},
		"another resource":       {"CREATE", "apps", "deployments", "", `{"spec":{"replicas":1,"template":` + pod + `}}`},
		"what is no Pod at all":  {"CREATE", "example.com", "things", "", `{"spec":"not that of a Pod"}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":%q,
				"resource":{"group":%q,"version":"v1","resource":%q},"subResource":%q,"namespace":"web","object":%s}}`,
				test.operation, test.group, test.resource, test.subResource, test.object)
			_, response := send(t, c, webhook.Options{}, profiles.PathPods, body)
			if response == nil || !response.Allowed || len(response.Patch) > 0 || response.UID != "u" {
				t.Errorf("response %v, want it allowed and untouched", response)
			}
		})
	}
}

func TestAProfileThatWasReadAnewIsStillTheSame(t *testing.T) {
	restricted := func(spec *v1alpha1.ClusterPatternProfileSpec) {
		matchingWeb(spec)
		spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}}
	}
	again := profile(t, "site", restricted)
	c := &cluster{
		memory:     []*profiles.Profile{profile(t, "site", restricted)},
		namespaces: map[string]map[string]string{"web": nil}, // without its label yet, as far as memory knows
		live: func(_ context.Context, name string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
			return profiles.Namespace{Name: name, Labels: map[string]string{"team": "web"}}, []*profiles.Profile{again}, nil
		},
	}
	_, response := answer(t, c, webhook.Options{}, profiles.PathPods, "site")
	if response == nil || !response.Allowed || len(response.Patch) == 0 {
		t.Errorf("response %v, want the Pod woven", response)
	}
}

func TestTheFinalPodHasWhatIsEnforced(t *testing.T) {
	web := map[string]map[string]string{"web": {"team": "web"}}
	enforced := profile(t, "policy", enforcedOnWeb)
	newer := profile(t, "policy", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		enforcedOnWeb(spec)
		spec.GitSync.Ref = "next"
	})
	known := profile(t, "known", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		enforcedOnWeb(spec)
		spec.GitSync.MountPath = "/srv/known"
		spec.Match.PodSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "unknown", Operator: metav1.LabelSelectorOpDoesNotExist},
		}}
	})
	const bare = `{"metadata":{"annotations":{"pillion.dev/inject":"none"}},"spec":{"containers":[{"name":"app"}]}}`
	woven := func(p *profiles.Profile) string {
		pod := &corev1.Pod{}
		if err := json.Unmarshal([]byte(bare), pod); err != nil {
			t.Fatal(err)
		}
		c := &cluster{memory: []*profiles.Profile{p}}
		decision := profiles.Decide(c.Snapshot(), profiles.Namespace{Name: "web", Labels: web["web"]}, pod)
		encoded, err := json.Marshal(decision.Pod())
		if err != nil || !strings.Contains(string(encoded), v1alpha1.ReservedName(p.Name, "")) {
			t.Fatalf("%v: %s", err, encoded)
		}
		return string(encoded)
	}
	live := func(read ...*profiles.Profile) func(context.Context, string, []string, bool) (
		profiles.Namespace, []*profiles.Profile, error,
	) {
		return func(_ context.Context, name string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
			return profiles.Namespace{Name: name, Labels: web["web"]}, read, nil
		}
	}
	tests := map[string]struct {
		cluster     *cluster
		pod         string
		operation   string
		wantAllowed bool
		wantAsked   []string
	}{
		"a Pod that has it": {
			cluster: &cluster{memory: []*profiles.Profile{enforced}, namespaces: web}, pod: woven(enforced), wantAllowed: true,
		},
		"a Pod that lacks it": {
			cluster: &cluster{memory: []*profiles.Profile{enforced}, namespaces: web, live: live(enforced)}, pod: bare,
			wantAsked: []string{"web [] true"},
		},
		"a Pod that has it otherwise": {
			cluster: &cluster{memory: []*profiles.Profile{enforced}, namespaces: web, live: live(enforced)},
			pod:     strings.Replace(woven(enforced), `"readOnlyRootFilesystem":true`, `"readOnlyRootFilesystem":false`, 1),

			wantAsked: []string{"web [] true"},
		},
		"a Pod that has it by a revision that memory does not know yet": {
			cluster: &cluster{memory: []*profiles.Profile{enforced}, namespaces: web, live: live(newer)}, pod: woven(newer),
			wantAllowed: true, wantAsked: []string{"web [] true"},
		},
		"a Pod that lacks what memory does not know yet": {
			cluster: &cluster{namespaces: web, live: live(enforced)}, pod: bare, wantAsked: []string{"web [] true"},
		},
		"a Pod that has it and lacks what memory does not know yet": {
			cluster: &cluster{memory: []*profiles.Profile{known}, namespaces: web, live: live(known, enforced)}, pod: woven(known),
			wantAsked: []string{"web [] true"},
		},
		"a Pod that is there already": {
			cluster: &cluster{memory: []*profiles.Profile{enforced}, namespaces: web}, pod: bare, operation: "UPDATE", wantAllowed: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":%q,
				"resource":{"version":"v1","resource":"pods"},"namespace":"web","object":%s}}`,
				cmp.Or(test.operation, "CREATE"), test.pod)
			_, response := send(t, test.cluster, webhook.Options{}, verificationOf(enforced), body)
			if response == nil || response.Allowed != test.wantAllowed || len(response.Patch) > 0 {
				t.Fatalf("response %v, want allowed: %t, and no patch", response, test.wantAllowed)
			}
			if !test.wantAllowed && !strings.Contains(response.Result.Message, "policy") {
				t.Errorf("the denial does not name the profile: %s", response.Result.Message)
			}
			if diff := gocmp.Diff(test.wantAsked, test.cluster.asked); diff != "" {
				t.Errorf("asked of the API server (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConditionsSeeWhoAsksAndHow(t *testing.T) {
	chosen := profile(t, "policy", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		matchingWeb(spec)
		spec.Match.Conditions = []v1alpha1.MatchCondition{{
			Name: "by-jane", Expression: `request.userInfo.username == "jane" && "dev" in request.userInfo.groups && request.dryRun`,
		}}
	})
	tests := map[string]struct {
		said      string
		wantWoven bool
	}{
		"the one that is meant":    {`"userInfo":{"username":"jane","groups":["dev"],"extra":{"a":["b"]}},"dryRun":true`, true},
		"somebody else":            {`"userInfo":{"username":"joe","groups":["dev"]},"dryRun":true`, false},
		"somebody of other groups": {`"userInfo":{"username":"jane","groups":["ops"]},"dryRun":true`, false},
		"no dry run":               {`"userInfo":{"username":"jane","groups":["dev"]},"dryRun":false`, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
				"resource":{"version":"v1","resource":"pods"},"namespace":"web",%s,
				"object":{"metadata":{},"spec":{"containers":[{"name":"app"}]}}}}`, test.said)
			c := &cluster{memory: []*profiles.Profile{chosen}, namespaces: map[string]map[string]string{"web": {"team": "web"}}}
			_, response := send(t, c, webhook.Options{}, entryOf(chosen), body)
			if response == nil || !response.Allowed || (len(response.Patch) > 0) != test.wantWoven {
				t.Errorf("response %v, want the Pod woven: %t", response, test.wantWoven)
			}
		})
	}
}

// A fault would be let pass by failurePolicy Ignore, and whoever makes a Pod can make it large.
func TestAPodThatIsTooLargeToBeReadIsRefusedWhereSomethingIsEnforced(t *testing.T) {
	enforced := profile(t, "policy", enforcedOnWeb)
	c := &cluster{memory: []*profiles.Profile{enforced}, namespaces: map[string]map[string]string{"web": {"team": "web"}}}
	review := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1","kind":{"kind":"Pod"},
		"object":{"metadata":{},"spec":{"containers":[{"name":"` + strings.Repeat("x", 2000) + `"}]}}}}`
	tests := map[string]struct {
		path, body string
		chunked    bool
		wantStatus int
	}{
		"where it is woven":                 {path: entryOf(enforced), body: review, wantStatus: http.StatusOK},
		"where it is verified":              {path: verificationOf(enforced), body: review, wantStatus: http.StatusOK},
		"of a length that nobody tells":     {path: verificationOf(enforced), body: review, chunked: true, wantStatus: http.StatusOK},
		"where nothing is enforced":         {path: profiles.PathPods, body: review, wantStatus: http.StatusRequestEntityTooLarge},
		"with a uid that comes too late":    {path: entryOf(enforced), body: strings.Repeat(" ", 2000) + review, chunked: true, wantStatus: http.StatusRequestEntityTooLarge},
		"with a list in place of a request": {path: entryOf(enforced), body: `{"request":[` + review, wantStatus: http.StatusRequestEntityTooLarge},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(http.MethodPost, test.path, strings.NewReader(test.body))
			request.Header.Set("Content-Type", "application/json")
			if test.chunked {
				request.ContentLength = -1
			}
			recorder := httptest.NewRecorder()
			webhook.NewHandler(c, webhook.Options{MaxBodyBytes: 1000}).ServeHTTP(recorder, request)
			if recorder.Code != test.wantStatus {
				t.Fatalf("HTTP %d, want %d: %s", recorder.Code, test.wantStatus, recorder.Body)
			}
			if test.wantStatus != http.StatusOK {
				return
			}
			answered := &admissionv1.AdmissionReview{}
			if err := json.Unmarshal(recorder.Body.Bytes(), answered); err != nil {
				t.Fatal(err)
			}
			if r := answered.Response; r.UID != "u-1" || r.Allowed || !strings.Contains(r.Result.Message, "larger than 1000 bytes") {
				t.Errorf("%+v", r)
			}
		})
	}
}
