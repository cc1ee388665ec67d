package controller

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestStatusOf(t *testing.T) {
	earlier, now := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	good := compiledGitSync(t, nil)
	problems := field.ErrorList{
		field.Required(field.NewPath("spec", "gitSync", "repo"), "name a repository"),
		field.Invalid(field.NewPath("spec", "overridable"), "x", "no such field"),
	}
	bad := &profiles.Profile{Problems: problems}
	broken, deleted := *good, *good
	broken.Broken, broken.Generation = problems, 5
	deleted.Deleted = true
	pending := verdict{reason: ReasonWebhookConfigurationPending, message: "not in place"}
	readySince := v1alpha1.ProfileStatus{
		ObservedGeneration: 1, Kind: v1alpha1.KindGitSync, Revision: "old", LastGood: lastGood(5),
		Pods: &v1alpha1.PodCounts{Current: 7},
		Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True", Reason: ReasonAccepted, ObservedGeneration: 1, LastTransitionTime: earlier},
			{Type: "Ready", Status: "True", Reason: ReasonReady, ObservedGeneration: 1, LastTransitionTime: earlier},
			{Type: "Other", Status: "True", Reason: "Theirs", ObservedGeneration: 1, LastTransitionTime: earlier},
		},
	}
	const accepted, restricted = "Accepted True Accepted since 2000: can be used", "Restricted True MeetsRestricted since 2000: "
	tests := map[string]struct {
		before v1alpha1.ProfileStatus
		seen   observation
		// want are the conditions as "TYPE STATUS REASON since SECONDS: a part of the message".
		want []string
		// wantGood is the generation of the last good spec, zero if there is to be none.
		wantGood int64
		wantPods *v1alpha1.PodCounts
	}{
		"a new profile that compiles is ready": {
			seen:     observation{served: good, serving: ready(), pods: &v1alpha1.PodCounts{Current: 2, Outdated: 1}},
			want:     []string{accepted, "Ready True Ready since 2000: Pods get", restricted},
			wantGood: 7, wantPods: &v1alpha1.PodCounts{Current: 2, Outdated: 1},
		},
		"a profile whose entry is not in place is accepted and not ready": {
			seen:     observation{served: good, serving: pending},
			want:     []string{accepted, "Ready False WebhookConfigurationPending since 2000: not in place", restricted},
			wantGood: 7,
		},
		"a profile that does not compile tells every problem": {
			seen: observation{served: bad, serving: ready()},
			want: []string{
				"Accepted False InvalidSpec since 2000: name a repository\nspec.overridable: Invalid value: \"x\": no such field",
				"Ready False NotAccepted since 2000: no such field", "Restricted Unknown NotAccepted since 2000: ",
			},
		},
		"a match that is refused makes the profile neither, and keeps what was good": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)},
			seen: observation{
				served: good, refused: &profiles.Refusal{Reason: ReasonTooManySelections, Message: "ten are there"}, released: true,
			},
			want: []string{
				"Accepted False TooManySelections since 2000: ten are there", "Ready False NotAccepted since 2000: ten are there",
				restricted,
			},
			wantGood: 5,
		},
		"a condition that stays keeps its time, and a stranger's is kept, as are counts until there are others": {
			before: readySince, seen: observation{served: good, serving: pending},
			want: []string{
				"Accepted True Accepted since 1000: can be used",
				"Ready False WebhookConfigurationPending since 2000: not in place",
				"Other True Theirs since 1000: ", restricted,
			},
			wantGood: 7, wantPods: &v1alpha1.PodCounts{Current: 7},
		},
		"a broken profile says what is served, what is wrong, who asks and how to end it": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)},
			seen: observation{served: &broken, serving: ready(), users: &users{
				counted: true, number: 7, asking: []string{"Deployment shop/a", "b", "c", "d", "e"},
			}},
			want: []string{
				"Accepted False InvalidSpec since 2000: name a repository",
				"Ready False ServingLastGood since 2000: Pods get the spec of generation 5, the last that could be used. " +
					"Of generation 7: spec.gitSync.repo: Required value: name a repository",
				restricted, "InUse True AskedFor since 2000: 7 still ask for the profile: Deployment shop/a, b, c, d, e and 2 more.",
			},
			wantGood: 5,
		},
		"what a broken profile was is kept while it is not known who asks": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)}, seen: observation{served: &broken, users: &users{}},
			want: []string{
				"Accepted False InvalidSpec since 2000: ", "Ready False ServingLastGood since 2000: ", restricted,
				"InUse Unknown Counting since 2000: ",
			},
			wantGood: 5,
		},
		"what a broken profile was is kept while it cannot be looked up who asks": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)},
			seen:   observation{served: &broken, users: &users{err: errors.New("list the Jobs: forbidden")}},
			want: []string{
				"Accepted False InvalidSpec since 2000: ", "Ready False ServingLastGood since 2000: ", restricted,
				"InUse Unknown CannotList since 2000: It cannot be looked up who asks for the profile: list the Jobs: forbidden",
			},
			wantGood: 5,
		},
		"what a broken profile was is kept while its match chooses Pods": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)},
			seen:   observation{served: &broken, users: &users{counted: true, policy: true}},
			want: []string{
				"Accepted False InvalidSpec since 2000: ", "Ready False ServingLastGood since 2000: ", restricted,
				"InUse True ChosenByMatch since 2000: ",
			},
			wantGood: 5,
		},
		"what a broken profile was is forgotten when nobody asks": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)}, seen: observation{served: &broken, users: &users{counted: true}},
			want: []string{
				"Accepted False InvalidSpec since 2000: ", "Ready False ServingLastGood since 2000: ", restricted,
				"InUse False NobodyAsks since 2000: ",
			},
		},
		"what a broken profile was is forgotten when an administrator says so": {
			before: v1alpha1.ProfileStatus{LastGood: lastGood(5)}, seen: observation{served: bad, released: true},
			want: []string{
				"Accepted False InvalidSpec since 2000: ", "Ready False NotAccepted since 2000: ",
				"Restricted Unknown NotAccepted since 2000: ",
			},
		},
		"a deleted profile says for whom it is kept": {
			before: readySince,
			seen: observation{served: &deleted, serving: ready(), users: &users{
				counted: true, number: 1, asking: []string{"Deployment shop/a"},
			}},
			want: []string{
				"Accepted True Accepted since 1000: ", "Ready False Terminating since 2000: the condition InUse says who. To end it sooner " +
					"set the annotation pillion.dev/release",
				"Other True Theirs since 1000: ", restricted, "InUse True AskedFor since 2000: 1 still ask",
			},
			wantGood: 7, wantPods: &v1alpha1.PodCounts{Current: 7},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.seen.generation, test.seen.spec, test.seen.now = 7, map[string]string{"a": "b"}, now
			got, err := statusOf(&test.before, &test.seen)
			if err != nil {
				t.Fatal(err)
			}
			if got.ObservedGeneration != 7 || got.Revision != test.seen.served.Revision || got.Kind != test.seen.served.Kind {
				t.Errorf("generation %d, revision %q, kind %q", got.ObservedGeneration, got.Revision, got.Kind)
			}
			checkConditions(t, got.Conditions, test.want, map[metav1.Time]string{earlier: "1000", now: "2000"})
			if diff := cmp.Diff(test.wantPods, got.Pods); diff != "" {
				t.Errorf("Pods (-want +got):\n%s", diff)
			}
			switch {
			case test.wantGood == 0 && got.LastGood != nil, test.wantGood != 0 && got.LastGood == nil:
				t.Errorf("last good: %v", got.LastGood)
			case test.wantGood == 7 && (got.LastGood.Generation != 7 || string(got.LastGood.Spec.Raw) != `{"a":"b"}`),
				test.wantGood == 5 && !cmp.Equal(got.LastGood, lastGood(5)):
				t.Errorf("last good: %v of %s", got.LastGood.Generation, got.LastGood.Spec.Raw)
			}
			test.seen.now = metav1.NewTime(time.Unix(3000, 0))
			again, _ := statusOf(&got, &test.seen)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("the same again changes the status:\n%s", diff)
			}
		})
	}
}

