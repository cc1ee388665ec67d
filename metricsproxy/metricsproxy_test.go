package metricsproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// upstreamRequest is what the exporter sees of a scrape.
type upstreamRequest struct {
	Method, URI, Body string
	Header            http.Header
}

func TestHandler(t *testing.T) {
	const wantURI = "/probe?module=default&target=http%3A%2F%2Flocalhost%2F"
	tests := map[string]struct {
		method, path string
		wantStatus   int
		wantBody     string
		wantUpstream string
	}{
		"a scrape is answered from the upstream URL": {
			method: http.MethodGet, path: "/metrics",
			wantStatus: http.StatusOK, wantBody: "up 1\n", wantUpstream: "GET " + wantURI,
		},
		"HEAD is answered without a body": {
			method: http.MethodHead, path: "/metrics",
			wantStatus: http.StatusOK, wantUpstream: "HEAD " + wantURI,
		},
		"the client's query is dropped": {
			method: http.MethodGet, path: "/metrics?target=http://169.254.169.254/&module=other",
			wantStatus: http.StatusOK, wantBody: "up 1\n", wantUpstream: "GET " + wantURI,
		},
		"the exporter's own path is not found": {
			method: http.MethodGet, path: "/probe?target=http://x/",
			wantStatus: http.StatusNotFound, wantBody: "404 page not found\n",
		},
		"a path below the served one is not found": {
			method: http.MethodGet, path: "/metrics/x",
			wantStatus: http.StatusNotFound, wantBody: "404 page not found\n",
		},
		"the root is not found": {
			method: http.MethodGet, path: "/",
			wantStatus: http.StatusNotFound, wantBody: "404 page not found\n",
		},
		"a POST is not allowed": {
			method: http.MethodPost, path: "/metrics",
			wantStatus: http.StatusMethodNotAllowed, wantBody: "Method Not Allowed\n",
		},
		"readiness is answered without an upstream": {
			method: http.MethodGet, path: ReadyPath,
			wantStatus: http.StatusOK, wantBody: "ok\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var asked string
			upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.RequestURI
				fmt.Fprint(w, "up 1\n")
			})
			upstream.Path, upstream.RawQuery = "/probe", "module=default&target=http%3A%2F%2Flocalhost%2F"
			response, body := ask(t, Handler(optionsFor(upstream)), test.method, test.path, nil)
			got := []any{response.StatusCode, body, asked}
			if diff := cmp.Diff([]any{test.wantStatus, test.wantBody, test.wantUpstream}, got); diff != "" {
				t.Errorf("status, body and what the upstream was asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHandlerSendsNothingOfTheClientsButFormats(t *testing.T) {
	var got upstreamRequest
	upstream := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = upstreamRequest{Method: r.Method, URI: r.RequestURI, Body: string(body), Header: r.Header}
	})
	header := http.Header{
		"Accept": {"application/openmetrics-text"}, "Accept-Encoding": {"gzip"}, "User-Agent": {"Prometheus"},
		"Authorization": {"Bearer x"}, "Cookie": {"a=b"},
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "X-Forwarded-For": {"203.0.113.1"},
	}
	ask(t, Handler(optionsFor(upstream)), http.MethodGet, "/metrics", header)
	want := upstreamRequest{Method: http.MethodGet, URI: "/", Header: http.Header{
		"Accept": {"application/openmetrics-text"}, "Accept-Encoding": {"gzip"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the upstream was asked (-want +got):\n%s", diff)
	}
}

func TestHandlerRefusesAnswers(t *testing.T) {
	tests := map[string]struct {
		answer     http.HandlerFunc
		wantStatus int
	}{
		"a redirect, which the scraper would follow": {
			answer: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://example.com/", http.StatusFound)
			},
			wantStatus: http.StatusBadGateway,
		},
		"a body that says it is too long": {
			answer:     func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "33554433") },
			wantStatus: http.StatusBadGateway,
		},
		"an exporter that breaks the connection off": {
			answer:     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			wantStatus: http.StatusBadGateway,
		},
		"an error of the exporter is handed on": {
			answer:     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
			wantStatus: http.StatusServiceUnavailable,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			response, _ := ask(t, Handler(optionsFor(newUpstream(t, test.answer))), http.MethodGet, "/metrics", nil)
			if response.StatusCode != test.wantStatus {
				t.Errorf("status %d, want %d", response.StatusCode, test.wantStatus)
			}
		})
	}
}

func TestHandlerBreaksOffABodyWithoutAnEnd(t *testing.T) {
	upstream := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := []byte(strings.Repeat("x", 1<<20))
		for range maxBody>>20 + 2 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	front := httptest.NewServer(Handler(optionsFor(upstream)))
	defer front.Close()
	response, err := http.Get(front.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(t, response)
	if n, err := io.Copy(io.Discard, response.Body); err == nil || n > maxBody+1<<20 {
		t.Errorf("read %d bytes and error %v, want about %d and an error", n, err, maxBody)
	}
}

func TestParseUpstream(t *testing.T) {
	tests := map[string]struct {
		raw    string
		wantOK bool
	}{
		"127.0.0.1 with a query is taken": {raw: "http://127.0.0.1:17979/probe?target=x", wantOK: true},
		"localhost is taken":              {raw: "http://localhost:1/metrics", wantOK: true},
		"IPv6 loopback is taken":          {raw: "http://[::1]:1/metrics", wantOK: true},
		"another host is refused":         {raw: "http://169.254.169.254/"},
		"a name that begins as localhost": {raw: "http://localhost.example.com/"},
		"https is refused":                {raw: "https://127.0.0.1/"},
		"no URL is refused":               {raw: "http://127.0.0.1:x/"},
		"nothing is refused":              {raw: ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseUpstream(test.raw); (err == nil) != test.wantOK {
				t.Errorf("ParseUpstream(%q) = %v, want ok: %t", test.raw, err, test.wantOK)
			}
		})
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener, optionsFor(&url.URL{Scheme: "http", Host: "127.0.0.1:1"})) }()
	response, err := http.Get("http://" + listener.Addr().String() + ReadyPath)
	if err != nil {
		t.Fatal(err)
	}
	closeBody(t, response)
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still serving 10 s after the context ended")
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), listener, optionsFor(&url.URL{})); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() = %v, want %v", err, net.ErrClosed)
	}
}

func optionsFor(upstream *url.URL) Options {
	return Options{Upstream: upstream, Path: "/metrics", Log: slog.New(slog.DiscardHandler)}
}

func newUpstream(t *testing.T, answer http.HandlerFunc) *url.URL {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	upstream, err := ParseUpstream(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return upstream
}

func ask(t *testing.T, handler http.Handler, method, path string, header http.Header) (*http.Response, string) {
	t.Helper()
	front := httptest.NewServer(handler)
	t.Cleanup(front.Close)
	request, err := http.NewRequestWithContext(t.Context(), method, front.URL+path, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(t, response)
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func closeBody(t *testing.T, response *http.Response) {
	t.Helper()
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
}
