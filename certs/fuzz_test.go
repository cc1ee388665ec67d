package certs

import (
	"bytes"
	"context"
	"encoding/pem"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzServing gives a replica that serves a good pair any other: whatever it is, what is served verifies afterwards, by the caBundle that
// it was taken by.
func FuzzServing(f *testing.F) {
	names := []string{serviceName}
	ca, stranger := newCA(f, names, start()), newCA(f, names, start())
	good, foreign := newLeaf(f, ca, names, start()), newLeaf(f, stranger, names, start())
	crossed, err := crossSign(stranger.Certificate, ca)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Certificate, good.Key, ca.Certificate, int64(0))
	f.Add(foreign.Certificate, foreign.Key, ca.Certificate, int64(0))
	f.Add(append(bytes.Clone(foreign.Certificate), crossed...), foreign.Key, ca.Certificate, int64(0))
	f.Add(good.Certificate, foreign.Key, ca.Certificate, int64(0))
	f.Add(good.Certificate[:len(good.Certificate)/2], good.Key, ca.Certificate, int64(0))
	f.Add(good.Certificate, good.Key, bytes.Repeat(ca.Certificate, 50), int64(3600))
	f.Add(good.Certificate, good.Key, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), int64(8*24*3600))
	f.Fuzz(func(t *testing.T, certificatePEM, keyPEM, bundle []byte, seconds int64) {
		serving, now := &Serving{}, start().Add(time.Duration(seconds%(400*24*3600))*time.Second)
		if err := serving.Update(good.Certificate, good.Key, ca.Certificate, names, start()); err != nil {
			t.Fatal(err)
		}
		err := serving.Update(certificatePEM, keyPEM, bundle, names, now)
		served, servedErr := serving.GetCertificate(nil)
		if servedErr != nil {
			t.Fatal(servedErr)
		}
		if err != nil {
			if !bytes.Equal(served.Certificate[0], blocksOf(good.Certificate)[0].Bytes) {
				t.Fatalf("what is refused (%v) is served", err)
			}
			return
		}
		if err := Verify(Pair{Certificate: certificatePEM, Key: keyPEM}, bundle, names, now); err != nil {
			t.Fatalf("what does not verify is served: %v", err)
		}
		if err := Check(certificatePEM, bundle, names, now); err != nil {
			t.Fatalf("Check differs from Verify: %v", err)
		}
	})
}

// FuzzEnsure gives the two Secrets any content: Ensure ends in a certificate that verifies by what it says is to be trusted, at once or as
// soon as it says that there is something to do, and then rests.
func FuzzEnsure(f *testing.F) {
	names := options().Names
	ca, next := newCA(f, names, start()), newCA(f, names, start())
	leaf := newLeaf(f, ca, names, start())
	cross, err := crossSign(next.Certificate, ca)
	if err != nil {
		f.Fatal(err)
	}
	seed := func(r rotation, serving Pair, bundle []byte) {
		data, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[CertificateKey], data[PrivateKeyKey], data[nextCertificateKey], data[nextPrivateKeyKey], data[nextCrossKey], data[crossKey],
			data[previousKey], data[phaseKey], serving.Certificate, serving.Key, bundle)
	}
	until := start().Add(DefaultLeafLifetime)
	garbled := pem.EncodeToMemory(&pem.Block{ // no text that a certificate may hold
		Type: pemCertificate, Bytes: bytes.ReplaceAll(blocksOf(cross)[0].Bytes, []byte("Pillion"), []byte("Pill\x01on")),
	})
	for _, phase := range Phases() {
		r := rotation{Phase: phase, Since: start(), Signing: ca, SignedUntil: until}
		switch phase {
		case PhasePublish, PhaseSettle:
			r.Next, r.NextCross = next, cross
		case PhaseActivate, PhaseRetire:
			r.Signing, r.Cross, r.Previous, r.RetireAt = next, cross, ca.Certificate, until
		case PhaseStable:
		}
		seed(r, leaf, r.bundle())
		doubtful := r
		doubtful.NextCross, doubtful.Cross, doubtful.Previous = garbled, garbled, garbled
		seed(doubtful, leaf, r.bundle())
		seed(doubtful, Pair{}, r.bundle())
		r.Signing.Key = nil
		seed(r, leaf, r.bundle())
		seed(r, Pair{}, nil)
		r.Next = Pair{Certificate: next.Certificate[:100], Key: ca.Key}
		seed(r, Pair{Certificate: leaf.Certificate, Key: ca.Key}, []byte("x"))
	}
	clients := newCAForClients(f, names)
	seed(rotation{Phase: PhaseStable, Since: start(), Signing: clients, SignedUntil: until}, leaf, clients.Certificate)
	f.Add([]byte("x"), []byte("y"), []byte(nil), []byte(nil), []byte(nil), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		ca.Key, []byte(`{"phase":"Retire","since":"9999-01-01T00:00:00Z","retireAt":"0001-01-01T00:00:00Z"}`), ca.Certificate, ca.Key, ca.Key)
	f.Fuzz(func(t *testing.T, crt, key, nextCrt, nextKey, nextCross, crossed, previous, phase, servingCrt, servingKey, bundle []byte) {
		named := func(name string, data map[string][]byte) *corev1.Secret {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: name}, Data: data}
		}
		opts, now := options(), start().Add(time.Hour)
		c := newClient(t, named("pillion-ca", map[string][]byte{
			CertificateKey: crt, PrivateKeyKey: key, nextCertificateKey: nextCrt, nextPrivateKeyKey: nextKey, nextCrossKey: nextCross,
			crossKey: crossed, previousKey: previous, phaseKey: phase,
		}), named("pillion-webhook-tls", map[string][]byte{CertificateKey: servingCrt, PrivateKeyKey: servingKey, CABundleKey: bundle}))
		opts.Trusted = func(context.Context) ([]byte, error) { return bundle, nil }
		for range 4 {
			result := ensure(t, c, opts, now)
			if len(blocksOf(result.CABundle)) > maxTrusted {
				t.Fatalf("%d CAs are trusted", len(blocksOf(result.CABundle)))
			}
			ca, serving := secret(t, c, "pillion-ca").Data, secret(t, c, "pillion-webhook-tls").Data
			Inspect(ca, serving, opts.Settle)
			err := Verify(pairOf(secret(t, c, "pillion-webhook-tls")), result.CABundle, opts.Names, now)
			if err == nil {
				if again := ensure(t, c, opts, now); len(again.Changes) != 0 {
					t.Fatalf("it does not rest: %q", again.Changes)
				}
				return
			}
			if result.Phase != PhasePublish && result.Phase != PhaseSettle {
				t.Fatalf("in phase %s the certificate does not verify: %v", result.Phase, err)
			}
			if !result.RenewAt.After(now) || result.RenewAt.Sub(now) > opts.withDefaults().Settle {
				t.Fatalf("the certificate does not verify (%v), and is due at %s, it is %s", err, result.RenewAt, now)
			}
			now = result.RenewAt
		}
		t.Fatal("no certificate verifies")
	})
}
