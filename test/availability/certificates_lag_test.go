package availability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/controller"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

const (
	// watchLag is how much later the second API server sees everything.
	watchLag = 2500 * time.Millisecond
	// longSettle is a time to settle that is longer, noSettle one that is not.
	longSettle, noSettle = 4 * time.Second, time.Nanosecond

	// By its clock the controller is ahead by less than an hour in all: by so much what it signs is backdated. A CA that has replaced
	// another is not due before the clock is moved on again.
	laggedCALife, laggedLeafLife = 100 * time.Second, 20 * time.Second
)

// TestWhatARotationNeeds replaces the CA in the sight of an API server whose watches lag, as one of a control plane's several may: the
// controller and the replicas have another. Where all is as it is in Pillion, nothing fails; each of the means alone bears the lag; and
// without them calls fail, or the tests of rotations would prove nothing.
//
// The controller's own code runs in this process. Its clock is moved on to when something is due, so that the CA is replaced while by its
// clock certificates have expired that are good; and what it writes may be other than it should be.
func TestWhatARotationNeeds(t *testing.T) {
	l := newLagging(t)
	tests := []struct {
		name   string
		settle time.Duration
		without
		fails bool
	}{
		{name: "with all of it nothing fails", settle: longSettle},
		{name: "the cross-signature alone bears a lag", settle: noSettle},
		{name: "the time to settle alone bears a lag", settle: longSettle, without: without{cross: true}},
		{name: "without either a lag fails calls", settle: noSettle, without: without{cross: true}, fails: true},
	}
	for range either(1, 5) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) { l.replaceCA(t, test.settle, test.without, test.fails) })
		}
		t.Run("without an overlap calls fail that lag behind nothing", l.replaceAtOnce)
	}
}

// lagging is a cluster with a second API server whose watches lag.
type lagging struct {
	*cluster
	behind   *cluster // by the second API server
	rotation *rotation
	asking   string // a namespace whose label asks

	ahead atomic.Int64 // how far the controller's clock is ahead
}

func newLagging(t *testing.T) *lagging {
	t.Helper()
	c := newCluster(t, installation.ServiceOptions{
		WebhookEnv: []string{noDrain}, ControllerEnv: lives(laggedCALife, laggedLeafLife, time.Second),
	})
	watches, etcd := newEtcdWatchLag(t, c.server.EtcdURL())
	second, err := apiserver.StartSecond(etcd, apiserver.Options{Flags: installation.ServerFlags()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		watches.set(0)
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	})
	l := &lagging{cluster: c, behind: &cluster{Service: c.Service, server: second, namespace: c.namespace}}
	if l.asking, err = c.server.CreateNamespace(t.Context(), map[string]string{v1alpha1.InjectKey: askedProfile}); err != nil {
		t.Fatal(err)
	}
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		err := l.behind.createPod(ctx)
		return err == nil, err
	})
	if err != nil {
		t.Fatalf("wait for the second API server: %v", err)
	}
	watches.set(watchLag)
	l.rotation = c.followRotation(t)
	l.rotation.awaitPhase(t, certs.PhaseStable)
	if err := c.Controllers[0].Stop(); err != nil {
		t.Fatal(err)
	}
	return l
}

// control runs the controller in this process until the returned function is called.
func (l *lagging) control(t *testing.T, settle time.Duration, without without) (stop func()) {
	t.Helper()
	config, err := l.server.ServiceAccountConfig(t.Context(), installation.Namespace, "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	falsify(config, without)
	log := &fixture.Log{Keep: keptLog}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- controller.Run(ctx, config, controller.Options{
			Namespace: installation.Namespace, CASecret: caSecret, CertificateSecret: servingSecret,
			WebhookConfiguration: installation.Configuration, Service: controller.Service{Name: installation.ServiceName},
			CertificateMode: "builtin",
			CALifetime:      laggedCALife, CertificateLifetime: laggedLeafLife, CertificateSettle: settle,
			Now:    func() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) },
			Logger: logr.FromSlogHandler(slog.NewJSONHandler(log, nil)),
		})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller: %v", err)
		}
		if t.Failed() {
			t.Logf("the end of what the controller logged:\n%s", log)
		}
	}
}

