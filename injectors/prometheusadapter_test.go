package injectors

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

func jsonAdapter(metrics ...v1alpha1.JSONMetric) *v1alpha1.PrometheusAdapter {
	for i := range metrics {
		if metrics[i].Type == "" {
			metrics[i].Type = v1alpha1.JSONMetricValue
		}
		if metrics[i].ValueType == "" {
			metrics[i].ValueType = v1alpha1.JSONValueUntyped
		}
	}
	return &v1alpha1.PrometheusAdapter{Path: "/metrics", JSON: &v1alpha1.JSONSource{
		URL: "http://localhost:8080/status?a=$(B)&c=d", Metrics: metrics,
	}}
}

func statsdAdapter(mappings ...v1alpha1.StatsDMapping) *v1alpha1.PrometheusAdapter {
	for i := range mappings {
		if mappings[i].MatchType == "" {
			mappings[i].MatchType = v1alpha1.StatsDMatchGlob
		}
		if mappings[i].Action == "" {
			mappings[i].Action = v1alpha1.StatsDMap
		}
	}
	return &v1alpha1.PrometheusAdapter{Path: "/metrics", StatsD: &v1alpha1.StatsDSource{Port: 9125, Mappings: mappings}}
}

func logsAdapter(programs ...v1alpha1.LogProgram) *v1alpha1.PrometheusAdapter {
	return &v1alpha1.PrometheusAdapter{Path: "/metrics", Logs: &v1alpha1.LogsSource{
		Directory: "/var/log/app", Files: []string{"*.log"}, SizeLimit: new(resource.MustParse("1Gi")), Programs: programs,
	}}
}

func serverAdapter(server v1alpha1.ServerSource) *v1alpha1.PrometheusAdapter {
	return &v1alpha1.PrometheusAdapter{Path: "/metrics", Server: &server}
}

// buildAdapter builds the Fragment for a Pod with one container, and fails on a problem.
func buildAdapter(t *testing.T, spec *v1alpha1.PrometheusAdapter) weave.Fragment {
	t.Helper()
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	if problems := prometheusAdapterInjector().Problems(adapterRequest(spec), pod); len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return Build(prometheusAdapterInjector(), adapterRequest(spec), HardeningFor(pod))
}

func adapterRequest(spec *v1alpha1.PrometheusAdapter) Request {
	pattern := &v1alpha1.Pattern{PrometheusAdapter: spec}
	return Request{
		Profile: "numbers", Pattern: pattern, Configuration: prometheusAdapterConfiguration(pattern), Images: DefaultImages(""),
	}
}

func secretEnv(name, secret, key string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: key,
	}}}
}

// started is what tells one exporter from another.
type started struct {
	Name, Image string
	Args        []string
	Env         []corev1.EnvVar
}

