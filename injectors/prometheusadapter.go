package injectors

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

const (
	// metricsPortName names the port of the Pod with the metrics, by which a PodMonitor finds it.
	metricsPortName = "metrics"

	loopback = "127.0.0.1"
)

// prometheusAdapterInjector serves Prometheus metrics of an app that has none. Nobody waits for a scrape, so the exporters have
// nothing that holds the app back; statsd_exporter has, for what the app sends before it listens is lost.
func prometheusAdapterInjector() Injector {
	return Injector{
		Kind:          v1alpha1.KindPrometheusAdapter,
		Field:         "prometheusAdapter",
		Validate:      validatePrometheusAdapter,
		Fragment:      prometheusAdapterFragment,
		Problems:      prometheusAdapterProblems,
		Pick:          pickPrometheusAdapterPorts,
		Configuration: prometheusAdapterConfiguration,
	}
}

// prometheusAdapterConfiguration is the configuration of json_exporter or statsd_exporter; the other programs have none.
func prometheusAdapterConfiguration(pattern *v1alpha1.Pattern) string {
	switch spec := pattern.PrometheusAdapter; {
	case spec.JSON != nil:
		return jsonConfiguration(spec.JSON)
	case spec.StatsD != nil:
		return marshalConfig(statsdConfiguration(spec.StatsD))
	default:
		return ""
	}
}

func validatePrometheusAdapter(pattern *v1alpha1.Pattern, path *field.Path) field.ErrorList {
	switch spec := pattern.PrometheusAdapter; {
	case spec.JSON != nil:
		return validateJSONSource(spec, path)
	case spec.StatsD != nil:
		return validateStatsDSource(spec, path)
	case spec.Logs != nil:
		return validateLogsSource(spec.Logs, path.Child("logs"))
	case spec.Server != nil:
		return validateServerSource(spec, path)
	}
	return nil
}

func prometheusAdapterFragment(request Request) weave.Fragment {
	spec := request.Pattern.PrometheusAdapter
	fragment := weave.Fragment{Profile: request.Profile}
	switch {
	case spec.JSON != nil:
		addJSONExporter(request, &fragment)
	case spec.StatsD != nil:
		addStatsDExporter(request, &fragment)
	case spec.Logs != nil:
		addMtail(request, &fragment)
	case spec.Server != nil:
		addServerExporter(request, &fragment)
	}
	if spec.ScrapeAnnotations == nil || *spec.ScrapeAnnotations {
		addScrapeAnnotations(&fragment, spec)
	}
	return fragment
}

// prometheusAdapterProblems says why this Pod cannot have an adapter.
func prometheusAdapterProblems(request Request, pod *corev1.Pod) (problems []Problem) {
	port := metricsPort(request.Pattern.PrometheusAdapter)
	if pod.Spec.HostNetwork {
		problems = append(problems, Problem{Reason: ReasonHostNetwork, Message: fmt.Sprintf(
			"profile %q would open port %d on the node, for the Pod uses the host's network: remove hostNetwork from the Pod, "+
				"or do not ask for the profile", request.Profile, port)})
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, taken := range container.Ports {
			if taken.Name == metricsPortName {
				problems = append(problems, Problem{Reason: ReasonMetricsPortTaken, Message: fmt.Sprintf(
					"container %q has a port named %q already (%d), the name by which the metrics of profile %q would be found: "+
						"scrape that one, or give it another name", container.Name, metricsPortName, taken.ContainerPort, request.Profile)})
			}
		}
	}
	return problems
}

// pickPrometheusAdapterPorts keeps both ports of a fronted exporter free, and off the port of what is measured, which need not be
// declared.
func pickPrometheusAdapterPorts(pattern *v1alpha1.Pattern, taken Taken) *v1alpha1.Pattern {
	picked := pattern.DeepCopy()
	spec := picked.PrometheusAdapter
	spec.MetricsPort = metricsPort(spec)
	measured := measuredPort(spec)
	metricsFree := func(port int32) bool {
		return port != measured && !taken(port, corev1.ProtocolTCP) &&
			(!isFronted(spec) || loopbackPort(port) != measured && !taken(loopbackPort(port), corev1.ProtocolTCP))
	}
	if !pickPort(&spec.MetricsPort, metricsFree) {
		return nil
	}
	if spec.StatsD == nil {
		return picked
	}
	statsdFree := func(port int32) bool {
		return port != spec.MetricsPort && !taken(port, corev1.ProtocolTCP) && !taken(port, corev1.ProtocolUDP)
	}
	if !pickPort(&spec.StatsD.Port, statsdFree) {
		return nil
	}
	return picked
}

