package certs

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// world is a cluster whose time is ours: API servers that see the caBundle late, replicas of the webhook that see the Secret late, and
// a controller that crashes at any of its writes.
type world struct {
	now     time.Time
	options Options
	client  client.WithWatch

	caBundle []byte   // in the webhook configurations
	trusted  [][]byte // what each API server has seen of it
	seenAt   []time.Time
	replicas []*Serving
	loadedAt []time.Time
	crash    int           // the write that fails, counted down; negative: none
	skew     time.Duration // how much the controller's clock is ahead

	// verified is until when what a replica presents verifies by a caBundle: before one of the certificates expires nothing changes that.
	verified map[string]time.Time

	lag time.Duration // the longest that an API server lags behind
	// What is left out to see that it is needed.
	withoutOverlap, withoutCross bool
}

// The lags are shorter than the time that API servers are given, as the settings of a cluster have to be.
const (
	modelSettle = 6 * time.Second
	modelLag    = 4 * time.Second
)

func newWorld(t *testing.T) *world {
	w := &world{
		now: start(), crash: -1, options: options(), lag: modelLag,
		trusted: make([][]byte, 3), seenAt: make([]time.Time, 3), loadedAt: make([]time.Time, 2),
		replicas: []*Serving{{}, {}},
		verified: map[string]time.Time{},
	}
	w.options.CALifetime, w.options.LeafLifetime, w.options.Settle = 180*time.Second, 60*time.Second, modelSettle
	w.options.Holds = func(_ context.Context, bundle []byte) (bool, error) { return bytes.Equal(bundle, w.caBundle), nil }
	w.options.Trusted = func(context.Context) ([]byte, error) { return w.caBundle, nil }
	write := func(do func() error) error {
		w.crash--
		if w.crash == -1 {
			return errors.New("killed")
		}
		return do()
	}
	w.client = interceptor.NewClient(newClient(t), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			return write(func() error { return c.Create(ctx, o, options...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			return write(func() error { return c.Update(ctx, o, options...) })
		},
	})
	return w
}

// reconcile is what the controller does: certificates, and then the webhook configurations. It ends where it is killed.
func (w *world) reconcile(ctx context.Context) {
	result, err := Ensure(ctx, w.client, w.options, w.now.Add(w.skew))
	if err == nil {
		w.caBundle = result.CABundle
		if w.withoutOverlap {
			w.caBundle = pem.EncodeToMemory(blocksOf(result.CABundle)[0])
		}
	}
	if w.withoutCross {
		ca := &corev1.Secret{}
		if w.client.Get(ctx, client.ObjectKey{Namespace: "pillion-system", Name: "pillion-ca"}, ca) == nil && len(ca.Data[nextCrossKey]) > 0 {
			delete(ca.Data, nextCrossKey)
			_ = w.client.Update(ctx, ca)
		}
	}
}

// spread makes some API servers, and those that have lagged too long, see the caBundle, and so replicas the Secret.
func (w *world) spread(ctx context.Context, seldom func() bool) {
	for i := range w.trusted {
		if w.now.Sub(w.seenAt[i]) >= w.lag || (w.lag == modelLag && seldom()) {
			w.trusted[i], w.seenAt[i] = w.caBundle, w.now
		}
	}
	serving := &corev1.Secret{}
	if w.client.Get(ctx, client.ObjectKey{Namespace: "pillion-system", Name: "pillion-webhook-tls"}, serving) != nil {
		return
	}
	for i, replica := range w.replicas {
		if w.now.Sub(w.loadedAt[i]) >= modelLag || seldom() {
			_ = replica.Update(serving.Data[CertificateKey], serving.Data[PrivateKeyKey], w.caBundle, w.options.Names, w.now)
			w.loadedAt[i] = w.now
		}
	}
}

// failure says which API server could not verify which replica; empty: all could.
func (w *world) failure() string {
	for i, bundle := range w.trusted {
		for j, replica := range w.replicas {
			served := replica.certificate.Load()
			if served == nil {
				return fmt.Sprintf("replica %d has no certificate", j)
			}
			key := string(bundle) + string(bytes.Join(served.Certificate, nil))
			if w.now.Before(w.verified[key]) {
				continue
			}
			watched := &boundaries{now: w.now}
			if err := verifyBy(served, watched.pool(bundle), w.options.Names, w.now); err != nil {
				return fmt.Sprintf("after %s API server %d does not verify replica %d: %v", w.now.Sub(start()), i, j, err)
			}
			watched.add(served)
			w.verified[key] = watched.next
		}
	}
	return ""
}

func (w *world) remove(ctx context.Context, name string) {
	_ = w.client.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: name}})
}

func (w *world) phase(ctx context.Context) Phase {
	ca := &corev1.Secret{}
	if w.client.Get(ctx, client.ObjectKey{Namespace: "pillion-system", Name: "pillion-ca"}, ca) != nil {
		return ""
	}
	return decodeRotation(ca.Data).Phase
}

