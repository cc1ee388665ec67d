package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PrometheusAdapter serves Prometheus metrics of an app that has none of its own. Exactly one source says where they come from.
//
// +kubebuilder:validation:ExactlyOneOf=json;statsd;logs;server
// +kubebuilder:validation:XValidation:rule="!has(self.containers) || has(self.statsd) || has(self.logs)",message="containers says who gets the environment of statsd or the directory of logs: leave it out with json and server",fieldPath=".containers"
// +kubebuilder:validation:XValidation:rule="!has(self.logs) || !has(self.path) || self.path == '/metrics'",message="mtail, which reads logs, serves /metrics only: leave path out",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="!has(self.statsd) || !has(self.metricsPort) || !has(self.statsd.port) || self.statsd.port != self.metricsPort",message="metricsPort and statsd.port must differ: both are TCP ports of the same program",fieldPath=".metricsPort"
type PrometheusAdapter struct {
	ContainerSettings `json:",inline"`

	// json reads the metrics from a JSON document that the app serves over HTTP (json_exporter).
	// +optional
	JSON *JSONSource `json:"json,omitempty"`

	// statsd takes the metrics that the app sends as StatsD lines to STATSD_HOST and STATSD_PORT, which are put into its
	// environment (statsd_exporter).
	// +optional
	StatsD *StatsDSource `json:"statsd,omitempty"`

	// logs counts and measures what the app writes to log files (mtail).
	// +optional
	Logs *LogsSource `json:"logs,omitempty"`

	// server asks a well-known server that runs in the Pod, by that server's own exporter.
	// +optional
	Server *ServerSource `json:"server,omitempty"`

	// metricsPort is the port of the Pod on which Prometheus finds the metrics. Default: the usual one of the program, which is
	// 7979 for json, 9102 for statsd, 3903 for logs, and for a server 9121 (Redis), 9150 (Memcached), 9113 (Nginx),
	// 9187 (Postgres) or 9104 (MySQL).
	// +optional
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	MetricsPort int32 `json:"metricsPort,omitempty"`

	// path is the HTTP path of the metrics. Default: /metrics.
	// +optional
	// +default="/metrics"
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$`
	Path string `json:"path,omitempty"`

	// scrapeAnnotations puts prometheus.io/scrape, port and path on the Pod, by which the usual Prometheus configuration finds
	// it. Set it to false where a PodMonitor names the port (metrics), or where the Pod has such annotations of its own.
	// Default: true.
	// +optional
	// +default=true
	ScrapeAnnotations *bool `json:"scrapeAnnotations,omitempty"`

	// containers names the containers of the app that get the environment of statsd or the directory of logs.
	// Default: all regular containers of the app.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Containers []string `json:"containers,omitempty"`
}

// JSONSource is a JSON document that the app serves over HTTP.
type JSONSource struct {
	// url of the document, on the Pod's own loopback: http://localhost:8080/status. 127.0.0.1 and [::1] serve too. Its port is the
	// app's: metricsPort, and the port 10000 above (or, over 55535, below) on which the adapter's exporter listens, are refused.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[!-~]*)?$`
	URL string `json:"url"`

	// headers are sent with the request. Secrets do not belong here, since profiles and Pods are not kept secret: names such
	// as Authorization and Cookie are refused.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Headers []HTTPHeader `json:"headers,omitempty"`

	// metrics say what is read from the document.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Metrics []JSONMetric `json:"metrics"`
}