// isFronted tells whether a proxy stands before the exporter: see addFrontedExporter.
func isFronted(spec *v1alpha1.PrometheusAdapter) bool {
	return spec.JSON != nil || spec.Server != nil && spec.Server.Type != v1alpha1.ServerNginx
}

// measuredPort is the port of the app that the exporter asks, or at which the app's metrics come in; 0 if there is none.
func measuredPort(spec *v1alpha1.PrometheusAdapter) int32 {
	switch {
	case spec.JSON != nil:
		address, err := url.Parse(spec.JSON.URL)
		if err != nil {
			return 0
		}
		port, _ := strconv.ParseInt(address.Port(), 10, 32)
		return int32(port)
	case spec.StatsD != nil:
		return spec.StatsD.Port
	case spec.Server != nil:
		return serverPort(spec.Server)
	default:
		return 0
	}
}

// metricsPort is the port of the Pod on which Prometheus finds the metrics.
func metricsPort(spec *v1alpha1.PrometheusAdapter) int32 {
	switch {
	case spec.MetricsPort != 0:
		return spec.MetricsPort
	case spec.JSON != nil:
		return 7979
	case spec.StatsD != nil:
		return 9102
	case spec.Logs != nil:
		return 3903
	default:
		return serverDefaults(spec.Server.Type).metricsPort
	}
}

func metricsPath(spec *v1alpha1.PrometheusAdapter) string {
	if spec.Path == "" {
		return "/metrics"
	}
	return spec.Path
}

func listenAddress(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// newExporter returns the native sidecar that makes the metrics.
func newExporter(request Request, image string, defaults resources) corev1.Container {
	container := newContainer(request, "", image, &request.Pattern.PrometheusAdapter.ContainerSettings, defaults)
	container.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	return container
}

// addExporter adds an exporter that serves the metrics to whoever reaches the Pod.
func addExporter(request Request, fragment *weave.Fragment, container corev1.Container) {
	spec := request.Pattern.PrometheusAdapter
	addEnv(&container, &spec.ContainerSettings)
	exposeMetrics(fragment, &container, spec)
	fragment.InitContainers = append(fragment.InitContainers, container)
}

// addFrontedExporter adds an exporter that serves on loopback, at loopbackPort, and the proxy that serves one URL of it to
// whoever reaches the Pod. It is for exporters that would ask any target that a request names, some with the password that
// they hold.
func addFrontedExporter(request Request, fragment *weave.Fragment, container corev1.Container, urlPath string) {
	spec := request.Pattern.PrometheusAdapter
	port := loopbackPort(metricsPort(spec))
	addEnv(&container, &spec.ContainerSettings)
	fragment.Ports = append(fragment.Ports, weave.Port{Container: container.Name, Port: port})

	settings := v1alpha1.ContainerSettings{ImagePullPolicy: spec.ImagePullPolicy}
	proxy := newContainer(request, "proxy", request.Images.Pillion, &settings, resources{
		cpuRequest: "5m", cpuLimit: "100m", memoryRequest: "32Mi", memoryLimit: "96Mi",
	})
	proxy.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	proxy.Args = []string{
		"metrics-proxy",
		"--listen-address=" + listenAddress("", metricsPort(spec)),
		"--path=" + metricsPath(spec),
		"--upstream=http://" + listenAddress(loopback, port) + urlPath,
	}
	exposeMetrics(fragment, &proxy, spec)
	fragment.InitContainers = append(fragment.InitContainers, container, proxy)
}

// exposeMetrics declares the metrics' port on the container that listens on it.
func exposeMetrics(fragment *weave.Fragment, container *corev1.Container, spec *v1alpha1.PrometheusAdapter) {
	port := metricsPort(spec)
	container.Ports = []corev1.ContainerPort{{Name: metricsPortName, ContainerPort: port, Protocol: corev1.ProtocolTCP}}
	fragment.Ports = append(fragment.Ports, weave.Port{Container: container.Name, Port: port})
}

// addScrapeAnnotations adds the annotations by which the usual Prometheus configuration finds the metrics.
func addScrapeAnnotations(fragment *weave.Fragment, spec *v1alpha1.PrometheusAdapter) {
	if fragment.Annotations == nil {
		fragment.Annotations = map[string]string{}
	}
	fragment.Annotations["prometheus.io/scrape"] = "true"
	fragment.Annotations["prometheus.io/port"] = strconv.Itoa(int(metricsPort(spec)))
	fragment.Annotations["prometheus.io/path"] = metricsPath(spec)
}
