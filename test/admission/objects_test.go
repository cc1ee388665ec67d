package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// site is a gitSync profile.
func site(name string) *v1alpha1.ClusterPatternProfile {
	return clusterProfile(name, v1alpha1.Pattern{GitSync: &v1alpha1.GitSync{
		Repo: "https://git.example.com/site.git", Ref: "main", MountPath: "/srv/site",
	}})
}

// cache is a cacheAmbassador profile.
func cache(name string) *v1alpha1.ClusterPatternProfile {
	return clusterProfile(name, v1alpha1.Pattern{CacheAmbassador: &v1alpha1.CacheAmbassador{
		Protocol: v1alpha1.CacheProtocolRedis, Local: &v1alpha1.LocalCache{},
	}})
}

func clusterProfile(name string, pattern v1alpha1.Pattern) *v1alpha1.ClusterPatternProfile {
	return &v1alpha1.ClusterPatternProfile{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ClusterPatternProfileSpec{ProfileSpec: v1alpha1.ProfileSpec{Pattern: pattern}},
	}
}

// inNamespace is the same as a PatternProfile.
func inNamespace(namespace string, profile *v1alpha1.ClusterPatternProfile) *v1alpha1.PatternProfile {
	return &v1alpha1.PatternProfile{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: profile.Name},
		Spec:       v1alpha1.PatternProfileSpec{ProfileSpec: profile.Spec.ProfileSpec},
	}
}

// matching makes a profile choose all Pods of the namespaces with a label.
func matching(
	profile *v1alpha1.ClusterPatternProfile, key string, policy v1alpha1.FailurePolicy,
) *v1alpha1.ClusterPatternProfile {
	profile.Spec.FailurePolicy = policy
	profile.Spec.Match = &v1alpha1.ClusterMatch{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{key: ""}}}
	return profile
}

// create creates an object for the time of the test.
func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := server.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the test's context has ended
		if err := client.IgnoreNotFound(server.Client.Delete(context.Background(), object)); err != nil {
			t.Error(err)
		}
	})
}

// createReady creates a profile and waits until the controller says that Pods get it.
func createReady(t *testing.T, object client.Object) {
	t.Helper()
	create(t, object)
	awaitReadyProfile(t, client.ObjectKeyFromObject(object))
}

func awaitReadyProfile(t *testing.T, key types.NamespacedName) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		var status *v1alpha1.ProfileStatus
		var object client.Object
		if key.Namespace == "" {
			profile := &v1alpha1.ClusterPatternProfile{}
			object, status = profile, &profile.Status
		} else {
			profile := &v1alpha1.PatternProfile{}
			object, status = profile, &profile.Status
		}
		if err := server.Client.Get(ctx, key, object); err != nil {
			return false, err
		}
		ready := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady)
		return ready && status.ObservedGeneration == object.GetGeneration(), fmt.Errorf("%s is not ready: %+v", key, status.Conditions)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	name, err := server.CreateNamespace(t.Context(), labels)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// pod is a Pod that Pod Security "restricted" admits, with annotations in pairs.
func pod(namespace string, annotations ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "app-", Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{container("app"), container("web")},
			Volumes: []corev1.Volume{{
				Name: "templates", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			}},
		},
	}
	for i := 0; i+1 < len(annotations); i += 2 {
		p.Annotations[annotations[i]] = annotations[i+1]
	}
	return p
}

func container(name string) corev1.Container {
	return corev1.Container{
		Name: name, Image: "registry.example.com/" + name + ":1",
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: quantity("10m"), corev1.ResourceMemory: quantity("16Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: quantity("1"), corev1.ResourceMemory: quantity("64Mi")},
		},
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// admit creates a Pod that has to be admitted, and returns what the API server stored and warned of.
func admit(t *testing.T, p *corev1.Pod) (*corev1.Pod, []string) {
	t.Helper()
	stored, warnings, err := createPod(t, p)
	if err != nil {
		t.Fatalf("the Pod is refused: %v", err)
	}
	return stored, warnings
}

// refuse creates a Pod that has to be refused, and returns why it was.
func refuse(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	stored, _, err := createPod(t, p)
	if err == nil {
		t.Fatalf("the Pod is admitted, with %q", added(stored))
	}
	return err.Error()
}

func createPod(t *testing.T, p *corev1.Pod) (*corev1.Pod, []string, error) {
	t.Helper()
	recorder := &warnings{}
	config := rest.CopyConfig(server.Config)
	config.WarningHandler = recorder
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := clientset.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
	return stored, recorder.messages, err
}

// warnings keeps the warnings of responses.
type warnings struct{ messages []string }

func (w *warnings) HandleWarningHeader(_ int, _, message string) {
	w.messages = append(w.messages, message)
}

// added returns the names of the containers that Pillion added.
func added(p *corev1.Pod) []string {
	names := []string{}
	for i := range p.Spec.InitContainers {
		if v1alpha1.IsReservedName(p.Spec.InitContainers[i].Name) {
			names = append(names, p.Spec.InitContainers[i].Name)
		}
	}
	for i := range p.Spec.Containers {
		if v1alpha1.IsReservedName(p.Spec.Containers[i].Name) {
			names = append(names, p.Spec.Containers[i].Name)
		}
	}
	return names
}

// missing returns an error that names the parts that a text does not have.
func missing(text string, parts ...string) error {
	var errs []error
	for _, part := range parts {
		if !strings.Contains(text, part) {
			errs = append(errs, fmt.Errorf("it does not say %q: %s", part, text))
		}
	}
	return errors.Join(errs...)
}
