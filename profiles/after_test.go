package profiles_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/profiles"
)

func TestProfilesStartAfterThoseTheyName(t *testing.T) {
	tests := map[string]struct {
		profiles []source
		want     []string
	}{
		"by name without a word": {
			profiles: []source{cluster("b", gitSync), cluster("a", gitOther)},
			want:     []string{"pillion-a", "pillion-b"},
		},
		"after another": {
			profiles: []source{cluster("b", gitSync), cluster("a", gitOther+`, after: [b]`)},
			want:     []string{"pillion-b", "pillion-a"},
		},
		"after what the Pod does not get": {
			profiles: []source{cluster("b", gitSync), cluster("a", gitOther+`, after: [c]`), cluster("c", memcached)},
			want:     []string{"pillion-a", "pillion-b"},
		},
		"in a namespace after its own": {
			profiles: []source{namespaced("web", "b", gitSync), namespaced("web", "a", gitOther+`, after: [b]`)},
			want:     []string{"pillion-b", "pillion-a"},
		},
		"in a namespace after the cluster's": {
			profiles: []source{cluster("b", gitSync), namespaced("web", "a", gitOther+`, after: [b]`)},
			want:     []string{"pillion-b", "pillion-a"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshotOf(t, test.profiles...), web(), podOf(t, asking("a,b"), appOnly))
			if diff := cmp.Diff(test.want, initNames(decision.Pod())); diff != "" {
				t.Error(diff, decision.Denial())
			}
		})
	}
}

