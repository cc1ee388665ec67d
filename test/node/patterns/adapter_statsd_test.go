package patterns_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatsDLinesOfAnAppAreCountedFromItsFirstInstructionOn(t *testing.T) {
	t.Parallel()
	// The default profile has no mapping either.
	namespace := createAdapted(t, "    statsd: {}")
	pod := startShop(t, namespace)
	want := map[string]float64{"shop_started_udp": 100, "shop_started_tcp": 100}
	found := awaitSeries(t, pod, "shop_", want)
	found.checkTypes(t, "shop_", map[string]string{"shop_started_udp": "COUNTER", "shop_started_tcp": "COUNTER"})
	if diff := cmp.Diff([]string{"tcp 8080", "tcp 9102"}, listeners(t, pod, "app")); diff != "" {
		t.Errorf("what others reach of the Pod (-want +got):\n%s", diff)
	}
}

func TestStatsDLinesBecomeWhatTheMappingsSay(t *testing.T) {
	t.Parallel()
	namespace := createAdapted(t, `
    statsd:
      mappings:
      - {match: shop.started.*, name: shop_started_total, labels: {protocol: "${1}"}}
      - {match: shop.*.orders, matchMetricType: Counter, name: shop_orders_total, help: Orders taken., labels: {item: "${1}"}}
      - match: shop.*.order.seconds
        matchMetricType: Observer
        name: shop_order_seconds
        labels: {item: "${1}", unit: "100%"}
        observerType: Histogram
        buckets: ["0.1", "0.5", "2.5"]
      - match: ^shop\.till\.(?P<till>[a-z]+)\.(open|closed)$
        matchType: Regex
        name: shop_till_${2}
        labels: {till: "${till}"}
      - match: shop.rest.seconds
        name: shop_rest_seconds
        quantiles: [{quantile: "0.5", error: "0.01"}]
      - {match: ^shop\.debug\., matchType: Regex, action: Drop}
      - {match: shop.visitor.*, name: shop_visitor, labels: {visitor: "${1}"}, ttl: 1s}
      defaults: {observerType: Summary, ttl: 1h}
`)
	pod := startShop(t, namespace)
	want := map[string]float64{`shop_started_total{protocol="udp"}`: 100, `shop_started_total{protocol="tcp"}`: 100}
	awaitSeries(t, pod, "shop_", want)

	sell(t, pod, "book", 2, "0.05")
	sell(t, pod, "book", 1, "0.5")
	sell(t, pod, "pen", 1, "3")
	maps.Copy(want, map[string]float64{
		`shop_orders_total{item="book"}`:                                 3,
		`shop_orders_total{item="pen"}`:                                  1,
		`shop_order_seconds_bucket{item="book", le="0.1", unit="100%"}`:  2,
		`shop_order_seconds_bucket{item="book", le="0.5", unit="100%"}`:  3,
		`shop_order_seconds_bucket{item="book", le="2.5", unit="100%"}`:  3,
		`shop_order_seconds_bucket{item="book", le="+Inf", unit="100%"}`: 3,
		`shop_order_seconds_sum{item="book", unit="100%"}`:               0.6,
		`shop_order_seconds_count{item="book", unit="100%"}`:             3,
		`shop_order_seconds_bucket{item="pen", le="0.1", unit="100%"}`:   0,
		`shop_order_seconds_bucket{item="pen", le="0.5", unit="100%"}`:   0,
		`shop_order_seconds_bucket{item="pen", le="2.5", unit="100%"}`:   0,
		`shop_order_seconds_bucket{item="pen", le="+Inf", unit="100%"}`:  1,
		`shop_order_seconds_sum{item="pen", unit="100%"}`:                3,
		`shop_order_seconds_count{item="pen", unit="100%"}`:              1,
	})
	found := awaitSeries(t, pod, "shop_", want)
	found.checkTypes(t, "shop_order", map[string]string{"shop_orders_total": "COUNTER", "shop_order_seconds": "HISTOGRAM"})
	if help := found.helps["shop_orders_total"]; help != "Orders taken." {
		t.Errorf("the help is %q", help)
	}

	// Sampled and relative values, both outcomes of one expression, a name that no mapping matches, one that is dropped.
	postToShop(t, pod, "/statsd", nil, strings.Join([]string{
		"shop.pen.orders:1|c|@0.1",
		"shop.queue.length:5|g", "shop.queue.length:-2|g",
		"shop.till.left.open:1|g", "shop.till.left.closed:4|c",
		"shop.rest.seconds:4000|ms", "shop.rest.seconds:4000|ms",
		"shop.debug.noise:1|c",
	}, "\n"))
	maps.Copy(want, map[string]float64{
		`shop_orders_total{item="pen"}`:     11,
		`shop_queue_length`:                 3,
		`shop_till_open{till="left"}`:       1,
		`shop_till_closed{till="left"}`:     4,
		`shop_rest_seconds{quantile="0.5"}`: 4,
		`shop_rest_seconds_sum`:             8,
		`shop_rest_seconds_count`:           2,
	})
	found = awaitSeries(t, pod, "shop_", want)
	found.checkTypes(t, "shop_rest", map[string]string{"shop_rest_seconds": "SUMMARY"})

	cluster.Eventually(t, "a visitor who is seen", func(ctx context.Context) error {
		postToShop(t, pod, "/statsd", nil, "shop.visitor.anna:1|g") // again and again, for it is forgotten after a second
		found, err := scrape(ctx, pod)
		if err != nil {
			return err
		}
		if seen := found.series("shop_visitor"); seen[`shop_visitor{visitor="anna"}`] != 1 {
			return fmt.Errorf("seen are %v", seen)
		}
		return nil
	})
	awaitSeries(t, pod, "shop_visitor", map[string]float64{})
	awaitSeries(t, pod, "shop_", want) // what has another ttl is still there
}
