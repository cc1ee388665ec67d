// Package v1alpha1 holds the API of pillion.dev/v1alpha1: the profiles that say which containers Pillion adds to a Pod, and
// the annotation and label keys with which workloads and namespaces ask for them.
//
// +kubebuilder:object:generate=true
// +groupName=pillion.dev
package v1alpha1
