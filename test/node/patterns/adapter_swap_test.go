package patterns_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// adapterKind is one way to the same metrics of the shop.
type adapterKind struct {
	name string

	// field and value are of prometheusAdapter. The value is JSON, for an annotation takes it, too.
	field, value string

	// image is the exporter's.
	image string

	// prog is the label that mtail adds.
	prog string

	// env and mounts are what the app's container gains, as the documentation says.
	env    []corev1.EnvVar
	mounts []corev1.VolumeMount
}

// adapterKinds make shop_orders_total{item} and shop_queue_length of the same app.
func adapterKinds(profile string) []adapterKind {
	return []adapterKind{
		{
			name: "StatsD", field: "statsd", image: "quay.io/prometheus/statsd-exporter:v0.31.0",
			value: `{"mappings": [
				{"match": "shop.*.orders", "name": "shop_orders_total", "labels": {"item": "${1}"}},
				{"match": "^shop\\.(started|.*\\.order\\.seconds)", "matchType": "Regex", "action": "Drop"}]}`,
			env: []corev1.EnvVar{{Name: "STATSD_HOST", Value: "127.0.0.1"}, {Name: "STATSD_PORT", Value: "9125"}},
		},
		{
			name: "JSON", field: "json", image: "quay.io/prometheuscommunity/json-exporter:v0.7.0",
			value: `{"url": "http://localhost:8081/status", "headers": [{"name": "X-View", "value": "numbers"}], "metrics": [
				{"name": "shop_queue_length", "path": "{.queue.length}"},
				{"name": "shop_orders", "type": "Object", "path": "{.orders[*]}", "valueType": "Counter",
				 "labels": {"item": "{.item}"}, "values": {"total": "{.count}"}}]}`,
		},
		{
			name: "logs", field: "logs", image: "ghcr.io/pillion-dev/mtail:3.0.9", prog: "shop.mtail",
			value: `{"directory": "/var/log/shop", "programs": [{"name": "shop", "program":
				"counter shop_orders_total by item\ngauge shop_queue_length\n` +
				`/^ORDER (?P<item>\\S+)/ {\n  shop_orders_total[$item]++\n}\n` +
				`/^QUEUE (?P<length>\\d+)/ {\n  shop_queue_length = $length\n}"}]}`,
			mounts: []corev1.VolumeMount{{Name: "pillion-" + profile + "-logs", MountPath: "/var/log/shop"}},
		},
	}
}

func TestOneAdapterTakesThePlaceOfAnotherByAChangeOfTheProfile(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, nil)
	swapAdapters(t, namespace, adapterKinds("numbers"), func(kind adapterKind) {
		cluster.Apply(t, namespace, matched("numbers", "    "+kind.field+": "+kind.value))
		cluster.AwaitProfile(t, namespace, "numbers")
	})
}

func TestOneAdapterTakesThePlaceOfAnotherByAnAnnotationOfTheNamespace(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, map[string]string{v1alpha1.InjectKey: "prometheus-adapter"})
	kinds := adapterKinds("prometheus-adapter")[:2]
	swapAdapters(t, namespace, kinds, func(kind adapterKind) {
		annotateNamespace(t, namespace, map[string]string{kind.field: kind.value})
	})
}

