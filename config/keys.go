package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Group is a part of the configuration that commands have flags for. Files and the environment may hold all of it, whatever the
// command: one file serves every process.
type Group string

// The groups.
const (
	// Cluster is how the API server is reached.
	Cluster Group = "cluster"
	// Logging is what is logged.
	Logging Group = "logging"
	// Decisions is what decides about Pods, in the cluster and offline.
	Decisions Group = "decisions"
	// WebhookServer is the admission webhook.
	WebhookServer Group = "webhook"
	// ControllerManager is the controller.
	ControllerManager Group = "controller"
)

// key is one value of the configuration. Its flag and its variable are named after it.
type key struct {
	// path is the key in the file, its parts joined by dots, each part named like the field of Config.
	path string
	// value is the default. Its type is that of the field.
	value any
	// check says what is wrong with a value of the field's type. Nil: nothing can be.
	check  func(value any) error
	usage  string
	groups []Group
	// off is a word that stands for the empty string, or for no time at all, where that says "nothing of the kind".
	off string
}

// keys returns the configuration, in the order in which people read it.
func keys() []key {
	both := []Group{WebhookServer, ControllerManager}
	return []key{
		{
			path: "kubeconfig", value: "", groups: []Group{Cluster},
			usage: "kubeconfig file; default: the ServiceAccount of the Pod",
		},
		{
			path: "logLevel", value: "info", check: oneOf("error", "warn", "info", "debug"), groups: []Group{Logging},
			usage: "least severe messages to log: error, warn, info or debug",
		},
		{
			path: "logFormat", value: "json", check: oneOf("json", "text"), groups: []Group{Logging},
			usage: "form of log lines: json or text",
		},
		{
			path: "namespace", value: "pillion-system", check: dnsLabel, groups: []Group{Decisions},
			usage: "namespace that Pillion runs in, whose Pods are never touched",
		},
		{
			path: "excludedNamespaces", value: []string{"kube-system", "kube-public", "kube-node-lease", "cert-manager"},
			check: each(dnsLabel), groups: []Group{Decisions},
			usage: "namespaces whose Pods are never touched, such as those of CNI, CSI and DNS; Pillion's own is always one",
		},
		{
			path: "images.registry", value: "", check: registry, groups: []Group{Decisions},
			usage: "registry, with or without a path, that replaces those of the patterns' default images, for example " +
				"registry.example.com/mirror",
		},
		{
			path: "images.pillion", value: "", check: image, groups: []Group{Decisions},
			usage: "image of Pillion that injected containers run; default: that of this release",
		},
		{
			path: "leadingContainers", check: each(dnsLabel), groups: []Group{Decisions},
			value: []string{
				"istio-init", "istio-validation", "istio-proxy", "linkerd-init", "linkerd-network-validator", "linkerd-proxy",
				"kuma-init", "kuma-validation", "kuma-sidecar", "consul-connect-inject-init", "consul-dataplane",
			},
			usage: "init containers and sidecars of meshes and CNIs, behind which Pillion's are placed",
		},
		{
			path: "podSecurity.mode", value: "Deny", check: oneOf("Deny", "Warn"), groups: []Group{Decisions},
			usage: "what becomes of a profile that adds what the namespace's Pod Security Standard does not allow: Deny refuses " +
				"it, Warn weaves it and tells whoever creates the Pod",
		},
		{
			path: "podSecurity.enforce", value: "privileged", check: securityLevel, groups: []Group{Decisions},
			usage: "Pod Security level that the API server enforces in namespaces without the label, by its own configuration: " +
				"privileged, baseline or restricted",
		},
		{
			path: "podSecurity.enforceVersion", value: "latest", check: securityVersion, groups: []Group{Decisions},
			usage: "version of that level: latest, or a Kubernetes version such as v1.33",
		},
		{
			path: "podSecurity.exemptUsernames", value: []string{}, check: each(notBlank), groups: []Group{Decisions},
			usage: "users for whom the API server enforces no Pod Security, by its own configuration",
		},
		{
			path: "podSecurity.exemptNamespaces", value: []string{}, check: each(dnsLabel), groups: []Group{Decisions},
			usage: "namespaces where the API server enforces no Pod Security, by its own configuration",
		},
		{
			path: "podSecurity.exemptRuntimeClasses", value: []string{}, check: each(dnsName), groups: []Group{Decisions},
			usage: "runtime classes for whose Pods the API server enforces no Pod Security, by its own configuration",
		},
		{
			path: "webhookConfiguration", value: "pillion", check: dnsName, groups: both,
			usage: "name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration that the controller fills",
		},

		{
			path: "webhook.listenAddress", value: ":9443", check: address, groups: []Group{WebhookServer},
			usage: "address that admission reviews are answered at, over TLS",
		},
		{
			path: "webhook.healthAddress", value: ":8081", check: address, groups: []Group{WebhookServer},
			usage: "address of /healthz and /readyz, over HTTP",
		},
		{
			path: "webhook.metricsAddress", value: ":8083", check: address, off: "none", groups: []Group{WebhookServer},
			usage: "address of /metrics, over HTTP, or none",
		},
		{
			path: "webhook.certificateSecret", value: "pillion-webhook-tls", check: dnsName, groups: both,
			usage: "name of the Secret with the webhook's serving certificate",
		},
		{
			path: "webhook.maxBodyBytes", value: int64(7 << 20), check: between(64<<10, 64<<20), groups: []Group{WebhookServer},
			usage: "largest body of a request, in bytes",
		},
		{
			path: "webhook.clientCA", value: "", check: notBlank, groups: []Group{WebhookServer},
			usage: "PEM file of CAs: API servers have to present a certificate that one of them has signed; default: they need none",
		},
		{
			path: "webhook.clientNames", value: []string{}, check: each(notBlank), groups: []Group{WebhookServer},
			usage: "names of which such a certificate has to have one, as common name or DNS name; default: any will do",
		},
		{
			path: "webhook.maxRequestsInFlight", value: int64(600), check: between(1, 100_000), groups: []Group{WebhookServer},
			usage: "requests to read and answer at a time; more are refused with HTTP 429 and asked again",
		},
		{
			path: "webhook.maxBytesInFlight", value: int64(28 << 20), check: between(64<<10, 8<<30), groups: []Group{WebhookServer},
			usage: "bytes that the bodies of these may have together",
		},
		{
			path: "webhook.maxConnections", value: int64(1024), check: between(16, 1<<16), groups: []Group{WebhookServer},
			usage: "connections that may be open; one more takes the place of one that is not used",
		},
		{
			path: "webhook.readHeaderTimeout", value: 5 * time.Second, check: lasting(100*time.Millisecond, time.Minute),
			groups: []Group{WebhookServer},
			usage:  "time that the headers of a request may take",
		},
		{
			path: "webhook.readTimeout", value: 10 * time.Second, check: lasting(100*time.Millisecond, time.Minute),
			groups: []Group{WebhookServer},
			usage:  "time that a whole request may take to arrive",
		},
		{
			path: "webhook.writeTimeout", value: 15 * time.Second, check: lasting(time.Second, 2*time.Minute),
			groups: []Group{WebhookServer},
			usage:  "time that a request may take from its headers to the end of the answer",
		},
		{
			path: "webhook.idleTimeout", value: 2 * time.Minute, check: lasting(time.Second, time.Hour),
			groups: []Group{WebhookServer},
			usage:  "time that a connection may be without a request",
		},
		{
			path: "webhook.liveReadTimeout", value: time.Second, check: lasting(50*time.Millisecond, 10*time.Second),
			groups: []Group{WebhookServer},
			usage:  "time that the API server may take to tell what memory lacks, before an answer is no",
		},
		{
			path: "webhook.drainDelay", value: 5 * time.Second, check: lasting(0, 5*time.Minute), groups: []Group{WebhookServer},
			usage: "time to serve on after SIGTERM, for the Service to send requests elsewhere; unused connections are kept as long again",
		},
		{
			path: "webhook.shutdownTimeout", value: 10 * time.Second, check: lasting(time.Second, 5*time.Minute),
			groups: []Group{WebhookServer},
			usage:  "time that requests in flight may take after that",
		},

		{
			path: "controller.healthAddress", value: ":8082", check: address, groups: []Group{ControllerManager},
			usage: "address of /healthz and /readyz, over HTTP",
		},
		{
			path: "controller.metricsAddress", value: ":8084", check: address, off: "none", groups: []Group{ControllerManager},
			usage: "address of /metrics, over HTTP, or none",
		},
		{
			path: "controller.leaderElection", value: true, groups: []Group{ControllerManager},
			usage: "let one of several controllers work, by a Lease in Pillion's namespace",
		},
		{
			path: "controller.leaseDuration", value: 15 * time.Second, check: wholeSeconds(2*time.Second, 5*time.Minute),
			groups: []Group{ControllerManager},
			usage:  "how long the others wait for a leader that is silent before one of them takes over, in whole seconds",
		},
		{
			path: "controller.renewDeadline", value: 10 * time.Second, check: lasting(time.Second, 5*time.Minute),
			groups: []Group{ControllerManager},
			usage:  "how long the leader tries to renew its Lease before it gives up and ends; less than controller.leaseDuration",
		},
		{
			path: "controller.retryPeriod", value: 2 * time.Second, check: lasting(100*time.Millisecond, time.Minute),
			groups: []Group{ControllerManager},
			usage:  "time between two tries to get or renew the Lease",
		},
		{
			path: "controller.selfCheckInterval", value: time.Minute, check: lasting(time.Second, time.Hour), off: "none",
			groups: []Group{ControllerManager},
			usage: "how often the whole path is proved by a dry run of a Pod in namespace pillion-selfcheck, sooner after something " +
				"failed or changed; 0 or none: never",
		},
		{
			path: "controller.defaultProfiles", value: true, groups: []Group{ControllerManager},
			usage: "make the default profiles git-sync, prometheus-adapter, cache-ambassador and template-processor, and bring those up to " +
				"date that nobody has changed; false: leave what is there",
		},
		{
			path: "controller.service", value: Service{Name: "pillion-webhook", Port: 443}, check: service,
			groups: []Group{ControllerManager},
			usage:  "Service in Pillion's namespace that the API server reaches the webhook by, NAME:PORT",
		},
		{
			path: "controller.webhookURL", value: "", check: webhookURL, groups: []Group{ControllerManager},
			usage: "URL that the API server reaches the webhook by instead, for development: https://127.0.0.1:9443",
		},

		{
			path: "certs.mode", value: "auto", check: oneOf("auto", "builtin", "cert-manager"), groups: []Group{ControllerManager},
			usage: "who issues the serving certificate: builtin, cert-manager, or auto, which is cert-manager where the cluster has its API",
		},
		{
			path: "certs.issuer", value: "", check: issuer, groups: []Group{ControllerManager},
			usage: "issuer of cert-manager that is used instead of one that Pillion makes, KIND/NAME or KIND.GROUP/NAME, for example " +
				"ClusterIssuer/internal; an Issuer has to be in Pillion's namespace",
		},
		{
			path: "certs.caSecret", value: "pillion-ca", check: dnsName, groups: []Group{ControllerManager},
			usage: "name of the Secret with the built-in CA",
		},
		{
			path: "certs.caLifetime", value: 8760 * time.Hour, check: lasting(9*time.Second, 87600*time.Hour),
			groups: []Group{ControllerManager},
			usage:  "how long the CA's certificate is valid; it is replaced after two thirds of that",
		},
		{
			path: "certs.leafLifetime", value: 168 * time.Hour, check: lasting(3*time.Second, 8760*time.Hour),
			groups: []Group{ControllerManager},
			usage:  "how long the serving certificate is valid; it is replaced after two thirds of that",
		},
		{
			path: "certs.settle", value: 2 * time.Minute, check: lasting(100*time.Millisecond, time.Hour),
			groups: []Group{ControllerManager},
			usage: "how long API servers are given to see the next CA, once every caBundle holds it, before it signs; at most a sixth " +
				"of the serving certificate's life",
		},
	}
}

