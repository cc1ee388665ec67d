package webhook

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// fronted is a front on loopback, with a certificate for 127.0.0.1.
type fronted struct {
	*front

	health  *health
	metrics *Metrics
	log     *fixture.Log
	address string
	roots   *x509.CertPool
	options RunOptions
	served  sync.WaitGroup
}

func newAuthority(t *testing.T, names ...string) (ca, leaf certs.Pair) {
	t.Helper()
	ca, err := certs.NewCA(names, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err = certs.NewLeaf(ca, names, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca, leaf
}

// startFront serves a cluster. change may change the options, and whether there is a certificate.
func startFront(t *testing.T, cluster Cluster, change func(*fronted)) *fronted {
	t.Helper()
	ca, leaf := newAuthority(t, "127.0.0.1")
	f := &fronted{health: &health{contact: newContact()}, log: &fixture.Log{}, roots: x509.NewCertPool()}
	f.roots.AppendCertsFromPEM(ca.Certificate)
	f.health.synced.Store(true)
	if err := f.health.certificate.Update(leaf.Certificate, leaf.Key, ca.Certificate, []string{"127.0.0.1"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.options = RunOptions{ListenAddress: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(f.log, nil))}
	if change != nil {
		change(f)
	}
	f.options = f.options.withDefaults()
	f.metrics = NewMetrics(func() *profiles.Snapshot { return &profiles.Snapshot{} }, &f.health.certificate)
	f.options.Handler.Metrics = f.metrics
	var err error
	if f.front, err = newFront(cluster, f.health, f.options); err != nil {
		t.Fatal(err)
	}
	f.address = f.servers[0].listener.Addr().String()
	f.served.Go(func() {
		if err := f.servers[0].serve(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		_ = f.servers[0].Close()
		f.served.Wait()
	})
	return f
}

func (f *fronted) tls() *tls.Config {
	return &tls.Config{RootCAs: f.roots, MinVersion: tls.VersionTLS12}
}

// dial returns a connection that speaks HTTP/1.1.
func (f *fronted) dial(t *testing.T) net.Conn {
	t.Helper()
	connection, err := tls.Dial("tcp", f.address, f.tls())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// client returns an HTTP client with connections of its own.
func (f *fronted) client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: f.tls(), ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// await waits until a condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) { return condition(), errors.New(what) })
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fronted) has(metric string) bool {
	return strings.Contains((&counted{metrics: f.metrics}).scrape(), metric+"\n")
}

// answered sends a Pod that asks for nothing, or more than one can read, and returns the status.
func answered(t *testing.T, client *http.Client, address string, body io.Reader) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+address+profiles.PathPods, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response
}

const plainReview = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"DELETE"}}`

func TestHandshakesThatFailAreCountedByReason(t *testing.T) {
	noCertificate := func(f *fronted) { f.health.certificate = certificate{} }
	hasty := func(f *fronted) { f.options.ReadHeaderTimeout = 50 * time.Millisecond }
	tests := map[string]struct {
		change func(*fronted)
		dial   func(t *testing.T, f *fronted) error
		want   string
	}{
		"a client that does not trust the certificate": {want: handshakeUntrusted, dial: func(_ *testing.T, f *fronted) error {
			return dialWith(f.address, &tls.Config{RootCAs: x509.NewCertPool()})
		}},
		"a client that knows the server by another name": {want: handshakeUntrusted, dial: func(_ *testing.T, f *fronted) error {
			return dialWith(f.address, &tls.Config{RootCAs: f.roots, ServerName: "example.com"})
		}},
		"TLS 1.2": {want: handshakeProtocol, dial: func(_ *testing.T, f *fronted) error {
			return dialWith(f.address, &tls.Config{RootCAs: f.roots, MaxVersion: tls.VersionTLS12})
		}},
		"plain HTTP": {want: handshakeProtocol, dial: func(_ *testing.T, f *fronted) error {
			return say(f.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		}},
		"nonsense": {want: handshakeProtocol, dial: func(_ *testing.T, f *fronted) error {
			return say(f.address, strings.Repeat("\x00", 100))
		}},
		"nothing": {want: handshakeClosed, dial: func(*testing.T, *fronted) error { return nil }},
		"nothing, and no end": {change: hasty, want: handshakeTimeout, dial: func(t *testing.T, f *fronted) error {
			connection, err := net.Dial("tcp", f.address)
			if err == nil {
				t.Cleanup(func() { _ = connection.Close() })
			}
			return err
		}},
		"no certificate to present": {change: noCertificate, want: handshakeNoCertificate, dial: func(_ *testing.T, f *fronted) error {
			return dialWith(f.address, f.tls())
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, memory(t), test.change)
			if test.want == handshakeClosed {
				connection, err := net.Dial("tcp", f.address)
				if err = errors.Join(err, connection.Close()); err != nil {
					t.Fatal(err)
				}
			}
			err := test.dial(t, f)
			want := fmt.Sprintf("pillion_tls_handshake_errors_total{reason=%q} 1", test.want)
			await(t, fmt.Sprintf("%s is not counted (%v): %q", want, err, (&counted{metrics: f.metrics}).series("pillion_tls_handshake_errors_total")),
				func() bool { return f.has(want) })
			if told := strings.Contains(f.log.String(), "handshake failed"); told != (test.want == handshakeUntrusted) {
				t.Errorf("the log: %s", f.log)
			}
		})
	}
}

func dialWith(address string, config *tls.Config) error {
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // nothing was written
	_, err = connection.Read(make([]byte, 1))
	return err
}

func say(address, text string) error {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // it was only read
	if _, err = io.WriteString(connection, text); err == nil {
		_, err = io.Copy(io.Discard, connection)
	}
	return err
}

func TestAConnectionTooManyTakesThePlaceOfOneThatDoesNothing(t *testing.T) {
	f := startFront(t, memory(t), func(f *fronted) { f.options.MaxConnections = 20 })
	used := f.client(t, false)
	if response := answered(t, used, f.address, strings.NewReader(plainReview)); response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	silent := make([]net.Conn, 60)
	for i := range silent {
		connection, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = connection.Close() })
		silent[i] = connection
		if i == 19 { // as many as there may be, and all of them have had their time
			await(t, "they are not counted", func() bool { return f.reviews.open() == 20 })
			time.Sleep(2 * unusedFor)
		}
	}
	await(t, "the oldest of those that say nothing is not closed", func() bool {
		_ = silent[0].SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := silent[0].Read(make([]byte, 1))
		timeout := net.Error(nil)
		return err != nil && (!errors.As(err, &timeout) || !timeout.Timeout())
	})
	if open := f.reviews.open(); open > 20 {
		t.Errorf("%d connections are open", open)
	}
	time.Sleep(2 * unusedFor)
	for _, client := range []*http.Client{used, f.client(t, false), f.client(t, true)} {
		if response := answered(t, client, f.address, strings.NewReader(plainReview)); response.StatusCode != http.StatusOK {
			t.Error(response.Status)
		}
	}
	if f.has(`pillion_requests_rejected_total{limit="connections"} 0`) {
		t.Error("it is not counted")
	}
}

func TestASessionIsNotResumed(t *testing.T) {
	f := startFront(t, memory(t), nil)
	config := f.tls()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	for range 2 {
		connection, err := tls.Dial("tcp", f.address, config)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, connection) // a ticket would come here
		if connection.ConnectionState().DidResume {
			t.Error("it was resumed: what was trusted then would be trusted on")
		}
		_ = connection.Close()
	}
}

func TestNotReadyIsAFaultThatIsAskedAgain(t *testing.T) {
	f := startFront(t, memory(t), func(f *fronted) { f.health.synced.Store(false) })
	client, times := f.client(t, false), 0
	for _, size := range []int{len(plainReview), 2 << 20, 7 << 20} { // a client that is still writing must see the answer, too
		for range 5 {
			response := answered(t, client, f.address, strings.NewReader(plainReview+strings.Repeat(" ", size-len(plainReview))))
			if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "1" {
				t.Errorf("%d bytes: %s, Retry-After %q", size, response.Status, response.Header.Get("Retry-After"))
			}
			times++
		}
	}
	if !f.has(fmt.Sprintf(`pillion_requests_rejected_total{limit="not_ready"} %d`, times)) {
		t.Error("it is not counted")
	}
}

// frozen is a Cluster that answers once it is let.
type frozen struct {
	*informed

	asked chan struct{}
	let   chan struct{}
}

func (f *frozen) Namespace(name string) (profiles.Namespace, bool) {
	if name == "frozen" {
		f.asked <- struct{}{}
		<-f.let
	}
	return f.informed.Namespace(name)
}

func newFrozen(t *testing.T) *frozen {
	t.Helper()
	return &frozen{informed: counting(t).informed, asked: make(chan struct{}, 100), let: make(chan struct{})}
}

func podReview(namespace string) string {
	return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":"` + namespace +
		`","resource":{"version":"v1","resource":"pods"},"object":{"metadata":{"annotations":{"pillion.dev/inject":"none"}}}}}`
}

