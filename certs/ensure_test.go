package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func options() Options {
	return Options{
		Namespace:         "pillion-system",
		CASecret:          "pillion-ca",
		CertificateSecret: "pillion-webhook-tls",
		Names:             []string{serviceName},
	}
}

func TestEnsureMakesBothSecrets(t *testing.T) {
	c := newClient(t)
	result := ensure(t, c, options(), start())
	ca, leaf := secret(t, c, "pillion-ca"), secret(t, c, "pillion-webhook-tls")
	for _, made := range []*corev1.Secret{ca, leaf} {
		if made.Type != corev1.SecretTypeTLS {
			t.Errorf("Secret %s is of type %s", made.Name, made.Type)
		}
	}
	if err := Verify(pairOf(leaf), result.CABundle, options().Names, start()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(string(ca.Data[CertificateKey]), string(leaf.Data[CABundleKey])); diff != "" {
		t.Errorf("ca.crt is not the CA's certificate:\n%s", diff)
	}
	if _, ok := ca.Data[CABundleKey]; ok {
		t.Error("the CA's Secret holds a ca.crt")
	}
	if want := renewAt(certificate(t, pairOf(leaf))); !result.RenewAt.Equal(want) {
		t.Errorf("renewal at %s, want %s", result.RenewAt, want)
	}
	if len(result.Changes) == 0 || result.Phase != PhaseStable {
		t.Errorf("phase %s, changes: %q", result.Phase, result.Changes)
	}
}

func TestEnsureRepairsWhatCannotServe(t *testing.T) {
	stranger := newCA(t, []string{"x.y.svc"}, start())
	tests := map[string]struct {
		secret  string
		damage  func(*corev1.Secret)
		options func(*Options)
		after   time.Duration
		// wantNew names the Secrets whose certificates are new afterwards; wantChange is in one of the changes. wantNext: a CA that
		// is to take over is there, while the certificate of the lost one still serves.
		wantNew    []string
		wantNext   bool
		wantChange string
	}{
		"nothing is touched while all is well": {after: DefaultLeafLifetime * 3 / 5},
		"a leaf is renewed at two thirds of its life": {
			after: DefaultLeafLifetime * 2 / 3, wantNew: []string{"leaf"}, wantChange: "two thirds",
		},
		"an expired leaf is renewed": {after: 2 * DefaultLeafLifetime, wantNew: []string{"leaf"}, wantChange: "expired"},
		"a leaf with garbage for a key is replaced": {
			secret: "pillion-webhook-tls", damage: func(s *corev1.Secret) { s.Data[PrivateKeyKey] = []byte("x") },
			wantNew: []string{"leaf"}, wantChange: "key is empty or not PEM",
		},
		"a leaf's Secret that was emptied is filled": {
			secret: "pillion-webhook-tls", damage: func(s *corev1.Secret) { s.Data = nil },
			wantNew: []string{"leaf"}, wantChange: "certificate is empty",
		},
		"a leaf of a foreign CA is replaced": {
			secret: "pillion-webhook-tls", damage: func(s *corev1.Secret) {
				setPair(s, newLeaf(t, newCA(t, []string{serviceName}, start()), []string{serviceName}, start()))
			},
			wantNew: []string{"leaf"}, wantChange: "not signed by the CA bundle",
		},
		"a ca.crt that was changed is written again, the leaf stays": {
			secret: "pillion-webhook-tls", damage: func(s *corev1.Secret) { s.Data[CABundleKey] = stranger.Certificate },
			wantChange: "wrote ca.crt",
		},
		"a CA with another's key is replaced": {
			secret: "pillion-ca", damage: func(s *corev1.Secret) { s.Data[PrivateKeyKey] = stranger.Key },
			wantNext: true, wantChange: "do not belong together",
		},
		"a CA for other names is replaced": {
			secret: "pillion-ca", damage: func(s *corev1.Secret) { setPair(s, stranger) },
			wantNew: []string{"ca"}, wantNext: true, wantChange: "may not sign for exactly",
		},
		"a CA that is none is replaced": {
			secret: "pillion-ca", damage: func(s *corev1.Secret) { setPair(s, newLeaf(t, stranger, []string{"x.y.svc"}, start())) },
			wantNew: []string{"ca"}, wantNext: true, wantChange: "not that of a CA",
		},
		"a CA whose certificate is for clients only is replaced": {
			secret: "pillion-ca", damage: func(s *corev1.Secret) { setPair(s, newCAForClients(t, options().Names)) },
			wantNew: []string{"ca"}, wantNext: true, wantChange: "what the CA signs does not verify",
		},
		"both are replaced when the webhook gets another name": {
			options: func(o *Options) { o.Names = []string{serviceName, "10.0.0.7"} },
			wantNew: []string{"ca", "leaf"}, wantChange: "may not sign for exactly",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, opts := newClient(t), options()
			ensure(t, c, opts, start())
			if test.damage != nil {
				damaged := secret(t, c, test.secret)
				test.damage(damaged)
				if err := c.Update(t.Context(), damaged); err != nil {
					t.Fatal(err)
				}
			}
			if test.options != nil {
				test.options(&opts)
			}
			caBefore, leafBefore := secret(t, c, "pillion-ca"), secret(t, c, "pillion-webhook-tls")
			now := start().Add(test.after)
			result := ensure(t, c, opts, now)
			ca, leaf := secret(t, c, "pillion-ca"), secret(t, c, "pillion-webhook-tls")

			var renewed []string
			if !bytes.Equal(ca.Data[CertificateKey], caBefore.Data[CertificateKey]) {
				renewed = append(renewed, "ca")
			}
			if !bytes.Equal(leaf.Data[CertificateKey], leafBefore.Data[CertificateKey]) {
				renewed = append(renewed, "leaf")
			}
			if diff := cmp.Diff(test.wantNew, renewed); diff != "" {
				t.Errorf("renewed (-want +got):\n%s", diff)
			}
			all := ""
			for _, change := range result.Changes {
				all += change.String() + "\n"
			}
			if !strings.Contains(all, test.wantChange) || (test.wantChange == "") != (all == "") {
				t.Errorf("changes %q do not contain %q", all, test.wantChange)
			}
			if err := Verify(pairOf(leaf), leaf.Data[CABundleKey], opts.Names, now); err != nil {
				t.Errorf("the result does not verify: %v", err)
			}
			if next := len(ca.Data[nextCertificateKey]) > 0; next != test.wantNext {
				t.Errorf("the next CA is there: %v", next)
			}
			if !result.RenewAt.After(now) {
				t.Errorf("renewal at %s is due at once, at %s", result.RenewAt, now)
			}
			if again := ensure(t, c, opts, now); len(again.Changes) != 0 {
				t.Errorf("a second call changed: %q", again.Changes)
			}
		})
	}
}

