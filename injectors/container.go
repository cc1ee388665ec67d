package injectors

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// user is the uid and gid of injected containers. It has a passwd entry in the git-sync image, without which ssh refuses to run.
const user = 65533

// serviceAccountPath is where the API server mounts the ServiceAccount's token unless something is mounted there already.
const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// noTokenVolume is the part of the name of the empty volume that is mounted there instead.
const noTokenVolume = "no-token"

// Hardening is what of a Pod decides how injected containers are hardened.
type Hardening struct {
	// HideToken says that the API server would mount the ServiceAccount's token into them.
	HideToken bool
	// Guaranteed says that the Pod's QoS class is, by the resources of its containers, and is to stay so.
	Guaranteed bool
}

// HardeningFor returns how containers that are injected into a Pod are hardened.
func HardeningFor(pod *corev1.Pod) Hardening {
	return Hardening{
		HideToken:  pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken,
		Guaranteed: isGuaranteed(pod),
	}
}

// Build returns what the pattern of the request adds: its Fragment, hardened so that Pod Security "restricted" admits it.
func Build(injector Injector, request Request, hardening Hardening) weave.Fragment {
	fragment := injector.Fragment(request)
	harden(&fragment, hardening)
	return fragment
}

// harden sets what every injected container has, whatever its pattern: a restricted security context, the cause of a failure in
// its status, no ServiceAccount token, and requests that equal the limits where the Pod is Guaranteed.
func harden(fragment *weave.Fragment, hardening Hardening) {
	volume := v1alpha1.ReservedName(fragment.Profile, noTokenVolume)
	if hardening.HideToken {
		fragment.Volumes = append(fragment.Volumes, emptyDir(volume, resource.MustParse("1Mi")))
	}
	for i := range fragment.InitContainers {
		container := &fragment.InitContainers[i]
		container.SecurityContext = restricted()
		container.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		if hardening.HideToken {
			container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
				Name: volume, MountPath: serviceAccountPath, ReadOnly: true,
			})
		}
		keepGuaranteed(&container.Resources, hardening)
	}
}

func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot:             new(true),
		RunAsUser:                new(int64(user)),
		RunAsGroup:               new(int64(user)),
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// keepGuaranteed sets the requests to the limits where the Pod is Guaranteed. Requests without a limit, which the class does not follow
// from, are left alone.
func keepGuaranteed(requirements *corev1.ResourceRequirements, hardening Hardening) {
	if !hardening.Guaranteed {
		return
	}
	for name := range requirements.Limits {
		setQuantity(&requirements.Requests, name, requirements.Limits[name].DeepCopy())
	}
}

// HasPodResources tells whether a Pod sets resources for all its containers together. Its QoS class follows from those alone, as for
// the kubelet (ComputePodQOS in k8s.io/kubernetes/pkg/apis/core/v1/helper/qos).
func HasPodResources(pod *corev1.Pod) bool {
	own := pod.Spec.Resources
	return own != nil && len(own.Requests)+len(own.Limits) > 0
}

// isGuaranteed tells whether the containers of the Pod make its QoS class Guaranteed: every one has limits for CPU and memory, and its
// requests, where they are set, equal them. They do not where the Pod has resources of its own.
func isGuaranteed(pod *corev1.Pod) bool {
	if HasPodResources(pod) {
		return false
	}
	guaranteed := func(containers []corev1.Container) bool {
		for i := range containers {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, ok := containers[i].Resources.Limits[name]
				if !ok || limit.IsZero() {
					return false
				}
				if request, ok := containers[i].Resources.Requests[name]; ok && request.Cmp(limit) != 0 {
					return false
				}
			}
		}
		return true
	}
	return len(pod.Spec.Containers) > 0 && guaranteed(pod.Spec.Containers) && guaranteed(pod.Spec.InitContainers)
}

// resources are a pattern's default amounts of CPU and memory. They are parsed once per call from constants.
type resources struct {
	cpuRequest, cpuLimit       string
	memoryRequest, memoryLimit string
}

// with returns the settings' requests and limits, each key that is absent filled with the default.
func (defaults resources) with(settings v1alpha1.Resources) corev1.ResourceRequirements {
	requirements := corev1.ResourceRequirements{}
	set := func(list *corev1.ResourceList, name corev1.ResourceName, quantity *resource.Quantity) {
		if quantity != nil {
			setQuantity(list, name, quantity.DeepCopy())
		}
	}
	set(&requirements.Requests, corev1.ResourceCPU, settings.Requests.CPU)
	set(&requirements.Requests, corev1.ResourceMemory, settings.Requests.Memory)
	set(&requirements.Requests, corev1.ResourceEphemeralStorage, settings.Requests.EphemeralStorage)
	set(&requirements.Limits, corev1.ResourceCPU, settings.Limits.CPU)
	set(&requirements.Limits, corev1.ResourceMemory, settings.Limits.Memory)
	set(&requirements.Limits, corev1.ResourceEphemeralStorage, settings.Limits.EphemeralStorage)
	defaults.fill(&requirements)
	return requirements
}

