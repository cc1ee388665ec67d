package webhook

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// counted is a handler with its metrics.
type counted struct {
	*informed

	metrics *Metrics
	handler http.Handler
}

// counting returns a handler that has profiles of the names, which add a container each, and namespace web.
func counting(t *testing.T, names ...string) *counted {
	t.Helper()
	c := memory(t)
	c.live = &apiServer{}
	namespace := namespaceObject()
	namespace.Name, namespace.Labels = "web", map[string]string{"team": "web"}
	c.put(namespace)
	for _, name := range names {
		put(t, c, name, nil)
	}
	c.rebuild()
	metrics := NewMetrics(c.Snapshot, &certificate{})
	metrics.tellAge(c.lastChange, c.contact.oldest)
	return &counted{c, metrics, NewHandler(c, Options{Metrics: metrics, Compiler: c.compiler})}
}

func put(t *testing.T, c *informed, name string, change func(*v1alpha1.ClusterPatternProfile)) {
	t.Helper()
	profile := site("uid-1", 1)
	profile.Name, profile.Spec.GitSync.MountPath = name, v1alpha1.MountPath("/srv/"+name)
	if change != nil {
		change(profile)
	}
	if compiled := kept(t, c, profile); len(compiled.profile.Problems) > 0 {
		t.Fatal(compiled.profile.Problems)
	}
}

// create sends a Pod with the annotation, and more of the request.
func (c *counted) create(ctx context.Context, path, inject, more string) *httptest.ResponseRecorder {
	body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
		"resource":{"version":"v1","resource":"pods"},"namespace":"web"%s,
		"object":{"metadata":{"annotations":{"pillion.dev/inject":%q}},"spec":{"containers":[{"name":"app"},{"name":"pillion-there"}]}}}}`,
		more, inject)
	return c.post(ctx, path, body)
}

func (c *counted) post(ctx context.Context, path, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	c.handler.ServeHTTP(recorder, request)
	return recorder
}

// series returns the lines of a metric.
func (c *counted) series(name string) []string {
	var found []string
	for line := range strings.Lines(c.scrape()) {
		if strings.HasPrefix(line, name+"{") {
			found = append(found, strings.TrimPrefix(strings.TrimSpace(line), name))
		}
	}
	return found
}

func (c *counted) scrape() string {
	recorder := httptest.NewRecorder()
	c.metrics.handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	return recorder.Body.String()
}

func TestReviewsOfWorkloadsAreTimedByWhatWasTold(t *testing.T) {
	c := counting(t, "site")
	review := func(namespace, inject string) string {
		return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":%q,
			"resource":{"group":"apps","version":"v1","resource":"deployments"},
			"object":{"spec":{"template":{"metadata":{"annotations":{"pillion.dev/inject":%q}}}}}}}`, namespace, inject)
	}
	for _, body := range []string{review("web", "site"), review("web", "nosuch"), review("web", "nosuch"), "{"} {
		c.post(t.Context(), profiles.WorkloadsPath(profiles.PathPods), body)
	}
	want := []string{
		`{endpoint="workloads",result="fault"} 1`, `{endpoint="workloads",result="untouched"} 1`, `{endpoint="workloads",result="warned"} 2`,
	}
	if diff := cmp.Diff(want, c.series("pillion_admission_duration_seconds_count")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := c.series("pillion_admissions_total"); len(got) > 0 {
		t.Errorf("workloads count as Pods: %q", got)
	}
}

func TestAdmissionsAreCountedByWhatBecameOfThem(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	tests := map[string]struct {
		send         func(*counted)
		wantAll      []string
		wantProfiles []string
	}{
		"a Pod that was woven": {
			send:         func(c *counted) { c.create(t.Context(), profiles.PathPods, "site,cache", "") },
			wantAll:      []string{`{reason="Applied",result="woven"} 1`},
			wantProfiles: []string{applied("cache"), applied("site")},
		},
		"no dry run": {
			send: func(c *counted) { c.create(t.Context(), profiles.PathPods, "site", `,"dryRun":true`) },
		},
		"a Pod that is refused got nothing": {
			send:    func(c *counted) { c.create(t.Context(), profiles.PathPods, "site,nosuch", "") },
			wantAll: []string{`{reason="ProfileNotAvailable",result="denied"} 1`},
			wantProfiles: []string{
				`{namespace="",profile="(unknown)",reason="ProfileNotAvailable",result="Rejected"} 1`,
			},
		},
		"a Pod whose request cannot be read": {
			send:    func(c *counted) { c.create(t.Context(), profiles.PathPods, "A b", "") },
			wantAll: []string{`{reason="InvalidRequest",result="denied"} 1`},
		},
		"a Pod that has it already": {
			send:         func(c *counted) { c.create(t.Context(), profiles.PathPods, "there", "") },
			wantAll:      []string{`{reason="AlreadyInjected",result="untouched"} 1`},
			wantProfiles: []string{`{namespace="",profile="there",reason="AlreadyInjected",result="Skipped"} 1`},
		},
		"a Pod that no profile concerns": {
			send:    func(c *counted) { c.create(t.Context(), profiles.PathPods, "none", "") },
			wantAll: []string{`{reason="NoProfile",result="untouched"} 1`},
		},
		"a Pod from which policy was left out is not woven": {
			send: func(c *counted) {
				put(t, c.informed, "policy", func(p *v1alpha1.ClusterPatternProfile) {
					p.Spec.Match = &v1alpha1.ClusterMatch{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}}}
					p.Spec.Match.Conditions = []v1alpha1.MatchCondition{{Name: "fails", Expression: "object.metadata.labels['nosuch'] == ''"}}
				})
				c.rebuild()
				c.create(t.Context(), profiles.PathPods, "there", "")
			},
			wantAll: []string{`{reason="ConditionFailed",result="untouched"} 1`},
			wantProfiles: []string{
				`{namespace="",profile="policy",reason="ConditionFailed",result="Rejected"} 1`,
				`{namespace="",profile="there",reason="AlreadyInjected",result="Skipped"} 1`,
			},
		},
		"a review that is none": {
			send:    func(c *counted) { c.post(t.Context(), profiles.PathPods, "{") },
			wantAll: []string{`{reason="BadRequest",result="fault"} 1`},
		},
		"nothing of profiles that are written": {
			send: func(c *counted) { c.post(t.Context(), profiles.PathProfiles, "{") },
		},
		"an answer that nobody waited for injects nothing": {
			send:    func(c *counted) { c.create(gone, profiles.PathPods, "site", "") },
			wantAll: []string{`{reason="RequestCanceled",result="fault"} 1`},
		},
		"a panic": {
			send: func(c *counted) {
				c.snapshot.Store(nil)
				c.create(t.Context(), profiles.PathPods, "site", "")
				c.rebuild()
			},
			wantAll: []string{`{reason="Panic",result="fault"} 1`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := counting(t, "site", "cache", "there")
			test.send(c)
			if diff := cmp.Diff(test.wantAll, c.series("pillion_admissions_total")); diff != "" {
				t.Errorf("pillion_admissions_total (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantProfiles, c.series("pillion_profile_outcomes_total")); diff != "" {
				t.Errorf("pillion_profile_outcomes_total (-want +got):\n%s", diff)
			}
			if !strings.Contains(c.scrape(), "pillion_admission_duration_seconds_count{") {
				t.Error("how long it took is not told")
			}
		})
	}
}

