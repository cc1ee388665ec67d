package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The keys of the Secrets. Both are of type kubernetes.io/tls, which asks for the first two. See rotation for the CA's further ones.
const (
	CertificateKey = corev1.TLSCertKey
	PrivateKeyKey  = corev1.TLSPrivateKeyKey
	CABundleKey    = "ca.crt"
)

// Options say which Secrets Ensure keeps, and what is in them.
type Options struct {
	// Namespace is where both Secrets are.
	Namespace string
	// CASecret holds the CAs and their keys. Nothing but Ensure needs to read it.
	CASecret string
	// CertificateSecret holds the serving certificate, its key, and in ca.crt what clients have to trust.
	CertificateSecret string
	// Names are the DNS names and IP addresses that the certificate is for.
	Names []string
	// CALifetime and LeafLifetime are DefaultCALifetime and DefaultLeafLifetime where they are zero.
	CALifetime   time.Duration
	LeafLifetime time.Duration
	// Settle is how long API servers are given to see the next CA once every caBundle holds it. Zero: DefaultSettle.
	Settle time.Duration
	// Trusted returns what caBundles that clients read hold, all of them together. It is asked when a CA is lost: what it signed may still
	// be served. Of what it returns only CAs for exactly the Names are trusted. Nil: nobody reads any.
	Trusted func(ctx context.Context) ([]byte, error)
	// Holds tells whether every caBundle that clients read holds exactly these certificates. Nil: nobody reads any.
	Holds func(ctx context.Context, bundle []byte) (bool, error)

	// External returns the serving certificate that somebody else issues, nil while there is none: what serves goes on serving until
	// there is. Nil: nobody else does, certificates are made here.
	External func(ctx context.Context) (*External, error)
	// Bootstrap has certificates made here serve where there is none at all and External returns none. Without it nothing is made.
	Bootstrap bool
	// Annotations of the serving certificate's Secret are set, or removed where the value is empty.
	Annotations map[string]string
}

// DefaultSettle is how long API servers are given to see the next CA, where nothing is configured: their watches lag by less than a
// second, unless they are cut off from what is stored, and then for as long as it takes them to give up and list anew.
const DefaultSettle = 2 * time.Minute

func (o Options) withDefaults() Options {
	o.CALifetime = cmp.Or(o.CALifetime, DefaultCALifetime)
	o.LeafLifetime = cmp.Or(o.LeafLifetime, DefaultLeafLifetime)
	o.Settle = cmp.Or(o.Settle, DefaultSettle)
	return o
}

// Result is what Ensure found or made.
type Result struct {
	// CABundle is what clients of the webhook have to trust, in PEM.
	CABundle []byte
	// Phase is how far the replacement of the CA has come, Since when that phase began, Reason and Message why.
	Phase   Phase
	Since   time.Time
	Reason  Reason
	Message string
	// CANotAfter and LeafNotAfter are when the CA that signs and the serving certificate expire; the latter is zero while there is none.
	CANotAfter, LeafNotAfter time.Time
	// Certificates are all that there are, of the roles in their order.
	Certificates []Certificate
	// Secret is the UID of the serving certificate's Secret, empty if there is none.
	Secret types.UID
	// RenewAt is when Ensure has something to do again, if nobody changes the Secrets or a caBundle; zero: never.
	RenewAt time.Time
	// Changes are what was made anew, in order.
	Changes []Change
	// Outside tells that a CA of somebody else signs, or is about to.
	Outside bool
	// Fault says why what somebody else issued cannot be served; empty: it can, or was not issued.
	Fault string
}

// maxSteps bounds the steps of one call: from a lost CA to a new one that serves there are fewer.
const maxSteps = 8

