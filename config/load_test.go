package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func defaults() Config {
	return Config{
		LogLevel:           "info",
		LogFormat:          "json",
		Namespace:          "pillion-system",
		ExcludedNamespaces: []string{"kube-system", "kube-public", "kube-node-lease", "cert-manager", "pillion-system"},
		LeadingContainers: []string{
			"istio-init", "istio-validation", "istio-proxy", "linkerd-init", "linkerd-network-validator", "linkerd-proxy",
			"kuma-init", "kuma-validation", "kuma-sidecar", "consul-connect-inject-init", "consul-dataplane",
		},
		PodSecurity: PodSecurity{
			Mode: "Deny", Enforce: "privileged", EnforceVersion: "latest",
			ExemptUsernames: []string{}, ExemptNamespaces: []string{}, ExemptRuntimeClasses: []string{},
		},
		WebhookConfiguration: "pillion",
		Webhook: Webhook{
			ListenAddress: ":9443", HealthAddress: ":8081", MetricsAddress: ":8083",
			CertificateSecret: "pillion-webhook-tls", MaxBodyBytes: 7 << 20, ClientNames: []string{},
			MaxRequestsInFlight: 600, MaxBytesInFlight: 28 << 20, MaxConnections: 1024,
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 15 * time.Second,
			IdleTimeout: 2 * time.Minute, LiveReadTimeout: time.Second,
			DrainDelay: 5 * time.Second, ShutdownTimeout: 10 * time.Second,
		},
		Controller: Controller{
			HealthAddress: ":8082", MetricsAddress: ":8084", LeaderElection: true,
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, SelfCheckInterval: time.Minute,
			DefaultProfiles: true,
			Service:         Service{Name: "pillion-webhook", Port: 443},
		},
		Certs: Certs{Mode: "auto", CASecret: "pillion-ca", CALifetime: 365 * 24 * time.Hour, LeafLifetime: 7 * 24 * time.Hour, Settle: 2 * time.Minute},
	}
}

// given are the sources of a configuration. The file is called config.yaml.
type given struct {
	file    string
	environ []string
	flags   []string
}

func (g given) load(t *testing.T) (Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("pillion", pflag.ContinueOnError)
	AddFlags(flags, Cluster, Logging, Decisions, WebhookServer, ControllerManager)
	if err := flags.Parse(g.flags); err != nil {
		t.Fatalf("flags: %v", err)
	}
	if g.file == "" {
		return Load(flags, g.environ)
	}
	return load(flags, g.environ, "config.yaml", []byte(g.file), nil)
}

