package controller

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/certs"
)

func TestCertificatesAreLookedAtAgainInTime(t *testing.T) {
	tests := map[string]struct {
		lifetime time.Duration
		want     time.Duration
	}{
		"when they are due":                        {lifetime: 6 * time.Minute, want: 4 * time.Minute},
		"before, to tell that they are in order":   {lifetime: 7 * 24 * time.Hour, want: checkCertificates},
		"not without a pause if they live shortly": {lifetime: time.Second, want: 666 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newCertificateReconciler(t, test.lifetime)
			if _, err := r.Reconcile(t.Context(), one()); err != nil {
				t.Fatal(err)
			}
			early := test.lifetime / 20 // by chance
			due, _ := r.alarm.next(r.now())
			if after := due.Sub(r.now()); after > test.want+time.Second || after < min(test.want-early, test.want) {
				t.Errorf("looked at again after %s, want %s", after, test.want)
			}
		})
	}
}

// What a suspended machine slept through, or the clock was set beyond, is due as soon as it wakes.
func TestCertificatesAreRenewedByTheWallClock(t *testing.T) {
	tests := map[string]struct {
		jump time.Duration
		want bool
	}{
		"the clock goes on":                    {jump: 0},
		"the machine slept till after renewal": {jump: 5 * 24 * time.Hour, want: true},
		"the machine slept for a while":        {jump: 5 * time.Minute},
		"the clock is set back":                {jump: -2 * time.Hour, want: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				jumped := &atomic.Int64{}
				r := newCertificateReconciler(t, 7*24*time.Hour)
				r.now = func() time.Time { return time.Now().Add(time.Duration(jumped.Load())) }
				r.alarm = newAlarm(r.now)
				reconciled := 0
				look := func() {
					reconciled++
					if _, err := r.Reconcile(t.Context(), one()); err != nil {
						t.Error(err)
					}
				}
				look()
				queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
				defer queue.ShutDown()
				if err := r.alarm.source().Start(ctx, queue); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				jumped.Store(int64(test.jump))
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if rang := queue.Len() > 0; rang != test.want {
					t.Fatalf("looked at again within seconds: %v, want %v", rang, test.want)
				}
				if !test.want {
					time.Sleep(checkCertificates)
					synctest.Wait()
					if queue.Len() == 0 {
						t.Error("never looked at again")
					}
					return
				}
				before := r.leaf(t)
				look()
				if test.jump > 0 && bytes.Equal(before, r.leaf(t)) {
					t.Error("the certificate was not renewed")
				}
			})
		})
	}
}

// leaf returns the serving certificate.
func (r *certificateReconciler) leaf(t *testing.T) []byte {
	t.Helper()
	secret := &corev1.Secret{}
	if err := r.client.Get(t.Context(), client.ObjectKey{Namespace: "pillion-system", Name: "pillion-webhook-tls"}, secret); err != nil {
		t.Fatal(err)
	}
	return secret.Data[certs.CertificateKey]
}

func TestTheCABundleIsHandedOnWhenItChanges(t *testing.T) {
	r := newCertificateReconciler(t, time.Hour)
	for _, when := range []string{"made", "unchanged"} {
		if _, err := r.Reconcile(t.Context(), one()); err != nil {
			t.Fatal(err)
		}
		if told := len(r.bundle.changed.mutating) == 1; told != (when == "made") {
			t.Errorf("%s: told of a change: %v", when, told)
		}
		if when == "made" {
			<-r.bundle.changed.mutating
		}
	}
	if len(r.bundle.get()) == 0 {
		t.Error("there is no bundle")
	}
}

func newCertificateReconciler(t *testing.T, lifetime time.Duration) *certificateReconciler {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Date(2026, time.November, 21, 9, 0, 0, 0, time.UTC) }
	return &certificateReconciler{
		client: fake.NewClientBuilder().WithScheme(scheme).Build(),
		options: certs.Options{
			Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls",
			Names: []string{"pillion-webhook.pillion-system.svc"}, LeafLifetime: lifetime,
		},
		bundle: newBundle(),
		alarm:  newAlarm(now),
		now:    now,
	}
}
