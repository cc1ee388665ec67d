package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"slices"
	"time"
)

// Phase is how far the replacement of the CA has come. It is written down with the CAs themselves, so that whoever comes next goes on
// from there, whenever the one before ended.
//
//	Stable   one CA signs and is trusted.
//	Publish  the next CA is made. Every caBundle has to hold it beside the one that signs.
//	Settle   every caBundle holds both. API servers may lag behind what is stored, and are waited for.
//	Activate the next CA signs; the serving certificate is made anew. It is served with the new CA as the old one signed it,
//	         so that an API server that still trusts the old one alone verifies it, too.
//	Retire   the old CA stays trusted until the last certificate that it signed has expired.
type Phase string

// The phases, in their order.
const (
	PhaseStable   Phase = "Stable"
	PhasePublish  Phase = "Publish"
	PhaseSettle   Phase = "Settle"
	PhaseActivate Phase = "Activate"
	PhaseRetire   Phase = "Retire"
)

// Phases returns all phases in their order.
func Phases() []Phase {
	return []Phase{PhaseStable, PhasePublish, PhaseSettle, PhaseActivate, PhaseRetire}
}

// rotation is what is written down about the CAs: the content of the CA's Secret.
type rotation struct {
	Phase Phase
	// Since is when the phase began, Reason and Message tell why.
	Since   time.Time
	Reason  Reason
	Message string

	// Signing is the CA that signs. Its key may be lost: then it is only trusted, until the next one takes over.
	Signing Pair
	// SignedUntil is when the last certificate that Signing signed expires.
	SignedUntil time.Time

	// Next takes over; in Publish and Settle only. NextCross is its certificate as Signing signed it, empty if it could not.
	Next      Pair
	NextCross []byte

	// Cross is the certificate of Signing as its predecessor signed it, to be served behind leaves; in Activate and Retire only.
	Cross []byte
	// Previous are the certificates of predecessors that stay trusted until RetireAt.
	Previous []byte
	RetireAt time.Time
}

// bundle returns what clients have to trust, in PEM: the CA that signs first.
func (r *rotation) bundle() []byte {
	return joinPEM(r.Signing.Certificate, r.Next.Certificate, r.Previous)
}

// intermediates returns what is served behind a leaf.
func (r *rotation) intermediates() []byte { return r.Cross }

// maxTrusted bounds the certificates in a bundle: CAs that are replaced more often than leaves expire do not pile up.
const maxTrusted = 8

// joinPEM returns certificates in PEM, each once, in their order.
func joinPEM(parts ...[]byte) []byte {
	var joined []byte
	var seen [][]byte
	for _, part := range parts {
		for _, block := range blocksOf(part) {
			if len(seen) == maxTrusted || slices.ContainsFunc(seen, func(der []byte) bool { return bytes.Equal(der, block.Bytes) }) {
				continue
			}
			seen = append(seen, block.Bytes)
			joined = append(joined, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: block.Bytes})...)
		}
	}
	return joined
}

// blocksOf returns the certificates among PEM blocks.
func blocksOf(data []byte) []*pem.Block {
	var blocks []*pem.Block
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return blocks
		}
		if block.Type == pemCertificate {
			blocks = append(blocks, block)
		}
	}
}

// stillValid returns those certificates that parse, are CAs and have not expired, in PEM.
func stillValid(data []byte, now time.Time) []byte {
	return selectCAs(data, func(ca *x509.Certificate) bool { return !now.After(ca.NotAfter) })
}

// ours returns those certificates that are of CAs for exactly the names, in PEM.
func ours(data []byte, names []string) []byte {
	return selectCAs(data, func(ca *x509.Certificate) bool { return permits(ca, names) })
}

// knownCAs returns those certificates that are of CAs, in PEM. One that has expired is among them: it verifies nothing, unless the clock
// here is wrong, and then it must not be lost.
func knownCAs(data []byte) []byte {
	return selectCAs(data, func(*x509.Certificate) bool { return true })
}

func selectCAs(data []byte, wanted func(*x509.Certificate) bool) []byte {
	var found []byte
	for _, block := range blocksOf(data) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err == nil && certificate.IsCA && wanted(certificate) {
			found = append(found, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: block.Bytes})...)
		}
	}
	return found
}

