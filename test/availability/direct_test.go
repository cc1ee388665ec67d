package availability

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/installation"
)

// answer is how a replica answered a review.
type answer string

const (
	woven     answer = "woven"
	untouched answer = "untouched"
	warned    answer = "warned"
	denied    answer = "denied"
	// limited is HTTP 429 with Retry-After: 1, which the API server tries again.
	limited  answer = "asked to try again (429)"
	tooLarge answer = "refused as too large (413)"
	// wrong is everything else: another status, no answer at all, an answer to something else.
	wrong answer = "wrong"
)

// review is an admission review to send, and the answer that it has to get.
type review struct {
	path string
	body []byte
	want answer
}

// reviewOf makes the review of an object.
func (c *cluster) reviewOf(t *testing.T, path string, resource metav1.GroupVersionResource, object any, want answer) *review {
	t.Helper()
	raw, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	request := &admissionv1.AdmissionRequest{
		UID: "0123", Namespace: c.namespace, Operation: admissionv1.Create, Resource: resource,
	}
	request.Object.Raw = raw
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &review{path: path, body: body, want: want}
}

// podReview is the review of a Pod with annotations, given as keys and values.
func (c *cluster) podReview(t *testing.T, want answer, annotations ...string) *review {
	t.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, GenerateName: "app-", Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	for pair := range slices.Chunk(annotations, 2) {
		pod.Annotations[pair[0]] = pair[1]
	}
	return c.reviewOf(t, profiles.PathPods, metav1.GroupVersionResource{Version: "v1", Resource: "pods"}, pod, want)
}

// askingReview is the review of a Pod that is woven.
func (c *cluster) askingReview(t *testing.T) *review {
	t.Helper()
	return c.podReview(t, woven, v1alpha1.InjectKey, askedProfile)
}

// padded is a review that is as large as asked: what JSON leaves out is added.
func (r *review) padded(size int) *review {
	larger := *r
	larger.body = append(slices.Clone(r.body), bytes.Repeat([]byte(" "), size-len(r.body))...)
	return &larger
}

// direct sends reviews straight to the listener of a replica.
type direct struct {
	url     string
	clients []*http.Client
	turn    atomic.Uint64
}

// protocols are the connections of a direct: how many idle ones of HTTP/1.1 are kept, and how many there are of HTTP/2, which carry many
// requests at once.
type protocols struct{ http1, http2 int }

// newDirect returns what sends reviews to a replica. Each handshake is verified as an API server would: by what roots is then.
func newDirect(t *testing.T, replica *installation.Replica, roots *atomic.Pointer[x509.CertPool], p protocols) *direct {
	t.Helper()
	d := &direct{url: "https://" + replica.Address}
	add := func(idle int, protocol string) {
		transport := &http.Transport{
			MaxIdleConnsPerHost: idle, IdleConnTimeout: time.Minute, DisableCompression: true, ExpectContinueTimeout: time.Minute,
			ForceAttemptHTTP2: protocol == "h2",
			DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				config := trusting(roots.Load())
				config.NextProtos = []string{protocol}
				dialer := tls.Dialer{Config: config}
				return dialer.DialContext(ctx, network, replica.Address)
			},
		}
		t.Cleanup(transport.CloseIdleConnections)
		d.clients = append(d.clients, &http.Client{Transport: transport, Timeout: time.Minute})
	}
	for range p.http2 {
		add(1, "h2")
	}
	if p.http1 > 0 {
		add(p.http1, "http/1.1")
	}
	return d
}

// client returns the clients in turn.
func (d *direct) client() *http.Client { return d.clients[d.turn.Add(1)%uint64(len(d.clients))] }

// send sends a review and says how it was answered. The error tells what is wrong with an answer that is not the one awaited.
func (d *direct) send(ctx context.Context, r *review) (answer, error) {
	return d.post(ctx, d.client(), r, bytes.NewReader(r.body), nil)
}

// sendAndLeave does the same and asks for the connection to be closed.
func (d *direct) sendAndLeave(ctx context.Context, r *review) (answer, error) {
	return d.post(ctx, d.client(), r, bytes.NewReader(r.body), func(request *http.Request) { request.Close = true })
}

func (d *direct) post(
	ctx context.Context, client *http.Client, r *review, body io.Reader, change func(*http.Request),
) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+r.path, body)
	if err != nil {
		return wrong, err
	}
	request.Header.Set("Content-Type", "application/json")
	if change != nil {
		change(request)
	}
	response, err := client.Do(request)
	if err != nil {
		return wrong, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return wrong, fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode == http.StatusTooManyRequests && response.Header.Get("Retry-After") == "1" {
		return limited, fmt.Errorf("HTTP 429: %.200s", text)
	}
	if response.StatusCode == http.StatusRequestEntityTooLarge {
		return tooLarge, fmt.Errorf("HTTP 413: %.200s", text)
	}
	if response.StatusCode != http.StatusOK {
		return wrong, fmt.Errorf("HTTP %d, Retry-After %q: %.200s", response.StatusCode, response.Header.Get("Retry-After"), text)
	}
	got := classify(text)
	if got != r.want {
		return got, fmt.Errorf("it is %s and has to be %s: %.200s", got, r.want, text)
	}
	return got, nil
}

// classify reads the answer to a review.
func classify(text []byte) answer {
	answered := admissionv1.AdmissionReview{}
	if err := json.Unmarshal(text, &answered); err != nil || answered.Response == nil || answered.Response.UID != "0123" {
		return wrong
	}
	switch response := answered.Response; {
	case !response.Allowed:
		return denied
	case bytes.Contains(response.Patch, []byte(`"pillion-`+askedProfile+`"`)):
		return woven
	case len(response.Patch) > 0:
		return wrong
	case len(response.Warnings) > 0:
		return warned
	default:
		return untouched
	}
}

