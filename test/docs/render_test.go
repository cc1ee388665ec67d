package docs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// wovenPod is what a page shows of a Pod: what Pillion adds, without what hardens it.
type wovenPod struct {
	Metadata *wovenMetadata `yaml:"metadata,omitempty"`
	Spec     wovenSpec      `yaml:"spec"`
}

type wovenMetadata struct {
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type wovenSpec struct {
	InitContainers []wovenContainer `yaml:"initContainers,omitempty"`
	Containers     []wovenContainer `yaml:"containers"`
	Volumes        []flow           `yaml:"volumes,omitempty"`
}

type wovenContainer struct {
	Name          string   `yaml:"name"`
	Image         string   `yaml:"image"`
	RestartPolicy string   `yaml:"restartPolicy,omitempty"`
	Command       []string `yaml:"command,omitempty,flow"`
	Args          any      `yaml:"args,omitempty"`
	Env           []flow   `yaml:"env,omitempty"`
	Ports         []flow   `yaml:"ports,omitempty"`
	Lifecycle     *flow    `yaml:"lifecycle,omitempty"`
	VolumeMounts  []flow   `yaml:"volumeMounts,omitempty"`
}

// flow is written on one line.
type flow struct{ value any }

// MarshalYAML writes the value as a flow.
func (f flow) MarshalYAML() (any, error) {
	node := &yaml.Node{}
	if err := node.Encode(f.value); err != nil {
		return nil, err
	}
	node.Style = yaml.FlowStyle
	return node, nil
}

// render returns the YAML that a page shows of a Pod.
func render(pod *corev1.Pod) (string, error) {
	shown := wovenPod{Spec: wovenSpec{}}
	annotations := map[string]string{}
	for key, value := range pod.Annotations {
		if strings.HasPrefix(key, "prometheus.io/") {
			annotations[key] = value
		}
	}
	if len(annotations) > 0 {
		shown.Metadata = &wovenMetadata{annotations}
	}
	for i := range pod.Spec.InitContainers {
		shown.Spec.InitContainers = append(shown.Spec.InitContainers, renderContainer(&pod.Spec.InitContainers[i]))
	}
	for i := range pod.Spec.Containers {
		shown.Spec.Containers = append(shown.Spec.Containers, renderContainer(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.Volumes {
		if volume := &pod.Spec.Volumes[i]; v1alpha1.IsReservedName(volume.Name) && !strings.HasSuffix(volume.Name, "no-token") {
			shown.Spec.Volumes = append(shown.Spec.Volumes, flow{renderVolume(volume)})
		}
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	if err := encoder.Encode(shown); err != nil {
		return "", fmt.Errorf("write what the Pod looks like: %w", err)
	}
	return text.String(), nil
}

func renderContainer(c *corev1.Container) wovenContainer {
	shown := wovenContainer{Name: c.Name, Image: c.Image, Command: c.Command}
	if line := strings.Join(c.Args, ", "); line != "" {
		shown.Args = c.Args
		if len(line) <= 80 {
			shown.Args = flow{c.Args}
		}
	}
	if c.RestartPolicy != nil {
		shown.RestartPolicy = string(*c.RestartPolicy)
	}
	type pair struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	}
	for i := range c.Env {
		if c.Env[i].ValueFrom == nil {
			shown.Env = append(shown.Env, flow{pair{c.Env[i].Name, c.Env[i].Value}})
		}
	}
	for _, port := range c.Ports {
		shown.Ports = append(shown.Ports, flow{struct {
			Name string `yaml:"name,omitempty"`
			Port int32  `yaml:"containerPort"`
		}{port.Name, port.ContainerPort}})
	}
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		command := slices.Clone(c.Lifecycle.PostStart.Exec.Command)
		command[2] = "…" // the shell's lines, the same everywhere
		shown.Lifecycle = &flow{map[string]any{"postStart": map[string]any{"exec": map[string]any{"command": command}}}}
	}
	for _, mount := range c.VolumeMounts {
		if !v1alpha1.IsReservedName(mount.Name) || strings.HasSuffix(mount.Name, "no-token") {
			continue
		}
		shown.VolumeMounts = append(shown.VolumeMounts, flow{struct {
			Name     string `yaml:"name"`
			Path     string `yaml:"mountPath"`
			ReadOnly bool   `yaml:"readOnly,omitempty"`
		}{mount.Name, mount.MountPath, mount.ReadOnly}})
	}
	return shown
}

// wovenVolume is a volume with its source.
type wovenVolume struct {
	Name        string         `yaml:"name"`
	EmptyDir    map[string]any `yaml:"emptyDir,omitempty"`
	ConfigMap   map[string]any `yaml:"configMap,omitempty"`
	Secret      map[string]any `yaml:"secret,omitempty"`
	DownwardAPI map[string]any `yaml:"downwardAPI,omitempty"`
	Projected   map[string]any `yaml:"projected,omitempty"`
}

func renderVolume(volume *corev1.Volume) wovenVolume {
	shown := wovenVolume{Name: volume.Name}
	named := func(name string) map[string]any { return map[string]any{"name": name} }
	if dir := volume.EmptyDir; dir != nil {
		shown.EmptyDir = map[string]any{}
		if dir.SizeLimit != nil {
			shown.EmptyDir["sizeLimit"] = dir.SizeLimit.String()
		}
		if dir.Medium != "" {
			shown.EmptyDir["medium"] = string(dir.Medium)
		}
	}
	if volume.ConfigMap != nil {
		shown.ConfigMap = named(volume.ConfigMap.Name)
	}
	if volume.Secret != nil {
		shown.Secret = map[string]any{"secretName": volume.Secret.SecretName}
	}
	if volume.DownwardAPI != nil {
		var items []any
		for i := range volume.DownwardAPI.Items {
			if ref := volume.DownwardAPI.Items[i].FieldRef; ref != nil {
				items = append(items, map[string]any{"fieldRef": map[string]any{"fieldPath": ref.FieldPath}})
			}
		}
		shown.DownwardAPI = map[string]any{"items": items}
	}
	if volume.Projected != nil {
		var sources []any
		for i := range volume.Projected.Sources {
			if source := volume.Projected.Sources[i].ConfigMap; source != nil {
				sources = append(sources, map[string]any{"configMap": named(source.Name)})
			}
			if source := volume.Projected.Sources[i].Secret; source != nil {
				sources = append(sources, map[string]any{"secret": named(source.Name)})
			}
		}
		shown.Projected = map[string]any{"sources": sources}
	}
	return shown
}
