package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/certs"
)

// Who issues the serving certificate: Options.CertificateMode.
const (
	// CertificatesAuto is cert-manager where the cluster has its API, which is looked for now and then. Until it has issued a
	// certificate, the built-in CA serves.
	CertificatesAuto = "auto"
	// CertificatesBuiltin is the built-in CA.
	CertificatesBuiltin = "builtin"
	// CertificatesCertManager is cert-manager and nothing else.
	CertificatesCertManager = "cert-manager"
)

// recheckCertManager is how often it is looked whether cert-manager is there, and whether its objects of ours are as they should be.
const recheckCertManager = 30 * time.Second

// recheckAbsent is when cert-manager's API, which was not there, is looked for again: an upgrade may take it away for a moment.
const recheckAbsent = 10 * time.Second

// certManager has cert-manager issue the serving certificate, where that is wanted. It works without cert-manager's API being there, and
// so watches nothing of it but the Secrets.
type certManager struct {
	mode string
	// issuer is the one that is named; without a name one is made.
	issuer    cmmeta.IssuerReference
	namespace string
	names     []string
	// caLifetime and leafLifetime are within cert-manager's bounds.
	caLifetime, leafLifetime time.Duration

	live   client.Reader
	client client.Client
	// served tells whether the cluster has cert-manager's API.
	served func() (bool, error)
	// filled tells whether every entry of the webhook configurations holds a CA bundle; nil: they do.
	filled func(ctx context.Context) (bool, error)
	now    func() time.Time

	// active tells whether cert-manager issues certificates; nil: that is not known yet.
	active atomic.Pointer[bool]
	// gaveUp tells that cert-manager is there but does not work, so that auto is the built-in CA until the next start.
	gaveUp atomic.Bool
	// changed tells whoever keeps the certificates.
	changed chan event.GenericEvent

	// absent counts how often in a row its API was not there; cleaned tells that what was made there is removed; asked is the certificate
	// that was asked to be issued anew, and when.
	absent  int
	cleaned bool
	asked   demand
	// told is what was logged last, so that it is not told again; nil: all is well.
	told atomic.Pointer[string]

	health health
}

func newCertManager(options Options, names []string, live client.Reader, writer client.Client, served func() (bool, error)) *certManager {
	leaf := max(defaulted(options.CertificateLifetime, certs.DefaultLeafLifetime), leastLifetime)
	return &certManager{
		mode: options.CertificateMode, issuer: issuerOf(options.CertificateIssuer), namespace: options.Namespace, names: names,
		caLifetime: max(defaulted(options.CALifetime, certs.DefaultCALifetime), 2*leaf), leafLifetime: leaf,
		live: live, client: writer, served: served, now: options.Now, changed: make(chan event.GenericEvent, 1),
	}
}

func defaulted(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// issuerOf reads KIND/NAME or KIND.GROUP/NAME.
func issuerOf(text string) cmmeta.IssuerReference {
	kind, name, found := strings.Cut(text, "/")
	if !found {
		return cmmeta.IssuerReference{}
	}
	kind, group, found := strings.Cut(kind, ".")
	if !found {
		group = certmanagerv1.SchemeGroupVersion.Group
	}
	return cmmeta.IssuerReference{Name: name, Kind: kind, Group: group}
}

// issues tells whether cert-manager issues certificates, and whether that is known yet.
func (m *certManager) issues() (active, known bool) {
	if active := m.active.Load(); active != nil {
		return *active, true
	}
	return false, false
}

// giveUp makes auto the built-in CA until the next start.
func (m *certManager) giveUp() {
	m.gaveUp.Store(true)
	m.decide(false)
}

// Reconcile finds out whether cert-manager is to issue certificates, and keeps what it needs for that.
func (m *certManager) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	served, err := m.choose()
	if err != nil {
		return reconcile.Result{}, err
	}
	active, _ := m.issues()
	again := reconcile.Result{RequeueAfter: recheckCertManager}
	if m.absent == 1 { // or is it?
		again.RequeueAfter = recheckAbsent
	}
	switch {
	case !active && m.cleaned && m.mode == CertificatesBuiltin:
		return reconcile.Result{}, nil
	case !active && m.cleaned:
		return again, nil
	case !active:
		if err := m.remove(ctx, served); err != nil {
			return reconcile.Result{}, err
		}
		m.cleaned = true
		return again, nil
	case !served:
		m.tell(ctx, "cert-manager issues no serving certificate: the cluster does not have its API. Install cert-manager, or set certs.mode "+
			"to builtin or auto")
		return again, nil
	}
	m.cleaned = false
	err = m.keep(ctx)
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	case err != nil: // that it cannot be done may last, as where cert-manager's own webhook is away
		m.tell(ctx, err.Error())
		return again, nil
	}
	m.tell(ctx, "")
	return again, m.renew(ctx)
}

