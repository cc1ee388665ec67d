// Package weave turns what profiles add to a Pod into RFC 6902 operations and the woven Pod. It is pure: the same Pod and
// Fragments give the same bytes.
package weave

import (
	corev1 "k8s.io/api/core/v1"
)

// Fragment is what one profile adds to one Pod. Whoever builds it gives it away: weaving neither changes nor copies what it
// points to, so that it must not be changed afterwards.
type Fragment struct {
	// Profile is the name of the profile, which everything in the Fragment is attributed to.
	Profile string

	// InitContainers are the init containers and native sidecars (restartPolicy Always), in the order in which they start.
	InitContainers []corev1.Container

	// Volumes are the volumes that the containers above, and the app's through Additions, mount.
	Volumes []corev1.Volume

	// Additions are what containers of the app gain.
	Additions []Addition

	// Annotations and Labels are put on the Pod. Keys that the Pod has already are a collision.
	Annotations map[string]string
	Labels      map[string]string

	// Ports are all ports that the containers above listen on, those on loopback included, which are not declared as
	// container ports.
	Ports []Port
}

// Addition is what containers of the app gain from a profile.
type Addition struct {
	// Containers names regular and init containers of the app. Empty: every regular container that is not Pillion's or a
	// mesh's. A name that the Pod does not have is a problem.
	Containers []string

	// Env is added unless the container has a variable of that name: the app's own always wins.
	Env []corev1.EnvVar

	// VolumeMounts are added; a mount path that is taken, or nested in one that is, is a collision.
	VolumeMounts []corev1.VolumeMount
}

// Port is a port that an injected container listens on.
type Port struct {
	// Container is the name of the container that listens.
	Container string
	Port      int32
	// Protocol is TCP where it is empty.
	Protocol corev1.Protocol
}
