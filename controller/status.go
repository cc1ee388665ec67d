package controller

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// The reasons of a profile's conditions.
const (
	// ReasonAccepted: the spec can be used.
	ReasonAccepted = "Accepted"
	// ReasonInvalidSpec: the spec cannot be used; the message names each field that is wrong.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonTooManySelections: match with failurePolicy Fail would be one more call for Pods than there may be.
	ReasonTooManySelections = profiles.ReasonTooManySelections

	// ReasonReady: Pods get the profile.
	ReasonReady = "Ready"
	// ReasonNotAccepted: the condition Accepted says why Pods do not get the profile.
	ReasonNotAccepted = "NotAccepted"
	// ReasonServingLastGood: Pods get an earlier spec, for the current one cannot be used.
	ReasonServingLastGood = "ServingLastGood"
	// ReasonTerminating: the profile is deleted, and only Pods that ask for it by name get it.
	ReasonTerminating = "Terminating"
	// ReasonNamespaceExcluded: no Pod in the profile's namespace is ever touched.
	ReasonNamespaceExcluded = "NamespaceExcluded"
	// ReasonWebhookConfigurationNotFound: the object that the API server would call the webhook by does not exist.
	ReasonWebhookConfigurationNotFound = "WebhookConfigurationNotFound"
	// ReasonWebhookConfigurationPending: the API server is not told yet to call the webhook for the Pods that match.
	ReasonWebhookConfigurationPending = "WebhookConfigurationPending"

	// ReasonMeetsRestricted: all that the profile adds meets the Pod Security Standard "restricted".
	ReasonMeetsRestricted = "MeetsRestricted"
	// ReasonViolatesRestricted: the message says in the check's own words what does not.
	ReasonViolatesRestricted = "ViolatesRestricted"
	// ReasonDependsOnPod: what the profile adds follows from the Pod that gets it.
	ReasonDependsOnPod = "DependsOnPod"

	// ReasonAskedFor: the message names some of those that ask for the profile by name.
	ReasonAskedFor = "AskedFor"
	// ReasonChosenByMatch: the profile's match chooses Pods, so that nobody need ask.
	ReasonChosenByMatch = "ChosenByMatch"
	// ReasonReadBy: another profile, which is not deleted, reads the files of this one.
	ReasonReadBy = "ReadBy"
	// ReasonCounting: it is not known yet who asks.
	ReasonCounting = "Counting"
	// ReasonCannotList: it cannot be looked up who asks; the message names what cannot be listed and why.
	ReasonCannotList = "CannotList"
	// ReasonNobodyAsks: nobody asks for the profile any more.
	ReasonNobodyAsks = "NobodyAsks"
)

// maxMessageProblems bounds how many problems a condition's message tells, maxMessageUsers how many of those that ask;
// maxMessage is what the API server takes.
const (
	maxMessageProblems = 20
	maxMessageUsers    = 5
	maxMessage         = 32768
)

// howToRelease ends messages about what is served on although it is broken or deleted.
const howToRelease = "To end it sooner set the annotation " + v1alpha1.ReleaseKey + `: "true" on the profile.`

// verdict is one condition's status, reason and message.
type verdict struct {
	ok, unknown     bool
	reason, message string
}

func ready() verdict { return verdict{ok: true, reason: ReasonReady, message: "Pods get the profile."} }

// observation is all that a profile's status follows from.
type observation struct {
	generation int64
	spec       any
	released   bool

	// served is what serves under the profile's name. refused is why its match cannot have an entry, nil if it can; serving is
	// Ready as it is if nothing else is wrong.
	served  *profiles.Profile
	refused *profiles.Refusal
	serving verdict

	users *users // nil: the profile is neither deleted nor broken
	// lookAgain is when users are to be looked up anew.
	lookAgain time.Duration
	pods      *v1alpha1.PodCounts // nil: they are not counted yet

	now metav1.Time
}

