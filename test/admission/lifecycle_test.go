package admission

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
)

func TestAnOutageTouchesOnlyPodsThatAProfileConcerns(t *testing.T) {
	create(t, cache("outage"))
	createReady(t, matching(cache("outage-ignore"), "outage-ignore", v1alpha1.FailurePolicyIgnore))
	createReady(t, matching(cache("outage-fail"), "outage-fail", v1alpha1.FailurePolicyFail))
	plain := namespace(t, nil)
	labeled := namespace(t, map[string]string{v1alpha1.InjectKey: "outage"})
	ignoring := namespace(t, map[string]string{"outage-ignore": ""})
	failing := namespace(t, map[string]string{"outage-fail": ""})
	if err := pillion.stopWebhook(); err != nil {
		t.Errorf("the webhook ended with: %v", err)
	}
	for _, test := range []struct {
		name    string
		pod     *corev1.Pod
		refused bool
	}{
		{name: "a Pod that asks for nothing is created", pod: pod(plain)},
		{name: "a Pod that asks is refused", pod: pod(plain, v1alpha1.InjectKey, "outage"), refused: true},
		{name: "a Pod whose namespace asks is refused", pod: pod(labeled), refused: true},
		{name: "a Pod that declines is created", pod: pod(labeled, v1alpha1.InjectKey, v1alpha1.None)},
		{name: "a Pod that policy chose under Ignore is created", pod: pod(ignoring)},
		{name: "a Pod that policy chose under Fail is refused", pod: pod(failing), refused: true},
		{name: "a Pod in an excluded namespace is created", pod: pod(ownNamespace, v1alpha1.InjectKey, "outage")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.refused {
				if err := missing(refuse(t, test.pod), "failed calling webhook", "pillion.dev"); err != nil {
					t.Error(err)
				}
				return
			}
			if stored, _ := admit(t, test.pod); len(added(stored)) > 0 {
				t.Errorf("added %q by nobody", added(stored))
			}
		})
	}
	if err := pillion.startWebhook(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*corev1.Pod{pod(plain, v1alpha1.InjectKey, "outage"), pod(labeled), pod(ignoring), pod(failing)} {
		if stored, _ := admit(t, p); len(added(stored)) != 1 {
			t.Errorf("after the outage: added %q in %s", added(stored), p.Namespace)
		}
	}
}

func TestTheWebhookIsNotReadyBeforeItKnowsTheClusterAndHasACertificate(t *testing.T) {
	t.Run("without permissions it knows nothing", func(t *testing.T) {
		config, err := server.ServiceAccountConfig(t.Context(), ownNamespace, "default")
		if err != nil {
			t.Fatal(err)
		}
		options := pillion.options()
		options.ListenAddress, options.HealthAddress = mustFreeAddress(t), mustFreeAddress(t)
		stop := pillion.runWebhook(config, options)
		awaitStatus(t, options.HealthAddress, http.StatusServiceUnavailable, "have not been read yet")
		if _, err := tls.Dial("tcp", options.ListenAddress, pillion.tls(t)); err == nil {
			t.Error("it answers TLS")
		}
		if err := stop(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
	})
	t.Run("without a certificate it cannot serve, and with one it can", func(t *testing.T) {
		options := pillion.options()
		options.ListenAddress, options.HealthAddress = mustFreeAddress(t), mustFreeAddress(t)
		options.CertificateSecret = "another-tls"
		stop := pillion.runWebhook(server.Config, options)
		awaitStatus(t, options.HealthAddress, http.StatusServiceUnavailable, "there is no certificate")

		good := secret(t, certificateSecret)
		copied := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: options.CertificateSecret}, Type: good.Type, Data: good.Data,
		}
		create(t, copied)
		awaitStatus(t, options.HealthAddress, http.StatusOK, "ok")
		before := presented(t, options.ListenAddress)

		day := 24 * time.Hour
		valid := issue(t, func(*x509.Certificate) {})
		for name, pair := range map[string]pair{
			"half-written": {valid.certificate[:100], valid.key},
			"empty":        {},
			"garbage":      {[]byte("garbage"), []byte("garbage")},
			"mismatched":   {valid.certificate, issue(t, func(*x509.Certificate) {}).key},
			"expired": issue(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*day), c.NotAfter.Add(-2*day)
			}),
			"not yet valid": issue(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = c.NotBefore.Add(2*day), c.NotAfter.Add(2*day)
			}),
			"for another name": issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 9)} }),
			"for clients":      issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		} {
			copied.Data = pair.data(good)
			if err := server.Client.Update(t.Context(), copied); err != nil {
				t.Fatal(err)
			}
			awaitLog(t, options.CertificateSecret+" cannot serve", name)
			if diff := cmp.Diff(before, presented(t, options.ListenAddress)); diff != "" {
				t.Errorf("a certificate that is %s took the place of the good one:\n%s", name, diff)
			}
			awaitStatus(t, options.HealthAddress, http.StatusOK, "ok")
			copied.Data = good.Data // so that the next fault is news
			if err := server.Client.Update(t.Context(), copied); err != nil {
				t.Fatal(err)
			}
			awaitLog(t, "the certificate verifies", "after one that is "+name)
		}
		copied.Data = valid.data(good) // else what is refused above might be for another reason
		if err := server.Client.Update(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
		err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
			return presented(t, options.ListenAddress) != before, errors.New("a new certificate of the same CA is not taken")
		})
		if err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
	})
}

