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
)