// statusOf returns the status of a profile. Conditions that stay keep their transition times.
func statusOf(before *v1alpha1.ProfileStatus, o *observation) (v1alpha1.ProfileStatus, error) {
	status := *before.DeepCopy()
	status.ObservedGeneration = o.generation
	status.Kind = o.served.Kind
	status.Revision = o.served.Revision
	if o.pods != nil {
		status.Pods = o.pods
	}
	accepted := o.accepted()
	if err := keepLastGood(&status, o, accepted.ok); err != nil {
		return status, err
	}
	setCondition(&status, v1alpha1.ConditionAccepted, accepted, o.now)
	setCondition(&status, v1alpha1.ConditionReady, o.ready(&accepted), o.now)
	setCondition(&status, v1alpha1.ConditionRestricted, o.restricted(), o.now)
	if o.users == nil {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionInUse)
	} else {
		setCondition(&status, v1alpha1.ConditionInUse, o.users.verdict(), o.now)
	}
	return status, nil
}

// accepted tells whether the current spec can be used.
func (o *observation) accepted() verdict {
	problems := slices.Concat(o.served.Broken, o.served.Problems)
	switch {
	case len(problems) > 0:
		return verdict{reason: ReasonInvalidSpec, message: linesOf(problems)}
	case o.refused != nil:
		return verdict{reason: o.refused.Reason, message: o.refused.Message}
	default:
		return verdict{ok: true, reason: ReasonAccepted, message: "The spec can be used."}
	}
}

// ready tells whether Pods get the current spec.
func (o *observation) ready(accepted *verdict) verdict {
	switch {
	case o.served.Deleted && len(o.served.Problems) == 0:
		return verdict{reason: ReasonTerminating, message: "The profile is deleted. Pods that ask for it by name get it until no " +
			"workload does; the condition InUse says who. " + howToRelease}
	case len(o.served.Broken) > 0:
		return verdict{reason: ReasonServingLastGood, message: fmt.Sprintf(
			"Pods get the spec of generation %d, the last that could be used. Of generation %d: %s\n%s",
			o.served.Generation, o.generation, accepted.message, howToRelease)}
	case !accepted.ok:
		return verdict{reason: ReasonNotAccepted, message: "The profile is not accepted: " + accepted.message}
	default:
		return o.serving
	}
}

// restricted tells whether what the profile adds meets the Pod Security Standard "restricted".
func (o *observation) restricted() verdict {
	if len(o.served.Problems) > 0 {
		return verdict{unknown: true, reason: ReasonNotAccepted, message: "The spec cannot be used."}
	}
	violations, known := profiles.RestrictedViolations(o.served)
	switch {
	case !known:
		return verdict{unknown: true, reason: ReasonDependsOnPod, message: "What the profile adds follows from the Pod that gets it."}
	case len(violations) > 0:
		return verdict{reason: ReasonViolatesRestricted, message: strings.Join(violations, "\n")}
	default:
		return verdict{
			ok: true, reason: ReasonMeetsRestricted,
			message: `All that the profile adds meets the Pod Security Standard "restricted".`,
		}
	}
}

// keepLastGood remembers the current spec if it can be used, and otherwise forgets the last that could once nobody needs it.
func keepLastGood(status *v1alpha1.ProfileStatus, o *observation, accepted bool) error {
	switch {
	case accepted:
		encoded, err := json.Marshal(o.spec)
		if err != nil {
			return fmt.Errorf("encode the spec: %w", err)
		}
		if status.LastGood == nil || status.LastGood.Generation != o.generation {
			status.LastGood = &v1alpha1.LastGood{Generation: o.generation, Spec: apiextensionsv1.JSON{Raw: encoded}}
		}
	case o.refused != nil: // the spec itself can be used
	case o.released, o.users != nil && !o.users.any():
		status.LastGood = nil
	}
	return nil
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
	switch {
	case is.ok:
		condition.Status = metav1.ConditionTrue
	case is.unknown:
		condition.Status = metav1.ConditionUnknown
	}
	meta.SetStatusCondition(&status.Conditions, condition)
}

// linesOf returns problems, a line each, as many as a message should have.
func linesOf(problems field.ErrorList) string {
	return strings.Join(profiles.FirstProblems(problems, maxMessageProblems), "\n")
}

// cut shortens a text to a number of bytes, between characters.
func cut(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.ToValidUTF8(text[:length], "")
}

// sameButCounts tells whether two statuses differ in nothing but the numbers of Pods.
func sameButCounts(a, b *v1alpha1.ProfileStatus, equal func(a, b any) bool) bool {
	x, y := *a, *b
	x.Pods, y.Pods = cmp.Or(a.Pods, b.Pods), cmp.Or(a.Pods, b.Pods)
	return equal(x, y)
}
