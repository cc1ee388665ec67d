package injectors

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/statsd_exporter/pkg/mapper"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

const (
	statsdConfigPath = "/etc/pillion/statsd-exporter"
	statsdConfigFile = "mapping.yml"
)

// statsdConfig is the mapping configuration of statsd_exporter v0.31.0.
type statsdConfig struct {
	Defaults statsdDefaults  `json:"defaults,omitzero"`
	Mappings []statsdMapping `json:"mappings,omitempty"`
}

type statsdDefaults struct {
	ObserverType     string           `json:"observer_type,omitempty"`
	HistogramOptions *statsdHistogram `json:"histogram_options,omitempty"`
	SummaryOptions   *statsdSummary   `json:"summary_options,omitempty"`
	TTL              string           `json:"ttl,omitempty"`
}

type statsdMapping struct {
	Match            string                          `json:"match"`
	MatchType        string                          `json:"match_type,omitempty"`
	MatchMetricType  string                          `json:"match_metric_type,omitempty"`
	Action           string                          `json:"action,omitempty"`
	Name             string                          `json:"name"`
	Labels           map[string]v1alpha1.StatsDLabel `json:"labels,omitempty"`
	Help             string                          `json:"help,omitempty"`
	ObserverType     string                          `json:"observer_type,omitempty"`
	HistogramOptions *statsdHistogram                `json:"histogram_options,omitempty"`
	SummaryOptions   *statsdSummary                  `json:"summary_options,omitempty"`
	TTL              string                          `json:"ttl,omitempty"`
}

type statsdHistogram struct {
	Buckets []float64 `json:"buckets"`
}

type statsdSummary struct {
	Quantiles []statsdQuantile `json:"quantiles"`
}

type statsdQuantile struct {
	Quantile float64 `json:"quantile"`
	Error    float64 `json:"error"`
}

func addStatsDExporter(request Request, fragment *weave.Fragment) {
	spec := request.Pattern.PrometheusAdapter
	port := spec.StatsD.Port
	address := listenAddress(loopback, port)
	container := newExporter(request, request.Images.StatsDExporter, resources{
		cpuRequest: "10m", cpuLimit: "200m", memoryRequest: "32Mi", memoryLimit: "128Mi",
	})
	container.Args = []string{
		"--web.listen-address=" + listenAddress("", metricsPort(spec)),
		"--web.telemetry-path=" + metricsPath(spec),
		"--statsd.listen-udp=" + address,
		"--statsd.listen-tcp=" + address,
		"--statsd.mapping-config=" + statsdConfigPath + "/" + statsdConfigFile,
	}
	container.Lifecycle = listensOnUDP(port)
	config := configFile{path: statsdConfigFile, content: request.Configuration}
	mount := addConfig(fragment, statsdConfigPath, config)
	container.VolumeMounts = append(container.VolumeMounts, mount)
	addExporter(request, fragment, container)

	fragment.Ports = append(fragment.Ports,
		weave.Port{Container: container.Name, Port: port, Protocol: corev1.ProtocolUDP},
		weave.Port{Container: container.Name, Port: port, Protocol: corev1.ProtocolTCP},
	)
	fragment.Additions = append(fragment.Additions, weave.Addition{
		Containers: spec.Containers,
		Env: []corev1.EnvVar{
			{Name: "STATSD_HOST", Value: loopback},
			{Name: "STATSD_PORT", Value: strconv.Itoa(int(port))},
		},
	})
}

// statsdPatience is how long the exporter may take to read its mappings, after which it opens its sockets.
const statsdPatience = time.Minute

// listensOnUDP waits until something listens at 127.0.0.1:port, which the kernel writes in hexadecimal and the machine's own byte
// order.
func listensOnUDP(port int32) *corev1.Lifecycle {
	return awaited(statsdPatience, "grep", "-qE", fmt.Sprintf("(0100007F|7F000001):%04X 0+:0+ ", port), "/proc/net/udp")
}

func statsdConfiguration(source *v1alpha1.StatsDSource) statsdConfig {
	defaults := source.Defaults
	config := statsdConfig{Defaults: statsdDefaults{
		ObserverType:     strings.ToLower(string(defaults.ObserverType)),
		HistogramOptions: statsdBuckets(defaults.Buckets),
		SummaryOptions:   statsdQuantiles(defaults.Quantiles),
	}}
	if defaults.TTL != nil {
		config.Defaults.TTL = defaults.TTL.Duration.String()
	}
	for i := range source.Mappings {
		config.Mappings = append(config.Mappings, statsdMappingOf(&source.Mappings[i]))
	}
	return config
}

