package certs

import (
	"fmt"
	"time"
)

// Reason says in a word what Ensure did. The words are fixed: people and programs look for them.
type Reason string

// The reasons.
const (
	// ReasonCACreated: there was no CA, and nothing that clients trusted. The new one signs.
	ReasonCACreated Reason = "CACreated"
	// ReasonCAPublished: the next CA is made, to be trusted beside the one that signs.
	ReasonCAPublished Reason = "CAPublished"
	// ReasonCASettling: every caBundle holds the next CA, and API servers are given time to see it.
	ReasonCASettling Reason = "CASettling"
	// ReasonCAActivated: the next CA signs.
	ReasonCAActivated Reason = "CAActivated"
	// ReasonCAWithdrawn: the CA that was to take over is not to any more. It has signed nothing that was served.
	ReasonCAWithdrawn Reason = "CAWithdrawn"
	// ReasonCARetiring: what is served is signed by the new CA. The old one stays trusted until what it signed has expired.
	ReasonCARetiring Reason = "CARetiring"
	// ReasonCARetired: the old CA is trusted no longer.
	ReasonCARetired Reason = "CARetired"
	// ReasonCertificateIssued: the serving certificate is made anew because it was time, or there never was one.
	ReasonCertificateIssued Reason = "CertificateIssued"
	// ReasonBundleUpdated: what is to be trusted was written beside the serving certificate, for the CAs are others.
	ReasonBundleUpdated Reason = "BundleUpdated"

	// ReasonCAUnsettled: a caBundle lost the next CA before it could sign.
	ReasonCAUnsettled Reason = "CAUnsettled"
	// ReasonCALost: the CA cannot sign any more while what it signed still serves. The one to follow it is published first.
	ReasonCALost Reason = "CALost"
	// ReasonCAReplacedAtOnce: the CA cannot sign any more and nothing good is served. A new one signs before API servers had time to
	// see it.
	ReasonCAReplacedAtOnce Reason = "CAReplacedAtOnce"
	// ReasonCertificateReplaced: the serving certificate is made anew before it was time, for it was lost or could not serve.
	ReasonCertificateReplaced Reason = "CertificateReplaced"
	// ReasonBundleRestored: what is to be trusted was written beside the serving certificate again, for somebody changed it.
	ReasonBundleRestored Reason = "BundleRestored"
	// ReasonIssuedUnusable: what cert-manager issued cannot be served, or nothing is issued or renewed. What serves goes on serving.
	ReasonIssuedUnusable Reason = "IssuedCertificateUnusable"
	// ReasonInjectionPending: cert-manager has not injected the CAs where they have to be trusted for long.
	ReasonInjectionPending Reason = "InjectionPending"
	// ReasonIssuerGivenUp: cert-manager is there but does not work, and the built-in CA takes over.
	ReasonIssuerGivenUp Reason = "IssuerGivenUp"
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{
		ReasonCACreated, ReasonCAPublished, ReasonCASettling, ReasonCAActivated, ReasonCAWithdrawn, ReasonCARetiring,
		ReasonCARetired,
		ReasonCertificateIssued, ReasonBundleUpdated,
		ReasonCAUnsettled, ReasonCALost, ReasonCAReplacedAtOnce, ReasonCertificateReplaced, ReasonBundleRestored,
		ReasonIssuedUnusable, ReasonInjectionPending, ReasonIssuerGivenUp,
	}
}

// IsDisorder tells whether it happened because something was lost, broken or changed by somebody else.
func (r Reason) IsDisorder() bool {
	switch r {
	case ReasonCAUnsettled, ReasonCALost, ReasonCAReplacedAtOnce, ReasonCertificateReplaced, ReasonBundleRestored,
		ReasonIssuedUnusable, ReasonInjectionPending, ReasonIssuerGivenUp:
		return true
	default:
		return false
	}
}

// BeginsPhase tells whether it is a step of the rotation, after which another phase is written down.
func (r Reason) BeginsPhase() bool {
	switch r {
	case ReasonCACreated, ReasonCAPublished, ReasonCASettling, ReasonCAActivated, ReasonCARetiring, ReasonCARetired,
		ReasonCAUnsettled, ReasonCALost, ReasonCAReplacedAtOnce, ReasonCAWithdrawn:
		return true
	default:
		return false
	}
}

// Change is one thing that Ensure did, and wrote down.
type Change struct {
	// Phase is that of the rotation afterwards, and Since when that began.
	Phase  Phase
	Since  time.Time
	Reason Reason
	// Message says in a sentence what was done, and why. It holds no secret.
	Message string
}

// String is for logs.
func (c Change) String() string { return fmt.Sprintf("%s: %s: %s", c.Phase, c.Reason, c.Message) }
