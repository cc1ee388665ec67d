package profiles_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestSelection(t *testing.T) {
	all := []source{
		cluster("site", gitSync),
		cluster("cache", memcached+`, allowedNamespaces: {matchLabels: {team: db}}`),
		cluster("policy", gitOther+`, match: {namespaceSelector: {matchLabels: {team: web}}, podSelector: {matchLabels: {app: web}}}`),
		cluster("shared", `gitSync: {repo: "https://git.example.com/cluster.git", mountPath: /srv/shared},
          match: {podSelector: {matchLabels: {app: shared}}}`),
		namespaced("web", "shared", `gitSync: {repo: "https://git.example.com/web.git", mountPath: /srv/shared}`),
		namespaced("web", "own", redis+`, match: {podSelector: {matchLabels: {app: own}}}`),
		namespaced("other", "theirs", redis+`, match: {}`),
	}
	tests := map[string]struct {
		label, metadata string
		want            []string
	}{
		"nothing is asked for and nothing matches": {
			metadata: `{}`,
		},
		"the annotation asks": {
			metadata: asking("site"),
			want:     []string{"site Annotation Applied Applied"},
		},
		"the annotation asks with spaces, and twice": {
			metadata: asking(` site ,\tsite`),
			want:     []string{"site Annotation Applied Applied"},
		},
		"the namespace's label asks, with dots": {
			label: "site.own", metadata: `{}`,
			want: []string{"site NamespaceLabel Applied Applied", "web/own NamespaceLabel Applied Applied"},
		},
		"the annotation replaces the label": {
			label: "site", metadata: asking("own"),
			want: []string{"web/own Annotation Applied Applied"},
		},
		"none declines what the label asks for": {
			label: "site", metadata: asking("none"),
		},
		"a Pod asks where its namespace says none": {
			label: "none", metadata: asking("site"),
			want: []string{"site Annotation Applied Applied"},
		},
		"match adds to what is asked for": {
			metadata: `{labels: {app: web}, annotations: {pillion.dev/inject: site}}`,
			want:     []string{"policy Match Applied Applied", "site Annotation Applied Applied"},
		},
		"match of the namespace's own profile": {
			metadata: `{labels: {app: own}}`,
			want:     []string{"web/own Match Applied Applied"},
		},
		"what is asked for and matches is asked for": {
			metadata: `{labels: {app: own}, annotations: {pillion.dev/inject: own}}`,
			want:     []string{"web/own Annotation Applied Applied"},
		},
		"none of the Pod cancels match": {
			metadata: `{labels: {app: web}, annotations: {pillion.dev/inject: none}}`,
		},
		"none of the namespace cancels match": {
			label: "none", metadata: `{labels: {app: web}}`,
		},
		"who asks by name means the namespace's own profile": {
			metadata: asking("shared"),
			want:     []string{"web/shared Annotation Applied Applied"},
		},
		"policy means the cluster's profile": {
			metadata: `{labels: {app: shared}}`,
			want:     []string{"shared Match Applied Applied"},
		},
		"both at once are refused, for they have one name": {
			metadata: `{labels: {app: shared}, annotations: {pillion.dev/inject: shared}}`,
			want:     []string{"web/shared Annotation Rejected NameCollision", "shared Match Applied Applied"},
		},
		"a profile of another namespace": {
			metadata: asking("theirs"),
			want:     []string{"theirs Annotation Rejected ProfileNotAvailable"},
		},
		"a profile that is for other namespaces": {
			metadata: asking("cache"),
			want:     []string{"cache Annotation Rejected ProfileNotAvailable"},
		},
		"an empty annotation": {
			metadata: asking(""),
			want:     []string{" Annotation Rejected InvalidRequest"},
		},
		"an empty name": {
			metadata: asking("site,,own"),
			want: []string{
				" Annotation Rejected InvalidRequest", "site Annotation Applied Applied", "web/own Annotation Applied Applied",
			},
		},
		"none beside a name": {
			metadata: asking("none,site"),
			want:     []string{" Annotation Rejected InvalidRequest", "site Annotation Applied Applied"},
		},
		"names that are no names": {
			metadata: asking("../x,site;own,-x,X," + strings.Repeat("y", 41)),
			want: []string{
				" Annotation Rejected InvalidRequest", " Annotation Rejected InvalidRequest", " Annotation Rejected InvalidRequest",
				" Annotation Rejected InvalidRequest", " Annotation Rejected InvalidRequest",
			},
		},
		"the label's separator in the annotation": {
			metadata: asking("site.own"),
			want:     []string{" Annotation Rejected InvalidRequest"},
		},
		"more names than any Pod has use for": {
			metadata: asking(strings.Repeat("x,", 40) + "x"),
			want:     []string{" Annotation Rejected InvalidRequest"},
		},
		"characters that change the direction of text": {
			metadata: asking(`\u202Esite`),
			want:     []string{" Annotation Rejected InvalidRequest"},
		},
		"NUL": {
			metadata: asking(`site\0`),
			want:     []string{" Annotation Rejected InvalidRequest"},
		},
		"a template": {
			metadata: asking(`{{.}}`),
			want:     []string{" Annotation Rejected InvalidRequest"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			if test.label != "" {
				namespace.Labels[v1alpha1.InjectKey] = test.label
			}
			decision := profiles.Decide(snapshotOf(t, all...), namespace, podOf(t, test.metadata, appOnly))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Errorf("%s\n%s", diff, decision.Denial())
			}
			if denied := strings.Contains(strings.Join(test.want, "\n"), "Rejected"); decision.Allowed == denied {
				t.Errorf("allowed is %t: %s", decision.Allowed, decision.Denial())
			}
		})
	}
}

