package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
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
	// clientConfig is how the webhook of an entry is called, pending the entry for nothing.
	clientConfig func(*E) *admissionregistrationv1.WebhookClientConfig
	pending      func(target) E
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
		clientConfig: func(webhook *admissionregistrationv1.MutatingWebhook) *admissionregistrationv1.WebhookClientConfig {
			return &webhook.ClientConfig
		},
		pending: pendingWebhook,
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
		clientConfig: func(webhook *admissionregistrationv1.ValidatingWebhook) *admissionregistrationv1.WebhookClientConfig {
			return &webhook.ClientConfig
		},
		pending: pendingValidation,
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
	have := r.kind.webhooks(configuration)
	want := wanted(r.desired, r.kind, snapshot.Plan(), *have)
	if want == nil {
		return reconcile.Result{}, nil // the first CA bundle is an event
	}
	if want, err = withoutUnwoven(ctx, r.desired, r.kind, want, *have); err != nil {
		return reconcile.Result{}, err
	}
	if asked := setInjection(configuration, r.desired.injectFrom()); !asked && equality.Semantic.DeepEqual(*have, want) {
		return reconcile.Result{}, nil
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

// withoutUnwoven leaves out new entries that check what no entry weaves yet: until that stands they would refuse every Pod. Whether the
// other configuration exists at all is another question, to which checking what there is stays the safe answer.
func withoutUnwoven[E any](ctx context.Context, d *desired, kind configurationKind[E], want, have []E) ([]E, error) {
	named := func(name string) func(E) bool { return func(webhook E) bool { return kind.nameOf(&webhook) == name } }
	isNew := func(webhook E) bool {
		return strings.HasPrefix(kind.nameOf(&webhook), verifyPrefix) && !slices.ContainsFunc(have, named(kind.nameOf(&webhook)))
	}
	if !slices.ContainsFunc(want, isNew) {
		return want, nil
	}
	weaving, err := standing(ctx, d, mutatingKind())
	if err != nil || weaving == nil {
		return want, err
	}
	woven := sets.New[string]()
	for _, webhook := range *mutatingKind().webhooks(weaving) {
		woven.Insert(webhook.Name)
	}
	return slices.DeleteFunc(want, func(webhook E) bool {
		return isNew(webhook) && !woven.Has(matchPrefix+strings.TrimPrefix(kind.nameOf(&webhook), verifyPrefix))
	}), nil
}
