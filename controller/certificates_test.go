package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/pillion-dev/pillion/certs"
)

func TestCertificatesAreLookedAtAgainInTime(t *testing.T) {
	tests := map[string]struct {
		lifetime time.Duration
		want     time.Duration
	}{
		"when they are due":                  {lifetime: 6 * time.Minute, want: 4 * time.Minute},
		"before, for the clock could be set": {lifetime: 7 * 24 * time.Hour, want: 10 * time.Minute},
		"not without a pause":                {lifetime: time.Second, want: time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newCertificateReconciler(t, test.lifetime)
			result, err := r.Reconcile(t.Context(), one())
			if err != nil {
				t.Fatal(err)
			}
			early := test.lifetime / 20 // by chance
			if result.RequeueAfter > test.want || result.RequeueAfter < min(test.want-early, test.want) {
				t.Errorf("looked at again after %s, want %s", result.RequeueAfter, test.want)
			}
		})
	}
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
	now := time.Date(2026, time.November, 21, 9, 0, 0, 0, time.UTC)
	return &certificateReconciler{
		client: fake.NewClientBuilder().WithScheme(scheme).Build(),
		options: certs.Options{
			Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls",
			Names: []string{"pillion-webhook.pillion-system.svc"}, LeafLifetime: lifetime,
		},
		bundle: newBundle(),
		now:    func() time.Time { return now },
	}
}
