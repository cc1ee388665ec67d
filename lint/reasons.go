package lint

import "github.com/pillion-dev/pillion/weave"

// The reasons of findings, beside those of outcomes (packages profiles, weave and injectors). Where a profile's status knows the
// same trouble it has the same name there.
const (
	// ReasonUnreadable says that a file or directory cannot be read, or is too large to be a manifest.
	ReasonUnreadable weave.Reason = "Unreadable"
	// ReasonInvalidManifest says that a document is not YAML or JSON that Kubernetes reads, or no object of its API.
	ReasonInvalidManifest weave.Reason = "InvalidManifest"
	// ReasonUnrendered says that a file is a template of Helm, and not what the template makes.
	ReasonUnrendered weave.Reason = "Unrendered"
	// ReasonUnknownKind says that an object is of Pillion's API group, but of a kind or version that there is not.
	ReasonUnknownKind weave.Reason = "UnknownKind"
	// ReasonDuplicateObject says that an object stands in the files twice, so that one of them replaces the other.
	ReasonDuplicateObject weave.Reason = "DuplicateObject"
	// ReasonInvalidSpec says that a profile's spec cannot be used. A profile's condition Accepted has the same reason.
	ReasonInvalidSpec weave.Reason = "InvalidSpec"
	// ReasonInvalidWorkload says that a workload has no Pod template, or one that is not valid.
	ReasonInvalidWorkload weave.Reason = "InvalidWorkload"
	// ReasonMisplaced says that an annotation or label asks for profiles where nothing reads it.
	ReasonMisplaced weave.Reason = "Misplaced"
	// ReasonUnknownKey says that an annotation or label looks like one of Pillion's, and is none.
	ReasonUnknownKey weave.Reason = "UnknownKey"
	// ReasonOverrideWithoutEffect says that an annotation changes a profile that is not applied.
	ReasonOverrideWithoutEffect weave.Reason = "OverrideWithoutEffect"
	// ReasonAppliedWithWarning says that a Pod gets a profile, or has it, but not quite as one may expect.
	ReasonAppliedWithWarning weave.Reason = "AppliedWithWarning"
	// ReasonNamespaceExcluded says that something asks, or is to choose, in a namespace that is never touched. A profile's condition Ready
	// has the same reason.
	ReasonNamespaceExcluded weave.Reason = "NamespaceExcluded"
)
