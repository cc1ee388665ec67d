package controller

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// configurationReconciler fills the webhook configuration. The object belongs to the installation: it is never made or deleted
// here, and nothing in it but the entries is changed.
type configurationReconciler struct {
	client  client.Client
	desired *desired
}

// Reconcile makes the entries what the profiles and the CA ask for, whoever changed them.
func (r *configurationReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	configuration, err := r.desired.configuration(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if configuration == nil {
		log.FromContext(ctx).Info("The webhook configuration does not exist: no Pod is sent to the webhook until it is installed",
			"mutatingWebhookConfiguration", r.desired.name)
		return reconcile.Result{}, nil // its creation is an event
	}
	p, err := r.desired.plan(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	webhooks := r.desired.webhooks(p)
	if webhooks == nil || equality.Semantic.DeepEqual(configuration.Webhooks, webhooks) {
		return reconcile.Result{}, nil // the first CA bundle is an event
	}
	configuration.Webhooks = webhooks
	if err := r.client.Update(ctx, configuration); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: retryConflict}, nil
		}
		return reconcile.Result{}, fmt.Errorf("update MutatingWebhookConfiguration %s: %w", r.desired.name, err)
	}
	log.FromContext(ctx).Info("Updated the webhook configuration",
		"mutatingWebhookConfiguration", r.desired.name, "entries", len(webhooks))
	return reconcile.Result{}, nil
}
