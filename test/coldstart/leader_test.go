package coldstart

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// leaseDuration is that of quick, and retryPeriod.
const (
	leaseDuration = 3 * time.Second
	retryPeriod   = 500 * time.Millisecond
	// slack is what a process may take, on a machine that does other things, for what takes it milliseconds.
	slack = 3 * time.Second
)

// observed passes on requests to the API server and remembers them: those that write, and those that only read.
type observed struct {
	*httptest.Server

	mu            sync.Mutex
	writes, reads []string
}

func observe(t *testing.T, server *apiserver.Server) *observed {
	t.Helper()
	target, err := url.Parse(server.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(server.Config))
	if err != nil {
		t.Fatal(err)
	}
	o := &observed{}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // watches
	}
	o.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		switch {
		case r.Method != http.MethodGet:
			o.writes = append(o.writes, r.Method+" "+r.URL.Path)
		case r.URL.Query().Has("watch"):
			o.reads = append(o.reads, "WATCH "+r.URL.Path)
		default:
			o.reads = append(o.reads, r.Method+" "+r.URL.Path)
		}
		o.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

// reach has a client pass by here. It shows its token over TLS only.
func (o *observed) reach(config *rest.Config) {
	config.Host = o.URL
	config.CAData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
}

// take returns the writes since it or takeAll was called last.
func (o *observed) take() []string {
	writes, _ := o.takeAll()
	return writes
}

func (o *observed) takeAll() (writes, reads []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	writes, reads = o.writes, o.reads
	o.writes, o.reads = nil, nil
	return writes, reads
}