func applied(profile string) string {
	return fmt.Sprintf(`{namespace="",profile=%q,reason="Applied",result="Applied"} 1`, profile)
}

func TestNamesThatNobodyHasAddNoSeries(t *testing.T) {
	c := counting(t, "site")
	for i := range 1000 {
		c.create(t.Context(), profiles.PathPods, fmt.Sprintf("site,nosuch-%d", i), "")
	}
	want := []string{`{namespace="",profile="(unknown)",reason="ProfileNotAvailable",result="Rejected"} 1000`}
	if diff := cmp.Diff(want, c.series("pillion_profile_outcomes_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Contains(c.scrape(), "nosuch") {
		t.Error("what a Pod asks for has become a label")
	}
}

func TestTheSeriesOfProfilesAreBoundedAndGoWithThem(t *testing.T) {
	var names []string
	for i := range maxCountedProfiles + 2 {
		names = append(names, fmt.Sprintf("site-%03d", i))
	}
	c := counting(t, names...)
	for chunk := range slices.Chunk(names, 20) {
		c.create(t.Context(), profiles.PathPods, strings.Join(chunk, ","), "")
	}
	found := c.series("pillion_profile_outcomes_total")
	const other = `{namespace="",profile="(other)",reason="Applied",result="Applied"} `
	if len(found) != maxCountedProfiles+1 || !slices.Contains(found, other+"2") {
		t.Fatalf("%d series, of which others: %q", len(found), slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, other) }))
	}
	for _, name := range names[1 : len(names)-1] {
		c.remove(c.compiled[profileKey{"", name}])
	}
	c.rebuild()
	c.create(t.Context(), profiles.PathPods, names[len(names)-1], "")
	want := []string{other + "2", applied(names[0]), applied(names[len(names)-1])}
	if diff := cmp.Diff(want, c.series("pillion_profile_outcomes_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheMetricsFollowThePrometheusGuidelines(t *testing.T) {
	c := counting(t, "site")
	c.create(t.Context(), profiles.PathPods, "site", "")
	problems, err := promlint.New(strings.NewReader(c.scrape())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

func TestWhenTheAPIServerWasLastHeardIsWhenTheQuietestWatchWas(t *testing.T) {
	now := time.Unix(1000, 0)
	said := map[string]chan string{"/api/v1/namespaces": make(chan string), "/api/v1/others": make(chan string)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/refused" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		for {
			select {
			case <-r.Context().Done():
				return
			case what := <-said[r.URL.Path]:
				_, _ = w.Write([]byte(what))
				w.(http.Flusher).Flush() //nolint:forcetypeassert // the server's is one
			}
		}
	}))
	t.Cleanup(server.Close)
	heard := newContact("namespaces", "refused")
	heard.now = func() time.Time { return now }
	client := &http.Client{Transport: heard.wrap(http.DefaultTransport)}
	expect := func(when string, want time.Time) {
		t.Helper()
		if got := heard.oldest(); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	open := func(path string) *http.Response {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}
	read := func(response *http.Response) {
		t.Helper()
		if _, err := response.Body.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	expect("before anything was heard", time.Time{})
	go func() { said["/api/v1/namespaces"] <- "a" }()
	namespaces := open("/api/v1/namespaces")
	read(namespaces)
	_ = open("/api/v1/refused").Body.Close()
	expect("while one was never answered", time.Time{})
	heard.kinds[1] = "others"
	go func() { said["/api/v1/others"] <- "b" }()
	read(open("/api/v1/others"))
	expect("once both were heard", now)
	first := now
	now = now.Add(time.Minute)
	expect("a minute later", first)
	go func() { said["/api/v1/namespaces"] <- "c" }()
	read(namespaces)
	expect("while one is quiet", first)
}
