package webhook

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/certs"
)

// authority is a CA of clients.
type authority struct {
	pem         []byte
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newClientAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.pem, a.certificate, a.key = sign(t, template, nil)
	return a
}

// client returns a certificate of the CA.
func (a *authority) client(t *testing.T, name string, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	_, certificate, key := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a)
	return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
}

func sign(t *testing.T, template *x509.Certificate, by *authority) ([]byte, *x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), certificate, key
}

// call tells how the server takes a client with these certificates.
func (f *fronted) call(certificates ...tls.Certificate) error {
	config := f.tls()
	config.Certificates = certificates
	connection, err := tls.Dial("tcp", f.address, config)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // it was only read
	if _, err = io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err == nil {
		_, err = io.Copy(io.Discard, connection)
	}
	return err
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhoCallsHasToPresentACertificateOfTheClientCA(t *testing.T) {
	clients, others := newClientAuthority(t), newClientAuthority(t)
	path := filepath.Join(t.TempDir(), "ca.crt")
	write(t, path, clients.pem)
	const auth = x509.ExtKeyUsageClientAuth
	for name, test := range map[string]struct {
		names        []string
		certificates []tls.Certificate
		want         string // of the error; empty: it is answered
	}{
		"one of the CA":                {certificates: []tls.Certificate{clients.client(t, "kube-apiserver", auth)}},
		"none":                         {want: "certificate required"},
		"one of another CA":            {certificates: []tls.Certificate{others.client(t, "kube-apiserver", auth)}, want: "certificate"},
		"one of the CA, for a server":  {certificates: []tls.Certificate{clients.client(t, "a", x509.ExtKeyUsageServerAuth)}, want: "certificate"},
		"of a name that is listed":     {names: []string{"b", "a"}, certificates: []tls.Certificate{clients.client(t, "a", auth)}},
		"of a DNS name that is listed": {names: []string{"a.example.com"}, certificates: []tls.Certificate{clients.client(t, "a", auth)}},
		"of a name that is not listed": {
			names: []string{"b"}, certificates: []tls.Certificate{clients.client(t, "a", auth)}, want: "certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, memory(t), func(f *fronted) { f.options.ClientCA, f.options.ClientNames = path, test.names })
			err := f.call(test.certificates...)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			// Who still writes when the connection is closed may never read why.
			if err == nil || strings.Contains(err.Error(), "remote error: tls: ") && !strings.Contains(err.Error(), test.want) {
				t.Errorf("it is answered: %v", err)
			}
			await(t, "it is not counted", func() bool {
				return f.has(fmt.Sprintf("pillion_tls_handshake_errors_total{reason=%q} 1", handshakeClient))
			})
			if log := f.log.String(); !strings.Contains(log, "handshake failed") {
				t.Errorf("it is not logged: %s", log)
			}
		})
	}
}

func TestTheFileOfTheClientCAIsReadAgain(t *testing.T) {
	first, second := newClientAuthority(t), newClientAuthority(t)
	one, two := first.client(t, "a", x509.ExtKeyUsageClientAuth), second.client(t, "b", x509.ExtKeyUsageClientAuth)
	dir := t.TempDir()
	// As the kubelet lays out a Secret: the file is a link through ..data, which is replaced.
	mount := func(version string, content []byte) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "ca.crt"), content)
		next := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(version, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "ca.crt")
	if err := os.Symlink(filepath.Join("..data", "ca.crt"), path); err != nil {
		t.Fatal(err)
	}
	mount("..1", first.pem)
	f := startFront(t, memory(t), func(f *fronted) { f.options.ClientCA = path })
	ctx, stop := context.WithCancel(t.Context())
	f.served.Go(func() { f.clients.follow(ctx, f.options.Logger) })
	t.Cleanup(stop)
	accepted := func(what string, certificate tls.Certificate, want bool) {
		t.Helper()
		await(t, what, func() bool { return (f.call(certificate) == nil) == want })
	}
	accepted("the first CA", one, true)
	accepted("another CA", two, false)
	mount("..2", second.pem)
	accepted("the new CA after the swap", two, true)
	accepted("the old CA after the swap", one, false)

	half := append(bytes.Clone(first.pem), second.pem[:len(second.pem)/2]...)
	for version, broken := range map[string][]byte{"..3": half, "..4": nil, "..5": []byte("x")} {
		mount(version, broken)
		await(t, "a broken file is not told of", func() bool { return f.has("pillion_client_ca_faulty 1") })
		accepted("the last good CA", two, true)
		mount(version+"-mended", second.pem)
		await(t, "a mended file is not told of", func() bool { return f.has("pillion_client_ca_faulty 0") })
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, "a file that is gone is not told of", func() bool { return f.has("pillion_client_ca_faulty 1") })
	accepted("the last good CA", two, true)
	for _, says := range []string{"cannot be used", "well again", "verified by what the file of webhook.clientCA holds now"} {
		if !strings.Contains(f.log.String(), says) {
			t.Errorf("the log does not say %q: %s", says, f.log)
		}
	}
}

func TestAFileThatHoldsNoClientCAIsRefusedAtTheStart(t *testing.T) {
	ca, _ := newAuthority(t, "a")
	for name, test := range map[string]struct {
		content []byte // nil: there is no file
		want    string
	}{
		"no file":            {want: "no such file"},
		"nothing":            {content: []byte{}, want: "holds no certificate"},
		"a key":              {content: append(bytes.Clone(ca.Certificate), ca.Key...), want: "PRIVATE KEY"},
		"half a certificate": {content: ca.Certificate[:100], want: "cut off"},
		"no certificate":     {content: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), want: "number 1"},
		"one of two is broken": {
			content: append([]byte("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"), ca.Certificate...), want: "2 certificates begin",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "clients.pem")
			if test.content != nil {
				write(t, path, test.content)
			}
			_, err := newClientCA(path, nil, &tls.Config{MinVersion: tls.VersionTLS13})
			if err == nil {
				t.Fatal("it is taken")
			}
			for _, says := range []string{"webhook.clientCA", path, test.want} {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("it does not say %q: %v", says, err)
				}
			}
			if bytes.Contains([]byte(err.Error()), ca.Key[30:60]) {
				t.Error("it quotes the key")
			}
		})
	}
	if _, err := readCertificates(append(ca.Certificate, certs.Pair{}.Certificate...)); err != nil {
		t.Error(err)
	}
}
