package patterns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cache "github.com/pillion-dev/pillion/test/node/patterns/testdata/cacheapp/client"
)

// cacheGrace is so long that a Pod whose cache does not heed SIGTERM is told from one on a busy machine.
const cacheGrace = 2 * time.Minute

func TestAPodWithACacheEndsPromptly(t *testing.T) {
	t.Parallel()
	memcached, redis := cacheKinds()[0], cacheKinds()[1]
	const servers = `proxy: {servers: [{address: "nowhere.invalid:11211"}]}` // nobody asks for a key
	lanes := []struct{ name, namespace, speaks string }{
		{"no cache", cluster.CreateRestricted(t, nil), "none"},
		{"memcached", cacheNamespace(t, memcached, "local: {}"), memcached.speaks},
		{"redis", cacheNamespace(t, redis, "local: {}"), redis.speaks},
		{"twemproxy for memcached", cacheNamespace(t, memcached, servers), memcached.speaks},
		{"twemproxy for redis", cacheNamespace(t, redis, servers), redis.speaks},
	}
	const rounds = 3
	name := func(round int) string { return fmt.Sprintf("%s-%d", cacheShop, round) }
	for _, lane := range lanes {
		for round := range rounds {
			pod := &corev1.Pod{Spec: cachePodSpec(lane.speaks)}
			pod.Namespace, pod.Name, pod.Labels = lane.namespace, name(round), map[string]string{"app": name(round)}
			pod.Spec.TerminationGracePeriodSeconds = new(int64(cacheGrace / time.Second))
			cluster.Create(t, pod)
		}
	}
	took := map[string][]time.Duration{}
	for round := range rounds {
		for _, lane := range lanes {
			pod := &cachePods(t, lane.namespace, name(round), 1)[0]
			lasted := deletePod(t, pod)
			took[lane.name] = append(took[lane.name], lasted)
			if lasted > cacheGrace/2 {
				t.Errorf("a Pod with %s took %s to end: something in it did not heed SIGTERM", lane.name, lasted)
			}
		}
	}
	for _, lane := range lanes {
		slices.Sort(took[lane.name])
		t.Logf("from its deletion until it is gone a Pod with %-23s takes %s (median of %s)", lane.name,
			took[lane.name][rounds/2].Round(10*time.Millisecond), took[lane.name])
	}
}

// deletePod deletes a Pod, and returns how long it took to go.
func deletePod(t *testing.T, pod *corev1.Pod) time.Duration {
	t.Helper()
	began := time.Now()
	if err := cluster.Client.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, "the end of Pod "+pod.Name, func(ctx context.Context) error {
		switch err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), &corev1.Pod{}); {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		default:
			return errors.New("it is still there")
		}
	})
	return time.Since(began)
}

// An app that is told to end has work to finish: first its preStop hook runs, while the Pod ends already, then it gets SIGTERM. It
// uses its cache in both, until its last instruction.
func TestAnAppThatDrainsHasItsCacheUntilItEnds(t *testing.T) {
	t.Parallel()
	forEachCacheKind(t, func(t *testing.T, kind cacheKind) {
		servers := startCacheServers(t, kind, 1)
		for name, spec := range map[string]string{"local": "local: {}", "proxy": servers.proxy([]int{0}, ", timeout: 10s")} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				drains(t, kind, cacheNamespace(t, kind, spec))
			})
		}
	})
}

// keepPod is a finalizer. It keeps what a Pod came to from being removed before it is read.
const keepPod = "pillion.dev/test-reads-it"

func drains(t *testing.T, kind cacheKind, namespace string) {
	deployment := cacheDeployment(namespace, kind, 1)
	template := &deployment.Spec.Template
	template.Finalizers = []string{keepPod}
	template.Spec.TerminationGracePeriodSeconds = new(int64(cacheGrace / time.Second))
	template.Spec.Containers[0].Args = []string{kind.speaks, "2s"}
	template.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/drain?for=2s", Port: intstr.FromInt32(8080)},
	}}
	cluster.Create(t, deployment)
	pod := &cachePods(t, namespace, cacheShop, 1)[0]
	t.Cleanup(func() { letGo(t, namespace) })
	if _, err := cluster.Kubectl(t.Context(), "scale", "deployment", cacheShop, "--namespace", namespace, "--replicas=0"); err != nil {
		t.Fatal(err)
	}

	ended := map[string]*corev1.ContainerStateTerminated{}
	cluster.Eventually(t, "the end of all containers", func(ctx context.Context) error {
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			if status.State.Terminated == nil {
				return fmt.Errorf("container %s has not ended", status.Name)
			}
			ended[status.Name] = status.State.Terminated
		}
		return nil
	})
	app, sidecar := ended["app"], ended["pillion-"+cacheProfile]
	if app.ExitCode != 0 {
		t.Fatalf("the app ended with %d: %s", app.ExitCode, app.Message)
	}
	var outcome cache.Outcome
	if err := json.Unmarshal([]byte(app.Message), &outcome); err != nil {
		t.Fatalf("%v: %s", err, app.Message)
	}
	if outcome.Failures > 0 || len(outcome.Missed) > 0 {
		t.Errorf("while it drained requests failed: %v, and were missed: %v", outcome.Failed, outcome.Missed)
	}
	for _, why := range []string{"hook", "signal"} {
		if !slices.Contains(slices.Collect(maps.Values(outcome.Found)), why) {
			t.Errorf("it read nothing after its %s: %v", why, outcome.Found)
		}
	}
	after := sidecar.FinishedAt.Sub(app.FinishedAt.Time) // in whole seconds
	if after < 0 || after > cacheGrace/2 {
		t.Errorf("the cache ended %s after the app", after)
	}
	t.Logf("it used its cache %d times while it drained; the cache ended %s after it, with %d", 2*outcome.Stored, after, sidecar.ExitCode)
}

// letGo removes the finalizers of Pods.
func letGo(t *testing.T, namespace string) {
	list := &corev1.PodList{}
	if err := cluster.Client.List(context.Background(), list, client.InNamespace(namespace)); err != nil {
		t.Error(err)
	}
	for i := range list.Items {
		pod := &list.Items[i]
		patch := client.MergeFrom(pod.DeepCopy())
		pod.Finalizers = nil
		if err := client.IgnoreNotFound(cluster.Client.Patch(context.Background(), pod, patch)); err != nil {
			t.Error(err)
		}
	}
}
