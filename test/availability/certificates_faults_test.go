package availability

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// TestFaultsOfCertificatesAreNotNoticed does to the certificates what may happen, while they are replaced under traffic.
func TestFaultsOfCertificatesAreNotNoticed(t *testing.T) {
	// A third of a leaf's life is left when it is renewed. A controller that is killed needs some of that until it is there again, and the
	// short form runs where much else does.
	f := &faults{caLife: either(72*time.Second, 18*time.Second)}
	leafLife := either(24*time.Second, 9*time.Second)
	options := installation.ServiceOptions{WebhookEnv: []string{noDrain}, ControllerEnv: lives(f.caLife, leafLife, 1500*time.Millisecond)}
	options.Reach = func(subcommand string, config *rest.Config) {
		if subcommand == "controller" {
			f.toServer = newLinkOf(t, config)
		}
	}
	c := newCluster(t, options)
	f.cluster, f.rotation = c, c.followRotation(t)
	tests := []struct {
		name        string
		short, long int // how often
		do          func(*testing.T, *traffic)
	}{
		{"the controller is killed in each phase", 1, 40, f.killInEachPhase},
		{"the serving certificate is about to expire", 1, 40, f.leafAboutToExpire},
		{"the serving certificate has expired", 1, 40, f.leafExpired},
		{"the serving certificate is not yet valid", 1, 40, f.leafNotYetValid},
		{"the serving certificate is a stranger's", 1, 40, f.leafOfAStranger},
		{"the key is not the serving certificate's", 1, 40, f.leafWithoutItsKey},
		{"the serving Secret is deleted", 2, 100, f.loseServingSecret},
		{"the CA's Secret is deleted", 1, 30, f.loseCASecret},
		{"one Secret is deleted after the other", 1, 20, f.loseOneAfterTheOther},
		{"both Secrets are deleted at once", 1, 20, f.loseBoth},
		{"a CA of before is put back", 1, 20, f.restoreCA},
		{"the CA is about to expire", 1, 20, f.caAboutToExpire},
		{"the CA has expired", 1, 20, f.caExpired},
	}
	for _, fault := range tests {
		t.Run(fault.name, func(t *testing.T) {
			traffic, stop := c.startTraffic(t, flow{creators: 4, rate: 40, handshakes: either(50, 100)})
			for range either(fault.short, fault.long) {
				fault.do(t, traffic)
			}
			traffic.awaitCreates(t, 20)
			stop()
			traffic.report(t, nil)
		})
	}
}

// faults are what may happen.
type faults struct {
	cluster  *cluster
	rotation *rotation
	toServer *link // of the controller
	caLife   time.Duration
}

// signing waits until no other CA is about to take over.
func (f *faults) signing(t *testing.T) {
	t.Helper()
	f.rotation.await(t, "both Secrets, and phase Stable or Retire", func() bool {
		return f.rotation.serving != nil && (f.rotation.phase == certs.PhaseStable || f.rotation.phase == certs.PhaseRetire)
	})
}

// killInEachPhase kills the controller once in each phase, and starts it again. Some last for a few milliseconds only, so that the way
// to the API server is made longer until the controller is killed.
func (f *faults) killInEachPhase(t *testing.T, _ *traffic) {
	controller := f.cluster.Controllers[0]
	for _, phase := range certs.Phases() {
		if phase == certs.PhasePublish {
			f.signing(t)
			f.writeCA(t, time.Now().Add(f.caLife/4)) // so that it is time for another
		}
		for tries := 1; ; tries++ {
			f.toServer.set(40 * time.Millisecond)
			f.rotation.awaitPhase(t, phase)
			if err := controller.Kill(); err != nil {
				t.Fatal(err)
			}
			found := phaseOf(f.cluster.secret(t, caSecret))
			f.toServer.set(0)
			began := time.Now()
			if err := errors.Join(controller.Start(), controller.AwaitReady(t.Context())); err != nil {
				t.Fatal(err)
			}
			if found == phase {
				t.Logf("killed in phase %s; ready again after %s", phase, time.Since(began).Round(time.Millisecond))
				break
			}
			if tries == 5 {
				t.Fatalf("the controller could not be killed in phase %s: it was in %s then", phase, found)
			}
		}
	}
}

