package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Verify checks that the pair can serve under all of the names, now, to a client that trusts caBundle and nothing else. Every
// fault is reported.
func Verify(pair Pair, caBundle []byte, names []string, now time.Time) error {
	certificate, err := parse(pair)
	if err != nil {
		return err
	}
	return verify(certificate, caBundle, names, now)
}

func verify(certificate *tls.Certificate, caBundle []byte, names []string, now time.Time) error {
	leaf := certificate.Leaf
	faults := []error{current(leaf, now)}
	if missing := uncovered(leaf, names); len(missing) > 0 {
		faults = append(faults, fmt.Errorf("the certificate is not for %s: it names %s",
			strings.Join(missing, ", "), strings.Join(namesOf(leaf), ", ")))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caBundle) {
		faults = append(faults, errors.New("the CA bundle holds no certificate"))
		return errors.Join(faults...)
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	if err := chain(certificate, roots, now); err != nil {
		return fmt.Errorf("the certificate is not signed by the CA bundle: %w", err)
	}
	return nil
}

// chain verifies the certificate, with the intermediates that come with it, as the API server will.
func chain(certificate *tls.Certificate, roots *x509.CertPool, now time.Time) error {
	intermediates := x509.NewCertPool()
	for _, der := range certificate.Certificate[1:] {
		intermediate, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("parse an intermediate certificate: %w", err)
		}
		intermediates.AddCert(intermediate)
	}
	_, err := certificate.Leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// verifyCA checks that the pair can sign for the names now.
func verifyCA(ca Pair, names []string, now time.Time) error {
	certificate, _, err := parseCA(ca)
	if err != nil {
		return err
	}
	if err := current(certificate, now); err != nil {
		return err
	}
	if !permits(certificate, names) {
		return fmt.Errorf("the CA may not sign for exactly %s", strings.Join(names, ", "))
	}
	// Whatever else its certificate says, a certificate that it signs has to verify.
	trial, err := NewLeaf(ca, names, time.Hour, now)
	if err != nil {
		return err
	}
	if err := Verify(trial, ca.Certificate, names, now); err != nil {
		return fmt.Errorf("what the CA signs does not verify: %w", err)
	}
	return nil
}

func parseCA(ca Pair) (*x509.Certificate, crypto.Signer, error) {
	certificate, err := parse(ca)
	if err != nil {
		return nil, nil, fmt.Errorf("read the CA: %w", err)
	}
	if !certificate.Leaf.IsCA {
		return nil, nil, errors.New("read the CA: its certificate is not that of a CA")
	}
	signer, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("read the CA: its key cannot sign")
	}
	return certificate.Leaf, signer, nil
}

// parse reads a pair whose key belongs to its certificate.
func parse(pair Pair) (*tls.Certificate, error) {
	if block, _ := pem.Decode(pair.Certificate); block == nil {
		return nil, errors.New("the certificate is empty or not PEM")
	}
	if block, _ := pem.Decode(pair.Key); block == nil {
		return nil, errors.New("the private key is empty or not PEM")
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil { // the error itself may quote the Secret, and is logged
		return nil, errors.New("the certificate and its private key are unusable or do not belong together")
	}
	if certificate.Leaf == nil {
		if certificate.Leaf, err = x509.ParseCertificate(certificate.Certificate[0]); err != nil {
			return nil, fmt.Errorf("parse the certificate: %w", err)
		}
	}
	return &certificate, nil
}

func current(certificate *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(certificate.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s: it is %s",
			certificate.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(certificate.NotAfter):
		return fmt.Errorf("the certificate expired at %s: it is %s",
			certificate.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// uncovered returns the names that the certificate is not for.
func uncovered(certificate *x509.Certificate, names []string) []string {
	var missing []string
	for _, name := range names {
		if certificate.VerifyHostname(name) != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

func namesOf(certificate *x509.Certificate) []string {
	names := append([]string(nil), certificate.DNSNames...)
	for _, ip := range certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []string{"nothing"}
	}
	return names
}

// renewAt is when a certificate is to be renewed: when two thirds of its life, counted from when it was issued, have passed, but for
// some jitter.
func renewAt(certificate *x509.Certificate) time.Time {
	issued := IssuedAt(certificate)
	life := certificate.NotAfter.Sub(issued)
	return issued.Add(life*2/3 - jitter(certificate, life))
}

// IssuedAt is when a certificate was made, if it was made here: it is backdated.
func IssuedAt(certificate *x509.Certificate) time.Time {
	if issued := certificate.NotBefore.Add(backdate); !issued.After(certificate.NotAfter) {
		return issued
	}
	return certificate.NotBefore
}
