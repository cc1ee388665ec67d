package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
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
	// Since is when the phase began.
	Since time.Time

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
	var valid []byte
	for _, block := range blocksOf(data) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err == nil && certificate.IsCA && !now.After(certificate.NotAfter) {
			valid = append(valid, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: block.Bytes})...)
		}
	}
	return valid
}

// The keys of the CA's Secret beside the pair of the CA that signs.
const (
	nextCertificateKey = "next.crt"
	nextPrivateKeyKey  = "next.key"
	nextCrossKey       = "next-cross.crt"
	crossKey           = "cross.crt"
	previousKey        = "previous.crt"
	phaseKey           = "rotation.json"
)

// recorded is the JSON of phaseKey.
type recorded struct {
	Phase       Phase      `json:"phase"`
	Since       time.Time  `json:"since"`
	SignedUntil *time.Time `json:"signedUntil,omitempty"`
	RetireAt    *time.Time `json:"retireAt,omitempty"`
}

// encode returns the data of the CA's Secret.
func (r *rotation) encode() (map[string][]byte, error) {
	optional := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return new(t.UTC())
	}
	phase, err := json.Marshal(recorded{r.Phase, r.Since.UTC(), optional(r.SignedUntil), optional(r.RetireAt)})
	if err != nil {
		return nil, fmt.Errorf("encode the phase of the rotation: %w", err)
	}
	data := map[string][]byte{
		CertificateKey: r.Signing.Certificate, PrivateKeyKey: r.Signing.Key, phaseKey: phase,
		nextCertificateKey: r.Next.Certificate, nextPrivateKeyKey: r.Next.Key, nextCrossKey: r.NextCross,
		crossKey: r.Cross, previousKey: r.Previous,
	}
	for key, value := range data {
		if len(value) == 0 && key != CertificateKey && key != PrivateKeyKey { // these two the Secret's type asks for
			delete(data, key)
		}
	}
	return data, nil
}

// decodeRotation reads the data of the CA's Secret. What cannot be read, or does not go together, is as if it were not there: the
// phase is then Stable, and a pair that is broken is found out by whoever uses it.
func decodeRotation(data map[string][]byte) rotation {
	r := rotation{
		Phase:     PhaseStable,
		Signing:   Pair{Certificate: data[CertificateKey], Key: data[PrivateKeyKey]},
		Next:      Pair{Certificate: data[nextCertificateKey], Key: data[nextPrivateKeyKey]},
		NextCross: data[nextCrossKey], Cross: data[crossKey], Previous: data[previousKey],
	}
	read := recorded{}
	if json.Unmarshal(data[phaseKey], &read) == nil && slices.Contains(Phases(), read.Phase) {
		r.Phase, r.Since = read.Phase, read.Since
		if read.SignedUntil != nil {
			r.SignedUntil = *read.SignedUntil
		}
		if read.RetireAt != nil {
			r.RetireAt = *read.RetireAt
		}
	}
	return r
}

// situation is what the next step of a rotation follows from.
type situation struct {
	now   time.Time
	names []string
	// caLifetime and settle are Options.CALifetime and Options.Settle, with defaults.
	caLifetime, settle time.Duration
	// holds tells whether every caBundle holds exactly the bundle.
	holds bool
	// trusted are certificates that clients may still trust although nothing is written down of them, in PEM: what was the bundle when
	// the CA's Secret was lost.
	trusted []byte
	// leaf is the serving certificate as it is, nil if there is none that parses.
	leaf *x509.Certificate
	// leafSigned tells that the leaf is signed by the CA that signs.
	leafSigned bool
}

// step returns the rotation one step further, and says in a sentence what was done and why; empty: there is nothing to do.
func (r rotation) step(s *situation) (rotation, string, error) {
	if why := r.unusable(s); why != "" {
		if (r.Phase == PhasePublish || r.Phase == PhaseSettle) && brokenNext(&r, s) == "" {
			return r.activate(s.now), "the next CA signs at once, for the one before it cannot: " + why, nil
		}
		return r.startOver(s, why)
	}
	switch r.Phase {
	case PhasePublish:
		if why := brokenNext(&r, s); why != "" {
			return r.publish(s, why)
		}
		if s.holds {
			return r.to(PhaseSettle, s.now), "every caBundle holds the next CA; API servers are given " + s.settle.String() + " to see it", nil
		}
	case PhaseSettle:
		switch {
		case brokenNext(&r, s) != "":
			return r.publish(s, brokenNext(&r, s))
		case !s.holds:
			return r.to(PhasePublish, s.now), "a caBundle does not hold the next CA any more", nil
		case !s.now.Before(r.Since.Add(s.settle)), s.now.Before(r.Since): // or the clock was set back
			return r.activate(s.now), "API servers have had time to see the next CA: it signs from now on", nil
		}
	case PhaseActivate:
		if s.leafSigned {
			return r.to(PhaseRetire, s.now), "the serving certificate is signed by the new CA; the old one stays trusted until " +
				r.RetireAt.UTC().Format(time.RFC3339), nil
		}
	case PhaseRetire:
		if s.now.After(r.RetireAt) {
			r = r.to(PhaseStable, s.now)
			r.Previous, r.Cross, r.RetireAt = nil, nil, time.Time{}
			return r, "the last certificate that the old CA signed has expired: it is trusted no longer", nil
		}
	case PhaseStable:
		signing, err := parse(r.Signing)
		if err != nil {
			return r, "", err
		}
		if !s.now.Before(renewAt(signing.Leaf)) {
			return r.publish(s, "two thirds of its life have passed")
		}
	}
	return r, "", nil
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
	takesOver := (r.Phase == PhasePublish || r.Phase == PhaseSettle) && brokenNext(r, s) == ""
	if takesOver && r.isOnlyTrusted(s) {
		return ""
	}
	return err.Error()
}

