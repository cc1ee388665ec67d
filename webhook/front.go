package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// maxHeaderBytes is what the headers of a request may hold; the API server's hold a few hundred bytes.
	maxHeaderBytes = 16 << 10
	// maxStreams is how many requests one HTTP/2 connection may have at a time, and maxAllStreams how many all of them together.
	maxStreams, maxAllStreams = 100, 2048
	// frameBytes and windowBytes are the least that an HTTP/2 connection may be given for a frame and for what is not read yet. A server
	// makes room for a frame as soon as its length is there, so that the default of a megabyte could be had for nine bytes.
	frameBytes, windowBytes = 16 << 10, 64 << 10
	// maxPlainConnections is how many connections there may be where health and metrics are served.
	maxPlainConnections = 64
)

// front is what others reach of the process.
type front struct {
	servers []boundServer // that of admission reviews is the first
	reviews *connections
	clients *clientCA // nil: clients present no certificate
}

func newFront(cluster Cluster, health *health, options RunOptions) (*front, error) {
	metrics := options.Handler.Metrics
	f := &front{reviews: newConnections(options.MaxConnections, func() { metrics.rejected(limitConnections) })}
	metrics.tellConnections(f.reviews.open)
	config := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: health.certificate.GetCertificate,
		// A session that is resumed would be trusted by what held when it began: an earlier certificate, an earlier clientCA. The API
		// server resumes none.
		SessionTicketsDisabled: true,
	}
	if options.ClientCA != "" {
		clients, err := newClientCA(options.ClientCA, options.ClientNames, config)
		if err != nil {
			return nil, err
		}
		f.clients = clients
		config = config.Clone()
		config.GetConfigForClient = clients.forClient
		metrics.tellClientCA(clients)
	}
	reviews := newServer(boundStreams(health.gate(NewHandler(cluster, options.Handler), options.Logger, metrics), metrics), options)
	reviews.TLSConfig = config
	reviews.ConnState = (&handshakes{metrics: metrics, logger: options.Logger}).noteState
	plain := func(handler http.Handler) *http.Server {
		server := newServer(guarded(handler, options.Logger, metrics), options)
		server.ConnState = noteState
		return server
	}
	few := func() *connections { return newConnections(maxPlainConnections, func() {}) }
	var err error
	f.servers, err = listen([]listener{
		{options.ListenAddress, reviews, f.reviews},
		{options.HealthAddress, plain(health.handler()), few()},
		{options.MetricsAddress, plain(metrics.handler()), few()},
	}, options.Logger)
	return f, err
}

// newServer returns a server with bounds for whoever does not keep up.
func newServer(handler http.Handler, options RunOptions) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: options.ReadHeaderTimeout,
		ReadTimeout:       options.ReadTimeout,
		WriteTimeout:      options.WriteTimeout,
		IdleTimeout:       options.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: frameBytes,
			MaxReceiveBufferPerConnection: windowBytes, MaxReceiveBufferPerStream: windowBytes,
		},
		ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug), // what others break off
	}
}

// boundStreams resets requests of HTTP/2 of which there are too many even to be refused: who reads no answers could have them pile up,
// each with its headers. The API server speaks HTTP/1.1 to webhooks, where a connection has one request.
func boundStreams(next http.Handler, metrics *Metrics) http.Handler {
	var streams atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 {
			defer streams.Add(-1)
			if streams.Add(1) > maxAllStreams {
				metrics.rejected(limitStreams)
				panic(http.ErrAbortHandler)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// listener is a server, the address that it is to listen on and its connections. An empty address: it is not wanted.
type listener struct {
	address     string
	server      *http.Server
	connections *connections
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
		bound = append(bound, boundServer{l.server, l.connections.limit(opened)})
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

// close ends servers that have not begun to serve.
func (f *front) close() error {
	var errs []error
	for _, server := range f.servers {
		errs = append(errs, server.listener.Close())
	}
	return errors.Join(errs...)
}

// drain fails readiness first, serves until endpoints have moved on, and then lets requests in flight finish.
//
// A client that keeps a connection learns that it is to go by the answer to its next request. To close it without one would lose
// a request that is just being written, which the API server does not send again. So connections that were not used since are
// kept open for as long as the delay was, once more, and answered if they are used after all. What is quiet even then is
// closed: clients take the connection that they used last, so it is one that they hardly need.
func (f *front) drain(health *health, options RunOptions) error {
	health.draining.Store(true)
	options.Logger.Info("draining: not ready any more, and serving on", "for", options.DrainDelay.String(), "connections", f.reviews.open())
	time.Sleep(options.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), options.ShutdownTimeout)
	defer cancel()
	f.linger(ctx, options.DrainDelay)
	options.Logger.Info("shutting down", "connections", f.reviews.open())
	var errs []error
	for _, server := range f.servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("shut down: %w", err))
		}
	}
	return errors.Join(errs...)
}

// linger returns once all connections have gone, after some time at the latest.
func (f *front) linger(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	const every = 20 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for f.reviews.open() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
