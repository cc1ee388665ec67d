package certs

import (
	"bytes"
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

func TestTheBetterPairForTheCallersIsPresented(t *testing.T) {
	names := []string{serviceName}
	ca, next, rogue := newCA(t, names, start()), newCA(t, names, start()), newCA(t, names, start())
	old, renewed, moved := newLeaf(t, ca, names, start()), newLeaf(t, ca, names, start()), newLeaf(t, next, names, start())
	later := newLeaf(t, ca, names, start().Add(3*time.Hour))
	caller := func(bundles ...[]byte) (callers []Caller) {
		for i, bundle := range bundles {
			callers = append(callers, Caller{Entry: string(rune('a' + i)), CABundle: bundle, Names: names})
		}
		return callers
	}
	of := func(pair Pair) []byte { return pair.Certificate }
	elsewhere := []Caller{{Entry: "elsewhere", CABundle: of(ca), Names: []string{"other.example.com"}}}
	tests := map[string]struct {
		presented Pair // the zero Pair: none
		offered   Pair
		ownCA     []byte
		callers   []Caller
		now       time.Time

		want                       Pair // the zero Pair: none
		wantRefused, wantUntrusted string
	}{
		"all verify it": {presented: old, offered: renewed, ownCA: of(ca), callers: caller(of(ca), of(ca)), want: renewed},
		"one caBundle is that of somebody else": {
			presented: old, offered: renewed, ownCA: of(ca), callers: caller(of(ca), of(rogue), of(ca)), want: renewed,
			wantUntrusted: "b: the certificate is not signed by the CA bundle",
		},
		"one caBundle is blank": {
			presented: old, offered: renewed, ownCA: of(ca), callers: caller(of(ca), nil), want: renewed,
			wantUntrusted: "b: the CA bundle holds no certificate",
		},
		"one entry calls another host": {
			presented: old, offered: renewed, ownCA: of(ca), callers: append(caller(of(ca)), elsewhere...), want: renewed,
			wantUntrusted: "elsewhere: the certificate is not for other.example.com",
		},
		"one caBundle only has the next CA already": {
			presented: old, offered: moved, ownCA: of(next), callers: caller(of(ca), of(next), of(ca)), want: old,
			wantRefused: "a, c: the certificate is not signed", wantUntrusted: "b: the certificate is not signed",
		},
		"as many have the next CA as not": {
			presented: old, offered: moved, ownCA: of(next), callers: caller(of(ca), of(next)), want: moved,
			wantUntrusted: "a: the certificate is not signed",
		},
		"no caller would verify the offered one": {
			presented: old, offered: moved, ownCA: of(next), callers: caller(of(ca)), want: old, wantRefused: "not signed by the CA bundle",
		},
		"all caBundles are ruined": {
			presented: old, offered: renewed, ownCA: of(ca), callers: caller([]byte("x"), of(rogue)), want: old,
			wantRefused: "holds no certificate", wantUntrusted: "b: the certificate is not signed",
		},
		"all caBundles are ruined and nothing is presented": {
			offered: renewed, ownCA: of(ca), callers: caller([]byte("x"), of(rogue)), want: renewed, wantUntrusted: "a: the CA bundle holds no",
		},
		"all caBundles are ruined and what is presented has expired": {
			presented: old, offered: later, ownCA: of(ca), callers: caller([]byte("x")), now: start().Add(DefaultLeafLifetime + time.Hour), want: later,
			wantUntrusted: "holds no certificate",
		},
		"nothing is presented, and it is for other names": {
			offered: renewed, ownCA: of(ca), callers: elsewhere, wantRefused: "not for other.example.com", wantUntrusted: "no serving certificate",
		},
		"nothing is presented, and it is not of its own CA": {
			offered: renewed, ownCA: of(rogue), callers: caller(of(rogue)), wantRefused: "not signed", wantUntrusted: "no serving certificate",
		},
		"there are no callers yet": {offered: renewed, ownCA: of(ca), want: renewed},
		"garbage is offered": {
			presented: old, offered: Pair{Certificate: []byte("x"), Key: []byte("x")}, callers: caller(of(ca)), want: old, wantRefused: "not PEM",
		},
		"garbage is offered, and what is presented has expired": {
			presented: old, callers: caller(of(ca)), now: start().Add(10 * day), want: old, wantRefused: "is empty", wantUntrusted: "expired",
		},
		"500 certificates are trusted": {
			presented: old, offered: renewed, callers: caller(bytes.Repeat(of(rogue), 500), append(bytes.Repeat(of(rogue), 499), of(ca)...)),
			want: renewed, wantUntrusted: "a: the certificate is not signed",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			serving := &Serving{}
			if len(test.presented.Key) > 0 {
				if err := serving.Update(test.presented.Certificate, test.presented.Key, ca.Certificate, names, start()); err != nil {
					t.Fatal(err)
				}
			}
			now := test.now
			if now.IsZero() {
				now = start()
			}
			choice := serving.Choose(test.offered, test.ownCA, test.callers, now)
			for _, check := range []struct {
				err  error
				want string
			}{{choice.Refused, test.wantRefused}, {choice.Untrusted, test.wantUntrusted}} {
				if check.want != "" {
					expectError(t, check.err, check.want)
				} else if check.err != nil {
					t.Error(check.err)
				}
			}
			switch leaf := serving.Leaf(); {
			case len(test.want.Key) == 0:
				if leaf != nil {
					t.Error("it is presented")
				}
			case !leaf.Equal(certificate(t, test.want)):
				t.Errorf("another certificate is presented: %v", leaf.SerialNumber)
			}
		})
	}
}

