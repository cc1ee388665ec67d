package controller

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/certs"
)

// checkCertificates is how often certificates are looked at if nothing happens. A timer does not see that the wall clock was
// set or that the machine slept.
const checkCertificates = 10 * time.Minute

// certificateReconciler keeps the CA and the serving certificate.
type certificateReconciler struct {
	// client reads Secrets from the API server.
	client  client.Client
	options certs.Options
	bundle  *bundle
	now     func() time.Time
}

// Reconcile makes or renews what is due, and hands on the CA bundle.
func (r *certificateReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	result, err := certs.Ensure(ctx, r.client, r.options, r.now())
	if certs.Raced(err) {
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	for _, change := range result.Changes {
		log.FromContext(ctx).Info("Changed the serving certificate's Secrets", "change", change)
	}
	r.bundle.set(result.CABundle)
	return reconcile.Result{RequeueAfter: min(max(result.RenewAt.Sub(r.now()), time.Second), checkCertificates)}, nil
}

// allHold tells whether every entry of both webhook configurations holds exactly a bundle. It is read from the API server: what API
// servers are about to see is not what a cache has seen.
func allHold(ctx context.Context, reader client.Reader, name string, bundle []byte) (bool, error) {
	var held [][]byte
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	for _, configuration := range []client.Object{mutating, validating} {
		err := reader.Get(ctx, types.NamespacedName{Name: name}, configuration)
		if client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("read webhook configuration %s: %w", name, err)
		}
	}
	for i := range mutating.Webhooks {
		held = append(held, mutating.Webhooks[i].ClientConfig.CABundle)
	}
	for i := range validating.Webhooks {
		held = append(held, validating.Webhooks[i].ClientConfig.CABundle)
	}
	return !slices.ContainsFunc(held, func(has []byte) bool { return !bytes.Equal(has, bundle) }), nil
}
