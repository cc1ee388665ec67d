package weave

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// Options are the settings of an installation that weaving depends on.
type Options struct {
	// LeadingContainers are the names of a mesh's or CNI's containers. Init containers are placed behind those that lead the
	// Pod's list: a startup probe ahead of a mesh's proxy would block it for ever. None of them gains anything from an
	// Addition that names no containers.
	LeadingContainers []string

	// IsOurs tells by its name whether a container that the Pod has is one that a profile adds, which gains nothing from an
	// Addition that names no containers. Nil: all those with reserved names. It has to say the same of a Pod before and after
	// it is woven, but for what the weaving adds.
	IsOurs func(name string) bool

	// MayPrecede tells by its name whether an init container may start ahead of all that Differences compares. Nil: those of
	// LeadingContainers and those with reserved names.
	MayPrecede func(name string) bool
}

func (o *Options) isOurs(name string) bool {
	if o.IsOurs != nil {
		return o.IsOurs(name)
	}
	return v1alpha1.IsReservedName(name)
}

func (o *Options) mayPrecede(name string) bool {
	if o.MayPrecede != nil {
		return o.MayPrecede(name)
	}
	return v1alpha1.IsReservedName(name) || slices.Contains(o.LeadingContainers, name)
}

// Weaver collects Fragments for one Pod, refuses those that collide, and weaves the rest.
type Weaver struct {
	pod     *corev1.Pod
	options Options

	fragments []taken
	// The side of a collision that was there first: who has the name, port or key.
	containers, volumes, annotations, labels map[string]string
	ports                                    map[portKey]string
	hostPorts                                map[portKey]string // of the node, made when the first is noted
	mounts                                   map[string][]mount
	env                                      map[envKey]string
	ours                                     map[string]bool // containers of an earlier weaving, made when the first is noted
}

type (
	portKey struct {
		port     int32
		protocol corev1.Protocol
	}
	envKey struct{ container, name string }
	mount  struct{ path, owner string }
)

// taken is a Fragment that was taken, with the containers that each of its Additions is for.
type taken struct {
	Fragment
	targets [][]*corev1.Container
}

const ownerPod = "the Pod"

// NewWeaver returns a Weaver for a Pod, which it does not change. The Pod must have been decoded from JSON: weaving tells an
// empty list, which is there, from a nil one, which is not.
func NewWeaver(pod *corev1.Pod, options Options) *Weaver {
	w := &Weaver{
		pod: pod, options: options,
		containers: map[string]string{}, volumes: map[string]string{},
		annotations: map[string]string{}, labels: map[string]string{},
		ports: map[portKey]string{}, mounts: map[string][]mount{}, env: map[envKey]string{},
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			w.occupy(&containers[i])
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		w.containers[pod.Spec.EphemeralContainers[i].Name] = ownerPod
	}
	for i := range pod.Spec.Volumes {
		w.volumes[pod.Spec.Volumes[i].Name] = ownerPod
	}
	return w
}

// occupy notes what a container of the Pod has.
func (w *Weaver) occupy(container *corev1.Container) {
	w.containers[container.Name] = ownerPod
	for _, port := range container.Ports {
		owner := "container " + container.Name
		w.ports[portOf(port.ContainerPort, port.Protocol)] = owner
		w.noteHostPort(port, owner)
	}
	if len(container.VolumeMounts)+len(container.VolumeDevices) > 0 {
		w.mounts[container.Name] = appendMounts(w.mounts[container.Name], container)
	}
}

// appendMounts appends what a container has at paths of its own.
func appendMounts(mounts []mount, container *corev1.Container) []mount {
	for i := range container.VolumeMounts {
		m := &container.VolumeMounts[i]
		mounts = append(mounts, mount{m.MountPath, volumeOwner(m.Name)})
	}
	for _, device := range container.VolumeDevices {
		mounts = append(mounts, mount{device.DevicePath, "block device " + device.Name})
	}
	return mounts
}

func volumeOwner(name string) string { return "volume " + name }

