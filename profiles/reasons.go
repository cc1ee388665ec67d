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

// The reasons for which a profile is not considered for a Pod. Only explanations have them (see Explain): no Pod is refused for one, and
// no metric counts them.
const (
	// ReasonNotRequested says that neither the Pod nor its namespace asks for the profile, which has no match either.
	ReasonNotRequested weave.Reason = "NotRequested"
	// ReasonSelectorNotMatched says that a selector of the profile's match does not select the Pod or its namespace.
	ReasonSelectorNotMatched weave.Reason = "SelectorNotMatched"
	// ReasonDeclined says that the Pod or its namespace declines by "none" what would apply.
	ReasonDeclined weave.Reason = "Declined"
	// ReasonLabelReplaced says that the namespace's label asks for the profile, and that the Pod's annotation stands in its place.
	ReasonLabelReplaced weave.Reason = "LabelReplaced"
	// ReasonShadowed says that a PatternProfile of the same name is what Pods of its namespace get.
	ReasonShadowed weave.Reason = "Shadowed"
	// ReasonWovenBefore says that the Pod was woven already: match chooses nothing more for it, unless it enforces.
	ReasonWovenBefore weave.Reason = "WovenBefore"
	// ReasonBeingDeleted says that the profile is being deleted, so that its match chooses nobody any more.
	ReasonBeingDeleted weave.Reason = "BeingDeleted"
	// ReasonNamespaceNotAllowed says that the profile's allowedNamespaces does not select the namespace. Only who reads the profile
	// itself is told; everybody else hears ProfileNotAvailable.
	ReasonNamespaceNotAllowed weave.Reason = "NamespaceNotAllowed"
	// ReasonNamespaceExcluded says that Pillion never touches the Pods of the namespace.
	ReasonNamespaceExcluded weave.Reason = "NamespaceExcluded"
	// ReasonMirrorPod says that the Pod stands for a static Pod of a kubelet, which no webhook can change.
	ReasonMirrorPod weave.Reason = "MirrorPod"
)
