package controller

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	gocmp "github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// kept is a cluster whose certificates are kept, by a clock that the test sets.
type kept struct {
	cluster
	server *apiserver.Server
	ahead  atomic.Int64
	// whole is the test that the parts are of; stop ends the controller.
	whole *testing.T
	stop  func() error
}

// TestCertificatesOnARealAPIServer keeps certificates with the controller's own permissions. Each part begins where the one before it
// ended.
func TestCertificatesOnARealAPIServer(t *testing.T) {
	server := fixture.Installed(t)
	k := &kept{cluster: cluster{Client: server.Client}, server: server, whole: t}
	k.start()
	for _, part := range []struct {
		name string
		run  func(*kept, *testing.T)
	}{
		{"certificates are made, and told of", (*kept).made},
		{"every caBundle is exactly what is recorded, whoever changes it", (*kept).repairs},
		{"a clock that jumps has what is due done within seconds", (*kept).jumps},
		{"the CA is replaced in phases that are told of", (*kept).rotates},
		{"nothing is told twice after a restart", (*kept).restarts},
		{"both Secrets are lost, and what was trusted stays trusted", (*kept).losesBoth},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(k, t) }) {
			break
		}
	}
	if err := k.stop(); err != nil {
		t.Errorf("the controller ended with: %v", err)
	}
}

func (k *kept) start() {
	t := k.whole
	config, err := k.server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, config, Options{
			Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls",
			WebhookConfiguration: "pillion", WebhookURL: "https://127.0.0.1:1/", CertificateMode: CertificatesBuiltin,
			CertificateSettle: 2 * time.Second, LeaderElection: true, Now: k.now, Logger: testr.New(t),
		})
	}()
	k.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = k.stop() })
}

func (k *kept) now() time.Time { return time.Now().Add(time.Duration(k.ahead.Load())) }

// secret returns one of ours, nil if it is not there.
func (k *kept) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := k.Get(t.Context(), types.NamespacedName{Namespace: "pillion-system", Name: name}, secret); err != nil {
		return nil
	}
	return secret
}

// bundles returns what all entries of both configurations hold, and whether that is the same.
func (k *kept) bundles(t *testing.T) (held []byte, same bool) {
	t.Helper()
	all, err := caBundles(t.Context(), k, "pillion")
	if err != nil || len(all) == 0 {
		return nil, false
	}
	return all[0], !slices.ContainsFunc(all, func(one []byte) bool { return !bytes.Equal(one, all[0]) })
}

// told returns the Events about the Secret, TYPE REASON, in the order of their times.
func (k *kept) told(t *testing.T) []string {
	t.Helper()
	list := &eventsv1.EventList{}
	if err := k.List(t.Context(), list, client.InNamespace("pillion-system")); err != nil {
		t.Fatal(err)
	}
	ours := slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.Kind != "Secret" })
	slices.SortFunc(ours, func(a, b eventsv1.Event) int {
		return cmp.Or(a.EventTime.Compare(b.EventTime.Time), cmp.Compare(a.ResourceVersion, b.ResourceVersion))
	})
	told := make([]string, len(ours))
	for i := range ours {
		told[i] = ours[i].Type + " " + ours[i].Reason
		if ours[i].Regarding.Name != "pillion-webhook-tls" || ours[i].Note == "" || ours[i].ReportingController != LeaseName {
			t.Errorf("Event %+v", ours[i])
		}
	}
	return told
}

// awaitTold waits until exactly these were told.
func (k *kept) awaitTold(t *testing.T, want ...string) {
	t.Helper()
	k.await(t, func() (bool, error) {
		diff := gocmp.Diff(want, k.told(t))
		return diff == "", fmt.Errorf("Events (-want +got):\n%s", diff)
	})
}

var first = []string{"Normal CACreated", "Normal CertificateIssued"}

func (k *kept) made(t *testing.T) {
	k.awaitTold(t, first...)
	k.await(t, func() (bool, error) {
		held, same := k.bundles(t)
		return same && bytes.Equal(held, k.secret(t, "pillion-webhook-tls").Data[certs.CABundleKey]), fmt.Errorf("caBundles hold %s", held)
	})
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, family := range families {
		series[family.GetName()] = len(family.GetMetric())
	}
	for metric, want := range map[string]int{
		"pillion_certs_not_after_timestamp_seconds": 2, "pillion_certs_not_before_timestamp_seconds": 2,
		"pillion_certs_renewal_timestamp_seconds": 2, "pillion_certs_rotation_phase": len(certs.Phases()),
		"pillion_certs_rotation_phase_start_timestamp_seconds": 1, "pillion_certs_last_check_timestamp_seconds": 1,
		"pillion_certs_changes_total": len(certs.Reasons()),
	} {
		if got := series[metric]; got != want {
			t.Errorf("%s has %d series, want %d", metric, got, want)
		}
	}
}

