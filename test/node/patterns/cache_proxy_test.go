package patterns_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	cache "github.com/pillion-dev/pillion/test/node/patterns/testdata/cacheapp/client"
)

const (
	// cacheFailureLimit is how many failures in a row eject a server by default.
	cacheFailureLimit = 2

	// cacheRetryInterval is for how long, in the profiles of these tests.
	cacheRetryInterval = 2 * time.Second
)

func TestKeysAreSharedOutAndTheAppOutlivesAServer(t *testing.T) {
	t.Parallel()
	forEachCacheKind(t, func(t *testing.T, kind cacheKind) {
		servers := startCacheServers(t, kind, 3)
		// A server of a busy machine may take longer than the default timeout allows.
		ejection := fmt.Sprintf(", timeout: 2s, ejection: {retryInterval: %s}", cacheRetryInterval)
		namespace := cacheNamespace(t, kind, servers.proxy([]int{0, 1, 2}, ejection))
		other := cacheNamespace(t, kind, servers.proxy([]int{2, 0, 1}, ejection))
		cluster.Create(t, cacheDeployment(namespace, kind, 1))
		cluster.Create(t, cacheDeployment(other, kind, 1))
		app := &cachePods(t, namespace, cacheShop, 1)[0]
		another := &cachePods(t, other, cacheShop, 1)[0]

		t.Run("each key has one server, and each server some keys", func(t *testing.T) {
			testSharedOut(t, servers, app, another)
		})
		t.Run("a server that is killed", func(t *testing.T) {
			outlives(t, servers, app, outage{
				victim: 0,
				begin:  func() { signalContainer(t, servers.pod(t, 0), "app", unix.SIGKILL) },
				isDown: func(context.Context) bool { return true },
				end:    func() {}, // the kubelet starts it again
			})
		})
		t.Run("a server that is gone", func(t *testing.T) {
			outlives(t, servers, app, outage{
				victim: 1, lasts: 2 * cacheRetryInterval,
				begin:  func() { servers.scale(t, 1, 0) },
				isDown: func(ctx context.Context) bool { return servers.hasNoPod(ctx, 1) },
				end:    func() { servers.scale(t, 1, 1) },
			})
		})
		t.Run("a server that hangs", func(t *testing.T) {
			outlives(t, servers, app, outage{
				victim: 2, lasts: 2 * cacheRetryInterval, keepsValues: true,
				begin:  func() { signalContainer(t, servers.pod(t, 2), "app", unix.SIGSTOP) },
				isDown: func(context.Context) bool { return true },
				end:    func() { signalContainer(t, servers.pod(t, 2), "app", unix.SIGCONT) },
			})
		})
		for _, pod := range []*corev1.Pod{app, another} {
			checkNeverRestarted(t.Context(), t, pod)
		}
	})
}

// testSharedOut wants servers that hold nothing yet.
func testSharedOut(t *testing.T, servers *cacheServers, app, another *corev1.Pod) {
	keys := cacheKeys("page", 300)
	if stored := onKeys(t, app, "/set", "1", keys); stored.Stored != len(keys) {
		t.Fatalf("%d of %d were stored: %v", stored.Stored, len(keys), stored.Failed)
	}
	before := servers.stats(t)
	sum := 0
	for i, server := range before {
		sum += server.Items
		if server.Items == 0 || server.Items == len(keys) {
			t.Errorf("server %s has %d of %d keys", servers.names[i], server.Items, len(keys))
		}
	}
	if sum != len(keys) {
		t.Errorf("the servers have %d keys together, want %d: %+v", sum, len(keys), before)
	}

	has := map[string]int{}
	for i, server := range before {
		held, err := servers.holds(t.Context(), i, keys)
		if err != nil {
			t.Fatal(err)
		}
		if len(held) != server.Items {
			t.Errorf("server %s says that it has %d keys, and answers for %d", servers.names[i], server.Items, len(held))
		}
		for _, key := range held {
			if at, twice := has[key]; twice {
				t.Errorf("key %s is on %s and %s", key, servers.names[at], servers.names[i])
			}
			has[key] = i
		}
	}

	// Any client that knows ketama looks for a key where the proxy put it.
	ring := newKetamaRing(servers.names)
	for _, key := range keys {
		if at, found := has[key]; !found || at != ring.server(key) {
			t.Errorf("key %s is on %s (%t), want it on %s", key, servers.names[at], found, servers.names[ring.server(key)])
		}
	}

	// What the app asks for is answered by the server that has it, and by no other.
	for i := range before {
		var its []string
		for _, key := range keys {
			if has[key] == i {
				its = append(its, key)
			}
		}
		hits := servers.stats(t)
		checkAllFound(t, onKeys(t, app, "/get", "", its), "1", its)
		for at, now := range servers.stats(t) {
			want := 0
			if at == i {
				want = len(its)
			}
			if got := now.Hits - hits[at].Hits; got != want {
				t.Errorf("server %s answered %d requests for keys of %s, want %d", servers.names[at], got, servers.names[i], want)
			}
		}
	}

	// By their names the servers are found in whatever order a profile lists them.
	checkAllFound(t, onKeys(t, another, "/get", "", keys), "1", keys)
	t.Logf("of %d keys the servers have %d, %d and %d", len(keys), before[0].Items, before[1].Items, before[2].Items)
}

