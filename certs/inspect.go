package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// State is what the two Secrets say, for those who look on. It holds no private key.
type State struct {
	// HasRotation tells that the CA's Secret is known. Without it there is no phase and nothing that is recorded.
	HasRotation bool
	Phase       Phase
	Since       time.Time
	Reason      Reason
	Message     string
	// Next says what comes next, NextAt when; zero: when something has happened.
	Next   string
	NextAt time.Time
	// Recorded are the CAs that every caBundle has to hold, in PEM.
	Recorded []byte
	// Outside tells that a CA of somebody else signs.
	Outside bool
	// Chain is the serving certificate with what is served behind it, in PEM. Certificates are those of all roles that could be read.
	Chain        []byte
	Certificates []Certificate
	// Faults say what is wrong with the serving certificate's Secret and with that of the CA, apart from how they fit.
	Faults []error
}

// Inspect reads the data of the Secrets of the CA and of the serving certificate. Either may be nil: it could not be read. Settle is
// Options.Settle.
func Inspect(ca, serving map[string][]byte, settle time.Duration) State {
	state := State{HasRotation: ca != nil, Recorded: serving[CABundleKey], Chain: serving[CertificateKey]}
	rotation := decodeRotation(ca)
	if state.HasRotation {
		state.Phase, state.Since, state.Reason, state.Message = rotation.Phase, rotation.Since, rotation.Reason, rotation.Message
		state.Recorded, state.Outside = rotation.bundle(), isOutside(rotation.Signing)
		state.Next, state.NextAt = rotation.next(settle)
		if _, err := firstOf(rotation.Signing.Certificate); err != nil {
			state.Faults = append(state.Faults, fmt.Errorf("the CA: %w", err))
		} else if _, err := parse(rotation.Signing); err != nil && !state.Outside {
			state.Faults = append(state.Faults, fmt.Errorf("the CA: %w", err))
		}
	}
	state.Certificates = certificatesOf(&rotation, Pair{Certificate: state.Chain})
	if !state.HasRotation { // whose certificate is it then
		for i := range state.Certificates {
			state.Certificates[i].RenewAt = renewAt(state.Certificates[i].Certificate)
		}
		state.Certificates = append(state.Certificates, certificatesOf(&rotation, Pair{})...)
	}
	if serving != nil {
		if _, err := parse(Pair{Certificate: state.Chain, Key: serving[PrivateKeyKey]}); err != nil {
			state.Faults = append(state.Faults, fmt.Errorf("the serving certificate: %w", err))
		}
		if state.HasRotation && len(state.Recorded) > 0 && !bytes.Equal(serving[CABundleKey], state.Recorded) {
			state.Faults = append(state.Faults, fmt.Errorf("%s beside the serving certificate does not hold the CAs that are recorded", CABundleKey))
		}
	}
	return state
}

// next says what the rotation comes to next, and when by time alone.
func (r *rotation) next(settle time.Duration) (string, time.Time) {
	switch r.Phase {
	case PhasePublish:
		return "API servers are given time to see the next CA, once every caBundle holds it", time.Time{}
	case PhaseSettle:
		return "the next CA signs", r.Since.Add(settle)
	case PhaseActivate:
		return "the serving certificate is made anew by the CA that signs", time.Time{}
	case PhaseRetire:
		return "the old CA is trusted no longer", r.RetireAt
	case PhaseStable:
		if signing, err := parse(r.Signing); err == nil {
			return "the next CA is made", renewAt(signing.Leaf)
		}
	}
	return "", time.Time{}
}

// Check checks that a certificate, followed by its intermediates in PEM, verifies under all of the names, now, for a client that trusts
// caBundle and nothing else. It is what Verify checks, without the key.
func Check(chainPEM, caBundle []byte, names []string, now time.Time) error {
	certificate := &tls.Certificate{}
	for _, block := range blocksOf(chainPEM) {
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	if len(certificate.Certificate) == 0 {
		return errors.New("the certificate is empty or not PEM")
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return fmt.Errorf("parse the certificate: %w", err)
	}
	certificate.Leaf = leaf
	return verify(certificate, caBundle, names, now)
}

// NamesOf returns the DNS names and addresses of a certificate; of a CA those that it may sign for.
func NamesOf(certificate *x509.Certificate) []string {
	if !certificate.IsCA {
		return namesOf(certificate)
	}
	names := append([]string(nil), certificate.PermittedDNSDomains...)
	for _, network := range certificate.PermittedIPRanges {
		names = append(names, network.IP.String())
	}
	return names
}
