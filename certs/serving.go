package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync/atomic"
	"time"
)

// Serving holds the certificate that a listener presents. The zero value holds none. It is safe for concurrent use.
type Serving struct {
	certificate atomic.Pointer[tls.Certificate]
}

// Update makes the pair the one that is presented, if it can serve under all of the names, now, to a client that trusts
// caBundle: what the webhook configuration holds, or the Secret where that holds none. On any fault the last good certificate
// stays and the error says what is wrong with the new one.
func (s *Serving) Update(certPEM, keyPEM, caBundle []byte, names []string, now time.Time) error {
	certificate, err := parse(Pair{Certificate: certPEM, Key: keyPEM})
	if err != nil {
		return err
	}
	if err := verify(certificate, caBundle, names, now); err != nil {
		return err
	}
	s.certificate.Store(certificate)
	return nil
}

// GetCertificate is for tls.Config. It fails until a first certificate is there.
func (s *Serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	certificate := s.certificate.Load()
	if certificate == nil {
		return nil, errors.New("there is no serving certificate yet")
	}
	return certificate, nil
}

// Leaf returns the certificate that is presented, nil if there is none. It must not be changed.
func (s *Serving) Leaf() *x509.Certificate {
	if certificate := s.certificate.Load(); certificate != nil {
		return certificate.Leaf
	}
	return nil
}
