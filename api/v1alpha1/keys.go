package v1alpha1

import "strings"

// The annotation and label keys that Pillion reads and writes. They stand here and nowhere else.
const (
	// InjectKey asks for profiles: as an annotation of a Pod a list of names joined by commas, as a label of a namespace
	// joined by dots, for a label's value has no commas. The annotation replaces the label.
	InjectKey = Group + "/inject"

	// None, as the value of InjectKey, declines everything but policy that enforces.
	None = "none"

	// InjectedKey marks a woven Pod: as a label with the value "true", as an annotation with JSON that names each
	// profile's kind, revision and containers (see Injected). It is evidence for people and for counting, and is never
	// trusted for a decision. A Pod that was woven more than once carries further annotations with the suffixes ".2",
	// ".3" and so on, because an annotation that is there is never changed.
	InjectedKey = Group + "/injected"

	// SkippedKey marks a Pod that policy chose and that did not get what policy chose: as an annotation with JSON that tells by
	// profile why it was left out ("REASON: MESSAGE"), as a label with the value "true", so that the controller finds such Pods
	// and tells of them by Events. Like InjectedKey it is evidence and never trusted for a decision.
	SkippedKey = Group + "/skipped"

	// ConfigKeyPrefix starts the annotations that carry the configuration files of injected containers, which read them
	// through a downwardAPI volume.
	ConfigKeyPrefix = Group + "/config."

	// InUseFinalizer keeps a profile that is deleted for as long as workloads ask for it: its last good revision serves them.
	InUseFinalizer = Group + "/in-use"

	// ReleaseKey, as an annotation of a profile that is deleted or cannot be used, says that it is to serve nobody any more, with
	// the value "true".
	ReleaseKey = Group + "/release"

	// DefaultKey, as an annotation of a default profile, is the spec that the controller wrote. While that is the profile's, and nobody
	// else has set anything of it, the next release may write another.
	DefaultKey = Group + "/default"

	// ManagedKey, as an annotation of a default profile with the value "false", has the controller leave the profile as it is.
	ManagedKey = Group + "/managed"

	// ReservedPrefix starts the name of every container and volume that Pillion adds.
	ReservedPrefix = "pillion-"

	// overrideSuffix ends the prefix of an annotation that overrides a field: PROFILE.pillion.dev/FIELD.
	overrideSuffix = "." + Group
)

// MaxProfileNameLength is the longest name of a profile. With ReservedPrefix and the suffix of a part it stays within the 63
// characters of a DNS label.
const MaxProfileNameLength = 40

// OverrideKey returns the annotation that overrides one field of a profile.
func OverrideKey(profile, fieldPath string) string {
	return profile + overrideSuffix + "/" + fieldPath
}

// ParseOverrideKey takes an annotation key apart into the profile and the field that it overrides. ok is false for every
// other key.
func ParseOverrideKey(key string) (profile, fieldPath string, ok bool) {
	prefix, fieldPath, found := strings.Cut(key, "/")
	if !found {
		return "", "", false
	}
	profile, ok = strings.CutSuffix(prefix, overrideSuffix)
	return profile, fieldPath, ok
}

// ReservedName returns the name of a container or volume that a profile adds: "pillion-PROFILE", or "pillion-PROFILE-PART"
// where it adds several.
func ReservedName(profile, part string) string {
	if part == "" {
		return ReservedPrefix + profile
	}
	return ReservedPrefix + profile + "-" + part
}

// IsReservedName tells whether a container or volume of this name belongs to Pillion.
func IsReservedName(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }

// Injected is one profile's entry in the JSON of the InjectedKey annotation, whose keys are profile names.
type Injected struct {
	Kind PatternKind `json:"kind"`
	// Revision is that of the effective spec. Profile is the profile's own, where the Pod's annotations changed it.
	Revision string `json:"revision"`
	Profile  string `json:"profile,omitempty"`
	// Namespace is that of a PatternProfile; empty for a ClusterPatternProfile.
	Namespace string `json:"namespace,omitempty"`

	Containers []string `json:"containers"`
}
