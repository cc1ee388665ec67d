// Package config is the configuration of Pillion's processes: defaults, overridden by a file, by the environment and by flags, in
// this order. It is strict: whatever is unknown, empty, given twice or out of range is an error, and all errors are told at once.
package config

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// Config is the configuration of all of Pillion's processes: each reads its part, so that one file serves all. The keys, which
// are named as the fields are, are described in docs/configuration.md.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file. Empty: the Pod's own ServiceAccount.
	Kubeconfig string

	// LogLevel is error, warn, info or debug; LogFormat is json or text.
	LogLevel, LogFormat string

	// Namespace is the one that Pillion runs in.
	Namespace string

	// ExcludedNamespaces are never touched. Namespace is always among them.
	ExcludedNamespaces []string

	Images Images

	// LeadingContainers name the containers of meshes and CNIs behind which init containers and sidecars are placed.
	LeadingContainers []string

	PodSecurity PodSecurity

	// WebhookConfiguration names the MutatingWebhookConfiguration that the controller fills, which the webhook's certificate
	// is verified by.
	WebhookConfiguration string

	Webhook    Webhook
	Controller Controller
	Certs      Certs
}

// Images says where the images of the patterns' programs come from.
type Images struct {
	// Registry replaces the registry of every default image. Empty: each one's own.
	Registry string

	// Pillion replaces the image of Pillion that Pods with an adapter run. Empty: that of this release.
	Pillion string
}

// PodSecurity says what the API server is configured to enforce, which it does not tell, and what follows from it.
type PodSecurity struct {
	// Mode is Deny or Warn: what becomes of a profile that adds what is not allowed.
	Mode string

	// Enforce and EnforceVersion are the level and version for namespaces without labels of their own.
	Enforce, EnforceVersion string

	// ExemptUsernames, ExemptNamespaces and ExemptRuntimeClasses are those for whom nothing is enforced.
	ExemptUsernames, ExemptNamespaces, ExemptRuntimeClasses []string
}

// Webhook is the configuration of the admission webhook.
type Webhook struct {
	// ListenAddress is where admission reviews are answered, HealthAddress where /healthz and /readyz are, MetricsAddress where
	// /metrics is; empty: nowhere.
	ListenAddress, HealthAddress, MetricsAddress string

	// CertificateSecret names the Secret with the serving certificate.
	CertificateSecret string

	// MaxBodyBytes bounds the body of a request.
	MaxBodyBytes int64

	// ClientCA is a PEM file of CAs that sign the certificates of API servers, ClientNames are names that those may have. Empty: API
	// servers present none; any name.
	ClientCA    string
	ClientNames []string

	// MaxRequestsInFlight and MaxBytesInFlight bound what is read and answered at a time, MaxConnections what is open.
	MaxRequestsInFlight, MaxBytesInFlight, MaxConnections int64

	// ReadHeaderTimeout, ReadTimeout, WriteTimeout and IdleTimeout bound connections.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration

	// LiveReadTimeout bounds what is asked of the API server before an answer is no.
	LiveReadTimeout time.Duration

	// DrainDelay is how long requests are served after readiness has failed; ShutdownTimeout bounds those in flight then.
	DrainDelay, ShutdownTimeout time.Duration
}

// Controller is the configuration of the controller.
type Controller struct {
	// HealthAddress is where /healthz and /readyz are served, MetricsAddress where /metrics is; empty: nowhere.
	HealthAddress, MetricsAddress string

	// LeaderElection lets several controllers run, of which one works.
	LeaderElection bool

	// LeaseDuration is how long the others wait for a leader that is silent, RenewDeadline how long a leader tries to renew its
	// Lease before it ends, RetryPeriod the time between two tries.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration

	// SelfCheckInterval is how often the whole path is proved by a Pod that is not stored. Zero: never.
	SelfCheckInterval time.Duration

	// DefaultProfiles says that a profile of each built-in pattern is made and kept, for Pods whose annotations say the rest.
	DefaultProfiles bool

	// Service is where the API server reaches the webhook. It is the zero Service where WebhookURL is set.
	Service Service

	// WebhookURL is where the API server reaches a webhook that runs outside the cluster. Empty: see Service.
	WebhookURL string
}

