package profiles_test

import (
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
)

// benchmarkPod is an ordinary Pod of three containers.
const benchmarkPod = `{
  "apiVersion": "v1", "kind": "Pod",
  "metadata": {"generateName": "web-6d4b75cb6d-", "namespace": "ns-500",
    "labels": {"app": "web", "pod-template-hash": "6d4b75cb6d"}, "annotations": {"prometheus.example.com/team": "web"}},
  "spec": {
    "containers": [
      {"name": "web", "image": "nginx:1.29", "ports": [{"containerPort": 8080}],
       "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
       "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
       "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]},
      {"name": "log", "image": "busybox:1.37", "args": ["tail", "-F", "/data/log"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
      {"name": "api", "image": "api:3", "ports": [{"containerPort": 9000}], "envFrom": [{"configMapRef": {"name": "api"}}]}
    ],
    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "token", "emptyDir": {}}]
  }
}`

// benchmarkSnapshot has n profiles, one of which matches Pods of app "web" in namespaces of team "web".
func benchmarkSnapshot(b *testing.B, n int) *profiles.Snapshot {
	b.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		b.Fatal(err)
	}
	compiled := make([]*profiles.Profile, n)
	for i := range compiled {
		app := fmt.Sprintf("app-%d", i)
		if i == n/2 {
			app = "web"
		}
		profile := &v1alpha1.ClusterPatternProfile{}
		profile.Name = fmt.Sprintf("profile-%d", i)
		profile.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPatternProfile"}
		profile.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
		profile.Spec.Overridable = []string{"ref"}
		profile.Spec.Match = &v1alpha1.ClusterMatch{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}
		if compiled[i] = compiler.Cluster(profile); len(compiled[i].Problems) > 0 {
			b.Fatal(compiled[i].Problems)
		}
	}
	return profiles.NewSnapshot(profiles.Options{Images: injectors.DefaultImages("")}, compiled)
}

func BenchmarkDecide(b *testing.B) {
	pod := &corev1.Pod{}
	if err := json.Unmarshal([]byte(benchmarkPod), pod); err != nil {
		b.Fatal(err)
	}
	namespace := profiles.Namespace{Name: "ns-500", Labels: map[string]string{"team": "web", "kubernetes.io/metadata.name": "ns-500"}}
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("profiles=%d", n), func(b *testing.B) {
			snapshot := benchmarkSnapshot(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if decision := profiles.Decide(snapshot, namespace, pod); len(decision.Patch) == 0 {
					b.Fatal("nothing was woven")
				}
			}
		})
	}
	b.Run("override", func(b *testing.B) {
		snapshot := benchmarkSnapshot(b, 10)
		overriding := pod.DeepCopy()
		overriding.Annotations["profile-5.pillion.dev/ref"] = "v2"
		b.ReportAllocs()
		for b.Loop() {
			if decision := profiles.Decide(snapshot, namespace, overriding); len(decision.Patch) == 0 {
				b.Fatal("nothing was woven")
			}
		}
	})
}

// BenchmarkSnapshot is the cost of one changed profile among n.
func BenchmarkSnapshot(b *testing.B) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		b.Fatal(err)
	}
	compiled := make([]*profiles.Profile, 1000)
	for i := range compiled {
		profile := &v1alpha1.ClusterPatternProfile{}
		profile.Name = fmt.Sprintf("profile-%d", i)
		profile.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPatternProfile"}
		profile.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
		compiled[i] = compiler.Cluster(profile)
	}
	for b.Loop() {
		profiles.NewSnapshot(profiles.Options{}, compiled)
	}
}
