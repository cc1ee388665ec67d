package controller

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// desired knows what the webhook configuration has to be, and what it is.
type desired struct {
	reader client.Reader
	// name is that of the MutatingWebhookConfiguration.
	name     string
	target   target // without the CA bundle
	excluded []string
	bundle   *bundle
}

// plan returns the plan of all profiles, as the cache has them.
func (d *desired) plan(ctx context.Context) (plan, error) {
	// Nothing of the lists is changed or kept.
	shared := client.UnsafeDisableDeepCopy
	cluster := &v1alpha1.ClusterPatternProfileList{}
	if err := d.reader.List(ctx, cluster, shared); err != nil {
		return plan{}, fmt.Errorf("list the ClusterPatternProfiles: %w", err)
	}
	namespaced := &v1alpha1.PatternProfileList{}
	if err := d.reader.List(ctx, namespaced, shared); err != nil {
		return plan{}, fmt.Errorf("list the PatternProfiles: %w", err)
	}
	return planSelections(cluster.Items, namespaced.Items, d.excluded), nil
}

// webhooks returns the entries for a plan; none before the first certificate is there, without which no call could succeed.
func (d *desired) webhooks(p plan) []admissionregistrationv1.MutatingWebhook {
	to := d.target
	if to.caBundle = d.bundle.get(); len(to.caBundle) == 0 {
		return nil
	}
	return compileWebhooks(p, to, d.excluded)
}

// configuration returns the webhook configuration, nil if it does not exist.
func (d *desired) configuration(ctx context.Context) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := d.reader.Get(ctx, types.NamespacedName{Name: d.name}, configuration)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read MutatingWebhookConfiguration %s: %w", d.name, err)
	}
	return configuration, nil
}

// serves tells whether the entry of a selection stands in the configuration as it was read back.
func (d *desired) serves(ctx context.Context, p plan, id string) (verdict, error) {
	configuration, err := d.configuration(ctx)
	if err != nil {
		return verdict{}, err
	}
	if configuration == nil {
		return verdict{reason: ReasonWebhookConfigurationNotFound, message: fmt.Sprintf(
			"MutatingWebhookConfiguration %s does not exist: install it again, empty, and it will be filled.", d.name)}, nil
	}
	name, wanted := matchEntryName(id), d.webhooks(p)
	named := func(webhook admissionregistrationv1.MutatingWebhook) bool { return webhook.Name == name }
	want, have := slices.IndexFunc(wanted, named), slices.IndexFunc(configuration.Webhooks, named)
	if want < 0 || have < 0 || !equality.Semantic.DeepEqual(wanted[want], configuration.Webhooks[have]) {
		return verdict{reason: ReasonWebhookConfigurationPending, message: fmt.Sprintf(
			"Entry %s of MutatingWebhookConfiguration %s, by which the API server sends the Pods that match, is not in place.",
			name, d.name)}, nil
	}
	return ready(), nil
}

// bundle is the CA bundle that certificates are kept under, and tells when it changes.
type bundle struct {
	value   atomic.Pointer[[]byte]
	changed chan event.GenericEvent
}

func newBundle() *bundle { return &bundle{changed: make(chan event.GenericEvent, 1)} }

func (b *bundle) get() []byte {
	if value := b.value.Load(); value != nil {
		return *value
	}
	return nil
}

func (b *bundle) set(value []byte) {
	if old := b.value.Swap(&value); old != nil && bytes.Equal(*old, value) {
		return
	}
	select {
	case b.changed <- event.GenericEvent{Object: &admissionregistrationv1.MutatingWebhookConfiguration{}}:
	default: // it is told already
	}
}
