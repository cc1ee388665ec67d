package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	serviceName = "pillion.pillion-system.svc"
	day         = 24 * time.Hour
)

// start is when the certificates of these tests are issued.
func start() time.Time { return time.Date(2026, time.November, 21, 9, 0, 0, 0, time.UTC) }

func TestNames(t *testing.T) {
	tests := map[string]struct {
		service, url string
		want         []string
		wantErr      string
	}{
		"a Service is known by its name in the namespace": {service: "pillion", want: []string{serviceName}},
		"a URL is known by its host": {
			url: "https://Hooks.example.com:8443/base", want: []string{"hooks.example.com"},
		},
		"an address is a name": {url: "https://[fd00::1]:8443", want: []string{"fd00::1"}},
		"both are served": {
			service: "pillion", url: "https://10.0.0.7", want: []string{serviceName, "10.0.0.7"},
		},
		"neither is a mistake":             {wantErr: "neither a Service nor a URL"},
		"a URL without TLS is refused":     {url: "http://hooks.example.com", wantErr: "https://HOST"},
		"a URL that is none is refused":    {url: "https://[::1", wantErr: "parse the webhook's URL"},
		"a URL without a host is refused":  {url: "https:///inject", wantErr: "https://HOST"},
		"a host without scheme is refused": {url: "hooks.example.com", wantErr: "https://HOST"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Names("pillion-system", test.service, test.url)
			expectError(t, err, test.wantErr)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatACASignsVerifies(t *testing.T) {
	tests := map[string][]string{
		"for a Service":               {serviceName},
		"for an IPv4 address":         {"127.0.0.1"},
		"for an IPv6 address":         {"fd00::1"},
		"for a Service and a host":    {serviceName, "hooks.example.com"},
		"for a Service and addresses": {serviceName, "127.0.0.1", "fd00::1"},
	}
	for name, names := range tests {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, names, start())
			leaf := newLeaf(t, ca, names, start())
			for _, when := range []time.Time{start().Add(-59 * time.Minute), start(), start().Add(7*day - time.Second)} {
				if err := Verify(leaf, ca.Certificate, names, when); err != nil {
					t.Errorf("at %s: %v", when, err)
				}
			}
		})
	}
}

func TestACAVouchesForNothingElse(t *testing.T) {
	tests := map[string]struct{ ca, leaf []string }{
		"another Service":                        {ca: []string{serviceName}, leaf: []string{"kubernetes.default.svc"}},
		"another name beside the right one":      {ca: []string{serviceName}, leaf: []string{serviceName, "kubernetes.default.svc"}},
		"an address, where it has DNS names":     {ca: []string{serviceName}, leaf: []string{"10.0.0.1"}},
		"an IPv6 address, where it has a name":   {ca: []string{serviceName}, leaf: []string{"fd00::1"}},
		"another address":                        {ca: []string{"10.0.0.1"}, leaf: []string{"10.0.0.2"}},
		"a DNS name, where it has an address":    {ca: []string{"10.0.0.1"}, leaf: []string{serviceName}},
		"the parent domain of what it signs for": {ca: []string{serviceName}, leaf: []string{"pillion-system.svc"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, test.ca, start())
			leaf := newLeaf(t, ca, test.leaf, start())
			expectError(t, Verify(leaf, ca.Certificate, test.leaf, start()), "not signed by the CA bundle")
		})
	}
}

func TestCAProperties(t *testing.T) {
	ca := certificate(t, newCA(t, []string{serviceName}, start()))
	leaf := certificate(t, newLeaf(t, newCA(t, []string{serviceName}, start()), []string{serviceName}, start()))
	if !ca.IsCA || ca.MaxPathLen != 1 || !ca.PermittedDNSDomainsCritical {
		t.Errorf("CA: IsCA %v, MaxPathLen %d, critical constraints %v", ca.IsCA, ca.MaxPathLen, ca.PermittedDNSDomainsCritical)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("leaf: IsCA %v, key usage %v", leaf.IsCA, leaf.KeyUsage)
	}
	for name, certificate := range map[string]*x509.Certificate{"CA": ca, "leaf": leaf} {
		key, ok := certificate.PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: the key is %T, not ECDSA on P-256", name, certificate.PublicKey)
		}
		if certificate.SerialNumber.BitLen() < 64 {
			t.Errorf("%s: serial number %s is short", name, certificate.SerialNumber)
		}
		if len(certificate.SubjectKeyId) == 0 || len(certificate.AuthorityKeyId) == 0 {
			t.Errorf("%s: no key identifiers", name)
		}
		if want := start().Add(-time.Hour); !certificate.NotBefore.Equal(want) {
			t.Errorf("%s: valid from %s, want %s", name, certificate.NotBefore, want)
		}
	}
	other := certificate(t, newCA(t, []string{serviceName}, start()))
	if other.SerialNumber.Cmp(ca.SerialNumber) == 0 || other.Subject.String() == ca.Subject.String() {
		t.Errorf("two CAs share serial number %s or subject %s", ca.SerialNumber, ca.Subject)
	}
}