// Ensure makes the two Secrets hold a CA and a serving certificate that verify, and renews each when two thirds of its life have
// passed, the CA in the phases that Phase names. Each step is written before the next is taken, so that it goes on where it ended. It
// is idempotent. Writes are guarded by the resource version: when somebody else wrote at the same time the error satisfies Raced, and
// calling again settles it. With an error there are the changes that were written before. The client must read from the API server, not from a cache.
func Ensure(ctx context.Context, c client.Client, options Options, now time.Time) (Result, error) {
	k := keeper{client: c, options: options.withDefaults(), now: now.Round(0)} // what is compared is the wall clock
	// In this order, so that a serving certificate is never written for a CA that was read before somebody else replaced both.
	if err := errors.Join(
		k.read(ctx, &k.serving, k.options.CertificateSecret, "serving certificate"), k.read(ctx, &k.ca, k.options.CASecret, "CA"),
	); err != nil {
		return Result{}, err
	}
	k.rotation = decodeRotation(k.ca.Data)
	if err := k.look(ctx); err != nil {
		return Result{}, err
	}
	for range maxSteps {
		stepped, err := k.step(ctx)
		if err != nil {
			return k.done(), err
		}
		issued, err := k.keepLeaf(ctx)
		if err != nil {
			return k.done(), err
		}
		if !stepped && !issued {
			break
		}
	}
	return k.result(ctx)
}

