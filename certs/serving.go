package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Serving holds the certificate that a listener presents. The zero value holds none. It is safe for concurrent use, but for Update
// and Choose, which one goroutine calls.
type Serving struct {
	certificate atomic.Pointer[tls.Certificate]
}

// Update makes the pair the one that is presented, if it can serve under all of the names, now, to a client that trusts
// caBundle. On any fault the last good certificate stays and the error says what is wrong with the new one.
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

// Caller is what an entry of a webhook configuration tells the API server to verify the certificate by.
type Caller struct {
	// Entry is the entry's name, for messages.
	Entry string
	// CABundle is what the API server trusts when it calls by this entry. Nothing verifies by an empty one.
	CABundle []byte
	// Names are those that the certificate has to be for.
	Names []string
}

// Choice is what came of offering a pair.
type Choice struct {
	// Refused says why the pair that was offered is not presented. Nil: it is.
	Refused error
	// Untrusted says which callers do not verify what is presented, or that nothing is. Nil: all do.
	Untrusted error
	// Recheck is when a certificate that was looked at becomes valid or expires next; zero: never.
	Recheck time.Time
}

// Choose presents the pair if that is not worse for the callers than what is presented now: if it is in date, verifies by some
// caller, and by as many of them at least. So one caBundle that somebody has changed neither takes a good certificate away nor
// keeps a new one out. Where nothing that is in date is presented, it does if the pair verifies by its own CA bundle: it is what
// callers will trust once their caBundles are mended. Without callers its own CA bundle is all there is to verify it by.
func (s *Serving) Choose(pair Pair, ownCA []byte, callers []Caller, now time.Time) Choice {
	if len(callers) == 0 {
		callers = []Caller{{Entry: "the Secret's own " + CABundleKey, CABundle: ownCA}}
	}
	watched := &boundaries{now: now}
	trust := group(callers, watched)
	presented := s.certificate.Load()
	before := trust.of(presented, now)
	refused := func(err error) Choice {
		watched.add(presented)
		return Choice{Refused: err, Untrusted: before.problem(presented, now), Recheck: watched.next}
	}

	offered, err := parse(pair)
	if err != nil {
		return refused(err)
	}
	watched.add(offered)
	if err := current(offered.Leaf, now); err != nil {
		return refused(err)
	}
	after := trust.of(offered, now)
	switch isGood := presented != nil && current(presented.Leaf, now) == nil; {
	case after.trusting > 0 && (after.trusting >= before.trusting || !isGood):
	case isGood:
		return refused(after.problem(offered, now))
	default:
		if !trust.wouldTrust(offered, ownCA, now) {
			return refused(after.problem(offered, now))
		}
	}
	if presented == nil || !isSame(presented, offered) {
		s.certificate.Store(offered)
	}
	return Choice{Untrusted: after.problem(offered, now), Recheck: watched.next}
}

// isSame tells whether two certificates are presented alike.
func isSame(a, b *tls.Certificate) bool {
	if len(a.Certificate) != len(b.Certificate) {
		return false
	}
	for i := range a.Certificate {
		if !bytes.Equal(a.Certificate[i], b.Certificate[i]) {
			return false
		}
	}
	return true
}

// GetCertificate is for tls.Config. It fails until a first certificate is there.
func (s *Serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	certificate := s.certificate.Load()
	if certificate == nil {
		return nil, ErrNoCertificate
	}
	return certificate, nil
}

// ErrNoCertificate is why handshakes fail before there is a first certificate.
var ErrNoCertificate = errors.New("there is no serving certificate yet")

// Leaf returns the certificate that is presented, nil if there is none. It must not be changed.
func (s *Serving) Leaf() *x509.Certificate {
	if certificate := s.certificate.Load(); certificate != nil {
		return certificate.Leaf
	}
	return nil
}

// trusting is callers that verify by the same, taken together.
type trusting struct {
	entries []string
	names   []string
	roots   *x509.CertPool // nil: the caBundle is empty, or holds no certificate
}

