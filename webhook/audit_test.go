package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// review is the body of a review of a Pod of namespace web.
func review(pod string) string {
	return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
		"resource":{"version":"v1","resource":"pods"},"namespace":"web","object":` + pod + `}}`
}

// asking is a Pod that asks for profiles.
func asking(names string, containers ...string) string {
	all := []string{`{"name":"app"}`}
	for _, name := range containers {
		all = append(all, fmt.Sprintf(`{"name":%q}`, name))
	}
	return fmt.Sprintf(`{"metadata":{"annotations":{"pillion.dev/inject":%q}},"spec":{"containers":[%s]}}`, names, strings.Join(all, ","))
}

// wovenBy is a Pod as profiles have woven it.
func wovenBy(t *testing.T, c *cluster, pod string) string {
	t.Helper()
	typed := &corev1.Pod{}
	if err := json.Unmarshal([]byte(pod), typed); err != nil {
		t.Fatal(err)
	}
	decision := profiles.Decide(c.Snapshot(), profiles.Namespace{Name: "web", Labels: c.namespaces["web"]}, typed)
	encoded, err := json.Marshal(decision.Pod())
	if err != nil || len(decision.Patch) == 0 {
		t.Fatalf("the Pod is not woven: %v, %v", decision.Outcomes, err)
	}
	return string(encoded)
}

func TestTheAuditLogIsToldWhatBecameOfEachProfile(t *testing.T) {
	web := map[string]map[string]string{"web": {"team": "web"}}
	site := profile(t, "site", nil)
	overridable := profile(t, "open", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		spec.GitSync.MountPath = "/srv/open"
		spec.Overridable = []string{"ref"}
	})
	policy := profile(t, "policy", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		enforcedOnWeb(spec)
		spec.GitSync.MountPath = "/srv/policy"
	})
	colliding := profile(t, "colliding", matchingWeb)
	unmet := profile(t, "unmet", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		matchingWeb(spec)
		spec.Match.Conditions = []v1alpha1.MatchCondition{{Name: "never", Expression: "false"}}
	})
	applied := func(p *profiles.Profile) string {
		return fmt.Sprintf(`{"profile":%q,"revision":%q,"result":"Applied","reason":"Applied"}`, p.Name, p.Revision)
	}
	tests := map[string]struct {
		memory []*profiles.Profile
		pod    string
		path   string
		want   string // the items of the list
	}{
		"nothing of a Pod that no profile concerns": {
			pod: `{"metadata":{},"spec":{"containers":[{"name":"app"}]}}`,
		},
		"what was woven": {memory: []*profiles.Profile{site}, pod: asking("site"), want: applied(site)},
		"what was woven, sorted by names": {
			memory: []*profiles.Profile{site, overridable}, pod: asking("site,open"), want: applied(overridable) + "," + applied(site),
		},
		"the same of a Pod that comes woven": {
			memory: []*profiles.Profile{site, overridable},
			pod:    wovenBy(t, &cluster{memory: []*profiles.Profile{site, overridable}}, asking("site,open")),
			want:   applied(overridable) + "," + applied(site),
		},
		"no such thing of a Pod that has a container of the name and no mark": {
			memory: []*profiles.Profile{site}, pod: asking("site", "pillion-site"),
			want: fmt.Sprintf(`{"profile":"site","revision":%q,"result":"Skipped","reason":"AlreadyInjected"}`, site.Revision),
		},
		"no such thing of a Pod that was woven at another revision": {
			memory: []*profiles.Profile{site},
			pod: strings.ReplaceAll(wovenBy(t, &cluster{memory: []*profiles.Profile{site}}, asking("site")),
				site.Revision, "0123456789"),
			want: fmt.Sprintf(`{"profile":"site","revision":%q,"result":"Skipped","reason":"AlreadyInjected"}`, site.Revision),
		},
		"of a Pod that is refused only why": {
			memory: []*profiles.Profile{site}, pod: asking("site,nosuch"),
			want: `{"profile":"nosuch","result":"Rejected","reason":"ProfileNotAvailable"}`,
		},
		"one problem of a kind once": {
			memory: []*profiles.Profile{overridable}, pod: `{"metadata":{"annotations":{"pillion.dev/inject":"open",
				"open.pillion.dev/repo":"a","open.pillion.dev/mountPath":"b"}},"spec":{"containers":[{"name":"app"}]}}`,
			want: `{"profile":"open","result":"Rejected","reason":"FieldNotOverridable"}`,
		},
		"what policy left out": {
			memory: []*profiles.Profile{site, colliding}, pod: asking("site"),
			want: fmt.Sprintf(`{"profile":"colliding","revision":%q,"result":"Rejected","reason":"MountPathCollision"},`,
				colliding.Revision) + applied(site),
		},
		"conditions that are not met where nothing else is": {
			memory: []*profiles.Profile{unmet}, pod: `{"metadata":{},"spec":{"containers":[{"name":"app"}]}}`,
			want: `{"profile":"unmet","result":"Skipped","reason":"ConditionNotMet"}`,
		},
		"nothing of conditions that are not met beside what is woven, as when it comes again": {
			memory: []*profiles.Profile{site, unmet}, pod: asking("site"), want: applied(site),
		},
		"that a final Pod has what is enforced": {
			memory: []*profiles.Profile{policy}, path: verificationOf(policy),
			pod: wovenBy(t, &cluster{memory: []*profiles.Profile{policy}, namespaces: web},
				`{"metadata":{},"spec":{"containers":[{"name":"app"}]}}`),
			want: fmt.Sprintf(`{"profile":"policy","revision":%q,"result":"Skipped","reason":"Enforced"}`, policy.Revision),
		},
		"that a final Pod lacks what is enforced": {
			memory: []*profiles.Profile{policy}, path: verificationOf(policy), pod: `{"metadata":{},"spec":{"containers":[{"name":"app"}]}}`,
			want: fmt.Sprintf(`{"profile":"policy","revision":%q,"result":"Rejected","reason":"NotInjected"}`, policy.Revision),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &cluster{memory: test.memory, namespaces: web, live: known(web, test.memory)}
			path := test.path
			if path == "" {
				path = profiles.PathPods
			}
			_, response := send(t, c, webhook.Options{}, path, review(test.pod))
			want := map[string]string{"outcome": `{"profiles":[` + test.want + `]}`}
			if test.want == "" {
				want = nil
			}
			if diff := gocmp.Diff(want, response.AuditAnnotations); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// known is an API server that has what memory has.
func known(namespaces map[string]map[string]string, all []*profiles.Profile) func(context.Context, string, []string, bool) (
	profiles.Namespace, []*profiles.Profile, error,
) {
	return func(_ context.Context, name string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
		return profiles.Namespace{Name: name, Labels: namespaces[name]}, all, nil
	}
}

func TestWhatTheAuditLogIsToldIsBounded(t *testing.T) {
	c := &cluster{namespaces: map[string]map[string]string{"web": {"team": "web"}}}
	for i := range 70 {
		c.memory = append(c.memory, profile(t, fmt.Sprintf("unmet-%02d", i), func(spec *v1alpha1.ClusterPatternProfileSpec) {
			matchingWeb(spec)
			spec.Match.Conditions = []v1alpha1.MatchCondition{{Name: "never", Expression: "false"}}
		}))
	}
	c.live = known(c.namespaces, nil)
	_, response := send(t, c, webhook.Options{}, entryOf(c.memory[0]), review(`{"metadata":{},"spec":{"containers":[{"name":"app"}]}}`))
	told := struct {
		Profiles []struct{ Profile string }
		More     int
	}{}
	if err := json.Unmarshal([]byte(response.AuditAnnotations["outcome"]), &told); err != nil {
		t.Fatal(err)
	}
	if len(told.Profiles) != 64 || told.More != 6 || told.Profiles[63].Profile != "unmet-63" {
		t.Errorf("%d profiles are told and %d more: %s", len(told.Profiles), told.More, response.AuditAnnotations["outcome"])
	}
}
