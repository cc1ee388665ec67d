package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ProfileSpec is what PatternProfile and ClusterPatternProfile share. What a pattern requires may be absent where Pods may give it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.gitSync) || has(self.gitSync.repo) || (has(self.overridable) && self.overridable.exists(f, f == 'repo'))",message="set repo, or list it in overridable: then each Pod gives it by an annotation",fieldPath=".gitSync.repo",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="!has(self.gitSync) || has(self.gitSync.mountPath) || (has(self.overridable) && self.overridable.exists(f, f == 'mountPath'))",message="set mountPath, or list it in overridable: then each Pod gives it by an annotation",fieldPath=".gitSync.mountPath",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="!has(self.cacheAmbassador) || has(self.cacheAmbassador.protocol) || (has(self.overridable) && self.overridable.exists(f, f == 'protocol'))",message="set protocol, or list it in overridable: then each Pod gives it by an annotation",fieldPath=".cacheAmbassador.protocol",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="!has(self.templateProcessor) || has(self.templateProcessor.templates) || (has(self.overridable) && self.overridable.exists(f, f == 'templates' || f.startsWith('templates.')))",message="set templates, or list it in overridable: then each Pod gives it by an annotation",fieldPath=".templateProcessor.templates",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="!has(self.templateProcessor) || has(self.templateProcessor.mountPath) || (has(self.overridable) && self.overridable.exists(f, f == 'mountPath'))",message="set mountPath, or list it in overridable: then each Pod gives it by an annotation",fieldPath=".templateProcessor.mountPath",reason=FieldValueRequired
type ProfileSpec struct {
	Pattern `json:",inline"`

	// overridable lists the fields of the pattern that a Pod, or its Namespace for all its Pods, may change by the annotation
	// PROFILE.pillion.dev/FIELD; the Pod's own wins. A field that is an object covers what is in it: resources covers
	// resources.limits.memory. Nothing else can be changed. Of fields of which one alone can be set, one that a Pod sets takes
	// the place of the profile's. A required field of gitSync, cacheAmbassador or templateProcessor that is listed may be
	// absent: each Pod has to give it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z][A-Za-z0-9-]*(\.[a-z][A-Za-z0-9-]*)*$`
	Overridable []string `json:"overridable,omitempty"`

	// failurePolicy says what becomes of a Pod that match chose when this profile cannot be woven into it, or when Pillion
	// cannot be reached: Ignore admits it without this profile, Fail refuses it. A Pod that asks for the profile by name is
	// always refused.
	// +optional
	// +default="Ignore"
	// +kubebuilder:validation:Enum=Ignore;Fail
	FailurePolicy FailurePolicy `json:"failurePolicy,omitempty"`

	// after names profiles whose containers start before this one's, if a Pod gets them too. Without it profiles start in the
	// order of their patterns (gitSync, templateProcessor, cacheAmbassador, prometheusAdapter, custom), and of their names. A
	// PatternProfile's names mean PatternProfiles of its namespace, else ClusterPatternProfiles; a ClusterPatternProfile's mean
	// ClusterPatternProfiles.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=40
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	After []string `json:"after,omitempty"`

	// onPortConflict says what becomes of the profile if a port of its containers is taken in the Pod: Fail refuses the profile,
	// Pick takes the next free port, for the app's environment, probes and scrape annotations as well. Of a custom pattern the
	// ports that can move are those that are written as one integer parameter, ${params.NAME}.
	// +optional
	// +default="Fail"
	// +kubebuilder:validation:Enum=Fail;Pick
	OnPortConflict PortConflictPolicy `json:"onPortConflict,omitempty"`
}

// PortConflictPolicy says what becomes of a profile whose port is taken.
type PortConflictPolicy string

// The port conflict policies.
const (
	PortConflictFail PortConflictPolicy = "Fail"
	PortConflictPick PortConflictPolicy = "Pick"
)

// FailurePolicy says what becomes of a Pod that policy chose and that cannot be woven.
type FailurePolicy string