// isOnlyTrusted tells whether the key of the CA that signs is lost while the certificate that it signed last serves well.
func (r *rotation) isOnlyTrusted(s *situation) bool {
	if len(r.Signing.Key) > 0 || s.leaf == nil || s.now.After(s.leaf.NotAfter.Add(-s.settle/10)) || len(uncovered(s.leaf, s.names)) > 0 {
		return false
	}
	return signedBy(s.leaf, r.Signing.Certificate, s.now)
}

// signedBy tells whether a leaf verifies by certificates in PEM alone.
func signedBy(leaf *x509.Certificate, roots []byte, now time.Time) bool {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return false
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err == nil
}

// brokenNext says why the CA that is to take over cannot; empty: it can.
func brokenNext(r *rotation, s *situation) string {
	if err := verifyCA(r.Next, s.names, s.now); err != nil {
		return "the next CA is broken: " + err.Error()
	}
	return ""
}

// startOver makes a CA where there is none that can sign. If the serving certificate of a lost one is still good, clients that trust the
// lost one come to trust the new one first, and nobody notices; else the new one signs at once.
func (r rotation) startOver(s *situation, why string) (rotation, string, error) {
	made, err := NewCA(s.names, s.caLifetime, s.now)
	if err != nil {
		return r, "", err
	}
	trusted := stillValid(joinPEM(r.Signing.Certificate, r.Previous, s.trusted), s.now)
	lost := rotation{Signing: Pair{Certificate: signerOf(s.leaf, trusted, s.now)}}
	if len(lost.Signing.Certificate) > 0 && lost.isOnlyTrusted(s) {
		next := rotation{
			Signing: lost.Signing, SignedUntil: s.leaf.NotAfter, Next: made, Previous: trusted, RetireAt: s.leaf.NotAfter,
		}.to(PhasePublish, s.now)
		return next, "made a new CA, to be trusted beside the old one before it signs: " + why, nil
	}
	if len(trusted) == 0 || s.leaf == nil {
		return rotation{Signing: made}.to(PhaseStable, s.now), "made a new CA: " + why, nil
	}
	fresh := rotation{Signing: made, Previous: trusted, RetireAt: s.leaf.NotAfter}.to(PhaseActivate, s.now)
	return fresh, "made a new CA, which signs at once: " + why, nil
}

// signerOf returns the certificate, in PEM, of the CA that signed a leaf.
func signerOf(leaf *x509.Certificate, candidates []byte, now time.Time) []byte {
	if leaf == nil {
		return nil
	}
	for _, block := range blocksOf(candidates) {
		if candidate := pem.EncodeToMemory(block); signedBy(leaf, candidate, now) {
			return candidate
		}
	}
	return nil
}

// publish makes the CA that is to take over.
func (r rotation) publish(s *situation, why string) (rotation, string, error) {
	made, err := NewCA(s.names, s.caLifetime, s.now)
	if err != nil {
		return r, "", err
	}
	r = r.to(PhasePublish, s.now)
	r.Next, r.NextCross = made, nil
	if len(r.Signing.Key) > 0 {
		if r.NextCross, err = crossSign(made, r.Signing); err != nil {
			return r, "", err
		}
	}
	return r, "made the next CA, to be trusted beside the one that signs: " + why, nil
}

// activate makes the next CA the one that signs.
func (r rotation) activate(now time.Time) rotation {
	retire := r.SignedUntil
	if r.RetireAt.After(retire) {
		retire = r.RetireAt
	}
	return rotation{
		Signing: r.Next, Cross: r.NextCross,
		Previous: stillValid(joinPEM(r.Signing.Certificate, r.Previous), now), RetireAt: retire,
	}.to(PhaseActivate, now)
}

// due is when step has something to do again by time alone; never if that is zero.
func (r *rotation) due(settle time.Duration) time.Time {
	switch r.Phase {
	case PhaseSettle:
		return r.Since.Add(settle)
	case PhaseRetire:
		return r.RetireAt.Add(time.Second)
	case PhaseStable:
		if signing, err := parse(r.Signing); err == nil {
			return renewAt(signing.Leaf)
		}
	case PhasePublish, PhaseActivate: // what they wait for is an event
	}
	return time.Time{}
}

// jitter returns how much earlier than at two thirds of its life a certificate is renewed: up to a twentieth of its life. It follows from
// the serial number, which is random, so that it is the same whoever asks and whenever.
func jitter(certificate *x509.Certificate, life time.Duration) time.Duration {
	serial := append(make([]byte, 4), certificate.SerialNumber.Bytes()...)
	fraction := float64(binary.BigEndian.Uint32(serial[len(serial)-4:])) / (1 << 32)
	return time.Duration(float64(life/20) * fraction)
}