func TestAfterThatCannotBeFollowedIsReported(t *testing.T) {
	tests := map[string]struct {
		profiles []source
		name     string
		want     string
	}{
		"a name that nothing has": {
			profiles: []source{cluster("a", gitSync+`, after: [b]`)}, name: "a",
			want: `spec.after[0]: Not found: "b"`,
		},
		"a name that only a namespace has": {
			profiles: []source{cluster("a", gitSync+`, after: [b]`), namespaced("web", "b", gitOther)}, name: "a",
			want: `spec.after[0]: Not found: "b"`,
		},
		"a circle": {
			profiles: []source{
				cluster("a", gitSync+`, after: [c]`), cluster("b", gitOther+`, after: [a]`), cluster("c", memcached+`, after: [b]`),
			},
			name: "a",
			want: `leads back to the profile itself (a after c after b after a)`,
		},
		"the profile itself": {
			profiles: []source{cluster("a", gitSync+`, after: [a]`)}, name: "a",
			want: `spec.after[0]: Invalid value: "a": is the profile itself`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := snapshotOf(t, test.profiles...)
			problems := fmt.Sprint(snapshot.Profile("", test.name).Problems)
			if !strings.Contains(problems, test.want) {
				t.Errorf("problems: %s, want %s", problems, test.want)
			}
			decision := profiles.Decide(snapshot, web(), podOf(t, asking(test.name), appOnly))
			if diff := cmp.Diff([]string{test.name + " Annotation Rejected ProfileNotReady"}, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Layers of profiles, each after all of the layer before, have a huge number of ways through them.
func TestManyWaysAreSearchedInShortTime(t *testing.T) {
	var all []source
	var before []string
	for layer := range 12 {
		var names []string
		for i := range 10 {
			name := fmt.Sprintf("l%d-%d", layer, i)
			spec := gitSync
			if len(before) > 0 {
				spec += `, after: [` + strings.Join(before, ", ") + `]`
			}
			all = append(all, cluster(name, spec))
			names = append(names, name)
		}
		before = names
	}
	snapshot := snapshotOf(t, all...)
	if problems := snapshot.Profile("", "l11-0").Problems; len(problems) > 0 {
		t.Error(problems)
	}
}

func TestALargeCircleIsToldShortly(t *testing.T) {
	var all []source
	for i := range 20 {
		all = append(all, cluster(fmt.Sprintf("p%d", i), gitSync+fmt.Sprintf(`, after: [p%d]`, (i+1)%20)))
	}
	all = append(all, cluster("beside", gitSync+`, after: [p0]`))
	snapshot := snapshotOf(t, all...)
	got := fmt.Sprint(snapshot.Profile("", "p7").Problems.ToAggregate())
	if want := "leads back to the profile itself (through some of 20 profiles that come after each other)"; !strings.Contains(got, want) {
		t.Error(got)
	}
	if problems := snapshot.Profile("", "beside").Problems; len(problems) > 0 {
		t.Errorf("one beside the circle: %v", problems)
	}
}

func TestReviewOfAProfileThatIsToBeStored(t *testing.T) {
	snapshot := snapshotOf(t, cluster("a", gitSync+`, after: [b]`), cluster("b", gitOther))
	tests := map[string]struct {
		profile           source
		problem, warnings string
	}{
		"one that closes a circle":         {cluster("b", gitOther+`, after: [a]`), "b after a after b", "[]"},
		"one that names what is not there": {cluster("c", gitOther+`, after: [nosuch]`), "", "spec.after names nosuch"},
		"one that is well":                 {cluster("c", gitOther+`, after: [a]`), "", "[]"},
		"one of a name in a namespace":     {namespaced("web", "b", gitOther+`, after: [a]`), "", "[]"},
		"one that is wrong in itself":      {cluster("c", `gitSync: {}`), "spec.gitSync.repo: Required value", "[]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			problems, warnings := snapshot.Review(compile(t, test.profile))
			if (len(problems) > 0) != (test.problem != "") || !strings.Contains(fmt.Sprint(problems), test.problem) {
				t.Errorf("problems: %v, want %q", problems, test.problem)
			}
			if !strings.Contains(fmt.Sprint(warnings), test.warnings) {
				t.Errorf("warnings: %q, want %q", warnings, test.warnings)
			}
		})
	}
}

// stored returns a profile as the API server has it: with a generation, and what the controller knows of it.
func stored(t *testing.T, spec, status string, metadata ...string) *profiles.Profile {
	t.Helper()
	return compileObject(t, fmt.Sprintf(`{apiVersion: pillion.dev/v1alpha1, kind: ClusterPatternProfile,
  metadata: {name: site, generation: 3, creationTimestamp: "2026-01-01T00:00:00Z"%s}, spec: {%s}, status: {%s}}`,
		strings.Join(append([]string{""}, metadata...), ", "), spec, status))
}

func TestTheLastGoodRevisionServesWhileTheCurrentOneCannot(t *testing.T) {
	const (
		good     = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}`
		broken   = `gitSync: {repo: "https://git.example.com/site.git", mountPath: relative}`
		lastGood = `observedGeneration: 3, lastGood: {generation: 2, spec: {` + good + `}}`
	)
	tests := map[string]struct {
		profile    *profiles.Profile
		want       []string
		warning    string
		generation int64
	}{
		"a spec that is broken, with a good one before it": {
			profile: stored(t, broken, lastGood), want: []string{"site Annotation Applied Applied"},
			warning: "its last good revision", generation: 2,
		},
		"a spec that is broken, with none before it": {
			profile: stored(t, broken, `observedGeneration: 3`), want: []string{"site Annotation Rejected ProfileNotReady"}, generation: 3,
		},
		"a spec that is broken, and the administrator has said that it is to serve nobody": {
			profile: stored(t, broken, lastGood, `annotations: {pillion.dev/release: "true"}`),
			want:    []string{"site Annotation Rejected ProfileNotReady"}, generation: 3,
		},
		"a spec that is well": {
			profile: stored(t, good+`, overridable: [ref]`, lastGood), want: []string{"site Annotation Applied Applied"}, generation: 3,
		},
		"after a profile that is not there, with a good spec before": {
			profile: stored(t, good+`, after: [nosuch]`, lastGood), want: []string{"site Annotation Applied Applied"},
			warning: "its last good revision", generation: 2,
		},
		"after a profile that has gone": {
			profile: stored(t, good+`, after: [nosuch]`, `lastGood: {generation: 3, spec: {`+good+`, after: [nosuch]}}`),
			want:    []string{"site Annotation Applied Applied"}, warning: "its last good revision", generation: 3,
		},
		"after a profile that never was": {
			profile: stored(t, good+`, after: [nosuch]`, ``), want: []string{"site Annotation Rejected ProfileNotReady"}, generation: 3,
		},
		"a last good one that this version cannot use either": {
			profile: stored(t, broken, `lastGood: {generation: 2, spec: {`+broken+`}}`),
			want:    []string{"site Annotation Rejected ProfileNotReady"}, generation: 3,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := profiles.NewSnapshot(options(), []*profiles.Profile{test.profile})
			decision := profiles.Decide(snapshot, web(), podOf(t, asking("site"), appOnly))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
			if warnings := strings.Join(decision.Warnings, "\n"); (warnings != "") != (test.warning != "") ||
				!strings.Contains(warnings, test.warning) {
				t.Errorf("warnings: %q, want %q", warnings, test.warning)
			}
			if served := snapshot.Profile("", "site"); served.Generation != test.generation {
				t.Errorf("generation %d is served, want %d", served.Generation, test.generation)
			}
		})
	}
}

func TestADeletedProfileServesThoseWhoAskAndNoPolicy(t *testing.T) {
	profile := stored(t, gitSync+`, match: {}`, ``, `deletionTimestamp: "2026-01-02T00:00:00Z", deletionGracePeriodSeconds: 0`)
	snapshot := profiles.NewSnapshot(options(), []*profiles.Profile{profile})
	asked := profiles.Decide(snapshot, web(), podOf(t, asking("site"), appOnly))
	if diff := cmp.Diff([]string{"site Annotation Applied Applied"}, outcomes(&asked)); diff != "" {
		t.Error(diff)
	}
	if matched := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly)); len(matched.Outcomes) > 0 {
		t.Errorf("policy still chooses: %v", outcomes(&matched))
	}
}

func TestWhatMemoryKeepsUntilTheControllerHasSeenTheChange(t *testing.T) {
	good := stored(t, gitSync, ``)
	unseen, seen := stored(t, `gitSync: {}`, `observedGeneration: 2`), stored(t, `gitSync: {}`, `observedGeneration: 3`)
	if kept := profiles.Keep(good, unseen); len(kept.Problems) > 0 || len(kept.Broken) == 0 || kept.Revision != good.Revision {
		t.Errorf("a good one gave way to %+v", kept.Problems)
	}
	if kept := profiles.Keep(good, seen); len(kept.Problems) == 0 {
		t.Error("a profile that the controller has let go is kept")
	}
	if kept := profiles.Keep(seen, unseen); len(kept.Problems) == 0 {
		t.Error("a broken one is kept")
	}
	mended := stored(t, gitOther, ``)
	if profiles.Keep(good, mended) != mended {
		t.Error("a good one does not give way to a good one")
	}
	if profiles.Keep(nil, unseen) != unseen {
		t.Error("there was nothing to keep")
	}
	released := stored(t, `gitSync: {}`, ``, `annotations: {pillion.dev/release: "true"}`)
	gone := stored(t, `gitSync: {}`, ``, `deletionTimestamp: "2026-01-02T00:00:00Z"`, `deletionGracePeriodSeconds: 0`)
	kept := profiles.Keep(stored(t, gitSync+", match: {}", ``), gone)
	chosen := profiles.Decide(profiles.NewSnapshot(options(), []*profiles.Profile{kept}), web(), podOf(t, `{}`, appOnly))
	if !kept.Deleted || len(kept.Problems) > 0 || len(chosen.Outcomes) > 0 {
		t.Errorf("the policy of a deleted profile goes on: deleted %t, %v", kept.Deleted, chosen.Outcomes)
	}
	if kept := profiles.Keep(good, released); len(kept.Problems) == 0 {
		t.Error("a profile that an administrator released is kept")
	}
}

// Nobody asks by name for a profile whose match chooses Pods, and yet others may read from it.
func TestADeletedProfileStaysAsItWasWhileOthersReadFromIt(t *testing.T) {
	const gone = `deletionTimestamp: "2026-01-02T00:00:00Z"`
	deleted := stored(t, gitSync+`, match: {}`, ``, gone, `deletionGracePeriodSeconds: 0`)
	reader := compile(t, cluster("conf", `templateProcessor: {templates: {gitSync: {profile: site, path: conf}}, mountPath: /etc/app}`))
	tenants := compile(t, namespaced("other", "site", gitOther)) // which the cluster's reader does not mean
	tests := map[string]struct {
		profiles []*profiles.Profile
		readers  []string
		want     []string
	}{
		"while another reads": {
			[]*profiles.Profile{reader, deleted, tenants},
			[]string{"ClusterPatternProfile conf"},
			[]string{"site Match Applied Applied", "conf Annotation Applied Applied"},
		},
		"until none does": {[]*profiles.Profile{deleted, tenants}, nil, []string{"conf Annotation Rejected ProfileNotAvailable"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := profiles.NewSnapshot(options(), test.profiles)
			if diff := cmp.Diff(test.readers, snapshot.Readers(deleted)); diff != "" {
				t.Error(diff)
			}
			decision := profiles.Decide(snapshot, web(), podOf(t, asking("conf"), appOnly))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff, decision.Denial())
			}
		})
	}
}

func TestASpecIsCompiledOnce(t *testing.T) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	object := func(generation int, spec, status string, metadata ...string) map[string]any {
		object := map[string]any{}
		manifest := fmt.Sprintf(`{apiVersion: pillion.dev/v1alpha1, kind: ClusterPatternProfile, metadata: {name: site, generation: %d%s},
          spec: {%s}, status: {%s}}`, generation, strings.Join(append([]string{""}, metadata...), ", "), spec, status)
		if err := yaml.Unmarshal([]byte(manifest), &object); err != nil {
			t.Fatal(err)
		}
		return object
	}
	const lastGood = `observedGeneration: 1, lastGood: {generation: 1, spec: {` + gitSync + `}}`
	first, _ := compiler.Object(object(1, gitSync+`, match: {}`, ``))
	tests := map[string]struct {
		object  map[string]any
		same    bool
		chooses bool // Pods that do not ask
	}{
		"the controller has seen it":      {object(1, gitSync+`, match: {}`, lastGood), true, true},
		"it is deleted":                   {object(1, gitSync+`, match: {}`, lastGood, `deletionTimestamp: "2026-01-02T00:00:00Z"`), true, false},
		"another breaks, and it serves":   {object(2, `gitSync: {}`, lastGood), true, true},
		"another takes its place":         {object(2, gitOther+`, match: {}`, lastGood), false, true},
		"nobody has stored it: it is new": {object(0, gitSync+`, match: {}`, ``), false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			next, _ := compiler.Since(first).Object(test.object)
			if same := next.Pattern == first.Pattern; same != test.same || len(next.Problems) > 0 {
				t.Errorf("the same: %t, want %t; %v", same, test.same, next.Problems)
			}
			decision := profiles.Decide(profiles.NewSnapshot(options(), []*profiles.Profile{next}), web(), podOf(t, `{}`, appOnly))
			if chooses := len(decision.Patch) > 0; chooses != test.chooses {
				t.Errorf("it chooses Pods: %t, want %t", chooses, test.chooses)
			}
		})
	}
	if len(first.Broken) > 0 || first.Deleted {
		t.Error("what was compiled before has changed")
	}
}
