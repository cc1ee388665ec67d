package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pillion-dev/pillion/certs"
)

// How long cert-manager may take to issue, and to inject what has to be trusted, before it is told of; and the part of a certificate's life
// at whose end it is given up on: it renews at the last third.
const (
	certManagerPatience = 10 * time.Minute
	lastPart            = 6
)

// health is what is known of how well cert-manager works. Only who keeps the certificates uses it.
type health struct {
	// missing is since when nothing was issued, bare since when a caBundle lacks what is to be trusted.
	missing, bare since
	// issued is the version of what was issued.
	issued string
	// last is the trouble that was told last.
	last string
}

// since is when something began; zero: it is not so.
type since time.Time

// is begins it, or ends it.
func (s *since) is(so bool, now time.Time) {
	switch {
	case !so:
		*s = since{}
	case time.Time(*s).IsZero(), now.Before(time.Time(*s)):
		*s = since(now)
	}
}

// lasts tells whether it has been so for longer than cert-manager may take.
func (s since) lasts(now time.Time) bool {
	return !time.Time(s).IsZero() && now.Sub(time.Time(s)) >= certManagerPatience
}

// troubles returns what is wrong with what cert-manager does, once each. Holds is that of certs.Options.
func (m *certManager) troubles(
	ctx context.Context, result certs.Result, holds func(ctx context.Context, bundle []byte) (bool, error),
) []certs.Change {
	if m == nil {
		return nil
	}
	bare := false
	if m.injects(result) && len(result.CABundle) > 0 && holds != nil {
		held, err := holds(ctx, result.CABundle)
		bare = !held && err == nil
	}
	m.health.bare.is(bare, m.now())
	reason, message := m.trouble(result)
	about := message
	if reason == certs.ReasonIssuedUnusable && result.Fault != "" {
		about = m.health.issued // what is wrong with it may say what time it is
	}
	if about = string(reason) + about; about == m.health.last {
		return nil
	}
	if m.health.last = about; reason == "" {
		return nil
	}
	return []certs.Change{{Phase: result.Phase, Since: result.Since, Reason: reason, Message: message}}
}

func (m *certManager) trouble(result certs.Result) (certs.Reason, string) {
	active, _ := m.issues()
	now := m.now()
	waits := m.injects(result) && (m.health.bare.lasts(now) || result.Phase == certs.PhasePublish && since(result.Since).lasts(now))
	ends := result.Outside && m.endsSoon(result.Certificates)
	switch {
	case !active:
		m.health.missing = since{}
		return "", ""
	case m.mode == CertificatesAuto && (waits || ends):
		m.giveUp()
		what := "inject the CAs"
		if !waits {
			what = "renew the certificate in time"
		}
		return certs.ReasonIssuerGivenUp, "cert-manager is there but does not " + what + ": the built-in CA takes over until the controller " +
			"starts anew. Set certs.mode to builtin if it is to stay"
	case result.Fault != "":
		return certs.ReasonIssuedUnusable, fmt.Sprintf("what cert-manager issued into Secret %s/%s is not served: %s", m.namespace,
			CertManagerSecret, result.Fault)
	case m.health.missing.lasts(now):
		return certs.ReasonIssuedUnusable, m.late(fmt.Sprintf("cert-manager has issued nothing into Secret %s/%s for %s", m.namespace,
			CertManagerSecret, certManagerPatience))
	case ends:
		return certs.ReasonIssuedUnusable, m.late(fmt.Sprintf("cert-manager has not renewed what it issued into Secret %s/%s, and it is about to "+
			"expire", m.namespace, CertManagerSecret))
	case waits:
		return certs.ReasonInjectionPending, "cert-manager's cainjector has not written the CAs into the webhook configurations for " +
			certManagerPatience.String() + ": what serves goes on serving until it expires. See whether the cainjector runs"
	}
	return "", ""
}

// late says of what is not issued why, as far as it is known, and where to look.
func (m *certManager) late(what string) string {
	if told := m.told.Load(); told != nil {
		return what + ": " + *told
	}
	return fmt.Sprintf("%s: see kubectl -n %s describe certificate %s, and whether certs.issuer is right and cert-manager's controller runs",
		what, m.namespace, certManagerCertificate)
}

// endsSoon tells whether the serving certificate is about to expire.
func (m *certManager) endsSoon(certificates []certs.Certificate) bool {
	i := slices.IndexFunc(certificates, func(c certs.Certificate) bool { return c.Role == certs.RoleServing })
	if i < 0 {
		return false
	}
	serving := certificates[i].Certificate
	return serving.NotAfter.Sub(m.now()) < serving.NotAfter.Sub(serving.NotBefore)/lastPart
}
