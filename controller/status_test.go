package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestStatusOf(t *testing.T) {
	earlier, now := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	good := &profiles.Profile{Kind: v1alpha1.KindGitSync, Revision: "abc"}
	bad := &profiles.Profile{Problems: field.ErrorList{
		field.Required(field.NewPath("spec", "gitSync", "repo"), "name a repository"),
		field.Invalid(field.NewPath("spec", "overridable"), "x", "no such field"),
	}}
	pending := verdict{reason: ReasonWebhookConfigurationPending, message: "not in place"}
	readySince := v1alpha1.ProfileStatus{
		ObservedGeneration: 1, Kind: v1alpha1.KindGitSync, Revision: "old",
		Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True", Reason: ReasonAccepted, ObservedGeneration: 1, LastTransitionTime: earlier},
			{Type: "Ready", Status: "True", Reason: ReasonReady, ObservedGeneration: 1, LastTransitionTime: earlier},
			{Type: "Other", Status: "True", Reason: "Theirs", ObservedGeneration: 1, LastTransitionTime: earlier},
		},
	}
	tests := map[string]struct {
		before   v1alpha1.ProfileStatus
		compiled *profiles.Profile
		refused  *refusal
		serving  verdict
		// want are the conditions as "TYPE STATUS REASON since SECONDS: a part of the message".
		want         []string
		wantRevision string
	}{
		"a new profile that compiles is ready": {
			compiled: good, serving: ready(), wantRevision: "abc",
			want: []string{"Accepted True Accepted since 2000: can be used", "Ready True Ready since 2000: Pods get"},
		},
		"a profile whose entry is not in place is accepted and not ready": {
			compiled: good, serving: pending, wantRevision: "abc",
			want: []string{
				"Accepted True Accepted since 2000: can be used", "Ready False WebhookConfigurationPending since 2000: not in place",
			},
		},
		"a profile that does not compile tells every problem": {
			compiled: bad, serving: ready(),
			want: []string{
				"Accepted False InvalidSpec since 2000: name a repository\nspec.overridable: Invalid value: \"x\": no such field",
				"Ready False NotAccepted since 2000: no such field",
			},
		},
		"a match that is refused makes the profile neither": {
			compiled: good, refused: &refusal{ReasonTooManySelections, "ten are there"}, wantRevision: "abc",
			want: []string{
				"Accepted False TooManySelections since 2000: ten are there", "Ready False NotAccepted since 2000: ten are there",
			},
		},
		"a condition that stays keeps its time, and a stranger's is kept": {
			before: readySince, compiled: good, serving: pending, wantRevision: "abc",
			want: []string{
				"Accepted True Accepted since 1000: can be used",
				"Ready False WebhookConfigurationPending since 2000: not in place",
				"Other True Theirs since 1000: ",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := statusOf(test.before, 7, test.compiled, test.refused, test.serving, now)
			if got.ObservedGeneration != 7 || got.Revision != test.wantRevision || got.Kind != test.compiled.Kind {
				t.Errorf("generation %d, revision %q, kind %q", got.ObservedGeneration, got.Revision, got.Kind)
			}
			if len(got.Conditions) != len(test.want) {
				t.Fatalf("conditions: %v", got.Conditions)
			}
			for i, condition := range got.Conditions {
				head, message, _ := strings.Cut(test.want[i], ": ")
				since := map[metav1.Time]string{earlier: "1000", now: "2000"}[condition.LastTransitionTime]
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
			again := statusOf(got, 7, test.compiled, test.refused, test.serving, metav1.NewTime(time.Unix(3000, 0)))
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("the same again changes the status:\n%s", diff)
			}
		})
	}
}

func TestAMessageIsBounded(t *testing.T) {
	compiled := &profiles.Profile{}
	for range 25 {
		compiled.Problems = append(compiled.Problems, field.Forbidden(field.NewPath("spec"), strings.Repeat("ä", 5000)))
	}
	status := statusOf(v1alpha1.ProfileStatus{}, 1, compiled, nil, ready(), metav1.NewTime(time.Unix(1, 0)))
	for _, condition := range status.Conditions {
		if len(condition.Message) > maxMessage || !strings.HasSuffix(condition.Message, "ä") {
			t.Errorf("%s: %d bytes, ending in %q", condition.Type, len(condition.Message), condition.Message[len(condition.Message)-4:])
		}
	}
	if got := problemsOf(compiled); !strings.HasSuffix(got, "and 5 more") {
		t.Errorf("message ends in %q", got[len(got)-20:])
	}
}
