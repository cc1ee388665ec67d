package controller

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/profiles"
)

// configurationKind is what the two kinds of webhook configurations, whose entries are E, differ by.
type configurationKind[E any] struct {
	kind     string
	empty    func() client.Object
	webhooks func(client.Object) *[]E
	compile  func(*profiles.Plan, target, []string) []E
	nameOf   func(*E) string
}

func mutatingKind() configurationKind[admissionregistrationv1.MutatingWebhook] {
	return configurationKind[admissionregistrationv1.MutatingWebhook]{
		kind:  "MutatingWebhookConfiguration",
		empty: func() client.Object { return &admissionregistrationv1.MutatingWebhookConfiguration{} },
		webhooks: func(o client.Object) *[]admissionregistrationv1.MutatingWebhook {
			return &o.(*admissionregistrationv1.MutatingWebhookConfiguration).Webhooks //nolint:forcetypeassert // it is from empty
		},
		compile: compileWebhooks,
		nameOf:  func(webhook *admissionregistrationv1.MutatingWebhook) string { return webhook.Name },
	}
}

func validatingKind() configurationKind[admissionregistrationv1.ValidatingWebhook] {
	return configurationKind[admissionregistrationv1.ValidatingWebhook]{
		kind:  "ValidatingWebhookConfiguration",
		empty: func() client.Object { return &admissionregistrationv1.ValidatingWebhookConfiguration{} },
		webhooks: func(o client.Object) *[]admissionregistrationv1.ValidatingWebhook {
			return &o.(*admissionregistrationv1.ValidatingWebhookConfiguration).Webhooks //nolint:forcetypeassert // it is from empty
		},
		compile: compileValidations,
		nameOf:  func(webhook *admissionregistrationv1.ValidatingWebhook) string { return webhook.Name },
	}
}

// configurationReconciler fills a webhook configuration. The object belongs to the installation: it is never made or deleted
// here, and nothing in it but the entries is changed.
type configurationReconciler[E any] struct {
	client  client.Client
	desired *desired
	kind    configurationKind[E]
}

// Reconcile makes the entries what the profiles and the CA ask for, whoever changed them.
func (r *configurationReconciler[E]) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	configuration, err := standing(ctx, r.desired, r.kind)
	if err != nil {
		return reconcile.Result{}, err
	}
	if configuration == nil {
		log.FromContext(ctx).Info("A webhook configuration does not exist: nothing is sent to the webhook by it until it is installed",
			"kind", r.kind.kind, "name", r.desired.name)
		return reconcile.Result{}, nil // its creation is an event
	}
	snapshot := r.desired.catalog.current()
	if snapshot == nil {
		return reconcile.Result{}, nil // the first one is an event
	}
	want, have := wanted(r.desired, r.kind, snapshot.Plan()), r.kind.webhooks(configuration)
	if want == nil || equality.Semantic.DeepEqual(*have, want) {
		return reconcile.Result{}, nil // the first CA bundle is an event
	}
	*have = want
	if err := r.client.Update(ctx, configuration); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: retryConflict}, nil
		}
		return reconcile.Result{}, fmt.Errorf("update %s %s: %w", r.kind.kind, r.desired.name, withoutValues(err))
	}
	log.FromContext(ctx).Info("Updated a webhook configuration", "kind", r.kind.kind, "name", r.desired.name, "entries", len(want))
	return reconcile.Result{}, nil
}
