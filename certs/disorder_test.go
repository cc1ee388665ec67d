package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// reasons returns those of changes.
func reasons(changes []Change) []Reason {
	var all []Reason
	for _, change := range changes {
		all = append(all, change.Reason)
	}
	return all
}

// inPhases calls Ensure at each moment and checks what it did.
func inPhases(t *testing.T, c client.Client, opts Options, steps []struct {
	at   time.Time
	want []Reason
},
) Result {
	t.Helper()
	var result Result
	for _, step := range steps {
		result = ensure(t, c, opts, step.at)
		if diff := cmp.Diff(step.want, reasons(result.Changes)); diff != "" {
			t.Fatalf("at %s (-want +got):\n%s", step.at, diff)
		}
	}
	return result
}

type steps = []struct {
	at   time.Time
	want []Reason
}

// What is lost is made anew in an order in which everything that is served meanwhile verifies; TestRotationNeverFailsAHandshake
// proves that. What is told of it is out of order.
func TestWhatIsLostIsToldOf(t *testing.T) {
	both := []string{"pillion-ca", "pillion-webhook-tls"}
	later := start().Add(time.Hour)
	tests := map[string]struct {
		lost  []string
		steps steps
	}{
		"nothing": {steps: steps{{later, nil}}},
		"the serving certificate is signed by the CA that there is": {
			lost: both[1:], steps: steps{{later, []Reason{ReasonCertificateReplaced}}, {later, nil}},
		},
		"the CA is followed by one that API servers have time to see": {
			lost: both[:1], steps: steps{
				{later, []Reason{ReasonCALost, ReasonBundleUpdated, ReasonCASettling}},
				{later.Add(119 * time.Second), nil},
				{later.Add(120 * time.Second), []Reason{ReasonCAActivated, ReasonCertificateIssued, ReasonCARetiring}},
				{later.Add(7*day + time.Second), []Reason{ReasonCARetired, ReasonCertificateIssued}},
			},
		},
		"both are made anew once caBundles, which still hold the old CA, hold the new one as well": {
			lost: both, steps: steps{
				{later, []Reason{ReasonCALost, ReasonCASettling}},
				{later.Add(4 * time.Second), nil},
				{later.Add(5 * time.Second), []Reason{ReasonCAActivated, ReasonCertificateReplaced, ReasonCARetiring}},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, opts := newClient(t), options()
			first := ensure(t, c, opts, start())
			opts.Trusted = func(context.Context) ([]byte, error) { return first.CABundle, nil }
			for _, lost := range test.lost {
				if err := c.Delete(t.Context(), secret(t, c, lost)); err != nil {
					t.Fatal(err)
				}
			}
			result := inPhases(t, c, opts, test.steps)
			if result.RenewAt.IsZero() {
				t.Error("nothing is due any more")
			}
			now := test.steps[len(test.steps)-1].at
			if err := Verify(pairOf(secret(t, c, "pillion-webhook-tls")), result.CABundle, opts.Names, now); err != nil {
				t.Error(err)
			}
		})
	}
}

// While a serving certificate is awaited it is known when there will be one.
func TestItIsKnownWhenTheNextCASigns(t *testing.T) {
	c, opts := newClient(t), options()
	opts.Trusted = func(context.Context) ([]byte, error) { return newCA(t, opts.Names, start()).Certificate, nil }
	result := ensure(t, c, opts, start())
	if want := start().Add(inHaste); !result.RenewAt.Equal(want) || !result.LeafNotAfter.IsZero() || result.Phase != PhaseSettle {
		t.Errorf("due at %s, want %s; phase %s, there is a certificate until %s", result.RenewAt, want, result.Phase, result.LeafNotAfter)
	}
}

// A stranger's CA in a caBundle does not become trusted by our being lost.
func TestOnlyCAsForOurNamesAreTakenFromCABundles(t *testing.T) {
	c, opts := newClient(t), options()
	stranger := newCA(t, []string{"x.y.svc"}, start())
	opts.Trusted = func(context.Context) ([]byte, error) { return stranger.Certificate, nil }
	result := ensure(t, c, opts, start())
	if result.Phase != PhaseStable || len(blocksOf(result.CABundle)) != 1 || bytes.Contains(result.CABundle, stranger.Certificate) {
		t.Errorf("phase %s, %d CAs are trusted", result.Phase, len(blocksOf(result.CABundle)))
	}
}