func TestPrometheusAdapterStarts(t *testing.T) {
	const proxyImage = "ghcr.io/pillion-dev/pillion:v0.1.0"
	proxy := func(port, upstream string) started {
		return started{Name: "pillion-numbers-proxy", Image: proxyImage, Args: []string{
			"metrics-proxy", "--listen-address=:" + port, "--path=/metrics", "--upstream=http://127.0.0.1:" + upstream,
		}}
	}
	credentials := &v1alpha1.ServerCredentials{SecretName: "db", UsernameKey: "user", PasswordKey: "password"}
	other := jsonAdapter(v1alpha1.JSONMetric{Name: "a", Path: "{.a}"})
	other.MetricsPort, other.Path, other.Image = 65000, "/app", "registry.example.com/json-exporter:v0.7.0"
	other.Env = []v1alpha1.EnvVar{{Name: "A", Value: "$(B)"}}

	tests := map[string]struct {
		spec *v1alpha1.PrometheusAdapter
		want []started
	}{
		"json_exporter on loopback and its proxy": {
			spec: jsonAdapter(v1alpha1.JSONMetric{Name: "a", Path: "{.a}"}),
			want: []started{
				{Name: "pillion-numbers", Image: "quay.io/prometheuscommunity/json-exporter:v0.7.0", Args: []string{
					"--web.listen-address=127.0.0.1:17979", "--config.file=/etc/pillion/json-exporter/config.yml",
				}},
				proxy("7979", "17979/probe?module=default&target=http%3A%2F%2Flocalhost%3A8080%2Fstatus%3Fa%3D%24%28B%29%26c%3Dd"),
			},
		},
		"json_exporter with another port, path, image and variable": {
			spec: other,
			want: []started{
				{
					Name: "pillion-numbers", Image: "registry.example.com/json-exporter:v0.7.0",
					Args: []string{"--web.listen-address=127.0.0.1:55000", "--config.file=/etc/pillion/json-exporter/config.yml"},
					Env:  []corev1.EnvVar{{Name: "A", Value: "$$(B)"}},
				},
				{Name: "pillion-numbers-proxy", Image: proxyImage, Args: []string{
					"metrics-proxy", "--listen-address=:65000", "--path=/app", "--upstream=http://127.0.0.1:55000/probe?" +
						"module=default&target=http%3A%2F%2Flocalhost%3A8080%2Fstatus%3Fa%3D%24%28B%29%26c%3Dd",
				}},
			},
		},
		"statsd_exporter": {
			spec: statsdAdapter(),
			want: []started{{Name: "pillion-numbers", Image: "quay.io/prometheus/statsd-exporter:v0.31.0", Args: []string{
				"--web.listen-address=:9102", "--web.telemetry-path=/metrics", "--statsd.listen-udp=127.0.0.1:9125",
				"--statsd.listen-tcp=127.0.0.1:9125", "--statsd.mapping-config=/etc/pillion/statsd-exporter/mapping.yml",
			}}},
		},
		"mtail": {
			spec: logsAdapter(v1alpha1.LogProgram{Name: "lines", Program: "counter lines\n/$/ {\n  lines++\n}"}),
			want: []started{{Name: "pillion-numbers", Image: "ghcr.io/pillion-dev/mtail:3.0.9", Args: []string{
				"--progs=/etc/pillion/mtail", "--port=3903", "--logtostderr", "--logs=/logs/*.log",
			}}},
		},
		"redis_exporter with a password and its proxy": {
			spec: serverAdapter(v1alpha1.ServerSource{
				Type: v1alpha1.ServerRedis, Credentials: &v1alpha1.ServerCredentials{SecretName: "db", PasswordKey: "password"},
			}),
			want: []started{
				{
					Name: "pillion-numbers", Image: "docker.io/oliver006/redis_exporter:v1.80.1",
					Args: []string{"--redis.addr=redis://localhost:6379", "--web.listen-address=127.0.0.1:19121"},
					Env:  []corev1.EnvVar{secretEnv("REDIS_PASSWORD", "db", "password")},
				},
				proxy("9121", "19121/metrics"),
			},
		},
		"memcached_exporter at another port and its proxy": {
			spec: serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerMemcached, Port: 11212}),
			want: []started{
				{Name: "pillion-numbers", Image: "quay.io/prometheus/memcached-exporter:v0.15.3", Args: []string{
					"--memcached.address=localhost:11212", "--web.listen-address=127.0.0.1:19150",
				}},
				proxy("9150", "19150/metrics"),
			},
		},
		"nginx-prometheus-exporter, which asks nothing else, without a proxy": {
			spec: serverAdapter(v1alpha1.ServerSource{
				Type: v1alpha1.ServerNginx, Nginx: &v1alpha1.NginxServer{StatusPath: "/status"},
			}),
			want: []started{{Name: "pillion-numbers", Image: "docker.io/nginx/nginx-prometheus-exporter:1.5.1", Args: []string{
				"--nginx.scrape-uri=http://localhost:8080/status", "--web.listen-address=:9113", "--web.telemetry-path=/metrics",
			}}},
		},
		"postgres_exporter and its proxy": {
			spec: serverAdapter(v1alpha1.ServerSource{
				Type: v1alpha1.ServerPostgres, Credentials: credentials,
				Postgres: &v1alpha1.PostgresServer{Database: "shop", SSLMode: "require"},
			}),
			want: []started{
				{
					Name: "pillion-numbers", Image: "quay.io/prometheuscommunity/postgres-exporter:v0.18.1",
					Args: []string{"--web.listen-address=127.0.0.1:19187"},
					Env: []corev1.EnvVar{
						secretEnv("DATA_SOURCE_USER", "db", "user"), secretEnv("DATA_SOURCE_PASS", "db", "password"),
						{Name: "DATA_SOURCE_URI", Value: "localhost:5432/shop?sslmode=require"},
					},
				},
				proxy("9187", "19187/metrics"),
			},
		},
		"mysqld_exporter and its proxy": {
			spec: serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerMySQL, Credentials: credentials}),
			want: []started{
				{
					Name: "pillion-numbers", Image: "quay.io/prometheus/mysqld-exporter:v0.18.0",
					Args: []string{
						"--mysqld.address=localhost:3306", "--mysqld.username=$(MYSQLD_EXPORTER_USERNAME)",
						"--web.listen-address=127.0.0.1:19104",
					},
					Env: []corev1.EnvVar{
						secretEnv("MYSQLD_EXPORTER_USERNAME", "db", "user"), secretEnv("MYSQLD_EXPORTER_PASSWORD", "db", "password"),
					},
				},
				proxy("9104", "19104/metrics"),
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []started
			for _, container := range buildAdapter(t, test.spec).InitContainers {
				got = append(got, started{container.Name, container.Image, container.Args, container.Env})
				if container.RestartPolicy == nil || *container.RestartPolicy != corev1.ContainerRestartPolicyAlways {
					t.Errorf("%s is no native sidecar", container.Name)
				}
				if waits := container.Lifecycle != nil; waits != (test.spec.StatsD != nil) {
					t.Errorf("the app waits for %s: %t", container.Name, waits)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("containers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrometheusAdapterListens(t *testing.T) {
	tests := map[string]struct {
		spec *v1alpha1.PrometheusAdapter
		want []weave.Port
	}{
		"behind a proxy, also on loopback": {
			spec: jsonAdapter(),
			want: []weave.Port{{Container: "pillion-numbers", Port: 17979}, {Container: "pillion-numbers-proxy", Port: 7979}},
		},
		"for StatsD, also over UDP and TCP": {
			spec: statsdAdapter(),
			want: []weave.Port{
				{Container: "pillion-numbers", Port: 9102},
				{Container: "pillion-numbers", Port: 9125, Protocol: corev1.ProtocolUDP},
				{Container: "pillion-numbers", Port: 9125, Protocol: corev1.ProtocolTCP},
			},
		},
		"for logs, on one port": {
			spec: logsAdapter(), want: []weave.Port{{Container: "pillion-numbers", Port: 3903}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fragment := buildAdapter(t, test.spec)
			if diff := cmp.Diff(test.want, fragment.Ports); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			last := fragment.InitContainers[len(fragment.InitContainers)-1]
			declared := []corev1.ContainerPort{{Name: "metrics", ContainerPort: metricsPort(test.spec), Protocol: corev1.ProtocolTCP}}
			if diff := cmp.Diff(declared, last.Ports); diff != "" {
				t.Errorf("ports that %s declares (-want +got):\n%s", last.Name, diff)
			}
		})
	}
}

func TestPrometheusAdapterGivesTheApp(t *testing.T) {
	statsd := statsdAdapter()
	statsd.StatsD.Port, statsd.Containers = 8125, []string{"app"}
	tests := map[string]struct {
		spec *v1alpha1.PrometheusAdapter
		want []weave.Addition
	}{
		"nothing for json": {spec: jsonAdapter()},
		"the address for statsd": {spec: statsd, want: []weave.Addition{{
			Containers: []string{"app"},
			Env:        []corev1.EnvVar{{Name: "STATSD_HOST", Value: "127.0.0.1"}, {Name: "STATSD_PORT", Value: "8125"}},
		}}},
		"the directory for logs": {spec: logsAdapter(), want: []weave.Addition{{
			VolumeMounts: []corev1.VolumeMount{{Name: "pillion-numbers-logs", MountPath: "/var/log/app"}},
		}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, buildAdapter(t, test.spec).Additions); diff != "" {
				t.Errorf("additions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrometheusAdapterWaitsForStatsD(t *testing.T) {
	got := buildAdapter(t, statsdAdapter()).InitContainers[0].Lifecycle
	want := awaited(time.Minute, "grep", "-qE", "(0100007F|7F000001):23A5 0+:0+ ", "/proc/net/udp")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lifecycle (-want +got):\n%s", diff)
	}
}

func TestPrometheusAdapterMountsLogsReadOnly(t *testing.T) {
	programs := []v1alpha1.LogProgram{{Name: "a", Program: "x"}, {Name: "b", Program: "y\n"}}
	fragment := buildAdapter(t, logsAdapter(programs...))
	wantMounts := []corev1.VolumeMount{
		{Name: "pillion-numbers-config", MountPath: "/etc/pillion/mtail", ReadOnly: true},
		{Name: "pillion-numbers-logs", MountPath: "/logs", ReadOnly: true},
		{Name: "pillion-numbers-no-token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
	}
	if diff := cmp.Diff(wantMounts, fragment.InitContainers[0].VolumeMounts); diff != "" {
		t.Errorf("mounts of mtail (-want +got):\n%s", diff)
	}
	if volume := fragment.Volumes[0]; volume.Name != "pillion-numbers-logs" || volume.EmptyDir.SizeLimit.String() != "1Gi" {
		t.Errorf("volume of the logs: %+v", volume)
	}
	wantAnnotations := map[string]string{
		"pillion.dev/config.numbers": "x\n", "pillion.dev/config.numbers.2": "y\n",
		"prometheus.io/scrape": "true", "prometheus.io/port": "3903", "prometheus.io/path": "/metrics",
	}
	if diff := cmp.Diff(wantAnnotations, fragment.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

func TestPrometheusAdapterWithoutScrapeAnnotations(t *testing.T) {
	spec := serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerRedis})
	spec.ScrapeAnnotations = new(false)
	if got := buildAdapter(t, spec).Annotations; len(got) > 0 {
		t.Errorf("annotations %v, want none", got)
	}
}

func TestPrometheusAdapterConfigures(t *testing.T) {
	withHeader := jsonAdapter(
		v1alpha1.JSONMetric{
			Name: "queue_length", Path: "{.queue.length}", ValueType: v1alpha1.JSONValueGauge, Help: "Jobs: \"waiting\"\n# now",
			Labels: map[string]v1alpha1.JSONPath{"env": "beta", "host": "{.host}"}, EpochTimestamp: "{.time}",
		},
		v1alpha1.JSONMetric{
			Name: "worker", Path: "{.workers[*]}", Type: v1alpha1.JSONMetricObject,
			Values: map[string]v1alpha1.JSONPath{"up": "1", "busy": "{.busy}"},
		},
	)
	withHeader.JSON.Headers = []v1alpha1.HTTPHeader{{Name: "X-Tenant", Value: "no"}}

	withDefaults := statsdAdapter(
		v1alpha1.StatsDMapping{
			Match: "app.*.*.seconds", Name: "app_${1}_seconds", Labels: map[string]v1alpha1.StatsDLabel{"route": "${2}"},
			Help: "How long", ObserverType: v1alpha1.ObserverHistogram, Buckets: []v1alpha1.Decimal{"0.1", "1", "10.0"},
			TTL: &metav1.Duration{Duration: 90 * time.Second}, MatchMetricType: v1alpha1.StatsDObserver,
		},
		v1alpha1.StatsDMapping{Match: `debug\..*`, MatchType: v1alpha1.StatsDMatchRegex, Action: v1alpha1.StatsDDrop},
	)
	withDefaults.StatsD.Defaults = v1alpha1.StatsDDefaults{
		ObserverType: v1alpha1.ObserverSummary, TTL: &metav1.Duration{Duration: time.Hour},
		Quantiles: []v1alpha1.Quantile{{Quantile: "0.99", Error: "0.001"}}, Buckets: []v1alpha1.Decimal{"1", "2"},
	}
	tests := map[string]struct {
		spec *v1alpha1.PrometheusAdapter
		want string
	}{
		"json_exporter": {spec: withHeader, want: `modules:
  default:
    headers:
      X-Tenant: "no"
    http_client_config:
      follow_redirects: false
    metrics:
    - epochtimestamp: '{.time}'
      help: |-
        Jobs: "waiting"
        # now
      labels:
        env: beta
        host: '{.host}'
      name: queue_length
      path: '{.queue.length}'
      type: value
      valuetype: gauge
    - name: worker
      path: '{.workers[*]}'
      type: object
      values:
        busy: '{.busy}'
        up: "1"
      valuetype: untyped
`},
		"statsd_exporter": {spec: withDefaults, want: `defaults:
  histogram_options:
    buckets:
    - 1
    - 2
  observer_type: summary
  summary_options:
    quantiles:
    - error: 0.001
      quantile: 0.99
  ttl: 1h0m0s
mappings:
- action: map
  help: How long
  histogram_options:
    buckets:
    - 0.1
    - 1
    - 10
  labels:
    route: ${2}
  match: app.*.*.seconds
  match_metric_type: observer
  match_type: glob
  name: app_${1}_seconds
  observer_type: histogram
  ttl: 1m30s
- action: drop
  match: debug\..*
  match_type: regex
  name: dropped
`},
		"statsd_exporter with nothing said": {spec: statsdAdapter(), want: "{}\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := buildAdapter(t, test.spec).Annotations["pillion.dev/config.numbers"]
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
			if errs := validateAdapter(test.spec); len(errs) > 0 {
				t.Errorf("Validate() = %v, want nothing", errs)
			}
		})
	}
}

func TestPrometheusAdapterRefusesPods(t *testing.T) {
	tests := map[string]struct {
		pod  corev1.PodSpec
		want []Problem
	}{
		"on the host's network": {
			pod: corev1.PodSpec{HostNetwork: true},
			want: []Problem{{
				Reason: ReasonHostNetwork,
				Message: `profile "numbers" would open port 9121 on the node, for the Pod uses the host's network: ` +
					`remove hostNetwork from the Pod, or do not ask for the profile`,
			}},
		},
		"with a port named metrics": {
			pod: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {Name: "metrics", ContainerPort: 81}}},
			}},
			want: []Problem{{
				Reason: ReasonMetricsPortTaken,
				Message: `container "app" has a port named "metrics" already (81), the name by which the metrics of profile ` +
					`"numbers" would be found: scrape that one, or give it another name`,
			}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerRedis})
			got := prometheusAdapterInjector().Problems(adapterRequest(spec), &corev1.Pod{Spec: test.pod})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func validateAdapter(spec *v1alpha1.PrometheusAdapter) field.ErrorList {
	pattern := &v1alpha1.Pattern{PrometheusAdapter: spec}
	return prometheusAdapterInjector().Validate(pattern, field.NewPath("spec", "prometheusAdapter"))
}

func TestPrometheusAdapterValidates(t *testing.T) {
	value := func(name string, path v1alpha1.JSONPath) v1alpha1.JSONMetric {
		return v1alpha1.JSONMetric{Name: name, Path: path}
	}
	labeled := func(labels ...string) v1alpha1.JSONMetric {
		metric := value("a", "{.a}")
		metric.Labels = map[string]v1alpha1.JSONPath{}
		for i := 0; i < len(labels); i += 2 {
			metric.Labels[labels[i]] = v1alpha1.JSONPath(labels[i+1])
		}
		return metric
	}
	object := func(path v1alpha1.JSONPath, key string, value v1alpha1.JSONPath) v1alpha1.JSONMetric {
		return v1alpha1.JSONMetric{
			Name: "a", Type: v1alpha1.JSONMetricObject, Path: path, Values: map[string]v1alpha1.JSONPath{key: value},
		}
	}
	mapping := func(match, name string, labels ...string) v1alpha1.StatsDMapping {
		m := v1alpha1.StatsDMapping{Match: match, Name: name, Labels: map[string]v1alpha1.StatsDLabel{}}
		for i := 0; i < len(labels); i += 2 {
			m.Labels[labels[i]] = v1alpha1.StatsDLabel(labels[i+1])
		}
		return m
	}
	regex := func(m v1alpha1.StatsDMapping) v1alpha1.StatsDMapping {
		m.MatchType = v1alpha1.StatsDMatchRegex
		return m
	}
	histogram := func(m v1alpha1.StatsDMapping, buckets ...v1alpha1.Decimal) v1alpha1.StatsDMapping {
		m.Buckets = buckets
		if buckets == nil {
			m.ObserverType = v1alpha1.ObserverHistogram
		}
		return m
	}
	withURL := func(url string) *v1alpha1.PrometheusAdapter {
		spec := jsonAdapter(value("a", "{.a}"))
		spec.JSON.URL = url
		return spec
	}
	at := func(metricsPort int32, url string) *v1alpha1.PrometheusAdapter {
		spec := withURL(url)
		spec.MetricsPort = metricsPort
		return spec
	}
	secret := jsonAdapter(value("a", "{.a}"))
	secret.JSON.Headers = []v1alpha1.HTTPHeader{{Name: "X-Tenant"}, {Name: "authorization"}}
	files := logsAdapter()
	files.Logs.Files = []string{"*.log", "[a-"}
	ports := statsdAdapter()
	ports.StatsD.Port = 9102
	atServer := serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerRedis, Port: 9121})
	atLoopback := serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerMemcached})
	atLoopback.MetricsPort = 1211
	defaults := statsdAdapter()
	defaults.StatsD.Defaults.Buckets = []v1alpha1.Decimal{"1", "1.0"}
	differentHelp, differentType := value("a", "{.b}"), value("a", "{.b}")
	differentHelp.Help, differentType.ValueType = "b", v1alpha1.JSONValueGauge
	timed := value("a", "{.a}")
	timed.EpochTimestamp = ".time"

	tests := map[string]struct {
		spec *v1alpha1.PrometheusAdapter
		// want are parts of the errors, in their order. Nil: the spec is valid.
		want []string
	}{
		"paths of many forms are valid": {spec: jsonAdapter(
			value("a", "{.a}"), value("b", "{ .b[0].c }"), value("c", "{.d[?(@.name=='x')].value}"), value("d", "1"), value("e", "true"),
			value("f", "{.up}.5"), object("{.workers[*]}", "busy", "{.busy}"),
		)},
		"a path that does not parse": {
			spec: jsonAdapter(value("a", "{.a[}")),
			want: []string{"json.metrics[0].path"},
		},
		"a path without braces":      {spec: jsonAdapter(value("a", ".a.b")), want: []string{"write {.a.b}"}},
		"a timestamp without braces": {spec: jsonAdapter(timed), want: []string{"metrics[0].epochTimestamp"}},
		"a path of objects without braces": {
			spec: jsonAdapter(object(".a", "b", "1")),
			want: []string{"metrics[0].path"},
		},
		"a path of objects with text behind": {
			spec: jsonAdapter(object("{.a}x", "b", "1")),
			want: []string{"metrics[0].path"},
		},
		"a path of objects in a loop": {
			spec: jsonAdapter(object("{range .a}{.b}{end}", "b", "1")),
			want: []string{"one expression"},
		},
		"a path of objects that does not parse": {
			spec: jsonAdapter(object("{.a", "b", "1")),
			want: []string{"metrics[0].path"},
		},
		"a value without braces": {
			spec: jsonAdapter(object("{.a}", "b", ".b")),
			want: []string{"values[b]"},
		},
		"a value's key with a dash": {
			spec: jsonAdapter(object("{.a}", "b-c", "1")),
			want: []string{"values[b-c]"},
		},
		"a label's name with a dash": {spec: jsonAdapter(labeled("a-b", "x")), want: []string{"labels[a-b]"}},
		"a label's name that is kept": {
			spec: jsonAdapter(labeled("__name__", "x")),
			want: []string{"labels[__name__]"},
		},
		"a label's path that does not parse": {spec: jsonAdapter(labeled("l", "{.a")), want: []string{"labels[l]"}},
		"a header with a secret":             {spec: secret, want: []string{"json.headers[1].name"}},
		"a port that cannot be dialed":       {spec: withURL("http://localhost:70000/"), want: []string{"json.url"}},
		"an escape in a url that is none":    {spec: withURL("http://localhost/%zz"), want: []string{"json.url"}},

		"a url without a port is valid":           {spec: withURL("http://localhost/status")},
		"a url next to the adapter's is valid":    {spec: withURL("http://localhost:7980/metrics")},
		"a usual port that another one has freed": {spec: at(65000, "http://127.0.0.1:7979/")},
		"a url at the adapter's own port": {
			spec: withURL("http://localhost:7979/metrics"),
			want: []string{`json.url: Invalid value: "http://localhost:7979/metrics": port 7979 is the adapter's own`},
		},
		"a url at the adapter's own port, with zeros": {
			spec: withURL("http://[::1]:07979/"),
			want: []string{"port 7979 is the adapter's own"},
		},
		"a url at the exporter's port": {
			spec: withURL("http://127.0.0.1:17979/probe"),
			want: []string{"json.url: Invalid value: \"http://127.0.0.1:17979/probe\": port 17979 is where the adapter's exporter listens"},
		},
		"a url at the chosen metricsPort": {
			spec: at(8080, "http://localhost:8080/status"),
			want: []string{"port 8080 is the adapter's own"},
		},
		"a url below the chosen metricsPort": {
			spec: at(65000, "http://localhost:55000/status"),
			want: []string{"port 55000 is where the adapter's exporter listens, for metricsPort is 65000"},
		},

		"a metric twice with labels that differ is valid": {spec: jsonAdapter(labeled("l", "{.a}"), labeled("l", "{.b}"))},
		"a metric twice": {
			spec: jsonAdapter(value("a", "{.a}"), value("a", "{.b}")),
			want: []string{"rename one"},
		},
		"a metric twice with other help": {
			spec: jsonAdapter(value("a", "{.a}"), differentHelp),
			want: []string{"same help"},
		},
		"a metric twice with another type": {
			spec: jsonAdapter(value("a", "{.a}"), differentType),
			want: []string{"same valueType"},
		},
		"a metric twice with other labels": {
			spec: jsonAdapter(labeled("l", "x"), labeled("m", "x")),
			want: []string{"same names"},
		},
		"a metric that an object's value is named": {
			spec: jsonAdapter(labeled("l", "x"), value("a_b", "1"), object("{.a}", "b", "1")),
			want: []string{"metrics[1]"},
		},

		"mappings of many forms are valid": {spec: statsdAdapter(
			mapping("a.*.b-c.*", "a_${2}_$1", "route", "${1}", "host", "x$2"),
			regex(mapping(`^b\.(?P<name>\w+)\.(\d+)$`, "b_${2}_total", "name", "${name}", "cost", "$$")),
			histogram(mapping("c", "c")), mapping("d.*", "d", "quantity", "100%"),
		)},
		"a glob that is none": {
			spec: statsdAdapter(mapping("a.b*", "a")),
			want: []string{"statsd.mappings[0]: Invalid value: \"a.b*\": invalid match"},
		},
		"a regular expression that is none": {
			spec: statsdAdapter(regex(mapping("(", "a"))),
			want: []string{"missing closing )"},
		},
		"a metric's name with a dash": {
			spec: statsdAdapter(mapping("a", "a-b")),
			want: []string{"metric name 'a-b'"},
		},
		"a reference beyond the captures": {
			spec: statsdAdapter(mapping("a.*", "a", "route", "${2}")),
			want: []string{"labels[route]: Invalid value: \"${2}\": ${2} refers to more than match has: it finds 1"},
		},
		"a reference that runs on": {
			spec: statsdAdapter(mapping("a.*", "$1_total")),
			want: []string{"write ${1}"},
		},
		"a group that is not named": {
			spec: statsdAdapter(regex(mapping("(a)", "a", "route", "${name}"))),
			want: []string{"refers to no group"},
		},
		"a percent sign beside a reference": {
			spec: statsdAdapter(mapping("a.*", "a", "route", "$1%")),
			want: []string{"garbled"},
		},
		"a label's name of one letter": {
			spec: statsdAdapter(mapping("a", "a", "l", "x")),
			want: []string{"labels[l]"},
		},
		"a label le of a histogram": {
			spec: statsdAdapter(histogram(mapping("a", "a", "le", "x"))),
			want: []string{"labels[le]"},
		},
		"a label quantile of a summary": {
			spec: statsdAdapter(mapping("a", "a", "quantile", "x")),
			want: []string{"labels[quantile]"},
		},
		"buckets that do not rise": {
			spec: statsdAdapter(histogram(mapping("a", "a"), "2", "1")),
			want: []string{"mappings[0].buckets", "observerType"},
		},
		"default buckets that do not rise": {spec: defaults, want: []string{"statsd.defaults.buckets"}},
		"the same match twice": {
			spec: statsdAdapter(mapping("a", "a"), mapping("a", "b")),
			want: []string{"mappings[1].match"},
		},
		"the port of the metrics": {spec: ports, want: []string{"statsd.port"}},

		"a program that mtail takes is valid": {
			spec: logsAdapter(v1alpha1.LogProgram{Name: "a", Program: "counter a\n/x/ {\n  a++\n}\na = 1"}),
		},
		"programs that mtail refuses": {
			spec: logsAdapter(
				v1alpha1.LogProgram{Name: "a", Program: "stop"}, v1alpha1.LogProgram{Name: "b", Program: "\n/x/ {\n  b++\n}\n"},
			),
			want: []string{"logs.programs[1].program: Invalid value: \"b\": b.mtail, line 3: b is not declared"},
		},
		"a program with many problems reports a few": {
			spec: logsAdapter(v1alpha1.LogProgram{Name: "a", Program: strings.Repeat("a++\n", 9)}),
			want: []string{"line 1", "line 2", "line 3", "line 4", "line 5"},
		},
		"a glob of files that is none": {spec: files, want: []string{"logs.files[1]"}},

		"a server's default port is valid": {spec: serverAdapter(v1alpha1.ServerSource{Type: v1alpha1.ServerNginx})},
		"the server's port for metrics":    {spec: atServer, want: []string{"is the port of the server itself"}},
		"the server's port on loopback":    {spec: atLoopback, want: []string{"would make the exporter listen on 11211"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			errs := validateAdapter(test.spec)
			if len(errs) != len(test.want) {
				t.Fatalf("Validate() = %v, want %d errors", errs, len(test.want))
			}
			for i, err := range errs {
				if !strings.HasPrefix(err.Field, "spec.prometheusAdapter.") || !strings.Contains(err.Error(), test.want[i]) {
					t.Errorf("error %d is %q, want it to say %q", i, err, test.want[i])
				}
			}
		})
	}
}
