package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	clientset "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

// binary is Pillion.
var binary string

func TestMain(m *testing.M) { os.Exit(build(m)) }

// build builds Pillion and runs the tests.
func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pillion-certmanager-")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // it is in the directory for temporary files
		binary, err = installation.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// The names of Pillion's objects.
const (
	servingSecret = "pillion-webhook-tls"
	caSecret      = "pillion-ca"
	issuedSecret  = "pillion-webhook-cert-manager"
	rootSecret    = "pillion-webhook-ca-cert-manager" //nolint:gosec // a name
	leafName      = "pillion-webhook"
	rootName      = "pillion-webhook-ca"
)

// world is an API server with Pillion, and cert-manager if it is started.
type world struct {
	server    *apiserver.Server
	objects   *clientset.Clientset
	pillion   *installation.Installation
	namespace string
	file      string // the configuration of Pillion
	log       *fixture.Log
}

// newWorld starts an API server. Pillion is started by install.
func newWorld(t *testing.T) *world {
	t.Helper()
	server := fixture.APIServer(t, apiserver.Options{})
	var err error
	w := &world{server: server, file: filepath.Join(t.TempDir(), "pillion.yaml"), log: &fixture.Log{}}
	if err := LogTo(w.log); err != nil {
		t.Fatal(err)
	}
	if w.objects, err = clientset.NewForConfig(server.Config); err != nil {
		t.Fatal(err)
	}
	if w.namespace, err = server.CreateNamespace(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: "cache"}}
	profile.Spec.CacheAmbassador = &v1alpha1.CacheAmbassador{Protocol: v1alpha1.CacheProtocolMemcached, Local: &v1alpha1.LocalCache{}}
	if err := server.Client.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.log)
		}
	})
	return w
}

