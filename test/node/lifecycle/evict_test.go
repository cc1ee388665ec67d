package lifecycle_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// TestEvictionsLeaveOneReplica does what the drain of a node does, while Pods are created that must be woven.
func TestEvictionsLeaveOneReplica(t *testing.T) {
	need(t)
	namespace := useProfiles(t)
	traffic := newCreates(t)
	asked := traffic.keepDry(t, "Pods that ask", func() *corev1.Pod { return asking(namespace) })
	chosen := traffic.keepDry(t, "Pods that are chosen under Fail", func() *corev1.Pod { return choosable(namespace) })

	for _, component := range []string{"webhook", "controller"} {
		t.Run(component, func(t *testing.T) { evictBoth(t, component) })
	}
	t.Run("kubectl drain", drain)
	traffic.stop()
	asked.allWoven(t)
	chosen.allWoven(t)
}

// evictBoth evicts both replicas. The second is refused until there is another for the first.
func evictBoth(t *testing.T, component string) {
	replicas := podsOf(t, component)
	if len(replicas) != 2 {
		t.Fatalf("there are %d", len(replicas))
	}
	awaitAllowed(t, component)
	if err := evict(t.Context(), &replicas[0]); err != nil {
		t.Fatal(err)
	}
	err := evict(t.Context(), &replicas[1])
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("the second is evicted before the first is replaced: %v", err)
	}
	cluster.Eventually(t, "the second eviction", func(ctx context.Context) error {
		err := evict(ctx, &replicas[1])
		if err != nil && !apierrors.IsTooManyRequests(err) {
			t.Fatal(err)
		}
		return err
	})
	if !hasStandIn(t, component, replicas) {
		t.Error("the second was evicted while nobody stood in for the first")
	}
	awaitOthers(t, replicas)
}

// hasStandIn tells whether a component has a Pod that is Ready, besides some.
func hasStandIn(t *testing.T, component string, besides []corev1.Pod) bool {
	t.Helper()
	return slices.ContainsFunc(podsOf(t, component), func(pod corev1.Pod) bool {
		isOther := !slices.ContainsFunc(besides, func(one corev1.Pod) bool { return one.UID == pod.UID })
		return isOther && installed.IsReady(&pod) == nil
	})
}

func podsOf(t *testing.T, component string) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	err := cluster.Client.List(t.Context(), list, client.InNamespace(installed.Namespace),
		client.MatchingLabels{"app.kubernetes.io/component": component})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// awaitAllowed waits until the PodDisruptionBudget lets one go: who counts for it lags.
func awaitAllowed(t *testing.T, component string) {
	t.Helper()
	cluster.Eventually(t, "a disruption that is allowed", func(ctx context.Context) error {
		budget := &policyv1.PodDisruptionBudget{}
		key := client.ObjectKey{Namespace: installed.Namespace, Name: "pillion-" + component}
		if err := cluster.Client.Get(ctx, key, budget); err != nil {
			return err
		}
		if budget.Status.DisruptionsAllowed != 1 || budget.Status.CurrentHealthy != 2 {
			return fmt.Errorf("%d are allowed, %d healthy", budget.Status.DisruptionsAllowed, budget.Status.CurrentHealthy)
		}
		return nil
	})
}

func evict(ctx context.Context, pod *corev1.Pod) error {
	return cluster.Clientset.CoreV1().Pods(pod.Namespace).EvictV1(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
	})
}

// drain drains the only node there is: what is evicted cannot come back elsewhere, so that one replica of each has to stay.
func drain(t *testing.T) {
	awaitAllowed(t, "webhook")
	awaitAllowed(t, "controller")
	t.Cleanup(func() {
		if _, err := cluster.Kubectl(context.Background(), "uncordon", node.Name); err != nil {
			t.Error(err)
		}
	})
	_, err := cluster.Kubectl(t.Context(), "drain", node.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
		"--pod-selector=app.kubernetes.io/name=pillion", "--timeout=10s")
	if err == nil || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("the node is drained of all replicas: %v", err)
	}
	for _, component := range []string{"webhook", "controller"} {
		left := 0
		for _, pod := range podsOf(t, component) {
			if pod.DeletionTimestamp == nil && installed.IsReady(&pod) == nil {
				left++
			}
		}
		if left != 1 {
			t.Errorf("%d replicas of the %s are left, want one", left, component)
		}
	}
	if _, err := cluster.Kubectl(t.Context(), "uncordon", node.Name); err != nil {
		t.Fatal(err)
	}
	if err := cluster.AwaitPillion(t.Context()); err != nil {
		t.Fatal(err)
	}
}