func (w *Weaver) noteHostPort(port corev1.ContainerPort, owner string) {
	if port.HostPort == 0 {
		return
	}
	if w.hostPorts == nil {
		w.hostPorts = map[portKey]string{}
	}
	w.hostPorts[portOf(port.HostPort, port.Protocol)] = owner
}

// Add takes a Fragment, or returns why it cannot be woven beside the Pod and the Fragments that were taken before it. A
// Fragment that is refused leaves nothing behind.
func (w *Weaver) Add(fragment Fragment) []Problem {
	added := taken{Fragment: fragment}
	problems := w.check(&added)
	if len(problems) == 0 {
		w.take(&added)
	}
	return problems
}

// Check returns what Add would, and takes nothing.
func (w *Weaver) Check(fragment Fragment) []Problem {
	return w.check(&taken{Fragment: fragment})
}

func (w *Weaver) check(added *taken) []Problem {
	return slices.Concat(
		w.collidingNames(&added.Fragment),
		w.collidingMetadata(&added.Fragment),
		w.collidingPorts(&added.Fragment),
		w.collidingHostPorts(&added.Fragment),
		w.collidingHostAliases(&added.Fragment),
		w.resolveTargets(added),
		w.collidingAdditions(added),
		w.collidingWithin(added),
	)
}

// resolveTargets finds the containers that each Addition is for.
func (w *Weaver) resolveTargets(added *taken) []Problem {
	var problems []Problem
	added.targets = make([][]*corev1.Container, len(added.Additions))
	for i := range added.Additions {
		targets, missing := w.targets(&added.Additions[i])
		added.targets[i] = targets
		for _, name := range missing {
			problems = append(problems, collision(ReasonContainerNotFound, &added.Fragment,
				"is for container %s, which the Pod does not have; it has %s", name, strings.Join(w.appContainers(), ", ")))
		}
	}
	return problems
}

// Occupy notes what the containers of a Fragment that the Pod has already, from an earlier weaving, do not show: the ports that
// they listen on without declaring them, and whose the variables are that the app gained. Else a profile that was refused beside
// them would be taken the second time.
func (w *Weaver) Occupy(fragment Fragment) {
	present := taken{Fragment: fragment}
	w.resolveTargets(&present)
	w.occupyShared(&present)
}

// PlaceBehind makes the init containers of a Fragment that the Pod has already ones that those to be woven start behind, if they lead
// the Pod's list. What is not behind them is ahead of them.
func (w *Weaver) PlaceBehind(fragment Fragment) {
	for i := range fragment.InitContainers {
		if w.ours == nil {
			w.ours = map[string]bool{}
		}
		w.ours[fragment.InitContainers[i].Name] = true
	}
}

// Taken tells whether a port is taken, by the Pod or by a Fragment. A port that is mapped to the node (hostPort) is not, as it is
// another network's; under hostNetwork, where it is the same one, it is the container's port, too.
func (w *Weaver) Taken(port int32, protocol corev1.Protocol) bool {
	_, taken := w.ports[portOf(port, protocol)]
	return taken
}

// occupyShared notes the ports and variables of a Fragment.
func (w *Weaver) occupyShared(fragment *taken) {
	owner := "profile " + fragment.Profile
	for _, port := range portsOf(&fragment.Fragment) {
		w.ports[portOf(port.Port, port.Protocol)] = owner
	}
	for i := range fragment.Additions {
		for _, container := range fragment.targets[i] {
			for _, variable := range fragment.Additions[i].Env {
				w.env[envKey{container.Name, variable.Name}] = owner
			}
		}
	}
}

