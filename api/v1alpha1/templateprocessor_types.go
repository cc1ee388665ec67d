package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
)

// TemplateProcessor adds gomplate (https://docs.gomplate.ca, v4.3): an init container that renders templates with parameters
// into files that the app finds when it starts. It runs once.
//
// +kubebuilder:validation:XValidation:rule="!has(self.templates) || !has(self.templates.image) || has(self.image)",message="templates.image wants image: name the image that holds gomplate and the templates",fieldPath=".templates"
type TemplateProcessor struct {
	ContainerSettings `json:",inline"`

	// templates says where the templates are. Each file becomes one of the same name, without suffix, in mountPath. It is
	// required, and may be left to the Pod by listing it, or fields in it, in overridable.
	// +optional
	Templates TemplateSource `json:"templates,omitempty,omitzero"`

	// parameters are the values that templates see, each under its name: {{ .NAME.key }}. A key that is not there is an
	// error that stops the Pod's start, and its status names it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Parameters []TemplateParameter `json:"parameters,omitempty"`

	// delimiters replace {{ and }} in the templates, for files in which those mean something else.
	// +optional
	Delimiters *TemplateDelimiters `json:"delimiters,omitempty"`

	// suffix is taken off the names of the templates: nginx.conf.tmpl becomes nginx.conf. Files without it keep their names,
	// and are templates too.
	// +optional
	// +default=".tmpl"
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[._-][A-Za-z0-9._-]*$`
	Suffix string `json:"suffix,omitempty"`

	// mountPath is the directory in the app's containers that holds the rendered files. It is required, and may be left to the
	// Pod by listing it in overridable.
	// +optional
	MountPath MountPath `json:"mountPath,omitempty"`

	// containers names the containers and init containers of the app that see the rendered files. Absent: every container,
	// and no init container.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Containers []string `json:"containers,omitempty"`

	// readOnly mounts the rendered files read-only into the app's containers.
	// +optional
	// +default=true
	ReadOnly *bool `json:"readOnly,omitempty"`

	// fileMode is the mode of the rendered files, in octal and in quotes: "0644", or "0755" for scripts. They belong to uid
	// 65533: take reading from others only if the app has that uid.
	// +optional
	// +default="0644"
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="self.matches('^0[67][0-7][0-7]$')",message="must be four octal digits with read and write for the owner, such as \"0644\" or \"0755\": a restarted Pod writes the files again"
	FileMode string `json:"fileMode,omitempty"`

	// sizeLimit is how large the volume of the rendered files may grow. With a parameter from a Secret that volume is in memory,
	// which counts as the container's: no secret is left on the node's disk.
	// +optional
	// +default="16Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than 0, for example 16Mi"
	SizeLimit *resource.Quantity `json:"sizeLimit,omitempty"`
}

// TemplateSource says where templates are.
//
// +kubebuilder:validation:ExactlyOneOf=configMap;volume;gitSync;image
type TemplateSource struct {
	// configMap holds the templates, a key each.
	// +optional
	ConfigMap *TemplateConfigMap `json:"configMap,omitempty"`

	// volume is one of the Pod's own volumes.
	// +optional
	Volume *TemplateVolume `json:"volume,omitempty"`

	// gitSync is the checkout of a gitSync profile of the same Pod. The templates are rendered from the commit of the first
	// sync; later ones wait for the next Pod.
	// +optional
	GitSync *TemplateGitSync `json:"gitSync,omitempty"`

	// image holds the templates beside gomplate, as the init container's image.
	// +optional
	Image *TemplateImage `json:"image,omitempty"`
}

// TemplateConfigMap is a ConfigMap of the Pod's namespace that holds templates.
type TemplateConfigMap struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`

	// keys are the templates to render. One that is not there stops the Pod's start. Absent: every key.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$`
	Keys []string `json:"keys,omitempty"`
}

// TemplateVolume is a directory of one of the Pod's own volumes.
type TemplateVolume struct {
	// name of the Pod's volume.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// path of the directory in the volume. Absent: the volume's root.
	// +optional
	Path RelativePath `json:"path,omitempty"`
}

// TemplateGitSync is a directory of a git repository that a gitSync profile fetches.
type TemplateGitSync struct {
	// profile is the name of the gitSync profile.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Profile string `json:"profile"`

	// path of the directory in the repository. Absent: its root.
	// +optional
	Path RelativePath `json:"path,omitempty"`
}

// TemplateImage is a directory of the init container's image.
type TemplateImage struct {
	// path of the directory in the image.
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^(/[^/\\\x00-\x1f\x7f]+)+$`
	// +kubebuilder:validation:XValidation:rule="!self.matches('/[.][.]?(/|$)')",message="must not contain '.' or '..' as an element: write the path itself"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^/(out|parameters|values)(/|$)')",message="must not be in /out, /parameters or /values: volumes of the init container hide what the image has there"
	Path string `json:"path"`
}

// RelativePath is a path inside of a volume or a repository.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:Pattern=`^[^/\\\x00-\x1f\x7f]+(/[^/\\\x00-\x1f\x7f]+)*$`
// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)[.][.]?(/|$)')",message="must not contain '.' or '..' as an element: it stays inside of the volume or repository"
type RelativePath string

// TemplateParameter is what templates see under a name.
//
// +kubebuilder:validation:ExactlyOneOf=configMap;secret;values
// +kubebuilder:validation:XValidation:rule="!has(self.values) || !has(self.format)",message="format goes with configMap and secret: values have none",fieldPath=".format"
type TemplateParameter struct {
	// name by which templates call the parameter: {{ .NAME.key }}.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	// +kubebuilder:validation:XValidation:rule="self != 'Env'",message="must not be Env: templates find the environment there"
	Name string `json:"name"`

	// configMap is a key of a ConfigMap of the Pod's namespace, a file of the given format.
	// +optional
	ConfigMap *TemplateKey `json:"configMap,omitempty"`

	// secret is a key of a Secret of the Pod's namespace, a file of the given format.
	// +optional
	Secret *TemplateKey `json:"secret,omitempty"`

	// values are written here, as literal strings.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	Values map[string]TemplateValue `json:"values,omitempty"`

	// format of the file: YAML, JSON, TOML, or Text, which is one string. Absent: what the key's extension says (.yaml, .yml,
	// .json, .toml), else Text.
	// +optional
	// +kubebuilder:validation:Enum=YAML;JSON;TOML;Text
	Format TemplateFormat `json:"format,omitempty"`
}

// TemplateValue is a literal value.
//
// +kubebuilder:validation:MaxLength=4096
type TemplateValue string

// TemplateKey is a key of a ConfigMap or Secret.
type TemplateKey struct {
	// name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`

	// key in the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$`
	Key string `json:"key"`
}

// TemplateFormat is the format of a file with parameters.
type TemplateFormat string

// The formats.
const (
	TemplateFormatYAML TemplateFormat = "YAML"
	TemplateFormatJSON TemplateFormat = "JSON"
	TemplateFormatTOML TemplateFormat = "TOML"
	TemplateFormatText TemplateFormat = "Text"
)

// TemplateDelimiters enclose the actions of a template.
type TemplateDelimiters struct {
	// left delimiter, {{ by default: signs such as <% or [[.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8
	// +kubebuilder:validation:Pattern=`^[][<>(){}@#$%!?*=~^&+-]+$`
	Left string `json:"left"`

	// right delimiter, }} by default: signs such as %> or ]].
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8
	// +kubebuilder:validation:Pattern=`^[][<>(){}@#$%!?*=~^&+-]+$`
	Right string `json:"right"`
}