// swapAdapters runs the shop under one kind after the other. All of them must tell the same of it, and change nothing else.
func swapAdapters(t *testing.T, namespace string, kinds []adapterKind, choose func(adapterKind)) {
	t.Helper()
	deployment := installed.Deployment(namespace, "shop", adapterShop)
	template := deployment.Spec.Template.DeepCopy()
	var written *appsv1.Deployment // as the API server has it
	for i, kind := range kinds {
		choose(kind)
		awaitExporter(t, namespace, template, kind.image)
		if i == 0 {
			cluster.Create(t, deployment)
			written = readDeployment(t, namespace)
		} else if _, err := cluster.Kubectl(t.Context(), "rollout", "restart", "-n", namespace, "deployment/shop"); err != nil {
			t.Fatal(err)
		}
		if err := cluster.AwaitRollout(t.Context(), namespace, "shop"); err != nil {
			t.Fatal(err)
		}
		pod := cluster.ReadyPod(t, namespace, "shop")
		if got := exporterOf(pod); got != kind.image {
			t.Fatalf("by %s the Pod's exporter is %q", kind.name, got)
		}
		if diff := cmp.Diff(written.Spec.Template.Spec, readDeployment(t, namespace).Spec.Template.Spec); diff != "" {
			t.Errorf("by %s the Deployment itself changed (-was +is):\n%s", kind.name, diff)
		}
		awaitPort(t, pod, "8080")
		checkAppIsAsWritten(t, pod, &written.Spec.Template.Spec.Containers[0], kind)
		checkTellsTheSame(t, pod, kind)
		checkNeverRestarted(t.Context(), t, pod)
	}
}

// checkAppIsAsWritten fails the test if the app's container in the Pod is not the Deployment's and what the kind documents.
func checkAppIsAsWritten(t *testing.T, pod *corev1.Pod, written *corev1.Container, kind adapterKind) {
	t.Helper()
	want, got := written.DeepCopy(), pod.Spec.Containers[0].DeepCopy()
	want.Env = append(want.Env, kind.env...)
	want.VolumeMounts = append(want.VolumeMounts, kind.mounts...)
	got.VolumeMounts = slices.DeleteFunc(got.VolumeMounts, func(mount corev1.VolumeMount) bool {
		return mount.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" // the API server's, of a random name
	})
	if len(got.VolumeMounts) == 0 {
		got.VolumeMounts = nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("by %s the app's container (-want +got):\n%s", kind.name, diff)
	}
}

// checkTellsTheSame makes the shop sell, and fails the test if the adapter tells other numbers than any other would.
func checkTellsTheSame(t *testing.T, pod *corev1.Pod, kind adapterKind) {
	t.Helper()
	if kind.field == "logs" {
		awaitTail(t, pod)
	}
	queue, orders := "shop_queue_length", `shop_orders_total{item="book"}`
	if kind.prog != "" {
		queue, orders = queue+`{prog="`+kind.prog+`"}`, `shop_orders_total{item="book", prog="`+kind.prog+`"}`
	}
	sell(t, pod, "book", 4, "0.1")
	postToShop(t, pod, "/queue", url.Values{"length": {"2"}}, "")
	awaitSeries(t, pod, "shop_", map[string]float64{queue: 2, orders: 4})
	sell(t, pod, "book", 1, "0.1")
	postToShop(t, pod, "/queue", url.Values{"length": {"0"}}, "")
	awaitSeries(t, pod, "shop_", map[string]float64{queue: 0, orders: 5})
}

func readDeployment(t *testing.T, namespace string) *appsv1.Deployment {
	t.Helper()
	deployment := &appsv1.Deployment{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, deployment); err != nil {
		t.Fatal(err)
	}
	return deployment
}

// awaitExporter waits until Pods of a template get an exporter, five times in a row: each replica of the webhook learns of a
// change by itself.
func awaitExporter(t *testing.T, namespace string, template *corev1.PodTemplateSpec, image string) {
	t.Helper()
	inRow := 0
	cluster.Eventually(t, "Pods that get "+image, func(ctx context.Context) error {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "dry-run-", Labels: template.Labels},
			Spec:       *template.Spec.DeepCopy(),
		}
		err := cluster.Client.Create(ctx, pod, client.DryRunAll)
		if got := exporterOf(pod); err == nil && got != image {
			err = fmt.Errorf("the exporter is %q", got)
		}
		if err != nil {
			inRow = 0
			return err
		}
		inRow++
		if inRow < 5 {
			return fmt.Errorf("so far %d times in a row", inRow)
		}
		return nil
	})
}

// exporterOf is the image of the first container that was added. Empty: there is none.
func exporterOf(pod *corev1.Pod) string {
	for _, container := range pod.Spec.InitContainers {
		if v1alpha1.IsReservedName(container.Name) {
			return container.Image
		}
	}
	return ""
}
