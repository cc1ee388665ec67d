package injectors

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

const (
	jsonConfigPath = "/etc/pillion/json-exporter"
	jsonConfigFile = "config.yml"
	jsonModule     = "default"
)

// jsonConfig is the configuration of json_exporter v0.7.0, whose keys are the lower-cased names of its fields.
type jsonConfig struct {
	Modules map[string]jsonConfigModule `json:"modules"`
}

type jsonConfigModule struct {
	Headers          map[string]string  `json:"headers,omitempty"`
	HTTPClientConfig jsonHTTPClient     `json:"http_client_config"`
	Metrics          []jsonConfigMetric `json:"metrics"`
}

// jsonHTTPClient keeps the exporter at the URL that the profile names.
type jsonHTTPClient struct {
	FollowRedirects bool `json:"follow_redirects"`
}

type jsonConfigMetric struct {
	Name           string                       `json:"name"`
	Help           string                       `json:"help,omitempty"`
	Type           string                       `json:"type"`
	Path           v1alpha1.JSONPath            `json:"path"`
	Labels         map[string]v1alpha1.JSONPath `json:"labels,omitempty"`
	Values         map[string]v1alpha1.JSONPath `json:"values,omitempty"`
	ValueType      string                       `json:"valuetype"`
	EpochTimestamp v1alpha1.JSONPath            `json:"epochtimestamp,omitempty"`
}

func addJSONExporter(request Request, fragment *weave.Fragment) {
	spec := request.Pattern.PrometheusAdapter
	container := newExporter(request, request.Images.JSONExporter, resources{
		cpuRequest: "10m", cpuLimit: "200m", memoryRequest: "24Mi", memoryLimit: "64Mi",
	})
	container.Args = []string{
		"--web.listen-address=" + listenAddress(loopback, loopbackPort(metricsPort(spec))),
		"--config.file=" + jsonConfigPath + "/" + jsonConfigFile,
	}
	mount := addConfig(fragment, jsonConfigPath, configFile{path: jsonConfigFile, content: request.Configuration})
	container.VolumeMounts = append(container.VolumeMounts, mount)
	query := url.Values{"module": {jsonModule}, "target": {spec.JSON.URL}}
	addFrontedExporter(request, fragment, container, "/probe?"+query.Encode())
}

func jsonConfiguration(source *v1alpha1.JSONSource) string {
	module := jsonConfigModule{}
	for _, header := range source.Headers {
		if module.Headers == nil {
			module.Headers = map[string]string{}
		}
		module.Headers[header.Name] = header.Value
	}
	for _, metric := range source.Metrics {
		module.Metrics = append(module.Metrics, jsonConfigMetric{
			Name:           metric.Name,
			Help:           metric.Help,
			Type:           strings.ToLower(string(metric.Type)),
			Path:           metric.Path,
			Labels:         metric.Labels,
			Values:         metric.Values,
			ValueType:      strings.ToLower(string(metric.ValueType)),
			EpochTimestamp: metric.EpochTimestamp,
		})
	}
	return marshalConfig(jsonConfig{Modules: map[string]jsonConfigModule{jsonModule: module}})
}

// marshalConfig writes a configuration of strings, numbers, lists and maps as YAML, which cannot fail.
func marshalConfig(config any) string {
	text, err := yaml.Marshal(config)
	if err != nil {
		panic(fmt.Sprintf("marshal a configuration of plain values: %v", err))
	}
	return string(text)
}

func validateJSONSource(spec *v1alpha1.PrometheusAdapter, path *field.Path) field.ErrorList {
	source, path := spec.JSON, path.Child("json")
	errs := validateJSONURL(spec, path.Child("url"))
	for i, header := range source.Headers {
		if carriesSecret(header.Name) {
			errs = append(errs, field.Forbidden(path.Child("headers").Index(i).Child("name"), header.Name+
				" carries a secret, which everyone who sees the Pod could read: serve the document without it on localhost"))
		}
	}
	for i := range source.Metrics {
		errs = append(errs, validateJSONMetric(&source.Metrics[i], path.Child("metrics").Index(i))...)
	}
	return append(errs, validateJSONSeries(source.Metrics, path.Child("metrics"))...)
}

// validateJSONURL refuses what cannot be dialed, and the adapter's own ports: each scrape would end in another scrape.
func validateJSONURL(spec *v1alpha1.PrometheusAdapter, path *field.Path) field.ErrorList {
	address, err := url.Parse(spec.JSON.URL)
	if err != nil || !isPort(address.Port()) {
		return field.ErrorList{field.Invalid(path, spec.JSON.URL, "must be a URL such as http://localhost:8080/status")}
	}
	port, _ := strconv.Atoi(address.Port()) // none is 80, which is too low for one of ours
	switch metrics := metricsPort(spec); int64(port) {
	case int64(metrics):
		return field.ErrorList{field.Invalid(path, spec.JSON.URL, fmt.Sprintf(
			"port %d is the adapter's own: write the port of the app, or choose another metricsPort", port))}
	case int64(loopbackPort(metrics)):
		return field.ErrorList{field.Invalid(path, spec.JSON.URL, fmt.Sprintf(
			"port %d is where the adapter's exporter listens, for metricsPort is %d: write the port of the app, "+
				"or choose another metricsPort", port, metrics))}
	}
	return nil
}

// isPort tells whether a URL's port can be connected to; a URL may have none.
func isPort(port string) bool {
	if port == "" {
		return true
	}
	number, err := strconv.Atoi(port)
	return err == nil && number > 0 && number <= 65535
}

func carriesSecret(header string) bool {
	switch strings.ToLower(header) {
	case "authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token", "x-access-token":
		return true
	}
	return false
}

