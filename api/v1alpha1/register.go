package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of Pillion's resources.
const Group = "pillion.dev"

// GroupVersion is the group and version of the types in this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

// AddToScheme registers the types of this package with a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&PatternProfile{}, &PatternProfileList{},
		&ClusterPatternProfile{}, &ClusterPatternProfileList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
