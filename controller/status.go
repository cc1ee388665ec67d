package controller

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// The reasons of a profile's conditions.
const (
	// ReasonAccepted: the spec can be used.
	ReasonAccepted = "Accepted"
	// ReasonInvalidSpec: the spec cannot be used; the message names each field that is wrong.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonInvalidSelector: a selector of match cannot be used.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonTooManySelections: match with failurePolicy Fail would be one more call for Pods than there may be.
	ReasonTooManySelections = "TooManySelections"

	// ReasonReady: Pods get the profile.
	ReasonReady = "Ready"
	// ReasonNotAccepted: the condition Accepted says why Pods do not get the profile.
	ReasonNotAccepted = "NotAccepted"
	// ReasonNamespaceExcluded: no Pod in the profile's namespace is ever touched.
	ReasonNamespaceExcluded = "NamespaceExcluded"
	// ReasonWebhookConfigurationNotFound: the object that the API server would call the webhook by does not exist.
	ReasonWebhookConfigurationNotFound = "WebhookConfigurationNotFound"
	// ReasonWebhookConfigurationPending: the API server is not told yet to call the webhook for the Pods that match.
	ReasonWebhookConfigurationPending = "WebhookConfigurationPending"
)

// maxMessageProblems bounds how many problems a condition's message tells; maxMessage is what the API server takes.
const (
	maxMessageProblems = 20
	maxMessage         = 32768
)

// verdict is one condition's status, reason and message.
type verdict struct {
	ok              bool
	reason, message string
}

func ready() verdict { return verdict{ok: true, reason: ReasonReady, message: "Pods get the profile."} }

// statusOf returns the status of a profile that compiles to what is given. refused is why its match cannot have an entry, nil if
// it can; serving is Ready as it is if the spec is accepted. Conditions that stay keep their transition times.
func statusOf(
	before v1alpha1.ProfileStatus, generation int64, compiled *profiles.Profile, refused *refusal, serving verdict, now metav1.Time,
) v1alpha1.ProfileStatus {
	status := *before.DeepCopy()
	status.ObservedGeneration = generation
	status.Kind = compiled.Kind
	status.Revision = compiled.Revision

	accepted := verdict{ok: true, reason: ReasonAccepted, message: "The spec can be used."}
	switch {
	case len(compiled.Problems) > 0:
		accepted = verdict{reason: ReasonInvalidSpec, message: problemsOf(compiled)}
	case refused != nil:
		accepted = verdict{reason: refused.reason, message: refused.message}
	}
	if !accepted.ok {
		serving = verdict{reason: ReasonNotAccepted, message: "The profile is not accepted: " + accepted.message}
	}
	setCondition(&status, v1alpha1.ConditionAccepted, accepted, now)
	setCondition(&status, v1alpha1.ConditionReady, serving, now)
	return status
}

func setCondition(status *v1alpha1.ProfileStatus, conditionType string, is verdict, now metav1.Time) {
	condition := metav1.Condition{
		Type:               conditionType,
		Status:             metav1.ConditionFalse,
		Reason:             is.reason,
		Message:            cut(is.message, maxMessage),
		ObservedGeneration: status.ObservedGeneration,
		LastTransitionTime: now,
	}
	if is.ok {
		condition.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&status.Conditions, condition)
}

// problemsOf returns what is wrong with a profile, a line each.
func problemsOf(compiled *profiles.Profile) string {
	var lines []string
	for i, problem := range compiled.Problems {
		if i == maxMessageProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(compiled.Problems)-i))
			break
		}
		lines = append(lines, problem.Error())
	}
	return strings.Join(lines, "\n")
}

// cut shortens a text to a number of bytes, between characters.
func cut(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.ToValidUTF8(text[:length], "")
}