func TestAPanicHurtsOneRequest(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 is %v", http2), func(t *testing.T) {
			cluster := newFrozen(t)
			panicking := &failing{informed: cluster.informed, panic: "no"}
			f := startFront(t, &mixed{frozen: cluster, failing: panicking}, nil)
			client := f.client(t, http2)
			other := make(chan int)
			go func() { other <- answered(t, client, f.address, strings.NewReader(podReview("frozen"))).StatusCode }()
			<-cluster.asked
			asks := strings.Replace(podReview("web"), "none", "nosuch", 1)
			response := answered(t, client, f.address, strings.NewReader(asks))
			if response.StatusCode != http.StatusInternalServerError {
				t.Errorf("a panic is answered %s", response.Status)
			}
			close(cluster.let)
			if status := <-other; status != http.StatusOK {
				t.Errorf("another request of the same client is answered %d", status)
			}
			if response := answered(t, client, f.address, strings.NewReader(plainReview)); response.StatusCode != http.StatusOK {
				t.Errorf("the next request is answered %s", response.Status)
			}
			if (response.ProtoMajor == 2) != http2 {
				t.Errorf("the protocol is %s", response.Proto)
			}
			if !strings.Contains(f.log.String(), "panic in a request") || !strings.Contains(f.log.String(), "front_test.go") {
				t.Errorf("the log does not tell where: %s", f.log)
			}
		})
	}
}