// The failure policies.
const (
	FailurePolicyIgnore FailurePolicy = "Ignore"
	FailurePolicyFail   FailurePolicy = "Fail"
)

// PatternProfileSpec says what a PatternProfile adds, and to which Pods of its namespace.
type PatternProfileSpec struct {
	ProfileSpec `json:",inline"`

	// match chooses Pods of this namespace that get the profile without asking. Absent: only those that ask.
	// +optional
	Match *PodMatch `json:"match,omitempty"`
}

// ClusterPatternProfileSpec says what a ClusterPatternProfile adds, to which Pods, and who may use it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.match) || !has(self.failurePolicy) || self.failurePolicy != 'Fail' || (has(self.match.namespaceSelector) && ((has(self.match.namespaceSelector.matchLabels) && size(self.match.namespaceSelector.matchLabels) > 0) || (has(self.match.namespaceSelector.matchExpressions) && size(self.match.namespaceSelector.matchExpressions) > 0)))",message="failurePolicy Fail wants a namespaceSelector that is not empty: an outage would stop every Pod of the cluster",fieldPath=".match"
type ClusterPatternProfileSpec struct {
	ProfileSpec `json:",inline"`

	// allowedNamespaces selects the namespaces whose Pods may ask for this profile, by the namespaces' labels. Absent: all.
	// It does not bound match, which says itself where it applies.
	// +optional
	AllowedNamespaces *metav1.LabelSelector `json:"allowedNamespaces,omitempty"`

	// match chooses Pods, anywhere in the cluster, that get the profile without asking. Absent: only those that ask.
	// +optional
	Match *ClusterMatch `json:"match,omitempty"`
}

// PodMatch chooses Pods by their labels.
type PodMatch struct {
	// podSelector selects Pods by their labels. Absent or empty: all.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// conditions are CEL expressions over object (the Pod without what Pillion adds), namespaceObject (the namespace's metadata)
	// and request (userInfo, operation, namespace, dryRun), all of which have to be true. One that cannot be evaluated
	// refuses the profile, and failurePolicy decides.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Conditions []MatchCondition `json:"conditions,omitempty"`
}

// MatchCondition is a CEL expression that has to be true of a Pod.
type MatchCondition struct {
	// name of the condition, for messages.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	Name string `json:"name"`

	// expression in CEL that yields a bool: !('batch' in object.metadata.?labels.orValue({})).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Expression string `json:"expression"`
}

// ClusterMatch chooses Pods by their namespaces' labels and their own.
type ClusterMatch struct {
	// namespaceSelector selects namespaces by their labels. Absent or empty: all that Pillion does not exclude.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// podSelector selects Pods by their labels. Absent or empty: all.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// conditions are CEL expressions over object (the Pod without what Pillion adds), namespaceObject (the namespace's metadata)
	// and request (userInfo, operation, namespace, dryRun), all of which have to be true. One that cannot be evaluated
	// refuses the profile, and failurePolicy decides.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Conditions []MatchCondition `json:"conditions,omitempty"`

	// enforce makes the profile one that nobody can decline: neither none in an annotation or label nor a mark on the Pod keeps
	// it out, a Pod that it cannot be woven into is refused, and the Pod is checked once more when all webhooks are done.
	// failurePolicy then says what becomes of Pods while Pillion cannot be reached or the profile itself is broken.
	// +optional
	Enforce bool `json:"enforce,omitempty"`
}

// ProfileStatus is what the controller has observed of a profile.
type ProfileStatus struct {
	// conditions: Accepted tells whether the spec can be used, Ready whether Pods get the profile, Restricted whether what it adds
	// meets the Pod Security Standard restricted, and InUse, of a profile that is deleted or broken, who still asks for it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// kind is the pattern of the profile: GitSync, PrometheusAdapter, CacheAmbassador, TemplateProcessor or
	// Custom.
	// +optional
	Kind PatternKind `json:"kind,omitempty"`

	// revision is the hash of the effective spec that Pods get, as woven Pods carry it in their annotation pillion.dev/injected.
	// +optional
	Revision string `json:"revision,omitempty"`

	// lastGood is the newest spec that could be used. Pods get it while the current one cannot be used, until no workload asks
	// for the profile any more or the profile has the annotation pillion.dev/release.
	// +optional
	LastGood *LastGood `json:"lastGood,omitempty"`

	// pods counts the Pods that carry what the profile added.
	// +optional
	Pods *PodCounts `json:"pods,omitempty"`
}