func TestLoad(t *testing.T) {
	tests := map[string]struct {
		given given
		want  func(c *Config)
	}{
		"nothing given: the defaults": {want: func(*Config) {}},
		"a file overrides defaults, in sections and lists": {
			given: given{file: `
# a comment
logLevel: debug
excludedNamespaces: [kube-system]
leadingContainers: []
images:
  registry: registry.example.com:5000/mirror
podSecurity:
  mode: Warn
  enforce: baseline
  enforceVersion: v1.33
  exemptNamespaces: [infra]
webhook:
  listenAddress: "127.0.0.1:9443"
  metricsAddress: none
  maxBodyBytes: 1048576
  liveReadTimeout: 1.5s
  drainDelay: 0s
controller:
  leaderElection: false
  service: other:8443
`},
			want: func(c *Config) {
				c.LogLevel = "debug"
				c.ExcludedNamespaces = []string{"kube-system", "pillion-system"}
				c.LeadingContainers = []string{}
				c.Images.Registry = "registry.example.com:5000/mirror"
				c.PodSecurity.Mode, c.PodSecurity.Enforce, c.PodSecurity.EnforceVersion = "Warn", "baseline", "v1.33"
				c.PodSecurity.ExemptNamespaces = []string{"infra"}
				c.Webhook.ListenAddress, c.Webhook.MetricsAddress = "127.0.0.1:9443", ""
				c.Webhook.MaxBodyBytes, c.Webhook.LiveReadTimeout, c.Webhook.DrainDelay = 1<<20, 1500*time.Millisecond, 0
				c.Controller.LeaderElection, c.Controller.Service = false, Service{Name: "other", Port: 8443}
			},
		},
		"the environment overrides the file, flags override both, value by value": {
			given: given{
				file: "logLevel: debug\nlogFormat: text\nnamespace: a\nwebhook: {drainDelay: 1s, idleTimeout: 1s, readTimeout: 6s}",
				environ: []string{
					"PILLION_LOG_FORMAT=json", "PILLION_NAMESPACE=b", "PILLION_WEBHOOK_DRAIN_DELAY=2s", "HOME=/", "PILLIONS=",
					"PILLION_EXCLUDED_NAMESPACES=x,b", "PILLION_CONTROLLER_LEADER_ELECTION=false",
				},
				flags: []string{"--namespace=c", "--webhook-idle-timeout=3s"},
			},
			want: func(c *Config) {
				c.LogLevel, c.LogFormat, c.Namespace = "debug", "json", "c"
				c.ExcludedNamespaces = []string{"x", "b", "c"}
				c.Webhook.DrainDelay, c.Webhook.IdleTimeout, c.Webhook.ReadTimeout = 2*time.Second, 3*time.Second, 6*time.Second
				c.Controller.LeaderElection = false
			},
		},
		"leader election has times of its own": {
			given: given{file: "controller: {leaseDuration: 30s, renewDeadline: 20s, retryPeriod: 1.5s, selfCheckInterval: 5m}"},
			want: func(c *Config) {
				c.Controller.LeaseDuration, c.Controller.RenewDeadline = 30*time.Second, 20*time.Second
				c.Controller.RetryPeriod, c.Controller.SelfCheckInterval = 1500*time.Millisecond, 5*time.Minute
			},
		},
		"no self-check, by a word": {
			given: given{environ: []string{"PILLION_CONTROLLER_SELF_CHECK_INTERVAL=none"}},
			want:  func(c *Config) { c.Controller.SelfCheckInterval = 0 },
		},
		"no self-check, by a number in the file": {
			given: given{file: "controller: {selfCheckInterval: 0}"},
			want:  func(c *Config) { c.Controller.SelfCheckInterval = 0 },
		},
		"no self-check, by a flag": {
			given: given{file: "controller: {selfCheckInterval: 5m}", flags: []string{"--controller-self-check-interval=0s"}},
			want:  func(c *Config) { c.Controller.SelfCheckInterval = 0 },
		},
		"no default profiles": {
			given: given{file: "controller: {defaultProfiles: true}", environ: []string{"PILLION_CONTROLLER_DEFAULT_PROFILES=false"}},
			want:  func(c *Config) { c.Controller.DefaultProfiles = false },
		},
		"flags of a list add up, a bare bool is true": {
			given: given{
				file: "controller: {leaderElection: false}",
				flags: []string{
					"--excluded-namespaces=a,b", "--excluded-namespaces", "pillion-system", "--controller-leader-election",
				},
			},
			want: func(c *Config) { c.ExcludedNamespaces = []string{"a", "b", "pillion-system"} },
		},
		"a URL replaces the default Service": {
			given: given{environ: []string{"PILLION_CONTROLLER_WEBHOOK_URL=https://127.0.0.1:9443"}},
			want: func(c *Config) {
				c.Controller.WebhookURL, c.Controller.Service = "https://127.0.0.1:9443", Service{}
			},
		},
		"variables of Services named pillion are passed over": {
			given: given{environ: []string{
				"PILLION_WEBHOOK_SERVICE_HOST=10.0.0.1", "PILLION_WEBHOOK_SERVICE_PORT=443", "PILLION_WEBHOOK_SERVICE_PORT_HTTPS=443",
				"PILLION_WEBHOOK_PORT=tcp://10.0.0.1:443", "PILLION_WEBHOOK_PORT_443_TCP=tcp://10.0.0.1:443",
				"PILLION_WEBHOOK_PORT_443_TCP_PROTO=tcp", "PILLION_WEBHOOK_PORT_443_TCP_PORT=443",
				"PILLION_WEBHOOK_PORT_443_TCP_ADDR=10.0.0.1", "PILLION_PORT=tcp://10.0.0.1:443",
			}},
			want: func(*Config) {},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := defaults()
			test.want(&want)
			got, err := test.given.load(t)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := got.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := map[string]struct {
		given given
		want  []string
	}{
		"an empty file": {
			given: given{file: "# nothing\n"},
			want:  []string{`config.yaml: is empty; write a key such as logLevel, or name no file`},
		},
		"a file that is null": {
			given: given{file: "---\n"},
			want:  []string{`config.yaml:2: is empty; write keys and values here, such as "namespace: pillion-system"`},
		},
		"a file that is a list": {
			given: given{file: "- a\n"},
			want:  []string{`config.yaml:1: is a list; write keys and values here, such as "namespace: pillion-system"`},
		},
		"a file that is no YAML": {
			given: given{file: "logLevel: info\n\tnamespace: x\n"},
			want:  []string{`config.yaml: is no YAML: line 2: found a tab character that violates indentation`},
		},
		"a second document": {
			given: given{file: "logLevel: info\n---\nlogLevel: debug\n"},
			want:  []string{`config.yaml: holds more than one document; only the first would be read`},
		},
		"unknown keys, misspelled ones with the right spelling": {
			given: given{file: "nosuch: 1\nlog-level: info\nWebhook: {}\nwebhook:\n  listenaddress: :9443\n  nosuch: {a: 1}\n" +
				"webhook.drainDelay: 1s\n1: x\n<<: {a: 1}\n"},
			want: []string{
				`config.yaml:1: nosuch: unknown key`,
				`config.yaml:2: log-level: unknown key, did you mean logLevel?`,
				`config.yaml:3: Webhook: unknown key, did you mean webhook?`,
				`config.yaml:4: webhook: is given twice, in line 3 too`,
				`config.yaml:7: webhook.drainDelay: unknown key; write one key below the other rather than a dot`,
				`config.yaml:8: a key that is the number 1; keys are words`,
				`config.yaml:9: a key that is of the type !!merge; keys are words`,
			},
		},
		"unknown keys in a section": {
			given: given{file: "webhook:\n  listenaddress: :9443\n  nosuch: {a: 1}\n"},
			want: []string{
				`config.yaml:2: webhook.listenaddress: unknown key, did you mean webhook.listenAddress?`,
				`config.yaml:3: webhook.nosuch: unknown key`,
			},
		},
		"keys given twice, in other case too": {
			given: given{file: "logLevel: info\nlogLevel: info\nloglevel: debug\nwebhook:\n  drainDelay: 1s\n  draindelay: 1s\n"},
			want: []string{
				`config.yaml:2: logLevel: is given twice, in line 1 too`,
				`config.yaml:3: loglevel: is given twice, in line 1 too`,
				`config.yaml:6: webhook.draindelay: is given twice, in line 5 too`,
			},
		},
		"empty values, wherever they are": {
			given: given{
				file:    "kubeconfig:\nlogLevel: \"\"\nlogFormat: ~\nexcludedNamespaces: [a, '']\nwebhook:\n",
				environ: []string{"PILLION_NAMESPACE=", "PILLION_KUBECONFIG=", "PILLION_LEADING_CONTAINERS=a,,b"},
				flags:   []string{"--images-registry=", "--excluded-namespaces=a,"},
			},
			want: []string{
				`config.yaml:1: kubeconfig: is empty; give it a value, or leave it out`,
				`config.yaml:2: logLevel: is empty; give it a value, or leave it out`,
				`config.yaml:3: logFormat: is empty; give it a value, or leave it out`,
				`config.yaml:4: excludedNamespaces: line 4: an empty item; leave it out`,
				`config.yaml:5: webhook: is empty; write keys below it, or leave it out`,
				`PILLION_NAMESPACE: namespace: is empty; give it a value, or unset it`,
				`PILLION_KUBECONFIG: kubeconfig: is empty; give it a value, or unset it`,
				`PILLION_LEADING_CONTAINERS: leadingContainers: "a,,b" has an empty item; separate the items by one comma each`,
				`--excluded-namespaces: excludedNamespaces: "a," has an empty item; separate the items by one comma each`,
				`--images-registry: images.registry: is empty; give it a value, or leave it out`,
			},
		},
		"values of the wrong type in the file": {
			given: given{file: `
logLevel: [info]
namespace: 5
excludedNamespaces: kube-system
leadingContainers: [1, a, {b: c}]
images: 3
webhook:
  maxBodyBytes: "5"
  drainDelay: 5
  readTimeout: true
controller:
  leaderElection: "true"
  service: {name: x}
  webhookURL: &anchor https://a
certs: *anchor
webhookConfiguration: 1.5
`},
			want: []string{
				`config.yaml:2: logLevel: is a list; write a string, in quotes if it looks like something else`,
				`config.yaml:3: namespace: is the number 5; write a string, in quotes if it looks like something else`,
				`config.yaml:4: excludedNamespaces: is the string "kube-system"; write a list, for example [first, second]`,
				`config.yaml:5: leadingContainers: line 5: is the number 1; write a string; line 5: has keys of its own; write a string`,
				`config.yaml:6: images: is the number 3; write keys and values here, such as "namespace: pillion-system"`,
				`config.yaml:8: webhook.maxBodyBytes: is the string "5"; write a whole number`,
				`config.yaml:9: webhook.drainDelay: is the number 5; write a duration, for example 500ms, 10s or 1h30m`,
				`config.yaml:10: webhook.readTimeout: is the truth value true; write a duration, for example 500ms, 10s or 1h30m`,
				`config.yaml:12: controller.leaderElection: is the string "true"; write true or false`,
				`config.yaml:13: controller.service: has keys of its own; write a string, in quotes if it looks like something else`,
				`config.yaml:14: controller.webhookURL: anchors and aliases are not supported; write the value itself`,
				`config.yaml:15: certs: is an alias; write keys and values here, such as "namespace: pillion-system"`,
				`config.yaml:16: webhookConfiguration: is the number 1.5; write a string, in quotes if it looks like something else`,
			},
		},
		"malformed values in the environment and in flags": {
			given: given{
				environ: []string{
					"PILLION_WEBHOOK_MAX_BODY_BYTES=7Mi", "PILLION_WEBHOOK_DRAIN_DELAY=5", "PILLION_CONTROLLER_LEADER_ELECTION=yes",
				},
				flags: []string{"--controller-service=x", "--controller-leader-election=1", "--webhook-idle-timeout=1e3s"},
			},
			want: []string{
				`PILLION_WEBHOOK_MAX_BODY_BYTES: webhook.maxBodyBytes: "7Mi" is not a whole number`,
				`PILLION_WEBHOOK_DRAIN_DELAY: webhook.drainDelay: "5" is not a duration, for example 500ms, 10s or 1h30m`,
				`PILLION_CONTROLLER_LEADER_ELECTION: controller.leaderElection: "yes" is neither true nor false`,
				`--webhook-idle-timeout: webhook.idleTimeout: "1e3s" is not a duration, for example 500ms, 10s or 1h30m`,
				`--controller-leader-election: controller.leaderElection: "1" is neither true nor false`,
				`--controller-service: controller.service: "x" is not NAME:PORT, for example pillion-webhook:443`,
			},
		},
		"unknown variables, and one that is set twice": {
			given: given{environ: []string{
				"PILLION_NOSUCH=1", "PILLION_LOGLEVEL=info", "PILLION_LOG_LEVEL=info", "PILLION_LOG_LEVEL=debug", "PILLION_CONFIGS=",
			}},
			want: []string{
				`PILLION_NOSUCH: unknown variable`,
				`PILLION_LOGLEVEL: unknown variable, did you mean PILLION_LOG_LEVEL?`,
				`PILLION_LOG_LEVEL: logLevel: is set twice`,
				`PILLION_CONFIGS: unknown variable`,
			},
		},
		"a value in the file that a flag would override": {
			given: given{file: "logLevel: loud", flags: []string{"--log-level=info"}},
			want:  []string{`config.yaml:1: logLevel: "loud" is none of error, warn, info, debug`},
		},
		"values that cannot go together": {
			given: given{
				file: "webhook:\n  healthAddress: 127.0.0.1:9443\n  metricsAddress: :9443\n  readHeaderTimeout: 11s\n  liveReadTimeout: 2s\n",
				environ: []string{
					"PILLION_CONTROLLER_SERVICE=a:1", "PILLION_CONTROLLER_WEBHOOK_URL=https://a", "PILLION_WEBHOOK_WRITE_TIMEOUT=2s",
				},
				flags: []string{
					"--certs-ca-secret=pillion-webhook-tls", "--certs-leaf-lifetime=4381h", "--controller-metrics-address=[::]:8082",
				},
			},
			want: []string{
				`config.yaml:2: webhook.healthAddress: 127.0.0.1:9443 cannot be listened on besides webhook.listenAddress, :9443`,
				`config.yaml:3: webhook.metricsAddress: :9443 cannot be listened on besides webhook.listenAddress, :9443`,
				`--controller-metrics-address: controller.metricsAddress: [::]:8082 cannot be listened on besides ` +
					`controller.healthAddress, :8082`,
				`PILLION_CONTROLLER_WEBHOOK_URL: controller.webhookURL: the API server reaches the webhook by a Service or by a URL: ` +
					`set controller.service or controller.webhookURL`,
				`--certs-ca-secret: certs.caSecret: is webhook.certificateSecret too, "pillion-webhook-tls": the webhook must not read ` +
					`the CA's key`,
				`--certs-leaf-lifetime: certs.leafLifetime: 4381h is more than half of certs.caLifetime, 8760h: ` +
					`certificates would outlive the CA that is trusted`,
				`config.yaml:4: webhook.readHeaderTimeout: 11s is more than webhook.readTimeout, 10s, which covers it`,
				`config.yaml:5: webhook.liveReadTimeout: 2s is not less than webhook.writeTimeout, 2s: the answer could not be ` +
					`written any more`,
			},
		},
		"a leader that would work on while another takes over": {
			given: given{file: "controller: {renewDeadline: 15s}"},
			want: []string{
				`config.yaml:1: controller.renewDeadline: 15s is not less than controller.leaseDuration, 15s: a leader that cannot renew its ` +
					`Lease would work on while another takes over`,
			},
		},
		"a leader that would end for one request that is slow": {
			given: given{
				file:    "controller: {leaseDuration: 20s, renewDeadline: 15s}",
				environ: []string{"PILLION_CONTROLLER_RETRY_PERIOD=12.5s"},
			},
			want: []string{
				`PILLION_CONTROLLER_RETRY_PERIOD: controller.retryPeriod: 12.5s is too long for controller.renewDeadline, 15s: up to 1.2 ` +
					`times as long passes between two tries, and there has to be time for a second`,
			},
		},
		"a lease that the API cannot hold, and a number that is no time": {
			given: given{file: "controller: {leaseDuration: 12500ms,\n selfCheckInterval: 60}"},
			want: []string{
				`config.yaml:1: controller.leaseDuration: 12.5s is not a number of whole seconds`,
				`config.yaml:2: controller.selfCheckInterval: is the number 60; write a duration, for example 500ms, 10s or 1h30m`,
			},
		},
		"a conflict is not told where one of its values is wrong by itself": {
			given: given{file: "certs: {caLifetime: 1s, leafLifetime: 8760h}"},
			want:  []string{`config.yaml:1: certs.caLifetime: 1s is not between 9s and 87600h`},
		},
		"no file where one is named": {
			given: given{flags: []string{"--config=nosuch.yaml"}},
			want:  []string{`nosuch.yaml: open: no such file or directory`},
		},
		"an empty name of the file": {
			given: given{flags: []string{"--config="}},
			want:  []string{`--config: is empty; name a file, or leave it out`},
		},
		"an empty variable for the name of the file": {
			given: given{environ: []string{"PILLION_CONFIG="}},
			want:  []string{`PILLION_CONFIG: is empty; give it a value, or unset it`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := test.given.load(t)
			if diff := cmp.Diff(test.want, problemsOf(err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func problemsOf(err error) []string {
	configError := (*Error)(nil)
	if !errors.As(err, &configError) {
		return nil
	}
	var lines []string
	for _, problem := range configError.Problems {
		lines = append(lines, problem.String())
	}
	return lines
}

func TestLoadReadsTheFileThatTheFlagNames(t *testing.T) {
	directory := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	byFlag, byVariable := write("flag.yaml", "logLevel: debug"), write("variable.yaml", "logLevel: warn")
	large := write("large.yaml", "# "+strings.Repeat("x", maxFileBytes))

	for name, test := range map[string]struct {
		given     given
		want      string
		wantError []string
	}{
		"by variable": {given: given{environ: []string{"PILLION_CONFIG=" + byVariable}}, want: "warn"},
		"by flag, which wins": {
			given: given{environ: []string{"PILLION_CONFIG=" + byVariable}, flags: []string{"--config", byFlag}}, want: "debug",
		},
		"a directory": {
			given:     given{flags: []string{"--config", directory}},
			wantError: []string{directory + ": read: is a directory"},
		},
		"too large": {
			given:     given{flags: []string{"--config", large}},
			wantError: []string{large + ": is larger than 1048576 bytes"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.given.load(t)
			if diff := cmp.Diff(test.wantError, problemsOf(err)); diff != "" || got.LogLevel != test.want {
				t.Errorf("logLevel %q, want %q; errors (-want +got):\n%s", got.LogLevel, test.want, diff)
			}
		})
	}
}

func TestFlagsAreThoseOfTheGroups(t *testing.T) {
	flags := pflag.NewFlagSet("inject", pflag.ContinueOnError)
	AddFlags(flags, Decisions)
	var got []string
	flags.VisitAll(func(flag *pflag.Flag) { got = append(got, flag.Name) })
	want := []string{
		"config", "excluded-namespaces", "images-pillion", "images-registry", "leading-containers", "namespace",
		"pod-security-enforce", "pod-security-enforce-version", "pod-security-exempt-namespaces",
		"pod-security-exempt-runtime-classes", "pod-security-exempt-usernames", "pod-security-mode",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What belongs to other commands is read, and checked, all the same.
	_, err := load(flags, []string{"PILLION_WEBHOOK_DRAIN_DELAY=x"}, "config.yaml", []byte("webhook: {idleTimeout: 1}"), nil)
	if got := problemsOf(err); len(got) != 2 {
		t.Errorf("problems = %q, want two", got)
	}
}

func TestErrorTellsEverything(t *testing.T) {
	one := &Error{Problems: []Problem{{Source: "--a", Key: "a", Message: "wrong"}}}
	two := &Error{Problems: []Problem{{Source: "--a", Key: "a", Message: "wrong"}, {Key: "b", Message: "wrong"}}}
	if got, want := one.Error(), "configuration: --a: a: wrong"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := two.Error(), "configuration: 2 problems:\n  --a: a: wrong\n  b: wrong"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"logLevel: debug\nwebhook: {listenAddress: ':1', maxBodyBytes: 65536}\n", "a: &a [*a]", "webhook: [1]\n", "? {a: b}\n: c",
		"---\n---\n",
		"excludedNamespaces: [a, b]\ncontroller: {webhookURL: 'https://a/b', leaderElection: False}\n", "certs: {caLifetime: 1e9h}",
		"!!binary x: y", "\xff", "images: {registry: a/b, pillion: a/b:c}\n", "<<: {logLevel: info}", "webhook:\n  drainDelay: 0s\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		config, err := load(nil, nil, "config.yaml", content, nil)
		if err != nil {
			if len(problemsOf(err)) == 0 {
				t.Errorf("an error without problems: %v", err)
			}
			if diff := cmp.Diff(Config{}, config); diff != "" {
				t.Errorf("a configuration with an error:\n%s", diff)
			}
			return
		}
		if err := config.Validate(); err != nil {
			t.Errorf("loads but does not validate: %v", err)
		}
	})
}
