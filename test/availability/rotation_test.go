package availability

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// Lifetimes that make the controller replace the leaf every three seconds and the CA every ten or so.
var shortLives = []string{
	"PILLION_CERTS_CA_LIFETIME=16s", "PILLION_CERTS_LEAF_LIFETIME=5s", "PILLION_CERTS_SETTLE=800ms",
	"PILLION_CONTROLLER_LEADER_ELECTION=false", // or a controller that is killed would be waited for longer than a leaf lives
}

// traffic creates Pods by dry run and dials the webhook all the time, and counts what fails.
type traffic struct {
	creates, handshakes atomic.Int64
	mu                  sync.Mutex
	failures            []string
}

func (f *traffic) fail(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failures) < 10 {
		f.failures = append(f.failures, fmt.Sprintf(format, args...))
	}
}

// TestCertificatesAreReplacedUnderTraffic is the short form: several CAs, dozens of leaves, and the controller killed in between.
func TestCertificatesAreReplacedUnderTraffic(t *testing.T) {
	server, err := apiserver.Start(t.Context(), apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	pillion, err := installation.Start(t.Context(), server, installation.Options{Binary: binary, Env: shortLives, Log: log})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		if err := pillion.Stop(); err != nil {
			t.Error(err)
		}
	})
	namespace, err := server.CreateNamespace(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: "cache"}}
	profile.Spec.CacheAmbassador = &v1alpha1.CacheAmbassador{Protocol: v1alpha1.CacheProtocolMemcached, Local: &v1alpha1.LocalCache{}}
	if err := server.Client.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}

	flow := &traffic{}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { flow.createPods(ctx, server, namespace) })
		group.Go(func() { flow.dial(ctx, server, pillion.WebhookURL) })
	}
	cas := rotations(t, server, func(n int) {
		if n%2 == 1 { // wherever it is
			if err := pillion.Controller.Kill(); err != nil {
				t.Error(err)
			}
			if err := pillion.Controller.Start(); err != nil {
				t.Error(err)
			}
		}
	})
	stop()
	group.Wait()
	t.Logf("%d CAs, %d creates, %d handshakes, %d failures", cas, flow.creates.Load(), flow.handshakes.Load(), len(flow.failures))
	for _, failure := range flow.failures {
		t.Error(failure)
	}
	if t.Failed() {
		t.Log(log)
	}
}

// rotations waits until three CAs have signed, one after another, and calls back at each.
func rotations(t *testing.T, server *apiserver.Server, each func(int)) int {
	t.Helper()
	seen := map[string]bool{}
	for n := 1; n <= 3; n++ {
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			ca := &corev1.Secret{}
			if err := server.Client.Get(ctx, client.ObjectKey{Namespace: installation.Namespace, Name: "pillion-ca"}, ca); err != nil {
				return false, err
			}
			seen[string(ca.Data[corev1.TLSCertKey])] = true
			return len(seen) == n, fmt.Errorf("%d CAs have signed", len(seen))
		})
		if err != nil {
			t.Fatal(err)
		}
		each(n)
	}
	return len(seen)
}

// createPods creates Pods that ask, without storing them. Each has to be admitted and woven.
func (f *traffic) createPods(ctx context.Context, server *apiserver.Server, namespace string) {
	for ctx.Err() == nil {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, GenerateName: "app-", Annotations: map[string]string{v1alpha1.InjectKey: "cache"},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
		}
		err := server.Client.Create(ctx, pod, client.DryRunAll)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			f.fail("create %d: %v", f.creates.Load(), err)
		case len(pod.Spec.InitContainers) != 1:
			f.fail("create %d: the Pod is not woven", f.creates.Load())
		}
		f.creates.Add(1)
	}
}

// dial makes fresh TLS connections to the webhook, trusting what the webhook configuration holds, as the API server would.
func (f *traffic) dial(ctx context.Context, server *apiserver.Server, webhookURL string) {
	address, err := url.Parse(webhookURL)
	if err != nil {
		f.fail("%v", err)
		return
	}
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
		if err := server.Client.Get(ctx, client.ObjectKey{Name: installation.Configuration}, configuration); err != nil || len(configuration.Webhooks) == 0 {
			continue
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle)
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: address.Hostname(), MinVersion: tls.VersionTLS13}}
		connection, err := dialer.DialContext(ctx, "tcp", address.Host)
		f.handshakes.Add(1)
		switch {
		case err == nil:
			_ = connection.Close() // nothing was said
		case ctx.Err() == nil:
			f.fail("handshake %d: %v", f.handshakes.Load(), err)
		}
	}
}

// lines keeps what processes log.
type lines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
