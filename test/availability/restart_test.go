package availability

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// A replica that drains serves for two seconds more. The endpoints say so after a probe and half of that.
const (
	drainDelay = "PILLION_WEBHOOK_DRAIN_DELAY=2s"
	someLag    = time.Second
)

// noDrain lets replicas end at once.
const noDrain = "PILLION_WEBHOOK_DRAIN_DELAY=0s"

func TestARollingRestartIsNotNoticed(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{WebhookEnv: []string{drainDelay}, EndpointLag: someLag, Controllers: 2})
	t.Run("of the webhook", func(t *testing.T) {
		traffic, stop := c.startTraffic(t, flow{creators: 6})
		for range either(1, 20) {
			c.restartReplicas(t)
		}
		stop()
		traffic.report(t, nil)
	})
	t.Run("of the webhook, where few Pods are created", func(t *testing.T) { // connections are idle when they are closed
		traffic, stop := c.startTraffic(t, flow{creators: 6, rate: 20})
		for range either(1, 20) {
			c.restartReplicas(t)
		}
		stop()
		traffic.report(t, nil)
	})
	t.Run("of the webhook and the controllers together", func(t *testing.T) {
		traffic, stop := c.startTraffic(t, flow{creators: 4})
		for range either(1, 20) {
			for i, replica := range c.Replicas {
				restarted := make(chan error, 1)
				go func() { restarted <- restartController(t.Context(), c.Controllers[i]) }()
				if err := c.Restart(t.Context(), replica); err != nil {
					t.Error(err)
				}
				if err := <-restarted; err != nil {
					t.Fatal(err)
				}
			}
		}
		stop()
		traffic.report(t, nil)
	})
}

func (c *cluster) restartReplicas(t *testing.T) {
	t.Helper()
	for _, replica := range c.Replicas {
		if err := c.Restart(t.Context(), replica); err != nil {
			t.Fatal(err)
		}
	}
}

func restartController(ctx context.Context, controller *installation.Process) error {
	if err := controller.Stop(); err != nil {
		return err
	}
	if err := controller.Start(); err != nil {
		return err
	}
	return controller.AwaitReady(ctx)
}

// TestWithoutADrainARollingRestartIsNoticed is the control of TestARollingRestartIsNotNoticed: the same, but for the drain.
func TestWithoutADrainARollingRestartIsNoticed(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{WebhookEnv: []string{noDrain}, EndpointLag: someLag})
	traffic, stop := c.startTraffic(t, flow{creators: 6})
	c.restartReplicas(t)
	stop()
	traffic.report(t, func(failed failure) bool { return strings.Contains(failed.text, "failed calling webhook") })
	if len(traffic.failed()) == 0 {
		t.Error("nobody noticed: the test of the rolling restart proves nothing")
	}
}

// informerLag is how much later than a watch from outside the API server's own may learn of endpoints: it is served like any
// other, on a machine where much runs.
const informerLag = 250 * time.Millisecond

// TestAKilledReplicaIsNoticedOnlyUntilTheEndpointsAreWithoutIt kills one replica after another. Of the Pods that are created
// only those may fail that were being created then, or begun before the API server learned that the endpoint is gone: a
// request was in flight there, or the API server picked it for a dial.
func TestAKilledReplicaIsNoticedOnlyUntilTheEndpointsAreWithoutIt(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{WebhookEnv: []string{drainDelay}})
	gone := c.followEndpoints(t)
	traffic, stop := c.startTraffic(t, flow{creators: 6})
	var windows []window
	for i := range either(3, 20) {
		replica := c.Replicas[i%len(c.Replicas)]
		window := window{killed: time.Now()}
		if err := replica.Kill(); err != nil {
			t.Fatal(err)
		}
		window.told = awaitGone(t, gone, replica.IP)
		if err := c.AwaitEndpoints(t.Context(), len(c.Replicas)-1); err != nil {
			t.Fatal(err)
		}
		traffic.awaitCreates(t, 100) // by the replica that is left
		if err := replica.Start(); err != nil {
			t.Fatal(err)
		}
		if err := replica.AwaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitEndpoints(t.Context(), len(c.Replicas)); err != nil {
			t.Fatal(err)
		}
		traffic.awaitCreates(t, 100)
		windows = append(windows, window)
	}
	stop()
	failed := traffic.failed()
	for i, window := range windows {
		t.Logf("kill %d: %s", i+1, window.tell(failed))
	}
	traffic.report(t, func(failed failure) bool {
		for _, window := range windows {
			if window.excuses(failed) {
				return true
			}
		}
		return false
	})
}

// window is when Pods may fail for a killed replica: from when it was killed until a watch of the API server told of
// endpoints without it.
type window struct{ killed, told time.Time }

// excuses tells whether an attempt went on when the replica was killed, or began in the window, and failed because nobody
// answered.
func (w window) excuses(failed failure) bool {
	return failed.ended.After(w.killed) && failed.began.Before(w.told.Add(informerLag)) && strings.Contains(failed.text, "failed calling webhook")
}

func (w window) tell(failures []failure) string {
	said := fmt.Sprintf("the API server was told after %s; ", w.told.Sub(w.killed).Round(time.Millisecond))
	inFlight, later, last := 0, 0, time.Time{}
	for _, failed := range failures {
		switch {
		case !w.excuses(failed):
			continue
		case failed.began.Before(w.killed):
			inFlight++
		default:
			later++
		}
		if failed.began.After(last) {
			last = failed.began
		}
	}
	if last.IsZero() {
		return said + "no create failed"
	}
	return said + fmt.Sprintf("%d creates in flight and %d begun later failed, the last begun %s after the kill",
		inFlight, later, last.Sub(w.killed).Round(time.Millisecond))
}

// awaitCreates returns once so many more Pods have been attempted.
func (f *traffic) awaitCreates(t *testing.T, more int64) {
	t.Helper()
	enough := f.creates.Load() + more
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		return f.creates.Load() >= enough, errors.New("too few Pods are created")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ready are the endpoints that are ready, as a watch tells them, and when it did.
type ready struct {
	ips []string
	at  time.Time
}

// followEndpoints tells of the webhook's endpoints as the API server tells those who watch.
func (c *cluster) followEndpoints(t *testing.T) <-chan ready {
	t.Helper()
	watcher, err := c.server.Clientset.DiscoveryV1().EndpointSlices(installation.Namespace).Watch(t.Context(), metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, installation.ServiceName).String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watcher.Stop)
	told := make(chan ready, 1000)
	go func() {
		defer close(told)
		for event := range watcher.ResultChan() {
			if slice, ok := event.Object.(*discoveryv1.EndpointSlice); ok && event.Type != watch.Deleted {
				told <- ready{readyIPs(slice), time.Now()}
			}
		}
	}()
	return told
}

func readyIPs(slice *discoveryv1.EndpointSlice) []string {
	var ips []string
	for _, endpoint := range slice.Endpoints {
		if *endpoint.Conditions.Ready {
			ips = append(ips, endpoint.Addresses...)
		}
	}
	return ips
}

// awaitGone returns when it was told that an endpoint is gone which was there.
func awaitGone(t *testing.T, told <-chan ready, ip string) time.Time {
	t.Helper()
	was := false
	for {
		select {
		case endpoints, open := <-told:
			switch {
			case !open:
				t.Fatal("the watch of the endpoints has ended")
			case was && !slices.Contains(endpoints.ips, ip):
				return endpoints.at
			}
			was = was || slices.Contains(endpoints.ips, ip)
		case <-time.After(time.Minute):
			t.Fatalf("the endpoints still have %s, which was killed", ip)
		}
	}
}
