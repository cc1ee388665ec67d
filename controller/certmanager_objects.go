package controller

import (
	"context"
	"fmt"
	"maps"
	"net"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// CertManagerSecret is the Secret that cert-manager issues the serving certificate into. The webhook never reads it: what is in it is
// served once those who call trust its CA.
const CertManagerSecret = "pillion-webhook-cert-manager"

// The names of the other objects, for which the controller's permissions are.
const (
	certManagerSelfSigned  = "pillion-webhook-selfsigned"
	certManagerCA          = "pillion-webhook-ca"
	certManagerCASecret    = "pillion-webhook-ca-cert-manager"
	certManagerCertificate = "pillion-webhook"
)

// What cert-manager accepts at least.
const (
	leastLifetime = time.Hour
	leastRenewal  = 5 * time.Minute
)

// managedBy are the labels of what is ours, by which alone it is changed and removed.
func managedBy() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/managed-by": "pillion-controller"}
}

func isOurs(o client.Object) bool {
	return o.GetLabels()["app.kubernetes.io/managed-by"] == managedBy()["app.kubernetes.io/managed-by"]
}

// certificateObject is an object of cert-manager's, what it has to be, and how that is put into what stands.
type certificateObject struct {
	name  string
	empty client.Object
	// wanted tells whether the object is to be there; unset those that are not.
	wanted bool
	set    func(client.Object)
}

// objects are those that cert-manager issues the serving certificate by, in the order in which they depend on each other.
func (m *certManager) objects() []certificateObject {
	own := m.issuer.Name == ""
	issuer := m.issuer
	if own {
		issuer = reference(certManagerCA)
	}
	return []certificateObject{
		issuerObject(certManagerSelfSigned, own, certmanagerv1.IssuerConfig{SelfSigned: &certmanagerv1.SelfSignedIssuer{}}),
		certificateObjectOf(certManagerCA, own, m.caSpec()),
		issuerObject(certManagerCA, own, certmanagerv1.IssuerConfig{CA: &certmanagerv1.CAIssuer{SecretName: certManagerCASecret}}),
		certificateObjectOf(certManagerCertificate, true, m.leafSpec(issuer)),
	}
}

func reference(name string) cmmeta.IssuerReference {
	return cmmeta.IssuerReference{Name: name, Kind: certmanagerv1.IssuerKind, Group: certmanagerv1.SchemeGroupVersion.Group}
}

func issuerObject(name string, wanted bool, config certmanagerv1.IssuerConfig) certificateObject {
	return certificateObject{name: name, empty: &certmanagerv1.Issuer{}, wanted: wanted, set: func(o client.Object) {
		o.(*certmanagerv1.Issuer).Spec = certmanagerv1.IssuerSpec{IssuerConfig: config} //nolint:forcetypeassert // it is a copy of empty
	}}
}

func certificateObjectOf(name string, wanted bool, spec certmanagerv1.CertificateSpec) certificateObject {
	return certificateObject{name: name, empty: &certmanagerv1.Certificate{}, wanted: wanted, set: func(o client.Object) {
		o.(*certmanagerv1.Certificate).Spec = spec //nolint:forcetypeassert // it is a copy of empty
	}}
}

func (m *certManager) caSpec() certmanagerv1.CertificateSpec {
	spec := m.spec("Pillion CA", certManagerCASecret, m.caLifetime, reference(certManagerSelfSigned))
	spec.IsCA = true
	spec.Usages = []certmanagerv1.KeyUsage{certmanagerv1.UsageCertSign, certmanagerv1.UsageServerAuth}
	return spec
}

func (m *certManager) leafSpec(issuer cmmeta.IssuerReference) certmanagerv1.CertificateSpec {
	spec := m.spec("", CertManagerSecret, m.leafLifetime, issuer)
	spec.Usages = []certmanagerv1.KeyUsage{certmanagerv1.UsageDigitalSignature, certmanagerv1.UsageServerAuth}
	for _, name := range m.names {
		if net.ParseIP(name) != nil {
			spec.IPAddresses = append(spec.IPAddresses, name)
		} else {
			spec.DNSNames = append(spec.DNSNames, name)
		}
	}
	return spec
}