func TestACertificateIsLookedAtAgainWhenOneBecomesValidOrExpires(t *testing.T) {
	names := []string{serviceName}
	ca := newCA(t, names, start())
	first, second := newLeaf(t, ca, names, start()), newLeaf(t, ca, names, start().Add(3*day))
	callers := []Caller{{CABundle: ca.Certificate, Names: names}}
	serving := &Serving{}
	for _, step := range []struct {
		offered   Pair
		now, want time.Time
	}{
		{first, start(), start().Add(DefaultLeafLifetime)},
		{second, start(), start().Add(3*day - backdate)}, // it becomes valid
		{second, start().Add(3 * day), start().Add(3*day + DefaultLeafLifetime)},
		{Pair{}, start().Add(4 * day), start().Add(3*day + DefaultLeafLifetime)},
		{Pair{}, start().Add(20 * day), start().Add(DefaultCALifetime)},
	} {
		choice := serving.Choose(step.offered, nil, callers, step.now)
		if off := choice.Recheck.Sub(step.want); off < 0 || off > time.Second {
			t.Errorf("at %s: %s, want %s", step.now, choice.Recheck, step.want)
		}
	}
}

// FuzzChoose offers anything: a certificate that is good stays, unless what takes its place is good as well.
func FuzzChoose(f *testing.F) {
	names, now := []string{serviceName}, time.Now()
	ca, err := NewCA(names, DefaultCALifetime, now)
	if err != nil {
		f.Fatal(err)
	}
	var leaves [2]Pair
	for i := range leaves {
		if leaves[i], err = NewLeaf(ca, names, DefaultLeafLifetime, now); err != nil {
			f.Fatal(err)
		}
	}
	good, other := leaves[0], leaves[1]
	f.Add(other.Certificate, other.Key, ca.Certificate)
	f.Add(other.Certificate[:len(other.Certificate)/2], other.Key, ca.Certificate)
	f.Add(other.Certificate, good.Key, ca.Certificate)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte{}, []byte("-----BEGIN CERTIFICATE-----\n"))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, certificate, key, bundle []byte) {
		serving := &Serving{}
		if err := serving.Update(good.Certificate, good.Key, ca.Certificate, names, now); err != nil {
			t.Fatal(err)
		}
		callers := []Caller{
			{Entry: "a", CABundle: ca.Certificate, Names: names}, {Entry: "b", CABundle: bundle, Names: names},
		}
		serving.Choose(Pair{Certificate: certificate, Key: key}, bundle, callers, now)
		presented, err := serving.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if verify(presented, ca.Certificate, names, now) != nil && verify(presented, bundle, names, now) != nil {
			t.Error("what is presented verifies by neither")
		}
	})
}