// startCertManager installs cert-manager and starts its controllers.
func (w *world) startCertManager(t *testing.T, parts Parts) {
	t.Helper()
	if err := InstallCRDs(t.Context(), w.server); err != nil {
		t.Fatal(err)
	}
	running, err := Start(context.WithoutCancel(t.Context()), w.server, t.TempDir(), parts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// configure writes Pillion's configuration.
func (w *world) configure(t *testing.T, mode, issuer string) {
	t.Helper()
	settings := map[string]any{"certs": map[string]any{"mode": mode, "settle": "1s"}, "controller": map[string]any{"leaderElection": false}}
	if issuer != "" {
		settings["certs"].(map[string]any)["issuer"] = issuer
	}
	content, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// install starts Pillion and returns once Pods are woven.
func (w *world) install(t *testing.T, mode string) {
	t.Helper()
	w.configure(t, mode, "")
	var err error
	w.pillion, err = installation.Start(t.Context(), w.server, installation.Options{
		Binary: binary, Env: []string{"PILLION_CONFIG=" + w.file}, Log: w.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.pillion.Stop(); err != nil {
			t.Error(err)
		}
	})
	w.await(t, "Pods are woven", func(ctx context.Context) error { return createPod(ctx, w.server, w.namespace) })
}

// reconfigure starts the controller with another configuration.
func (w *world) reconfigure(t *testing.T, mode, issuer string) {
	t.Helper()
	w.configure(t, mode, issuer)
	if err := errors.Join(w.pillion.Controller.Stop(), w.pillion.Controller.Start()); err != nil {
		t.Fatal(err)
	}
}

// await waits until a condition says nothing any more.
func (w *world) await(t *testing.T, what string, condition func(ctx context.Context) error) {
	t.Helper()
	began := time.Now()
	var err error
	for range 3 { // minutes
		if err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			err := condition(ctx)
			return err == nil, err
		}); err == nil {
			t.Logf("%s after %s", what, time.Since(began).Round(100*time.Millisecond))
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func (w *world) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, w.server.Client.Get(ctx, client.ObjectKey{Namespace: installation.Namespace, Name: name}, secret)
}

// phase is how far the replacement of the CA has come.
func phase(ca *corev1.Secret) string {
	recorded := struct{ Phase string }{}
	_ = json.Unmarshal(ca.Data["rotation.json"], &recorded) // then it is no phase
	return recorded.Phase
}

// servedBy waits until what is served was issued by cert-manager, or was not, and the CA that signed it is the one that is written down.
func (w *world) servedBy(t *testing.T, certManager bool) {
	t.Helper()
	what := map[bool]string{true: "cert-manager's certificate is served", false: "a certificate of the built-in CA is served"}[certManager]
	w.await(t, what, func(ctx context.Context) error {
		ca, err := w.secret(ctx, caSecret)
		if err != nil {
			return err
		}
		serving, err := w.secret(ctx, servingSecret)
		if err != nil {
			return err
		}
		if at := phase(ca); at != "Stable" && at != "Retire" {
			return fmt.Errorf("phase %s", at)
		}
		if keyless := len(ca.Data[corev1.TLSPrivateKeyKey]) == 0; keyless != certManager {
			return fmt.Errorf("the CA has a key: %v", !keyless)
		}
		issued, err := w.secret(ctx, issuedSecret)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		same := len(issued.Data[corev1.TLSPrivateKeyKey]) > 0 &&
			bytes.Equal(issued.Data[corev1.TLSPrivateKeyKey], serving.Data[corev1.TLSPrivateKeyKey])
		if same != certManager {
			return fmt.Errorf("what cert-manager issued is served: %v", same)
		}
		return w.injected(ctx, certManager)
	})
}

// injected says what is wrong with the annotations of the webhook configurations.
func (w *world) injected(ctx context.Context, wanted bool) error {
	for _, configuration := range []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.ValidatingWebhookConfiguration{},
	} {
		if err := w.server.Client.Get(ctx, client.ObjectKey{Name: installation.Configuration}, configuration); err != nil {
			return err
		}
		if has := configuration.GetAnnotations()[certmanagerv1.WantInjectFromSecretAnnotation] != ""; has != wanted {
			return fmt.Errorf("%T asks for injection: %v", configuration, has)
		}
	}
	return nil
}

// renew asks for a certificate as cmctl renew does.
func (w *world) renew(t *testing.T, name string) {
	t.Helper()
	w.await(t, "asked for Certificate "+name, func(ctx context.Context) error {
		certificates := w.objects.CertmanagerV1().Certificates(installation.Namespace)
		certificate, err := certificates.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now := metav1.Now()
		condition := certmanagerv1.CertificateCondition{
			Type: certmanagerv1.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "ManuallyTriggered",
			Message: "Certificate re-issuance manually triggered", LastTransitionTime: &now, ObservedGeneration: certificate.Generation,
		}
		var others []certmanagerv1.CertificateCondition
		for _, other := range certificate.Status.Conditions {
			if other.Type != condition.Type {
				others = append(others, other)
			}
		}
		others = append(others, condition)
		certificate.Status.Conditions = others
		_, err = certificates.UpdateStatus(ctx, certificate, metav1.UpdateOptions{})
		return err
	})
}

// changed waits until a value of a Secret is another than it is now, after an act.
func (w *world) changed(t *testing.T, what, secret, key string, act func()) {
	t.Helper()
	before, err := w.secret(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	act()
	w.await(t, what, func(ctx context.Context) error {
		now, err := w.secret(ctx, secret)
		if err != nil {
			return err
		}
		if bytes.Equal(before.Data[key], now.Data[key]) {
			return fmt.Errorf("%s of %s is what it was", key, secret)
		}
		return nil
	})
}

// Whatever becomes of certificates, CAs, issuers and modes while Pods are created: none fails.
func TestCertManagerIssuesAndNothingFails(t *testing.T) {
	w := newWorld(t)
	w.startCertManager(t, Parts{})
	w.install(t, "cert-manager")
	w.servedBy(t, true)
	stop := startTraffic(t, w.server, w.namespace, w.pillion.WebhookURL)
	defer stop()

	w.changed(t, "a renewed certificate is served", servingSecret, corev1.TLSCertKey, func() { w.renew(t, leafName) })
	w.changed(t, "a renewed CA signs", caSecret, corev1.TLSCertKey, func() { w.renew(t, rootName) })
	w.servedBy(t, true)
	w.changed(t, "a CA that had expired is replaced, and signs", caSecret, corev1.TLSCertKey, func() { w.expireRoot(t) })
	w.servedBy(t, true)

	root := w.corporateIssuer(t)
	w.changed(t, "the CA of an issuer that is named signs", caSecret, corev1.TLSCertKey, func() {
		w.reconfigure(t, "cert-manager", "ClusterIssuer/corporate")
	})
	w.servedBy(t, true)
	if ca, err := w.secret(t.Context(), caSecret); err != nil || !bytes.Equal(ca.Data[corev1.TLSCertKey], root) {
		t.Errorf("the CA that signs is not that of the issuer (%v)", err)
	}
	w.await(t, "what is not used with it is removed", func(ctx context.Context) error {
		return gone(w.objects.CertmanagerV1().Issuers(installation.Namespace).Get(ctx, rootName, metav1.GetOptions{}))
	})

	w.reconfigure(t, "builtin", "")
	w.servedBy(t, false)
	w.await(t, "cert-manager's objects are removed, those of others are not", func(ctx context.Context) error {
		_, kept := w.objects.CertmanagerV1().ClusterIssuers().Get(ctx, "corporate", metav1.GetOptions{})
		_, err := w.secret(ctx, issuedSecret)
		return errors.Join(kept, notFound(err),
			gone(w.objects.CertmanagerV1().Certificates(installation.Namespace).Get(ctx, leafName, metav1.GetOptions{})))
	})
	w.reconfigure(t, "cert-manager", "")
	w.servedBy(t, true)
	stop()
}

// auto is the built-in CA until cert-manager is installed, and again after it was removed.
func TestAutoFollowsWhatIsInstalled(t *testing.T) {
	w := newWorld(t)
	w.install(t, "auto")
	w.servedBy(t, false)
	stop := startTraffic(t, w.server, w.namespace, w.pillion.WebhookURL)
	defer stop()

	w.startCertManager(t, Parts{})
	w.servedBy(t, true)
	if err := RemoveCRDs(t.Context(), w.server); err != nil {
		t.Fatal(err)
	}
	w.servedBy(t, false)
	stop()
}

// Without the cainjector no caBundle is written: what serves goes on serving, and so do entries that are new. Once it runs all goes on.
func TestWithoutTheInjectorNothingBreaks(t *testing.T) {
	w := newWorld(t)
	w.startCertManager(t, Parts{WithoutInjector: true})
	w.install(t, "auto")
	waits := func(ctx context.Context) error {
		ca, err := w.secret(ctx, caSecret)
		if err != nil {
			return err
		}
		if phase(ca) != "Publish" {
			return fmt.Errorf("phase %s", phase(ca))
		}
		return w.injected(ctx, true)
	}
	w.await(t, "the CA of cert-manager waits to be trusted", waits)
	w.installAnew(t)
	w.await(t, "Pods are woven although cert-manager had issued before anything was trusted", func(ctx context.Context) error {
		return createPod(ctx, w.server, w.namespace)
	})
	w.await(t, "its CA waits to be trusted", waits)
	stop := startTraffic(t, w.server, w.namespace, w.pillion.WebhookURL)
	defer stop()

	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: "matching"}}
	profile.Spec.CacheAmbassador = &v1alpha1.CacheAmbassador{Protocol: v1alpha1.CacheProtocolMemcached, Local: &v1alpha1.LocalCache{}}
	profile.Spec.Match = &v1alpha1.ClusterMatch{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"cached": "true"}}}
	if err := w.server.Client.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	w.await(t, "an entry that is new holds what the others hold", func(ctx context.Context) error {
		webhooks, err := w.webhooks(ctx)
		if err != nil {
			return err
		}
		if len(webhooks) != 3 {
			return fmt.Errorf("there are %d entries", len(webhooks))
		}
		return same(webhooks)
	})
	if ca, err := w.secret(t.Context(), caSecret); err != nil || phase(ca) != "Publish" {
		t.Errorf("phase %s (%v)", phase(ca), err)
	}

	w.startCertManager(t, Parts{WithoutControllers: true})
	w.servedBy(t, true)
	stop()

	if err := w.setBundles(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	w.await(t, "caBundles that were blanked are injected again", func(ctx context.Context) error {
		return createPod(ctx, w.server, w.namespace)
	})
}