func (f *faults) loseServingSecret(t *testing.T, traffic *traffic) {
	old := f.cluster.secret(t, servingSecret)
	f.cluster.deleteSecret(t, servingSecret)
	f.rotation.await(t, "another serving Secret", func() bool { return f.rotation.serving != nil && f.rotation.serving.UID != old.UID })
	f.awaitPresented(t, traffic)
}

// awaitPresented waits until every replica has presented what is in the serving Secret.
func (f *faults) awaitPresented(t *testing.T, traffic *traffic) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		f.rotation.mu.Lock()
		defer f.rotation.mu.Unlock()
		if f.rotation.serving == nil {
			return false, errors.New("there is no serving Secret")
		}
		serial := leafOf(t, f.rotation.serving.Data[corev1.TLSCertKey]).SerialNumber.String()
		return traffic.presentedBy(serial) == len(f.cluster.Replicas), errors.New("a replica has not presented the certificate " + serial)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *faults) loseCASecret(t *testing.T, traffic *traffic) {
	f.signing(t)
	old := f.cluster.secret(t, caSecret)
	f.cluster.deleteSecret(t, caSecret)
	f.awaitOther(t, traffic, old)
}

// awaitOther waits until another CA than what was in the Secret signs what is presented.
func (f *faults) awaitOther(t *testing.T, traffic *traffic, old *corev1.Secret) {
	t.Helper()
	f.rotation.await(t, "another CA that signs", func() bool {
		ca := f.rotation.ca
		return ca != nil && ca.UID != old.UID && !bytes.Equal(ca.Data[corev1.TLSCertKey], old.Data[corev1.TLSCertKey]) &&
			(f.rotation.phase == certs.PhaseRetire || f.rotation.phase == certs.PhaseStable)
	})
	f.awaitPresented(t, traffic)
}

// loseOneAfterTheOther deletes either Secret once the other is whole again.
func (f *faults) loseOneAfterTheOther(t *testing.T, traffic *traffic) {
	f.loseServingSecret(t, traffic)
	f.loseCASecret(t, traffic)
	f.loseServingSecret(t, traffic)
}

// leafAboutToExpire has the controller renew a certificate that it did not expect to end.
func (f *faults) leafAboutToExpire(t *testing.T, traffic *traffic) {
	f.replaceLeaf(t, traffic, func(ca certs.Pair) certs.Pair { return f.issue(t, ca, time.Minute, time.Now().Add(-55*time.Second)) })
}

func (f *faults) leafExpired(t *testing.T, traffic *traffic) {
	f.neverPresented(t, traffic, func(ca certs.Pair) certs.Pair { return f.issue(t, ca, time.Hour, time.Now().Add(-2*time.Hour)) })
}

func (f *faults) leafNotYetValid(t *testing.T, traffic *traffic) {
	f.neverPresented(t, traffic, func(ca certs.Pair) certs.Pair { return f.issue(t, ca, time.Hour, time.Now().Add(2*time.Hour)) })
}

