package chart

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// TestEverySetOfValuesInstalls installs the chart with each set of values, and creates a Pod of each of its Deployments as a
// ReplicaSet would, where Pod Security restricted is enforced.
func TestEverySetOfValuesInstalls(t *testing.T) {
	createMonitoringKinds(t)
	finishNamespaces(t)
	for name, file := range valueSets(t) {
		t.Run(name, func(t *testing.T) {
			before, err := inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			helm(t, "install", release, chartDir(), "--create-namespace", "--values", file)
			t.Cleanup(func() { removeNamespaces(t) })
			restrict(t)
			countQuota(t)
			for _, object := range render(t, "--values", file) {
				got := object.DeepCopy()
				if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(object), got); err != nil {
					t.Errorf("it is rendered, and not there: %v", err)
				}
			}
			for _, deployment := range []string{"pillion-webhook", "pillion-controller"} {
				createPodOf(t, deployment)
			}
			helm(t, "uninstall", release)
			awaitFinished(t, selfCheck)
			removeNamespace(t, namespace)
			var left []string
			for _, key := range added(t, before) {
				if !strings.HasPrefix(key, "customresourcedefinitions /") {
					left = append(left, key)
				}
			}
			if len(left) > 0 {
				t.Errorf("it leaves %q", left)
			}
		})
	}
}

// removeNamespaces removes what a test that failed has left of an installation.
func removeNamespaces(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	if server.Client.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{}) == nil {
		_, _ = run(ctx, helmBinary(), "uninstall", release, "--namespace", namespace, "--ignore-not-found")
	}
}

// createPodOf creates a Pod of a Deployment's template. It is stored, and deleted again.
func createPodOf(t *testing.T, name string) {
	t.Helper()
	deployment := &appsv1.Deployment{}
	if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, deployment); err != nil {
		t.Fatal(err)
	}
	createPod(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, GenerateName: name + "-",
			Labels: deployment.Spec.Template.Labels, Annotations: deployment.Spec.Template.Annotations,
		},
		Spec: deployment.Spec.Template.Spec,
	})
}

func createPod(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	warned := &warnings{}
	config := rest.CopyConfig(server.Config)
	config.WarningHandler = warned
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods := clientset.CoreV1().Pods(pod.Namespace)
	created, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Errorf("a Pod of %s is not let in: %v", pod.GenerateName, err)
		return
	}
	for _, message := range warned.messages {
		t.Errorf("a Pod of %s is warned of: %s", pod.GenerateName, message)
	}
	if created.Labels[v1alpha1.InjectedKey] != "" || len(created.Spec.Containers) != 1 {
		t.Errorf("something was added to a Pod of Pillion's own: %v", created.Spec.Containers)
	}
	zero := int64(0)
	if err := pods.Delete(t.Context(), created.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
}

type warnings struct{ messages []string }

// HandleWarningHeader keeps the warnings of responses.
func (w *warnings) HandleWarningHeader(_ int, _, message string) {
	w.messages = append(w.messages, message)
}

// TestPodSecurityIsEnforcedHere is the control of the others: a Pod that does not meet restricted is not let in where they are.
func TestPodSecurityIsEnforcedHere(t *testing.T) {
	finishNamespaces(t)
	helm(t, "install", release, chartDir(), "--create-namespace", "--set", "webhook.hostNetwork=true")
	t.Cleanup(func() { removeNamespaces(t) })
	restrict(t)
	countQuota(t)
	deployment, key := &appsv1.Deployment{}, client.ObjectKey{Namespace: namespace, Name: "pillion-webhook"}
	if err := server.Client.Get(t.Context(), key, deployment); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "pillion-webhook-"}, Spec: deployment.Spec.Template.Spec,
	}
	err := server.Client.Create(t.Context(), pod)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "hostNetwork") {
		t.Errorf("a Pod in the host's network is let in: %v", err)
	}
	helm(t, "uninstall", release)
	awaitFinished(t, selfCheck)
	removeNamespace(t, namespace)
}

// createMonitoringKinds makes the kinds of Prometheus Operator that the chart has objects of. They take any spec.
func createMonitoringKinds(t *testing.T) {
	t.Helper()
	const group = "monitoring.coreos.com"
	for plural, kind := range map[string]string{"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"} {
		preserve := true
		definition := &apiextensionsv1.CustomResourceDefinition{
			ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
			Spec: apiextensionsv1.CustomResourceDefinitionSpec{
				Group: group, Scope: apiextensionsv1.NamespaceScoped,
				Names: apiextensionsv1.CustomResourceDefinitionNames{
					Plural: plural, Kind: kind, ListKind: kind + "List", Singular: strings.ToLower(kind),
				},
				Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
					Name: "v1", Served: true, Storage: true,
					Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
						Type: "object", XPreserveUnknownFields: &preserve,
					}},
				}},
			},
		}
		if err := server.Client.Create(t.Context(), definition); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			if err := server.Client.Get(ctx, client.ObjectKey{Name: definition.Name}, definition); err != nil {
				return false, err
			}
			for _, condition := range definition.Status.Conditions {
				if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
					return true, nil
				}
			}
			return false, fmt.Errorf("%s is not established", definition.Name)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