// HTTPHeader is a header of an HTTP request.
type HTTPHeader struct {
	// name of the header.
	// +required
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]+$`
	Name string `json:"name"`

	// value of the header.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Value string `json:"value"`
}

// JSONMetric is read from a JSON document: one value, or for each of the objects in it several.
//
// +kubebuilder:validation:XValidation:rule="self.type != 'Object' || has(self.values)",message="type Object wants values, one for each number of an object",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="self.type != 'Value' || !has(self.values)",message="values are for type Object: leave them out, or write type: Object",fieldPath=".values"
type JSONMetric struct {
	// name of the metric, for type Object the first part of the names: NAME_KEY for every key of values.
	// +required
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_:][a-zA-Z0-9_:]*$`
	Name string `json:"name"`

	// help says in a sentence what the metric counts or measures. Default: its name.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Help string `json:"help,omitempty"`

	// type is Value, where path finds one number, or Object, where path finds objects that each hold the numbers in values and
	// the labels. Default: Value.
	// +optional
	// +default="Value"
	// +kubebuilder:validation:Enum=Value;Object
	Type JSONMetricType `json:"type,omitempty"`

	// path is a Kubernetes JSONPath in braces, as kubectl takes it. It finds a number or a boolean for type Value
	// ({.queue.length}), objects for type Object ({.workers[*]}).
	// +required
	Path JSONPath `json:"path"`

	// labels of the metric by name. A value is a JSONPath in braces, for type Object relative to the object, or literal text.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Labels map[string]JSONPath `json:"labels,omitempty"`

	// values of type Object by the last part of the metric's name. A value is a JSONPath in braces, relative to the object, or a
	// literal number.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	Values map[string]JSONPath `json:"values,omitempty"`

	// valueType is what Prometheus shall take the metric for: Gauge, Counter or Untyped. Default: Untyped.
	// +optional
	// +default="Untyped"
	// +kubebuilder:validation:Enum=Gauge;Counter;Untyped
	ValueType JSONValueType `json:"valueType,omitempty"`

	// epochTimestamp is a JSONPath to the time of the sample, in milliseconds since 1970. The document must hold it as a string:
	// json_exporter reads a number as 1.7e+12, which it does not take. Default: the time of the scrape.
	// +optional
	EpochTimestamp JSONPath `json:"epochTimestamp,omitempty"`
}

// JSONPath is an expression of Kubernetes' JSONPath, with its braces.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=512
type JSONPath string

// JSONMetricType says what the path of a metric finds.
type JSONMetricType string

// The types of a JSON metric.
const (
	JSONMetricValue  JSONMetricType = "Value"
	JSONMetricObject JSONMetricType = "Object"
)

// JSONValueType is a Prometheus metric type.
type JSONValueType string

// The value types of a JSON metric.
const (
	JSONValueGauge   JSONValueType = "Gauge"
	JSONValueCounter JSONValueType = "Counter"
	JSONValueUntyped JSONValueType = "Untyped"
)

// StatsDSource takes StatsD lines from the app, over UDP and TCP.
type StatsDSource struct {
	// port on localhost that takes StatsD lines, UDP and TCP. Default: 9125.
	// +optional
	// +default=9125
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// mappings turn StatsD names into Prometheus names and labels. The first that matches counts. A name that none matches is
	// kept, with underscores for its dots.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	Mappings []StatsDMapping `json:"mappings,omitempty"`

	// defaults are for metrics whose mapping, if any, says nothing else.
	// +optional
	Defaults StatsDDefaults `json:"defaults,omitempty,omitzero"`
}

