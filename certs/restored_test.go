package certs

import (
	"bytes"
	"context"
	"testing"
	"time"
)

// A Secret that comes from a backup must not have its CA sign before API servers trust it.
func TestARestoredCAIsTrustedBeforeItSigns(t *testing.T) {
	for name, test := range map[string]struct {
		held   func(trusted []byte) []byte // what caBundles hold
		signed bool                        // at once
	}{
		"where API servers trust the one that signed": {held: func(trusted []byte) []byte { return trusted }},
		"but at once where they do not":               {held: func([]byte) []byte { return nil }, signed: true},
	} {
		t.Run(name, func(t *testing.T) {
			c, o, now := newClient(t), options(), start()
			old := ensure(t, c, o, now)
			ca, served := secret(t, c, o.CASecret), pairOf(secret(t, c, o.CertificateSecret))
			held := test.held(old.CABundle)
			o.Trusted = func(context.Context) ([]byte, error) { return held, nil }
			o.Holds = func(_ context.Context, bundle []byte) (bool, error) { return bytes.Equal(held, bundle), nil }
			backup := newCA(t, o.Names, now)
			ca.Data[CertificateKey], ca.Data[PrivateKeyKey] = backup.Certificate, backup.Key
			if err := c.Update(t.Context(), ca); err != nil {
				t.Fatal(err)
			}

			result := ensure(t, c, o, now)
			is := pairOf(secret(t, c, o.CertificateSecret))
			if test.signed {
				if err := Verify(is, backup.Certificate, o.Names, now); err != nil {
					t.Error(err)
				}
				return
			}
			if result.Phase != PhasePublish || !bytes.Equal(is.Certificate, served.Certificate) {
				t.Fatalf("phase %s, and the serving certificate is another: %v", result.Phase, !bytes.Equal(is.Certificate, served.Certificate))
			}
			for what, bundle := range map[string][]byte{"the CA that signed": old.CABundle, "the CA in the Secret": backup.Certificate} {
				if !bytes.Contains(result.CABundle, bytes.TrimSpace(bundle)) {
					t.Errorf("%s is not trusted", what)
				}
			}
			held = result.CABundle
			if result = ensure(t, c, o, now.Add(time.Second)); result.Phase != PhaseSettle {
				t.Fatalf("phase %s", result.Phase)
			}
			result = ensure(t, c, o, now.Add(time.Second+DefaultSettle))
			if err := Verify(pairOf(secret(t, c, o.CertificateSecret)), backup.Certificate, o.Names, now.Add(DefaultSettle)); err != nil {
				t.Errorf("phase %s: %v", result.Phase, err)
			}
		})
	}
}
