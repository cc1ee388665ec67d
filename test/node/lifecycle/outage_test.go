package lifecycle_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// everything is policy that no Pod starts without, in whatever namespace.
const everything = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: everything}
spec:
  custom: {template: {initContainers: [{image: "localhost/waits:1", restartPolicy: Always}]}}
  failurePolicy: Fail
  match:
    enforce: true
    namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}
`

// TestPillionStartsByItself takes away every process of Pillion's at once, and more, while its entries stand. Nobody helps: it
// has to be back by itself. Pods that nothing concerns are created all along, and none is created without what it must have.
func TestPillionStartsByItself(t *testing.T) {
	need(t)
	namespace := useProfiles(t)
	t.Run("with profiles of one namespace", func(t *testing.T) {
		plain := cluster.CreateRestricted(t, nil)
		for name, strike := range map[string]func(t *testing.T, refused func()){
			"all its Pods are deleted at once":                              deleteAllPods,
			"both Deployments are scaled to none, and its Secrets are gone": scaleToNoneWithoutSecrets,
		} {
			t.Run(name, func(t *testing.T) { survive(t, namespace, plain, strike) })
		}
	})
	t.Run("with policy for every Pod of the cluster", func(t *testing.T) {
		// Its own namespace asks for it as well.
		label(t, installed.Namespace, `"everything"`)
		defer label(t, installed.Namespace, `null`)
		cluster.Apply(t, "", everything)
		cluster.AwaitProfile(t, "", "everything")
		cluster.Eventually(t, "policy for every Pod", func(ctx context.Context) error { return wovenByDryRun(ctx, bare(namespace)) })
		for name, strike := range map[string]func(t *testing.T, refused func()){
			"all its Pods are deleted at once, and its Secrets": deleteAllPodsAndSecrets,
			"the node loses power":                              losePower,
		} {
			// What is never touched is the excluded namespaces.
			t.Run(name, func(t *testing.T) { survive(t, namespace, metav1.NamespaceSystem, strike) })
		}
	})
}

// label sets or removes the label of a namespace that asks for profiles.
func label(t *testing.T, namespace, value string) {
	t.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"labels": {"`+v1alpha1.InjectKey+`": `+value+`}}}`))
	if err := cluster.Client.Patch(context.WithoutCancel(t.Context()), namespaceNamed(namespace), patch); err != nil {
		t.Fatal(err)
	}
}

// survive lets a disaster happen, and looks that Pods are created as they have to be, before, meanwhile and after it.
func survive(t *testing.T, namespace, untouched string, strike func(t *testing.T, refused func())) {
	traffic := newCreates(t)
	asked := traffic.keepDry(t, "Pods that ask", func() *corev1.Pod { return asking(namespace) })
	chosen := traffic.keepDry(t, "Pods that are chosen under Fail", func() *corev1.Pod { return choosable(namespace) })
	free := traffic.keepDry(t, "Pods that nothing concerns", func() *corev1.Pod { return bare(untouched) })
	traffic.awaitMore(t, 3)
	refused := func() {
		t.Helper()
		for _, pod := range []*corev1.Pod{asking(namespace), choosable(namespace)} {
			cluster.Eventually(t, "a Pod that is refused", func(ctx context.Context) error {
				if created, err := dryRun(ctx, pod); err == nil {
					return fmt.Errorf("it is created, with the init containers %v", created.Spec.InitContainers)
				}
				return nil
			})
		}
	}
	before := currentPods(t)
	began := time.Now()
	strike(t, refused)
	for _, pod := range []*corev1.Pod{asking(namespace), choosable(namespace)} {
		cluster.Eventually(t, "Pods that are woven again", func(ctx context.Context) error { return wovenByDryRun(ctx, pod) })
	}
	if err := cluster.AwaitPillion(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("Pillion was whole again after %s", time.Since(began).Round(100*time.Millisecond))
	traffic.awaitMore(t, 3)
	traffic.stop()
	free.noneFailed(t)
	if free.woven > 0 {
		t.Errorf("%d Pods were woven that nothing concerns", free.woven)
	}
	for _, counted := range []*tally{asked, chosen} {
		counted.print(t)
		counted.noneWithout(t)
		for _, failure := range counted.failures {
			if !strings.Contains(failure, `failed calling webhook "`) || !strings.Contains(failure, `.pillion.dev"`) {
				t.Errorf("%s: one is refused in other words: %s", counted.what, failure)
				break
			}
		}
		if len(counted.failures) > 0 {
			t.Logf("%s: refused for %s, first by: %s", counted.what,
				counted.lastFailed.Sub(counted.firstFailed).Round(100*time.Millisecond), counted.failures[0])
		}
	}
	if len(before) != len(currentPods(t)) {
		t.Errorf("there were %d Pods of Pillion, and are %d", len(before), len(currentPods(t)))
	}
}

// deleteAllPods deletes all Pods of Pillion's at once.
func deleteAllPods(t *testing.T, _ func()) {
	before := currentPods(t)
	killAllPods(t)
	awaitOthers(t, before)
}

// killAllPods deletes them by force, so that nothing drains.
func killAllPods(t *testing.T) {
	t.Helper()
	err := cluster.Client.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(installed.Namespace),
		client.GracePeriodSeconds(0))
	if err != nil {
		t.Fatal(err)
	}
}

// deleteAllPodsAndSecrets takes the CA and the serving certificate away together with the Pods.
func deleteAllPodsAndSecrets(t *testing.T, _ func()) {
	before := currentPods(t)
	killAllPods(t)
	changed := losesSecrets(t)
	awaitOthers(t, before)
	changed()
}

// losesSecrets deletes the CA and the serving certificate, and returns what checks that there are others.
func losesSecrets(t *testing.T) (changed func()) {
	t.Helper()
	before := map[string]types.UID{}
	for _, name := range []string{"pillion-ca", "pillion-webhook-tls"} {
		secret := secretNamed(t, name)
		before[name] = secret.UID
		remove(t, secret)
	}
	return func() {
		t.Helper()
		for name, uid := range before {
			if secretNamed(t, name).UID == uid {
				t.Errorf("Secret %s is the one of before", name)
			}
		}
	}
}

// scaleToNoneWithoutSecrets ends both Deployments, deletes the CA and the serving certificate, and starts them again.
func scaleToNoneWithoutSecrets(t *testing.T, refused func()) {
	scale := func(replicas string) {
		t.Helper()
		if _, err := cluster.Kubectl(t.Context(), "--namespace", installed.Namespace, "scale", "deployment", "pillion-webhook",
			"pillion-controller", "--replicas", replicas); err != nil {
			t.Fatal(err)
		}
	}
	scale("0")
	awaitNoPods(t)
	changed := losesSecrets(t)
	refused()
	scale("2")
	if err := cluster.AwaitPillion(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed()
}

func secretNamed(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: installed.Namespace, Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// losePower ends every container of the node at once, those of woven Pods too, and starts the kubelet again.
func losePower(t *testing.T, refused func()) {
	before := currentPods(t)
	if err := cluster.Reboot(t.Context(), refused); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, "the containers of before to run again", func(ctx context.Context) error {
		now, err := pillions(ctx)
		if err != nil {
			return err
		}
		for i := range now {
			for j := range before {
				if now[i].UID != before[j].UID {
					continue
				}
				status := now[i].Status.ContainerStatuses
				if len(status) != 1 || status[0].RestartCount <= before[j].Status.ContainerStatuses[0].RestartCount {
					return fmt.Errorf("%s has not been started again", now[i].Name)
				}
			}
		}
		return nil
	})
}
