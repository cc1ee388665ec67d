package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// issuedBy is what an authority issued, as its Secret holds it.
func issuedBy(t *testing.T, a *authority, from time.Time) *External {
	t.Helper()
	return &External{Pair: a.issue(t, options().Names, from, from.Add(10*day)), CA: a.Certificate}
}

// withExternal are options by which somebody else issues certificates.
func withExternal(external **External) Options {
	o := options()
	o.Settle = time.Minute
	o.External = func(context.Context) (*External, error) { return *external, nil }
	return o
}

func TestWhatIsIssuedIsCheckedBeforeItIsTaken(t *testing.T) {
	names, now := options().Names, start()
	root := newAuthority(t, "Root", nil, now.Add(-day), now.Add(90*day))
	old := newAuthority(t, "Old root", nil, now.Add(-90*day), now.Add(-day))
	intermediate := newAuthority(t, "Intermediate", root, now.Add(-day), now.Add(60*day))
	stranger := newAuthority(t, "Stranger", nil, now.Add(-day), now.Add(90*day))
	good := issuedBy(t, root, now.Add(-time.Hour))
	below := intermediate.issue(t, names, now.Add(-time.Hour), now.Add(day))
	chained := Pair{Certificate: joinPEM(below.Certificate, intermediate.Certificate), Key: below.Key}
	self := newIssued(t, &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(day), DNSNames: names}, nil)
	tests := map[string]struct {
		external *External
		// anchor is the CA that is to be trusted, fault what is in the message otherwise.
		anchor []byte
		fault  string
	}{
		"signed by a root":         {external: good, anchor: root.Certificate},
		"signed by a chain of CAs": {external: &External{Pair: chained, CA: root.Certificate}, anchor: root.Certificate},
		"with several CAs, of which one signed it": {
			external: &External{Pair: good.Pair, CA: joinPEM(old.Certificate, stranger.Certificate, root.Certificate)}, anchor: root.Certificate,
		},
		"without a CA, but with an intermediate": {external: &External{Pair: chained}, anchor: intermediate.Certificate},
		"without a CA":                           {external: &External{Pair: good.Pair}, fault: "does not say which CA signed it"},
		"signed by itself":                       {external: &External{Pair: self, CA: self.Certificate}, fault: "not the certificate of a CA"},
		"without a key":                          {external: &External{Pair: Pair{Certificate: good.Pair.Certificate}, CA: good.CA}, fault: "key is empty"},
		"with the key of another": {
			external: &External{Pair: Pair{Certificate: good.Pair.Certificate, Key: below.Key}, CA: good.CA}, fault: "do not belong together",
		},
		"for another name": {
			external: &External{Pair: root.issue(t, []string{"x.y.svc"}, now, now.Add(day)), CA: root.Certificate}, fault: "is not for",
		},
		"expired": {external: &External{Pair: root.issue(t, names, now.Add(-day), now.Add(-time.Hour)), CA: root.Certificate}, fault: "expired at"},
		"of a CA that has expired": {
			external: &External{Pair: old.issue(t, names, now.Add(-day), now.Add(day)), CA: old.Certificate}, fault: "its CA: the certificate expired",
		},
		"of another CA than it says":   {external: &External{Pair: good.Pair, CA: stranger.Certificate}, fault: "not signed by the CA bundle"},
		"a CA without the one between": {external: &External{Pair: below, CA: root.Certificate}, fault: "not signed by the CA bundle"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := outsideOf(test.external, names, now)
			if got.ready() != (test.fault == "") || !strings.Contains(got.fault, test.fault) {
				t.Fatalf("ready: %v, fault: %s", got.ready(), got.fault)
			}
			if !bytes.Equal(got.anchor, test.anchor) {
				t.Errorf("trusted is\n%s, not\n%s", got.anchor, test.anchor)
			}
		})
	}
	if outsideOf(nil, names, now).fault != "" {
		t.Error("that nothing was issued yet is a fault")
	}
}

