package admission

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// servedAlone is a webhook whose certificate and webhook configurations are written by a test, and mended by nobody.
type servedAlone struct {
	address, health, metrics string

	ca         certs.Pair
	secret     *corev1.Secret
	mutating   *admissionregistrationv1.MutatingWebhookConfiguration
	validating *admissionregistrationv1.ValidatingWebhookConfiguration
}

// aloneNames are the names of its certificate.
func aloneNames() []string { return []string{"127.0.0.1"} }

func newAuthority(t *testing.T) certs.Pair {
	t.Helper()
	ca, err := certs.NewCA(aloneNames(), 24*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func serveAlone(t *testing.T) *servedAlone {
	t.Helper()
	const name = "served-alone"
	s := &servedAlone{address: mustFreeAddress(t), health: mustFreeAddress(t), metrics: mustFreeAddress(t), ca: newAuthority(t)}
	url := "https://" + s.address
	none := admissionregistrationv1.SideEffectClassNone
	// Nothing of the group exists: the API server calls none of them.
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{"nothing.example.com"}, APIVersions: []string{"v1"}, Resources: []string{"nothings"}},
	}}
	called := admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: s.ca.Certificate}
	s.mutating = &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.validating = &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, entry := range []string{"a.example.com", "b.example.com"} {
		s.mutating.Webhooks = append(s.mutating.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name: entry, ClientConfig: called, Rules: rules, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		})
	}
	s.validating.Webhooks = append(s.validating.Webhooks, admissionregistrationv1.ValidatingWebhook{
		Name: "c.example.com", ClientConfig: called, Rules: rules, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
	})
	s.secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: name}, Data: map[string][]byte{}}
	s.put(s.leaf(t, time.Now(), time.Hour))
	create(t, s.secret)
	create(t, s.mutating)
	create(t, s.validating)

	options := pillion.options()
	options.ListenAddress, options.HealthAddress, options.MetricsAddress = s.address, s.health, s.metrics
	options.CertificateSecret, options.WebhookConfiguration = name, name
	stop := pillion.runWebhook(server.Config, options)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
	})
	awaitStatus(t, s.health, http.StatusOK, "ok")
	return s
}

func (s *servedAlone) leaf(t *testing.T, issued time.Time, lifetime time.Duration) certs.Pair {
	t.Helper()
	leaf, err := certs.NewLeaf(s.ca, aloneNames(), lifetime, issued)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func (s *servedAlone) put(pair certs.Pair) {
	s.secret.Data = map[string][]byte{
		certs.CertificateKey: pair.Certificate, certs.PrivateKeyKey: pair.Key, certs.CABundleKey: s.ca.Certificate,
	}
}

// write stores a pair in the Secret.
func (s *servedAlone) write(t *testing.T, pair certs.Pair) {
	t.Helper()
	s.put(pair)
	if err := server.Client.Update(t.Context(), s.secret); err != nil {
		t.Fatal(err)
	}
}

// awaitAnother waits until another certificate is presented, and returns its serial number.
func (s *servedAlone) awaitAnother(t *testing.T, before, what string) string {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		return presented(t, s.address) != before, fmt.Errorf("%s is not presented", what)
	})
	if err != nil {
		t.Fatal(err)
	}
	return presented(t, s.address)
}

func (s *servedAlone) awaitMetrics(t *testing.T, want ...string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", http.NoBody)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close() //nolint:errcheck // it was only read
		content, err := io.ReadAll(response.Body)
		if err != nil {
			return false, err
		}
		err = missing(string(content), want...)
		return err == nil, err
	})
	if err != nil {
		t.Error(err)
	}
}

const (
	trusted, untrusted = "pillion_certificate_trusted 1\n", "pillion_certificate_trusted 0\n"
	faulty, faultless  = "pillion_certificate_faulty 1\n", "pillion_certificate_faulty 0\n"
)

func TestATamperedCABundleNeitherTakesACertificateNorKeepsOneOut(t *testing.T) {
	s := serveAlone(t)
	s.awaitMetrics(t, trusted, faultless)
	rogue := newAuthority(t).Certificate
	now := presented(t, s.address)
	update := func(bundles ...[]byte) {
		t.Helper()
		s.mutating.Webhooks[0].ClientConfig.CABundle, s.mutating.Webhooks[1].ClientConfig.CABundle = bundles[0], bundles[1]
		s.validating.Webhooks[0].ClientConfig.CABundle = bundles[2]
		if err := server.Client.Update(t.Context(), s.mutating); err != nil {
			t.Fatal(err)
		}
		if err := server.Client.Update(t.Context(), s.validating); err != nil {
			t.Fatal(err)
		}
	}
	good := s.ca.Certificate
	for name, bundles := range map[string][][]byte{
		"blank":           {nil, good, good},
		"another":         {good, rogue, good},
		"validating":      {good, good, bytes.Repeat(rogue, 500)},
		"all but another": {nil, good, rogue},
	} {
		update(bundles...)
		s.awaitMetrics(t, untrusted, faultless)
		awaitStatus(t, s.health, http.StatusOK, "does not verify: ")
		if got := presented(t, s.address); got != now {
			t.Errorf("%s: a good certificate went", name)
		}
		s.write(t, s.leaf(t, time.Now(), time.Hour))
		now = s.awaitAnother(t, now, name+": a new certificate")
		update(good, good, good)
		s.awaitMetrics(t, trusted, faultless)
	}
	update(rogue, rogue, rogue)
	s.awaitMetrics(t, untrusted, faulty)
	s.write(t, certs.Pair{Certificate: []byte("garbage"), Key: []byte("garbage")})
	awaitStatus(t, s.health, http.StatusOK, "is not taken: ")
	if got := presented(t, s.address); got != now {
		t.Error("the last good certificate went")
	}
}

func TestACertificateIsTakenWhenItBecomesValidAndMissedWhenItExpires(t *testing.T) {
	s := serveAlone(t)
	now := presented(t, s.address)
	const life = 4 * time.Second
	s.write(t, s.leaf(t, time.Now(), life))
	now = s.awaitAnother(t, now, "one that lives for seconds")
	s.write(t, s.leaf(t, time.Now().Add(time.Hour+life+2*time.Second), time.Hour)) // backdated by an hour
	awaitStatus(t, s.health, http.StatusOK, "not valid before")
	start := time.Now()
	awaitStatus(t, s.health, http.StatusServiceUnavailable, "there is no certificate that the API server would accept")
	s.awaitMetrics(t, untrusted, faulty)
	s.awaitAnother(t, now, "one that has become valid")
	awaitStatus(t, s.health, http.StatusOK, "ok")
	s.awaitMetrics(t, trusted, faultless)
	if took := time.Since(start); took > life+6*time.Second {
		t.Errorf("it took %s", took)
	}
	if strings.Contains(pillion.log.Take(), "PRIVATE KEY") {
		t.Error("the log holds a key")
	}
}