// flag returns the key's flag: webhook.listenAddress is --webhook-listen-address.
func (k key) flag() string { return strings.ToLower(strings.Join(words(k.path), "-")) }

// variable returns the key's variable: webhook.listenAddress is PILLION_WEBHOOK_LISTEN_ADDRESS.
func (k key) variable() string {
	return variablePrefix + strings.ToUpper(strings.Join(words(k.path), "_"))
}

func spellPath(k key) string { return k.path }

func spellVariable(k key) string { return k.variable() }

// words takes a path apart where a dot stands and where a capital follows a small letter.
func words(path string) []string {
	var words []string
	for part := range strings.SplitSeq(path, ".") {
		start := 0
		for i, r := range part {
			if i > 0 && unicode.IsUpper(r) && unicode.IsLower(rune(part[i-1])) {
				words = append(words, part[start:i])
				start = i
			}
		}
		words = append(words, part[start:])
	}
	return words
}

// in returns the key's field. A path that no field has is a mistake in the table, which a test finds.
func (k key) in(c *Config) reflect.Value {
	value := reflect.ValueOf(c).Elem()
	for part := range strings.SplitSeq(k.path, ".") {
		value = value.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, part) })
	}
	return value
}

// isUnset tells whether a field is empty where empty says "by default" or "nothing of the kind".
func (k key) isUnset(value any, c Config) bool {
	switch {
	case value == "":
		return k.value == "" || k.off != ""
	case k.path == "controller.service":
		return value == Service{} && c.Controller.WebhookURL != ""
	default:
		return false
	}
}

func (k key) validate(value any) error {
	if k.off != "" && (value == "" || value == time.Duration(0)) || k.check == nil {
		return nil
	}
	return k.check(value)
}

// kind says in words what the key's values are.
func (k key) kind() string {
	switch k.value.(type) {
	case bool:
		return "bool"
	case int64:
		return "int"
	case time.Duration:
		return "duration"
	case []string:
		return "list"
	default:
		return "string"
	}
}

// text returns the default as it is written in a flag or a variable.
func (k key) text() string {
	switch value := k.value.(type) {
	case []string:
		return strings.Join(value, ",")
	case time.Duration:
		return shortDuration(value)
	default:
		return fmt.Sprint(value)
	}
}

// shortDuration leaves out the zeros that time.Duration writes: 168h, not 168h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (k key) isOf(groups []Group) bool {
	return slices.ContainsFunc(k.groups, func(group Group) bool { return slices.Contains(groups, group) })
}