// tell logs what is wrong, once.
func (m *certManager) tell(ctx context.Context, what string) {
	if what == "" {
		m.told.Store(nil)
		return
	}
	if before := m.told.Swap(&what); before == nil || *before != what {
		log.FromContext(ctx).Info("The certificates that cert-manager is to issue are not as they should be", "cause", what)
	}
}

// choose finds out whether cert-manager issues certificates, and tells whether its API is there.
func (m *certManager) choose() (bool, error) {
	if m.mode != CertificatesAuto {
		m.decide(m.mode == CertificatesCertManager)
		if m.mode == CertificatesBuiltin && m.cleaned {
			return false, nil
		}
	}
	served, err := m.served()
	if err != nil {
		return false, fmt.Errorf("look for cert-manager: %w", err)
	}
	if m.mode == CertificatesAuto {
		m.absent++
		if served {
			m.absent = 0
		}
		was, _ := m.issues()
		m.decide(!m.gaveUp.Load() && (served || was && m.absent < 2))
	}
	return served, nil
}

// decide sets whether cert-manager issues certificates, and tells of it if that is news.
func (m *certManager) decide(active bool) {
	if was, known := m.issues(); known && was == active {
		return
	}
	m.active.Store(&active)
	select {
	case m.changed <- event.GenericEvent{Object: &corev1.Secret{}}:
	default: // it is told already
	}
}

// External returns what cert-manager issued, nil if it has not yet.
func (m *certManager) External(ctx context.Context) (*certs.External, error) {
	issued := &corev1.Secret{}
	err := m.live.Get(ctx, types.NamespacedName{Namespace: m.namespace, Name: CertManagerSecret}, issued)
	if apierrors.IsNotFound(err) {
		m.health.missing.is(true, m.now())
		return nil, nil //nolint:nilnil // that is how it is said
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", m.namespace, CertManagerSecret, err)
	}
	m.health.missing.is(false, m.now())
	m.health.issued = issued.ResourceVersion
	return &certs.External{
		Pair: certs.Pair{Certificate: issued.Data[corev1.TLSCertKey], Key: issued.Data[corev1.TLSPrivateKeyKey]},
		CA:   issued.Data[cmmeta.TLSCAKey],
	}, nil
}

// demand is a certificate that was asked to be issued anew.
type demand struct {
	certificate string
	at          time.Time
}

// askAgain is how long after it was asked for a certificate is asked for again, if nothing has become of it.
const askAgain = 10 * time.Minute