// fill sets the requests and limits that are absent. A lone request above the default limit raises that limit, a lone limit below the
// default request lowers that request: the API server would refuse the Pod otherwise.
func (defaults resources) fill(requirements *corev1.ResourceRequirements) {
	fill := func(name corev1.ResourceName, defaultRequest, defaultLimit string) {
		request, hasRequest := requirements.Requests[name]
		limit, hasLimit := requirements.Limits[name]
		if !hasRequest {
			q := resource.MustParse(defaultRequest)
			if hasLimit && limit.Cmp(q) < 0 {
				q = limit.DeepCopy()
			}
			setQuantity(&requirements.Requests, name, q)
		}
		if !hasLimit {
			q := resource.MustParse(defaultLimit)
			if hasRequest && request.Cmp(q) > 0 {
				q = request.DeepCopy()
			}
			setQuantity(&requirements.Limits, name, q)
		}
	}
	fill(corev1.ResourceCPU, defaults.cpuRequest, defaults.cpuLimit)
	fill(corev1.ResourceMemory, defaults.memoryRequest, defaults.memoryLimit)
}

func setQuantity(list *corev1.ResourceList, name corev1.ResourceName, quantity resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = quantity
}

// newContainer returns a container with the settings that every pattern offers. part distinguishes the containers of a profile
// that has several.
func newContainer(request Request, part, defaultImage string, settings *v1alpha1.ContainerSettings, defaults resources) corev1.Container {
	container := corev1.Container{
		Name:            v1alpha1.ReservedName(request.Profile, part),
		Image:           defaultImage,
		ImagePullPolicy: settings.ImagePullPolicy,
		Resources:       defaults.with(settings.Resources),
	}
	if settings.Image != "" {
		container.Image = settings.Image
	}
	return container
}

// addEnv adds the settings' variables to a container, after the pattern's own. A variable that the pattern sets itself is the
// profile's to change.
func addEnv(container *corev1.Container, settings *v1alpha1.ContainerSettings) {
next:
	for _, variable := range settings.Env {
		added := corev1.EnvVar{Name: variable.Name, Value: literal(variable.Value)}
		for i := range container.Env {
			if container.Env[i].Name == variable.Name {
				container.Env[i] = added
				continue next
			}
		}
		container.Env = append(container.Env, added)
	}
}

// literal escapes a string for a container's command, args or env, where the kubelet would expand $(NAME).
func literal(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// loopbackPort is a second port that a program listens on, beside the one it is known by: that of an exporter which a proxy fronts, or
// of twemproxy's statistics. It is so far from the first that the ports next to those of well-known programs stay free, and below
// the ephemeral ports where that one is.
func loopbackPort(port int32) int32 {
	const distance = 10000
	if port > 65535-distance {
		return port - distance
	}
	return port + distance
}

func emptyDir(name string, sizeLimit resource.Quantity) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &sizeLimit},
	}}
}

// configFile is a file that reaches a container through a Pod annotation and a downwardAPI volume.
type configFile struct {
	// key distinguishes the annotations of a profile with several files; empty for the first.
	key string
	// path is relative to the volume.
	path    string
	content string
}

// addConfig adds configuration files to the Fragment and returns the mount of the volume that holds them. No object has to be
// created, collected or raced with; nothing secret may travel that way.
func addConfig(fragment *weave.Fragment, mountPath string, files ...configFile) corev1.VolumeMount {
	volume := corev1.Volume{
		Name:         v1alpha1.ReservedName(fragment.Profile, "config"),
		VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}},
	}
	if fragment.Annotations == nil {
		fragment.Annotations = map[string]string{}
	}
	for _, file := range files {
		key := v1alpha1.ConfigKeyPrefix + fragment.Profile
		if file.key != "" {
			key += "." + file.key
		}
		fragment.Annotations[key] = file.content
		volume.DownwardAPI.Items = append(volume.DownwardAPI.Items, corev1.DownwardAPIVolumeFile{
			Path:     file.path,
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['" + key + "']"},
		})
	}
	fragment.Volumes = append(fragment.Volumes, volume)
	return corev1.VolumeMount{Name: volume.Name, MountPath: mountPath, ReadOnly: true}
}
