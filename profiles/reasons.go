package profiles

import "github.com/pillion-dev/pillion/weave"

// The reasons of outcomes, beside those of injectors and weaving.
const (
	// ReasonApplied says that the profile was woven into the Pod.
	ReasonApplied weave.Reason = "Applied"
	// ReasonAlreadyInjected says that the Pod has the profile's containers.
	ReasonAlreadyInjected weave.Reason = "AlreadyInjected"
	// ReasonProfileNotAvailable says that the namespace has no such profile, or may not use it; which of them is not told.
	ReasonProfileNotAvailable weave.Reason = "ProfileNotAvailable"
	// ReasonProfileNotReady says that the profile's own spec cannot be used.
	ReasonProfileNotReady weave.Reason = "ProfileNotReady"
	// ReasonInvalidRequest says that the annotation or label that asks for profiles cannot be read.
	ReasonInvalidRequest weave.Reason = "InvalidRequest"
	// ReasonFieldNotOverridable says that a Pod changes a field that the profile does not list in overridable.
	ReasonFieldNotOverridable weave.Reason = "FieldNotOverridable"
	// ReasonInvalidOverride says that the spec is not valid with what the Pod changes.
	ReasonInvalidOverride weave.Reason = "InvalidOverride"
	// ReasonWindowsNotSupported says that the Pod is for Windows nodes.
	ReasonWindowsNotSupported weave.Reason = "WindowsNotSupported"
	// ReasonPodTooLarge says that the Pod has, or would have, more containers or annotations than is allowed.
	ReasonPodTooLarge weave.Reason = "PodTooLarge"
	// ReasonConditionNotMet says that a condition of the profile's match is not true of the Pod.
	ReasonConditionNotMet weave.Reason = "ConditionNotMet"
	// ReasonConditionFailed says that a condition of the profile's match cannot be evaluated for the Pod.
	ReasonConditionFailed weave.Reason = "ConditionFailed"
	// ReasonNotInjected says that the Pod has to have what an enforcing profile adds, and lacks it.
	ReasonNotInjected weave.Reason = "NotInjected"
	// ReasonInjectionChanged says that the Pod has what an enforcing profile adds, and not as the profile adds it.
	ReasonInjectionChanged weave.Reason = "InjectionChanged"
	// ReasonEnforced says that the Pod has what an enforcing profile adds, as the profile adds it.
	ReasonEnforced weave.Reason = "Enforced"
	// ReasonPodSecurity says that what the profile adds is not allowed by the Pod Security Standard that the namespace enforces.
	ReasonPodSecurity weave.Reason = "PodSecurity"
	// ReasonTooManyProfiles says that too many of the namespace's own profiles choose the Pod.
	ReasonTooManyProfiles weave.Reason = "TooManyProfiles"
	// ReasonPodResourcesExceeded says that the Pod's containers, with those that the profile adds, have more than the Pod's own
	// resources (spec.resources) allow.
	ReasonPodResourcesExceeded weave.Reason = "PodResourcesExceeded"
)
