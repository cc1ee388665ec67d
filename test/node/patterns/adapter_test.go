package patterns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// The tests in adapter_*_test.go scrape every source of prometheusAdapter as Prometheus would. They do not run Memcached,
// PostgreSQL and MySQL: there are no images of their exporters here.

// adapterShop is an app that tells its numbers as JSON, by StatsD and in a log file.
const adapterShop = "localhost/adaptershop:1"

func init() { programs[adapterShop] = "./test/node/patterns/testdata/adaptershop" }

// runAdapted creates a Deployment and returns its Pod when it is Ready and its app listens at a port. No container of it may
// restart until the test ends.
func runAdapted(t *testing.T, deployment *appsv1.Deployment, port string) *corev1.Pod {
	t.Helper()
	cluster.Create(t, deployment)
	pod := cluster.ReadyPod(t, deployment.Namespace, deployment.Name)
	awaitPort(t, pod, port)
	t.Cleanup(func() { checkNeverRestarted(context.Background(), t, pod) })
	return pod
}

// awaitPort waits until something listens at the Pod's IP.
func awaitPort(t *testing.T, pod *corev1.Pod, port string) {
	t.Helper()
	cluster.Eventually(t, "the app to listen at "+port, func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, port))
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

// checkNeverRestarted fails the test if a container of the Pod, injected or not, was started twice.
func checkNeverRestarted(ctx context.Context, t *testing.T, pod *corev1.Pod) {
	t.Helper()
	now := &corev1.Pod{}
	if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
		t.Error(err)
		return
	}
	if now.UID != pod.UID {
		t.Errorf("Pod %s has been replaced", pod.Name)
	}
	for _, status := range slices.Concat(now.Status.InitContainerStatuses, now.Status.ContainerStatuses) {
		if status.RestartCount > 0 {
			t.Errorf("container %s restarted %d times: %+v", status.Name, status.RestartCount, status.LastTerminationState)
		}
	}
}

// postToShop posts to the shop.
func postToShop(t *testing.T, pod *corev1.Pod, path string, query url.Values, body string) {
	t.Helper()
	address := url.URL{Scheme: "http", Host: pod.Status.PodIP + ":8080", Path: path, RawQuery: query.Encode()}
	response, err := http.Post(address.String(), "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s: %s", &address, response.Status, content)
	}
}

// sell makes the shop sell an item, each in so many seconds.
func sell(t *testing.T, pod *corev1.Pod, item string, count int, seconds string) {
	t.Helper()
	postToShop(t, pod, "/orders", url.Values{"item": {item}, "count": {strconv.Itoa(count)}, "seconds": {seconds}}, "")
}

// metricsURL is where Prometheus finds the Pod's metrics by its annotations, and a PodMonitor by the one port called metrics,
// which a native sidecar declares.
func metricsURL(pod *corev1.Pod) (string, error) {
	if pod.Annotations["prometheus.io/scrape"] != "true" {
		return "", fmt.Errorf("Pod %s is not to be scraped: its annotations are %v", pod.Name, pod.Annotations)
	}
	var declared []string
	for _, container := range pod.Spec.InitContainers {
		sidecar := container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways
		for _, port := range container.Ports {
			if port.Name == "metrics" && sidecar && port.Protocol == corev1.ProtocolTCP {
				declared = append(declared, strconv.Itoa(int(port.ContainerPort)))
			}
		}
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			declared = append(declared, container.Name+" "+port.Name)
		}
	}
	if port := pod.Annotations["prometheus.io/port"]; !slices.Equal(declared, []string{port}) {
		return "", fmt.Errorf("Pod %s declares the ports %v, its annotation says %q", pod.Name, declared, port)
	}
	return "http://" + pod.Status.PodIP + ":" + pod.Annotations["prometheus.io/port"] + pod.Annotations["prometheus.io/path"], nil
}

// scraped is what an adapter answered.
type scraped struct {
	samples model.Vector

	// types are COUNTER, GAUGE and so on, by the metric's name.
	types map[string]string
	helps map[string]string
}

// scrape reads the Pod's metrics as Prometheus does. What is not valid in the exposition format is an error.
func scrape(ctx context.Context, pod *corev1.Pod) (*scraped, error) {
	address, err := metricsURL(pod)
	if err != nil {
		return nil, err
	}
	return scrapeURL(ctx, address)
}

func scrapeURL(ctx context.Context, address string) (*scraped, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/plain;version="+expfmt.TextVersion)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", address, response.Status, content)
	}
	if format := expfmt.ResponseFormat(response.Header); format.FormatType() != expfmt.TypeTextPlain {
		return nil, fmt.Errorf("%s: Content-Type is %q", address, response.Header.Get("Content-Type"))
	}
	found, err := parseExposition(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", address, err, content)
	}
	return found, nil
}

