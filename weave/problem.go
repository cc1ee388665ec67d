package weave

// Reason is a stable code for why a profile was, or was not, woven into a Pod.
type Reason string

// Problem is why a profile cannot be woven into a Pod. Message is a sentence that says what is wrong, where, and what to write
// instead.
type Problem struct {
	Reason  Reason
	Message string
}

// The reasons that weaving gives. Every collision names both sides.
const (
	// ReasonContainerNotFound says that the profile names a container that the Pod does not have.
	ReasonContainerNotFound Reason = "ContainerNotFound"
	// ReasonNameCollision says that a container or volume of that name is there already.
	ReasonNameCollision Reason = "NameCollision"
	// ReasonMountPathCollision says that a mount path is taken, or that one hides the other.
	ReasonMountPathCollision Reason = "MountPathCollision"
	// ReasonPortCollision says that two containers would listen on one port of the Pod.
	ReasonPortCollision Reason = "PortCollision"
	// ReasonEnvCollision says that two profiles, or one twice, set one environment variable of a container.
	ReasonEnvCollision Reason = "EnvCollision"
	// ReasonHostAliasCollision says that a host name has another address already.
	ReasonHostAliasCollision Reason = "HostAliasCollision"
	// ReasonMetadataCollision says that an annotation or label is there already.
	ReasonMetadataCollision Reason = "MetadataCollision"
)