func (k *kept) repairs(t *testing.T) {
	rogue, err := certs.NewCA([]string{"127.0.0.1"}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := k.bundles(t)
	for name, tamper := range map[string]func(config *admissionregistrationv1.WebhookClientConfig){
		"blanked": func(c *admissionregistrationv1.WebhookClientConfig) { c.CABundle = nil },
		"a stranger's beside it": func(c *admissionregistrationv1.WebhookClientConfig) {
			c.CABundle = append(c.CABundle, rogue.Certificate...)
		},
		"a stranger's in its place": func(c *admissionregistrationv1.WebhookClientConfig) { c.CABundle = rogue.Certificate },
		"500 certificates": func(c *admissionregistrationv1.WebhookClientConfig) {
			c.CABundle = bytes.Repeat(rogue.Certificate, 500)
		},
		"garbage": func(c *admissionregistrationv1.WebhookClientConfig) { c.CABundle = []byte("garbage") },
	} {
		t.Run(name, func(t *testing.T) {
			mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
			k.get(t, types.NamespacedName{Name: "pillion"}, mutating)
			tamper(&mutating.Webhooks[len(mutating.Webhooks)-1].ClientConfig)
			validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
			k.get(t, types.NamespacedName{Name: "pillion"}, validating)
			tamper(&validating.Webhooks[0].ClientConfig)
			added := validating.Webhooks[0].DeepCopy()
			added.Name = "stranger.example.com"
			validating.Webhooks = append(validating.Webhooks, *added)
			for _, configuration := range []client.Object{mutating, validating} {
				if err := k.Update(t.Context(), configuration); err != nil {
					t.Fatal(err)
				}
			}
			k.await(t, func() (bool, error) {
				held, same := k.bundles(t)
				k.get(t, types.NamespacedName{Name: "pillion"}, validating)
				hasStranger := slices.ContainsFunc(validating.Webhooks,
					func(w admissionregistrationv1.ValidatingWebhook) bool { return w.Name == added.Name })
				return same && bytes.Equal(held, want) && !hasStranger, fmt.Errorf("caBundles hold %s; the stranger's entry: %v", held, hasStranger)
			})
		})
	}
	if now := k.secret(t, "pillion-webhook-tls").Data[certs.CABundleKey]; !bytes.Equal(now, want) {
		t.Error("what is recorded has changed")
	}
}

func (k *kept) jumps(t *testing.T) {
	before := k.secret(t, "pillion-webhook-tls").Data[certs.CertificateKey]
	k.ahead.Store(int64(5 * 24 * time.Hour))
	k.await(t, func() (bool, error) {
		return !bytes.Equal(k.secret(t, "pillion-webhook-tls").Data[certs.CertificateKey], before), fmt.Errorf("the certificate was not renewed")
	})
	k.awaitTold(t, append(slices.Clone(first), "Normal CertificateIssued")...)
}

func (k *kept) rotates(t *testing.T) {
	k.ahead.Store(int64(250 * 24 * time.Hour))
	replaced := append(slices.Clone(first), "Normal CertificateIssued", "Normal CAPublished", "Warning CertificateReplaced", "Normal CASettling",
		"Normal CAActivated", "Normal CertificateIssued", "Normal CARetiring")
	k.awaitTold(t, replaced...)
	k.ahead.Store(int64(260 * 24 * time.Hour))
	k.awaitTold(t, append(replaced, "Normal CARetired", "Warning CertificateReplaced")...)
	k.await(t, func() (bool, error) {
		held, same := k.bundles(t)
		return same && bytes.Count(held, []byte("BEGIN")) == 1, fmt.Errorf("caBundles hold %s", held)
	})
}

func (k *kept) restarts(t *testing.T) {
	before := k.told(t)
	if err := k.stop(); err != nil {
		t.Fatal(err)
	}
	k.start()
	k.remove(t, k.secret(t, "pillion-webhook-tls")) // what comes of it comes after all that is told at the start
	k.awaitTold(t, append(before, "Warning CertificateReplaced")...)
}

func (k *kept) losesBoth(t *testing.T) {
	before, _ := k.bundles(t)
	told := k.told(t)
	for _, name := range []string{"pillion-ca", "pillion-webhook-tls"} {
		k.remove(t, k.secret(t, name))
	}
	k.await(t, func() (bool, error) {
		if held, _ := k.bundles(t); !bytes.Contains(held, bytes.TrimSpace(before)) {
			t.Fatal("what was trusted is not trusted any more")
		}
		return k.secret(t, "pillion-webhook-tls") != nil, fmt.Errorf("there is no serving certificate")
	})
	k.await(t, func() (bool, error) {
		now := k.told(t)[len(told):]
		return slices.Contains(now, "Warning CALost") && slices.Contains(now, "Normal CAActivated"), fmt.Errorf("Events %q", now)
	})
	if held, same := k.bundles(t); !same || !bytes.Contains(held, bytes.TrimSpace(before)) {
		t.Error("what was trusted is not trusted until it has expired")
	}
}
