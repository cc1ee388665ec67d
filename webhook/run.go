package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/certs"
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

	// ReadHeaderTimeout, ReadTimeout, WriteTimeout and IdleTimeout bound connections. Defaults: 5 s, 10 s, 15 s, 2 min.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration

	// DrainDelay is how long requests are served after readiness has failed, for endpoints to move on; ShutdownTimeout bounds
	// the requests that are in flight then. Defaults: none, 10 s.
	DrainDelay, ShutdownTimeout time.Duration

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
	if o.Handler.Logger == nil {
		o.Handler.Logger = o.Logger
	}
	return o
}

// maxHeaderBytes is what the headers of a request may hold; the API server's hold a few hundred bytes.
const maxHeaderBytes = 64 << 10

// Run answers admission reviews until ctx ends; then it drains and returns nil. It is ready once its memory holds what the API
// server has and its certificate verifies by the webhook configuration.
func Run(ctx context.Context, restConfig *rest.Config, options RunOptions) error {
	options = options.withDefaults()
	cluster, err := newInformed(restConfig, options)
	if err != nil {
		return err
	}
	health := &health{}
	serving := &certs.Serving{}
	options.Handler.Metrics, options.Handler.Compiler = NewMetrics(cluster.Snapshot, serving), cluster.compiler
	options.Handler.Metrics.tellAge(cluster.lastChange, cluster.contact.oldest)
	servers, err := listen([]listener{
		{options.ListenAddress, newServer(NewHandler(cluster, options.Handler), serving, options)},
		{options.HealthAddress, newPlainServer(health.handler(serving), options)},
		{options.MetricsAddress, newPlainServer(options.Handler.Metrics.handler(), options)},
	}, options.Logger)
	if err != nil {
		return err
	}

	// Servers and memory outlive ctx by the time that draining takes.
	group, running := errgroup.WithContext(context.WithoutCancel(ctx))
	memory, stop := context.WithCancel(running)
	synced, err := cluster.watch(memory)
	if err != nil {
		stop()
		return err
	}
	for _, server := range servers {
		group.Go(server.serve)
	}
	group.Go(func() error { return unless(memory.Err() != nil, cluster.cache.Start(memory)) })
	group.Go(func() error {
		if err := cluster.awaitSync(memory, synced); err != nil {
			return unless(memory.Err() != nil, err)
		}
		debug.FreeOSMemory() // compiling what the API server had has left garbage behind, once
		health.synced.Store(true)
		group.Go(func() error { cluster.follow(memory); return nil })
		cluster.followCertificate(memory, options, serving)
		return nil
	})
	group.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
		case <-running.Done():
		}
		return drain(options, health, servers)
	})
	return group.Wait()
}

// newServer returns the server of admission reviews: TLS 1.3, and bounds for whoever does not keep up.
func newServer(handler http.Handler, serving *certs.Serving, options RunOptions) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: serving.GetCertificate},
		ReadHeaderTimeout: options.ReadHeaderTimeout,
		ReadTimeout:       options.ReadTimeout,
		WriteTimeout:      options.WriteTimeout,
		IdleTimeout:       options.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug), // handshakes that others break off
	}
}

// newPlainServer returns a server of what is not for the API server, over HTTP.
func newPlainServer(handler http.Handler, options RunOptions) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: options.ReadHeaderTimeout, ReadTimeout: options.ReadTimeout,
		WriteTimeout: options.WriteTimeout, IdleTimeout: options.IdleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug),
	}
}

// listener is a server and the address that it is to listen on. Empty: it is not wanted.
type listener struct {
	address string
	server  *http.Server
}

// boundServer is a server with the listener that it serves.
type boundServer struct {
	*http.Server
	listener net.Listener
}

// listen opens all addresses, or none.
func listen(wanted []listener, logger *slog.Logger) ([]boundServer, error) {
	var bound []boundServer
	for _, l := range wanted {
		if l.address == "" {
			continue
		}
		opened, err := net.Listen("tcp", l.address)
		if err != nil {
			errs := []error{fmt.Errorf("listen on %s: %w", l.address, err)}
			for _, b := range bound {
				errs = append(errs, b.listener.Close())
			}
			return nil, errors.Join(errs...)
		}
		logger.Info("listening", "address", opened.Addr().String())
		bound = append(bound, boundServer{l.server, opened})
	}
	return bound, nil
}

// serve serves until the server is shut down; TLS if it has certificates.
func (s boundServer) serve() error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(s.listener, "", "")
	} else {
		err = s.Serve(s.listener)
	}
	return unless(errors.Is(err, http.ErrServerClosed), err)
}

// unless returns the error unless it is expected.
func unless(expected bool, err error) error {
	if expected {
		return nil
	}
	return err
}

// drain fails readiness first, serves until endpoints have moved on, and then lets requests in flight finish.
func drain(options RunOptions, health *health, servers []boundServer) error {
	health.draining.Store(true)
	if options.DrainDelay > 0 {
		time.Sleep(options.DrainDelay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), options.ShutdownTimeout)
	defer cancel()
	var errs []error
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("shut down: %w", err))
		}
	}
	return errors.Join(errs...)
}

// health is what /readyz tells.
type health struct {
	synced, draining atomic.Bool
}

func (h *health) handler(serving *certs.Serving) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case h.draining.Load():
			http.Error(w, "not ready: shutting down", http.StatusServiceUnavailable)
		case !h.synced.Load():
			http.Error(w, "not ready: profiles and namespaces have not been read yet", http.StatusServiceUnavailable)
		case serving.Leaf() == nil || time.Now().After(serving.Leaf().NotAfter):
			http.Error(w, "not ready: there is no certificate that the API server would accept", http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte("ok\n"))
		}
	})
	return mux
}
