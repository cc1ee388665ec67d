package webhook

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/profiles"
)

// RunOptions are the settings of the webhook's process.
type RunOptions struct {
	// ListenAddress is where admission reviews are answered, over TLS 1.3. HealthAddress serves /healthz and /readyz,
	// MetricsAddress /metrics, in plain HTTP; empty: nowhere.
	ListenAddress, HealthAddress, MetricsAddress string

	// Namespace is Pillion's own. CertificateSecret is in it; the certificate must verify by WebhookConfiguration, the name of
	// the MutatingWebhookConfiguration that the controller fills.
	Namespace, CertificateSecret, WebhookConfiguration string

	// ClientCA is the path of a PEM file of CAs, one of which has to have signed the certificate of whoever calls; it is read again when
	// it changes. ClientNames are the names of which the certificate has to have one. Empty: clients present no certificate; any name.
	ClientCA    string
	ClientNames []string

	// MaxConnections bounds the connections of ListenAddress. Default: 1,024.
	MaxConnections int

	// ReadHeaderTimeout, ReadTimeout, WriteTimeout and IdleTimeout bound connections. Defaults: 5 s, 10 s, 15 s, 2 min.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration

	// DrainDelay is how long requests are served after readiness has failed, for endpoints to move on, and for as long again
	// connections that nobody has used since are kept; ShutdownTimeout bounds that and the requests that are in flight then.
	// Defaults: none, 10 s.
	DrainDelay, ShutdownTimeout time.Duration

	// SilentAfter is how long the API server may say nothing on a watch before that is told. Default: 3 min; it sends a bookmark about
	// once a minute.
	SilentAfter time.Duration

	Handler  Options
	Profiles profiles.Options

	// Logger is required.
	Logger *slog.Logger
}

func (o RunOptions) withDefaults() RunOptions {
	setDefault := func(value *time.Duration, otherwise time.Duration) {
		if *value == 0 {
			*value = otherwise
		}
	}
	setDefault(&o.ReadHeaderTimeout, 5*time.Second)
	setDefault(&o.ReadTimeout, 10*time.Second)
	setDefault(&o.WriteTimeout, 15*time.Second)
	setDefault(&o.IdleTimeout, 2*time.Minute)
	setDefault(&o.ShutdownTimeout, 10*time.Second)
	setDefault(&o.SilentAfter, 3*time.Minute)
	if o.MaxConnections == 0 {
		o.MaxConnections = 1024
	}
	if o.Handler.Logger == nil {
		o.Handler.Logger = o.Logger
	}
	return o
}

// Run answers admission reviews until ctx ends; then it drains and returns nil. It is ready once its memory holds what the API
// server has and its certificate verifies by the webhook configurations.
func Run(ctx context.Context, restConfig *rest.Config, options RunOptions) error {
	options = options.withDefaults()
	cluster, err := newInformed(restConfig, options)
	if err != nil {
		return err
	}
	health := &health{contact: cluster.contact, silentAfter: options.SilentAfter}
	metrics := NewMetrics(cluster.Snapshot, &health.certificate)
	metrics.tellAge(cluster.lastChange, cluster.contact.oldest)
	options.Handler.Metrics, options.Handler.Compiler, cluster.metrics = metrics, cluster.compiler, metrics
	front, err := newFront(cluster, health, options)
	if err != nil {
		return err
	}

	// Servers and memory outlive ctx by the time that draining takes.
	group, running := errgroup.WithContext(context.WithoutCancel(ctx))
	memory, stop := context.WithCancel(running)
	synced, err := cluster.watch(memory)
	if err != nil {
		stop()
		return errors.Join(err, front.close())
	}
	for _, server := range front.servers {
		group.Go(server.serve)
	}
	group.Go(func() error { return unless(memory.Err() != nil, cluster.cache.Start(memory)) })
	group.Go(func() error { cluster.followCertificate(memory, options, &health.certificate); return nil })
	group.Go(func() error { cluster.contact.follow(memory, options.SilentAfter, options.Logger); return nil })
	if front.clients != nil {
		group.Go(func() error { front.clients.follow(memory, options.Logger); return nil })
	}
	group.Go(func() error {
		if err := cluster.awaitSync(memory, synced); err != nil {
			return unless(memory.Err() != nil, err)
		}
		debug.FreeOSMemory() // compiling what the API server had has left garbage behind, once
		health.synced.Store(true)
		cluster.follow(memory)
		return nil
	})
	group.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
		case <-running.Done():
		}
		return front.drain(health, options)
	})
	return group.Wait()
}

// unless returns the error unless it is expected.
func unless(expected bool, err error) error {
	if expected {
		return nil
	}
	return err
}
