package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// PatternKind names a pattern as people see it in outcomes, printer columns and the InjectedKey annotation.
type PatternKind string

// The patterns.
const (
	KindGitSync           PatternKind = "GitSync"
	KindPrometheusAdapter PatternKind = "PrometheusAdapter"
	KindCacheAmbassador   PatternKind = "CacheAmbassador"
	KindTemplateProcessor PatternKind = "TemplateProcessor"
	KindCustom            PatternKind = "Custom"
)

// Pattern is the union of the patterns: what a profile adds to a Pod. Exactly one is set.
//
// +kubebuilder:validation:ExactlyOneOf=gitSync;prometheusAdapter;cacheAmbassador;templateProcessor;custom
type Pattern struct {
	// gitSync adds a sidecar that keeps a directory at a git ref. The app starts after the first sync.
	// +optional
	GitSync *GitSync `json:"gitSync,omitempty"`

	// prometheusAdapter adds a sidecar that serves Prometheus metrics of an app that has none of its own.
	// +optional
	PrometheusAdapter *PrometheusAdapter `json:"prometheusAdapter,omitempty"`

	// cacheAmbassador adds a cache on localhost: a local one, or a proxy that shards over remote servers. The app sees the
	// same address and environment either way.
	// +optional
	CacheAmbassador *CacheAmbassador `json:"cacheAmbassador,omitempty"`

	// templateProcessor adds an init container that renders files from templates and parameters before the app starts.
	// +optional
	TemplateProcessor *TemplateProcessor `json:"templateProcessor,omitempty"`

	// custom adds what a template of your own says: containers, volumes, environment and mounts, with parameters.
	// +optional
	Custom *Custom `json:"custom,omitempty"`
}

// ContainerSettings are the settings of the injected container that every pattern offers.
type ContainerSettings struct {
	// image replaces the pattern's default image. Use it for a mirror, or for a version of your own; it must accept the same
	// flags as the default image.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$`
	Image string `json:"image,omitempty"`

	// imagePullPolicy says when the image is pulled: Always, IfNotPresent or Never. Kubernetes chooses when it is absent:
	// Always for the tag latest, else IfNotPresent.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// resources are the requests and limits of the injected container. Each key that is absent keeps the pattern's default;
	// a request above the default limit raises the limit with it, and a limit below the default request lowers the request.
	// +optional
	Resources Resources `json:"resources,omitempty,omitzero"`

	// env is added to the injected container's environment, after the pattern's own variables. Values are literal.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Env []EnvVar `json:"env,omitempty"`
}

// The rules of all amounts are at Resources, because each place with rules has a CEL environment of its own in memory.

// Resources are requests and limits of a container.
//
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.requests.cpu) || quantity(string(self.requests.cpu)).isGreaterThan(quantity('0')) && !quantity(string(self.requests.cpu)).isGreaterThan(quantity('1024'))",message="must be more than 0 and at most 1024, for example 100m",fieldPath=".requests.cpu"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.requests.memory) || quantity(string(self.requests.memory)).isGreaterThan(quantity('0')) && !quantity(string(self.requests.memory)).isGreaterThan(quantity('64Ti'))",message="must be more than 0 and at most 64Ti, for example 64Mi",fieldPath=".requests.memory"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.requests.ephemeral__dash__storage) || quantity(string(self.requests.ephemeral__dash__storage)).isGreaterThan(quantity('0')) && !quantity(string(self.requests.ephemeral__dash__storage)).isGreaterThan(quantity('64Ti'))",message="must be more than 0 and at most 64Ti, for example 1Gi",fieldPath=".requests.ephemeral-storage"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || !has(self.limits.cpu) || quantity(string(self.limits.cpu)).isGreaterThan(quantity('0')) && !quantity(string(self.limits.cpu)).isGreaterThan(quantity('1024'))",message="must be more than 0 and at most 1024, for example 100m",fieldPath=".limits.cpu"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || !has(self.limits.memory) || quantity(string(self.limits.memory)).isGreaterThan(quantity('0')) && !quantity(string(self.limits.memory)).isGreaterThan(quantity('64Ti'))",message="must be more than 0 and at most 64Ti, for example 64Mi",fieldPath=".limits.memory"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || !has(self.limits.ephemeral__dash__storage) || quantity(string(self.limits.ephemeral__dash__storage)).isGreaterThan(quantity('0')) && !quantity(string(self.limits.ephemeral__dash__storage)).isGreaterThan(quantity('64Ti'))",message="must be more than 0 and at most 64Ti, for example 1Gi",fieldPath=".limits.ephemeral-storage"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.cpu) || !has(self.limits.cpu) || !quantity(string(self.requests.cpu)).isGreaterThan(quantity(string(self.limits.cpu)))",message="must be at most limits.cpu: lower it, or raise the limit",fieldPath=".requests.cpu"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) || !quantity(string(self.requests.memory)).isGreaterThan(quantity(string(self.limits.memory)))",message="must be at most limits.memory: lower it, or raise the limit",fieldPath=".requests.memory"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.ephemeral__dash__storage) || !has(self.limits.ephemeral__dash__storage) || !quantity(string(self.requests.ephemeral__dash__storage)).isGreaterThan(quantity(string(self.limits.ephemeral__dash__storage)))",message="must be at most limits.ephemeral-storage: lower it, or raise the limit",fieldPath=".requests.ephemeral-storage"
type Resources struct {
	// requests are what the scheduler reserves for the container.
	// +optional
	Requests ResourceList `json:"requests,omitempty,omitzero"`

	// limits are what the container may use at most.
	// +optional
	Limits ResourceList `json:"limits,omitempty,omitzero"`
}

// ResourceList is an amount of CPU, memory and ephemeral storage.
//
// +kubebuilder:validation:MinProperties=1
type ResourceList struct {
	// cpu is in cores: 100m is a tenth of one.
	// +optional
	CPU *resource.Quantity `json:"cpu,omitempty"`

	// memory is in bytes: 64Mi is 64 times 2^20.
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`

	// ephemeral-storage is in bytes of local disk: logs, the writable layer and emptyDir volumes.
	// +optional
	EphemeralStorage *resource.Quantity `json:"ephemeral-storage,omitempty"`
}

// EnvVar is a literal environment variable.
type EnvVar struct {
	// name of the variable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	Name string `json:"name"`

	// value of the variable. It is literal: $(OTHER) is not expanded.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
}