func statsdMappingOf(mapping *v1alpha1.StatsDMapping) statsdMapping {
	config := statsdMapping{
		Match:            mapping.Match,
		MatchType:        strings.ToLower(string(mapping.MatchType)),
		MatchMetricType:  strings.ToLower(string(mapping.MatchMetricType)),
		Action:           strings.ToLower(string(mapping.Action)),
		Name:             mapping.Name,
		Labels:           mapping.Labels,
		Help:             mapping.Help,
		ObserverType:     strings.ToLower(string(mapping.ObserverType)),
		HistogramOptions: statsdBuckets(mapping.Buckets),
		SummaryOptions:   statsdQuantiles(mapping.Quantiles),
	}
	if config.Name == "" {
		// statsd_exporter wants a name of what it drops too.
		config.Name = "dropped"
	}
	if mapping.TTL != nil {
		config.TTL = mapping.TTL.Duration.String()
	}
	return config
}

func statsdBuckets(bounds []v1alpha1.Decimal) *statsdHistogram {
	if len(bounds) == 0 {
		return nil
	}
	return &statsdHistogram{Buckets: numbers(bounds)}
}

func statsdQuantiles(quantiles []v1alpha1.Quantile) *statsdSummary {
	if len(quantiles) == 0 {
		return nil
	}
	summary := &statsdSummary{}
	for _, quantile := range quantiles {
		values := numbers([]v1alpha1.Fraction{quantile.Quantile, quantile.Error})
		summary.Quantiles = append(summary.Quantiles, statsdQuantile{Quantile: values[0], Error: values[1]})
	}
	return summary
}

// numbers reads decimal numbers whose form the schema has checked.
func numbers[T ~string](decimals []T) []float64 {
	read := make([]float64, len(decimals))
	for i, decimal := range decimals {
		read[i], _ = strconv.ParseFloat(string(decimal), 64)
	}
	return read
}

// statsdMatch is what a mapping matches. Of two that match the same, the second is never used.
type statsdMatch struct {
	match      string
	matchType  v1alpha1.StatsDMatchType
	metricType v1alpha1.StatsDMetricType
}

func validateStatsDSource(spec *v1alpha1.PrometheusAdapter, path *field.Path) (errs field.ErrorList) {
	source, path := spec.StatsD, path.Child("statsd")
	if metricsPort(spec) == source.Port {
		errs = append(errs, field.Invalid(path.Child("port"), source.Port, "is the port of the metrics: choose another"))
	}
	errs = append(errs, validateRising(source.Defaults.Buckets, path.Child("defaults", "buckets"))...)
	seen := map[statsdMatch]int{}
	for i := range source.Mappings {
		mapping, path := &source.Mappings[i], path.Child("mappings").Index(i)
		errs = append(errs, validateStatsDMapping(source, mapping, path)...)
		key := statsdMatch{mapping.Match, mapping.MatchType, mapping.MatchMetricType}
		if first, ok := seen[key]; ok {
			errs = append(errs, field.Invalid(path.Child("match"), mapping.Match,
				fmt.Sprintf("is that of mappings[%d], which counts: remove one", first)))
		} else {
			seen[key] = i
		}
	}
	return errs
}

func validateStatsDMapping(
	source *v1alpha1.StatsDSource, mapping *v1alpha1.StatsDMapping, path *field.Path,
) (errs field.ErrorList) {
	errs = append(errs, validateRising(mapping.Buckets, path.Child("buckets"))...)
	observer := cmp.Or(mapping.ObserverType, source.Defaults.ObserverType, v1alpha1.ObserverSummary)
	if len(mapping.Buckets) > 0 && observer != v1alpha1.ObserverHistogram {
		errs = append(errs, field.Required(path.Child("observerType"), "buckets want observerType: Histogram"))
	}
	if len(mapping.Quantiles) > 0 && observer != v1alpha1.ObserverSummary {
		errs = append(errs, field.Required(path.Child("observerType"), "quantiles want observerType: Summary"))
	}
	for _, name := range slices.Sorted(maps.Keys(mapping.Labels)) {
		errs = append(errs, validateStatsDLabelName(name, mapping, observer, path.Child("labels").Key(name))...)
	}
	if len(errs) > 0 {
		return errs
	}
	// statsd_exporter's own mapper says what it would refuse. It reads only what it is given, and registers nothing.
	config := statsdConfig{Defaults: statsdConfiguration(source).Defaults, Mappings: []statsdMapping{statsdMappingOf(mapping)}}
	if err := new(mapper.MetricMapper).InitFromYAMLString(marshalConfig(config)); err != nil {
		return field.ErrorList{field.Invalid(path, mapping.Match, err.Error())}
	}
	return validateReferences(mapping, path)
}

