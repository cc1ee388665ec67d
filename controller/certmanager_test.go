package controller

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/pillion-dev/pillion/certs"
)

// issuerFixture is a certManager with a cluster of its own.
type issuerFixture struct {
	*certManager
	client client.Client
	served bool
	err    error
	now    time.Time
}

func newIssuerFixture(t *testing.T, mode, issuer string, objects ...client.Object) *issuerFixture {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), certmanagerv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&certmanagerv1.Certificate{}).Build()
	f := &issuerFixture{client: c, served: true, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	f.certManager = newCertManager(Options{
		CertificateMode: mode, CertificateIssuer: issuer, Namespace: "pillion-system", Now: func() time.Time { return f.now },
	}, []string{"pillion-webhook.pillion-system.svc", "10.0.0.7"}, c, c, func() (bool, error) { return f.served, f.err })
	return f
}

// reconcile reconciles, and returns the names of what is there afterwards.
func (f *issuerFixture) reconcile(t *testing.T) []string {
	t.Helper()
	if _, err := f.Reconcile(t.Context(), one()); err != nil {
		t.Fatal(err)
	}
	return f.stand(t)
}

func (f *issuerFixture) stand(t *testing.T) []string {
	t.Helper()
	var names []string
	issuers, certificates, secrets := &certmanagerv1.IssuerList{}, &certmanagerv1.CertificateList{}, &corev1.SecretList{}
	for _, list := range []client.ObjectList{issuers, certificates, secrets} {
		if err := f.client.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	for i := range issuers.Items {
		names = append(names, "Issuer "+issuers.Items[i].Name)
	}
	for i := range certificates.Items {
		names = append(names, "Certificate "+certificates.Items[i].Name)
	}
	for i := range secrets.Items {
		names = append(names, "Secret "+secrets.Items[i].Name)
	}
	return names
}

func ofIssuer(kind client.Object, name string, labels map[string]string) client.Object {
	kind.SetNamespace("pillion-system")
	kind.SetName(name)
	kind.SetLabels(labels)
	return kind
}

func TestWhatCertManagerIssuesByIsMadeAndRemoved(t *testing.T) {
	own := []string{
		"Issuer pillion-webhook-ca", "Issuer pillion-webhook-selfsigned", "Certificate pillion-webhook", "Certificate pillion-webhook-ca",
	}
	issued := func() []client.Object {
		return []client.Object{
			ofIssuer(&corev1.Secret{}, CertManagerSecret, managedBy()), ofIssuer(&corev1.Secret{}, certManagerCASecret, managedBy()),
			ofIssuer(&certmanagerv1.Certificate{}, certManagerCertificate, managedBy()), ofIssuer(&certmanagerv1.Issuer{}, certManagerCA, managedBy()),
		}
	}
	tests := map[string]struct {
		mode, issuer string
		absent       bool
		there        []client.Object
		want         []string
	}{
		"where cert-manager is wanted":               {mode: CertificatesCertManager, want: own},
		"where it is there and nothing else is said": {mode: CertificatesAuto, want: own},
		"not where it is not there":                  {mode: CertificatesAuto, absent: true},
		"not where it is wanted and not there":       {mode: CertificatesCertManager, absent: true},
		"not where the built-in CA is wanted":        {mode: CertificatesBuiltin},
		"only a Certificate for an issuer that is named": {
			mode: CertificatesAuto, issuer: "ClusterIssuer/internal", want: []string{"Certificate pillion-webhook"},
		},
		"what an issuer that is named does not need is removed": {
			mode: CertificatesAuto, issuer: "ClusterIssuer/internal", there: issued(),
			want: []string{"Certificate pillion-webhook", "Secret " + CertManagerSecret},
		},
		"all is removed where the built-in CA is wanted": {mode: CertificatesBuiltin, there: issued()},
		"the Secrets are removed where cert-manager was": {
			mode: CertificatesAuto, absent: true, there: issued()[:2],
		},
		"what is somebody else's stays": {
			mode: CertificatesBuiltin,
			there: []client.Object{
				ofIssuer(&corev1.Secret{}, CertManagerSecret, nil), ofIssuer(&certmanagerv1.Issuer{}, certManagerCA, map[string]string{"a": "b"}),
			},
			want: []string{"Issuer pillion-webhook-ca", "Secret " + CertManagerSecret},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newIssuerFixture(t, test.mode, test.issuer, test.there...)
			f.served = !test.absent
			if diff := cmp.Diff(test.want, f.reconcile(t)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheCertificateIsAskedForAsConfigured(t *testing.T) {
	f := newIssuerFixture(t, CertificatesCertManager, "AWSPCAClusterIssuer.awspca.cert-manager.io/root")
	f.reconcile(t)
	certificate := &certmanagerv1.Certificate{}
	key := client.ObjectKey{Namespace: "pillion-system", Name: certManagerCertificate}
	if err := f.client.Get(t.Context(), key, certificate); err != nil {
		t.Fatal(err)
	}
	want := certmanagerv1.CertificateSpec{
		SecretName: CertManagerSecret, SecretTemplate: &certmanagerv1.CertificateSecretTemplate{Labels: managedBy()},
		Duration: &metav1.Duration{Duration: 7 * 24 * time.Hour}, RenewBefore: &metav1.Duration{Duration: 56 * time.Hour},
		DNSNames: []string{"pillion-webhook.pillion-system.svc"}, IPAddresses: []string{"10.0.0.7"},
		Usages: []certmanagerv1.KeyUsage{certmanagerv1.UsageDigitalSignature, certmanagerv1.UsageServerAuth},
		PrivateKey: &certmanagerv1.CertificatePrivateKey{
			Algorithm: certmanagerv1.ECDSAKeyAlgorithm, Size: 256, Encoding: certmanagerv1.PKCS8, RotationPolicy: certmanagerv1.RotationPolicyAlways,
		},
		RevisionHistoryLimit: new(int32(1)),
		IssuerRef:            cmmeta.IssuerReference{Name: "root", Kind: "AWSPCAClusterIssuer", Group: "awspca.cert-manager.io"},
	}
	if diff := cmp.Diff(want, certificate.Spec); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	certificate.Spec.DNSNames, certificate.Labels["of"] = nil, "somebody"
	if err := f.client.Update(t.Context(), certificate); err != nil {
		t.Fatal(err)
	}
	f.reconcile(t)
	repaired := &certmanagerv1.Certificate{}
	if err := f.client.Get(t.Context(), key, repaired); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, repaired.Spec); diff != "" || repaired.Labels["of"] != "somebody" {
		t.Errorf("labels %v (-want +got):\n%s", repaired.Labels, diff)
	}
	f.reconcile(t)
	if err := f.client.Get(t.Context(), key, certificate); err != nil || certificate.ResourceVersion != repaired.ResourceVersion {
		t.Errorf("what is as it should be was written (%v)", err)
	}
}

// cert-manager takes no shorter ones; and a CA has to outlive what it signs.
func TestLifetimesAreWithinCertManagersBounds(t *testing.T) {
	m := newCertManager(Options{CALifetime: time.Minute, CertificateLifetime: 10 * time.Second}, nil, nil, nil, nil)
	leaf, ca := m.leafSpec(reference("a")), m.caSpec()
	if leaf.Duration.Duration != time.Hour || leaf.RenewBefore.Duration != 20*time.Minute || ca.Duration.Duration != 2*time.Hour {
		t.Errorf("leaf %s, renewed %s before, CA %s", leaf.Duration.Duration, leaf.RenewBefore.Duration, ca.Duration.Duration)
	}
}

func TestAnObjectOfSomebodyElsesIsNotTouched(t *testing.T) {
	foreign := ofIssuer(&certmanagerv1.Issuer{}, certManagerSelfSigned, map[string]string{"app.kubernetes.io/managed-by": "Helm"})
	f := newIssuerFixture(t, CertificatesCertManager, "", foreign)
	if diff := cmp.Diff([]string{"Issuer pillion-webhook-selfsigned"}, f.reconcile(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if told := f.told.Load(); told == nil || !strings.Contains(*told, "Issuer pillion-system/pillion-webhook-selfsigned is not Pillion's") {
		t.Errorf("told: %v", told)
	}
}

func TestAutoFollowsCertManagersAPI(t *testing.T) {
	f := newIssuerFixture(t, CertificatesAuto, "")
	if _, known := f.prepare(certs.Options{}); known {
		t.Error("it is known before anybody looked")
	}
	steps := []struct {
		name   string
		served bool
		err    error
		want   bool
	}{
		{name: "it is not there"},
		{name: "it is installed", served: true, want: true},
		{name: "the API server does not answer", err: errors.New("timed out"), want: true},
		{name: "it is away for a moment, as for an upgrade", want: true},
		{name: "it is back", served: true, want: true},
		{name: "it is away again", want: true},
		{name: "it stays away"},
	}
	for _, step := range steps {
		f.served, f.err = step.served, step.err
		_, err := f.Reconcile(t.Context(), one())
		if (err != nil) != (step.err != nil) {
			t.Fatalf("%s: %v", step.name, err)
		}
		options, known := f.prepare(certs.Options{})
		if issues := options.External != nil; !known || issues != step.want || options.Bootstrap != step.want {
			t.Errorf("%s: issues: %v, want %v (known: %v)", step.name, issues, step.want, known)
		}
	}
}

func TestCertManagerThatDoesNotWorkIsToldOfAndGivenUpByAuto(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	ending := []certs.Certificate{{Role: certs.RoleServing, Certificate: &x509.Certificate{NotBefore: now.Add(-9 * time.Hour), NotAfter: now.Add(time.Hour)}}}
	tests := map[string]struct {
		result certs.Result
		// after is when it is looked at again, missing that nothing is issued, bare that a caBundle lacks the CAs.
		after         time.Duration
		missing, bare bool
		// explicit and auto are the reasons that are told in these modes.
		explicit, auto certs.Reason
	}{
		"all is well": {result: certs.Result{Phase: certs.PhaseStable, Outside: true}},
		"what is issued cannot be served": {
			result:   certs.Result{Phase: certs.PhaseStable, Outside: true, Fault: "the certificate expired"},
			explicit: certs.ReasonIssuedUnusable, auto: certs.ReasonIssuedUnusable,
		},
		"it was injected a moment ago": {result: certs.Result{Phase: certs.PhasePublish, Outside: true, Since: now.Add(-time.Minute)}},
		"nothing is injected": {
			result:   certs.Result{Phase: certs.PhasePublish, Outside: true, Since: now.Add(-time.Hour)},
			explicit: certs.ReasonInjectionPending, auto: certs.ReasonIssuerGivenUp,
		},
		"nothing is renewed": {
			result:   certs.Result{Phase: certs.PhaseStable, Outside: true, Certificates: ending},
			explicit: certs.ReasonIssuedUnusable, auto: certs.ReasonIssuerGivenUp,
		},
		"nothing was ever issued": {
			result: certs.Result{Phase: certs.PhaseStable}, after: time.Hour, missing: true,
			explicit: certs.ReasonIssuedUnusable, auto: certs.ReasonIssuedUnusable,
		},
		"nothing is issued yet": {result: certs.Result{Phase: certs.PhaseStable}, after: time.Minute, missing: true},
		"a caBundle lacks the CAs, as it was emptied or never injected into": {
			result: certs.Result{Phase: certs.PhaseStable, Outside: true, CABundle: []byte("x")}, after: time.Hour, bare: true,
			explicit: certs.ReasonInjectionPending, auto: certs.ReasonIssuerGivenUp,
		},
		"a caBundle lacks the CAs for a moment": {
			result: certs.Result{Phase: certs.PhaseStable, Outside: true, CABundle: []byte("x")}, after: time.Minute, bare: true,
		},
	}
	for name, test := range tests {
		for mode, want := range map[string]certs.Reason{CertificatesCertManager: test.explicit, CertificatesAuto: test.auto} {
			t.Run(name+", "+mode, func(t *testing.T) {
				f := newIssuerFixture(t, mode, "")
				f.reconcile(t)
				f.now = now
				issued := ofIssuer(&corev1.Secret{}, CertManagerSecret, managedBy())
				if err := f.client.Create(t.Context(), issued); err != nil && !test.missing {
					t.Fatal(err)
				}
				if test.missing {
					if err := f.client.Delete(t.Context(), issued); err != nil {
						t.Fatal(err)
					}
				}
				look := func() []certs.Change {
					if _, err := f.External(t.Context()); err != nil {
						t.Fatal(err)
					}
					return f.troubles(t.Context(), test.result, func(context.Context, []byte) (bool, error) { return !test.bare, nil })
				}
				if test.after > 0 && len(look()) > 0 {
					t.Fatal("it is told at once")
				}
				f.now = f.now.Add(test.after)
				var got certs.Reason
				if told := look(); len(told) == 1 {
					got = told[0].Reason
				}
				if test.result.Fault != "" {
					test.result.Fault += ": it is a second later"
				}
				if got != want || len(look()) > 0 {
					t.Errorf("told: %q, want %q once", got, want)
				}
				f.reconcile(t)
				if active, _ := f.issues(); active != (want != certs.ReasonIssuerGivenUp) {
					t.Errorf("it issues: %v", active)
				}
			})
		}
	}
}

// cert-manager does not issue a certificate again because its CA was replaced. It is asked to, once.
func TestACertificateOfACAThatWasReplacedIsAskedForOnce(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	names := []string{"a.b.svc"}
	ca := func() certs.Pair {
		made, err := certs.NewCA(names, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	before, after := ca(), ca()
	leaf, err := certs.NewLeaf(before, names, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	secret := func(name string, certificate, issuer []byte) *corev1.Secret {
		made := ofIssuer(&corev1.Secret{}, name, managedBy()).(*corev1.Secret)
		made.Data = map[string][]byte{corev1.TLSCertKey: certificate, cmmeta.TLSCAKey: issuer}
		return made
	}
	f := newIssuerFixture(t, CertificatesCertManager, "", secret(CertManagerSecret, leaf.Certificate, before.Certificate),
		secret(certManagerCASecret, before.Certificate, before.Certificate))
	asked := func(reset bool) bool {
		f.reconcile(t)
		certificate := &certmanagerv1.Certificate{}
		if err := f.client.Get(t.Context(), client.ObjectKey{Namespace: "pillion-system", Name: certManagerCertificate}, certificate); err != nil {
			t.Fatal(err)
		}
		issuing := slices.ContainsFunc(certificate.Status.Conditions, func(c certmanagerv1.CertificateCondition) bool {
			return c.Type == certmanagerv1.CertificateConditionIssuing && c.Status == cmmeta.ConditionTrue
		})
		if reset {
			certificate.Status.Conditions = nil
			if err := f.client.Status().Update(t.Context(), certificate); err != nil {
				t.Fatal(err)
			}
		}
		return issuing
	}
	if asked(false) {
		t.Error("it was asked for although its CA is the one")
	}
	if err := f.client.Update(context.Background(), secret(certManagerCASecret, after.Certificate, after.Certificate)); err != nil {
		t.Fatal(err)
	}
	if !asked(true) {
		t.Error("it was not asked for")
	}
	if asked(false) {
		t.Error("it was asked for twice")
	}
	if f.now = f.now.Add(20 * time.Minute); !asked(false) {
		t.Error("it was never asked for again, although nothing became of it")
	}
}

func TestEntriesKeepWhatWasInjected(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	made := func(lifetime time.Duration) []byte {
		ca, err := certs.NewCA([]string{"a.b.svc"}, lifetime, now)
		if err != nil {
			t.Fatal(err)
		}
		return ca.Certificate
	}
	old, next, expired := made(time.Hour), made(time.Hour), made(-time.Minute)
	both := slices.Concat(old, next)
	entry := func(name string, bundle []byte) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{Name: name, ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: bundle}}
	}
	tests := map[string]struct {
		have []admissionregistrationv1.MutatingWebhook
		want map[string][]byte
	}{
		"with nothing there is but one for nothing":  {want: map[string][]byte{pendingEntry: nil}},
		"until something is injected there":          {have: []admissionregistrationv1.MutatingWebhook{entry(pendingEntry, nil)}, want: map[string][]byte{pendingEntry: nil}},
		"which the others get, and it goes":          {have: []admissionregistrationv1.MutatingWebhook{entry(pendingEntry, both)}, want: map[string][]byte{"a": both, "b": both}},
		"what is injected stays":                     {have: []admissionregistrationv1.MutatingWebhook{entry("a", old), entry("b", both)}, want: map[string][]byte{"a": old, "b": both}},
		"a new one gets the most that another has":   {have: []admissionregistrationv1.MutatingWebhook{entry("c", old), entry("a", both)}, want: map[string][]byte{"a": both, "b": both}},
		"a blank one gets what another has":          {have: []admissionregistrationv1.MutatingWebhook{entry("a", nil), entry("b", old)}, want: map[string][]byte{"a": old, "b": old}},
		"all that are blank are left to who injects": {have: []admissionregistrationv1.MutatingWebhook{entry("a", nil), entry("b", nil)}, want: map[string][]byte{"a": nil, "b": nil}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := []admissionregistrationv1.MutatingWebhook{entry("a", nil), entry("b", nil)}
			got := map[string][]byte{}
			for _, webhook := range carryOver(mutatingKind(), want, test.have, slices.Concat(both, expired), target{url: "https://a"}, now) {
				got[webhook.Name] = webhook.ClientConfig.CABundle
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for name, test := range map[string]struct {
		has, all []byte
		want     bool
	}{
		"the same":                         {has: both, all: both, want: true},
		"more":                             {has: both, all: next, want: true},
		"in another order":                 {has: slices.Concat(next, old), all: both, want: true},
		"less":                             {has: old, all: both},
		"less by one that has expired":     {has: both, all: slices.Concat(expired, both), want: true},
		"nothing":                          {all: old},
		"something that is no certificate": {has: []byte("x"), all: old},
	} {
		if got := holdsFor(true, now)(test.has, test.all); got != test.want {
			t.Errorf("%s: covers: %v", name, got)
		}
		if got := holdsFor(false, now)(test.has, test.all); got != bytes.Equal(test.has, test.all) {
			t.Errorf("%s: is: %v", name, got)
		}
	}
}

// Where cert-manager has issued before anything is trusted auto has the built-in CA serve all the same: nobody may be there who injects.
func TestAutoServesFirst(t *testing.T) {
	for mode, waits := range map[string]bool{CertificatesAuto: true, CertificatesCertManager: false} {
		f := newIssuerFixture(t, mode, "", ofIssuer(&corev1.Secret{}, CertManagerSecret, managedBy()))
		filled := false
		f.filled = func(context.Context) (bool, error) { return filled, nil }
		f.reconcile(t)
		for _, filled = range []bool{false, true} {
			options, _ := f.prepare(certs.Options{})
			issued, err := options.External(t.Context())
			if want := filled || !waits; err != nil || (issued != nil) != want {
				t.Errorf("%s, CA bundles: %v: taken: %v, want %v (%v)", mode, filled, issued != nil, want, err)
			}
		}
	}
}

// That its objects cannot be written, as while cert-manager's own webhook is away, is told once, and is tried again soon.
func TestWhatCannotBeWrittenIsToldAndTriedAgain(t *testing.T) {
	f := newIssuerFixture(t, CertificatesCertManager, "")
	f.certManager.client = interceptor.NewClient(f.client.(client.WithWatch), interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return apierrors.NewInternalError(errors.New("failed calling webhook"))
		},
	})
	for range 2 {
		result, err := f.Reconcile(t.Context(), one())
		if err != nil || result.RequeueAfter != recheckCertManager {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	if told := f.told.Load(); told == nil || !strings.Contains(*told, "create Issuer pillion-system/pillion-webhook-selfsigned") ||
		!strings.Contains(f.late("late"), *told) {
		t.Errorf("told: %v; %s", told, f.late("late"))
	}
}

func TestConfigurationsAreFilledOnceEveryEntryHoldsABundle(t *testing.T) {
	mutating := func(bundles ...string) client.Object {
		made := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "pillion", UID: "m"}}
		for _, bundle := range bundles {
			made.Webhooks = append(made.Webhooks, admissionregistrationv1.MutatingWebhook{
				ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: []byte(bundle)},
			})
		}
		return made
	}
	validating := func(bundles ...string) client.Object {
		made := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "pillion", UID: "v"}}
		for _, bundle := range bundles {
			made.Webhooks = append(made.Webhooks, admissionregistrationv1.ValidatingWebhook{
				ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: []byte(bundle)},
			})
		}
		return made
	}
	scheme := runtime.NewScheme()
	if err := admissionregistrationv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		there []client.Object
		want  bool
	}{
		"all hold one":              {there: []client.Object{mutating("a", "b"), validating("a")}, want: true},
		"one is blank":              {there: []client.Object{mutating("a", ""), validating("a")}},
		"one has no entry yet":      {there: []client.Object{mutating("a"), validating()}},
		"one does not exist":        {there: []client.Object{mutating("a")}, want: true},
		"neither has an entry":      {there: []client.Object{mutating(), validating()}},
		"neither exists: no matter": {want: true},
	} {
		c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(test.there...).Build()
		if got, err := allFilled(t.Context(), c, "pillion"); err != nil || got != test.want {
			t.Errorf("%s: %v (%v)", name, got, err)
		}
	}
}