// moveClock moves the controller's clock on to a time, and has it look. It is never moved back.
func (l *lagging) moveClock(t *testing.T, to time.Time) {
	t.Helper()
	if ahead := time.Until(to); int64(ahead) > l.ahead.Load() {
		l.ahead.Store(int64(ahead))
	}
	serving := l.secret(t, servingSecret)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"test":"%d"}}}`, time.Now().UnixNano())
	if err := l.server.Client.Patch(t.Context(), serving, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		t.Fatal(err)
	}
}

// beginReplacement moves the clock on to when the CA is to be replaced.
func (l *lagging) beginReplacement(t *testing.T) {
	t.Helper()
	ca := leafOf(t, l.secret(t, caSecret).Data[corev1.TLSCertKey])
	l.moveClock(t, ca.NotAfter.Add(-laggedCALife/3))
	l.rotation.awaitPhase(t, certs.PhaseRetire)
}

// endReplacement moves the clock on to when the old CA is trusted no longer.
func (l *lagging) endReplacement(t *testing.T) {
	t.Helper()
	l.moveClock(t, writtenIn(l.secret(t, caSecret)).RetireAt.Add(2*time.Second))
	l.rotation.awaitPhase(t, certs.PhaseStable)
}

// replaceCA replaces the CA once, under traffic by the API server that lags.
func (l *lagging) replaceCA(t *testing.T, settle time.Duration, without without, fails bool) {
	stopController := l.control(t, settle, without)
	l.awaitCaughtUp(t) // with what went before
	old := leafOf(t, l.secret(t, caSecret).Data[corev1.TLSCertKey]).Subject.CommonName
	traffic, stop := l.behind.startTraffic(t, flow{creators: 2, rate: 40, handshakes: 50})
	traffic.awaitCreates(t, 10)

	l.beginReplacement(t)
	l.awaitOther(t, old)
	// The API server calls this entry for the first time, so that it dials.
	failed := l.behind.createWhere(t.Context(), l.asking, "")
	if l.trustsBehind(t) != (settle == longSettle) {
		t.Errorf("after %s to settle the second API server trusts the new CA: %v", settle, settle != longSettle)
	}
	l.awaitCaughtUp(t)
	l.endReplacement(t)
	l.awaitCaughtUp(t)
	traffic.awaitCreates(t, 10)
	stop()
	stopController()

	if !fails {
		if failed != nil {
			t.Error(failed)
		}
		traffic.report(t, nil)
		return
	}
	if failed == nil || !strings.Contains(failed.Error(), "x509") {
		t.Errorf("a Pod was created by an API server that does not trust the new CA: %v", failed)
	}
	if len(traffic.failed()) == 0 {
		t.Error("no handshake failed")
	}
	traffic.report(t, distrusted)
}

// distrusted excuses what fails because a certificate does not verify, and nothing else.
func distrusted(failed failure) bool { return strings.Contains(failed.text, "x509") }

// replaceAtOnce replaces the CA, with no time in which both are trusted, by an API server that lags behind nothing until somebody notices.
func (l *lagging) replaceAtOnce(t *testing.T) {
	stopController := l.control(t, noSettle, without{cross: true, overlap: true})
	traffic, stop := l.startTraffic(t, flow{creators: 4, handshakes: 100})
	rounds := 0
	for ; rounds < 20 && len(traffic.failed()) == 0; rounds++ {
		l.beginReplacement(t)
		l.endReplacement(t)
		traffic.awaitCreates(t, 10)
	}
	stop()
	stopController()
	t.Logf("the CA was replaced %d times", rounds)
	if len(traffic.failed()) == 0 {
		t.Error("nobody noticed")
	}
	traffic.report(t, distrusted)
}

// awaitOther waits until every replica presents what another CA signed.
func (l *lagging) awaitOther(t *testing.T, old string) {
	t.Helper()
	for _, replica := range l.Replicas {
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			issuer, err := issuerOf(ctx, replica)
			return err == nil && issuer != old, errors.Join(err, errors.New(replica.Address+" presents what "+issuer+" signed"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// trustsBehind tells whether the second API server trusts the CA that signs.
func (l *lagging) trustsBehind(t *testing.T) bool {
	t.Helper()
	seen, err := l.bundleBehind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(seen, bytes.TrimSpace(l.secret(t, caSecret).Data[corev1.TLSCertKey]))
}

// bundleBehind returns the caBundle that the second API server has seen.
func (l *lagging) bundleBehind(ctx context.Context) ([]byte, error) {
	configuration, err := l.behind.server.Clientset.AdmissionregistrationV1().MutatingWebhookConfigurations().
		Get(ctx, installation.Configuration, metav1.GetOptions{ResourceVersion: "0"}) // from what its own watch has told it
	if err != nil {
		return nil, err
	}
	if len(configuration.Webhooks) == 0 {
		return nil, errors.New("there are no entries")
	}
	return configuration.Webhooks[0].ClientConfig.CABundle, nil
}

// awaitCaughtUp waits until the second API server has seen what is to be trusted.
func (l *lagging) awaitCaughtUp(t *testing.T) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		is, err := l.bundle(ctx)
		if want := l.secret(t, servingSecret).Data[certs.CABundleKey]; err != nil || !bytes.Equal(is, want) {
			return false, errors.Join(err, errors.New("the caBundles do not hold what is to be trusted"))
		}
		seen, err := l.bundleBehind(ctx)
		return bytes.Equal(seen, is), errors.Join(err, errors.New("the second API server lags"))
	})
	if err != nil {
		t.Fatal(err)
	}
}