// outage is of one server.
type outage struct {
	victim     int
	begin, end func()

	// isDown tells that the outage is there. It lasts so long from then on.
	isDown func(context.Context) bool
	lasts  time.Duration

	// keepsValues is of a server that has its old values when it is back.
	keepsValues bool
}

// outlives lets an app use its cache, store what it misses, and a server fail meanwhile.
func outlives(t *testing.T, servers *cacheServers, app *corev1.Pod, outage outage) {
	name := servers.names[outage.victim]
	keys := cacheKeys(strings.ReplaceAll(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:], " ", "-"), 90)
	if stored := onKeys(t, app, "/set", "before", keys); stored.Stored != len(keys) {
		t.Fatalf("%d of %d were stored: %v", stored.Stored, len(keys), stored.Failed)
	}
	lost, err := servers.holds(t.Context(), outage.victim, keys)
	if err != nil || len(lost) == 0 {
		t.Fatalf("server %s has none of %d keys: %v", name, len(keys), err)
	}
	remaining := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return slices.Contains(lost, key) })

	requests, failures, slowest := 0, 0, time.Duration(0)
	use := func() cache.Outcome {
		t.Helper()
		others := onKeys(t, app, "/get", "", remaining)
		checkAllFound(t, others, "before", remaining) // whatever becomes of the victim
		outcome := onKeys(t, app, "/use", "during", lost)
		requests += len(remaining) + len(lost)
		failures, slowest = failures+outcome.Failures, max(slowest, outcome.Slowest, others.Slowest)
		return outcome
	}

	began := time.Now()
	outage.begin()
	for !outage.isDown(t.Context()) {
		use()
	}
	if outage.lasts > 0 {
		for end := time.Now().Add(outage.lasts); time.Now().Before(end); {
			use()
		}
		cluster.Eventually(t, "the other servers to answer for the keys of "+name, func(context.Context) error {
			outcome := use()
			if len(outcome.Found) < len(lost) {
				return fmt.Errorf("of %d keys %d are found: %v", len(lost), len(outcome.Found), outcome.Failed)
			}
			return nil
		})
	}
	outage.end()
	cluster.Eventually(t, name+" to be used again", func(ctx context.Context) error {
		outcome := use()
		held, err := servers.holds(ctx, outage.victim, lost)
		if err != nil {
			return err
		}
		if len(outcome.Found) < len(lost) || len(held) < len(lost) {
			return fmt.Errorf("of %d keys the app finds %d and the server has %d: %v", len(lost), len(outcome.Found), len(held),
				outcome.Failed)
		}
		return nil
	})
	took := time.Since(began)
	generation := "during"
	if outage.keepsValues {
		generation = "before" // although other servers held newer ones meanwhile
	}
	cluster.Eventually(t, name+" to answer for all of its keys", func(context.Context) error {
		outcome := onKeys(t, app, "/get", "", lost)
		for _, key := range lost {
			if outcome.Found[key] != generation {
				return fmt.Errorf("key %s has generation %q, want %q: %v", key, outcome.Found[key], generation, outcome.Failed)
			}
		}
		return nil
	})

	allowed := cacheFailureLimit * (1 + int(took/cacheRetryInterval))
	if failures > allowed {
		t.Errorf("%d requests failed in %s, want %d at most: %d in each %s", failures, took, allowed, cacheFailureLimit,
			cacheRetryInterval)
	}
	t.Logf("of %d requests %d failed in %s (%d may), the slowest took %s", requests, failures, took.Round(time.Millisecond),
		allowed, slowest.Round(time.Millisecond))
}
