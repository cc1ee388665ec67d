package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The keys of the Secrets. Both are of type kubernetes.io/tls, which asks for the first two.
const (
	CertificateKey = corev1.TLSCertKey
	PrivateKeyKey  = corev1.TLSPrivateKeyKey
	CABundleKey    = "ca.crt"
)

// Options say which Secrets Ensure keeps, and what is in them.
type Options struct {
	// Namespace is where both Secrets are.
	Namespace string
	// CASecret holds the CA and its key. Nothing but Ensure needs to read it.
	CASecret string
	// CertificateSecret holds the serving certificate, its key, and in ca.crt what it is signed by.
	CertificateSecret string
	// Names are the DNS names and IP addresses that the certificate is for.
	Names []string
	// CALifetime and LeafLifetime are DefaultCALifetime and DefaultLeafLifetime where they are zero.
	CALifetime   time.Duration
	LeafLifetime time.Duration
}

// Result is what Ensure found or made.
type Result struct {
	// CABundle is what clients of the webhook have to trust, in PEM.
	CABundle []byte
	// RenewAt is when Ensure has something to do again, if nobody changes the Secrets.
	RenewAt time.Time
	// Changes say in a sentence each what was made anew, and why.
	Changes []string
}

// Ensure makes the two Secrets hold a CA and a serving certificate that verify, and renews each when two thirds of its life have
// passed. It is idempotent. Writes are guarded by the resource version: when somebody else wrote at the same time the error
// satisfies Raced, and calling again settles it. The client should read from the API server, not from a cache.
func Ensure(ctx context.Context, c client.Client, options Options, now time.Time) (Result, error) {
	ca, caChanges, err := ensureCA(ctx, c, options, now)
	if err != nil {
		return Result{}, err
	}
	bundle := bundleOf(ca)
	leaf, leafChanges, err := ensureLeaf(ctx, c, options, ca, bundle, now)
	if err != nil {
		return Result{}, err
	}
	return Result{
		CABundle: bundle,
		RenewAt:  earliest(renewAt(ca.leaf), renewAt(leaf.leaf)),
		Changes:  append(caChanges, leafChanges...),
	}, nil
}

// Raced tells whether an error of Ensure only says that somebody else wrote at the same time.
func Raced(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// parsedPair is a Pair that parses.
type parsedPair struct {
	Pair
	leaf *x509.Certificate
}

// bundleOf returns what clients have to trust while this is the CA. The replacement of a CA with overlap belongs here: the
// bundle then holds the old CA's certificate as well as the new one's, until every client and every leaf has moved on.
func bundleOf(ca parsedPair) []byte { return ca.Certificate }

func ensureCA(ctx context.Context, c client.Client, options Options, now time.Time) (parsedPair, []string, error) {
	return ensurePair(ctx, c, keeper{
		namespace: options.Namespace,
		name:      options.CASecret,
		what:      "CA",
		verify:    func(pair Pair) error { return verifyCA(pair, options.Names, now) },
		make: func() (Pair, error) {
			return NewCA(options.Names, orDefault(options.CALifetime, DefaultCALifetime), now)
		},
	}, now)
}

func ensureLeaf(
	ctx context.Context, c client.Client, options Options, ca parsedPair, bundle []byte, now time.Time,
) (parsedPair, []string, error) {
	return ensurePair(ctx, c, keeper{
		namespace: options.Namespace,
		name:      options.CertificateSecret,
		what:      "serving certificate",
		caBundle:  bundle,
		verify:    func(pair Pair) error { return Verify(pair, bundle, options.Names, now) },
		make: func() (Pair, error) {
			return NewLeaf(ca.Pair, options.Names, orDefault(options.LeafLifetime, DefaultLeafLifetime), now)
		},
	}, now)
}

// keeper says how one Secret's pair is checked and made.
type keeper struct {
	namespace, name string
	// what the pair is, for people.
	what string
	// caBundle is kept beside the pair; nil: nothing is.
	caBundle []byte
	verify   func(Pair) error
	make     func() (Pair, error)
}

// ensurePair returns the Secret's pair if it verifies and is not due, and otherwise a new one, which it has written.
func ensurePair(ctx context.Context, c client.Client, keep keeper, now time.Time) (parsedPair, []string, error) {
	secret := &corev1.Secret{}
	err := c.Get(ctx, types.NamespacedName{Namespace: keep.namespace, Name: keep.name}, secret)
	absent := apierrors.IsNotFound(err)
	if err != nil && !absent {
		return parsedPair{}, nil, fmt.Errorf("read the %s's Secret %s/%s: %w", keep.what, keep.namespace, keep.name, err)
	}
	if absent {
		secret = newSecret(keep)
	}
	current := Pair{Certificate: secret.Data[CertificateKey], Key: secret.Data[PrivateKeyKey]}
	reason := due(current, keep, absent, now)
	bundleStands := keep.caBundle == nil || bytes.Equal(secret.Data[CABundleKey], keep.caBundle)
	if reason == "" && bundleStands {
		kept, err := parsed(current)
		return kept, nil, err
	}
	pair := current
	change := fmt.Sprintf("wrote %s to Secret %s/%s again: it did not hold the CA", CABundleKey, keep.namespace, keep.name)
	if reason != "" {
		if pair, err = keep.make(); err != nil {
			return parsedPair{}, nil, err
		}
		change = fmt.Sprintf("made a new %s in Secret %s/%s: %s", keep.what, keep.namespace, keep.name, reason)
	}
	if err := write(ctx, c, secret, pair, keep, absent); err != nil {
		return parsedPair{}, nil, err
	}
	made, err := parsed(pair)
	return made, []string{change}, err
}

// due says why the pair has to be made anew; empty: it has not.
func due(pair Pair, keep keeper, absent bool, now time.Time) string {
	if absent {
		return "there was none"
	}
	if err := keep.verify(pair); err != nil {
		return err.Error()
	}
	kept, err := parsed(pair)
	if err != nil {
		return err.Error()
	}
	if !now.Before(renewAt(kept.leaf)) {
		return "two thirds of the old one's life have passed"
	}
	return ""
}

func newSecret(keep keeper) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: keep.namespace,
			Name:      keep.name,
			Labels:    map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/managed-by": "pillion-controller"},
		},
		Type: corev1.SecretTypeTLS,
	}
}

// write creates the Secret, or updates the one that was read, whose resource version it carries.
func write(ctx context.Context, c client.Client, secret *corev1.Secret, pair Pair, keep keeper, absent bool) error {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[CertificateKey] = pair.Certificate
	secret.Data[PrivateKeyKey] = pair.Key
	if keep.caBundle != nil {
		secret.Data[CABundleKey] = keep.caBundle
	}
	if absent {
		if err := c.Create(ctx, secret); err != nil {
			return fmt.Errorf("create the %s's Secret %s/%s: %w", keep.what, keep.namespace, keep.name, err)
		}
		return nil
	}
	if err := c.Update(ctx, secret); err != nil {
		return fmt.Errorf("update the %s's Secret %s/%s: %w", keep.what, keep.namespace, keep.name, err)
	}
	return nil
}

func parsed(pair Pair) (parsedPair, error) {
	certificate, err := parse(pair)
	if err != nil {
		return parsedPair{}, err
	}
	return parsedPair{Pair: pair, leaf: certificate.Leaf}, nil
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func orDefault(lifetime, otherwise time.Duration) time.Duration {
	if lifetime == 0 {
		return otherwise
	}
	return lifetime
}
