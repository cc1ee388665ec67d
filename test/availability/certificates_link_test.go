package availability

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// lag is how much later what passes arrives. It may be changed while things pass; nothing overtakes what was there before.
type lag struct{ by atomic.Int64 }

func (l *lag) set(d time.Duration) { l.by.Store(int64(d)) }

// copyTo writes what comes from a reader, late, until the reader or the writer ends.
func (l *lag) copyTo(to io.Writer, from io.Reader) error {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces, done := make(chan piece, 4096), make(chan struct{})
	defer close(done)
	ended := make(chan error, 1)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 16<<10)
			n, err := from.Read(data)
			if n > 0 {
				select {
				case pieces <- piece{data[:n], time.Now().Add(time.Duration(l.by.Load()))}:
				case <-done:
					return
				}
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for piece := range pieces {
		time.Sleep(time.Until(piece.due))
		if _, err := to.Write(piece.data); err != nil {
			return err
		}
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// link is a way to an address on which what comes back lags.
type link struct {
	lag
	address string
}

// newLink opens a way to an address until the test ends.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	l := &link{address: listener.Addr().String()}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.connect(near, to)
		}
	}()
	return l
}

func (l *link) connect(near net.Conn, to string) {
	defer near.Close() //nolint:errcheck // its other end has gone
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.Close() // copyTo ends
	}()
	_ = l.copyTo(near, far)
}

// newLinkOf has a client reach its API server by a new link.
func newLinkOf(t *testing.T, config *rest.Config) *link {
	t.Helper()
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(t, server.Host)
	config.Host = "https://" + l.address
	return l
}

// newEtcdWatchLag puts a proxy before etcd, until the test ends, through which everything is as it is but for watches: what they tell
// lags. It returns where it is.
func newEtcdWatchLag(t *testing.T, etcd *url.URL) (*lag, *url.URL) {
	t.Helper()
	watches := &lag{}
	plain := &http.Protocols{} // gRPC without TLS
	plain.SetUnencryptedHTTP2(true)
	plain.SetHTTP1(true)
	onlyHTTP2 := &http.Protocols{}
	onlyHTTP2.SetUnencryptedHTTP2(true)
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(etcd) },
		Transport:     &http.Transport{Protocols: onlyHTTP2},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // a watch that ends is nothing to tell of
		ModifyResponse: func(response *http.Response) error {
			if strings.HasSuffix(response.Request.URL.Path, "/Watch") {
				response.Body = watches.body(response.Body)
			}
			return nil
		},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: proxy, Protocols: plain, ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }() // until it is closed
	return watches, &url.URL{Scheme: "http", Host: listener.Addr().String()}
}

// body is a body that lags.
func (l *lag) body(body io.ReadCloser) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() { _ = writer.CloseWithError(l.copyTo(writer, body)) }()
	return lateBody{reader, body}
}

type lateBody struct {
	*io.PipeReader
	body io.Closer
}

func (b lateBody) Close() error { return errors.Join(b.PipeReader.Close(), b.body.Close()) }
