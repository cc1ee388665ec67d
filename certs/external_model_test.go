package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// authority is somebody else's CA.
type authority struct{ Pair }

// newAuthority makes a CA as others do: for any name, with as many CAs below it as they like. Without one above it is a root.
func newAuthority(t *testing.T, name string, above *authority, notBefore, notAfter time.Time) *authority {
	t.Helper()
	return &authority{newIssued(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, above)}
}

// issue issues a serving certificate.
func (a *authority) issue(t *testing.T, names []string, notBefore, notAfter time.Time) Pair {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "webhook"}, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames, template.IPAddresses = split(names)
	return newIssued(t, template, a)
}

func newIssued(t *testing.T, template *x509.Certificate, by *authority) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, any(key)
	if by != nil {
		pair, err := parse(by.Pair)
		if err != nil {
			t.Fatal(err)
		}
		parent, signer = pair.Leaf, pair.PrivateKey
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := encode(der, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// issuing is somebody who issues certificates: renews them, replaces the CA, writes what cannot be used, and is away at times.
type issuing struct {
	t      *testing.T
	root   *authority
	issued *External
	// rootAt and leafAt are when the CA and the certificate were made. The certificate follows a new CA later.
	rootAt, leafAt time.Time
	broken         int // for how many seconds what is issued cannot be used
}

func (i *issuing) tick(now time.Time, random *rand.Rand) {
	if i.root == nil || now.Sub(i.rootAt) > 70*time.Second {
		i.root = newAuthority(i.t, "Root", nil, now.Add(-time.Hour), now.Add(300*time.Second)) // all by the same name
		i.rootAt = now
	}
	if i.issued == nil || now.Sub(i.leafAt) > 80*time.Second || i.leafAt.Before(i.rootAt) && random.IntN(4) == 0 {
		names := options().Names
		pair := i.root.issue(i.t, names, now.Add(-time.Hour), now.Add(120*time.Second))
		if random.IntN(2) == 0 {
			intermediate := newAuthority(i.t, "Intermediate", i.root, now.Add(-time.Hour), now.Add(200*time.Second))
			pair = intermediate.issue(i.t, names, now.Add(-time.Hour), now.Add(120*time.Second))
			pair.Certificate = joinPEM(pair.Certificate, intermediate.Certificate)
		}
		i.issued, i.leafAt = &External{Pair: pair, CA: i.root.Certificate}, now
	}
	i.broken--
	if i.broken < 0 && random.IntN(25) == 0 {
		i.broken = random.IntN(5)
	}
}

func (i *issuing) External(context.Context) (*External, error) {
	if i.issued == nil || i.broken%2 == 1 {
		return nil, nil //nolint:nilnil // that is how it is said
	}
	if i.broken > 0 {
		other := i.root.issue(i.t, []string{"x.y.svc"}, i.leafAt, i.leafAt.Add(time.Minute))
		return &External{Pair: Pair{Certificate: i.issued.Pair.Certificate, Key: other.Key}, CA: i.issued.CA}, nil
	}
	return i.issued, nil
}

// outsideWorld is a world in which somebody else issues certificates, and somebody else still writes caBundles: both at times.
type outsideWorld struct {
	*world
	issuing *issuing
	outside bool
	// injectedAt is when the caBundle was injected last.
	injectedAt time.Time
}

// newOutsideWorld returns a world in which nobody else issues certificates yet. A certificate lives long enough for who issues it to change
// twice in a row.
func newOutsideWorld(t *testing.T) *outsideWorld {
	w := &outsideWorld{world: newWorld(t)}
	w.options.CALifetime, w.options.LeafLifetime = 300*time.Second, 120*time.Second
	return w
}

// switchMode has somebody else issue certificates, or no longer.
func (w *outsideWorld) switchMode(t *testing.T) {
	w.outside = !w.outside
	w.issuing = &issuing{t: t}
	w.options.External = nil
	w.options.Holds = func(_ context.Context, bundle []byte) (bool, error) { return bytes.Equal(bundle, w.caBundle), nil }
	if w.outside {
		w.options.External = w.issuing.External
		w.options.Holds = func(_ context.Context, bundle []byte) (bool, error) {
			return Covers(w.caBundle, bundle, w.now), nil
		}
	}
}

// reconcile is what the controller does. Where somebody else issues certificates it writes no caBundle.
func (w *outsideWorld) reconcile(ctx context.Context) {
	before := w.caBundle
	w.world.reconcile(ctx)
	if w.outside {
		w.caBundle = before
	}
}

// inject is what cert-manager's cainjector does: what is to be trusted is added, what has expired is removed.
func (w *outsideWorld) inject(ctx context.Context) {
	serving := &corev1.Secret{}
	if w.client.Get(ctx, client.ObjectKey{Namespace: "pillion-system", Name: "pillion-webhook-tls"}, serving) == nil {
		for _, block := range blocksOf(serving.Data[CABundleKey]) {
			if added := pem.EncodeToMemory(block); !bytes.Contains(w.caBundle, added) {
				w.caBundle = append(bytes.Clone(w.caBundle), added...)
			}
		}
		w.caBundle = stillValid(w.caBundle, w.now)
		w.injectedAt = w.now
	}
}

// run lets the world go on second by second.
func (w *outsideWorld) run(ctx context.Context, seconds int, random *rand.Rand, fault func(second int)) string {
	seldom := func() bool { return random.IntN(3) == 0 }
	w.reconcile(ctx)
	for range 2 {
		w.spread(ctx, func() bool { return true })
	}
	ran := w.now
	for second := range seconds {
		w.now = w.now.Add(time.Second)
		fault(second)
		if w.outside {
			w.issuing.tick(w.now, random)
		}
		if seldom() || w.now.Sub(ran) >= 2*time.Second {
			w.reconcile(ctx)
			ran = w.now
		}
		if w.outside && (seldom() || w.now.Sub(w.injectedAt) >= 4*time.Second) {
			w.inject(ctx)
		}
		w.spread(ctx, seldom)
		if failure := w.failure(); failure != "" {
			return fmt.Sprintf("%s (phase %s, somebody else issues: %v)", failure, w.phase(ctx), w.outside)
		}
	}
	return ""
}

// No handshake fails while somebody else's CAs and certificates come and go, and who issues them changes in any phase, whenever the
// controller is killed and whoever sees what how late.
func TestNoHandshakeFailsWhoeverIssuesCertificates(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 7))
		w := newOutsideWorld(t)
		switched, killed, settled, activated, inPhase, before := 0, 0, 0, 0, map[Phase]int{}, Phase("")
		hasty := false
		failure := w.run(t.Context(), 500, random, func(second int) {
			if w.crash < 0 && second-killed > 6 {
				w.crash, killed = random.IntN(3), second
			}
			phase := w.phase(t.Context())
			atOnce := phase != PhaseStable && phase != PhaseRetire && !hasty && random.IntN(4) == 0
			if atOnce || second-switched > 30 && random.IntN(15) == 0 {
				w.switchMode(t)
				switched, hasty = second, atOnce // twice in a row nothing could be renewed
				inPhase[phase]++
			}
			if phase == PhaseRetire && before != PhaseRetire {
				activated++
			}
			if pending := phase == PhasePublish || phase == PhaseSettle; !pending || second == switched {
				settled = second
			} else if second-settled == 60 {
				t.Errorf("seed %d: a CA has been about to take over since %ds, and it is %ds", seed, settled, second)
			}
			before = phase
		})
		t.Logf("seed %d: %d CAs took over; who issues changed in phases %v", seed, activated, inPhase)
		if failure != "" {
			t.Fatalf("seed %d: %s", seed, failure)
		}
		if activated < 3 || len(inPhase) == 0 {
			t.Errorf("seed %d: hardly anything happened", seed)
		}
	}
}

// Without the time to settle it fails: nothing else helps where one CA of somebody else's follows another.
func TestCAsOfOthersNeedTimeToSettle(t *testing.T) {
	for name, test := range map[string]struct {
		settle, lag time.Duration
		fails       bool
	}{
		"longer than API servers lag":  {settle: modelSettle, lag: modelLag},
		"shorter than API servers lag": {settle: time.Nanosecond, lag: 15 * time.Second, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			failure := ""
			for seed := uint64(0); seed < 4 && failure == ""; seed++ {
				w := newOutsideWorld(t)
				w.options.Settle, w.lag = test.settle, test.lag
				failure = w.run(t.Context(), 300, rand.New(rand.NewPCG(seed, 8)), func(second int) {
					if second == 20 {
						w.switchMode(t)
					}
				})
			}
			if (failure != "") != test.fails {
				t.Errorf("fails: %v, want %v: %s", failure != "", test.fails, failure)
			}
		})
	}
}