// installAnew makes it as if Pillion had just been installed, where cert-manager has issued a certificate already.
func (w *world) installAnew(t *testing.T) {
	t.Helper()
	if err := w.pillion.Controller.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{caSecret, servingSecret} {
		secret, err := w.secret(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.server.Client.Delete(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	mutating, validating := &admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.ValidatingWebhookConfiguration{}
	for _, configuration := range []client.Object{mutating, validating} {
		if err := w.server.Client.Get(t.Context(), client.ObjectKey{Name: installation.Configuration}, configuration); err != nil {
			t.Fatal(err)
		}
		mutating.Webhooks, validating.Webhooks = nil, nil
		if err := w.server.Client.Update(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.pillion.Controller.Start(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) webhooks(ctx context.Context) ([]admissionregistrationv1.MutatingWebhook, error) {
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := w.server.Client.Get(ctx, client.ObjectKey{Name: installation.Configuration}, configuration)
	return configuration.Webhooks, err
}

func (w *world) setBundles(ctx context.Context, bundle []byte) error {
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := w.server.Client.Get(ctx, client.ObjectKey{Name: installation.Configuration}, configuration); err != nil {
		return err
	}
	for i := range configuration.Webhooks {
		configuration.Webhooks[i].ClientConfig.CABundle = bundle
	}
	return w.server.Client.Update(ctx, configuration)
}

// same says which entries do not hold what the first one does.
func same(webhooks []admissionregistrationv1.MutatingWebhook) error {
	for i := range webhooks {
		if first := webhooks[0].ClientConfig.CABundle; len(first) == 0 || !bytes.Equal(first, webhooks[i].ClientConfig.CABundle) {
			return fmt.Errorf("entry %s holds another caBundle than %s", webhooks[i].Name, webhooks[0].Name)
		}
	}
	return nil
}

func gone[T any](_ T, err error) error { return notFound(err) }

// notFound says what is wrong if something is there still.
func notFound(err error) error {
	if err == nil {
		return errors.New("it is there still")
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// expireRoot makes it as if the CA had expired while nobody looked: its Secret holds a CA with the same key whose time is over, and what
// it issued is signed by that one.
func (w *world) expireRoot(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	root, err := w.secret(ctx, rootSecret)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := w.secret(ctx, issuedSecret)
	if err != nil {
		t.Fatal(err)
	}
	rootPair, leafPair := pairOf(t, root), pairOf(t, leaf)
	expired := *rootPair.Leaf
	expired.SerialNumber = big.NewInt(time.Now().UnixNano())
	expired.NotBefore, expired.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	rootPEM := sign(t, &expired, &expired, rootPair.Leaf.PublicKey, rootPair.PrivateKey)
	leafPEM := sign(t, leafPair.Leaf, &expired, leafPair.Leaf.PublicKey, rootPair.PrivateKey)
	leaf.Data[corev1.TLSCertKey], leaf.Data[cmmeta.TLSCAKey] = leafPEM, rootPEM
	root.Data[corev1.TLSCertKey], root.Data[cmmeta.TLSCAKey] = rootPEM, rootPEM
	for _, secret := range []*corev1.Secret{leaf, root} {
		if err := w.server.Client.Update(ctx, secret); err != nil {
			t.Fatal(err)
		}
	}
}

func pairOf(t *testing.T, secret *corev1.Secret) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// corporateIssuer makes an issuer as a company would have one: it signs by an intermediate CA, whose root is elsewhere. It returns the root.
func (w *world) corporateIssuer(t *testing.T) []byte {
	t.Helper()
	rootKey, intermediateKey := newKey(t), newKey(t)
	root := caTemplate("Corporate root")
	rootPEM := sign(t, root, root, rootKey.Public(), rootKey)
	intermediatePEM := sign(t, caTemplate("Corporate intermediate"), parsed(t, rootPEM), intermediateKey.Public(), rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(intermediateKey)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: Namespace, Name: "corporate", Labels: map[string]string{certmanagerv1.PartOfCertManagerControllerLabelKey: "true"},
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       append(intermediatePEM, rootPEM...),
			corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
			cmmeta.TLSCAKey:         rootPEM,
		},
	}
	if err := w.server.Client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	issuer := &certmanagerv1.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "corporate"}, Spec: certmanagerv1.IssuerSpec{
		IssuerConfig: certmanagerv1.IssuerConfig{CA: &certmanagerv1.CAIssuer{SecretName: "corporate"}},
	}}
	if _, err := w.objects.CertmanagerV1().ClusterIssuers().Create(t.Context(), issuer, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return rootPEM
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func parsed(t *testing.T, certificate []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certificate)
	out, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sign(t *testing.T, template, by *x509.Certificate, public crypto.PublicKey, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