// situation is what the next step of a rotation follows from.
type situation struct {
	now   time.Time
	names []string
	// caLifetime, leafLifetime and settle are those of Options, with defaults.
	caLifetime, leafLifetime, settle time.Duration
	// holds tells whether every caBundle holds exactly the bundle.
	holds bool
	// trusted are certificates that clients may still trust although nothing is written down of them, in PEM: what was the bundle when
	// the CA's Secret was lost. held returns what the caBundles of clients hold, for where that is lost, too.
	trusted []byte
	held    func() ([]byte, error)
	// serving is the serving certificate as it is, nil if there is none that parses, with its intermediates but for the one by which the
	// CA before vouches for the one that signs. Leaf is its first.
	serving *tls.Certificate
	leaf    *x509.Certificate
	// leafSigned tells that the leaf is signed by the CA that signs.
	leafSigned bool
	// outside is what somebody else issued; nil: nobody else issues certificates.
	outside *outside
}

// step returns the rotation one step further, and what was done; nil: there is nothing to do.
func (r rotation) step(s *situation) (rotation, *Change, error) {
	course := asOurs
	if s.outside != nil {
		next, change, how, err := r.stepOutside(s)
		if how == finished || err != nil {
			return next, change, err
		}
		course = how
	} else if r.pending() && isOutside(r.Next) && verifyCA(r.Signing, s.names, s.now) == nil {
		return r.withoutNext(s.now).because(ReasonCAWithdrawn, "nobody else issues certificates any more: the CA that signs goes on signing")
	}
	if why := r.unusable(s); course == asOurs && why != "" {
		if (r.Phase == PhasePublish || r.Phase == PhaseSettle) && brokenNext(&r, s) == "" {
			return r.activate(s).because(ReasonCAReplacedAtOnce, "the next CA signs at once, for the one before it cannot: "+why)
		}
		return r.startOver(s, why)
	}
	if course == asOurs {
		if next, change, err := r.restored(s); change != nil || err != nil {
			return next, change, err
		}
	}
	switch r.Phase {
	case PhasePublish:
		if why := brokenNext(&r, s); why != "" {
			return r.publish(s, why)
		}
		if s.holds {
			return r.to(PhaseSettle, s.now).because(ReasonCASettling,
				"every caBundle holds the next CA; API servers are given "+s.settle.String()+" to see it")
		}
	case PhaseSettle:
		switch {
		case brokenNext(&r, s) != "":
			return r.publish(s, brokenNext(&r, s))
		case !s.holds:
			return r.to(PhasePublish, s.now).because(ReasonCAUnsettled, "a caBundle does not hold the next CA any more")
		case s.now.Before(r.Since):
			return r.to(PhaseSettle, s.now).because(ReasonCASettling,
				"the clock was set back; API servers are given "+s.settle.String()+" again to see the next CA")
		case !s.now.Before(r.Since.Add(r.patience(s))):
			return r.activate(s).because(ReasonCAActivated, "API servers have had time to see the next CA: it signs from now on")
		}
	case PhaseActivate:
		if s.leafSigned {
			return r.to(PhaseRetire, s.now).because(ReasonCARetiring,
				"the serving certificate is signed by the new CA; the old one stays trusted until "+r.RetireAt.UTC().Format(time.RFC3339))
		}
	case PhaseRetire:
		if s.now.After(r.RetireAt) {
			r = r.to(PhaseStable, s.now)
			r.Previous, r.Cross, r.RetireAt = nil, nil, time.Time{}
			return r.because(ReasonCARetired, "the last certificate that the old CA signed has expired: it is trusted no longer")
		}
		return r.renew(s) // even so, for a clock may have been wrong when it was written down until when
	case PhaseStable:
		return r.renew(s)
	}
	return r, nil, nil
}

// renew makes the next CA if it is time to.
func (r rotation) renew(s *situation) (rotation, *Change, error) {
	if len(r.Signing.Key) == 0 {
		return r, nil, nil // somebody else's, and they renew it
	}
	signing, err := parse(r.Signing)
	if err != nil || s.now.Before(renewAt(signing.Leaf)) {
		return r, nil, err
	}
	return r.publish(s, "two thirds of its life have passed")
}

// because returns the rotation with what was done to make it this.
func (r rotation) because(reason Reason, message string) (rotation, *Change, error) {
	r.Reason, r.Message = reason, message
	return r, &Change{Phase: r.Phase, Since: r.Since, Reason: reason, Message: message}, nil
}

func (r rotation) to(phase Phase, now time.Time) rotation {
	r.Phase, r.Since = phase, now
	return r
}

