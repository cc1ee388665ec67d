package controller

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/pillion-dev/pillion/profiles"
)

// desired knows what the webhook configurations have to be, and what they are.
type desired struct {
	reader  client.Reader
	catalog *catalog
	// name is that of both configurations.
	name     string
	target   target // without the CA bundle
	excluded []string
	bundle   *bundle
}

// wanted returns the entries for a plan; none before the first certificate is there, without which no call could succeed.
func wanted[E any](d *desired, kind configurationKind[E], p *profiles.Plan) []E {
	to := d.target
	if to.caBundle = d.bundle.get(); len(to.caBundle) == 0 {
		return nil
	}
	return kind.compile(p, to, d.excluded)
}

// standing returns the webhook configuration of a kind as it was read back, nil if it does not exist.
func standing[E any](ctx context.Context, d *desired, kind configurationKind[E]) (client.Object, error) {
	configuration := kind.empty()
	err := d.reader.Get(ctx, types.NamespacedName{Name: d.name}, configuration)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind.kind, d.name, err)
	}
	return configuration, nil
}

// serves tells whether the entries of a selection stand in the configurations.
func (d *desired) serves(ctx context.Context, p *profiles.Plan, selection *profiles.Selection) (verdict, error) {
	serving, err := stands(ctx, d, mutatingKind(), p, matchEntryName(selection.ID()))
	if err != nil || !serving.ok || !selection.Enforce {
		return serving, err
	}
	return stands(ctx, d, validatingKind(), p, verifyEntryName(selection.ID()))
}

// stands tells whether an entry stands in the configuration of a kind.
func stands[E any](ctx context.Context, d *desired, kind configurationKind[E], p *profiles.Plan, name string) (verdict, error) {
	configuration, err := standing(ctx, d, kind)
	if err != nil {
		return verdict{}, err
	}
	if configuration == nil {
		return verdict{reason: ReasonWebhookConfigurationNotFound, message: fmt.Sprintf(
			"%s %s does not exist: install it again, empty, and it will be filled.", kind.kind, d.name)}, nil
	}
	want, have := wanted(d, kind, p), *kind.webhooks(configuration)
	indexIn := func(webhooks []E) int {
		for i := range webhooks {
			if kind.nameOf(&webhooks[i]) == name {
				return i
			}
		}
		return -1
	}
	i, j := indexIn(want), indexIn(have)
	if i < 0 || j < 0 || !equality.Semantic.DeepEqual(want[i], have[j]) {
		return verdict{reason: ReasonWebhookConfigurationPending, message: fmt.Sprintf(
			"Entry %s of %s %s, by which the API server sends the Pods that match, is not in place.", name, kind.kind, d.name)}, nil
	}
	return ready(), nil
}

// bundle is the CA bundle that certificates are kept under, and tells when it changes.
type bundle struct {
	value   atomic.Pointer[[]byte]
	changed *signal
}

func newBundle() *bundle { return &bundle{changed: newSignal()} }

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
	b.changed.tell()
}

// signal tells the two reconcilers of webhook configurations that something has changed.
type signal struct {
	mutating, validating chan event.GenericEvent
}

func newSignal() *signal {
	return &signal{mutating: make(chan event.GenericEvent, 1), validating: make(chan event.GenericEvent, 1)}
}

func (s *signal) tell() {
	for _, channel := range []chan event.GenericEvent{s.mutating, s.validating} {
		select {
		case channel <- event.GenericEvent{Object: &admissionregistrationv1.MutatingWebhookConfiguration{}}:
		default: // it is told already
		}
	}
}