type allTrusting []*trusting

// group parses each caBundle once, however many entries share it.
func group(callers []Caller, watched *boundaries) allTrusting {
	var all allTrusting
	byKey := map[string]*trusting{}
	for _, caller := range callers {
		key := strings.Join(caller.Names, " ") + "\n" + string(caller.CABundle)
		same := byKey[key]
		if same == nil {
			same = &trusting{names: caller.Names, roots: watched.pool(caller.CABundle)}
			byKey[key] = same
			all = append(all, same)
		}
		same.entries = append(same.entries, caller.Entry)
	}
	return all
}

// trusted is by how many callers a certificate verifies, and why not by the others.
type trusted struct {
	trusting int
	faults   []error
}

func (a allTrusting) of(certificate *tls.Certificate, now time.Time) trusted {
	var t trusted
	if certificate == nil {
		return t
	}
	for _, callers := range a {
		if err := callers.verify(certificate, now); err != nil {
			t.faults = append(t.faults, fmt.Errorf("%s: %w", abbreviated(callers.entries), err))
		} else {
			t.trusting += len(callers.entries)
		}
	}
	return t
}

// problem says what is wrong with a certificate for the callers.
func (t trusted) problem(certificate *tls.Certificate, now time.Time) error {
	if certificate == nil {
		return ErrNoCertificate
	}
	if err := current(certificate.Leaf, now); err != nil {
		return err
	}
	return errors.Join(t.faults...)
}

func (t *trusting) verify(certificate *tls.Certificate, now time.Time) error {
	return verifyBy(certificate, t.roots, t.names, now)
}

// wouldTrust tells whether one of the callers at least would verify the certificate if its caBundle were this.
func (a allTrusting) wouldTrust(certificate *tls.Certificate, caBundle []byte, now time.Time) bool {
	roots := (&boundaries{}).pool(caBundle)
	for _, callers := range a {
		if verifyBy(certificate, roots, callers.names, now) == nil {
			return true
		}
	}
	return false
}

func verifyBy(certificate *tls.Certificate, roots *x509.CertPool, names []string, now time.Time) error {
	if missing := uncovered(certificate.Leaf, names); len(missing) > 0 {
		return fmt.Errorf("the certificate is not for %s: it names %s",
			strings.Join(missing, ", "), strings.Join(namesOf(certificate.Leaf), ", "))
	}
	if roots == nil {
		return errors.New("the CA bundle holds no certificate")
	}
	if err := chain(certificate, roots, now); err != nil {
		return fmt.Errorf("the certificate is not signed by the CA bundle: %w", err)
	}
	return nil
}

// abbreviated names some entries.
func abbreviated(entries []string) string {
	const most = 3
	if len(entries) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(entries[:most], ", "), len(entries)-most)
	}
	return strings.Join(entries, ", ")
}

// boundaries finds when one of some certificates becomes valid or expires next.
type boundaries struct{ now, next time.Time }

func (b *boundaries) see(certificate *x509.Certificate) {
	// A certificate is good to the end of its last second.
	for _, at := range []time.Time{certificate.NotBefore, certificate.NotAfter.Add(time.Millisecond)} {
		if at.After(b.now) && (b.next.IsZero() || at.Before(b.next)) {
			b.next = at
		}
	}
}

func (b *boundaries) add(certificate *tls.Certificate) {
	if certificate == nil {
		return
	}
	for _, der := range certificate.Certificate {
		if parsed, err := x509.ParseCertificate(der); err == nil {
			b.see(parsed)
		}
	}
}

// pool returns the certificates of a bundle; nil if there is none in it.
func (b *boundaries) pool(bundle []byte) *x509.CertPool {
	var pool *x509.CertPool
	for len(bundle) > 0 {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		if pool == nil {
			pool = x509.NewCertPool()
		}
		pool.AddCert(certificate)
		b.see(certificate)
	}
	return pool
}