// unusable says why the CA that signs can do so no longer; empty: it can, or need not, because the next one takes over in time.
func (r *rotation) unusable(s *situation) string {
	err := verifyCA(r.Signing, s.names, s.now)
	if err == nil {
		return ""
	}
	takesOver := r.pending() && brokenNext(r, s) == ""
	if takesOver && (r.Phase == PhaseSettle || r.isOnlyTrusted(s) || s.now.Before(r.Since.Add(s.settle))) {
		return ""
	}
	return err.Error()
}

// inHaste is how long API servers are given to see the next CA where nothing can be signed meanwhile and the Secret holds nothing that
// serves: replicas of the webhook serve what they have in memory, and one that starts has nothing.
const inHaste = 5 * time.Second

// patience is how long API servers are given to see the next CA.
func (r *rotation) patience(s *situation) time.Duration {
	patience := s.settle
	if verifyCA(r.Signing, s.names, s.now) != nil && !r.isOnlyTrusted(s) {
		patience = min(patience, inHaste)
	}
	// Rather a certificate that some have not been told of than one that nobody accepts.
	if end := r.servesUntil(s); !end.IsZero() {
		patience = min(patience, max(0, end.Add(-s.settle/10).Sub(r.Since)))
	}
	return patience
}

// servesUntil is when nothing verifies any more that the CA signed; zero: nobody knows.
func (r *rotation) servesUntil(s *situation) time.Time {
	ca, err := firstOf(r.Signing.Certificate)
	if err != nil {
		return time.Time{}
	}
	if len(r.Signing.Key) == 0 && s.leaf != nil { // it is not renewed
		return earliest(ca.NotAfter, s.leaf.NotAfter)
	}
	return ca.NotAfter
}

// isOnlyTrusted tells whether the key of the CA that signs is lost while the certificate that it signed last serves well.
func (r *rotation) isOnlyTrusted(s *situation) bool {
	if len(r.Signing.Key) > 0 || s.leaf == nil || s.now.After(s.leaf.NotAfter.Add(-s.settle/10)) || len(uncovered(s.leaf, s.names)) > 0 {
		return false
	}
	return signedBy(s.serving, r.Signing.Certificate, s.now)
}

// signedBy tells whether a certificate verifies, with its intermediates, by certificates in PEM alone.
func signedBy(certificate *tls.Certificate, roots []byte, now time.Time) bool {
	pool := x509.NewCertPool()
	return pool.AppendCertsFromPEM(roots) && chain(certificate, pool, now) == nil
}

// brokenNext says why the CA that is to take over cannot; empty: it can.
func brokenNext(r *rotation, s *situation) string {
	if s.outside != nil && s.outside.ready() && isOutside(r.Next) {
		return "" // it is the one that was checked with what it issued
	}
	if err := verifyCA(r.Next, s.names, s.now); err != nil {
		return "the next CA is broken: " + err.Error()
	}
	return ""
}

// startOver makes a CA where there is none that can sign. As long as something may be served that an older one signed, clients that trust
// that one come to trust the new one first, and nobody notices; else the new one signs at once.
func (r rotation) startOver(s *situation, why string) (rotation, *Change, error) {
	made, err := NewCA(s.names, s.caLifetime, s.now)
	if err != nil {
		return r, nil, err
	}
	held, err := s.held()
	if err != nil {
		return r, nil, err
	}
	trusted := joinPEM(knownCAs(joinPEM(r.Signing.Certificate, r.Previous, s.trusted)), ours(held, s.names))
	until := s.now.Add(s.leafLifetime)
	if s.leaf != nil && current(s.leaf, s.now) == nil {
		until = latest(until, s.leaf.NotAfter)
	}
	if len(trusted) == 0 {
		fresh := rotation{Signing: made}.to(PhaseStable, s.now)
		if s.leaf == nil && len(r.Signing.Certificate) == 0 {
			return fresh.because(ReasonCACreated, "made a CA: there was none")
		}
		return fresh.because(ReasonCAReplacedAtOnce, "made a new CA, which signs at once: "+why)
	}
	next := rotation{
		Signing: r.mayServe(s, trusted), SignedUntil: latest(until, r.SignedUntil), Next: made, Previous: trusted, RetireAt: until,
	}
	if len(next.Signing.Certificate) == 0 {
		fresh := rotation{Signing: made, Cross: r.vouch(made, s), Previous: trusted, RetireAt: until}.to(PhaseActivate, s.now)
		return fresh.because(ReasonCAReplacedAtOnce, "made a new CA, which signs at once: "+why)
	}
	if len(next.Signing.Key) > 0 {
		next.NextCross = r.vouch(made, s)
	}
	return next.to(PhasePublish, s.now).because(ReasonCALost, "made a new CA, to be trusted beside the old one before it signs: "+why)
}

