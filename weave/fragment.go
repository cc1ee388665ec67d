// Package weave turns what profiles add to a Pod into RFC 6902 operations and the woven Pod. It is pure: the same Pod and
// Fragments give the same bytes.
package weave

import (
	"bytes"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Fragment is what one profile adds to one Pod. Whoever builds it gives it away: weaving neither changes nor copies what it
// points to, so that it must not be changed afterwards.
type Fragment struct {
	// Profile is the name of the profile, which everything in the Fragment is attributed to.
	Profile string

	// InitContainers are the init containers and native sidecars (restartPolicy Always), in the order in which they start.
	InitContainers []corev1.Container

	// Containers are regular containers, which go behind the app's.
	Containers []corev1.Container

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

	// ImagePullSecrets are put on the Pod. One that it has already, or that another profile adds too, is left alone.
	ImagePullSecrets []corev1.LocalObjectReference

	// HostAliases are put on the Pod: a host name joins those that its address has there already. A name that the Pod or another
	// profile gives another address is a collision. An address without names adds nothing.
	HostAliases []corev1.HostAlias

	// JSON is what operations hold of the containers and volumes above, made once for many Pods (see WithJSON). Nil: it is made
	// when the Fragment is woven.
	JSON *FragmentJSON
}

// FragmentJSON is the JSON of a Fragment's containers and volumes, item by item.
type FragmentJSON struct {
	InitContainers, Containers, Volumes []json.RawMessage
}

// WithJSON returns the Fragment with its JSON, for a Fragment that is woven into many Pods.
func (f Fragment) WithJSON() (Fragment, error) {
	initContainers, err := encodeAll(f.InitContainers)
	if err != nil {
		return f, fmt.Errorf("encode the init containers of profile %s: %w", f.Profile, err)
	}
	containers, err := encodeAll(f.Containers)
	if err != nil {
		return f, fmt.Errorf("encode the containers of profile %s: %w", f.Profile, err)
	}
	volumes, err := encodeAll(f.Volumes)
	if err != nil {
		return f, fmt.Errorf("encode the volumes of profile %s: %w", f.Profile, err)
	}
	f.JSON = &FragmentJSON{initContainers, containers, volumes}
	return f, nil
}

func encodeAll[T any](items []T) ([]json.RawMessage, error) {
	all := make([]json.RawMessage, len(items))
	for i := range items {
		document := &bytes.Buffer{}
		encoder := json.NewEncoder(document)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(items[i]); err != nil {
			return nil, err
		}
		all[i] = bytes.TrimSpace(document.Bytes())
	}
	return all, nil
}

// values returns what operations add: the JSON of items where it is there, or the items.
func values[T any](items []T, encoded []json.RawMessage) []any {
	if len(items) == 0 {
		return nil
	}
	all := make([]any, len(items))
	for i := range items {
		if encoded != nil {
			all[i] = encoded[i]
		} else {
			all[i] = items[i]
		}
	}
	return all
}

// containers returns all containers that the Fragment adds.
func (f *Fragment) containers() [2][]corev1.Container {
	return [2][]corev1.Container{f.InitContainers, f.Containers}
}

func (f *Fragment) initContainerValues() []any {
	if f.JSON == nil {
		return values(f.InitContainers, nil)
	}
	return values(f.InitContainers, f.JSON.InitContainers)
}

func (f *Fragment) containerValues() []any {
	if f.JSON == nil {
		return values(f.Containers, nil)
	}
	return values(f.Containers, f.JSON.Containers)
}

func (f *Fragment) volumeValues() []any {
	if f.JSON == nil {
		return values(f.Volumes, nil)
	}
	return values(f.Volumes, f.JSON.Volumes)
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
