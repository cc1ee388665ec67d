package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// External is a serving certificate that somebody else issues, as cert-manager does. Their CA becomes trusted, and their certificate
// served, in the same phases in which one CA of ours follows another.
type External struct {
	// Pair is the serving certificate, followed by its intermediates, and its key.
	Pair Pair
	// CA is what clients have to trust to verify it, in PEM, as the issuer says. Empty: the issuer does not say.
	CA []byte
}

// outside is what is known of the External of a moment.
type outside struct {
	// serving is the certificate with its intermediates, nil if there is none that can serve.
	serving *tls.Certificate
	pair    Pair
	// anchor is the CA, in PEM, by which alone it verifies.
	anchor []byte
	// fault says what is wrong with what was issued.
	fault string
	// bootstrap tells that a CA of ours may serve until something is issued.
	bootstrap bool
}

// ready tells whether there is a certificate that can serve.
func (o *outside) ready() bool { return o.serving != nil }

// verifiesBy tells whether the certificate verifies by CAs in PEM alone.
func (o *outside) verifiesBy(roots []byte, now time.Time) bool {
	return o.ready() && signedBy(o.serving, roots, now)
}

// outsideOf checks an External as an API server would, before any of it is taken. Nil is one that was not issued yet.
func outsideOf(e *External, names []string, now time.Time) *outside {
	if e == nil {
		return &outside{}
	}
	serving, anchor, err := e.check(names, now)
	if err != nil {
		return &outside{fault: err.Error()}
	}
	return &outside{serving: serving, pair: e.Pair, anchor: anchor}
}

// check returns the certificate and the CA by which alone it verifies.
func (e *External) check(names []string, now time.Time) (*tls.Certificate, []byte, error) {
	serving, err := parse(e.Pair)
	if err != nil {
		return nil, nil, err
	}
	candidates := e.candidates()
	if len(candidates) == 0 {
		return nil, nil, errors.New("its issuer does not say which CA signed it: there is no certificate in " + CABundleKey +
			" and no intermediate; name an issuer that does in certs.issuer, or use the built-in CA with certs.mode: builtin")
	}
	var faults []error
	for _, ca := range candidates {
		anchor, err := anchorOf(serving, ca, names, now)
		if err == nil {
			return serving, anchor, nil
		}
		faults = append(faults, err)
	}
	return nil, nil, errors.Join(faults...)
}

// candidates returns the certificates that clients may come to trust, the one that lives longest first. Where the issuer does not say,
// it is the last intermediate, which is the nearest to the root.
func (e *External) candidates() []*x509.Certificate {
	blocks := blocksOf(e.CA)
	if len(blocks) == 0 {
		if blocks = blocksOf(e.Pair.Certificate); len(blocks) < 2 {
			return nil
		}
		blocks = blocks[len(blocks)-1:]
	}
	var candidates []*x509.Certificate
	for _, block := range blocks {
		if ca, err := x509.ParseCertificate(block.Bytes); err == nil {
			candidates = append(candidates, ca)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *x509.Certificate) int { return b.NotAfter.Compare(a.NotAfter) })
	return candidates
}

// anchorOf returns a CA in PEM if the certificate verifies by it alone.
func anchorOf(serving *tls.Certificate, ca *x509.Certificate, names []string, now time.Time) ([]byte, error) {
	if !ca.IsCA {
		return nil, errors.New("what it is to be trusted by is not the certificate of a CA: name an issuer that signs by a CA, not one of " +
			"self-signed certificates, in certs.issuer")
	}
	if err := current(ca, now); err != nil {
		return nil, fmt.Errorf("its CA: %w", err)
	}
	anchor := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: ca.Raw})
	return anchor, verify(serving, anchor, names, now)
}

// isOutside tells that a CA is not ours: its key is not there. So it is with a CA of ours whose key was lost.
func isOutside(ca Pair) bool { return len(ca.Certificate) > 0 && len(ca.Key) == 0 }

func sameCertificate(a, b []byte) bool {
	first, second := blocksOf(a), blocksOf(b)
	return len(first) > 0 && len(second) > 0 && bytes.Equal(first[0].Bytes, second[0].Bytes)
}

