package v1alpha1

import apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

// Custom is a pattern of your own.
type Custom struct {
	// parameters are what expressions of the template read as params.NAME. Pods may change those that overridable lists, by
	// the annotation PROFILE.pillion.dev/NAME.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Parameters []Parameter `json:"parameters,omitempty"`

	// template is what is added: containers, initContainers (with restartPolicy Always: native sidecars), volumes, app (env
	// and volumeMounts for the app's containers), labels, annotations, imagePullSecrets and hostAliases. Any value, but
	// neither a key nor a name, may hold ${…}: CEL over params, pod, namespace and profile.
	// +required
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Template apiextensionsv1.JSON `json:"template"`
}

// ParameterType is the type of a parameter.
type ParameterType string

// The types of parameters.
const (
	ParameterString   ParameterType = "string"
	ParameterInteger  ParameterType = "integer"
	ParameterBoolean  ParameterType = "boolean"
	ParameterQuantity ParameterType = "quantity"
	ParameterDuration ParameterType = "duration"
)

// Parameter is a value that Pods may change, and that the template reads.
type Parameter struct {
	// name of the parameter: letters and digits, as in params.name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z][A-Za-z0-9]*$`
	Name string `json:"name"`

	// description tells people what the parameter is for.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`

	// type of the parameter: string, integer, boolean, quantity (of a resource, as in 64Mi) or duration (as in 1m30s). Expressions
	// see an integer as int, a boolean as bool, and the others as string.
	// +optional
	// +default="string"
	// +kubebuilder:validation:Enum=string;integer;boolean;quantity;duration
	Type ParameterType `json:"type,omitempty"`

	// default is the value where none is given. Absent: expressions do not see the parameter unless it is given.
	// +optional
	Default *apiextensionsv1.JSON `json:"default,omitempty"`

	// required says that a Pod which gets the profile has to give the parameter. It goes without default, and wants the
	// parameter to be listed in overridable.
	// +optional
	Required bool `json:"required,omitempty"`

	// enum lists the values that are allowed. Absent: all.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Enum []apiextensionsv1.JSON `json:"enum,omitempty"`

	// pattern is a regular expression (RE2) that a string has to match somewhere; use ^ and $ to bind it to the ends.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Pattern string `json:"pattern,omitempty"`

	// minimum is the least value of an integer, a quantity or a duration, written as one.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	Minimum *apiextensionsv1.JSON `json:"minimum,omitempty"`

	// maximum is the greatest value of an integer, a quantity or a duration, written as one.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	Maximum *apiextensionsv1.JSON `json:"maximum,omitempty"`

	// minLength is the least number of characters of a string.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	MinLength *int32 `json:"minLength,omitempty"`

	// maxLength is the greatest number of characters of a string. Absent: 4096.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	MaxLength *int32 `json:"maxLength,omitempty"`
}
