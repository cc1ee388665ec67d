package certs

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

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
	Reason      Reason     `json:"reason,omitempty"`
	Message     string     `json:"message,omitempty"`
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
	phase, err := json.Marshal(recorded{
		Phase: r.Phase, Since: r.Since.UTC(), Reason: r.Reason, Message: r.Message,
		SignedUntil: optional(r.SignedUntil), RetireAt: optional(r.RetireAt),
	})
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
		NextCross: knownCAs(data[nextCrossKey]), Cross: knownCAs(data[crossKey]), Previous: knownCAs(data[previousKey]),
	}
	read := recorded{}
	if json.Unmarshal(data[phaseKey], &read) == nil && slices.Contains(Phases(), read.Phase) {
		r.Phase, r.Since, r.Reason, r.Message = read.Phase, read.Since, read.Reason, read.Message
		if read.SignedUntil != nil {
			r.SignedUntil = *read.SignedUntil
		}
		if read.RetireAt != nil {
			r.RetireAt = *read.RetireAt
		}
	}
	return r
}