func validateJSONMetric(metric *v1alpha1.JSONMetric, path *field.Path) (errs field.ErrorList) {
	if metric.Type == v1alpha1.JSONMetricObject {
		errs = append(errs, validateObjectPath(metric.Path, path.Child("path"))...)
	} else {
		errs = append(errs, validateNumberPath(metric.Path, path.Child("path"))...)
	}
	for _, name := range slices.Sorted(maps.Keys(metric.Labels)) {
		errs = append(errs, validateLabelName(name, path.Child("labels").Key(name))...)
		if _, err := jsonpath.Parse("label", string(metric.Labels[name])); err != nil {
			errs = append(errs, field.Invalid(path.Child("labels").Key(name), metric.Labels[name], err.Error()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(metric.Values)) {
		if !isMetricName("a_" + name) {
			errs = append(errs, field.Invalid(path.Child("values").Key(name), name, "must be letters, digits and underscores"))
		}
		errs = append(errs, validateNumberPath(metric.Values[name], path.Child("values").Key(name))...)
	}
	if metric.EpochTimestamp != "" {
		errs = append(errs, validateNumberPath(metric.EpochTimestamp, path.Child("epochTimestamp"))...)
	}
	return errs
}

// validateNumberPath wants an expression, or a literal number or boolean: text without braces stands for itself.
func validateNumberPath(expression v1alpha1.JSONPath, path *field.Path) field.ErrorList {
	parser, err := jsonpath.Parse("number", string(expression))
	if err != nil {
		return field.ErrorList{field.Invalid(path, expression, err.Error())}
	}
	for _, node := range parser.Root.Nodes {
		if node.Type() != jsonpath.NodeText {
			return nil
		}
	}
	_, notNumber := strconv.ParseFloat(string(expression), 64)
	_, notBoolean := strconv.ParseBool(string(expression))
	if notNumber != nil && notBoolean != nil {
		return field.ErrorList{field.Invalid(path, expression,
			"is taken literally, for it has no braces: write {"+dotted(expression)+"}")}
	}
	return nil
}

// validateObjectPath wants one expression in braces: json_exporter reads what it finds as one JSON list.
func validateObjectPath(expression v1alpha1.JSONPath, path *field.Path) field.ErrorList {
	parser, err := jsonpath.Parse("objects", string(expression))
	if err != nil {
		return field.ErrorList{field.Invalid(path, expression, err.Error())}
	}
	if len(parser.Root.Nodes) != 1 || parser.Root.Nodes[0].Type() != jsonpath.NodeList {
		return field.ErrorList{field.Invalid(path, expression, "must be one expression in braces, such as {.workers[*]}")}
	}
	return nil
}

func dotted(expression v1alpha1.JSONPath) string {
	return "." + strings.TrimPrefix(strings.TrimPrefix(string(expression), "$"), ".")
}

// jsonSeries is what metrics of one name must have in common, or Prometheus' library refuses all of them.
type jsonSeries struct {
	index     int
	help      string
	valueType v1alpha1.JSONValueType
	labels    []string
	// values are the labels' expressions.
	values []v1alpha1.JSONPath
	object bool
}

// validateJSONSeries checks metrics of the same name: their help, type and label names must be equal, their labels not.
func validateJSONSeries(metrics []v1alpha1.JSONMetric, path *field.Path) (errs field.ErrorList) {
	seen := map[string][]jsonSeries{}
	for i := range metrics {
		added := seriesOf(i, &metrics[i])
		for _, name := range seriesNames(&metrics[i]) {
			for _, other := range seen[name] {
				if problem := added.conflict(other); problem != "" {
					errs = append(errs, field.Invalid(path.Index(i).Child("name"), name,
						fmt.Sprintf("is served by metrics[%d] too: %s", other.index, problem)))
					break
				}
			}
			seen[name] = append(seen[name], added)
		}
	}
	return errs
}

func seriesOf(index int, metric *v1alpha1.JSONMetric) jsonSeries {
	series := jsonSeries{
		index:     index,
		help:      metric.Help,
		valueType: metric.ValueType,
		labels:    slices.Sorted(maps.Keys(metric.Labels)),
		object:    metric.Type == v1alpha1.JSONMetricObject,
	}
	if series.help == "" {
		series.help = metric.Name
	}
	for _, label := range series.labels {
		series.values = append(series.values, metric.Labels[label])
	}
	return series
}

func seriesNames(metric *v1alpha1.JSONMetric) (names []string) {
	if metric.Type != v1alpha1.JSONMetricObject {
		return []string{metric.Name}
	}
	for _, key := range slices.Sorted(maps.Keys(metric.Values)) {
		names = append(names, metric.Name+"_"+key)
	}
	return names
}

// conflict says why two metrics of one name cannot be served together. Empty: they can.
func (s jsonSeries) conflict(other jsonSeries) string {
	switch {
	case s.help != other.help:
		return "give both the same help"
	case s.valueType != other.valueType:
		return "give both the same valueType"
	case !slices.Equal(s.labels, other.labels):
		return "give both labels of the same names"
	case slices.Equal(s.values, other.values) && !s.object && !other.object:
		return "rename one, or tell them apart by a label"
	}
	return ""
}

// isMetricName tells whether Prometheus takes the name for a metric.
func isMetricName(name string) bool {
	return name != "" && !isDigit(name[0]) && strings.Trim(name, letters+digits+"_:") == ""
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// validateLabelName wants a name that Prometheus takes for a label and does not keep for itself.
func validateLabelName(name string, path *field.Path) field.ErrorList {
	if name == "" || isDigit(name[0]) || strings.Trim(name, letters+digits+"_") != "" || strings.HasPrefix(name, "__") {
		return field.ErrorList{field.Invalid(path, name,
			"a label's name is letters, digits and underscores, begins with no digit and not with two underscores")}
	}
	return nil
}
