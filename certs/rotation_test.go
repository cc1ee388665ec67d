package certs

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A CA is replaced in the phases, each when what it waits for has come about, and in no fewer.
func TestACAIsReplacedInPhases(t *testing.T) {
	c, opts := newClient(t), options()
	opts.CALifetime, opts.LeafLifetime, opts.Settle = 90*day, 6*day, time.Minute
	held := false
	opts.Holds = func(context.Context, []byte) (bool, error) { return held, nil }
	first := ensure(t, c, opts, start())
	now := start().Add(60 * day) // two thirds of its life

	steps := []struct {
		name  string
		after time.Duration
		holds bool
		phase Phase
		// trusted is how many CAs are, signer which of them signed the serving certificate: the first or the second.
		trusted, signer int
	}{
		{name: "the next CA is made", phase: PhasePublish, trusted: 2, signer: 1},
		{name: "while a caBundle lacks it nothing goes on", after: time.Hour, phase: PhasePublish, trusted: 2, signer: 1},
		{name: "every caBundle holds it", holds: true, phase: PhaseSettle, trusted: 2, signer: 1},
		{name: "API servers get time", after: 59 * time.Second, holds: true, phase: PhaseSettle, trusted: 2, signer: 1},
		{name: "a caBundle that loses it takes a step back", phase: PhasePublish, trusted: 2, signer: 1},
		{name: "and the time begins anew", holds: true, phase: PhaseSettle, trusted: 2, signer: 1},
		{name: "it signs", after: time.Minute, holds: true, phase: PhaseRetire, trusted: 2, signer: 2},
		{name: "the old one stays trusted", after: 5 * day, holds: true, phase: PhaseRetire, trusted: 2, signer: 2},
		{name: "until what it signed has expired", after: 2 * day, holds: true, phase: PhaseStable, trusted: 1, signer: 2},
	}
	var second []byte
	for _, step := range steps {
		now, held = now.Add(step.after), step.holds
		result := ensure(t, c, opts, now)
		if result.Phase != step.phase {
			t.Fatalf("%s: phase %s, want %s; %q", step.name, result.Phase, step.phase, result.Changes)
		}
		if trusted := len(blocksOf(result.CABundle)); trusted != step.trusted {
			t.Errorf("%s: %d CAs are trusted, want %d", step.name, trusted, step.trusted)
		}
		if second == nil {
			second = secret(t, c, "pillion-ca").Data[nextCertificateKey]
		}
		pair, err := parse(pairOf(secret(t, c, "pillion-webhook-tls")))
		if err != nil {
			t.Fatal(err)
		}
		for i, ca := range [][]byte{first.CABundle, second} {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(ca)
			// What the second one signed verifies by the first alone, too: API servers may lag.
			if verifies := chain(pair, roots, now) == nil; verifies != (i == 0 || step.signer == 2) {
				t.Errorf("%s: verifies by CA %d alone: %v", step.name, i+1, verifies)
			}
		}
	}
}

func TestWhatIsWrittenDownIsReadBack(t *testing.T) {
	ca, next := newCA(t, []string{serviceName}, start()), newCA(t, []string{serviceName}, start())
	cross, err := crossSign(next.Certificate, ca)
	if err != nil {
		t.Fatal(err)
	}
	for name, written := range map[string]rotation{
		"stable": {Phase: PhaseStable, Since: start(), Signing: ca, SignedUntil: start().Add(time.Hour)},
		"publish": {
			Phase: PhasePublish, Since: start(), Signing: ca, SignedUntil: start().Add(time.Hour), Next: next, NextCross: cross,
		},
		"retire": {
			Phase: PhaseRetire, Since: start(), Signing: next, Cross: cross, Previous: ca.Certificate, RetireAt: start().Add(time.Hour),
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := written.encode()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(written, decodeRotation(data)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever the Secret holds, there is a CA that serves afterwards, and what is not ours is not trusted.
func TestGarbageInTheCASecretIsOverwritten(t *testing.T) {
	stranger := newCA(t, []string{"x.y.svc"}, start())
	for name, damage := range map[string]map[string][]byte{
		"a phase that nobody knows":          {phaseKey: []byte(`{"phase":"Dance","since":"2026-11-21T09:00:00Z"}`)},
		"a phase that is no JSON":            {phaseKey: []byte("{")},
		"a phase without a next CA":          {phaseKey: []byte(`{"phase":"Settle","since":"2026-11-21T09:00:00Z"}`)},
		"a next CA for other names":          {phaseKey: []byte(`{"phase":"Settle","since":"2026-11-21T09:00:00Z"}`), nextCertificateKey: stranger.Certificate, nextPrivateKeyKey: stranger.Key},
		"a time that is far in the future":   {phaseKey: []byte(`{"phase":"Stable","since":"2126-11-21T09:00:00Z"}`)},
		"previous CAs that are no PEM":       {previousKey: []byte("x")},
		"a cross-signature that is not ours": {crossKey: stranger.Certificate},
	} {
		t.Run(name, func(t *testing.T) {
			c, opts := newClient(t), options()
			ensure(t, c, opts, start())
			ca := secret(t, c, "pillion-ca")
			for key, value := range damage {
				ca.Data[key] = value
			}
			if err := c.Update(t.Context(), ca); err != nil {
				t.Fatal(err)
			}
			result := ensure(t, c, opts, start().Add(time.Minute))
			if err := Verify(pairOf(secret(t, c, "pillion-webhook-tls")), result.CABundle, opts.Names, start().Add(time.Minute)); err != nil {
				t.Error(err)
			}
			if strings.Contains(string(result.CABundle), string(stranger.Certificate)) {
				t.Error("a CA for other names is trusted")
			}
			if !slices.Contains(Phases(), result.Phase) {
				t.Errorf("phase %q", result.Phase)
			}
		})
	}
}
