package weave

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// IsPresent tells whether a Pod has everything that a Fragment would add: another weaving would add nothing. It is for a Fragment
// without containers, which no container of its name tells of. A Fragment that adds nothing is not there. Of variables only the
// names count, for the app's own values win.
func IsPresent(pod *corev1.Pod, fragment *Fragment, options Options) bool {
	p := presence{pod: pod}
	for _, containers := range fragment.containers() {
		for i := range containers {
			name := containers[i].Name
			p.expect(find(pod.Spec.InitContainers, name) != nil || find(pod.Spec.Containers, name) != nil)
		}
	}
	for i := range fragment.Volumes {
		p.expect(findVolume(pod, fragment.Volumes[i].Name) != nil)
	}
	p.expectKeys(fragment.Annotations, pod.Annotations)
	p.expectKeys(fragment.Labels, pod.Labels)
	p.expectSecretsAndHosts(fragment)
	p.expectAdditions(fragment.Additions, options)
	return p.found && !p.missed
}

// presence notes whether anything was looked for and found, and whether anything was not.
type presence struct {
	pod           *corev1.Pod
	found, missed bool
}

func (p *presence) expect(there bool) {
	p.found = p.found || there
	p.missed = p.missed || !there
}

func (p *presence) expectKeys(added, present map[string]string) {
	for key, value := range added {
		there, ok := present[key]
		p.expect(ok && there == value)
	}
}

func (p *presence) expectSecretsAndHosts(fragment *Fragment) {
	if len(fragment.ImagePullSecrets) > 0 {
		secrets := pullSecretNames(p.pod)
		for _, secret := range fragment.ImagePullSecrets {
			p.expect(secrets[secret.Name])
		}
	}
	if len(fragment.HostAliases) > 0 {
		hosts := hostEntries(p.pod)
		for _, alias := range fragment.HostAliases {
			for _, name := range alias.Hostnames {
				p.expect(hosts[hostEntry{alias.IP, name}])
			}
		}
	}
}

func (p *presence) expectAdditions(additions []Addition, options Options) {
	w := Weaver{pod: p.pod, options: options}
	for i := range additions {
		containers, missing := w.targets(&additions[i])
		if len(missing) > 0 {
			p.expect(false)
		}
		for _, container := range containers {
			for j := range additions[i].Env {
				p.expect(hasEnv(container, additions[i].Env[j].Name))
			}
			for j := range additions[i].VolumeMounts {
				p.expect(findMount(container, &additions[i].VolumeMounts[j]) != nil)
			}
		}
	}
}

// findMount returns the container's mount of the same volume at the same path, whatever else there is to it.
func findMount(container *corev1.Container, mount *corev1.VolumeMount) *corev1.VolumeMount {
	i := slices.IndexFunc(container.VolumeMounts, func(present corev1.VolumeMount) bool {
		return present.Name == mount.Name && present.MountPath == mount.MountPath
	})
	if i < 0 {
		return nil
	}
	return &container.VolumeMounts[i]
}

func findVolume(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}
