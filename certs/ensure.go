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
	// Holds tells whether every caBundle that clients read holds exactly these certificates. Nil: nobody reads any.
	Holds func(ctx context.Context, bundle []byte) (bool, error)
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
	// Phase is how far the replacement of the CA has come.
	Phase Phase
	// CANotAfter and LeafNotAfter are when the CA that signs and the serving certificate expire.
	CANotAfter, LeafNotAfter time.Time
	// RenewAt is when Ensure has something to do again, if nobody changes the Secrets or a caBundle.
	RenewAt time.Time
	// Changes say in a sentence each what was made anew, and why.
	Changes []string
}

// maxSteps bounds the steps of one call: from a lost CA to a new one that serves there are fewer.
const maxSteps = 8

// Ensure makes the two Secrets hold a CA and a serving certificate that verify, and renews each when two thirds of its life have
// passed, the CA in the phases that Phase names. Each step is written before the next is taken, so that it goes on where it ended. It
// is idempotent. Writes are guarded by the resource version: when somebody else wrote at the same time the error satisfies Raced, and
// calling again settles it. The client must read from the API server, not from a cache.
func Ensure(ctx context.Context, c client.Client, options Options, now time.Time) (Result, error) {
	k := keeper{client: c, options: options.withDefaults(), now: now}
	if err := errors.Join(k.read(ctx, &k.ca, k.options.CASecret, "CA"), k.read(ctx, &k.serving, k.options.CertificateSecret, "serving certificate")); err != nil {
		return Result{}, err
	}
	k.rotation = decodeRotation(k.ca.Data)
	for range maxSteps {
		stepped, err := k.step(ctx)
		if err != nil {
			return Result{}, err
		}
		issued, err := k.keepLeaf(ctx)
		if err != nil {
			return Result{}, err
		}
		if !stepped && !issued {
			break
		}
	}
	return k.result()
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
	changes     []string
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
	if err := k.client.Update(ctx, secret); err != nil {
		return fmt.Errorf("update the %s's Secret %s/%s: %w", what, secret.Namespace, secret.Name, err)
	}
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
	situation := &situation{
		now: k.now, names: k.options.Names, caLifetime: k.options.CALifetime, settle: k.options.Settle,
		trusted: k.serving.Data[CABundleKey],
	}
	if pair, err := parse(k.leaf()); err == nil {
		situation.leaf = pair.Leaf
		situation.leafSigned = signedBy(pair.Leaf, k.rotation.Signing.Certificate, k.now)
	}
	if k.rotation.Phase == PhasePublish || k.rotation.Phase == PhaseSettle {
		holds, err := k.holds(ctx)
		if err != nil {
			return false, err
		}
		situation.holds = holds
	}
	next, change, err := k.rotation.step(situation)
	if err != nil || change == "" {
		return false, err
	}
	k.rotation = next
	k.changes = append(k.changes, fmt.Sprintf("%s: %s", next.Phase, change))
	return true, k.writeRotation(ctx)
}

func (k *keeper) holds(ctx context.Context) (bool, error) {
	if k.options.Holds == nil {
		return true, nil
	}
	return k.options.Holds(ctx, k.rotation.bundle())
}

// leaf returns the serving certificate as it stands.
func (k *keeper) leaf() Pair {
	return Pair{Certificate: k.serving.Data[CertificateKey], Key: k.serving.Data[PrivateKeyKey]}
}

// keepLeaf makes the serving certificate anew if it is due, and keeps what clients have to trust beside it.
func (k *keeper) keepLeaf(ctx context.Context) (bool, error) {
	leaf, bundle := k.leaf(), k.rotation.bundle()
	reason := k.leafDue(leaf)
	if reason == "" && bytes.Equal(k.serving.Data[CABundleKey], bundle) {
		return false, nil
	}
	change := fmt.Sprintf("wrote %s to Secret %s/%s again: it did not hold the CAs", CABundleKey, k.serving.Namespace, k.serving.Name)
	if reason != "" {
		made, err := k.newLeaf(ctx)
		if err != nil {
			return false, err
		}
		leaf = made
		change = fmt.Sprintf("made a new serving certificate in Secret %s/%s: %s", k.serving.Namespace, k.serving.Name, reason)
	}
	data := maps.Clone(k.serving.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	data[CertificateKey], data[PrivateKeyKey], data[CABundleKey] = leaf.Certificate, leaf.Key, bundle
	k.changes = append(k.changes, change)
	return true, k.write(ctx, &k.serving, data, "serving certificate")
}

// leafDue says why the serving certificate has to be made anew; empty: it has not.
func (k *keeper) leafDue(leaf Pair) string {
	if k.serving.ResourceVersion == "" {
		return "there was none"
	}
	if err := Verify(leaf, k.rotation.Signing.Certificate, k.options.Names, k.now); err != nil {
		return err.Error()
	}
	if certificate, err := parse(leaf); err == nil && !k.now.Before(renewAt(certificate.Leaf)) && len(k.rotation.Signing.Key) > 0 {
		return "two thirds of the old one's life have passed"
	}
	return ""
}

// newLeaf makes a serving certificate. Until when its CA has to be trusted is written down first.
func (k *keeper) newLeaf(ctx context.Context) (Pair, error) {
	leaf, err := NewLeaf(k.rotation.Signing, k.options.Names, k.options.LeafLifetime, k.now)
	if err != nil {
		return Pair{}, err
	}
	certificate, err := parse(leaf)
	if err != nil {
		return Pair{}, err
	}
	if certificate.Leaf.NotAfter.After(k.rotation.SignedUntil) {
		k.rotation.SignedUntil = certificate.Leaf.NotAfter
		if err := k.writeRotation(ctx); err != nil {
			return Pair{}, err
		}
	}
	leaf.Certificate = slices.Concat(leaf.Certificate, k.rotation.intermediates())
	return leaf, nil
}

func (k *keeper) result() (Result, error) {
	ca, err := firstOf(k.rotation.Signing.Certificate)
	if err != nil {
		return Result{}, err
	}
	leaf, err := parse(k.leaf())
	if err != nil {
		return Result{}, err
	}
	renew := renewAt(leaf.Leaf)
	if due := k.rotation.due(k.options.Settle); !due.IsZero() {
		renew = earliest(renew, due)
	}
	return Result{
		CABundle: k.rotation.bundle(), Phase: k.rotation.Phase, CANotAfter: ca.NotAfter, LeafNotAfter: leaf.Leaf.NotAfter,
		RenewAt: renew, Changes: k.changes,
	}, nil
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