// Raced tells whether an error of Ensure only says that somebody else wrote at the same time.
func Raced(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// keeper is one call of Ensure.
type keeper struct {
	client  client.Client
	options Options
	now     time.Time

	// ca and serving are the Secrets as they stand; without a resource version they do not exist.
	ca, serving corev1.Secret
	rotation    rotation
	// outside is what somebody else issued; nil: nobody else issues certificates.
	outside *outside
	changes []Change
}

// done is what is told with an error: what was written before.
func (k *keeper) done() Result {
	return Result{Phase: k.rotation.Phase, Since: k.rotation.Since, Secret: k.serving.UID, Changes: k.changes}
}

// read reads a Secret. One that does not exist is made up, to be created.
func (k *keeper) read(ctx context.Context, secret *corev1.Secret, name, what string) error {
	err := k.client.Get(ctx, types.NamespacedName{Namespace: k.options.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		*secret = corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: k.options.Namespace,
				Name:      name,
				Labels:    map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/managed-by": "pillion-controller"},
			},
			Type: corev1.SecretTypeTLS,
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the %s's Secret %s/%s: %w", what, k.options.Namespace, name, err)
	}
	return nil
}

// write creates the Secret, or updates the one that was read, whose resource version it carries.
func (k *keeper) write(ctx context.Context, secret *corev1.Secret, data map[string][]byte, what string) error {
	secret.Data = data
	if secret.ResourceVersion == "" {
		if err := k.client.Create(ctx, secret); err != nil {
			return fmt.Errorf("create the %s's Secret %s/%s: %w", what, secret.Namespace, secret.Name, err)
		}
		return nil
	}
	err := k.client.Update(ctx, secret)
	if apierrors.IsNotFound(err) { // it was deleted since it was read
		err = apierrors.NewConflict(corev1.Resource("secrets"), secret.Name, err)
	}
	if err != nil {
		return fmt.Errorf("update the %s's Secret %s/%s: %w", what, secret.Namespace, secret.Name, err)
	}
	return nil
}

// look looks what somebody else issued.
func (k *keeper) look(ctx context.Context) error {
	if k.options.External == nil {
		return nil
	}
	external, err := k.options.External(ctx)
	if err != nil {
		return fmt.Errorf("look what serving certificate was issued: %w", err)
	}
	k.outside = outsideOf(external, k.options.Names, k.now)
	k.outside.bootstrap = k.options.Bootstrap
	return nil
}

// writeRotation writes the rotation down.
func (k *keeper) writeRotation(ctx context.Context) error {
	data, err := k.rotation.encode()
	if err != nil {
		return err
	}
	return k.write(ctx, &k.ca, data, "CA")
}

// step takes the rotation a step further, if it is time to.
func (k *keeper) step(ctx context.Context) (bool, error) {
	situation := k.situation(ctx)
	if k.rotation.Phase == PhasePublish || k.rotation.Phase == PhaseSettle {
		holds, err := k.holds(ctx)
		if err != nil {
			return false, err
		}
		situation.holds = holds
	}
	next, change, err := k.rotation.step(situation)
	if err != nil || change == nil {
		return false, err
	}
	k.rotation = next
	if err := k.writeRotation(ctx); err != nil {
		return false, err
	}
	k.changes = append(k.changes, *change)
	return true, nil
}

// situation returns what the next step follows from, but for whether caBundles hold the bundle.
func (k *keeper) situation(ctx context.Context) *situation {
	situation := &situation{
		now: k.now, names: k.options.Names, settle: k.options.Settle,
		caLifetime: k.options.CALifetime, leafLifetime: k.options.LeafLifetime,
		trusted: k.serving.Data[CABundleKey],
		outside: k.outside,
		held:    func() ([]byte, error) { return k.held(ctx) },
	}
	if pair, err := parse(k.leaf()); err == nil {
		pair = withoutCertificate(pair, k.rotation.Cross)
		situation.serving, situation.leaf = pair, pair.Leaf
		situation.leafSigned = signedBy(pair, k.rotation.Signing.Certificate, k.now)
	}
	return situation
}

func (k *keeper) holds(ctx context.Context) (bool, error) {
	if k.options.Holds == nil {
		return true, nil
	}
	return k.options.Holds(ctx, k.rotation.bundle())
}

// held returns what the caBundles of clients hold.
func (k *keeper) held(ctx context.Context) ([]byte, error) {
	if k.options.Trusted == nil {
		return nil, nil
	}
	return k.options.Trusted(ctx)
}

// canSign tells whether the CA that signs can sign now.
func (k *keeper) canSign() bool { return verifyCA(k.rotation.Signing, k.options.Names, k.now) == nil }

// leaf returns the serving certificate as it stands.
func (k *keeper) leaf() Pair {
	return Pair{Certificate: k.serving.Data[CertificateKey], Key: k.serving.Data[PrivateKeyKey]}
}

// keepLeaf makes the serving certificate anew if it is due, and keeps what clients have to trust beside it.
func (k *keeper) keepLeaf(ctx context.Context) (bool, error) {
	leaf, bundle := k.leaf(), k.rotation.bundle()
	if len(bundle) == 0 {
		return false, nil // it is waited for what somebody else issues
	}
	reason, why := k.leafDue(leaf)
	if reason != "" && !k.copies() && !k.canSign() {
		return false, nil // the next CA will sign it
	}
	annotated := k.annotate()
	if reason == "" && !annotated && bytes.Equal(k.serving.Data[CABundleKey], bundle) {
		return false, nil
	}
	change := k.newBundle()
	if reason != "" {
		made, err := k.issue(ctx)
		if err != nil {
			return false, err
		}
		leaf = made
		change = Change{Reason: reason, Message: fmt.Sprintf("made a new serving certificate in Secret %s/%s: %s",
			k.serving.Namespace, k.serving.Name, why)}
	}
	change.Phase, change.Since = k.rotation.Phase, k.rotation.Since
	data := maps.Clone(k.serving.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	data[CertificateKey], data[PrivateKeyKey], data[CABundleKey] = leaf.Certificate, leaf.Key, bundle
	if err := k.write(ctx, &k.serving, data, "serving certificate"); err != nil {
		return false, err
	}
	k.changes = append(k.changes, change)
	return true, nil
}

// newBundle says why what clients have to trust is written beside the serving certificate, which stays.
func (k *keeper) newBundle() Change {
	where := fmt.Sprintf("%s in Secret %s/%s", CABundleKey, k.serving.Namespace, k.serving.Name)
	if len(k.changes) > 0 {
		return Change{Reason: ReasonBundleUpdated, Message: "wrote the CAs to " + where}
	}
	return Change{Reason: ReasonBundleRestored, Message: "wrote " + where + " again: it did not hold the CAs"}
}

// leafDue says why the serving certificate has to be made anew; empty: it has not.
func (k *keeper) leafDue(leaf Pair) (Reason, string) {
	if k.outside != nil {
		if k.copies() {
			return k.copyDue(leaf)
		}
		if isOutside(k.rotation.Signing) && len(leaf.Certificate) > 0 {
			return "", "" // it can only be waited for
		}
	}
	if k.serving.ResourceVersion == "" {
		if len(k.changes) > 0 && k.changes[len(k.changes)-1].Reason == ReasonCACreated {
			return ReasonCertificateIssued, "there was none"
		}
		return ReasonCertificateReplaced, "there was none"
	}
	if err := Verify(leaf, k.rotation.Signing.Certificate, k.options.Names, k.now); err != nil {
		if k.rotation.Phase == PhaseActivate {
			return ReasonCertificateIssued, err.Error()
		}
		return ReasonCertificateReplaced, err.Error()
	}
	if certificate, err := parse(leaf); err == nil && !k.now.Before(renewAt(certificate.Leaf)) && len(k.rotation.Signing.Key) > 0 {
		return ReasonCertificateIssued, "two thirds of the old one's life have passed"
	}
	return "", ""
}

// issue returns a serving certificate: what somebody else issued, or one that is made here.
func (k *keeper) issue(ctx context.Context) (Pair, error) {
	if !k.copies() {
		return k.newLeaf(ctx)
	}
	if err := k.signs(ctx, k.outside.serving.Leaf.NotAfter); err != nil {
		return Pair{}, err
	}
	return k.copied(), nil
}

// newLeaf makes a serving certificate. Until when its CA has to be trusted is written down first.
func (k *keeper) newLeaf(ctx context.Context) (Pair, error) {
	lifetime := k.options.LeafLifetime
	// What was written down a moment ago does for this one as well: it is tried again and again where the other Secret cannot be written.
	if left := k.rotation.SignedUntil.Sub(k.now); left < lifetime && left > lifetime-lifetime/100 {
		lifetime = left
	}
	leaf, err := NewLeaf(k.rotation.Signing, k.options.Names, lifetime, k.now)
	if err != nil {
		return Pair{}, err
	}
	certificate, err := parse(leaf)
	if err != nil {
		return Pair{}, err
	}
	if err := k.signs(ctx, certificate.Leaf.NotAfter); err != nil {
		return Pair{}, err
	}
	leaf.Certificate = slices.Concat(leaf.Certificate, k.rotation.intermediates())
	return leaf, nil
}

// signs writes down until when the CA that signs has to be trusted.
func (k *keeper) signs(ctx context.Context, until time.Time) error {
	if !until.After(k.rotation.SignedUntil) {
		return nil
	}
	k.rotation.SignedUntil = until
	return k.writeRotation(ctx)
}

func (k *keeper) result(ctx context.Context) (Result, error) {
	fault := ""
	if k.outside != nil {
		fault = k.outside.fault
	}
	if len(k.rotation.Signing.Certificate) == 0 && k.outside != nil {
		return Result{Fault: fault, Secret: k.serving.UID}, nil // it is waited for what somebody else issues
	}
	ca, err := firstOf(k.rotation.Signing.Certificate)
	if err != nil {
		return Result{}, err
	}
	result := Result{
		CABundle: k.rotation.bundle(), Phase: k.rotation.Phase, Since: k.rotation.Since, CANotAfter: ca.NotAfter, Changes: k.changes,
		Reason: k.rotation.Reason, Message: k.rotation.Message,
		Secret: k.serving.UID, Certificates: certificatesOf(&k.rotation, k.leaf()), Fault: fault,
		Outside: k.outside != nil && (isOutside(k.rotation.Signing) || isOutside(k.rotation.Next)),
	}
	leaf, err := parse(k.leaf())
	if err != nil && k.canSign() {
		return Result{}, err
	}
	if err == nil {
		result.LeafNotAfter = leaf.Leaf.NotAfter
		if k.canSign() {
			result.RenewAt = renewAt(leaf.Leaf)
		}
	}
	if due := k.rotation.due(k.situation(ctx)); result.RenewAt.IsZero() || (!due.IsZero() && due.Before(result.RenewAt)) {
		result.RenewAt = due
	}
	return result, nil
}

// firstOf returns the first certificate in PEM.
func firstOf(data []byte) (*x509.Certificate, error) {
	blocks := blocksOf(data)
	if len(blocks) == 0 {
		return nil, errors.New("there is no certificate")
	}
	certificate, err := x509.ParseCertificate(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse a certificate: %w", err)
	}
	return certificate, nil
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