func (f *faults) leafOfAStranger(t *testing.T, traffic *traffic) {
	f.neverPresented(t, traffic, func(certs.Pair) certs.Pair {
		stranger, err := certs.NewCA([]string{serverName}, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return f.issue(t, stranger, time.Hour, time.Now())
	})
}

func (f *faults) leafWithoutItsKey(t *testing.T, traffic *traffic) {
	f.neverPresented(t, traffic, func(ca certs.Pair) certs.Pair {
		pair := f.issue(t, ca, time.Hour, time.Now())
		pair.Key = f.issue(t, ca, time.Hour, time.Now()).Key
		return pair
	})
}

func (f *faults) neverPresented(t *testing.T, traffic *traffic, issue func(certs.Pair) certs.Pair) {
	t.Helper()
	if serial := f.replaceLeaf(t, traffic, issue); traffic.presentedBy(serial) > 0 {
		t.Error("what cannot serve was presented")
	}
}

func (f *faults) issue(t *testing.T, ca certs.Pair, life time.Duration, now time.Time) certs.Pair {
	t.Helper()
	pair, err := certs.NewLeaf(ca, []string{serverName}, life, now)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// replaceLeaf writes another serving certificate into its Secret, waits until the controller has replaced it, and returns its serial
// number.
func (f *faults) replaceLeaf(t *testing.T, traffic *traffic, issue func(ca certs.Pair) certs.Pair) string {
	t.Helper()
	f.signing(t)
	ca := f.cluster.secret(t, caSecret)
	pair := issue(certs.Pair{Certificate: ca.Data[corev1.TLSCertKey], Key: ca.Data[corev1.TLSPrivateKeyKey]})
	f.cluster.writeSecret(t, servingSecret, map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key})
	f.rotation.await(t, "a certificate instead of what the test wrote", func() bool {
		serving := f.rotation.serving
		return f.rotation.leaves[string(pair.Certificate)] && serving != nil &&
			!bytes.Equal(serving.Data[corev1.TLSCertKey], pair.Certificate)
	})
	f.awaitPresented(t, traffic)
	return leafOf(t, pair.Certificate).SerialNumber.String()
}

func (f *faults) caAboutToExpire(t *testing.T, traffic *traffic) {
	f.endCA(t, traffic, time.Now().Add(8*time.Second))
}

func (f *faults) caExpired(t *testing.T, traffic *traffic) {
	f.endCA(t, traffic, time.Now().Add(-time.Minute))
}

// endCA has the CA end at another time, and waits until another signs. What the CA signed before verifies by both of its certificates.
func (f *faults) endCA(t *testing.T, traffic *traffic, end time.Time) {
	t.Helper()
	f.signing(t)
	written, old := f.writeCA(t, end)
	f.rotation.await(t, "a CA instead of the one that ends", func() bool {
		ca := f.rotation.ca
		return f.rotation.cas[string(written)] && ca != nil && !bytes.Equal(ca.Data[corev1.TLSCertKey], written) &&
			!bytes.Equal(ca.Data[corev1.TLSCertKey], old) && f.rotation.phase == certs.PhaseRetire
	})
	f.awaitPresented(t, traffic)
}

// writeCA writes the CA anew with another end, signed by its own key, and returns it and what it was.
func (f *faults) writeCA(t *testing.T, end time.Time) (written, old []byte) {
	t.Helper()
	secret := f.cluster.secret(t, caSecret)
	ca, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	template := leafOf(t, secret.Data[corev1.TLSCertKey])
	template.NotAfter = end
	der, err := x509.CreateCertificate(rand.Reader, template, template, template.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	written = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	f.cluster.writeSecret(t, caSecret, map[string][]byte{corev1.TLSCertKey: written})
	return written, secret.Data[corev1.TLSCertKey]
}

// loseBoth deletes both Secrets at once: what is to be trusted is left in the caBundles, and what is served in the replicas' memory.
func (f *faults) loseBoth(t *testing.T, traffic *traffic) {
	f.signing(t)
	old := f.cluster.secret(t, caSecret)
	controller := f.cluster.Controllers[0].Pid()
	signal(t, controller, syscall.SIGSTOP) // or it would mend the one before the other is gone
	f.cluster.deleteSecret(t, servingSecret)
	f.cluster.deleteSecret(t, caSecret)
	signal(t, controller, syscall.SIGCONT)
	f.awaitOther(t, traffic, old)
}

// restoreCA puts a CA into the Secret that the API server has not been told of, as whoever restores a backup.
func (f *faults) restoreCA(t *testing.T, _ *traffic) {
	f.signing(t)
	backup, err := certs.NewCA([]string{serverName}, f.caLife, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.cluster.writeSecret(t, caSecret, map[string][]byte{corev1.TLSCertKey: backup.Certificate, corev1.TLSPrivateKeyKey: backup.Key})
	f.rotation.await(t, "the CA that was put back to sign", func() bool {
		ca := f.rotation.ca
		return ca != nil && bytes.Equal(ca.Data[corev1.TLSCertKey], backup.Certificate) && f.rotation.phase == certs.PhaseRetire
	})
	f.awaitSignedBy(t, leafOf(t, backup.Certificate).Subject.CommonName)
}

// awaitSignedBy waits until every replica presents what a CA signed.
func (f *faults) awaitSignedBy(t *testing.T, ca string) {
	t.Helper()
	for _, replica := range f.cluster.Replicas {
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			issuer, err := issuerOf(ctx, replica)
			return issuer == ca, errors.Join(err, errors.New(replica.Address+" presents what "+issuer+" signed"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func signal(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}

// leafOf returns the first certificate in PEM.
func leafOf(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	all := certificatesOf(t, data)
	if len(all) == 0 {
		t.Fatal("there is no certificate")
	}
	return all[0]
}

// certificatesOf returns the certificates in PEM.
func certificatesOf(t *testing.T, data []byte) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, certificate)
	}
}