func TestEnsureKeepsWhatElseIsInASecret(t *testing.T) {
	c := newClient(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: "pillion-webhook-tls", Labels: map[string]string{"team": "a"}},
		Data:       map[string][]byte{"note": []byte("kept")},
	})
	ensure(t, c, options(), start())
	got := secret(t, c, "pillion-webhook-tls")
	if got.Labels["team"] != "a" || string(got.Data["note"]) != "kept" {
		t.Errorf("labels %v, note %q", got.Labels, got.Data["note"])
	}
}

func TestEnsureTellsARaceFromAFault(t *testing.T) {
	gr := corev1.Resource("secrets")
	tests := map[string]struct {
		err  error
		want bool
	}{
		"somebody else updated the Secret": {err: apierrors.NewConflict(gr, "pillion-ca", nil), want: true},
		"somebody else created the Secret": {err: apierrors.NewAlreadyExists(gr, "pillion-ca"), want: true},
		"the write is forbidden":           {err: apierrors.NewForbidden(gr, "pillion-ca", nil)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := interceptor.NewClient(newClient(t), interceptor.Funcs{
				Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return test.err },
			})
			_, err := Ensure(t.Context(), c, options(), start())
			if err == nil {
				t.Fatal("no error")
			}
			if got := Raced(err); got != test.want {
				t.Errorf("Raced(%v) = %v", err, got)
			}
		})
	}
}

func newClient(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func ensure(t *testing.T, c client.Client, options Options, now time.Time) Result {
	t.Helper()
	result, err := Ensure(t.Context(), c, options, now)
	if err != nil {
		t.Fatal(err)
	}
	// What is told of, and what is to be trusted, holds no key, whatever the Secrets hold.
	if told := fmt.Sprint(result.Changes, result.Reason, result.Message, result.Fault, string(result.CABundle)); strings.Contains(told, "PRIVATE KEY") {
		t.Fatalf("a private key is told: %s", told)
	}
	return result
}

func secret(t *testing.T, c client.Client, name string) *corev1.Secret {
	t.Helper()
	got := &corev1.Secret{}
	if err := c.Get(t.Context(), types.NamespacedName{Namespace: "pillion-system", Name: name}, got); err != nil {
		t.Fatal(err)
	}
	return got
}

func pairOf(secret *corev1.Secret) Pair {
	return Pair{Certificate: secret.Data[CertificateKey], Key: secret.Data[PrivateKeyKey]}
}

func setPair(secret *corev1.Secret, pair Pair) {
	secret.Data[CertificateKey], secret.Data[PrivateKeyKey] = pair.Certificate, pair.Key
}

// Each write is seen by whoever watches the Secret, and has them try again at once.
func TestTryingAgainWritesNothingButWhatFailed(t *testing.T) {
	c := newClient(t)
	ensure(t, c, options(), start())
	writes := map[string]int{}
	forbidden := apierrors.NewForbidden(corev1.Resource("secrets"), "pillion-webhook-tls", errors.New("no"))
	forbidding := interceptor.NewClient(c, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			writes[o.GetName()]++
			if o.GetName() == "pillion-webhook-tls" {
				return forbidden
			}
			return c.Update(ctx, o, options...)
		},
	})
	due := start().Add(5 * day)
	for second := range 20 {
		if _, err := Ensure(t.Context(), forbidding, options(), due.Add(time.Duration(second)*time.Second)); !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
	}
	if want := map[string]int{"pillion-ca": 1, "pillion-webhook-tls": 20}; !cmp.Equal(writes, want) {
		t.Errorf("writes: %v, want %v", writes, want)
	}
	result := ensure(t, c, options(), due.Add(time.Minute))
	if err := Verify(pairOf(secret(t, c, "pillion-webhook-tls")), result.CABundle, options().Names, due.Add(6*day)); err != nil {
		t.Error(err)
	}
}