// parseExposition reads the text format. Besides what its parser refuses, no series may be there twice, and the buckets of a
// histogram must add up.
func parseExposition(content []byte) (*scraped, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	found := &scraped{types: map[string]string{}, helps: map[string]string{}}
	for name, family := range families {
		found.types[name], found.helps[name] = family.GetType().String(), family.GetHelp()
		samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, family)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found.samples = append(found.samples, samples...)
		for _, metric := range family.GetMetric() {
			var below uint64
			for _, bucket := range metric.GetHistogram().GetBucket() {
				if bucket.GetCumulativeCount() < below || bucket.GetCumulativeCount() > metric.GetHistogram().GetSampleCount() {
					return nil, fmt.Errorf("the buckets of %s do not add up: %v", name, metric)
				}
				below = bucket.GetCumulativeCount()
			}
		}
	}
	seen := map[model.Fingerprint]bool{}
	for _, sample := range found.samples {
		if seen[sample.Metric.Fingerprint()] {
			return nil, fmt.Errorf("%s is there twice", sample.Metric)
		}
		seen[sample.Metric.Fingerprint()] = true
	}
	return found, nil
}

// series are the values of the series whose names begin so, by what PromQL would call them: shop_orders_total{item="book"}.
func (s *scraped) series(prefix string) map[string]float64 {
	values := map[string]float64{}
	for _, sample := range s.samples {
		if strings.HasPrefix(string(sample.Metric[model.MetricNameLabel]), prefix) {
			values[sample.Metric.String()] = float64(sample.Value)
		}
	}
	return values
}

// nearly compares series. Sums of fractions are not exact.
var nearly = cmpopts.EquateApprox(0, 1e-9)

// awaitSeries scrapes until the series whose names begin so are those wanted, and no others, and returns that scrape.
func awaitSeries(t *testing.T, pod *corev1.Pod, prefix string, want map[string]float64) (found *scraped) {
	t.Helper()
	cluster.Eventually(t, "the metrics of Pod "+pod.Name, func(ctx context.Context) (err error) {
		if found, err = scrape(ctx, pod); err != nil {
			return err
		}
		if diff := cmp.Diff(want, found.series(prefix), nearly); diff != "" {
			return fmt.Errorf("%s… (-want +got):\n%s", prefix, diff)
		}
		return nil
	})
	return found
}

// checkTypes compares the types of metrics.
func (s *scraped) checkTypes(t *testing.T, prefix string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for name, kind := range s.types {
		if strings.HasPrefix(name, prefix) {
			got[name] = kind
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types of metrics (-want +got):\n%s", diff)
	}
}

// matched is a PatternProfile for the Pods of its namespace that have the label app=shop.
func matched(name, adapter string) string {
	return "apiVersion: pillion.dev/v1alpha1\nkind: PatternProfile\nmetadata: {name: " + name + "}\nspec:\n" +
		"  match: {podSelector: {matchLabels: {app: shop}}}\n  prometheusAdapter:\n" + adapter
}

// createAdapted makes a namespace with a profile that puts an adapter beside every Pod of Deployment shop.
func createAdapted(t *testing.T, adapter string) (namespace string) {
	t.Helper()
	namespace = cluster.CreateRestricted(t, nil)
	cluster.Apply(t, namespace, matched("numbers", adapter))
	cluster.AwaitProfile(t, namespace, "numbers")
	return namespace
}

// startShop starts the shop, of whose Deployment no line is for Pillion.
func startShop(t *testing.T, namespace string) *corev1.Pod {
	t.Helper()
	return runAdapted(t, installed.Deployment(namespace, "shop", adapterShop), "8080")
}

// listeners are the sockets that others than the Pod itself reach: protocol and port.
func listeners(t *testing.T, pod *corev1.Pod, app string) []string {
	t.Helper()
	table, err := cluster.Exec(t.Context(), pod.Namespace, pod.Name, app, "/bin/app", "sockets")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for line := range strings.Lines(table) {
		// PROTOCOL NUMBER: LOCAL:PORT REMOTE:PORT STATE …, addresses in hexadecimal and the machine's own byte order
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[1] == "sl" {
			continue
		}
		protocol := strings.TrimSuffix(fields[0], "6")
		address, hex, _ := strings.Cut(fields[2], ":")
		if protocol == "tcp" && fields[4] != "0A" || !strings.HasSuffix(fields[3], ":0000") || isLoopbackHex(address) {
			continue
		}
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			t.Fatalf("socket %q: %v", line, err)
		}
		open = append(open, fmt.Sprintf("%s %d", protocol, port))
	}
	slices.Sort(open)
	return slices.Compact(open)
}

// isLoopbackHex tells whether an address of /proc/net is 127.0.0.1 or ::1.
func isLoopbackHex(address string) bool {
	return slices.Contains([]string{
		"0100007F", "7F000001", "00000000000000000000000001000000", "00000000000000000000000000000001",
		"0000000000000000FFFF00000100007F", "00000000000000000000FFFF7F000001",
	}, address)
}
