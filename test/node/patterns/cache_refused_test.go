package patterns_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
)

func TestAWrongServerAddressIsRefusedAtAdmission(t *testing.T) {
	t.Parallel()
	kind := cacheKinds()[0]
	namespace := cluster.CreateRestricted(t, nil)
	tests := map[string]struct{ servers, want string }{
		"no port":            {`{address: memcached-0}`, "must be HOST:PORT with a port from 1 to 65535"},
		"port zero":          {`{address: "memcached-0:0"}`, "must be HOST:PORT with a port from 1 to 65535"},
		"a port too high":    {`{address: "memcached-0:65536"}`, "must be HOST:PORT with a port from 1 to 65535"},
		"a URL":              {`{address: "tcp://memcached-0:11211"}`, "must be HOST:PORT with a port from 1 to 65535"},
		"a line of its own":  {`{address: "memcached-0:11211\n- evil:1"}`, "must be HOST:PORT with a port from 1 to 65535"},
		"no IPv6 address":    {`{address: "[fe80:::1]:11211"}`, "is no IPv6 address in its brackets"},
		"the proxy itself":   {`{address: "127.0.0.1:11211"}`, "is where the proxy itself listens"},
		"one name for two":   {`{address: "a:11211", name: x}, {address: "b:11211", name: x}`, "stands for spec.cacheAmbassador.proxy.servers[0] already"},
		"no server whatever": {``, "should have at least 1 items"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			profiles, err := apiserver.Read(strings.NewReader(cachePatternProfile(kind, fmt.Sprintf("proxy: {servers: [%s]}", test.servers))))
			if err != nil {
				t.Fatal(err)
			}
			profiles[0].SetNamespace(namespace)
			if err := cluster.Server.Apply(t.Context(), profiles[0]); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the answer is %v, want %q", err, test.want)
			}
		})
	}
}

func TestANamespaceThatNamesAWrongServerAddressGetsNoPods(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, map[string]string{"pillion.dev/inject": "cache-ambassador"})
	if _, err := cluster.Kubectl(t.Context(), "annotate", "namespace", namespace,
		`cache-ambassador.pillion.dev/proxy={"servers": [{"address": "memcached-0"}]}`); err != nil {
		t.Fatal(err)
	}
	cluster.Create(t, cacheDeployment(namespace, cacheKinds()[0], 1))
	cluster.Eventually(t, "an Event that says what is wrong", func(ctx context.Context) error {
		events, err := cluster.Events(ctx, namespace)
		if err != nil {
			return err
		}
		if !strings.Contains(events, "must be HOST:PORT") {
			return fmt.Errorf("there is none: %s", events)
		}
		return nil
	})
}

func TestAServerThatNobodyKnowsDoesNotKeepAPodFromStarting(t *testing.T) {
	t.Parallel()
	forEachCacheKind(t, func(t *testing.T, kind cacheKind) {
		servers := startCacheServers(t, kind, 1)
		namespace := cacheNamespace(t, kind, fmt.Sprintf(
			"proxy: {servers: [{address: %q}, {address: nowhere.%s.svc:%d}], preconnect: true, timeout: 10s, ejection: {retryInterval: 1h}}",
			servers.address(0), servers.namespace, kind.port))
		cluster.Create(t, cacheDeployment(namespace, kind, 1))
		pod := &cachePods(t, namespace, cacheShop, 1)[0]

		// Until it is left out its keys cost an error each.
		keys := cacheKeys("page", 100)
		first := onKeys(t, pod, "/set", "1", keys)
		if first.Failures > cacheFailureLimit {
			t.Errorf("%d of %d requests failed, want %d at most: %v", first.Failures, len(keys), cacheFailureLimit, first.Failed)
		}
		again := onKeys(t, pod, "/set", "2", keys)
		if again.Failures > 0 {
			t.Errorf("requests fail although the server is left out: %v", again.Failed)
		}
		checkAllFound(t, onKeys(t, pod, "/get", "", keys), "2", keys)
		if held, err := servers.holds(t.Context(), 0, keys); err != nil || len(held) != len(keys) {
			t.Errorf("the server that is there has %d of %d keys: %v", len(held), len(keys), err)
		}
	})
}
