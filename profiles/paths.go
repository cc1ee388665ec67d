package profiles

import "strings"

// The paths at which the API server calls the webhook: one for each entry of the webhook configuration. Every call decides all that
// applies to the Pod; the path says why we were called, so that the webhook notices when its memory is behind.
const (
	// PathPods is that of Pods whose annotation asks.
	PathPods = "/inject/pods"
	// PathNamespaces is that of Pods whose namespace's label asks.
	PathNamespaces = "/inject/namespaces"
	// PathMatch, followed by a hash, is that of Pods that the match of a ClusterPatternProfile chooses.
	PathMatch = "/inject/match/"
	// PathAny, followed by a hash, is that of Pods that some match may choose: of all in the namespaces that have a
	// PatternProfile with match, or of all in the cluster where there are too many matches for an entry each.
	PathAny = "/inject/any/"
	// PathEnforce, followed by a hash, is that of Pods that the match of a profile that enforces may choose.
	PathEnforce = "/inject/enforce/"
	// PathVerify, followed by a hash, is that of the same Pods as they are to be stored.
	PathVerify = "/verify/enforce/"
	// PathWorkloads, followed by what follows pathInject in one of those above, is that of workloads whose Pods would be sent there.
	PathWorkloads = "/workloads/"
	// PathProfiles is that of profiles that are written.
	PathProfiles = "/validate/profiles"

	pathInject = "/inject/"
)

// WorkloadsPath returns the path of the workloads whose Pods are sent to path.
func WorkloadsPath(path string) string { return PathWorkloads + strings.TrimPrefix(path, pathInject) }

// PodsPath returns the path to which the Pods of the workloads are sent that are sent to path.
func PodsPath(path string) string { return pathInject + strings.TrimPrefix(path, PathWorkloads) }
