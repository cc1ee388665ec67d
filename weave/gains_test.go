package weave_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/weave"
)

func TestDifferencesOfWhatTheAppMounts(t *testing.T) {
	sets := func(field, value string) []string {
		return []string{"container app has volumeMounts[/srv/site]." + field + " set to " + value + ", which profile x does not set"}
	}
	hidden := func(what, where string) []string {
		return []string{"container app has " + what + " at " + where + ", and profile x mounts volume pillion-x at /srv/site: " +
			"one would hide the other"}
	}
	mounts := func(path string) func(*corev1.Container) {
		return func(c *corev1.Container) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: path})
		}
	}
	tests := map[string]struct {
		profile func(*corev1.VolumeMount)
		change  func(*corev1.Container)
		want    []string
	}{
		"the defaults, written out": {
			change: func(c *corev1.Container) {
				c.VolumeMounts[0].MountPropagation = new(corev1.MountPropagationNone)
				c.VolumeMounts[0].RecursiveReadOnly = new(corev1.RecursiveReadOnlyDisabled)
			},
		},
		"a part of the volume": {
			change: func(c *corev1.Container) { c.VolumeMounts[0].SubPath = "empty" }, want: sets("subPath", `"empty"`),
		},
		"a part of the volume that a variable names": {
			change: func(c *corev1.Container) { c.VolumeMounts[0].SubPathExpr = "$(X)" }, want: sets("subPathExpr", `"$(X)"`),
		},
		"only to read, where the profile lets the app write": {
			change: func(c *corev1.Container) { c.VolumeMounts[0].ReadOnly = true }, want: sets("readOnly", "true"),
		},
		"mounts of the node that come later": {
			change: func(c *corev1.Container) {
				c.VolumeMounts[0].MountPropagation = new(corev1.MountPropagationHostToContainer)
			},
			want: sets("mountPropagation", `"HostToContainer"`),
		},
		"to write, where the profile lets the app only read": {
			profile: func(m *corev1.VolumeMount) { m.ReadOnly = true },
			change:  func(*corev1.Container) {},
			want:    []string{"container app is without volumeMounts[/srv/site].readOnly, which profile x sets to true"},
		},
		"to write below, where the profile lets the app only read": {
			profile: func(m *corev1.VolumeMount) {
				m.ReadOnly, m.RecursiveReadOnly = true, new(corev1.RecursiveReadOnlyEnabled)
			},
			change: func(c *corev1.Container) { c.VolumeMounts[0].ReadOnly = true },
			want:   []string{`container app is without volumeMounts[/srv/site].recursiveReadOnly, which profile x sets to "Enabled"`},
		},
		"another mount below":                  {change: mounts("/srv/site/file"), want: hidden("volume data", "/srv/site/file")},
		"another mount above":                  {change: mounts("/srv/"), want: hidden("volume data", "/srv/")},
		"another mount at the path":            {change: mounts("/srv/site/"), want: hidden("volume data", "/srv/site/")},
		"another mount that only begins alike": {change: mounts("/srv/site2")},
		"another mount under everything":       {change: mounts("/")},
		"a block device below": {
			change: func(c *corev1.Container) {
				c.VolumeDevices = []corev1.VolumeDevice{{Name: "disk", DevicePath: "/srv/site/disk"}}
			},
			want: hidden("block device disk", "/srv/site/disk"),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			test.change(&pod.Spec.Containers[0])
			if test.profile != nil {
				test.profile(&fragment.Additions[0].VolumeMounts[0])
			}
			if diff := cmp.Diff(test.want, weave.Differences(pod, &fragment, options())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhoMayWriteToTheVolumesOfAProfile(t *testing.T) {
	writes := func(container, path string) []string {
		return []string{"container " + container + " can write to volume pillion-x at " + path +
			", which profile x lets it only read; set readOnly: true"}
	}
	to := func(path string) []corev1.VolumeMount {
		return []corev1.VolumeMount{{Name: "pillion-x", MountPath: path}}
	}
	tests := map[string]struct {
		change func(*corev1.PodSpec)
		want   []string
	}{
		"an init container of the app": {func(spec *corev1.PodSpec) {
			spec.InitContainers[3].VolumeMounts = to("/x")
		}, writes("setup", "/x")},
		"an init container of the app, where the profile mounts it into the app": {func(spec *corev1.PodSpec) {
			spec.InitContainers[3].VolumeMounts = to("/srv/site")
		}, writes("setup", "/srv/site")},
		"an init container that only reads": {func(spec *corev1.PodSpec) {
			spec.InitContainers[3].VolumeMounts = to("/x")
			spec.InitContainers[3].VolumeMounts[0].ReadOnly = true
		}, nil},
		"a container of the app, at another path": {func(spec *corev1.PodSpec) {
			spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, to("/x")...)
		}, writes("app", "/x")},
		"a container of another profile": {func(spec *corev1.PodSpec) {
			spec.Containers = append(spec.Containers, corev1.Container{Name: "pillion-other", VolumeMounts: to("/x")})
		}, writes("pillion-other", "/x")},
		"an ephemeral container": {func(spec *corev1.PodSpec) {
			spec.EphemeralContainers = []corev1.EphemeralContainer{
				{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", VolumeMounts: to("/x")}},
			}
		}, writes("debug", "/x")},
		"a container that has it as a device": {func(spec *corev1.PodSpec) {
			spec.InitContainers[3].VolumeDevices = []corev1.VolumeDevice{{Name: "pillion-x", DevicePath: "/dev/x"}}
		}, []string{"container setup has volume pillion-x as the block device /dev/x, which profile x does not let it have"}},
		"a container that came later and has it as the app does": {func(spec *corev1.PodSpec) {
			spec.Containers = append(spec.Containers, corev1.Container{
				Name: "late", Env: []corev1.EnvVar{{Name: "SITE"}}, VolumeMounts: to("/srv/site"),
			})
		}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			test.change(&pod.Spec)
			if diff := cmp.Diff(test.want, weave.Differences(pod, &fragment, options())); diff != "" {
				t.Error(diff)
			}
		})
	}
}
