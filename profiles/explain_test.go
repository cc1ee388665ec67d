package profiles_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pillion-dev/pillion/profiles"
)

// TestAnExplanationIsTheDecisions: what is explained is what is decided, and every outcome is in it.
func TestAnExplanationIsTheDecisions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		request := profiles.Request{Namespace: w.namespace, Pod: decodePod(t, w.raw)}
		want := request.Decide(w.snapshot)
		for name, explain := range map[string]func(*profiles.Snapshot) profiles.Explanation{
			"Explain": request.Explain, "ExplainToReader": request.ExplainToReader,
		} {
			got := explain(w.snapshot)
			if got, want := bytesOf(t, got.Decision), bytesOf(t, want); got != want {
				t.Fatalf("%s tells of another decision:\n%s", name, cmp.Diff(want, got))
			}
			if got.Allowed != want.Allowed || got.Denial != want.Denial() || !slices.Equal(got.Warnings, want.Warnings) {
				t.Fatalf("%s says %v %q %q", name, got.Allowed, got.Denial, got.Warnings)
			}
			if !bytes.Equal(encode(t, got), encode(t, explain(w.snapshot))) {
				t.Fatalf("%s says something else the second time", name)
			}
			expectTold(t, &got)
		}
	})
}

// expectTold fails unless every outcome is told, and nothing else as if it were one.
func expectTold(t *rapid.T, explained *profiles.Explanation) {
	causes, told := map[string]bool{}, map[string]bool{}
	for _, outcome := range explained.Decision.Outcomes {
		causes[fmt.Sprint(outcome.Profile, outcome.Namespace, outcome.Reason, outcome.Message)] = true
	}
	for _, entry := range explained.Profiles {
		for _, cause := range append([]profiles.Cause{entry.Cause}, entry.More...) {
			if cause.Message == "" || cause.Reason == "" {
				t.Fatalf("an entry without words: %+v", entry)
			}
			key := fmt.Sprint(entry.Profile, entry.Namespace, cause.Reason, cause.Message)
			if causes[key] != entry.Considered {
				t.Fatalf("considered is %v: %+v", entry.Considered, entry)
			}
			if told[key] && entry.Considered {
				t.Fatalf("%s is told twice", key)
			}
			told[key] = true
		}
		for _, setting := range entry.Settings {
			if setting.Path == "" || len(setting.Value) == 0 || setting.Source == "" {
				t.Fatalf("a setting of %s without words: %+v", entry.Profile, setting)
			}
		}
		if valid := entry.Result == profiles.Applied; valid && entry.Kind != "Custom" && len(entry.Settings) == 0 {
			t.Fatalf("an applied profile without settings: %+v", entry)
		}
	}
	for key := range causes { // what was woven at one look and refused at the next is told once
		if explained.Allowed && !told[key] {
			t.Fatalf("an outcome is not told: %s", key)
		}
	}
}

// reasonsOf says what became of each profile, without the words.
func reasonsOf(explained *profiles.Explanation) []string {
	var short []string
	for i := range explained.Profiles {
		entry := &explained.Profiles[i]
		name := entry.Profile
		if entry.Namespace != "" {
			name = entry.Namespace + "/" + name
		}
		short = append(short, fmt.Sprintf("%s %s", name, entry.Reason))
	}
	return short
}