// Service is a port of a Service in Pillion's namespace.
type Service struct {
	Name string
	Port int32
}

// String returns the Service as it is written in the configuration.
func (s Service) String() string { return fmt.Sprintf("%s:%d", s.Name, s.Port) }

// Certs is the configuration of certificates.
type Certs struct {
	// Mode is auto, builtin or cert-manager: who issues the serving certificate.
	Mode string

	// Issuer is the issuer of cert-manager, KIND/NAME or KIND.GROUP/NAME. Empty: one that Pillion makes.
	Issuer string

	// CASecret names the Secret with the CA.
	CASecret string

	// CALifetime and LeafLifetime are how long certificates are valid. They are replaced after two thirds of it.
	CALifetime, LeafLifetime time.Duration

	// Settle is how long API servers are given to see the next CA before it signs.
	Settle time.Duration
}

// Validate says all that is wrong with a configuration, as an Error. What Load returns is well.
func (c Config) Validate() error {
	var problems []Problem
	for _, key := range keys() {
		value := key.in(&c).Interface()
		if key.isUnset(value, c) {
			continue
		}
		if err := key.validate(value); err != nil {
			problems = append(problems, Problem{Key: key.path, Message: err.Error()})
		}
	}
	for _, conflict := range c.conflicts() {
		problems = append(problems, Problem{Key: conflict.keys[0], Message: conflict.message})
	}
	return asError(problems)
}

// conflict is what is wrong with several keys together. The first is the one to change.
type conflict struct {
	keys    []string
	message string
}

func (c Config) conflicts() []conflict {
	conflicts := sharedPorts(map[string]string{
		"webhook.listenAddress":  c.Webhook.ListenAddress,
		"webhook.healthAddress":  c.Webhook.HealthAddress,
		"webhook.metricsAddress": c.Webhook.MetricsAddress,
	}, "webhook.listenAddress", "webhook.healthAddress", "webhook.metricsAddress")
	conflicts = append(conflicts, sharedPorts(map[string]string{
		"controller.healthAddress":  c.Controller.HealthAddress,
		"controller.metricsAddress": c.Controller.MetricsAddress,
	}, "controller.healthAddress", "controller.metricsAddress")...)

	if (c.Controller.Service == Service{}) == (c.Controller.WebhookURL == "") {
		conflicts = append(conflicts, conflict{
			keys:    []string{"controller.webhookURL", "controller.service"},
			message: "the API server reaches the webhook by a Service or by a URL: set controller.service or controller.webhookURL",
		})
	}
	if c.Webhook.CertificateSecret == c.Certs.CASecret {
		conflicts = append(conflicts, conflict{
			keys:    []string{"certs.caSecret", "webhook.certificateSecret"},
			message: fmt.Sprintf("is webhook.certificateSecret too, %q: the webhook must not read the CA's key", c.Certs.CASecret),
		})
	}
	if c.Certs.Mode == "builtin" && c.Certs.Issuer != "" {
		conflicts = append(conflicts, conflict{
			keys:    []string{"certs.issuer", "certs.mode"},
			message: "names an issuer of cert-manager, which certs.mode, builtin, does not use: leave one of them out",
		})
	}
	if c.Certs.LeafLifetime > c.Certs.CALifetime/2 {
		conflicts = append(conflicts, conflict{
			keys: []string{"certs.leafLifetime", "certs.caLifetime"},
			message: fmt.Sprintf("%s is more than half of certs.caLifetime, %s: certificates would outlive the CA that is trusted",
				shortDuration(c.Certs.LeafLifetime), shortDuration(c.Certs.CALifetime)),
		})
	}
	if c.Certs.Settle > c.Certs.LeafLifetime/6 {
		conflicts = append(conflicts, conflict{
			keys: []string{"certs.settle", "certs.leafLifetime"},
			message: fmt.Sprintf("%s is more than a sixth of certs.leafLifetime, %s: were the CA lost, the certificate could expire before "+
				"API servers have seen the next one", shortDuration(c.Certs.Settle), shortDuration(c.Certs.LeafLifetime)),
		})
	}
	conflicts = append(conflicts, c.Controller.leaseConflicts()...)
	if c.Webhook.ReadHeaderTimeout > c.Webhook.ReadTimeout {
		conflicts = append(conflicts, conflict{
			keys: []string{"webhook.readHeaderTimeout", "webhook.readTimeout"},
			message: fmt.Sprintf("%s is more than webhook.readTimeout, %s, which covers it",
				shortDuration(c.Webhook.ReadHeaderTimeout), shortDuration(c.Webhook.ReadTimeout)),
		})
	}
	if c.Webhook.MaxBytesInFlight < c.Webhook.MaxBodyBytes {
		conflicts = append(conflicts, conflict{
			keys: []string{"webhook.maxBytesInFlight", "webhook.maxBodyBytes"},
			message: fmt.Sprintf("%d is less than webhook.maxBodyBytes, %d: such a body could never be read",
				c.Webhook.MaxBytesInFlight, c.Webhook.MaxBodyBytes),
		})
	}
	if len(c.Webhook.ClientNames) > 0 && c.Webhook.ClientCA == "" {
		conflicts = append(conflicts, conflict{
			keys:    []string{"webhook.clientNames", "webhook.clientCA"},
			message: "is set without webhook.clientCA, by which clients are verified: set both, or neither",
		})
	}
	if c.Webhook.LiveReadTimeout >= c.Webhook.WriteTimeout {
		conflicts = append(conflicts, conflict{
			keys: []string{"webhook.liveReadTimeout", "webhook.writeTimeout"},
			message: fmt.Sprintf("%s is not less than webhook.writeTimeout, %s: the answer could not be written any more",
				shortDuration(c.Webhook.LiveReadTimeout), shortDuration(c.Webhook.WriteTimeout)),
		})
	}
	return conflicts
}