// TestASecondControllerTakesOver has two controllers and a webhook, and Pods that are created all the time.
func TestASecondControllerTakesOver(t *testing.T) {
	var through [2]*observed
	c := startClusterWith(t, func(server *apiserver.Server) installation.PartsOptions {
		through[0], through[1] = observe(t, server), observe(t, server)
		return installation.PartsOptions{
			Controllers: 2, ReachController: func(n int, config *rest.Config) { through[n].reach(config) },
			Options: installation.Options{Env: append(slices.Clone(quick),
				"PILLION_CONTROLLER_SELF_CHECK_INTERVAL=1s", "PILLION_CERTS_LEAF_LIFETIME=12s", "PILLION_CERTS_SETTLE=1s")},
		}
	})
	first, second := c.Controllers[0], c.Controllers[1]
	c.namespace(t, "shop", nil)
	c.start(t, first, c.Webhook)
	c.awaitReady(t, first, c.Webhook)
	c.create(t, enforced("everywhere"))
	c.awaitCondition(t, types.NamespacedName{Name: "everywhere"}, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	c.awaitWoven(t, "shop", "everywhere")
	flow := c.flow(t)

	t.Run("a standby answers its probes and writes nothing", func(t *testing.T) {
		c.start(t, second)
		c.awaitReady(t, second)
		holder := c.holder(t)
		through[0].take()
		c.works(t, "while-standby")
		c.lose(t, "pillion-webhook-tls")
		c.awaitLeaf(t, time.Now())
		if writes := through[1].take(); len(writes) > 0 || c.holder(t) != holder {
			t.Errorf("the Lease went from %s to %s, and the standby wrote %q", holder, c.holder(t), writes)
		}
		if ready, err := second.Ready(t.Context()); !ready {
			t.Errorf("the standby is not ready: %v", err)
		}
		if writes := through[0].take(); len(writes) == 0 {
			t.Errorf("the leader is not observed: it wrote %q", writes)
		}
		if value, err := second.Metric(t.Context(), "pillion_self_check_success"); err == nil {
			t.Errorf("the standby says of the self-check: %v", value)
		}
	})
	t.Run("one that is killed is followed within the lease", func(t *testing.T) {
		expires, err := c.expiry(t.Context(), "pillion-webhook-tls")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c.kill(t, first)
		profile := enforced("while-nobody-led")
		profile.Spec.Match.Enforce = false // or a Pod that is created as it appears is refused, and has to be created again
		c.create(t, profile)
		took := c.awaitOther(t, start)
		t.Logf("after SIGKILL another led within %s; leases are of %s", took.Round(time.Millisecond), leaseDuration)
		if took > leaseDuration+2*retryPeriod+slack {
			t.Errorf("nobody led for %s", took)
		}
		c.awaitCondition(t, types.NamespacedName{Name: "while-nobody-led"}, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
		c.awaitWoven(t, "shop", "while-nobody-led")
		renewed := c.awaitLeaf(t, expires)
		if !time.Now().Before(expires) {
			t.Errorf("the certificate that expired at %s was renewed after it had", expires)
		}
		t.Logf("the certificate that was due was renewed %s before it expired; the new one expires %s later",
			time.Until(expires).Round(time.Millisecond), renewed.Sub(expires))
	})
	t.Run("one that is told to end is followed at once", func(t *testing.T) {
		c.start(t, first)
		c.awaitReady(t, first)
		start := time.Now()
		if err := second.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := second.Result(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
		took := c.awaitOther(t, start)
		t.Logf("after SIGTERM another led within %s", took.Round(time.Millisecond))
		if took > 2*retryPeriod+slack/2 {
			t.Errorf("nobody led for %s", took)
		}
		c.works(t, "after-sigterm")
	})
	t.Run("one that hangs is followed, and ends when it finds out", func(t *testing.T) {
		c.start(t, second)
		c.awaitReady(t, second)
		if err := syscall.Kill(first.Pid(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		took := c.awaitOther(t, start)
		c.works(t, "while-frozen")
		through[0].take()
		if err := syscall.Kill(first.Pid(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		select {
		case <-first.Ended():
		case <-time.After(30 * time.Second):
			t.Fatal("it works on without the Lease")
		}
		if first.Result() == nil {
			t.Error("it ended as if nothing had happened: nobody would start it again")
		}
		t.Logf("another led after %s; the one that hung ended with %v, and wrote %q before", took.Round(time.Millisecond), first.Result(),
			through[0].take())
		c.works(t, "after-all")
	})
	creates, failures := flow()
	t.Logf("%d Pods were created meanwhile, %d failures", creates, len(failures))
	for _, failure := range failures[:min(len(failures), 5)] {
		t.Error(failure)
	}
	if creates < 100 {
		t.Errorf("only %d Pods were created", creates)
	}
}

// flow creates Pods all the time, by dry run, until what it returns is called. Each has to be woven.
func (c *cluster) flow(t *testing.T) func() (creates int, failures []error) {
	ctx, cancel := context.WithCancel(t.Context())
	creates, failures := 0, []error(nil)
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			pod := app("shop", nil)
			err := c.Create(ctx, pod, client.DryRunAll)
			if err == nil && !isWoven(pod, "everywhere") {
				err = errors.New("a Pod was admitted and not woven")
			}
			if err != nil && ctx.Err() == nil {
				failures = append(failures, fmt.Errorf("create %d at %s: %w", creates, time.Now().Format(time.TimeOnly), err))
			}
			creates++
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	stop := func() (int, []error) {
		cancel()
		group.Wait()
		return creates, failures
	}
	t.Cleanup(func() { stop() })
	return stop
}

// works makes the leader do something.
func (c *cluster) works(t *testing.T, name string) {
	t.Helper()
	profile := enforced(name)
	profile.Spec.Match, profile.Spec.FailurePolicy = nil, ""
	c.create(t, profile)
	c.awaitCondition(t, types.NamespacedName{Name: name}, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
}

func (c *cluster) holder(t *testing.T) (holder string) {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		lease := &coordinationv1.Lease{}
		err := c.Get(ctx, client.ObjectKey{Namespace: installation.Namespace, Name: "pillion-controller"}, lease)
		if err == nil && lease.Spec.HolderIdentity != nil {
			holder = *lease.Spec.HolderIdentity
		}
		return holder != "", err
	})
	return holder
}

// awaitOther waits until the Lease has a holder that took it after a moment, and returns how long after.
func (c *cluster) awaitOther(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		lease := &coordinationv1.Lease{}
		err := c.Get(ctx, client.ObjectKey{Namespace: installation.Namespace, Name: "pillion-controller"}, lease)
		if err != nil {
			return false, err
		}
		taken := lease.Spec.AcquireTime != nil && lease.Spec.AcquireTime.After(since) &&
			lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != ""
		return taken, fmt.Errorf("the Lease is %+v", lease.Spec)
	})
	return time.Since(since)
}

// awaitLeaf waits for a serving certificate that expires later than at a time, and returns when it does.
func (c *cluster) awaitLeaf(t *testing.T, later time.Time) (expires time.Time) {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		var err error
		expires, err = c.expiry(ctx, "pillion-webhook-tls")
		return err == nil && expires.After(later), fmt.Errorf("it expires at %s: %w", expires, err)
	})
	return expires
}