// spec is what both Certificates have in common. Keys are made anew each time: a key that leaked is worth no more than one lifetime, and
// a CA with another key is followed without a failed call.
func (m *certManager) spec(name, secret string, lifetime time.Duration, issuer cmmeta.IssuerReference) certmanagerv1.CertificateSpec {
	return certmanagerv1.CertificateSpec{
		CommonName: name,
		SecretName: secret,
		SecretTemplate: &certmanagerv1.CertificateSecretTemplate{
			Labels: managedBy(),
		},
		Duration:    &metav1.Duration{Duration: lifetime},
		RenewBefore: &metav1.Duration{Duration: max(lifetime/3, leastRenewal).Truncate(time.Second)},
		PrivateKey: &certmanagerv1.CertificatePrivateKey{
			Algorithm: certmanagerv1.ECDSAKeyAlgorithm, Size: 256, Encoding: certmanagerv1.PKCS8,
			RotationPolicy: certmanagerv1.RotationPolicyAlways,
		},
		RevisionHistoryLimit: new(int32(1)),
		IssuerRef:            issuer,
	}
}

// keep makes the objects what they have to be, whoever changed them, and removes those that are not used with the issuer that is named.
func (m *certManager) keep(ctx context.Context) error {
	for _, object := range m.objects() {
		err := m.keepObject(ctx, object)
		if err != nil {
			return err
		}
	}
	if m.issuer.Name != "" {
		return m.removeObject(ctx, certManagerCASecret, &corev1.Secret{})
	}
	return nil
}

func (m *certManager) keepObject(ctx context.Context, object certificateObject) error {
	if !object.wanted {
		return m.removeObject(ctx, object.name, object.empty)
	}
	stands := object.empty
	err := m.live.Get(ctx, client.ObjectKey{Namespace: m.namespace, Name: object.name}, stands)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read %s: %w", m.describe(object.empty, object.name), err)
	}
	if apierrors.IsNotFound(err) {
		stands.SetNamespace(m.namespace)
		stands.SetName(object.name)
		stands.SetLabels(managedBy())
		object.set(stands)
		if err := m.client.Create(ctx, stands); err != nil {
			return fmt.Errorf("create %s: %w", m.describe(stands, object.name), err)
		}
		log.FromContext(ctx).Info("Made an object of cert-manager's", "object", m.describe(stands, object.name))
		return nil
	}
	if !isOurs(stands) {
		return fmt.Errorf("%s is not Pillion's, for it lacks the label app.kubernetes.io/managed-by=pillion-controller: remove or rename it",
			m.describe(stands, object.name))
	}
	should := stands.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is a copy of one
	labels := maps.Clone(should.GetLabels())
	maps.Copy(labels, managedBy())
	should.SetLabels(labels)
	object.set(should)
	if !stands.GetDeletionTimestamp().IsZero() || equality.Semantic.DeepEqual(stands, should) {
		return nil
	}
	if err := m.client.Update(ctx, should); err != nil {
		return fmt.Errorf("update %s: %w", m.describe(stands, object.name), err)
	}
	log.FromContext(ctx).Info("Repaired an object of cert-manager's", "object", m.describe(stands, object.name))
	return nil
}

// remove removes what was made, the Certificates before the Secrets, or cert-manager would issue them again.
func (m *certManager) remove(ctx context.Context, served bool) error {
	if served {
		for _, object := range m.objects() {
			if err := m.removeObject(ctx, object.name, object.empty); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{CertManagerSecret, certManagerCASecret} {
		if err := m.removeObject(ctx, name, &corev1.Secret{}); err != nil {
			return err
		}
	}
	return nil
}

// removeObject removes an object if it is ours.
func (m *certManager) removeObject(ctx context.Context, name string, stands client.Object) error {
	err := m.live.Get(ctx, client.ObjectKey{Namespace: m.namespace, Name: name}, stands)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", m.describe(stands, name), err)
	}
	if !isOurs(stands) || !stands.GetDeletionTimestamp().IsZero() {
		return nil
	}
	uid := stands.GetUID()
	err = m.client.Delete(ctx, stands, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", m.describe(stands, name), err)
	}
	log.FromContext(ctx).Info("Removed what cert-manager had issued the serving certificate by", "object", m.describe(stands, name))
	return nil
}

func (m *certManager) describe(o client.Object, name string) string {
	kind := "Secret"
	switch o.(type) {
	case *certmanagerv1.Issuer:
		kind = certmanagerv1.IssuerKind
	case *certmanagerv1.Certificate:
		kind = certmanagerv1.CertificateKind
	}
	return fmt.Sprintf("%s %s/%s", kind, m.namespace, name)
}
