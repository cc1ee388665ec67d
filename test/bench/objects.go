package main

import (
	_ "embed"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// benchPod is an ordinary Pod of three containers.
func benchPod(lane, key, inject string) *corev1.Pod {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "web-6d4b75cb6d-", Namespace: namespace,
			Labels:      map[string]string{"app": "web", "lane": lane, "pod-template-hash": "6d4b75cb6d"},
			Annotations: map[string]string{key: inject, "prometheus.example.com/team": "web"},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{
				{
					Name: "web", Image: "nginx:1.29", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
					Env:          []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}},
					Resources:    corev1.ResourceRequirements{Requests: amounts, Limits: amounts},
					VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
				},
				{
					Name: "log", Image: "busybox:1.37", Args: []string{"tail", "-F", "/data/log"},
					VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
				},
				{Name: "api", Image: "api:3", Ports: []corev1.ContainerPort{{ContainerPort: 9000}}},
			},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
	}
}

func gitSyncProfile(name string) *v1alpha1.ClusterPatternProfile {
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: name}}
	profile.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
	return profile
}

//go:embed profiles.yaml
var profilesYAML []byte
