package weave

import (
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// additions compares what containers of the app gain. Of variables only the names count, for the app's own values win.
func (d *differences) additions(additions []Addition, options Options) {
	w := Weaver{pod: d.pod, options: options}
	for i := range additions {
		containers, missing := w.targets(&additions[i])
		for _, name := range missing {
			d.report("container %s, which profile %s is for, is missing", name, d.profile)
		}
		someone := len(additions[i].Containers) == 0 && slices.ContainsFunc(containers, func(c *corev1.Container) bool {
			return d.gained(c, &additions[i]) == wholly
		})
		for _, container := range containers {
			if someone && d.gained(container, &additions[i]) == nothing {
				continue // another webhook put it there after the Pod was woven
			}
			for j := range additions[i].Env {
				if name := additions[i].Env[j].Name; !hasEnv(container, name) {
					d.report("container %s is without %s in its environment, which profile %s sets", container.Name, name, d.profile)
				}
			}
			present := appendMounts(nil, container)
			for j := range additions[i].VolumeMounts {
				d.mount(container, &additions[i].VolumeMounts[j], present)
			}
		}
	}
}

// mount compares what an Addition mounts with what the container has there, and reports what is in its way, as for weaving.
func (d *differences) mount(container *corev1.Container, want *corev1.VolumeMount, present []mount) {
	where := "container " + container.Name
	got := findMount(container, want)
	if got == nil {
		d.report("%s is without volume %s at %s, which profile %s mounts", where, want.Name, want.MountPath, d.profile)
	} else if wanted, there, ok := d.asMaps(where, want, got); ok {
		c := comparison{d, where}
		c.objects("volumeMounts["+want.MountPath+"]", wanted, there)
	}
	for _, other := range inTheWay(want.MountPath, present) {
		itself := got != nil && other.path == got.MountPath && other.owner == volumeOwner(got.Name)
		if !itself && path.Clean(other.path) != "/" { // under everything, where it hides nothing
			d.report("%s has %s at %s, and profile %s mounts volume %s at %s: one would hide the other",
				where, other.owner, other.path, d.profile, want.Name, want.MountPath)
		}
	}
}

// writers reports containers that are not the Fragment's own and could change what is in its volumes: they may have them as an
// Addition says, or read them.
func (d *differences) writers(fragment *Fragment, options Options) {
	granted := d.granted(fragment.Additions, options)
	isOwn := func(name string) bool {
		return find(fragment.InitContainers, name) != nil || find(fragment.Containers, name) != nil
	}
	isOurs := func(volume string) bool {
		return slices.ContainsFunc(fragment.Volumes, func(v corev1.Volume) bool { return v.Name == volume })
	}
	check := func(container *corev1.Container) {
		if isOwn(container.Name) {
			return
		}
		for _, m := range container.VolumeMounts {
			if isOurs(m.Name) && !m.ReadOnly && !granted[grant{container.Name, m.Name, m.MountPath}] {
				d.report("container %s can write to volume %s at %s, which profile %s lets it only read; set readOnly: true",
					container.Name, m.Name, m.MountPath, d.profile)
			}
		}
		for _, device := range container.VolumeDevices {
			if isOurs(device.Name) {
				d.report("container %s has volume %s as the block device %s, which profile %s does not let it have",
					container.Name, device.Name, device.DevicePath, d.profile)
			}
		}
	}
	for _, containers := range [...][]corev1.Container{d.pod.Spec.InitContainers, d.pod.Spec.Containers} {
		for i := range containers {
			check(&containers[i])
		}
	}
	for i := range d.pod.Spec.EphemeralContainers {
		check((*corev1.Container)(&d.pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// grant is a mount that a container has from an Addition.
type grant struct{ container, volume, path string }

func (d *differences) granted(additions []Addition, options Options) map[grant]bool {
	w := Weaver{pod: d.pod, options: options}
	granted := map[grant]bool{}
	for i := range additions {
		containers, _ := w.targets(&additions[i])
		for _, container := range containers {
			for _, m := range additions[i].VolumeMounts {
				granted[grant{container.Name, m.Name, m.MountPath}] = true
			}
		}
	}
	return granted
}

// How much of an Addition a container has.
type gain int

const (
	nothing gain = iota
	partly
	wholly
)

func (d *differences) gained(container *corev1.Container, addition *Addition) gain {
	has := 0
	for i := range addition.Env {
		if hasEnv(container, addition.Env[i].Name) {
			has++
		}
	}
	for i := range addition.VolumeMounts {
		if findMount(container, &addition.VolumeMounts[i]) != nil {
			has++
		}
	}
	switch has {
	case len(addition.Env) + len(addition.VolumeMounts):
		return wholly
	case 0:
		return nothing
	default:
		return partly
	}
}