// Who issues certificates changes in the phases in which a CA follows another, and back.
func TestAnotherIssuerTakesOverInPhases(t *testing.T) {
	c, now := newClient(t), start()
	root := newAuthority(t, "Root", nil, now.Add(-day), now.Add(90*day))
	external := issuedBy(t, root, now.Add(-time.Hour))
	outside, ours := withExternal(&external), options()
	ours.Settle = outside.Settle
	first := ensure(t, c, ours, now)
	steps := []struct {
		name    string
		options Options
		after   time.Duration
		phase   Phase
		copied  bool
		trusted int
	}{
		{name: "it is published", options: outside, phase: PhaseSettle, trusted: 2},
		{name: "nothing else is done before it has settled", options: outside, after: 50 * time.Second, phase: PhaseSettle, trusted: 2},
		{name: "it is withdrawn where the mode is changed again", options: ours, after: 5 * time.Second, phase: PhaseStable, trusted: 1},
		{name: "it is published again", options: outside, phase: PhaseSettle, trusted: 2},
		{name: "it is served", options: outside, after: time.Minute, phase: PhaseRetire, copied: true, trusted: 2},
		{name: "until what ours signed has expired ours is trusted", options: outside, after: 8 * day, phase: PhaseStable, copied: true, trusted: 1},
		{name: "ours is published", options: ours, phase: PhaseSettle, copied: true, trusted: 2},
		{name: "ours signs", options: ours, after: time.Minute, phase: PhaseRetire, trusted: 2},
	}
	for _, step := range steps {
		now = now.Add(step.after)
		result := ensure(t, c, step.options, now)
		again := ensure(t, c, step.options, now)
		if len(again.Changes) > 0 {
			t.Fatalf("%s: it is not settled: %v", step.name, again.Changes)
		}
		serving := secret(t, c, "pillion-webhook-tls")
		copied := bytes.Equal(serving.Data[PrivateKeyKey], external.Pair.Key)
		if result.Phase != step.phase || copied != step.copied || len(blocksOf(result.CABundle)) != step.trusted {
			t.Fatalf("%s: phase %s, copied: %v, %d CAs trusted; %v", step.name, result.Phase, copied, len(blocksOf(result.CABundle)), result.Changes)
		}
		if !bytes.Equal(serving.Data[CABundleKey], result.CABundle) {
			t.Errorf("%s: ca.crt is not what is to be trusted", step.name)
		}
		pair, err := parse(pairOf(serving))
		if err != nil {
			t.Fatal(err)
		}
		// API servers may lag: what takes over from ours verifies by ours, too, as long as that is there.
		if lags := signedBy(pair, first.CABundle, now); step.phase == PhaseRetire && step.copied && !lags {
			t.Errorf("%s: it does not verify by the CA of before", step.name)
		}
	}
}

func TestARenewedCertificateOfTheSameCAIsServedAtOnce(t *testing.T) {
	c, now := newClient(t), start()
	root := newAuthority(t, "Root", nil, now.Add(-day), now.Add(90*day))
	external := issuedBy(t, root, now.Add(-time.Hour))
	o := withExternal(&external)
	if result := ensure(t, c, o, now); result.Phase != PhaseStable || !result.Outside {
		t.Fatalf("%+v", result)
	}
	until := decodeRotation(secret(t, c, "pillion-ca").Data).SignedUntil
	external = &External{Pair: root.issue(t, o.Names, now, now.Add(12*day)), CA: root.Certificate}
	ensure(t, c, o, now.Add(time.Minute))
	if got := pairOf(secret(t, c, "pillion-webhook-tls")); !bytes.Equal(got.Key, external.Pair.Key) {
		t.Error("it is not served")
	}
	if later := decodeRotation(secret(t, c, "pillion-ca").Data).SignedUntil; !later.After(until) {
		t.Errorf("the CA is to be trusted until %s, not until what it signed has expired", later)
	}
}

