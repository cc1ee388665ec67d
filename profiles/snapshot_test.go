package profiles_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/profiles"
)

func TestSnapshotWithProfilesReadJustNow(t *testing.T) {
	const at = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, ref: `
	tests := map[string]struct {
		memory, live []source
		want         []string
		ref          string
	}{
		"one that memory lacks": {
			live: []source{cluster("site", at+`now}`)},
			want: []string{"site Annotation Applied Applied"}, ref: "--ref=now",
		},
		"one that memory has as it was": {
			memory: []source{cluster("site", at+`then}`)},
			live:   []source{cluster("site", at+`now}`)},
			want:   []string{"site Annotation Applied Applied"}, ref: "--ref=now",
		},
		"the namespace's own, which shadows": {
			memory: []source{cluster("site", at+`cluster}`)},
			live:   []source{namespaced("web", "site", at+`web}`)},
			want:   []string{"web/site Annotation Applied Applied"}, ref: "--ref=web",
		},
		"the cluster's, which does not": {
			memory: []source{namespaced("web", "site", at+`web}`)},
			live:   []source{cluster("site", at+`cluster}`)},
			want:   []string{"web/site Annotation Applied Applied"}, ref: "--ref=web",
		},
		"one that is not allowed here": {
			live: []source{cluster("site", at+`now}, allowedNamespaces: {matchLabels: {team: db}}`)},
			want: []string{"site Annotation Rejected ProfileNotAvailable"},
		},
		"none": {
			memory: []source{cluster("site", at+`then}`)},
			want:   []string{"site Annotation Applied Applied"}, ref: "--ref=then",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			memory := snapshotOf(t, test.memory...)
			var live []*profiles.Profile
			for _, from := range test.live {
				live = append(live, compile(t, from))
			}
			decision := profiles.Decide(memory.With(live...), web(), podOf(t, asking("site"), appOnly))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
			if test.ref != "" && decision.Pod().Spec.InitContainers[0].Args[1] != test.ref {
				t.Errorf("want %s, got %v", test.ref, decision.Pod().Spec.InitContainers[0].Args)
			}
			if memory.Len() != len(test.memory) {
				t.Errorf("the Snapshot has %d profiles by now", memory.Len())
			}
		})
	}
}

func TestAProfileReadJustNowIsPolicyInPlaceOfWhatMemoryHas(t *testing.T) {
	everywhere, nowhere := gitSync+`, match: {}`, gitSync+`, match: {podSelector: {matchLabels: {app: none-such}}}`
	applied := []string{"site Match Applied Applied"}
	tests := map[string]struct {
		memory *profiles.Snapshot
		live   string
		want   []string
	}{
		"one that memory lacks":                 {snapshotOf(t), everywhere, applied},
		"one whose match chooses the Pod now":   {snapshotOf(t, cluster("site", nowhere)), everywhere, applied},
		"one whose match chooses it no longer":  {snapshotOf(t, cluster("site", everywhere)), nowhere, nil},
		"one that is as it was":                 {snapshotOf(t, cluster("site", everywhere)), everywhere, applied},
		"one that has no match any longer":      {snapshotOf(t, cluster("site", everywhere)), gitSync, nil},
		"another one, which leaves it in place": {snapshotOf(t, cluster("site", everywhere)), "", applied},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			read := cluster("site", test.live)
			if test.live == "" {
				read = cluster("other", gitSync)
			}
			decision := profiles.Decide(test.memory.With(compile(t, read)), web(), podOf(t, `{}`, appOnly))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOneNameMayBeInEveryNamespace(t *testing.T) {
	snapshot := snapshotOf(t, namespaced("a", "site", gitSync), namespaced("b", "site", gitOther), cluster("site", gitSync))
	if snapshot.Len() != 3 {
		t.Errorf("it has %d profiles", snapshot.Len())
	}
	for namespace, want := range map[string]string{"a": "a/site", "b": "b/site", "c": "site"} {
		decision := profiles.Decide(snapshot, profiles.Namespace{Name: namespace}, podOf(t, asking("site"), appOnly))
		if diff := cmp.Diff([]string{want + " Annotation Applied Applied"}, outcomes(&decision)); diff != "" {
			t.Error(diff)
		}
	}
}
