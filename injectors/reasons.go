package injectors

import "github.com/pillion-dev/pillion/weave"

// Reason is that of weaving: an injector refuses a Pod in the same terms.
type Reason = weave.Reason

// Problem is that of weaving.
type Problem = weave.Problem

// The reasons that injectors give.
const (
	// ReasonVolumeNotFound says that the Pod has no volume of the name that the profile reads.
	ReasonVolumeNotFound Reason = "VolumeNotFound"
	// ReasonSourceNotApplied says that the profile whose files this one reads is not applied to the Pod.
	ReasonSourceNotApplied Reason = "SourceNotApplied"
	// ReasonHostNetwork says that the profile's port would be opened on the node, for the Pod uses the host's network.
	ReasonHostNetwork Reason = "HostNetwork"
	// ReasonMetricsPortTaken says that a container of the app has a port of the name by which the metrics would be found.
	ReasonMetricsPortTaken Reason = "MetricsPortTaken"
	// ReasonExpressionFailed says that an expression of the profile's template cannot be evaluated for the Pod.
	ReasonExpressionFailed Reason = "ExpressionFailed"
	// ReasonInvalidTemplate says that what the profile's template makes for the Pod is not what a Pod can hold.
	ReasonInvalidTemplate Reason = "InvalidTemplate"
	// ReasonParameterRequired says that the Pod does not give a parameter that the profile wants.
	ReasonParameterRequired Reason = "ParameterRequired"
	// ReasonNeverCompletes says that a container that is no sidecar would keep a Pod from completing.
	ReasonNeverCompletes Reason = "NeverCompletes"
)