// withoutCertificate returns a certificate without one of its intermediates.
func withoutCertificate(certificate *tls.Certificate, intermediate []byte) *tls.Certificate {
	left := *certificate
	for _, block := range blocksOf(intermediate) {
		left.Certificate = slices.DeleteFunc(slices.Clone(left.Certificate), func(der []byte) bool { return bytes.Equal(der, block.Bytes) })
	}
	return &left
}

// pending tells whether another CA is to take over.
func (r *rotation) pending() bool { return r.Phase == PhasePublish || r.Phase == PhaseSettle }

// course is how a step goes on.
type course int

const (
	// asOurs goes on as with CAs of ours: they are replaced where they cannot sign.
	asOurs course = iota
	// byPhase takes the next phase, if it is time to.
	byPhase
	// finished does nothing more.
	finished
)

// stepOutside is step where somebody else issues certificates.
func (r rotation) stepOutside(s *situation) (next rotation, change *Change, how course, err error) {
	if !s.outside.ready() {
		return r.hold(s)
	}
	anchor := s.outside.anchor
	switch {
	case !r.serves(s) && verifyCA(r.Signing, s.names, s.now) != nil && !s.outside.verifiesBy(r.Signing.Certificate, s.now):
		next, change, err = r.takeOver(s)
	case sameCertificate(r.Signing.Certificate, anchor):
		if r.pending() {
			next, change, err = r.withoutNext(s.now).because(ReasonCAWithdrawn,
				"the certificate is issued by the CA that is trusted already: no other is to take over")
			break
		}
		if r.Phase == PhaseStable {
			return r, nil, finished, nil // they renew it
		}
		return r, nil, byPhase, nil
	case r.pending() && sameCertificate(r.Next.Certificate, anchor) && isOutside(r.Next):
		return r, nil, byPhase, nil
	default:
		next, change, err = r.publishOutside(s)
	}
	return next, change, finished, err
}

// hold is the step while nothing that can serve is issued. What serves goes on serving.
func (r rotation) hold(s *situation) (next rotation, change *Change, how course, err error) {
	ours := verifyCA(r.Signing, s.names, s.now) == nil
	switch {
	case ours && r.pending() && isOutside(r.Next):
		signing, err := parse(r.Signing)
		if err != nil || s.now.Before(renewAt(signing.Leaf)) {
			return r, nil, finished, err
		}
		next, change, err = r.publish(s, "two thirds of its life have passed, and the CA that was to take over issues nothing that can serve")
		return next, change, finished, err
	case ours, r.pending() && brokenNext(&r, s) == "", s.outside.bootstrap && !r.serves(s):
		return r, nil, asOurs, nil
	case r.Phase == PhaseRetire:
		return r, nil, byPhase, nil
	default:
		return r, nil, finished, nil
	}
}

// serves tells whether the serving certificate as it is can serve those who trust what is written down.
func (r *rotation) serves(s *situation) bool {
	return s.serving != nil && verify(s.serving, joinPEM(r.bundle(), s.trusted), s.names, s.now) == nil
}

// publishOutside has the CA of somebody else take over.
func (r rotation) publishOutside(s *situation) (rotation, *Change, error) {
	if len(r.Signing.Certificate) == 0 {
		return r.takeOver(s)
	}
	r = r.to(PhasePublish, s.now)
	r.Next, r.NextCross = Pair{Certificate: s.outside.anchor}, nil
	if cross, err := crossSign(r.Next.Certificate, r.Signing); err == nil && s.outside.verifiesWith(cross, r.Signing.Certificate, s.now) {
		r.NextCross = cross
	}
	return r.because(ReasonCAPublished, "another CA issues the serving certificate, to be trusted beside the one that signs")
}

// verifiesWith tells whether the certificate verifies by CAs in PEM alone if an intermediate is served behind it.
func (o *outside) verifiesWith(intermediate, roots []byte, now time.Time) bool {
	block, _ := pem.Decode(intermediate)
	if block == nil {
		return false
	}
	longer := *o.serving
	longer.Certificate = append(slices.Clone(longer.Certificate), block.Bytes)
	return signedBy(&longer, roots, now)
}

