package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"
)

func TestAFaultyCertificateDoesNotReplaceTheServingOne(t *testing.T) {
	names := []string{serviceName}
	ca := newCA(t, names, start())
	good, other := newLeaf(t, ca, names, start()), newLeaf(t, ca, names, start())
	stranger := newCA(t, names, start())
	tests := map[string]struct {
		pair    Pair
		bundle  []byte
		now     time.Time
		wantErr string
	}{
		"the key of another certificate": {
			pair: Pair{Certificate: other.Certificate, Key: good.Key}, wantErr: "do not belong together",
		},
		"expired": {pair: other, now: start().Add(8 * day), wantErr: "expired at 2026-11-28T09:00:00Z"},
		"not yet valid": {
			pair: other, now: start().Add(-2 * time.Hour), wantErr: "not valid before 2026-11-21T08:00:00Z",
		},
		"for another name": {
			pair: newLeaf(t, ca, []string{"x.y.svc"}, start()), wantErr: "not for " + serviceName + ": it names x.y.svc",
		},
		"a certificate half-written": {pair: Pair{Certificate: other.Certificate[:200], Key: other.Key}, wantErr: "not PEM"},
		"a key half-written": {
			pair: Pair{Certificate: other.Certificate, Key: other.Key[:100]}, wantErr: "key is empty or not PEM",
		},
		"nothing": {wantErr: "certificate is empty"},
		"no key":  {pair: Pair{Certificate: other.Certificate}, wantErr: "key is empty"},
		"garbage within PEM": {
			pair:    Pair{Certificate: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Key: other.Key},
			wantErr: "unusable",
		},
		"signed by a CA that the API server does not trust": {
			pair: newLeaf(t, stranger, names, start()), wantErr: "not signed by the CA bundle",
		},
		"a bundle that is empty":   {pair: other, bundle: []byte{}, wantErr: "bundle holds no certificate"},
		"a bundle that is garbage": {pair: other, bundle: []byte("x"), wantErr: "bundle holds no certificate"},
		"the CA's own certificate": {pair: ca, wantErr: "not for " + serviceName},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			serving := &Serving{}
			if err := serving.Update(good.Certificate, good.Key, ca.Certificate, names, start()); err != nil {
				t.Fatal(err)
			}
			bundle, now := test.bundle, test.now
			if bundle == nil {
				bundle = ca.Certificate
			}
			if now.IsZero() {
				now = start()
			}
			expectError(t, serving.Update(test.pair.Certificate, test.pair.Key, bundle, names, now), test.wantErr)
			if !serving.Leaf().Equal(certificate(t, good)) {
				t.Error("the last good certificate was replaced")
			}
		})
	}
}

func TestServingStartsWithoutACertificate(t *testing.T) {
	serving := &Serving{}
	if serving.Leaf() != nil {
		t.Error("there is a certificate")
	}
	_, err := serving.GetCertificate(nil)
	expectError(t, err, "no serving certificate yet")
}

func TestANewCertificateIsServedFromTheNextHandshakeOn(t *testing.T) {
	names := []string{serviceName}
	ca := newCA(t, names, time.Now())
	serving := &Serving{}
	for range 2 {
		leaf := newLeaf(t, ca, names, time.Now())
		if err := serving.Update(leaf.Certificate, leaf.Key, ca.Certificate, names, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := handshake(t, serving, ca); !got.Equal(certificate(t, leaf)) {
			t.Errorf("served serial number %s, want %s", got.SerialNumber, certificate(t, leaf).SerialNumber)
		}
	}
}

// handshake returns the certificate that a client which trusts the CA is shown.
func handshake(t *testing.T, serving *Serving, ca Pair) *x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate)
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	go func() {
		config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: serving.GetCertificate}
		_ = tls.Server(far, config).HandshakeContext(context.Background())
	}()
	client := tls.Client(near, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: serviceName})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0]
}