func TestWhyAProfileDoesNotApply(t *testing.T) {
	const policy = gitOther + `, match: {namespaceSelector: {matchLabels: {team: web}}, podSelector: {matchLabels: {app: shop}}}`
	tests := map[string]struct {
		profiles        []source
		label, metadata string
		want            []string // as whoever may create Pods is told
		reader          []string // as who reads the profiles is told; nil: the same
		words           []string
	}{
		"nothing asks": {
			profiles: []source{cluster("site", gitSync)}, metadata: `{}`,
			want:  []string{"site NotRequested"},
			words: []string{"nothing asks for it, and it has no match; to get it, give the Pod the annotation pillion.dev/inject: site"},
		},
		"something else is asked for": {
			profiles: []source{cluster("site", gitSync), cluster("cache", memcached)}, label: "cache", metadata: `{}`,
			want:  []string{"cache Applied", "site NotRequested"},
			words: []string{"the label pillion.dev/inject of namespace web does not name it"},
		},
		"a selector of Pods": {
			profiles: []source{cluster("policy", policy)}, metadata: `{labels: {app: batch}}`,
			want:  []string{"policy SelectorNotMatched"},
			words: []string{"spec.match.podSelector wants app=shop, and the Pod has app=batch"},
		},
		"both selectors": {
			profiles: []source{cluster("policy", strings.Replace(policy, "team: web", "team: db", 1))}, metadata: `{}`,
			want: []string{"policy SelectorNotMatched"},
			words: []string{"spec.match.namespaceSelector wants team=db, and namespace web has team=web; spec.match.podSelector wants app=shop, " +
				"and the Pod has no label app"},
		},
		"a condition": {
			profiles: []source{cluster("policy", gitOther+`, match: {conditions: [{name: not-me, expression: "false"}]}`)}, metadata: `{}`,
			want: []string{"policy ConditionNotMet"}, words: []string{"condition not-me"},
		},
		"the Pod declines policy": {
			profiles: []source{cluster("policy", policy), cluster("site", gitSync)}, metadata: `{labels: {app: shop}, annotations: {pillion.dev/inject: none}}`,
			want:  []string{"policy Declined", "site NotRequested"},
			words: []string{"its match chooses the Pod, and the Pod's annotation pillion.dev/inject declines: none"},
		},
		"the Pod declines what its namespace asks for": {
			profiles: []source{cluster("site", gitSync)}, label: "site", metadata: asking("none"),
			want: []string{"site Declined"},
		},
		"the Pod's annotation replaces the label": {
			profiles: []source{cluster("site", gitSync), cluster("cache", memcached)}, label: "site", metadata: asking("cache"),
			want:  []string{"cache Applied", "site LabelReplaced"},
			words: []string{"the Pod's annotation pillion.dev/inject replaces the label; add site to the annotation"},
		},
		"a profile of the namespace has the name": {
			profiles: []source{cluster("site", gitSync), namespaced("web", "site", gitOther)}, metadata: asking("site"),
			want:  []string{"web/site Applied", "site Shadowed"},
			words: []string{"PatternProfile web/site has the same name"},
		},
		"the namespace may not use it": {
			profiles: []source{cluster("site", gitSync+`, allowedNamespaces: {matchLabels: {team: db}}`)}, metadata: asking("site"),
			want: []string{"site ProfileNotAvailable"}, reader: []string{"site ProfileNotAvailable", "site NamespaceNotAllowed"},
			words: []string{"spec.allowedNamespaces of ClusterPatternProfile site wants team=db, and namespace web has team=web"},
		},
		"the namespace may not use it, and nobody asks": {
			profiles: []source{cluster("site", gitSync+`, allowedNamespaces: {matchLabels: {team: db}}`)}, metadata: `{}`,
			reader: []string{"site NamespaceNotAllowed"},
		},
		"a profile that cannot be used": {
			profiles: []source{cluster("site", `gitSync: {repo: "https://x.example.com", mountPath: relative}, match: {}`)}, metadata: `{}`,
			want: []string{"site ProfileNotReady"}, words: []string{"cannot be used, for anybody, until it is mended: spec.gitSync.mountPath"},
		},
		"the Pod was woven before": {
			profiles: []source{cluster("policy", policy)}, metadata: `{labels: {app: shop, pillion.dev/injected: "true"}}`,
			want: []string{"policy WovenBefore"},
		},
		"a mirror Pod": {
			profiles: []source{cluster("site", gitSync), cluster("policy", policy), cluster("cache", memcached)},
			metadata: `{labels: {app: shop}, annotations: {pillion.dev/inject: site, kubernetes.io/config.mirror: x}}`,
			want:     []string{"cache NotRequested", "policy MirrorPod", "site MirrorPod"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			if test.label != "" {
				namespace.Labels["pillion.dev/inject"] = test.label
			}
			request := profiles.Request{Namespace: namespace, Pod: podOf(t, test.metadata, appOnly)}
			snapshot := snapshotOf(t, test.profiles...)
			told, toReader := request.Explain(snapshot), request.ExplainToReader(snapshot)
			if diff := cmp.Diff(test.want, reasonsOf(&told)); diff != "" {
				t.Error(diff)
			}
			if test.reader == nil {
				test.reader = test.want
			}
			if diff := cmp.Diff(test.reader, reasonsOf(&toReader)); diff != "" {
				t.Error(diff)
			}
			for _, words := range test.words {
				if text := string(encode(t, toReader)); !strings.Contains(text, words) {
					t.Errorf("want %q in %s", words, text)
				}
			}
		})
	}
	t.Run("an excluded namespace", func(t *testing.T) {
		request := profiles.Request{Namespace: profiles.Namespace{Name: "kube-system"}, Pod: podOf(t, asking("site"), appOnly)}
		told := request.Explain(snapshotOf(t, cluster("site", gitSync)))
		if diff := cmp.Diff([]string{"site NamespaceExcluded"}, reasonsOf(&told)); diff != "" || told.Exempt == nil {
			t.Error(diff)
		}
	})
	t.Run("a match that gets no entry", func(t *testing.T) {
		var all []source
		for i := range 11 {
			all = append(all, cluster(fmt.Sprintf("p%02d", i), fmt.Sprintf(`%s, failurePolicy: Fail, match: {podSelector: {matchLabels: {p%d: ""}},
              namespaceSelector: {matchLabels: {team: web}}}`, gitSync, i)))
		}
		told := profiles.Request{Namespace: web(), Pod: podOf(t, `{labels: {p10: ""}}`, appOnly)}.Explain(snapshotOf(t, all...))
		if reasons := reasonsOf(&told); !slices.Contains(reasons, "p10 TooManySelections") {
			t.Error(reasons)
		}
	})
}