func (w *Weaver) collidingNames(fragment *Fragment) []Problem {
	var problems []Problem
	for _, containers := range fragment.containers() {
		for i := range containers {
			name := containers[i].Name
			if owner, taken := w.containers[name]; taken {
				problems = append(problems, collision(ReasonNameCollision, fragment, "adds the container %s, and %s has one of that name; "+
					"rename one of them", name, owner))
			}
		}
	}
	for i := range fragment.Volumes {
		name := fragment.Volumes[i].Name
		if owner, taken := w.volumes[name]; taken {
			problems = append(problems, collision(ReasonNameCollision, fragment, "adds the volume %s, and %s has one of that name; "+
				"rename one of them", name, owner))
		}
	}
	return problems
}

func (w *Weaver) collidingMetadata(fragment *Fragment) []Problem {
	var problems []Problem
	check := func(what string, added, ofPod, ofProfiles map[string]string) {
		for _, key := range sortedKeys(added) {
			owner, taken := ofProfiles[key]
			if _, onPod := ofPod[key]; onPod {
				owner, taken = ownerPod, true
			}
			if taken {
				problems = append(problems, collision(ReasonMetadataCollision, fragment,
					"adds the %s %s, and %s has it already; remove it there, or let the profile not add it", what, key, owner))
			}
		}
	}
	check("annotation", fragment.Annotations, w.pod.Annotations, w.annotations)
	check("label", fragment.Labels, w.pod.Labels, w.labels)
	return problems
}

func (w *Weaver) collidingPorts(fragment *Fragment) []Problem {
	var problems []Problem
	for _, port := range portsOf(fragment) {
		if owner, taken := w.ports[portOf(port.Port, port.Protocol)]; taken {
			problems = append(problems, collision(ReasonPortCollision, fragment,
				"listens on port %d in container %s, and %s does too; give one of them another port", port.Port, port.Container, owner))
		}
	}
	return problems
}

// collidingHostPorts finds ports of the node that would be mapped twice. Under hostNetwork they are the containers' own ports.
func (w *Weaver) collidingHostPorts(fragment *Fragment) []Problem {
	if w.pod.Spec.HostNetwork || len(w.hostPorts) == 0 {
		return nil
	}
	var problems []Problem
	for _, container := range slices.Concat(fragment.InitContainers, fragment.Containers) {
		for _, port := range container.Ports {
			if owner, taken := w.hostPorts[portOf(port.HostPort, port.Protocol)]; taken {
				problems = append(problems, collision(ReasonPortCollision, fragment,
					"maps port %d of the node to container %s, and %s has it already; give one of them another hostPort",
					port.HostPort, container.Name, owner))
			}
		}
	}
	return problems
}

func (w *Weaver) collidingAdditions(added *taken) []Problem {
	var problems []Problem
	for i := range added.Additions {
		for _, container := range added.targets[i] {
			problems = append(problems, w.collidingMounts(added, added.Additions[i].VolumeMounts, container.Name)...)
			for _, variable := range added.Additions[i].Env {
				if owner, taken := w.env[envKey{container.Name, variable.Name}]; taken {
					problems = append(problems, collision(ReasonEnvCollision, &added.Fragment,
						"sets %s in container %s, and so does %s; give one of them another name", variable.Name, container.Name, owner))
				}
			}
		}
	}
	return problems
}

func (w *Weaver) collidingMounts(added *taken, mounts []corev1.VolumeMount, container string) []Problem {
	var problems []Problem
	for _, m := range mounts {
		for _, present := range inTheWay(m.MountPath, w.mounts[container]) {
			problems = append(problems, collision(ReasonMountPathCollision, &added.Fragment,
				"mounts %s into container %s, where %s is mounted at %s: one would hide the other; choose another path",
				m.MountPath, container, present.owner, present.path))
		}
	}
	return problems
}

func (w *Weaver) take(fragment *taken) {
	owner := "profile " + fragment.Profile
	for _, containers := range fragment.containers() {
		w.takeContainers(containers, owner)
	}
	for i := range fragment.Volumes {
		w.volumes[fragment.Volumes[i].Name] = owner
	}
	for key := range fragment.Annotations {
		w.annotations[key] = owner
	}
	for key := range fragment.Labels {
		w.labels[key] = owner
	}
	for i := range fragment.Additions {
		for _, container := range fragment.targets[i] {
			for _, m := range fragment.Additions[i].VolumeMounts {
				w.mounts[container.Name] = append(w.mounts[container.Name], mount{m.MountPath, "volume " + m.Name + " of " + owner})
			}
		}
	}
	w.occupyShared(fragment)
	w.fragments = append(w.fragments, *fragment)
}