// renew has the serving certificate issued again if its CA was replaced, as one is that expires: cert-manager does not do so by itself, and
// the certificate would verify no longer than the CA of before. It is for the issuer of ours; another's is that one's.
func (m *certManager) renew(ctx context.Context) error {
	if m.issuer.Name != "" {
		return nil
	}
	ca, leaf := &corev1.Secret{}, &corev1.Secret{}
	for name, secret := range map[string]*corev1.Secret{certManagerCASecret: ca, CertManagerSecret: leaf} {
		if err := m.live.Get(ctx, types.NamespacedName{Namespace: m.namespace, Name: name}, secret); err != nil {
			return client.IgnoreNotFound(err) // it is about to be issued
		}
	}
	if !certs.SignedByAnother(leaf.Data[cmmeta.TLSCAKey], ca.Data[corev1.TLSCertKey], m.now()) {
		return nil
	}
	made := string(leaf.Data[corev1.TLSCertKey]) + string(ca.Data[corev1.TLSCertKey])
	if m.asked.certificate == made && m.now().Sub(m.asked.at) < askAgain && !m.now().Before(m.asked.at) {
		return nil
	}
	if err := m.ask(ctx); err != nil {
		if apierrors.IsConflict(err) {
			return nil // it is looked at again
		}
		return fmt.Errorf("ask cert-manager to issue Certificate %s/%s again: %w", m.namespace, certManagerCertificate, err)
	}
	m.asked = demand{certificate: made, at: m.now()}
	return nil
}

// ask sets the condition by which cert-manager issues a certificate, as cmctl renew does.
func (m *certManager) ask(ctx context.Context) error {
	certificate := &certmanagerv1.Certificate{}
	key := types.NamespacedName{Namespace: m.namespace, Name: certManagerCertificate}
	if err := m.live.Get(ctx, key, certificate); err != nil {
		return client.IgnoreNotFound(err)
	}
	i := slices.IndexFunc(certificate.Status.Conditions, func(c certmanagerv1.CertificateCondition) bool {
		return c.Type == certmanagerv1.CertificateConditionIssuing
	})
	if i >= 0 && certificate.Status.Conditions[i].Status == cmmeta.ConditionTrue {
		return nil
	}
	if i < 0 {
		i = len(certificate.Status.Conditions)
		certificate.Status.Conditions = append(certificate.Status.Conditions, certmanagerv1.CertificateCondition{})
	}
	certificate.Status.Conditions[i] = certmanagerv1.CertificateCondition{
		Type: certmanagerv1.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "CAReplaced",
		Message:            "The CA that issued the certificate was replaced: Pillion asks for it to be issued again",
		LastTransitionTime: new(metav1.NewTime(m.now())), ObservedGeneration: certificate.Generation,
	}
	if err := m.client.Status().Update(ctx, certificate); err != nil {
		return err
	}
	log.FromContext(ctx).Info("Asked cert-manager to issue the serving certificate again: its CA was replaced")
	return nil
}

// servesCertManager tells whether the cluster has the part of cert-manager's API that is used.
func servesCertManager(api discovery.ServerResourcesInterface) (bool, error) {
	resources, err := api.ServerResourcesForGroupVersion(certmanagerv1.SchemeGroupVersion.String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found := 0
	for i := range resources.APIResources {
		if slices.Contains([]string{"issuers", "certificates", "certificates/status"}, resources.APIResources[i].Name) {
			found++
		}
	}
	return found == 3, nil
}

// prepare returns the options by which certificates are kept now, and false while it is not known who issues them.
func (m *certManager) prepare(options certs.Options) (certs.Options, bool) {
	if m == nil {
		return options, true
	}
	active, known := m.issues()
	options.Annotations = allowsInjection(active)
	if active {
		options.External, options.Bootstrap = m.External, m.mode == CertificatesAuto
		if options.Bootstrap && m.filled != nil {
			options.External = m.externalOnceFilled
		}
	}
	return options, known
}

// externalOnceFilled is External for auto: the built-in CA serves first, also where cert-manager has issued something by then. Whether
// anybody injects is found out while Pods are woven.
func (m *certManager) externalOnceFilled(ctx context.Context) (*certs.External, error) {
	issued, err := m.External(ctx)
	if err != nil || issued == nil {
		return nil, err
	}
	if filled, err := m.filled(ctx); err != nil || !filled {
		return nil, err
	}
	return issued, nil
}

// injects tells whether cert-manager injects what has to be trusted: where it is to issue certificates, or does.
func (m *certManager) injects(result certs.Result) bool {
	if m == nil {
		return false
	}
	active, _ := m.issues()
	return active && (m.mode == CertificatesCertManager || result.Outside)
}