// mixed freezes, and panics where the API server is asked.
type mixed struct {
	*frozen

	failing *failing
}

func (m *mixed) Live(ctx context.Context, namespace string, names []string, policy bool) (profiles.Namespace, []*profiles.Profile, error) {
	if namespace == "frozen" {
		return profiles.Namespace{Name: namespace}, nil, nil
	}
	return m.failing.Live(ctx, namespace, names, policy)
}

func TestWhileItDrainsConnectionsAreClosedByTheirNextAnswer(t *testing.T) {
	f := startFront(t, newFrozen(t), func(f *fronted) {
		f.options.DrainDelay, f.options.ShutdownTimeout = 2*time.Second, 20*time.Second
	})
	used, unused := f.dial(t), f.dial(t)
	ask := func(connection net.Conn) *http.Response {
		t.Helper()
		_, err := fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			profiles.PathPods, len(plainReview), plainReview)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return response
	}
	for _, connection := range []net.Conn{used, unused} {
		if response := ask(connection); response.Close {
			t.Fatal("it is closed before")
		}
	}
	drained := make(chan error)
	start := time.Now()
	go func() { drained <- f.drain(f.health, f.options) }()
	await(t, "readiness does not fail first", f.health.draining.Load)
	if response := ask(used); response.StatusCode != http.StatusOK || !response.Close {
		t.Errorf("the answer is %s, and closes the connection: %v", response.Status, response.Close)
	}
	if response := ask(f.dial(t)); response.StatusCode != http.StatusOK || !response.Close {
		t.Errorf("one that is new is answered %s, and closed: %v", response.Status, response.Close)
	}
	if response := answered(t, f.client(t, true), f.address, strings.NewReader(plainReview)); response.StatusCode != http.StatusOK {
		t.Errorf("HTTP/2 is answered %s", response.Status)
	}
	// Past the delay, one that was not used is still answered, and nobody is left to wait for then.
	time.Sleep(time.Until(start.Add(f.options.DrainDelay + 200*time.Millisecond)))
	if response := ask(unused); response.StatusCode != http.StatusOK || !response.Close {
		t.Errorf("one that was not used meanwhile is answered %s, and closed: %v", response.Status, response.Close)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*f.options.DrainDelay {
		t.Errorf("it waited for %s though no connection was left", took)
	}
}

func TestADrainWaitsForWhatIsInFlight(t *testing.T) {
	cluster := newFrozen(t)
	f := startFront(t, cluster, nil)
	status := make(chan int)
	go func() {
		status <- answered(t, f.client(t, false), f.address, strings.NewReader(podReview("frozen"))).StatusCode
	}()
	<-cluster.asked
	drained := make(chan error)
	go func() { drained <- f.drain(f.health, f.options) }()
	await(t, "it goes on listening", func() bool {
		_, err := net.Dial("tcp", f.address)
		return err != nil
	})
	select {
	case err := <-drained:
		t.Fatalf("it ended with a request in flight: %v", err)
	default:
	}
	close(cluster.let)
	if got := <-status; got != http.StatusServiceUnavailable && got != http.StatusOK {
		t.Errorf("it is answered %d", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