func TestAClockThatWasSetBack(t *testing.T) {
	opts := options()
	opts.CALifetime, opts.LeafLifetime, opts.Settle = 90*day, 6*day, time.Minute
	due := start().Add(60 * day)
	back := start().Add(-2 * time.Hour)
	settling := steps{
		{start(), []Reason{ReasonCACreated, ReasonCertificateIssued}},
		{due, []Reason{ReasonCAPublished, ReasonCertificateReplaced, ReasonCASettling}},
	}
	tests := map[string]steps{
		"makes what is not valid yet anew, and trusts the old CA meanwhile": {
			{start(), []Reason{ReasonCACreated, ReasonCertificateIssued}},
			{back, []Reason{ReasonCALost, ReasonCASettling}},
			{back.Add(inHaste), []Reason{ReasonCAActivated, ReasonCertificateIssued, ReasonCARetiring}},
			{back.Add(time.Minute), nil},
		},
		"by less than certificates are backdated changes nothing": {
			{start(), []Reason{ReasonCACreated, ReasonCertificateIssued}},
			{start().Add(-59 * time.Minute), nil},
		},
		"gives API servers their time again": append(settling,
			steps{
				{due.Add(-30 * time.Minute), []Reason{ReasonCASettling}},
				{due.Add(-29*time.Minute - time.Second), nil},
				{due.Add(-29 * time.Minute), []Reason{ReasonCAActivated, ReasonCertificateIssued, ReasonCARetiring}},
			}...),
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { inPhases(t, newClient(t), opts, steps) })
	}
}

// Whoever reads what is not true any more writes nothing by it.
func TestAStaleReadRegeneratesNothing(t *testing.T) {
	stale := map[string]func(t *testing.T, c client.WithWatch, opts Options){
		"before there was anything": func(*testing.T, client.WithWatch, Options) {},
		"before the serving certificate was renewed": func(t *testing.T, c client.WithWatch, opts Options) {
			t.Helper()
			ensure(t, c, opts, start())
		},
		"before the CA was replaced": func(t *testing.T, c client.WithWatch, opts Options) {
			t.Helper()
			ensure(t, c, opts, start().Add(-80*day))
		},
	}
	opts := options()
	opts.CALifetime, opts.LeafLifetime, opts.Settle = 90*day, 6*day, time.Minute
	now := start().Add(5 * day)
	for name, before := range stale {
		for _, of := range []string{"pillion-ca", "pillion-webhook-tls", "both"} {
			t.Run(name+", of "+of, func(t *testing.T) {
				c := newClient(t)
				before(t, c, opts)
				old := map[string]*corev1.Secret{}
				for _, name := range []string{"pillion-ca", "pillion-webhook-tls"} {
					got := &corev1.Secret{}
					if c.Get(t.Context(), types.NamespacedName{Namespace: "pillion-system", Name: name}, got) == nil {
						old[name] = got
					}
				}
				for i := range 3 { // through all phases
					ensure(t, c, opts, now.Add(time.Duration(i)*2*time.Minute))
				}
				ca, leaf := secret(t, c, "pillion-ca"), secret(t, c, "pillion-webhook-tls")

				reads := interceptor.NewClient(c, interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
						if of != "both" && key.Name != of {
							return c.Get(ctx, key, into, o...)
						}
						if old[key.Name] == nil {
							return c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: "missing"}, into)
						}
						old[key.Name].DeepCopyInto(into.(*corev1.Secret))
						return nil
					},
				})
				_, err := Ensure(t.Context(), reads, opts, now.Add(10*time.Minute))
				if err != nil && !Raced(err) {
					t.Error(err)
				}
				// Of the CA's Secret until when it is to be trusted may be written, of what was read as it is.
				if got := secret(t, c, "pillion-ca"); !bytes.Equal(got.Data[CertificateKey], ca.Data[CertificateKey]) ||
					!bytes.Equal(got.Data[previousKey], ca.Data[previousKey]) {
					t.Error("the CA was written anew")
				}
				if got := secret(t, c, "pillion-webhook-tls"); !cmp.Equal(got.Data, leaf.Data) {
					t.Error("the serving certificate was written anew")
				}
			})
		}
	}
}

// A CA that may sign for more than the names is none of ours, and is replaced.
func TestACAForMoreThanTheNamesIsReplaced(t *testing.T) {
	names := options().Names
	for name, loosen := range map[string]func(*x509.Certificate){
		"for other names, too":             func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, "example.com") },
		"for addresses":                    func(c *x509.Certificate) { c.ExcludedIPRanges = nil },
		"where constraints may be ignored": func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false },
	} {
		t.Run(name, func(t *testing.T) {
			ca := certificate(t, newCA(t, names, start()))
			if !permits(ca, names) {
				t.Fatal("a CA as it is made is not for the names")
			}
			loosen(ca)
			if permits(ca, names) {
				t.Error("it is taken for ours")
			}
		})
	}
}
