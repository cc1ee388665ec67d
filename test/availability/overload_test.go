package availability

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

const (
	// fewRequests is the limit of requests in flight in these tests.
	fewRequests = 16
	// overload is how many times the limit is asked for at once.
	overload = 4
	// mostRecovery is how soon after the overload a replica has to answer everything again.
	mostRecovery = 2 * time.Second
)

// TestOverloadIsRefusedAndForgotten asks replicas for more than they may do, in every way: all answers are right or HTTP 429, whoever
// does not keep up harms nobody else, and nothing is left of it afterwards.
func TestOverloadIsRefusedAndForgotten(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{
		WebhookEnv: []string{
			"PILLION_WEBHOOK_DRAIN_DELAY=0s", // nothing is lost at the end of a test
			fmt.Sprintf("PILLION_WEBHOOK_MAX_REQUESTS_IN_FLIGHT=%d", fewRequests),
			fmt.Sprintf("PILLION_WEBHOOK_MAX_BYTES_IN_FLIGHT=%d", fewBytes),
		},
		ControllerEnv: []string{"PILLION_CONTROLLER_SELF_CHECK_INTERVAL=none"}, // its Pod would be in flight, too
	})
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer func() { cancel(); following.Wait() }()
	roots := c.followBundle(ctx, t, &following)
	var directs []*direct
	for _, replica := range c.Replicas {
		directs = append(directs, newDirect(t, replica, roots, protocols{http1: overload * fewRequests, http2: 2}))
	}
	first, asking := c.Replicas[0], c.askingReview(t)
	t.Run("exactly the limit is in flight", func(t *testing.T) { exactly(t, first, directs[0], asking) })
	t.Run("storms of requests", func(t *testing.T) { c.storms(t, directs, asking) })
	t.Run("large bodies over HTTP/1.1", func(t *testing.T) { largeBodies(t, first, newDirect(t, first, roots, protocols{http1: 16}), asking) })
	t.Run("large bodies over HTTP/2", func(t *testing.T) { largeBodies(t, first, newDirect(t, first, roots, protocols{http2: 4}), asking) })
	t.Run("bodies of much in little", func(t *testing.T) {
		denseBodies(t, first, newDirect(t, first, roots, protocols{http1: 16}), c.namespace)
	})
	t.Run("slow connections", func(t *testing.T) { slowConnections(t, first, roots, asking) })
}