// LastGood is a spec that could be used.
type LastGood struct {
	// generation of the profile that had this spec.
	// +required
	Generation int64 `json:"generation"`

	// spec as it was.
	// +required
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Spec apiextensionsv1.JSON `json:"spec"`
}

// PodCounts are numbers of Pods that have not ended.
type PodCounts struct {
	// current is the number of Pods that carry the revision that Pods get now.
	// +optional
	// +default=0
	Current int32 `json:"current"`

	// outdated is the number of Pods that carry another revision: they get the current one when they are replaced.
	// +optional
	// +default=0
	Outdated int32 `json:"outdated"`
}

// The conditions of a profile.
const (
	// ConditionAccepted tells whether the spec can be used.
	ConditionAccepted = "Accepted"
	// ConditionReady tells whether Pods get what the spec says.
	ConditionReady = "Ready"
	// ConditionRestricted tells whether what the profile adds meets the Pod Security Standard "restricted".
	ConditionRestricted = "Restricted"
	// ConditionInUse is on a profile that is deleted or cannot be used: it tells who still asks for it.
	ConditionInUse = "InUse"
	// ConditionSelfCheck is on the PatternProfile of the self-check alone: it tells whether a Pod that asked for it was woven.
	ConditionSelfCheck = "SelfCheck"
)

// PatternProfile says which containers Pods of its namespace get, by the annotation pillion.dev/inject, by the namespace's
// label of that name, or because match chooses them. Whoever may write one runs code in the namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pp,categories=pillion
// +kubebuilder:printcolumn:name="Pattern",type=string,JSONPath=`.status.kind`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods.current`
// +kubebuilder:printcolumn:name="Outdated",type=integer,JSONPath=`.status.pods.outdated`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`,priority=1
// +kubebuilder:printcolumn:name="Failure policy",type=string,JSONPath=`.spec.failurePolicy`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40 && self.metadata.name != 'none'",message="a profile's name is a DNS label of at most 40 characters, and not 'none': containers and volumes are named after it"
type PatternProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the profile adds, and to which Pods.
	// +required
	Spec PatternProfileSpec `json:"spec"`

	// status is what the controller has observed of the profile.
	// +optional
	Status ProfileStatus `json:"status,omitempty,omitzero"`
}

// PatternProfileList is a list of PatternProfiles.
//
// +kubebuilder:object:root=true
type PatternProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []PatternProfile `json:"items"`
}

// ClusterPatternProfile says which containers Pods of any namespace get, by the annotation pillion.dev/inject, by their
// namespace's label of that name, or because match chooses them: cluster-wide policy.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cpp,categories=pillion
// +kubebuilder:printcolumn:name="Pattern",type=string,JSONPath=`.status.kind`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods.current`
// +kubebuilder:printcolumn:name="Outdated",type=integer,JSONPath=`.status.pods.outdated`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`,priority=1
// +kubebuilder:printcolumn:name="Failure policy",type=string,JSONPath=`.spec.failurePolicy`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40 && self.metadata.name != 'none'",message="a profile's name is a DNS label of at most 40 characters, and not 'none': containers and volumes are named after it"
type ClusterPatternProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the profile adds, to which Pods, and who may use it.
	// +required
	Spec ClusterPatternProfileSpec `json:"spec"`

	// status is what the controller has observed of the profile.
	// +optional
	Status ProfileStatus `json:"status,omitempty,omitzero"`
}

// ClusterPatternProfileList is a list of ClusterPatternProfiles.
//
// +kubebuilder:object:root=true
type ClusterPatternProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ClusterPatternProfile `json:"items"`
}