func (w *Weaver) takeContainers(containers []corev1.Container, owner string) {
	for i := range containers {
		w.containers[containers[i].Name] = owner
		for _, port := range containers[i].Ports {
			w.noteHostPort(port, owner)
		}
	}
}

// targets returns the containers of the Pod that an Addition is for, and the names that the Pod does not have.
func (w *Weaver) targets(addition *Addition) (containers []*corev1.Container, missing []string) {
	if len(addition.Containers) == 0 {
		for i := range w.pod.Spec.Containers {
			if container := &w.pod.Spec.Containers[i]; w.isApp(container.Name) {
				containers = append(containers, container)
			}
		}
		return containers, nil
	}
	for _, name := range addition.Containers {
		container := find(w.pod.Spec.Containers, name)
		if container == nil {
			container = find(w.pod.Spec.InitContainers, name)
		}
		if container == nil || v1alpha1.IsReservedName(name) {
			missing = append(missing, name)
			continue
		}
		if !slices.Contains(containers, container) {
			containers = append(containers, container)
		}
	}
	return containers, missing
}

// isApp tells whether a regular container is the app's own: neither Pillion's nor a mesh's.
func (w *Weaver) isApp(name string) bool {
	return !w.options.isOurs(name) && !slices.Contains(w.options.LeadingContainers, name)
}

func (w *Weaver) appContainers() []string {
	var names []string
	for i := range w.pod.Spec.Containers {
		if name := w.pod.Spec.Containers[i].Name; w.isApp(name) {
			names = append(names, name)
		}
	}
	return names
}

func collision(reason Reason, fragment *Fragment, format string, args ...any) Problem {
	return Problem{Reason: reason, Message: "profile " + fragment.Profile + " " + fmt.Sprintf(format, args...)}
}

// portsOf returns every port that the containers of a Fragment listen on, each once.
func portsOf(fragment *Fragment) []Port {
	ports := slices.Clone(fragment.Ports)
	for _, containers := range fragment.containers() {
		for i := range containers {
			ports = withDeclared(ports, &containers[i])
		}
	}
	return ports
}

func withDeclared(ports []Port, container *corev1.Container) []Port {
	for _, port := range container.Ports {
		declared := Port{Container: container.Name, Port: port.ContainerPort, Protocol: port.Protocol}
		if !slices.ContainsFunc(ports, func(p Port) bool {
			return portOf(p.Port, p.Protocol) == portOf(declared.Port, declared.Protocol)
		}) {
			ports = append(ports, declared)
		}
	}
	return ports
}

func portOf(port int32, protocol corev1.Protocol) portKey {
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	return portKey{port, protocol}
}

// inTheWay returns the mounts that a path would hide, or that would hide it.
func inTheWay(path string, mounts []mount) []mount {
	var inTheWay []mount
	for _, m := range mounts {
		if overlap(path, m.path) {
			inTheWay = append(inTheWay, m)
		}
	}
	return inTheWay
}

// overlap tells whether two mount paths are the same or one lies in the other.
func overlap(a, b string) bool {
	a, b = path.Join("/", a), path.Join("/", b) // a relative path is the root's
	return isWithin(a, b) || isWithin(b, a)
}

// isWithin tells whether a clean path is a directory's, or lies in it.
func isWithin(inner, directory string) bool {
	rest, ok := strings.CutPrefix(inner, directory)
	return ok && (rest == "" || rest[0] == '/' || directory == "/")
}

func find(containers []corev1.Container, name string) *corev1.Container {
	for i := range containers {
		if containers[i].Name == name {
			return &containers[i]
		}
	}
	return nil
}
