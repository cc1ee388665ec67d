// Package metricsproxy serves one URL of an exporter that listens on loopback to whoever may scrape it, and nothing else of that
// exporter: some would ask any target that a request names (docs/decisions/0002-json-adapter-behind-a-proxy.md).
package metricsproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// ReadyPath answers 200 as soon as the proxy serves, whatever the exporter does.
const ReadyPath = "/-/ready"

const (
	// scrapeTimeout bounds one scrape. Prometheus gives up after 10 s unless it is told otherwise.
	scrapeTimeout = 30 * time.Second
	// maxBody is the most that a scrape may answer, in bytes. A longer answer is broken off, so that no half of it is stored.
	maxBody = 32 << 20

	dialTimeout     = 2 * time.Second
	headerTimeout   = 5 * time.Second
	idleTimeout     = time.Minute
	shutdownTimeout = 2 * time.Second
	maxHeader       = 16 << 10
)

// Options say what is served.
type Options struct {
	// Upstream is fetched for every scrape, as it is: see ParseUpstream.
	Upstream *url.URL
	// Path is the one path that is served, by GET and HEAD. What the request's query says is dropped.
	Path string
	// Log gets the errors of scrapes.
	Log *slog.Logger
}

// ParseUpstream reads the URL of an exporter: http, on loopback.
func ParseUpstream(raw string) (*url.URL, error) {
	upstream, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("parse the upstream: %w", err)
	}
	host := upstream.Hostname()
	address := net.ParseIP(host)
	if upstream.Scheme != "http" || host != "localhost" && (address == nil || !address.IsLoopback()) {
		return nil, fmt.Errorf("upstream %q is not on loopback: write a URL such as http://127.0.0.1:17979/metrics", raw)
	}
	return upstream, nil
}

// Handler serves the options' path from their upstream.
func Handler(options Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+options.Path, scrape(options))
	mux.HandleFunc("GET "+ReadyPath, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

func scrape(options Options) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { rewrite(r.Out, r.In, options.Upstream) },
		ModifyResponse: limit,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     idleTimeout,
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			options.Log.Error("the exporter did not answer", "error", err)
			http.Error(w, "the exporter did not answer", http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(options.Log.Handler(), slog.LevelWarn),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), scrapeTimeout)
		defer cancel()
		proxy.ServeHTTP(w, r.WithContext(ctx))
	})
}

// rewrite makes a request of its own, to which the scraper contributes the method and the formats that it takes.
func rewrite(out, in *http.Request, upstream *url.URL) {
	target := *upstream
	out.URL = &target
	out.Host = ""
	out.Body = http.NoBody
	out.ContentLength = 0
	out.TransferEncoding = nil
	out.Trailer = nil
	out.Header = http.Header{}
	for _, name := range []string{"Accept", "Accept-Encoding", "X-Prometheus-Scrape-Timeout-Seconds"} {
		if values := in.Header.Values(name); len(values) > 0 {
			out.Header[name] = values
		}
	}
}

// limit refuses a redirect, which the scraper would follow to elsewhere, and caps the body.
func limit(response *http.Response) error {
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return fmt.Errorf("the exporter redirects to %q", response.Header.Get("Location"))
	}
	if response.ContentLength > maxBody {
		return errTooLong
	}
	response.Body = &cappedBody{ReadCloser: response.Body, left: maxBody}
	return nil
}

var errTooLong = errors.New("the exporter's answer is too long")

// cappedBody fails behind its limit, unlike io.LimitReader, which would end there.
type cappedBody struct {
	io.ReadCloser
	left int64
}

func (b *cappedBody) Read(buffer []byte) (int, error) {
	n, err := b.ReadCloser.Read(buffer)
	b.left -= int64(n)
	if b.left < 0 {
		return n, errTooLong
	}
	return n, err
}

// Serve answers on the listener until the context ends.
func Serve(ctx context.Context, listener net.Listener, options Options) error {
	server := &http.Server{
		Handler:           Handler(options),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      scrapeTimeout + headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(options.Log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return fmt.Errorf("end the metrics server: %w", err)
	}
	return nil
}
