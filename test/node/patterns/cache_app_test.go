package patterns_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/test/node/installed"
	cache "github.com/pillion-dev/pillion/test/node/patterns/testdata/cacheapp/client"
)

// cacheReplicas are enough Pods to see whether an app is ever refused by its cache. A cache that starts beside the app, and not
// before it, refuses nearly every one.
const cacheReplicas = 4

func TestAnAppIsTheSameWithACacheOfItsOwnAndWithSharedServers(t *testing.T) {
	t.Parallel()
	forEachCacheKind(t, func(t *testing.T, kind cacheKind) {
		servers := startCacheServers(t, kind, 3)
		namespaces := map[string]string{
			"local": cacheNamespace(t, kind, "local: {}"),
			"proxy": cacheNamespace(t, kind, servers.proxy([]int{0, 1, 2}, ", timeout: 10s")),
		}
		for _, namespace := range namespaces {
			cluster.Create(t, cacheDeployment(namespace, kind, cacheReplicas))
		}
		pods := map[string][]corev1.Pod{}
		for name, namespace := range namespaces {
			// An app whose first connection is refused ends with an error: cachePods fails if one did.
			pods[name] = cachePods(t, namespace, cacheShop, cacheReplicas)
		}

		t.Run("its environment says the same", func(t *testing.T) {
			want := appEnvironment(t, &pods["local"][0])
			for _, variable := range []string{
				"CACHE_HOST=127.0.0.1", fmt.Sprintf("CACHE_PORT=%d", kind.port), fmt.Sprintf("CACHE_ADDRESS=127.0.0.1:%d", kind.port),
			} {
				if !slices.Contains(want, variable) {
					t.Errorf("there is no %s in %q", variable, want)
				}
			}
			for name := range pods {
				for i := range pods[name] {
					if diff := cmp.Diff(want, appEnvironment(t, &pods[name][i])); diff != "" {
						t.Errorf("with %s (-first +this):\n%s", name, diff)
					}
				}
			}
		})

		t.Run("it stores and reads", func(t *testing.T) {
			keys := cacheKeys("basket", 50)
			for name := range pods {
				stored := onKeys(t, &pods[name][0], "/set", name, keys)
				if stored.Stored != len(keys) {
					t.Fatalf("with %s %d of %d were stored: %v", name, stored.Stored, len(keys), stored.Failed)
				}
				checkAllFound(t, onKeys(t, &pods[name][0], "/get", "", keys), name, keys)
			}
			checkAllFound(t, onKeys(t, &pods["proxy"][1], "/get", "", keys), "proxy", keys)
			if others := onKeys(t, &pods["local"][1], "/get", "", keys); len(others.Missed) != len(keys) {
				t.Errorf("a Pod has what another Pod's own cache has: %+v", others)
			}
		})

		t.Run("nobody outside the Pod reaches the cache or its statistics", func(t *testing.T) {
			for name := range pods {
				pod := &pods[name][0]
				checkRefused(t, pod.Status.PodIP, kind.port)
				checkRefused(t, pod.Status.PodIP, kind.port+10000)
			}
			statistics, err := askCacheApp(t.Context(), &pods["proxy"][0], "/read", url.Values{"port": {fmt.Sprint(kind.port + 10000)}})
			if err != nil || !strings.Contains(string(statistics), servers.names[0]) {
				t.Errorf("the app reads no statistics of server %s: %v: %.200s", servers.names[0], err, statistics)
			}
		})
	})
}

// appEnvironment is the environment of a Pod's app, without the one variable that is every Pod's own.
func appEnvironment(t *testing.T, pod *corev1.Pod) []string {
	t.Helper()
	all := cacheAppSays[[]string](t, pod, "/environment", nil)
	slices.Sort(all)
	return slices.DeleteFunc(all, func(variable string) bool { return strings.HasPrefix(variable, "HOSTNAME=") })
}

func checkRefused(t *testing.T, host string, port int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(port)), 30*time.Second)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port %d of %s: %v, want that connections are refused", port, host, err)
	}
}

// The other tests say that the app is never refused. This is how they would know.
func TestAnAppWithoutTheCacheItWasPromisedFails(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, nil)
	deployment := cacheDeployment(namespace, cacheKinds()[0], 1)
	deployment.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "CACHE_ADDRESS", Value: "127.0.0.1:11211"}}
	deployment.Spec.Template.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	cluster.Create(t, deployment)
	cluster.PodThat(t, namespace, cacheShop, "was refused", func(pod *corev1.Pod) error {
		for _, status := range pod.Status.ContainerStatuses {
			ended := status.State.Terminated
			if ended == nil {
				ended = status.LastTerminationState.Terminated
			}
			if ended != nil && ended.ExitCode == 3 && strings.Contains(ended.Message, "connection refused") {
				return nil
			}
		}
		return fmt.Errorf("no container was: %+v", pod.Status.ContainerStatuses)
	})
}

func TestAFullLocalCacheEvictsAndIsNotKilled(t *testing.T) {
	t.Parallel()
	forEachCacheKind(t, func(t *testing.T, kind cacheKind) {
		namespace := cacheNamespace(t, kind, "local: {}") // 64Mi
		cluster.Create(t, cacheDeployment(namespace, kind, 1))
		pod := &cachePods(t, namespace, cacheShop, 1)[0]
		const limit = 64 << 20

		// Values of several sizes, more than twice as much as the cache may hold.
		var last []string
		for i, stored := 0, 0; stored < 5*limit/2; i++ {
			size := []int{100, 1000, 10_000, 100_000}[i%4]
			last = cacheKeys(fmt.Sprintf("round-%d", i), min(5*limit/2/8/size, 4000))
			outcome := cacheAppSays[cache.Outcome](t, pod, "/set", url.Values{
				"key": last, "generation": {"1"}, "padding": {strings.Repeat("x", size)},
			})
			if outcome.Stored != len(last) {
				t.Fatalf("%d of %d values of %d bytes were stored: %v", outcome.Stored, len(last), size, outcome.Failed)
			}
			stored += size * len(last)
		}
		last = last[len(last)-10:]
		checkAllFound(t, onKeys(t, pod, "/get", "", last), "1", last)
		stats := cacheAppSays[cache.Stats](t, pod, "/stats", nil)
		if stats.Evictions == 0 {
			t.Errorf("nothing was evicted: %+v", stats)
		}
		now := cluster.PodThat(t, namespace, cacheShop, "is Ready", installed.IsReady)
		checkNeverRestarted(t.Context(), t, now)
		t.Logf("%s holds %d items and has evicted %d; its container uses %s of %s", kind.protocol, stats.Items, stats.Evictions,
			memoryOf(t, now, "pillion-"+cacheProfile), now.Spec.InitContainers[0].Resources.Limits.Memory())
	})
}
