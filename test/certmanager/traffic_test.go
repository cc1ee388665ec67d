package certmanager

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

// traffic creates Pods by dry run and dials the webhook all the time, and counts what fails.
type traffic struct {
	server     *apiserver.Server
	namespace  string
	webhookURL string

	creates, handshakes, failed atomic.Int64
	mu                          sync.Mutex
	failures                    []string
}

// startTraffic starts traffic, and returns what ends it and tells its numbers: nothing may have failed.
func startTraffic(t *testing.T, server *apiserver.Server, namespace, webhookURL string) (stop func()) {
	t.Helper()
	f := &traffic{server: server, namespace: namespace, webhookURL: webhookURL}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { f.createPods(ctx) })
		group.Go(func() { f.dial(ctx) })
	}
	return sync.OnceFunc(func() {
		// On a slow machine what is done may be done before there was traffic to speak of.
		_ = apiserver.Await(ctx, func(context.Context) (bool, error) {
			return f.creates.Load() >= 50 && f.handshakes.Load() >= 50, nil
		})
		cancel()
		group.Wait()
		t.Logf("%d Pods created and %d handshakes attempted, %d failed", f.creates.Load(), f.handshakes.Load(), f.failed.Load())
		for _, failure := range f.failures {
			t.Error(failure)
		}
		if f.creates.Load() < 50 || f.handshakes.Load() < 50 {
			t.Error("there was hardly any traffic")
		}
	})
}

func (f *traffic) fail(format string, args ...any) {
	f.failed.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failures) < 10 {
		f.failures = append(f.failures, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// createPods creates Pods that ask, without storing them. Each has to be admitted and woven.
func (f *traffic) createPods(ctx context.Context) {
	for ctx.Err() == nil {
		err := createPod(ctx, f.server, f.namespace)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.fail("create %d: %v", f.creates.Load(), err)
		}
		f.creates.Add(1)
	}
}

// createPod creates a Pod that asks, without storing it, and says what is wrong with the answer.
func createPod(ctx context.Context, server *apiserver.Server, namespace string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, GenerateName: "app-", Annotations: map[string]string{v1alpha1.InjectKey: "cache"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	if err := server.Client.Create(ctx, pod, client.DryRunAll); err != nil {
		return err
	}
	if len(pod.Spec.InitContainers) != 1 {
		return fmt.Errorf("the Pod was admitted and not woven")
	}
	return nil
}

// dial makes fresh TLS connections to the webhook, trusting what the webhook configuration holds, as the API server would.
func (f *traffic) dial(ctx context.Context) {
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
		if err := f.server.Client.Get(ctx, client.ObjectKey{Name: installation.Configuration}, configuration); err != nil {
			continue
		}
		if len(configuration.Webhooks) == 0 {
			f.fail("the webhook configuration is empty")
			continue
		}
		err := handshake(ctx, f.webhookURL, configuration.Webhooks[0].ClientConfig.CABundle)
		if ctx.Err() != nil {
			return
		}
		f.handshakes.Add(1)
		if err != nil {
			f.fail("handshake %d: %v", f.handshakes.Load(), err)
		}
	}
}

func handshake(ctx context.Context, webhookURL string, bundle []byte) error {
	address, err := url.Parse(webhookURL)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: address.Hostname(), MinVersion: tls.VersionTLS13}}
	connection, err := dialer.DialContext(ctx, "tcp", address.Host)
	if err != nil {
		return err
	}
	return connection.Close()
}
