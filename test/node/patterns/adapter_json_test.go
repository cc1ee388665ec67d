package patterns_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// jsonOfTheShop reads the shop's document, which it serves on loopback to those who send the header.
const jsonOfTheShop = `
    json:
      url: http://localhost:8081/status
      headers: [{name: X-View, value: numbers}]
      metrics:
      - {name: shop_open, path: "{.open}", valueType: Gauge, help: Whether the shop is open., labels: {version: "{.version}"}}
      - {name: shop_queue_length, path: "{.queue.length}", valueType: Gauge, epochTimestamp: "{.changed}"}
      - name: shop_orders
        type: Object
        path: "{.orders[*]}"
        labels: {item: "{.item}", currency: EUR}
        values: {total: "{.count}", seconds: "{.seconds}"}
        valueType: Counter
`

func TestNumbersOfAJSONDocumentAreServedAsTheyAre(t *testing.T) {
	t.Parallel()
	pod := startShop(t, createAdapted(t, jsonOfTheShop))
	sell(t, pod, "book", 2, "0.25")
	want := map[string]float64{
		`shop_open{version="3.2"}`: 1, `shop_queue_length`: 0,
		`shop_orders_total{currency="EUR", item="book"}`: 2, `shop_orders_seconds{currency="EUR", item="book"}`: 0.5,
	}
	found := awaitSeries(t, pod, "shop_", want)
	found.checkTypes(t, "shop_", map[string]string{
		"shop_open": "GAUGE", "shop_queue_length": "GAUGE", "shop_orders_total": "COUNTER", "shop_orders_seconds": "COUNTER",
	})
	if help := found.helps["shop_open"]; help != "Whether the shop is open." {
		t.Errorf("the help is %q", help)
	}

	before := timestampOf(t, found, "shop_queue_length")
	sell(t, pod, "pen", 3, "1.5")
	postToShop(t, pod, "/queue", url.Values{"length": {"4"}}, "")
	want[`shop_orders_total{currency="EUR", item="pen"}`] = 3
	want[`shop_orders_seconds{currency="EUR", item="pen"}`] = 4.5
	want["shop_queue_length"] = 4
	found, err := scrape(t.Context(), pod) // each scrape reads the document of that moment
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, found.series("shop_"), nearly); diff != "" {
		t.Errorf("after more orders (-want +got):\n%s", diff)
	}
	if after := timestampOf(t, found, "shop_queue_length"); after <= before {
		t.Errorf("the document's time is %d, and was %d before an order", after, before)
	}
}

func timestampOf(t *testing.T, found *scraped, name string) model.Time {
	t.Helper()
	for _, sample := range found.samples {
		if string(sample.Metric[model.MetricNameLabel]) == name {
			return sample.Timestamp
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func TestTheJSONAdapterFetchesNothingElseForWhoeverReachesThePod(t *testing.T) {
	t.Parallel()
	pod := startShop(t, createAdapted(t, jsonOfTheShop))
	want := map[string]float64{`shop_open{version="3.2"}`: 1, `shop_queue_length`: 0}
	awaitSeries(t, pod, "shop_", want)
	elsewhere, asked := serveElsewhere(t)
	address, err := metricsURL(pod)
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(address, "/metrics")

	for _, target := range []string{elsewhere, "http://127.0.0.1:8081/private"} {
		query := "?" + url.Values{"target": {target}, "module": {"default"}}.Encode()
		found, err := scrapeURL(t.Context(), address+query)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, found.series("shop_")); diff != "" {
			t.Errorf("/metrics%s is not what /metrics is (-want +got):\n%s", query, diff)
		}
		for _, path := range []string{"/probe", "/", "/config", "/metrics/", "//probe", "/metrics/../probe"} {
			status, body, err := installed.Get(t.Context(), base+path+query)
			if err != nil {
				t.Fatal(err)
			}
			if status != http.StatusNotFound {
				t.Errorf("%s%s: %d %s", path, query, status, body)
			}
		}
	}
	if diff := cmp.Diff([]string{"tcp 7979", "tcp 8080"}, listeners(t, pod, "app")); diff != "" {
		t.Errorf("what others reach of the Pod (-want +got):\n%s", diff)
	}
	checkRefusesConnections(t, pod, "17979", "8081")
	if got := asked(); got != 0 {
		t.Errorf("the adapter asked another server %d times", got)
	}

	// The exporter itself would do it, for who is in the Pod.
	probe := "http://127.0.0.1:17979/probe?" + url.Values{"target": {elsewhere}, "module": {"default"}}.Encode()
	said, err := cluster.Exec(t.Context(), pod.Namespace, pod.Name, "app", "/bin/app", "fetch", probe)
	if err != nil || !strings.Contains(said, "shop_queue_length 777") || asked() == 0 {
		t.Errorf("json_exporter asked nobody, and so the rest of this test says nothing: %v\n%s", err, said)
	}
}

// serveElsewhere serves a document on the node that the shop's metrics could be read from, and tells how often it was asked for.
func serveElsewhere(t *testing.T) (address string, asked func() int64) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(node.Address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int64
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			count.Add(1)
			fmt.Fprint(w, `{"open": true, "version": "0", "queue": {"length": 777}, "orders": [], "changed": "1700000000000"}`)
		})}}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, count.Load
}

// checkRefusesConnections fails the test where something listens at the Pod's IP.
func checkRefusesConnections(t *testing.T, pod *corev1.Pod, ports ...string) {
	t.Helper()
	for _, port := range ports {
		connection, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", net.JoinHostPort(pod.Status.PodIP, port))
		if err == nil {
			t.Errorf("port %s of the Pod's IP is open", port)
			_ = connection.Close()
		}
	}
}
