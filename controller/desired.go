package controller

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

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
	// secret is the one, NAMESPACE/NAME, from which cert-manager injects the CA bundle, where it does.
	secret string
	now    func() time.Time
}

// injectFrom is the Secret from which cert-manager injects the CA bundle; empty: it is written here.
func (d *desired) injectFrom() string {
	if d.bundle.isInjected() {
		return d.secret
	}
	return ""
}

// wanted returns the entries for a plan, where others stand; none before the first certificate is there, without which no call could
// succeed.
func wanted[E any](d *desired, kind configurationKind[E], p *profiles.Plan, have []E) []E {
	to := d.target
	trusted := d.bundle.get()
	if len(trusted) == 0 {
		return nil
	}
	if d.bundle.isInjected() {
		return carryOver(kind, kind.compile(p, to, d.excluded), have, trusted, to, d.now())
	}
	to.caBundle = trusted
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
	have := *kind.webhooks(configuration)
	want := wanted(d, kind, p, have)
	indexIn := func(webhooks []E) int {
		for i := range webhooks {
			if kind.nameOf(&webhooks[i]) == name {
				return i
			}
		}
		return -1
	}
	i, j := indexIn(want), indexIn(have)
	if i < 0 || j < 0 || len(kind.clientConfig(&have[j]).CABundle) == 0 || !equality.Semantic.DeepEqual(want[i], have[j]) {
		return verdict{reason: ReasonWebhookConfigurationPending, message: fmt.Sprintf(
			"Entry %s of %s %s, by which the API server sends the Pods that match, is not in place.", name, kind.kind, d.name)}, nil
	}
	return ready(), nil
}

// bundle is the CA bundle that certificates are kept under, and tells when it changes.
type bundle struct {
	value   atomic.Pointer[trust]
	changed *signal
}

// trust is what is to be trusted, in PEM, and whether cert-manager injects it where it is to stand.
type trust struct {
	certificates []byte
	injected     bool
}

func newBundle() *bundle { return &bundle{changed: newSignal()} }

func (b *bundle) get() []byte {
	if value := b.value.Load(); value != nil {
		return value.certificates
	}
	return nil
}

func (b *bundle) isInjected() bool {
	value := b.value.Load()
	return value != nil && value.injected
}

func (b *bundle) set(value trust) {
	if old := b.value.Swap(&value); old != nil && bytes.Equal(old.certificates, value.certificates) && old.injected == value.injected {
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