// StatsDDefaults are what a mapping may leave out.
type StatsDDefaults struct {
	// observerType is what timers, histograms and distributions become: Histogram or Summary. Default: Summary.
	// +optional
	// +default="Summary"
	// +kubebuilder:validation:Enum=Histogram;Summary
	ObserverType ObserverType `json:"observerType,omitempty"`

	// buckets are the upper bounds of histograms, rising. Default: 0.005 to 10 in eleven steps.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Buckets []Decimal `json:"buckets,omitempty"`

	// quantiles of summaries. Default: 0.5, 0.9 and 0.99.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Quantiles []Quantile `json:"quantiles,omitempty"`

	// ttl is how long a metric is still served that the app no longer sends. Default: for ever.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('720h')",message="must be from 1s to 720h, for example 10m"
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// StatsDMapping turns StatsD names into a Prometheus name and labels.
//
// +kubebuilder:validation:XValidation:rule="self.action != 'Map' || has(self.name)",message="name is required unless action is Drop",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="!has(self.buckets) || !has(self.quantiles)",message="buckets are for histograms, quantiles for summaries: leave one of them out",fieldPath=".buckets"
// +kubebuilder:validation:XValidation:rule="!has(self.buckets) || !has(self.observerType) || self.observerType == 'Histogram'",message="buckets want observerType Histogram",fieldPath=".observerType"
// +kubebuilder:validation:XValidation:rule="!has(self.quantiles) || !has(self.observerType) || self.observerType == 'Summary'",message="quantiles want observerType Summary",fieldPath=".observerType"
type StatsDMapping struct {
	// match is the StatsD name: a glob whose * each stand for one part between dots (app.*.requests), or a regular expression of
	// Go (RE2).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Match string `json:"match"`

	// matchType is Glob or Regex. Default: Glob.
	// +optional
	// +default="Glob"
	// +kubebuilder:validation:Enum=Glob;Regex
	MatchType StatsDMatchType `json:"matchType,omitempty"`

	// matchMetricType restricts the mapping to Counter, Gauge or Observer (timers, histograms, distributions). Default: any.
	// +optional
	// +kubebuilder:validation:Enum=Counter;Gauge;Observer
	MatchMetricType StatsDMetricType `json:"matchMetricType,omitempty"`

	// action is Map, or Drop to lose the metric. Default: Map.
	// +optional
	// +default="Map"
	// +kubebuilder:validation:Enum=Map;Drop
	Action StatsDAction `json:"action,omitempty"`

	// name of the Prometheus metric. ${1} stands for what the first * or group of match found.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	Name string `json:"name,omitempty"`

	// labels of the metric by name. In a value, ${1} stands for what the first * or group of match found.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Labels map[string]StatsDLabel `json:"labels,omitempty"`

	// help says in a sentence what the metric counts or measures.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Help string `json:"help,omitempty"`

	// observerType is what timers, histograms and distributions become: Histogram or Summary. Default: that of defaults.
	// +optional
	// +kubebuilder:validation:Enum=Histogram;Summary
	ObserverType ObserverType `json:"observerType,omitempty"`

	// buckets are the upper bounds of the histogram, rising. Default: those of defaults.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Buckets []Decimal `json:"buckets,omitempty"`

	// quantiles of the summary. Default: those of defaults.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Quantiles []Quantile `json:"quantiles,omitempty"`

	// ttl is how long the metric is still served after the app last sent it. Default: that of defaults.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('720h')",message="must be from 1s to 720h, for example 10m"
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// Decimal is a decimal number in a string, for the Kubernetes API has no floating point numbers.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^-?[0-9]+(\.[0-9]+)?$`
type Decimal string

// Fraction is a decimal number from 0 to 1 in a string.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^(0(\.[0-9]+)?|1(\.0+)?)$`
type Fraction string

// Quantile of a summary.
type Quantile struct {
	// quantile from 0 to 1: "0.99".
	// +required
	Quantile Fraction `json:"quantile"`

	// error by which the quantile may be off, from 0 to 1: "0.001".
	// +required
	Error Fraction `json:"error"`
}

// StatsDLabel is the value of a label, with references to what a match found.
//
// +kubebuilder:validation:MaxLength=256
type StatsDLabel string

// StatsDMatchType says how a mapping matches.
type StatsDMatchType string

// The match types.
const (
	StatsDMatchGlob  StatsDMatchType = "Glob"
	StatsDMatchRegex StatsDMatchType = "Regex"
)

// StatsDMetricType is a kind of StatsD metric.
type StatsDMetricType string

// The kinds of StatsD metrics.
const (
	StatsDCounter  StatsDMetricType = "Counter"
	StatsDGauge    StatsDMetricType = "Gauge"
	StatsDObserver StatsDMetricType = "Observer"
)

// StatsDAction says what becomes of a metric that matches.
type StatsDAction string

// The actions.
const (
	StatsDMap  StatsDAction = "Map"
	StatsDDrop StatsDAction = "Drop"
)

// ObserverType is what observations become.
type ObserverType string

// The observer types.
const (
	ObserverHistogram ObserverType = "Histogram"
	ObserverSummary   ObserverType = "Summary"
)

// LogsSource reads log files that the app writes.
type LogsSource struct {
	// directory into which the app writes its logs. An emptyDir is mounted there, so that nothing of the image may be needed in
	// it. The files must be readable for others (0644), or the Pod must set fsGroup and they for the group (0640).
	// +required
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$`
	Directory string `json:"directory"`

	// files are globs of the names of log files in the directory. Default: *.log.
	// +optional
	// +kubebuilder:default={"*.log"}
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9._*?\[\]^-]+$`
	Files []string `json:"files,omitempty"`

	// sizeLimit bounds the directory. A Pod that writes more is evicted, so the app must rotate its logs. Default: 1Gi.
	// +optional
	// +default="1Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than 0, for example 1Gi"
	SizeLimit *resource.Quantity `json:"sizeLimit,omitempty"`

	// programs of mtail, which say what is read from the logs. Each line is given to each program.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Programs []LogProgram `json:"programs"`
}

// LogProgram is a program of mtail.
type LogProgram struct {
	// name of the program. Its metrics carry it in the label prog, with .mtail added.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// program is its text. See https://google.github.io/mtail/Programming-Guide.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Program string `json:"program"`
}

// ServerSource is a well-known server that runs in the Pod.
//
// +kubebuilder:validation:XValidation:rule="!has(self.credentials) || self.type in ['Redis', 'Postgres', 'MySQL']",message="the exporters of Memcached and Nginx take no credentials: leave them out",fieldPath=".credentials"
// +kubebuilder:validation:XValidation:rule="has(self.credentials) || !(self.type in ['Postgres', 'MySQL'])",message="Postgres and MySQL want credentials",fieldPath=".credentials"
// +kubebuilder:validation:XValidation:rule="!has(self.credentials) || has(self.credentials.usernameKey) || self.type == 'Redis'",message="Postgres and MySQL want credentials.usernameKey",fieldPath=".credentials"
// +kubebuilder:validation:XValidation:rule="!has(self.nginx) || self.type == 'Nginx'",message="nginx is for type Nginx",fieldPath=".nginx"
// +kubebuilder:validation:XValidation:rule="!has(self.postgres) || self.type == 'Postgres'",message="postgres is for type Postgres",fieldPath=".postgres"
type ServerSource struct {
	// type of the server: Redis, Memcached, Nginx, Postgres or MySQL.
	// +required
	// +kubebuilder:validation:Enum=Redis;Memcached;Nginx;Postgres;MySQL
	Type ServerType `json:"type"`

	// port on localhost where the server listens. Default: 6379 (Redis), 11211 (Memcached), 8080 (Nginx), 5432 (Postgres) or
	// 3306 (MySQL).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// credentials are where the exporter's user and password are found. Give it a user that may only read what is to be measured.
	// +optional
	Credentials *ServerCredentials `json:"credentials,omitempty"`

	// nginx says more about a server of type Nginx.
	// +optional
	Nginx *NginxServer `json:"nginx,omitempty"`

	// postgres says more about a server of type Postgres.
	// +optional
	Postgres *PostgresServer `json:"postgres,omitempty"`
}

// ServerType is the type of a well-known server.
type ServerType string

// The servers.
const (
	ServerRedis     ServerType = "Redis"
	ServerMemcached ServerType = "Memcached"
	ServerNginx     ServerType = "Nginx"
	ServerPostgres  ServerType = "Postgres"
	ServerMySQL     ServerType = "MySQL"
)

// ServerCredentials are a user and password in a Secret of the Pod's namespace.
type ServerCredentials struct {
	// secretName is the name of the Secret, in the Pod's namespace.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	SecretName string `json:"secretName"`

	// usernameKey is the Secret's key for the user. Redis needs none; Postgres and MySQL do.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	UsernameKey string `json:"usernameKey,omitempty"`

	// passwordKey is the Secret's key for the password. Default: password.
	// +optional
	// +default="password"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	PasswordKey string `json:"passwordKey,omitempty"`
}

// NginxServer says where nginx serves its status.
type NginxServer struct {
	// statusPath is the HTTP path with the directive stub_status. Default: /stub_status.
	// +optional
	// +default="/stub_status"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9._~-]*)+$`
	StatusPath string `json:"statusPath,omitempty"`
}

// PostgresServer says how the exporter connects to PostgreSQL.
type PostgresServer struct {
	// database to connect to. Default: postgres.
	// +optional
	// +default="postgres"
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	Database string `json:"database,omitempty"`

	// sslMode is disable, require, verify-ca or verify-full, as in libpq. Default: disable, for the connection stays within the
	// Pod.
	// +optional
	// +default="disable"
	// +kubebuilder:validation:Enum=disable;require;verify-ca;verify-full
	SSLMode string `json:"sslMode,omitempty"`
}