func TestSeveralProblemsAreOfOneProfile(t *testing.T) {
	pod := podOf(t, `{annotations: {pillion.dev/inject: site, site.pillion.dev/repo: x, site.pillion.dev/depth: deep}}`, appOnly)
	told := profiles.Request{Namespace: web(), Pod: pod}.Explain(snapshotOf(t, cluster("site", openGitSync)))
	if len(told.Profiles) != 1 || len(told.Profiles[0].More) != 1 || !told.Profiles[0].Denies || len(told.Profiles[0].Settings) > 0 {
		t.Errorf("got %s", encode(t, told))
	}
}

func TestTheOrderIsThatOfTheStarts(t *testing.T) {
	snapshot := snapshotOf(t, cluster("a", templates), cluster("site", gitSync), cluster("policy", memcached+`, match: {conditions: [{name: no, expression: "false"}]}`))
	told := profiles.Request{Namespace: web(), Pod: podOf(t, asking("a, site"), appOnly)}.Explain(snapshot)
	if diff := cmp.Diff([]string{"site", "a"}, told.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestWhatEnforcesIsTold(t *testing.T) {
	snapshot := snapshotOf(t, cluster("must", gitSync+`, match: {enforce: true, podSelector: {}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}`),
		cluster("may", memcached+`, match: {podSelector: {}}`))
	for asks, want := range map[string]string{`{}`: "may must!", asking("none"): "must!"} {
		told := profiles.Request{Namespace: web(), Pod: podOf(t, asks, appOnly)}.Explain(snapshot)
		var got []string
		for _, entry := range told.Profiles {
			if entry.Order > 0 {
				got = append(got, entry.Profile+map[bool]string{true: "!"}[entry.Enforced])
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %s", asks, got, want)
		}
	}
}
