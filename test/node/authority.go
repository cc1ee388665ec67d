package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// authority is the CA of a node, for whatever serves: the API server and the kubelet, which verify each other by it.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pair        apiserver.Pair
}

// validity is how long certificates of a node are good for: longer than any node runs.
const validity = 30 * 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	a := &authority{key: key, certificate: unsigned("node CA", nil)}
	a.certificate.IsCA, a.certificate.BasicConstraintsValid = true, true
	a.certificate.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	if a.pair, err = a.sign(a.certificate, key); err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	block, _ := pem.Decode(a.pair.Certificate)
	if a.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	return a, nil
}

// issue makes a certificate for a client of that name and groups, which a server at the hosts may use too.
func (a *authority) issue(name string, groups []string, hosts ...string) (apiserver.Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return apiserver.Pair{}, fmt.Errorf("make a key for %s: %w", name, err)
	}
	certificate := unsigned(name, groups)
	certificate.KeyUsage = x509.KeyUsageDigitalSignature
	certificate.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			certificate.IPAddresses = append(certificate.IPAddresses, ip)
		} else {
			certificate.DNSNames = append(certificate.DNSNames, host)
		}
	}
	pair, err := a.sign(certificate, key)
	if err != nil {
		return apiserver.Pair{}, fmt.Errorf("make a certificate for %s: %w", name, err)
	}
	return pair, nil
}

func unsigned(name string, groups []string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: groups},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
	}
}

func (a *authority) sign(certificate *x509.Certificate, key *ecdsa.PrivateKey) (apiserver.Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, certificate, a.certificate, key.Public(), a.key)
	if err != nil {
		return apiserver.Pair{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return apiserver.Pair{}, err
	}
	return apiserver.Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// write writes NAME.crt and NAME.key.
func write(dir, name string, pair apiserver.Pair) error {
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, name+".crt"), pair.Certificate, 0o600),
		os.WriteFile(filepath.Join(dir, name+".key"), pair.Key, 0o600),
	)
	if err != nil {
		return fmt.Errorf("write the certificate of %s: %w", name, err)
	}
	return nil
}