// What cannot be served changes nothing, and is told.
func TestTheLastGoodCertificateStays(t *testing.T) {
	now := start()
	root, other := newAuthority(t, "Root", nil, now.Add(-day), now.Add(90*day)), newAuthority(t, "Other", nil, now.Add(-day), now.Add(90*day))
	for name, then := range map[string]*External{
		"nothing is issued any more": nil,
		"the key is another's": {
			Pair: Pair{Certificate: issuedBy(t, root, now).Pair.Certificate, Key: issuedBy(t, root, now).Pair.Key}, CA: root.Certificate,
		},
		"the CA is not the one that signed it": {Pair: issuedBy(t, root, now).Pair, CA: other.Certificate},
	} {
		t.Run(name, func(t *testing.T) {
			c, external := newClient(t), issuedBy(t, root, now.Add(-time.Hour))
			o := withExternal(&external)
			ensure(t, c, o, now)
			before := secret(t, c, "pillion-webhook-tls")
			external = then
			result := ensure(t, c, o, now.Add(time.Hour))
			if len(result.Changes) > 0 || (result.Fault == "") != (then == nil) {
				t.Errorf("%+v", result)
			}
			if after := secret(t, c, "pillion-webhook-tls"); after.ResourceVersion != before.ResourceVersion {
				t.Error("the Secret was written")
			}
		})
	}
}

func TestWhereNothingIsIssuedYet(t *testing.T) {
	t.Run("nothing is made", func(t *testing.T) {
		var external *External
		c := newClient(t)
		result := ensure(t, c, withExternal(&external), start())
		if len(result.CABundle) > 0 || len(result.Changes) > 0 {
			t.Errorf("%+v", result)
		}
		secrets := &corev1.SecretList{}
		if err := c.List(t.Context(), secrets, client.InNamespace("pillion-system")); err != nil || len(secrets.Items) > 0 {
			t.Errorf("%d Secrets (%v)", len(secrets.Items), err)
		}
	})
	t.Run("ours serves until it is, if that is wanted", func(t *testing.T) {
		var external *External
		c, o := newClient(t), withExternal(&external)
		o.Bootstrap = true
		if result := ensure(t, c, o, start()); result.Phase != PhaseStable || len(result.CABundle) == 0 || result.Outside {
			t.Errorf("%+v", result)
		}
	})
	t.Run("ours is renewed as long as it serves", func(t *testing.T) {
		var external *External
		c := newClient(t)
		ensure(t, c, options(), start())
		result := ensure(t, c, withExternal(&external), start().Add(DefaultLeafLifetime*9/10))
		if !slices.ContainsFunc(result.Changes, func(change Change) bool { return change.Reason == ReasonCertificateIssued }) {
			t.Errorf("%v", result.Changes)
		}
	})
}

func TestLostSecretsOfAnotherIssuersCertificateHeal(t *testing.T) {
	now := start()
	root := newAuthority(t, "Root", nil, now.Add(-day), now.Add(90*day))
	for _, name := range []string{"pillion-ca", "pillion-webhook-tls"} {
		t.Run(name, func(t *testing.T) {
			c, external := newClient(t), issuedBy(t, root, now.Add(-time.Hour))
			o := withExternal(&external)
			ensure(t, c, o, now)
			if err := c.Delete(t.Context(), secret(t, c, name)); err != nil {
				t.Fatal(err)
			}
			result := ensure(t, c, o, now.Add(time.Minute))
			serving := secret(t, c, "pillion-webhook-tls")
			if err := Verify(pairOf(serving), root.Certificate, o.Names, now.Add(time.Minute)); err != nil {
				t.Error(err)
			}
			if !strings.Contains(string(result.CABundle), string(root.Certificate)) || len(ensure(t, c, o, now.Add(time.Minute)).Changes) > 0 {
				t.Errorf("%+v", result)
			}
		})
	}
}

func TestAnnotationsOfTheServingSecretAreKept(t *testing.T) {
	c, o := newClient(t), options()
	for _, value := range []string{"true", ""} {
		o.Annotations = map[string]string{"example.com/a": value}
		ensure(t, c, o, start())
		if got := secret(t, c, "pillion-webhook-tls").Annotations["example.com/a"]; got != value {
			t.Errorf("%q, not %q", got, value)
		}
		if result := ensure(t, c, o, start()); len(result.Changes) > 0 {
			t.Errorf("%v", result.Changes)
		}
	}
}
