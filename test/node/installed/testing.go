package installed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// appLabel is what objects of this package are found by.
const appLabel = "app"

// CreateRestricted makes a namespace that enforces Pod Security restricted, with more labels. It goes with the test. When the
// test fails, what happened in it is told.
func (c *Cluster) CreateRestricted(t *testing.T, labels map[string]string) string {
	t.Helper()
	all := map[string]string{restrictedLabel: "restricted"}
	maps.Copy(all, labels)
	name, err := c.CreateNamespace(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Explain(context.Background(), name))
		}
		// Its Pods end in their own time. The other tests have no need to wait for them.
		err := c.Clientset.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
		if client.IgnoreNotFound(err) != nil { // a test may have deleted it
			t.Error(err)
		}
	})
	return name
}

// Apply applies documents of YAML, server-side. Those of kinds that have a namespace are of this one where they say none;
// namespace "" is for documents of kinds that have none. They are removed after the test if they have none.
func (c *Cluster) Apply(t *testing.T, namespace, documents string) {
	t.Helper()
	objects, err := apiserver.Read(strings.NewReader(documents))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if object.GetNamespace() == "" {
			object.SetNamespace(namespace)
		}
		if err := c.Server.Apply(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		if object.GetNamespace() != "" {
			continue
		}
		t.Cleanup(func() {
			if err := client.IgnoreNotFound(c.Client.Delete(context.Background(), object)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Create creates an object.
func (c *Cluster) Create(t *testing.T, object client.Object) {
	t.Helper()
	if err := c.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// Eventually waits for a condition, which returns why it does not hold yet.
func (c *Cluster) Eventually(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	if err := c.Await(t.Context(), what, condition); err != nil {
		t.Fatal(err)
	}
}

// AwaitProfile waits until a profile is Ready: a PatternProfile, or a ClusterPatternProfile where namespace is "".
func (c *Cluster) AwaitProfile(t *testing.T, namespace, name string) {
	t.Helper()
	c.Eventually(t, "profile "+name, func(ctx context.Context) error {
		key := client.ObjectKey{Namespace: namespace, Name: name}
		if namespace != "" {
			profile := &v1alpha1.PatternProfile{}
			return errors.Join(c.Client.Get(ctx, key, profile), isReady(profile, &profile.Status))
		}
		profile := &v1alpha1.ClusterPatternProfile{}
		return errors.Join(c.Client.Get(ctx, key, profile), isReady(profile, &profile.Status))
	})
}

// Deployment is of one replica of an app that knows nothing of Pillion, as Pod Security restricted wants it. Its Pods have the
// label app with its name, and its container is called app.
func Deployment(namespace, name, image string, args ...string) *appsv1.Deployment {
	labels := map[string]string{appLabel: name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{Container("app", image, args...)}},
			},
		},
	}
}

// Container is one of an app, as Pod Security restricted wants it.
func Container(name, image string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: image, Args: args, SecurityContext: &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}}
}

// ReadyPod waits until the only Pod with the label app=name is Ready, and returns it. What an older revision left does not count
// once it is being deleted.
func (c *Cluster) ReadyPod(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	return c.PodThat(t, namespace, name, "is Ready", IsReady)
}

// PodThat waits until there is one Pod with the label app=name, and a condition of it holds, which returns why it does not yet.
func (c *Cluster) PodThat(t *testing.T, namespace, name, does string, condition func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	c.Eventually(t, fmt.Sprintf("a Pod of %s that %s", name, does), func(ctx context.Context) error {
		pods, err := c.podsOf(ctx, namespace, map[string]string{appLabel: name})
		if err != nil {
			return err
		}
		if len(pods) != 1 {
			return fmt.Errorf("there are %d Pods", len(pods))
		}
		pod = &pods[0]
		return condition(pod)
	})
	return pod
}

// IsReady returns why a Pod is not Ready.
func IsReady(pod *corev1.Pod) error {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the Pod %s is not Ready, its phase is %s", pod.Name, pod.Status.Phase)
}

// Get returns what an HTTP server answers: of a Pod, by its IP, or of a Service, by its address.
func Get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), errors.Join(err, response.Body.Close())
}
