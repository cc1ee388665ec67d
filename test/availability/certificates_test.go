package availability

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/installation"
)

// The names of the Secrets, by default.
const (
	caSecret      = "pillion-ca"
	servingSecret = "pillion-webhook-tls"
)

// presented is what a replica presented to those who dialed it.
type presented struct {
	handshakes int
	// leaves are the serial numbers of certificates, cas the names of who signed them.
	leaves, cas map[string]bool
}

// see notes what a replica presented.
func (f *traffic) see(replica *installation.Replica, connection net.Conn) {
	served := connection.(*tls.Conn).ConnectionState().PeerCertificates[0] //nolint:forcetypeassert // a tls.Dialer made it
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = map[string]*presented{}
	}
	if f.seen[replica.Address] == nil {
		f.seen[replica.Address] = &presented{leaves: map[string]bool{}, cas: map[string]bool{}}
	}
	by := f.seen[replica.Address]
	by.handshakes++
	by.leaves[served.SerialNumber.String()] = true
	by.cas[served.Issuer.CommonName] = true
}

// least is the least of what each replica presented.
func (f *traffic) least() (handshakes, leaves, cas int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, replica := range f.cluster.Replicas {
		by := f.seen[replica.Address]
		if by == nil {
			return 0, 0, 0
		}
		if i == 0 {
			handshakes, leaves, cas = by.handshakes, len(by.leaves), len(by.cas)
		}
		handshakes, leaves, cas = min(handshakes, by.handshakes), min(leaves, len(by.leaves)), min(cas, len(by.cas))
	}
	return handshakes, leaves, cas
}

// presentedBy returns how many replicas presented the certificate with this serial number.
func (f *traffic) presentedBy(serial string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, by := range f.seen {
		if by.leaves[serial] {
			n++
		}
	}
	return n
}

// issuerOf dials a replica and returns who signed what it presents, whether or not it is to be trusted.
func issuerOf(ctx context.Context, replica *installation.Replica) (string, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}} //nolint:gosec // it is only looked at
	connection, err := dialer.DialContext(ctx, "tcp", replica.Address)
	if err != nil {
		return "", fmt.Errorf("dial %s: %w", replica.Address, err)
	}
	defer connection.Close()                                                                   //nolint:errcheck // nothing was said
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0].Issuer.CommonName, nil //nolint:forcetypeassert // as above
}

// rotation is what is written down of certificates, in the two Secrets, as it is seen to change.
type rotation struct {
	mu      sync.Mutex
	changed chan struct{}

	ca, serving *corev1.Secret // as they are; nil: they are not there
	phase       certs.Phase
	phases      map[certs.Phase]int // how often each was reached
	cas, leaves map[string]bool     // those that signed, and those that were to be served
}

// followRotation follows both Secrets until the test ends.
func (c *cluster) followRotation(t *testing.T) *rotation {
	t.Helper()
	r := &rotation{changed: make(chan struct{}), phases: map[certs.Phase]int{}, cas: map[string]bool{}, leaves: map[string]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(func() { stop(); group.Wait() })
	for _, name := range []string{caSecret, servingSecret} {
		group.Go(func() {
			for ctx.Err() == nil {
				watcher, err := c.server.Clientset.CoreV1().Secrets(installation.Namespace).Watch(ctx, metav1.ListOptions{
					FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
				})
				if err == nil {
					r.follow(ctx, watcher)
				}
			}
		})
	}
	r.await(t, "both Secrets", func() bool { return r.ca != nil && r.serving != nil })
	return r
}

func (r *rotation) follow(ctx context.Context, watcher watch.Interface) {
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-watcher.ResultChan():
			if !open {
				return
			}
			if secret, ok := event.Object.(*corev1.Secret); ok {
				r.note(secret, event.Type == watch.Deleted)
			}
		}
	}
}

func (r *rotation) note(secret *corev1.Secret, deleted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept, seen := &r.ca, r.cas
	if secret.Name == servingSecret {
		kept, seen = &r.serving, r.leaves
	}
	*kept = secret
	if deleted {
		*kept = nil
	} else {
		seen[string(secret.Data[corev1.TLSCertKey])] = true
	}
	if secret.Name == caSecret {
		phase := phaseOf(secret)
		if deleted {
			phase = ""
		}
		if phase != r.phase {
			r.phase = phase
			r.phases[phase]++
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// written is what is written down beside the CAs.
type written struct {
	Phase    certs.Phase `json:"phase"`
	RetireAt time.Time   `json:"retireAt"`
}

func writtenIn(ca *corev1.Secret) written {
	w := written{}
	_ = json.Unmarshal(ca.Data["rotation.json"], &w) // what cannot be read is no phase
	return w
}

func phaseOf(ca *corev1.Secret) certs.Phase { return writtenIn(ca).Phase }

// awaitLimit is how long anything is waited for that comes by itself.
const awaitLimit = 2 * time.Minute

// await returns once a condition on what is written down holds.
func (r *rotation) await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	limit := time.NewTimer(awaitLimit)
	defer limit.Stop()
	for {
		r.mu.Lock()
		holds, phase, changed := condition(), r.phase, r.changed
		r.mu.Unlock()
		if holds {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			t.Fatalf("waited %s for %s; the phase is %q", awaitLimit, what, phase)
		case <-t.Context().Done():
			t.Fatalf("waiting for %s: %v", what, t.Context().Err())
		}
	}
}

func (r *rotation) awaitPhase(t *testing.T, phase certs.Phase) {
	t.Helper()
	r.await(t, "phase "+string(phase), func() bool { return r.phase == phase })
}

// secret returns a Secret of Pillion's as it is.
func (c *cluster) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.server.Client.Get(t.Context(), client.ObjectKey{Namespace: installation.Namespace, Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// writeSecret writes some keys of a Secret, whatever else is in it.
func (c *cluster) writeSecret(t *testing.T, name string, data map[string][]byte) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: installation.Namespace, Name: name}}
	if err := c.server.Client.Patch(t.Context(), secret, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) deleteSecret(t *testing.T, name string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: installation.Namespace, Name: name}}
	if err := c.server.Client.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
}

// bundle returns what the entries of both webhook configurations have for a caBundle. Those that differ are an error.
func (c *cluster) bundle(ctx context.Context) ([]byte, error) {
	mutating, validating, err := c.configurations(ctx)
	if err != nil {
		return nil, err
	}
	all := (&entries{mutating.Webhooks, validating.Webhooks}).clients()
	for _, client := range all {
		if !bytes.Equal(client.CABundle, all[0].CABundle) {
			return nil, errors.New("the entries have not all the same caBundle")
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there are no entries")
	}
	return all[0].CABundle, nil
}

// repairLimit is how long Pillion may take to mend what somebody broke.
const repairLimit = 2 * time.Second

// disorder is the time from when something is broken until it is mended, and until watches have told so.
type disorder struct{ broken, mended, told time.Time }

func (d disorder) lasted() time.Duration { return d.mended.Sub(d.broken) }

// excuses tells whether an attempt went on during the disorder, or began before the API server can be said to have seen its end.
func (d disorder) excuses(failed failure) bool {
	return failed.ended.After(d.broken) && failed.began.Before(d.told.Add(informerLag))
}