// held is a request of which a replica has got the headers and is waiting for the body: in flight until it is released.
type held struct {
	inFlight chan struct{} // closed when the replica reads the body
	release  func()
	ended    chan struct{}
	answer   answer
	err      error
}

// hold sends the headers of a review, and keeps its body back. The client says that it expects to be told to go on (100 Continue), which
// a server does as soon as it reads the body.
func (d *direct) hold(ctx context.Context, r *review) *held {
	released := make(chan struct{})
	h := &held{
		inFlight: make(chan struct{}), ended: make(chan struct{}), release: sync.OnceFunc(func() { close(released) }),
	}
	body := &heldBack{released: released, dropped: make(chan struct{}), body: bytes.NewReader(r.body)}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { close(h.inFlight) }})
	go func() {
		defer close(h.ended)
		h.answer, h.err = d.post(ctx, d.client(), r, body, func(request *http.Request) {
			request.ContentLength = int64(len(r.body))
			request.Header.Set("Expect", "100-continue")
		})
	}()
	return h
}

// isHeld returns once the request is in flight, or with false once it has been answered without.
func (h *held) isHeld() bool {
	select {
	case <-h.inFlight:
		return true
	case <-h.ended:
		return false
	}
}

// await returns how the request was answered.
func (h *held) await() (answer, error) {
	<-h.ended
	return h.answer, h.err
}

// heldBack is a body that comes once it is released.
type heldBack struct {
	released, dropped chan struct{}
	drop              sync.Once
	body              io.Reader
}

// Read implements io.Reader.
func (b *heldBack) Read(p []byte) (int, error) {
	select {
	case <-b.released:
		return b.body.Read(p)
	case <-b.dropped:
		return 0, errors.New("nobody reads it any more")
	}
}

// Close implements io.Closer.
func (b *heldBack) Close() error {
	b.drop.Do(func() { close(b.dropped) })
	return nil
}

// tally counts answers.
type tally struct {
	mu     sync.Mutex
	counts map[answer]int
	took   []time.Duration // of the answers that were awaited
	faults []string        // the first ones
	faulty int
}

// add counts an answer. It is a fault unless it is the one awaited, or one that will do.
func (y *tally) add(got answer, err error, took time.Duration, willDo ...answer) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.counts == nil {
		y.counts = map[answer]int{}
	}
	y.counts[got]++
	switch {
	case slices.Contains(willDo, got):
	case err != nil:
		y.faulty++
		if len(y.faults) < 10 {
			y.faults = append(y.faults, fmt.Sprintf("%s: %s", time.Now().Format("15:04:05.000"), err))
		}
	default:
		y.took = append(y.took, took)
	}
}

func (y *tally) count(of answer) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.counts[of]
}

func (y *tally) all() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	all := 0
	for _, n := range y.counts {
		all += n
	}
	return all
}

// quantile returns how long that part of the answers took at most.
func (y *tally) quantile(part float64) time.Duration {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.took) == 0 {
		return 0
	}
	slices.Sort(y.took)
	return y.took[min(int(part*float64(len(y.took))), len(y.took)-1)]
}

// String tells the counts.
func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var parts []string
	for _, kind := range []answer{woven, untouched, warned, denied, limited, tooLarge, wrong} {
		if n := y.counts[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return strings.Join(parts, ", ")
}

// report fails the test for what is wrong.
func (y *tally) report(t *testing.T, of string) {
	t.Helper()
	t.Logf("%s: attempted: %d (%s); failed: %d; p50 %s, p99 %s", of, y.all(), y, y.faulty, tidy(y.quantile(.5)), tidy(y.quantile(.99)))
	for _, fault := range y.faults {
		t.Errorf("%s: %s", of, fault)
	}
}

// tidy rounds a time for people.
func tidy(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// pace does something as many times a second until ctx ends, on so many workers. Each time has its moment; who is late goes on at once,
// so that the rate is kept over time, and is told when it was due: the wait counts.
func pace(ctx context.Context, rate, workers int, do func(n int64, due time.Time)) {
	var next atomic.Int64
	start := time.Now()
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			timer := time.NewTimer(0)
			defer timer.Stop()
			for {
				n := next.Add(1) - 1
				due := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
				timer.Reset(time.Until(due))
				select {
				case <-ctx.Done():
					return
				case <-timer.C:
					do(n, due)
				}
			}
		})
	}
	group.Wait()
}

// run sends a review as many times a second until ctx ends, and counts the answers.
func (d *direct) run(ctx context.Context, rate, workers int, reviews []*review) *tally {
	answers := &tally{}
	pace(ctx, rate, workers, func(n int64, due time.Time) {
		send := d.send
		if n%renewEvery == renewEvery-1 {
			send = d.sendAndLeave
		}
		got, err := send(context.WithoutCancel(ctx), reviews[n%int64(len(reviews))])
		answers.add(got, err, time.Since(due))
	})
	return answers
}

// renewEvery is after how many reviews a connection is closed.
const renewEvery = 50

// followLeaves dials a replica a few times a second until ctx ends, and returns what tells how many serving certificates were seen.
func (c *cluster) followLeaves(
	ctx context.Context, t *testing.T, group *sync.WaitGroup, replica *installation.Replica, roots *atomic.Pointer[x509.CertPool],
) (seen func() int) {
	t.Helper()
	var mu sync.Mutex
	serials := map[string]bool{}
	group.Go(func() {
		every(ctx, 300*time.Millisecond, func() {
			dialer := tls.Dialer{Config: trusting(roots.Load())}
			connection, err := dialer.DialContext(ctx, "tcp", replica.Address)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("dial %s: %s", replica.Address, err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			serials[connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
			_ = connection.Close() // nothing was said
		})
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(serials)
	}
}