// validateStatsDLabelName wants a name that statsd_exporter takes, which has two characters at least. A histogram that has a
// label le, or a summary that has a label quantile, would end the exporter.
func validateStatsDLabelName(
	name string, mapping *v1alpha1.StatsDMapping, observer v1alpha1.ObserverType, path *field.Path,
) field.ErrorList {
	if errs := validateLabelName(name, path); len(errs) > 0 {
		return errs
	}
	reserved := map[v1alpha1.ObserverType]string{v1alpha1.ObserverHistogram: "le", v1alpha1.ObserverSummary: "quantile"}[observer]
	switch {
	case len(name) < 2:
		return field.ErrorList{field.Invalid(path, name, "statsd_exporter wants two characters or more")}
	case name == reserved && (mapping.MatchMetricType == "" || mapping.MatchMetricType == v1alpha1.StatsDObserver):
		return field.ErrorList{field.Invalid(path, name, fmt.Sprintf("is kept for the %s itself: choose another name",
			strings.ToLower(string(observer))))}
	}
	return nil
}

func validateRising(bounds []v1alpha1.Decimal, path *field.Path) field.ErrorList {
	if isRising(numbers(bounds)) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, bounds, "must rise from each to the next")}
}

// validateReferences checks the references such as ${1} in the name and labels of a mapping. statsd_exporter takes one that finds
// nothing for an empty string, and $1_total for a group of the name 1_total.
func validateReferences(mapping *v1alpha1.StatsDMapping, path *field.Path) (errs field.ErrorList) {
	captures := strings.Count(mapping.Match, "*")
	var names []string
	if mapping.MatchType == v1alpha1.StatsDMatchRegex {
		expression := regexp.MustCompile(mapping.Match)
		captures, names = expression.NumSubexp(), expression.SubexpNames()
	}
	check := func(template string, path *field.Path) {
		for _, match := range referenceExpression().FindAllStringSubmatch(template, -1) {
			if problem := checkReference(match[1]+match[2], captures, names); problem != "" {
				errs = append(errs, field.Invalid(path, template, match[0]+" "+problem))
			}
		}
		if mapping.MatchType != v1alpha1.StatsDMatchRegex && strings.Contains(template, "%") && strings.Contains(template, "$") {
			errs = append(errs, field.Invalid(path, template,
				"a % beside a reference would be garbled: write matchType: Regex, or leave it out"))
		}
	}
	check(mapping.Name, path.Child("name"))
	for _, name := range slices.Sorted(maps.Keys(mapping.Labels)) {
		check(string(mapping.Labels[name]), path.Child("labels").Key(name))
	}
	return errs
}

// referenceExpression finds ${NAME} and $NAME, but not $$.
func referenceExpression() *regexp.Regexp {
	return regexp.MustCompile(`\$(?:\{([^}]*)\}|([A-Za-z0-9_]+))`)
}

// checkReference says what is wrong with a reference to a capture. Empty: nothing.
func checkReference(name string, captures int, names []string) string {
	if number, err := strconv.Atoi(name); err == nil {
		if number > captures {
			return fmt.Sprintf("refers to more than match has: it finds %d", captures)
		}
		return ""
	}
	number := strings.TrimRight(name, letters+"_")
	switch {
	case name != "" && slices.Contains(names, name):
		return ""
	case number != "" && number != name && strings.Trim(number, digits) == "":
		return fmt.Sprintf("refers to a group of the name %q: write ${%s} to end the reference behind the number", name, number)
	default:
		return "refers to no group of match"
	}
}
