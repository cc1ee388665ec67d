package availability

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/installation"
)

// serverName is what the API server expects a replica's certificate to be for.
const serverName = installation.ServiceName + "." + installation.Namespace + ".svc"

// traffic is what goes on while things fail: Pods are created by dry run, and replicas are dialed as the API server would dial them.
// Each attempt that fails is kept, with the time when it began.
type traffic struct {
	cluster *cluster

	creates, handshakes atomic.Int64

	roots *atomic.Pointer[x509.CertPool] // what is dialed with; nil: nothing is

	mu       sync.Mutex
	failures []failure
	ends     []time.Duration       // how long each create took that succeeded
	seen     map[string]*presented // by the replica's address
}

// failure is an attempt that failed.
type failure struct {
	began, ended time.Time
	text         string
}

// flow is the traffic that startTraffic starts.
type flow struct {
	// creators create Pods one after another, as fast as they are answered but at most rate times a second in all; no limit if it is 0.
	creators int
	rate     int
	// handshakes is how often a second each replica is dialed.
	handshakes int
}

// startTraffic starts traffic, and returns what ends it.
func (c *cluster) startTraffic(t *testing.T, f flow) (running *traffic, stop func()) {
	t.Helper()
	running = &traffic{cluster: c}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	pace := make(chan struct{})
	if f.rate > 0 {
		group.Go(func() { every(ctx, time.Second/time.Duration(f.rate), func() { offer(ctx, pace) }) })
	} else {
		close(pace)
	}
	for range f.creators {
		group.Go(func() { running.createPods(ctx, pace) })
	}
	if f.handshakes > 0 {
		roots := c.followBundle(ctx, t, &group)
		running.roots = roots
		for _, replica := range c.Replicas {
			group.Go(func() {
				every(ctx, time.Second/time.Duration(f.handshakes), func() { group.Go(func() { running.dial(ctx, replica, roots) }) })
			})
		}
	}
	return running, sync.OnceFunc(func() { cancel(); group.Wait() })
}

// offer lets one creator go on, if one waits; what cannot be kept up with is not made up for.
func offer(ctx context.Context, pace chan<- struct{}) {
	select {
	case pace <- struct{}{}:
	case <-ctx.Done():
	}
}

func every(ctx context.Context, period time.Duration, do func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// createPods creates Pods that ask, without storing them. Each has to be admitted and woven.
func (f *traffic) createPods(ctx context.Context, pace <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace:
		}
		began := time.Now()
		err := f.cluster.createPod(ctx)
		if ctx.Err() != nil {
			return
		}
		f.creates.Add(1)
		f.note(began, err)
	}
}

// createPod creates a Pod that asks, without storing it, and says what is wrong with the answer.
func (c *cluster) createPod(ctx context.Context) error {
	return c.createWhere(ctx, c.namespace, askedProfile)
}

// createWhere does so in any namespace, for a Pod that asks or not.
func (c *cluster) createWhere(ctx context.Context, namespace, asks string) error {
	pod := appPod(namespace, asks)
	if err := c.server.Client.Create(ctx, pod, client.DryRunAll); err != nil {
		return fmt.Errorf("create a Pod: %w", err)
	}
	if len(pod.Spec.InitContainers) != 1 {
		return fmt.Errorf("%s: it has %d init containers", notWoven, len(pod.Spec.InitContainers))
	}
	return nil
}

// notWoven is what is wrong with a Pod that was let pass as it was.
const notWoven = "the Pod was admitted and not woven"

// appPod returns a Pod that asks for profiles by its annotation; for none, and without one, if asks is empty.
func appPod(namespace, asks string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "app-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	if asks != "" {
		pod.Annotations = map[string]string{v1alpha1.InjectKey: asks}
	}
	return pod
}

func (f *traffic) note(began time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failures = append(f.failures, failure{began, time.Now(), err.Error()})
		return
	}
	f.ends = append(f.ends, time.Since(began))
}

// followBundle returns what the webhook configuration tells API servers to trust, as a watch sees it.
func (c *cluster) followBundle(ctx context.Context, t *testing.T, group *sync.WaitGroup) *atomic.Pointer[x509.CertPool] {
	t.Helper()
	roots := &atomic.Pointer[x509.CertPool]{}
	use := func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
		pool := x509.NewCertPool()
		if len(configuration.Webhooks) > 0 && pool.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle) {
			roots.Store(pool)
		}
	}
	api := c.server.Clientset.AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration, err := api.Get(ctx, installation.Configuration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	use(configuration)
	group.Go(func() {
		for ctx.Err() == nil { // a watch ends when the API server does
			watcher, err := api.Watch(ctx, metav1.ListOptions{
				FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, installation.Configuration).String(),
			})
			if err != nil {
				continue
			}
			followConfiguration(ctx, watcher, use)
		}
	})
	return roots
}

func followConfiguration(
	ctx context.Context, watcher watch.Interface, use func(*admissionregistrationv1.MutatingWebhookConfiguration),
) {
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-watcher.ResultChan():
			if !open {
				return
			}
			if configuration, ok := event.Object.(*admissionregistrationv1.MutatingWebhookConfiguration); ok {
				use(configuration)
			}
		}
	}
}

// trusting verifies a replica as the API server would.
func trusting(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS13}
}

// dial makes a fresh TLS connection to a replica.
func (f *traffic) dial(ctx context.Context, replica *installation.Replica, roots *atomic.Pointer[x509.CertPool]) {
	began := time.Now()
	dialer := tls.Dialer{Config: trusting(roots.Load())}
	connection, err := dialer.DialContext(ctx, "tcp", replica.Address)
	if err == nil {
		f.see(replica, connection)
		_ = connection.Close() // nothing was said
	}
	if ctx.Err() != nil {
		return
	}
	f.handshakes.Add(1)
	if err != nil {
		f.note(began, fmt.Errorf("dial %s: %w", replica.Address, err))
	}
}

// failed returns the failures so far.
func (f *traffic) failed() []failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.failures)
}

// report tells what became of the traffic, and fails the test for each failure that is not excused, at most ten of them.
func (f *traffic) report(t *testing.T, excused func(failure) bool) {
	t.Helper()
	var faults []failure
	all := f.failed()
	for _, failed := range all {
		if excused == nil || !excused(failed) {
			faults = append(faults, failed)
		}
	}
	t.Logf("attempted: %d creates, %d handshakes; failed: %d, of which %d must not", f.creates.Load(), f.handshakes.Load(), len(all), len(faults))
	for _, fault := range faults[:min(len(faults), 10)] {
		t.Errorf("%s to %s: %s", fault.began.Format("15:04:05.000"), fault.ended.Format("15:04:05.000"), fault.text)
	}
}
