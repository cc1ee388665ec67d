package controller

import (
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

// checkCertificates is how often certificates are looked at if nothing happens, so that it can be told that they are in order.
const checkCertificates = 10 * time.Minute

// certificateReconciler keeps the CA and the serving certificate.
type certificateReconciler struct {
	// client reads Secrets from the API server.
	client  client.Client
	options certs.Options
	bundle  *bundle
	// certManager has cert-manager issue the certificate where that is wanted; nil: nobody does.
	certManager *certManager
	// alarm rings when something is due by the wall clock. metrics and teller tell what was done; nil: they do not.
	alarm   *alarm
	metrics *certificateMetrics
	teller  *certificateTeller
	now     func() time.Time
}

// Reconcile makes or renews what is due, and hands on the CA bundle.
func (r *certificateReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	options, known := r.certManager.prepare(r.options)
	if !known {
		return reconcile.Result{}, nil // it is told
	}
	result, err := certs.Ensure(ctx, r.client, options, r.now())
	if err != nil {
		r.tell(ctx, &result)
	}
	if certs.Raced(err) {
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	result.Changes = append(result.Changes, r.certManager.troubles(ctx, result, options.Holds)...)
	r.tell(ctx, &result)
	r.bundle.set(trust{result.CABundle, r.certManager.injects(result)})
	r.alarm.set(r.due(result.RenewAt))
	if r.metrics != nil {
		r.metrics.observe(&result, r.now())
	}
	return reconcile.Result{}, nil
}

// tell tells what was done.
func (r *certificateReconciler) tell(ctx context.Context, result *certs.Result) {
	for _, change := range result.Changes {
		log.FromContext(ctx).Info("Changed the serving certificate's Secrets",
			"phase", change.Phase, "reason", change.Reason, "change", change.Message)
	}
	if r.metrics != nil {
		r.metrics.count(result.Changes)
	}
	if r.teller != nil {
		r.teller.tell(result)
	}
}

// due is when the certificates are to be looked at again: when something is due, but neither at once nor much later than now.
func (r *certificateReconciler) due(renewal time.Time) time.Time {
	now := r.now().Round(0)
	due := now.Add(checkCertificates)
	if !renewal.IsZero() && renewal.Before(due) {
		due = renewal
	}
	if soon := now.Add(leastPause); due.Before(soon) {
		return soon
	}
	return due
}

// leastPause is between one look at the certificates and the next that is due by time.
const leastPause = 100 * time.Millisecond

// allHold tells whether every entry of both webhook configurations holds a bundle, as holds tells of one. It is read from the API
// server: what API servers are about to see is not what a cache has seen.
func allHold(ctx context.Context, reader client.Reader, name string, bundle []byte, holds func(has, bundle []byte) bool) (bool, error) {
	held, err := caBundles(ctx, reader, name)
	return err == nil && !slices.ContainsFunc(held, func(has []byte) bool { return !holds(has, bundle) }), err
}

// allFilled tells whether every entry of both webhook configurations holds a bundle, and each configuration has one.
func allFilled(ctx context.Context, reader client.Reader, name string) (bool, error) {
	mutating, validating, err := readConfigurations(ctx, reader, name)
	if err != nil {
		return false, err
	}
	filled := (mutating.UID == "" || len(mutating.Webhooks) > 0) && (validating.UID == "" || len(validating.Webhooks) > 0)
	return filled && !slices.ContainsFunc(bundlesOf(mutating, validating), func(has []byte) bool { return len(has) == 0 }), nil
}

// caBundles returns those of the entries of both webhook configurations.
func caBundles(ctx context.Context, reader client.Reader, name string) ([][]byte, error) {
	mutating, validating, err := readConfigurations(ctx, reader, name)
	if err != nil {
		return nil, err
	}
	return bundlesOf(mutating, validating), nil
}

func bundlesOf(
	mutating *admissionregistrationv1.MutatingWebhookConfiguration, validating *admissionregistrationv1.ValidatingWebhookConfiguration,
) [][]byte {
	var held [][]byte
	for i := range mutating.Webhooks {
		held = append(held, mutating.Webhooks[i].ClientConfig.CABundle)
	}
	for i := range validating.Webhooks {
		held = append(held, validating.Webhooks[i].ClientConfig.CABundle)
	}
	return held
}

// readConfigurations returns both webhook configurations, one that does not exist without UID.
func readConfigurations(ctx context.Context, reader client.Reader, name string) (
	*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	for _, configuration := range []client.Object{mutating, validating} {
		err := reader.Get(ctx, types.NamespacedName{Name: name}, configuration)
		if client.IgnoreNotFound(err) != nil {
			return nil, nil, fmt.Errorf("read webhook configuration %s: %w", name, err)
		}
	}
	return mutating, validating, nil
}
