package controller

import (
	"context"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestAStatusIsWrittenOnce(t *testing.T) {
	cluster := gitSyncProfile(clusterProfile("a", v1alpha1.FailurePolicyIgnore, "env=prod", ""))
	namespaced := namespacedProfile("shop", "a", v1alpha1.FailurePolicyIgnore)
	namespaced.Spec.GitSync = gitSync()
	writes := 0
	r := newProfileReconciler(t, func(error) error { writes++; return nil }, cluster, &namespaced)
	tests := map[string]struct {
		reconcile reconcile.Func
		object    client.Object
	}{
		"of a ClusterPatternProfile": {reconcile: r.reconcileCluster, object: cluster},
		"of a PatternProfile":        {reconcile: r.reconcileNamespaced, object: &namespaced},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			writes = 0
			for range 3 {
				request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(test.object)}
				if _, err := test.reconcile(t.Context(), request); err != nil {
					t.Fatal(err)
				}
			}
			if writes != 1 {
				t.Errorf("written %d times", writes)
			}
		})
	}
}

func TestAFailedWriteOfAStatus(t *testing.T) {
	resource := v1alpha1.GroupVersion.WithResource("clusterpatternprofiles").GroupResource()
	tests := map[string]struct {
		err       error
		wantRetry time.Duration
		wantErr   bool
	}{
		"is tried again later after a conflict":   {err: apierrors.NewConflict(resource, "a", nil), wantRetry: time.Second},
		"is nothing when the profile was deleted": {err: apierrors.NewNotFound(resource, "a")},
		"is an error when it is forbidden":        {err: apierrors.NewForbidden(resource, "a", nil), wantErr: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			profile := gitSyncProfile(clusterProfile("a", v1alpha1.FailurePolicyIgnore, "", ""))
			r := newProfileReconciler(t, func(error) error { return test.err }, profile)
			request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(profile)}
			result, err := r.reconcileCluster(t.Context(), request)
			if (err != nil) != test.wantErr || result.RequeueAfter != test.wantRetry {
				t.Errorf("error %v, again after %s", err, result.RequeueAfter)
			}
		})
	}
}

// newProfileReconciler has a cluster of the objects; wrote is called after each write of a status, with its error, and says what
// the write gives instead.
func newProfileReconciler(t *testing.T, wrote func(error) error, objects ...client.Object) *profileReconciler {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(objects...).
		WithInterceptorFuncs(interceptor.Funcs{SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch,
			options ...client.SubResourcePatchOption,
		) error {
			return wrote(c.SubResource(sub).Patch(ctx, object, patch, options...))
		}}).Build()
	now := time.Unix(1000, 0)
	return &profileReconciler{
		client:   c,
		compiler: compiler,
		desired:  &desired{reader: c, name: "pillion", excluded: excluded(), bundle: newBundle()},
		now: func() time.Time { // a status that is written for the time alone would be written each time
			now = now.Add(time.Minute)
			return now
		},
	}
}
