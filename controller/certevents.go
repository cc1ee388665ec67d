package controller

import (
	"context"
	"encoding/hex"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/certs"
)

// maxWaitingChanges is how many changes of certificates may wait to be told.
const maxWaitingChanges = 100

// certificateTeller tells by Events on the serving certificate's Secret what is done to the certificates. Nothing waits for it.
type certificateTeller struct {
	announcer *announcer
	// namespace and secret are those of the serving certificate.
	namespace, secret string
	now               func() time.Time
	waiting           chan announcement
	// isTold says that the phase was told as it stood when this controller came.
	isTold bool
}

func newCertificateTeller(announcer *announcer, namespace, secret string, now func() time.Time) *certificateTeller {
	return &certificateTeller{
		announcer: announcer, namespace: namespace, secret: secret, now: now, waiting: make(chan announcement, maxWaitingChanges),
	}
}

// Start writes the Events until the context ends. It runs where the controller leads.
func (t *certificateTeller) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case what := <-t.waiting:
			t.announcer.announce(ctx, what)
		}
	}
}

// tell tells what was done. The first time it tells of the phase as well if that is new: a controller that wrote it may have ended before
// it told. The Event has the same name then, so that there is one.
func (t *certificateTeller) tell(result *certs.Result) {
	changes := result.Changes
	if !t.isTold && result.Reason != "" {
		t.isTold = true
		if len(changes) == 0 && t.now().Sub(result.Since) < eventLife {
			changes = []certs.Change{{Phase: result.Phase, Since: result.Since, Reason: result.Reason, Message: result.Message}}
		}
	}
	for _, change := range changes {
		if change.Reason == certs.ReasonBundleUpdated { // it follows from what is told already
			continue
		}
		select {
		case t.waiting <- t.announcement(result, change):
		default:
			t.announcer.logger.Info("An Event was not written: there were too many", "reason", change.Reason)
		}
	}
}

func (t *certificateTeller) announcement(result *certs.Result, change certs.Change) announcement {
	kind, at := corev1.EventTypeNormal, t.now()
	if change.Reason.IsDisorder() {
		kind = corev1.EventTypeWarning
	}
	if change.Reason.BeginsPhase() {
		at = change.Since
	}
	hash := hashOf(string(result.Secret), string(change.Reason), at.UTC().Format(time.RFC3339Nano))
	return announcement{
		regarding: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Secret", Namespace: t.namespace, Name: t.secret, UID: result.Secret,
		},
		name: t.secret + "." + hex.EncodeToString(hash[:8]),
		kind: kind, reason: string(change.Reason), action: "RotateCertificates",
		note: string(change.Phase) + ": " + change.Message,
	}
}