// mayServe returns the CA that signed what may still be served: the one by which the certificate in the Secret verifies; where that does
// not, one that replicas of the webhook may hold a certificate of in memory. Empty: nothing can be served, for all have expired or are for
// other names.
func (r *rotation) mayServe(s *situation, trusted []byte) Pair {
	lost := rotation{Signing: Pair{Certificate: signerOf(s.serving, trusted, s.now)}}
	if len(lost.Signing.Certificate) > 0 && lost.isOnlyTrusted(s) {
		return lost.Signing
	}
	signing, _, err := parseCA(r.Signing)
	if err == nil && permits(signing, s.names) && !s.now.After(signing.NotAfter) {
		return r.Signing // it is not valid yet: a clock is or was wrong
	}
	if s.leaf == nil && len(r.Signing.Key) == 0 {
		return Pair{Certificate: pem.EncodeToMemory(blocksOf(trusted)[0])}
	}
	if left := blocksOf(stillValid(ours(trusted, s.names), s.now)); len(left) > 0 {
		return Pair{Certificate: pem.EncodeToMemory(left[0])}
	}
	return Pair{}
}

// vouch signs the CA that follows by the one that signed, if that is merely not valid now: if it is the clock here that is wrong, others
// think that it is, and are to verify what follows. Empty: it cannot.
func (r *rotation) vouch(next Pair, s *situation) []byte {
	signing, _, err := parseCA(r.Signing)
	if err != nil || !permits(signing, s.names) {
		return nil
	}
	cross, err := crossSign(next.Certificate, r.Signing)
	if err != nil {
		return nil
	}
	return cross
}

// signerOf returns the certificate, in PEM, of the CA by which a certificate verifies.
func signerOf(certificate *tls.Certificate, candidates []byte, now time.Time) []byte {
	if certificate == nil {
		return nil
	}
	for _, block := range blocksOf(candidates) {
		if candidate := pem.EncodeToMemory(block); signedBy(certificate, candidate, now) {
			return candidate
		}
	}
	return nil
}

// publish makes the CA that is to take over.
func (r rotation) publish(s *situation, why string) (rotation, *Change, error) {
	made, err := NewCA(s.names, s.caLifetime, s.now)
	if err != nil {
		return r, nil, err
	}
	r = r.to(PhasePublish, s.now)
	r.Next, r.NextCross = made, nil
	if len(r.Signing.Key) > 0 {
		if r.NextCross, err = crossSign(made.Certificate, r.Signing); err != nil {
			return r, nil, err
		}
	}
	return r.because(ReasonCAPublished, "made the next CA, to be trusted beside the one that signs: "+why)
}

// activate makes the next CA the one that signs.
func (r rotation) activate(s *situation) rotation {
	return rotation{
		Signing: r.Next, Cross: r.NextCross,
		Previous: knownCAs(joinPEM(r.Signing.Certificate, r.Previous)), RetireAt: latest(r.SignedUntil, r.RetireAt),
	}.to(PhaseActivate, s.now)
}

// due is when step has something to do again by time alone; never if that is zero.
func (r *rotation) due(s *situation) time.Time {
	renewal := time.Time{}
	if signing, err := parse(r.Signing); err == nil {
		renewal = renewAt(signing.Leaf)
	}
	switch r.Phase {
	case PhaseSettle:
		return r.Since.Add(r.patience(s))
	case PhaseRetire:
		if retired := r.RetireAt.Add(time.Second); renewal.IsZero() || retired.Before(renewal) {
			return retired
		}
		return renewal
	case PhaseStable:
		return renewal
	case PhasePublish:
		if verifyCA(r.Signing, s.names, s.now) != nil {
			return r.Since.Add(s.settle)
		}
	case PhaseActivate:
	}
	return time.Time{} // what they wait for is an event
}

// jitter returns how much earlier than at two thirds of its life a certificate is renewed: up to a twentieth of its life. It follows from
// the serial number, which is random, so that it is the same whoever asks and whenever.
func jitter(certificate *x509.Certificate, life time.Duration) time.Duration {
	serial := append(make([]byte, 4), certificate.SerialNumber.Bytes()...)
	fraction := float64(binary.BigEndian.Uint32(serial[len(serial)-4:])) / (1 << 32)
	return time.Duration(float64(life/20) * fraction)
}