func TestALeafNeverOutlivesItsCA(t *testing.T) {
	ca := newCA(t, []string{serviceName}, start())
	pair, err := NewLeaf(ca, []string{serviceName}, 1000*day, start())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := certificate(t, pair).NotAfter, certificate(t, ca).NotAfter; !got.Equal(want) {
		t.Errorf("the leaf ends at %s, its CA at %s", got, want)
	}
}

// A CA that replaces another may be signed by it meanwhile: a leaf with that certificate beside it verifies under either.
func TestALeafVerifiesUnderTheCAThatCrossSignsItsOwn(t *testing.T) {
	names := []string{serviceName}
	old, next := newCA(t, names, start()), newCA(t, names, start())
	oldCertificate, oldKey, err := parseCA(old)
	if err != nil {
		t.Fatal(err)
	}
	template := certificate(t, next)
	template.SerialNumber = big.NewInt(7)
	der, err := x509.CreateCertificate(rand.Reader, template, oldCertificate, template.PublicKey, oldKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := newLeaf(t, next, names, start())
	leaf.Certificate = append(leaf.Certificate, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})...)
	for name, bundle := range map[string][]byte{"old": old.Certificate, "new": next.Certificate} {
		if err := Verify(leaf, bundle, names, start()); err != nil {
			t.Errorf("under the %s CA: %v", name, err)
		}
	}
}

func TestRenewalIsDueAboutAfterTwoThirdsOfALife(t *testing.T) {
	for _, lifetime := range []time.Duration{time.Minute, 7 * day, 365 * day} {
		times := map[time.Time]bool{}
		for range 8 {
			pair, err := NewCA([]string{serviceName}, lifetime, start())
			if err != nil {
				t.Fatal(err)
			}
			got, latest := renewAt(certificate(t, pair)), start().Add(lifetime*2/3)
			if got.After(latest) || got.Before(latest.Add(-lifetime/20)) {
				t.Errorf("lifetime %s: renewal at %s, want it in the twentieth of a life that ends at %s", lifetime, got, latest)
			}
			if again := renewAt(certificate(t, pair)); !again.Equal(got) {
				t.Errorf("the same certificate is renewed at %s and at %s", got, again)
			}
			times[got] = true
		}
		if len(times) < 2 {
			t.Errorf("lifetime %s: all are renewed at once", lifetime)
		}
	}
}

func newCA(t testing.TB, names []string, now time.Time) Pair {
	t.Helper()
	ca, err := NewCA(names, DefaultCALifetime, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newCAForClients returns a CA for exactly the names, whose certificate says that what it signs is for clients.
func newCAForClients(t testing.TB, names []string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "for clients"}, NotBefore: start().Add(-backdate), NotAfter: start().Add(DefaultCALifetime),
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	constrain(template, names)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := encode(der, key)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newLeaf(t testing.TB, ca Pair, names []string, now time.Time) Pair {
	t.Helper()
	leaf, err := NewLeaf(ca, names, DefaultLeafLifetime, now)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func certificate(t *testing.T, pair Pair) *x509.Certificate {
	t.Helper()
	parsed, err := parse(pair)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Leaf
}

// expectError checks that the error contains the text; empty: that there is none.
func expectError(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("unexpected error: %v", err)
	case text != "" && err == nil:
		t.Errorf("no error, want one that contains %q", text)
	case text != "" && !strings.Contains(err.Error(), text):
		t.Errorf("error %q does not contain %q", err, text)
	}
}
