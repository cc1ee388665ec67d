package injectors

import (
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// hardenCustom sets what harden does, as far as the template leaves it open: it is for whoever writes a profile to say that a
// container needs more, and for Pod Security to say where it may have it.
func hardenCustom(fragment *weave.Fragment, hardening Hardening) {
	noToken, hidden := v1alpha1.ReservedName(fragment.Profile, noTokenVolume), false
	for _, containers := range [][]corev1.Container{fragment.InitContainers, fragment.Containers} {
		for i := range containers {
			container := &containers[i]
			container.SecurityContext = tightened(container.SecurityContext)
			if container.TerminationMessagePolicy == "" {
				container.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
			}
			if hardening.HideToken && !hasMountAt(container, serviceAccountPath) {
				hidden = true
				container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
					Name: noToken, MountPath: serviceAccountPath, ReadOnly: true,
				})
			}
			setResources(&container.Resources, hardening)
		}
	}
	for i := range fragment.Volumes {
		if directory := fragment.Volumes[i].EmptyDir; directory != nil && directory.SizeLimit == nil &&
			directory.Medium == corev1.StorageMediumDefault {
			directory.SizeLimit = new(resource.MustParse("100Mi"))
		}
	}
	if hidden {
		fragment.Volumes = append(fragment.Volumes, emptyDir(noToken, resource.MustParse("1Mi")))
	}
}

// setResources sets requests and limits, and keeps a Guaranteed Pod so.
func setResources(requirements *corev1.ResourceRequirements, hardening Hardening) {
	resources{cpuRequest: "10m", cpuLimit: "500m", memoryRequest: "32Mi", memoryLimit: "128Mi"}.fill(requirements)
	keepGuaranteed(requirements, hardening)
}

// tightened fills what a security context leaves open.
func tightened(given *corev1.SecurityContext) *corev1.SecurityContext {
	filled, defaults := &corev1.SecurityContext{}, restricted()
	if given != nil {
		filled = given
	}
	fillUser(filled, defaults)
	if filled.AllowPrivilegeEscalation == nil && !wantsPrivileges(filled) {
		filled.AllowPrivilegeEscalation = defaults.AllowPrivilegeEscalation
	}
	if filled.ReadOnlyRootFilesystem == nil {
		filled.ReadOnlyRootFilesystem = defaults.ReadOnlyRootFilesystem
	}
	switch {
	case filled.Capabilities == nil:
		filled.Capabilities = defaults.Capabilities
	case filled.Capabilities.Drop == nil:
		filled.Capabilities.Drop = defaults.Capabilities.Drop
	}
	if filled.SeccompProfile == nil {
		filled.SeccompProfile = defaults.SeccompProfile
	}
	return filled
}

// fillUser chooses a user that is not root, unless the template wants the image's own or one of its choice. A container that is
// to run as root must say so, or a Pod that forbids root would keep it from starting.
func fillUser(filled, defaults *corev1.SecurityContext) {
	switch {
	case filled.RunAsUser != nil && *filled.RunAsUser == 0 && filled.RunAsNonRoot == nil:
		filled.RunAsNonRoot = new(false)
	case filled.RunAsNonRoot == nil:
		filled.RunAsNonRoot = defaults.RunAsNonRoot
	}
	if filled.RunAsUser != nil || !*filled.RunAsNonRoot {
		return
	}
	filled.RunAsUser = defaults.RunAsUser
	if filled.RunAsGroup == nil {
		filled.RunAsGroup = defaults.RunAsGroup
	}
}

// wantsPrivileges tells whether the API server would refuse allowPrivilegeEscalation: false beside what the container asks for.
func wantsPrivileges(security *corev1.SecurityContext) bool {
	if security.Privileged != nil && *security.Privileged {
		return true
	}
	return security.Capabilities != nil && slices.ContainsFunc(security.Capabilities.Add, func(capability corev1.Capability) bool {
		return capability == "SYS_ADMIN" || capability == "CAP_SYS_ADMIN"
	})
}

func hasMountAt(container *corev1.Container, mountPath string) bool {
	return slices.ContainsFunc(container.VolumeMounts, func(mount corev1.VolumeMount) bool {
		return path.Clean(mount.MountPath) == mountPath
	})
}