func TestTheConditionInUseGoesWithItsCause(t *testing.T) {
	before := v1alpha1.ProfileStatus{Conditions: []metav1.Condition{{Type: "InUse", Status: "True", Reason: ReasonAskedFor}}}
	got, err := statusOf(&before, &observation{served: compiledGitSync(t, nil), serving: ready()})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range got.Conditions {
		if condition.Type == "InUse" {
			t.Errorf("%+v", condition)
		}
	}
}

func TestAMessageIsBounded(t *testing.T) {
	compiled := &profiles.Profile{}
	for range 25 {
		compiled.Problems = append(compiled.Problems, field.Forbidden(field.NewPath("spec"), strings.Repeat("ä", 5000)))
	}
	status, err := statusOf(&v1alpha1.ProfileStatus{}, &observation{served: compiled})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range status.Conditions[:2] {
		if len(condition.Message) > maxMessage || !strings.HasSuffix(condition.Message, "ä") {
			t.Errorf("%s: %d bytes, ending in %q", condition.Type, len(condition.Message), condition.Message[len(condition.Message)-4:])
		}
	}
	if got := linesOf(compiled.Problems); !strings.HasSuffix(got, "and 5 more") {
		t.Errorf("message ends in %q", got[len(got)-20:])
	}
}

// checkConditions checks conditions that are written as "TYPE STATUS REASON since WHEN: a part of the message".
func checkConditions(t *testing.T, got []metav1.Condition, want []string, when map[metav1.Time]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("conditions: %v", got)
	}
	for i, condition := range got {
		head, message, _ := strings.Cut(want[i], ": ")
		since := when[condition.LastTransitionTime]
		line := condition.Type + " " + string(condition.Status) + " " + condition.Reason + " since " + since
		if diff := cmp.Diff(head, line); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !strings.Contains(condition.Message, message) {
			t.Errorf("%s: message %q does not contain %q", condition.Type, condition.Message, message)
		}
		if condition.ObservedGeneration != 7 && condition.Type != "Other" {
			t.Errorf("%s speaks of generation %d", condition.Type, condition.ObservedGeneration)
		}
	}
}

func lastGood(generation int64) *v1alpha1.LastGood {
	return &v1alpha1.LastGood{Generation: generation, Spec: apiextensionsv1.JSON{Raw: json.RawMessage(`{"good":true}`)}}
}

// compiledGitSync returns a ClusterPatternProfile that can be used.
func compiledGitSync(t *testing.T, change func(*v1alpha1.ClusterPatternProfile)) *profiles.Profile {
	t.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	profile := gitSyncProfile(withoutMatch(clusterProfile("a", "", "", "")))
	if change != nil {
		change(profile)
	}
	compiled := compiler.Cluster(profile)
	if len(compiled.Problems) > 0 {
		t.Fatal(compiled.Problems)
	}
	return compiled
}