// exactly holds as many requests in flight as there may be, and then sends more.
func exactly(t *testing.T, replica *installation.Replica, d *direct, asking *review) {
	const refusals = `pillion_requests_rejected_total{limit="requests_in_flight"}`
	refused := mustMetric(t, replica, refusals)
	var holding []*held
	for i := range fewRequests {
		h := d.hold(t.Context(), asking)
		if !h.isHeld() {
			_, err := h.await()
			t.Fatalf("request %d of %d was answered, and not read: %v", i+1, fewRequests, err)
		}
		holding = append(holding, h)
	}
	expectMetric(t, replica, "pillion_requests_in_flight", fewRequests)
	beyond := &tally{}
	for range (overload - 1) * fewRequests {
		got, err := d.send(t.Context(), asking)
		if got != limited {
			err = fmt.Errorf("it is %s and not refused: %w", got, err)
		}
		beyond.add(got, err, 0, limited)
	}
	beyond.report(t, "beyond the limit")
	if n := beyond.count(limited); n != (overload-1)*fewRequests {
		t.Errorf("%d of %d requests beyond the limit were refused", n, (overload-1)*fewRequests)
	}
	expectMetric(t, replica, refusals, refused+(overload-1)*fewRequests)
	if ready, err := replica.Ready(t.Context()); !ready {
		t.Errorf("a replica that has enough to do says that it is not ready: %v", err)
	}
	within := &tally{}
	for _, h := range holding {
		h.release()
		got, err := h.await()
		within.add(got, err, 0)
	}
	within.report(t, "within the limit")
	expectMetric(t, replica, "pillion_requests_in_flight", 0)
	if _, err := d.send(t.Context(), asking); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// storms asks all replicas for too much, some seconds at a time, while Pods are created through the API server.
func (c *cluster) storms(t *testing.T, directs []*direct, asking *review) {
	var before []vitals
	for i, replica := range c.Replicas {
		if _, err := directs[i].send(t.Context(), asking); err != nil {
			t.Fatal(err)
		}
		now, err := takeVitals(t.Context(), replica.Process)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, now)
	}
	answers, creates := &tally{}, &tally{}
	var retried atomic.Int64
	var slowest time.Duration
	for range either(2, 20) {
		// Shorter than the API server waits for an answer: it tries again every second.
		storm, end := context.WithTimeout(t.Context(), 3*time.Second)
		var clients, creators sync.WaitGroup
		for _, d := range directs {
			for range overload * fewRequests {
				clients.Go(func() { d.insist(storm, asking, answers) })
			}
		}
		for range 4 {
			creators.Go(func() {
				for storm.Err() == nil {
					began := time.Now()
					err := c.createPod(t.Context())
					took := time.Since(began)
					if took >= time.Second {
						retried.Add(1)
					}
					creates.add(answerOf(err), err, took)
				}
			})
		}
		<-storm.Done()
		ended := time.Now()
		for _, d := range directs {
			slowest = max(slowest, d.recovery(t, asking, ended))
		}
		clients.Wait()
		creators.Wait()
		end()
	}
	answers.report(t, "straight to TLS")
	creates.report(t, "Pods created through the API server")
	t.Logf("%d of these took a second or more: the API server had been asked to try again", retried.Load())
	t.Logf("recovered %s after the overload at the latest", slowest.Round(time.Millisecond))
	if slowest >= mostRecovery {
		t.Errorf("the replicas took %s to answer everything again, and may take %s", slowest, mostRecovery)
	}
	if answers.count(limited) == 0 || answers.count(woven) == 0 {
		t.Error("this was no overload, or nothing but one")
	}
	if retried.Load() == 0 {
		t.Error("the API server was never asked to try again")
	}
	for i, replica := range c.Replicas {
		directs[i].leave()
		allowed := vitals{before[i].resident + 24, before[i].goroutines + 20, before[i].descriptors + 20}
		t.Logf("replica %d: before %s; after %s", i+1, before[i], awaitVitals(t, replica.Process, allowed))
	}
}

// insist sends one review after another, each of which stays in flight for a while, and takes no for no answer.
func (d *direct) insist(ctx context.Context, r *review, answers *tally) {
	const inFlight, pause = 50 * time.Millisecond, 100 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		h := d.hold(context.WithoutCancel(ctx), r)
		isHeld := h.isHeld()
		if isHeld {
			time.Sleep(inFlight)
			h.release()
		}
		got, err := h.await()
		answers.add(got, err, time.Since(began), limited)
		if !isHeld {
			time.Sleep(pause)
		}
	}
}

// recovery sends reviews until there has been an unbroken run of right answers, and returns when that began.
func (d *direct) recovery(t *testing.T, r *review, since time.Time) time.Duration {
	t.Helper()
	const run = 50
	began, unbroken := time.Time{}, 0
	for unbroken < run {
		if time.Since(since) > 5*mostRecovery {
			t.Fatalf("%s after the overload there is still no run of %d right answers", time.Since(since), run)
		}
		if unbroken == 0 {
			began = time.Now()
		}
		if _, err := d.send(t.Context(), r); err != nil {
			unbroken = 0
			continue
		}
		unbroken++
	}
	return began.Sub(since)
}

// leave closes the connections that nobody uses.
func (d *direct) leave() {
	for _, client := range d.clients {
		client.CloseIdleConnections()
	}
}

// answerOf tells of a Pod's creation as of a review.
func answerOf(err error) answer {
	if err != nil {
		return wrong
	}
	return woven
}

func mustMetric(t *testing.T, replica *installation.Replica, name string) float64 {
	t.Helper()
	value, err := replica.Metric(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// expectMetric awaits a value of a metric.
func expectMetric(t *testing.T, replica *installation.Replica, name string, want float64) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		got, err := replica.Metric(ctx, name)
		if err == nil && got != want {
			err = fmt.Errorf("%s is %v, want %v", name, got, want)
		}
		return err == nil, err
	})
	if err != nil {
		t.Error(err)
	}
}