// pair is a certificate and its key, in PEM.
type pair struct{ certificate, key []byte }

// data is that of a good certificate's Secret with the pair in place of its own.
func (p pair) data(good *corev1.Secret) map[string][]byte {
	data := maps.Clone(good.Data)
	data[certs.CertificateKey], data[certs.PrivateKeyKey] = p.certificate, p.key
	return data
}

// issue returns a certificate of Pillion's CA for the webhook, good for an hour unless it is edited.
func issue(t *testing.T, edit func(*x509.Certificate)) pair {
	t.Helper()
	ca := secret(t, caSecret)
	parent, err := tls.X509KeyPair(ca.Data[certs.CertificateKey], ca.Data[certs.PrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	edit(template)
	signed, err := x509.CreateCertificate(rand.Reader, template, parent.Leaf, key.Public(), parent.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}
}

func TestALostCertificateIsMadeAgain(t *testing.T) {
	create(t, cache("healing"))
	in := namespace(t, nil)
	for _, name := range []string{certificateSecret, caSecret} {
		t.Run(name, func(t *testing.T) {
			before := presented(t, pillion.address)
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: name}}
			if err := server.Client.Delete(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
				made := &corev1.Secret{}
				return server.Client.Get(ctx, client.ObjectKeyFromObject(secret), made) == nil, errors.New("the Secret is still gone")
			})
			if err != nil {
				t.Fatal(err)
			}
			// All the while, Pods that ask are woven, and none is refused.
			err = apiserver.Await(t.Context(), func(context.Context) (bool, error) {
				stored, _, err := createPod(t, pod(in, v1alpha1.InjectKey, "healing"))
				if err != nil {
					t.Fatalf("a Pod is refused: %v", err)
				}
				if len(added(stored)) != 1 {
					t.Fatalf("a Pod slipped through with %q", added(stored))
				}
				return presented(t, pillion.address) != before, errors.New("the old certificate is still presented")
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestACABundleThatSomebodyRuinsIsRepaired(t *testing.T) {
	create(t, cache("repaired"))
	in := namespace(t, nil)
	other := otherCertificate(t)
	for name, ruined := range map[string][]byte{"blank": nil, "another": other, "500": bytes.Repeat(other, 500)} {
		t.Run(name, func(t *testing.T) {
			current, err := configuration(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := current.DeepCopy().Webhooks
			for i := range current.Webhooks {
				current.Webhooks[i].ClientConfig.CABundle = ruined
			}
			if err := server.Client.Update(t.Context(), current); err != nil {
				t.Fatal(err)
			}
			err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
				repaired, err := configuration(ctx)
				diff := cmp.Diff(want, repaired.Webhooks)
				return diff == "", errors.Join(err, errors.New(diff))
			})
			if err != nil {
				t.Fatal(err)
			}
			err = apiserver.Await(t.Context(), func(context.Context) (bool, error) {
				_, _, err := createPod(t, pod(in, v1alpha1.InjectKey, "repaired"))
				return err == nil, err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// otherCertificate is of a CA that has nothing to do with the webhook.
func otherCertificate(t *testing.T) []byte {
	t.Helper()
	if len(server.Config.CAData) == 0 {
		t.Fatal("the API server has no CA")
	}
	return server.Config.CAData
}

// secret returns one of Pillion's own.
func secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: ownNamespace, Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// presented returns the serial number of the certificate that a listener presents.
func presented(t *testing.T, address string) string {
	t.Helper()
	connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is only looked at
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close() //nolint:errcheck // nothing was written
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func awaitStatus(t *testing.T, health string, status int, says string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		got, body, err := readyz(ctx, health)
		return got == status && strings.Contains(body, says), errors.Join(err, errors.New(body))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitLog waits until a line of the log says something that it has not said when this was last called.
func awaitLog(t *testing.T, says, about string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		return strings.Contains(pillion.log.Take(), says), errors.New("the log does not say it")
	})
	if err != nil {
		t.Fatalf("%s: %v", about, err)
	}
}

func mustFreeAddress(t *testing.T) string {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