// run lets the world go on second by second; fault does to it what may happen at any time.
func (w *world) run(ctx context.Context, seconds int, random *rand.Rand, fault func(second int)) string {
	seldom := func() bool { return random.IntN(3) == 0 }
	w.reconcile(ctx)
	for range 2 { // and the configurations that the first reconciliation made
		w.spread(ctx, func() bool { return true })
	}
	ran := w.now
	for second := range seconds {
		w.now = w.now.Add(time.Second)
		fault(second)
		if seldom() || w.now.Sub(ran) >= 2*time.Second {
			w.reconcile(ctx)
			ran = w.now
		}
		w.spread(ctx, seldom)
		if failure := w.failure(); failure != "" {
			return fmt.Sprintf("%s (phase %s)", failure, w.phase(ctx))
		}
	}
	return ""
}

// No handshake fails while CAs and leaves are replaced, whenever the controller is killed, whoever sees what how late, and whichever
// Secret is lost.
func TestRotationNeverFailsAHandshake(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 1))
		w, lost, killed := newWorld(t), -60, 0
		replaced := 0
		before := Phase("")
		failure := w.run(t.Context(), 400, random, func(second int) {
			if w.crash < 0 && second-killed > 6 { // killed all the time it could do nothing
				w.crash, killed = random.IntN(3), second
			}
			phase := w.phase(t.Context())
			if second-lost > 60 && phase == PhaseStable && random.IntN(20) == 0 {
				lost = second
				secrets := []string{"pillion-ca", "pillion-webhook-tls"}
				if which := random.IntN(3); which < 2 {
					secrets = secrets[which : which+1]
				}
				for _, secret := range secrets {
					w.remove(t.Context(), secret)
				}
			}
			if phase == PhaseStable && before == PhaseRetire {
				replaced++
			}
			before = phase
		})
		if failure != "" {
			t.Fatalf("seed %d: %s", seed, failure)
		}
		if replaced == 0 {
			t.Fatalf("seed %d: no CA was replaced", seed)
		}
	}
}

// A clock of the controller's that says nonsense for a while fails no handshake: what it has made is not taken by replicas whose clocks
// are right, and what they serve stays trusted.
func TestTheControllersClockMaySayNonsenseForAWhile(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"half an hour ahead": 30 * time.Minute, "years ahead": 5 * 365 * day,
		"a minute behind": -90 * time.Second, "years behind": -5 * 365 * day,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(2) {
				random := rand.New(rand.NewPCG(seed, 3))
				w, until, next, times := newWorld(t), 0, 20, 0
				failure := w.run(t.Context(), 330, random, func(second int) {
					switch {
					case second > 220 && w.skew == 0: // it is right, and CAs are replaced as ever
					case second == until:
						w.skew, next = 0, second+50+random.IntN(40)
					case second == next:
						w.skew, until = skew, second+1+random.IntN(8)
						times++
					}
				})
				if failure != "" {
					t.Fatalf("seed %d: %s", seed, failure)
				}
				if times < 2 {
					t.Fatalf("seed %d: the clock was wrong %d times", seed, times)
				}
				for _, one := range ensure(t, w.client, w.options, w.now).Certificates {
					if one.Role == RoleCA && one.Certificate.NotBefore.Add(backdate).Before(w.now.Add(-modelSettle-w.options.CALifetime*2/3)) {
						t.Errorf("the CA is from %s and was not renewed", one.Certificate.NotBefore.Add(backdate))
					}
				}
			}
		})
	}
}

// Each of what makes a rotation safe is needed: without it some handshake fails, or the test above would prove nothing.
func TestRotationNeedsWhatItDoes(t *testing.T) {
	tests := map[string]struct {
		without func(*world)
		fails   bool
	}{
		"with all of it nothing fails": {without: func(*world) {}},
		"the cross-signature alone bears API servers that lag": {
			without: func(w *world) { w.options.Settle, w.lag = time.Nanosecond, 15*time.Second },
		},
		"the time to settle alone does, too": {
			without: func(w *world) { w.withoutCross = true },
		},
		"without either a lagging API server fails": {
			without: func(w *world) { w.options.Settle, w.lag, w.withoutCross = time.Nanosecond, 15*time.Second, true },
			fails:   true,
		},
		"without an overlap of CAs it fails": {
			without: func(w *world) {
				w.withoutOverlap, w.withoutCross = true, true
				w.options.Holds = nil
			},
			fails: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			failure := ""
			seeds := uint64(2)
			if test.fails {
				seeds = 8 // but it ends at the first failure
			}
			for seed := uint64(0); seed < seeds && failure == ""; seed++ {
				w := newWorld(t)
				test.without(w)
				failure = w.run(t.Context(), 300, rand.New(rand.NewPCG(seed, 2)), func(int) {})
			}
			if (failure != "") != test.fails {
				t.Errorf("fails: %v, want %v: %s", failure != "", test.fails, failure)
			}
		})
	}
}