// leaseConflicts finds what would let two controllers lead at once, or a leader end for one request that is slow.
func (c *Controller) leaseConflicts() []conflict {
	var conflicts []conflict
	if c.RenewDeadline >= c.LeaseDuration {
		conflicts = append(conflicts, conflict{
			keys: []string{"controller.renewDeadline", "controller.leaseDuration"},
			message: fmt.Sprintf("%s is not less than controller.leaseDuration, %s: a leader that cannot renew its Lease would work on "+
				"while another takes over", shortDuration(c.RenewDeadline), shortDuration(c.LeaseDuration)),
		})
	}
	// client-go waits up to 1.2 times as long (JitterFactor of its leader election).
	if longest := c.RetryPeriod * 6 / 5; c.RenewDeadline <= longest {
		conflicts = append(conflicts, conflict{
			keys: []string{"controller.retryPeriod", "controller.renewDeadline"},
			message: fmt.Sprintf("%s is too long for controller.renewDeadline, %s: up to 1.2 times as long passes between two tries, and "+
				"there has to be time for a second", shortDuration(c.RetryPeriod), shortDuration(c.RenewDeadline)),
		})
	}
	return conflicts
}

// sharedPorts finds the addresses of one process that cannot be listened on at once.
func sharedPorts(addresses map[string]string, keys ...string) []conflict {
	var conflicts []conflict
	for i, key := range keys {
		for _, earlier := range keys[:i] {
			if overlap(addresses[key], addresses[earlier]) {
				conflicts = append(conflicts, conflict{
					keys:    []string{key, earlier},
					message: fmt.Sprintf("%s cannot be listened on besides %s, %s", addresses[key], earlier, addresses[earlier]),
				})
			}
		}
	}
	return conflicts
}

func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || !samePort(portA, portB) {
		return false
	}
	return hostA == hostB || isWildcard(hostA) || isWildcard(hostB)
}

func samePort(a, b string) bool {
	numberA, errA := strconv.Atoi(a)
	numberB, errB := strconv.Atoi(b)
	return errA == nil && errB == nil && numberA == numberB
}

func isWildcard(host string) bool { return host == "" || net.ParseIP(host).IsUnspecified() }