func TestSelectionByTheNamespacesLabels(t *testing.T) {
	all := []source{
		cluster("cache", memcached+`, allowedNamespaces: {matchLabels: {team: db}}`),
		cluster("site", gitSync+`, match: {namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [db, ml]}]}}`),
	}
	tests := map[string]struct {
		team, metadata string
		want           []string
	}{
		"allowed":     {"db", asking("cache"), []string{"site Match Applied Applied", "cache Annotation Applied Applied"}},
		"not allowed": {"web", asking("cache"), []string{"cache Annotation Rejected ProfileNotAvailable"}},
		"matched":     {"ml", `{}`, []string{"site Match Applied Applied"}},
		"not matched": {"web", `{}`, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshotOf(t, all...), profiles.Namespace{Name: "x", Labels: map[string]string{"team": test.team}},
				podOf(t, test.metadata, appOnly))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// allowedNamespaces says who may ask; match says itself where it applies.
func TestPolicyReachesNamespacesThatMayNotAsk(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync+`, allowedNamespaces: {matchLabels: {team: db}}, match: {}`))
	decision := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
	if diff := cmp.Diff([]string{"site Match Applied Applied"}, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestAProfileThatIsNotAllowedHereIsAnsweredLikeOneThatDoesNotExist(t *testing.T) {
	answer := func(sources ...source) string {
		decision := profiles.Decide(snapshotOf(t, sources...), web(), podOf(t, asking("secret"), appOnly))
		if diff := cmp.Diff([]string{"secret"}, decision.Unknown); diff != "" {
			t.Error(diff)
		}
		return decision.Denial()
	}
	unknown := answer(cluster("site", gitSync))
	forbidden := answer(cluster("site", gitSync), cluster("secret", memcached+`, allowedNamespaces: {matchLabels: {team: db}}`))
	elsewhere := answer(cluster("site", gitSync), namespaced("other", "secret", memcached))
	if diff := cmp.Diff("Pillion refuses this Pod: profile secret is not available in namespace web (ProfileNotAvailable)",
		unknown); diff != "" {
		t.Error(diff)
	}
	if forbidden != unknown || elsewhere != unknown {
		t.Errorf("the answers differ:\n%s\n%s\n%s", unknown, forbidden, elsewhere)
	}
}

func TestSuggestionsNameOnlyWhatIsUsableHere(t *testing.T) {
	tests := map[string]struct {
		profiles []source
		asked    string
		want     string
	}{
		"a cluster profile": {[]source{cluster("site-content", gitSync)}, "site-contnet", "; did you mean site-content?"},
		"a profile of the namespace": {
			[]source{namespaced("web", "site-content", gitSync)},
			"site-contents",
			"; did you mean site-content?",
		},
		"a profile of another one": {[]source{namespaced("other", "site-content", gitSync)}, "site-contents", ""},
		"a profile that is not for us": {[]source{cluster("site-content",
			gitSync+`, allowedNamespaces: {matchLabels: {team: db}}`)}, "site-contents", ""},
		"one that is too far": {[]source{cluster("site-content", gitSync)}, "cache", ""},
		"the closest of several": {
			[]source{cluster("site-a", gitSync), cluster("site-bc", gitSync), cluster("site-b", gitSync)},
			"site-bcd",
			"; did you mean site-bc?",
		},
		"the first of two that are as close": {
			[]source{cluster("site-b", gitSync), cluster("site-a", gitSync)},
			"site-c",
			"; did you mean site-a?",
		},
		"no profiles at all": {nil, "site", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshotOf(t, test.profiles...), web(), podOf(t, asking(test.asked), appOnly))
			want := "profile " + test.asked + " is not available in namespace web" + test.want
			if diff := cmp.Diff(want, messageOf(t, &decision, profiles.ReasonProfileNotAvailable)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzRequest gives any value to the annotation and to the label: a Pod is refused or gets what it asks for, and what people read
// of it is text.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"site", "site,cache", "none", "", ",", "site.cache", "\x00", "\u202e", "\xff", "nosuch, site",
		strings.Repeat("x,", 50),
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	snapshot := snapshotOf(f, cluster("site", gitSync), cluster("cache", memcached))
	f.Fuzz(func(t *testing.T, value string, annotated bool) {
		namespace, pod := web(), podOf(t, `{}`, appOnly)
		if annotated {
			pod.Annotations = map[string]string{v1alpha1.InjectKey: value}
		} else {
			namespace.Labels[v1alpha1.InjectKey] = value
		}
		decision := profiles.Decide(snapshot, namespace, pod)
		if decision.Allowed != (decision.Denial() == "") {
			t.Fatalf("allowed is %t, denial %q", decision.Allowed, decision.Denial())
		}
		if decision.Allowed && len(decision.Patch) == 0 && strings.TrimSpace(value) != v1alpha1.None {
			t.Fatalf("a Pod that asks for %q gets nothing and is not told", value)
		}
		expectReadable(t, &decision)
	})
}

// expectReadable fails if what people are told holds characters that they cannot see, or is endless.
func expectReadable(t *testing.T, decision *profiles.Decision) {
	t.Helper()
	for _, text := range append([]string{decision.Denial()}, decision.Warnings...) {
		for _, r := range text {
			if r != '\n' && r != '\t' && r != '\r' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) ||
				r == unicode.ReplacementChar) {
				t.Fatalf("%q holds %U", text, r)
			}
		}
		if len(text) > 64<<10 {
			t.Fatalf("people are told %d bytes", len(text))
		}
	}
}
