package patterns_test

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// logsOfTheShop counts what the shop logs. It takes up the text's indentation.
const logsOfTheShop = `
    logs:
      directory: /var/log/shop
      programs:
      - name: orders
        program: |
          # ORDER book 0.250
          counter shop_orders_total by item
          histogram shop_order_seconds by item buckets 0.1, 0.5, 2.5
          /^ORDER (?P<item>\S+) (?P<seconds>\d+\.\d+)$/ {
            shop_orders_total[$item]++
            shop_order_seconds[$item] = $seconds
          }
      - name: queue
        program: |
          gauge shop_queue_length
          /^QUEUE (?P<length>\d+)$/ {
            shop_queue_length = $length
          }
`

// awaitTail waits until mtail follows the shop's log. It begins at the end of a file that it finds, so that lines from before do
// not count.
func awaitTail(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	cluster.Eventually(t, "mtail to follow the log", func(ctx context.Context) error {
		postToShop(t, pod, "/queue", url.Values{"length": {"1"}}, "")
		found, err := scrape(ctx, pod)
		if err != nil {
			return err
		}
		read := found.series("mtail_log_lines_total")
		if read[`mtail_log_lines_total{logfile="/logs/shop.log"}`] == 0 {
			return fmt.Errorf("it read %v", read)
		}
		return nil
	})
}

func TestLinesOfLogFilesAreCountedByProgramsOfMtail(t *testing.T) {
	t.Parallel()
	pod := startShop(t, createAdapted(t, logsOfTheShop))
	awaitTail(t, pod)
	sell(t, pod, "book", 2, "0.05")
	sell(t, pod, "book", 1, "0.5")
	sell(t, pod, "pen", 1, "3")
	postToShop(t, pod, "/queue", url.Values{"length": {"7"}}, "")
	want := map[string]float64{
		`shop_orders_total{item="book", prog="orders.mtail"}`:                    3,
		`shop_orders_total{item="pen", prog="orders.mtail"}`:                     1,
		`shop_order_seconds_bucket{item="book", le="0.1", prog="orders.mtail"}`:  2,
		`shop_order_seconds_bucket{item="book", le="0.5", prog="orders.mtail"}`:  3,
		`shop_order_seconds_bucket{item="book", le="2.5", prog="orders.mtail"}`:  3,
		`shop_order_seconds_bucket{item="book", le="+Inf", prog="orders.mtail"}`: 3,
		`shop_order_seconds_sum{item="book", prog="orders.mtail"}`:               0.6,
		`shop_order_seconds_count{item="book", prog="orders.mtail"}`:             3,
		`shop_order_seconds_bucket{item="pen", le="0.1", prog="orders.mtail"}`:   0,
		`shop_order_seconds_bucket{item="pen", le="0.5", prog="orders.mtail"}`:   0,
		`shop_order_seconds_bucket{item="pen", le="2.5", prog="orders.mtail"}`:   0,
		`shop_order_seconds_bucket{item="pen", le="+Inf", prog="orders.mtail"}`:  1,
		`shop_order_seconds_sum{item="pen", prog="orders.mtail"}`:                3,
		`shop_order_seconds_count{item="pen", prog="orders.mtail"}`:              1,
		`shop_queue_length{prog="queue.mtail"}`:                                  7,
	}
	found := awaitSeries(t, pod, "shop_", want)
	found.checkTypes(t, "shop_", map[string]string{
		"shop_orders_total": "COUNTER", "shop_order_seconds": "HISTOGRAM", "shop_queue_length": "GAUGE",
	})

	// The app renames its log and begins another. No line is lost, neither the last of one nor the first of the other.
	sell(t, pod, "pen", 10, "1")
	postToShop(t, pod, "/rotate", nil, "")
	sell(t, pod, "pen", 5, "1")
	postToShop(t, pod, "/queue", url.Values{"length": {"0"}}, "")
	maps.Copy(want, map[string]float64{
		`shop_orders_total{item="pen", prog="orders.mtail"}`:                    16,
		`shop_order_seconds_bucket{item="pen", le="2.5", prog="orders.mtail"}`:  15,
		`shop_order_seconds_bucket{item="pen", le="+Inf", prog="orders.mtail"}`: 16,
		`shop_order_seconds_sum{item="pen", prog="orders.mtail"}`:               18,
		`shop_order_seconds_count{item="pen", prog="orders.mtail"}`:             16,
		`shop_queue_length{prog="queue.mtail"}`:                                 0,
	})
	awaitSeries(t, pod, "shop_", want)
}
