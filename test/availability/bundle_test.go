package availability

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// entries are those of both webhook configurations.
type entries struct {
	mutating   []admissionregistrationv1.MutatingWebhook
	validating []admissionregistrationv1.ValidatingWebhook
}

// clients returns how each of the entries is called, those that change Pods first.
func (e *entries) clients() []*admissionregistrationv1.WebhookClientConfig {
	var all []*admissionregistrationv1.WebhookClientConfig
	for i := range e.mutating {
		all = append(all, &e.mutating[i].ClientConfig)
	}
	for i := range e.validating {
		all = append(all, &e.validating[i].ClientConfig)
	}
	return all
}

// trust has all entries trust something else.
func trust(bundle []byte) func(*entries) {
	return func(e *entries) {
		for _, client := range e.clients() {
			client.CABundle = bundle
		}
	}
}

// TestATamperedCABundleIsRepaired changes what the API server trusts, as somebody may who can write the webhook configurations. It must be
// as it was in less than two seconds, and nothing may fail but what was under way meanwhile.
func TestATamperedCABundleIsRepaired(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{WebhookEnv: []string{noDrain}})
	stranger, many := strangers(t, 1), strangers(t, 500)
	tests := []struct {
		name   string
		tamper func(*entries)
		// harmless changes break nothing that is called.
		harmless bool
	}{
		{"every caBundle is blank", trust(nil), false},
		{"every caBundle is garbage", trust([]byte("garbage")), false},
		{"every caBundle is garbage that looks like a certificate", trust([]byte(garbageCertificate)), false},
		{"every caBundle is a stranger's", trust(stranger), false},
		{"one entry's caBundle holds 500 strangers' certificates", func(e *entries) { e.mutating[0].ClientConfig.CABundle = many }, false},
		{"one entry's caBundle is blank", func(e *entries) { e.mutating[0].ClientConfig.CABundle = nil }, false},
		{"a stranger is trusted as well", func(e *entries) {
			for _, client := range e.clients() {
				client.CABundle = slices.Concat(client.CABundle, stranger)
			}
		}, true},
		{"one entry of those that validate is a stranger's", func(e *entries) { e.validating[0].ClientConfig.CABundle = stranger }, true},
		{"there is an entry of somebody else", func(e *entries) {
			rogue := *e.mutating[0].DeepCopy()
			rogue.Name, rogue.FailurePolicy = "rogue.example.com", new(admissionregistrationv1.Ignore)
			rogue.ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/"), CABundle: stranger}
			e.mutating = append(e.mutating, rogue)
		}, true},
		{"an entry calls somebody else", func(e *entries) {
			e.mutating[0].ClientConfig.Service = nil
			e.mutating[0].ClientConfig.URL = new("https://127.0.0.1:1/")
		}, false},
		{"there is no entry", func(e *entries) { e.mutating, e.validating = nil, nil }, false},
	}
	traffic, stop := c.startTraffic(t, flow{creators: 4, handshakes: 100})
	traffic.awaitCreates(t, 50)
	var disorders []disorder
	for range either(1, 50) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				before := len(traffic.failed())
				trusted := traffic.roots.Load()
				d := c.tamper(t, test.tamper)
				if !test.harmless {
					d.told = traffic.awaitTold(t, trusted)
				}
				traffic.awaitCreates(t, 100) // what fails after it is told apart
				failed := len(traffic.failed()) - before
				t.Logf("repaired after %s; %d failed", d.lasted().Round(time.Millisecond), failed)
				if d.lasted() >= repairLimit {
					t.Error("that is too long")
				}
				if test.harmless {
					if failed > 0 {
						t.Error("something failed")
					}
					return
				}
				disorders = append(disorders, d)
			})
		}
	}
	stop()
	traffic.report(t, func(failed failure) bool {
		return slices.ContainsFunc(disorders, func(d disorder) bool { return d.excuses(failed) })
	})
	if len(traffic.failed()) == 0 {
		t.Error("nothing failed at all: the traffic does not notice what the API server trusts")
	}
}

// awaitTold returns once what dials trust was told anew and is as before. API servers are told in the same way.
func (f *traffic) awaitTold(t *testing.T, before *x509.CertPool) time.Time {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		is := f.roots.Load()
		return is != before && is.Equal(before), errors.New("a watch has not told of the caBundle")
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// tamper changes the entries and waits until they are as they were.
func (c *cluster) tamper(t *testing.T, change func(*entries)) disorder {
	t.Helper()
	var before entries
	d := disorder{broken: time.Now()}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		mutating, validating, err := c.configurations(t.Context())
		if err != nil {
			return err
		}
		before = entries{mutating.DeepCopy().Webhooks, validating.DeepCopy().Webhooks}
		changed := entries{mutating.Webhooks, validating.Webhooks}
		change(&changed)
		mutating.Webhooks, validating.Webhooks = changed.mutating, changed.validating
		d.broken = time.Now()
		if err := c.server.Client.Update(t.Context(), mutating); err != nil {
			return err
		}
		return c.server.Client.Update(t.Context(), validating)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		mutating, validating, err := c.configurations(ctx)
		if err != nil {
			return false, err
		}
		d.mended = time.Now()
		return equality.Semantic.DeepEqual(mutating.Webhooks, before.mutating) &&
			equality.Semantic.DeepEqual(validating.Webhooks, before.validating), errors.New("the entries are not as they were")
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (c *cluster) configurations(ctx context.Context) (
	*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	mutating, validating := &admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.ValidatingWebhookConfiguration{}
	key := client.ObjectKey{Name: installation.Configuration}
	return mutating, validating, errors.Join(c.server.Client.Get(ctx, key, mutating), c.server.Client.Get(ctx, key, validating))
}

const garbageCertificate = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"

// strangers returns the certificates of as many CAs that nobody knows.
func strangers(t *testing.T, n int) []byte {
	t.Helper()
	all := &bytes.Buffer{}
	for range n {
		ca, err := certs.NewCA([]string{serverName}, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		all.Write(ca.Certificate)
	}
	return all.Bytes()
}