// takeOver has the CA of somebody else sign where nothing is written down of one that can: at once, or if what is served verifies by a CA
// that clients may still trust, once they trust both.
func (r rotation) takeOver(s *situation) (rotation, *Change, error) {
	anchor := Pair{Certificate: s.outside.anchor}
	trusted := knownCAs(joinPEM(r.Signing.Certificate, r.Previous, s.trusted))
	signer := signerOf(s.serving, trusted, s.now)
	switch {
	case len(trusted) == 0:
		return rotation{Signing: anchor}.to(PhaseStable, s.now).because(ReasonCACreated, "the CA that issues the serving certificate is trusted")
	case s.serving == nil, len(signer) == 0, len(uncovered(s.serving.Leaf, s.names)) > 0:
		// Replicas may serve what was served before until it expires.
		next := rotation{Signing: anchor, Previous: trusted, RetireAt: latest(r.SignedUntil, r.RetireAt)}.to(PhaseActivate, s.now)
		return next.because(ReasonCAReplacedAtOnce, "the CA that issues the serving certificate signs at once: nothing that can serve was there")
	}
	until := s.serving.Leaf.NotAfter
	known := rotation{Signing: Pair{Certificate: signer}, SignedUntil: until, Previous: trusted, RetireAt: until}
	if sameCertificate(signer, anchor.Certificate) {
		return known.to(PhaseRetire, s.now).because(ReasonCALost, "wrote down anew which CA issues the serving certificate")
	}
	known.Next = anchor
	return known.to(PhasePublish, s.now).because(ReasonCALost,
		"another CA issues the serving certificate, to be trusted beside the one that signed what is served")
}

// withoutNext drops the CA that was to take over, which has signed nothing that was served.
func (r rotation) withoutNext(now time.Time) rotation {
	r.Next, r.NextCross = Pair{}, nil
	if len(r.Previous) > 0 {
		return r.to(PhaseRetire, now)
	}
	return r.to(PhaseStable, now)
}

// copies tells whether what somebody else issued is served: it verifies by the CA that signs.
func (k *keeper) copies() bool {
	return k.outside != nil && k.outside.verifiesBy(k.rotation.Signing.Certificate, k.now)
}

// copied is what is served of what somebody else issued.
func (k *keeper) copied() Pair {
	return Pair{Certificate: joinPEM(k.outside.pair.Certificate, k.rotation.intermediates()), Key: k.outside.pair.Key}
}

// copyDue says why the serving certificate has to be copied from what somebody else issued; empty: it is that.
func (k *keeper) copyDue(leaf Pair) (Reason, string) {
	issued := k.copied()
	if bytes.Equal(leaf.Certificate, issued.Certificate) && bytes.Equal(leaf.Key, issued.Key) {
		return "", ""
	}
	if k.rotation.Phase != PhaseActivate && Verify(leaf, k.rotation.bundle(), k.options.Names, k.now) != nil {
		return ReasonCertificateReplaced, "it was copied from what was issued, for the one before cannot serve"
	}
	return ReasonCertificateIssued, "it was copied from what was issued"
}

// annotate sets the annotations of the serving certificate's Secret, and tells whether any was another.
func (k *keeper) annotate() bool {
	changed := false
	for name, value := range k.options.Annotations {
		if k.serving.Annotations[name] == value {
			continue
		}
		changed = true
		if value == "" {
			delete(k.serving.Annotations, name)
			continue
		}
		if k.serving.Annotations == nil {
			k.serving.Annotations = map[string]string{}
		}
		k.serving.Annotations[name] = value
	}
	return changed
}

// SignedByAnother tells whether a certificate was issued with another CA than the one that is there now, and can sign. All are in PEM.
func SignedByAnother(issuedWith, ca []byte, now time.Time) bool {
	present, err := firstOf(ca)
	return err == nil && current(present, now) == nil && len(blocksOf(issuedWith)) > 0 && !sameCertificate(issuedWith, ca)
}

// Covers tells whether a bundle holds all certificates of another, in PEM, but those that have expired. Who injects leaves older ones in a
// caBundle until they expire, and takes out those that have.
func Covers(bundle, all []byte, now time.Time) bool {
	held := blocksOf(bundle)
	return !slices.ContainsFunc(blocksOf(all), func(wanted *pem.Block) bool {
		certificate, err := x509.ParseCertificate(wanted.Bytes)
		expired := err == nil && now.After(certificate.NotAfter)
		return !expired && !slices.ContainsFunc(held, func(block *pem.Block) bool { return bytes.Equal(block.Bytes, wanted.Bytes) })
	})
}
