package controller

import (
	"context"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func TestAStatusIsWrittenOnce(t *testing.T) {
	cluster := gitSyncProfile(clusterProfile("a", v1alpha1.FailurePolicyIgnore, "env=prod", ""))
	namespaced := namespacedProfile("shop", "a", v1alpha1.FailurePolicyIgnore)
	namespaced.Spec.GitSync = gitSync()
	writes := 0
	f := newFakeCluster(t, func(error) error { writes++; return nil }, cluster, &namespaced)
	tests := map[string]struct {
		reconcile reconcile.Func
		object    client.Object
	}{
		"of a ClusterPatternProfile": {reconcile: f.reconcileCluster, object: cluster},
		"of a PatternProfile":        {reconcile: f.reconcileNamespaced, object: &namespaced},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			writes = 0
			for range 3 {
				f.settle(t)
				f.reconcile(t, test.reconcile, test.object)
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
			f := newFakeCluster(t, func(error) error { return test.err }, profile)
			f.settle(t)
			result, err := f.reconcileCluster(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(profile)})
			if (err != nil) != test.wantErr || result.RequeueAfter != test.wantRetry {
				t.Errorf("error %v, again after %s", err, result.RequeueAfter)
			}
		})
	}
}

func TestAnErrorNamesTheFieldsThatAreInvalidAndNotWhatTheyHold(t *testing.T) {
	const canary = "CANARY-5d1c"
	kind := v1alpha1.GroupVersion.WithKind("ClusterPatternProfile").GroupKind()
	refusal := apierrors.NewInvalid(kind, "a", field.ErrorList{
		field.Invalid(field.NewPath("spec", "gitSync", "repo"), canary, "should be a URL"),
		field.Required(field.NewPath("spec", "gitSync", "mountPath"), canary),
	})
	profile := gitSyncProfile(clusterProfile("a", v1alpha1.FailurePolicyIgnore, "", ""))
	f := newFakeCluster(t, func(error) error { return refusal }, profile)
	f.settle(t)
	_, err := f.reconcileCluster(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(profile)})
	want := "write the profile's status: the API server finds fields invalid: spec.gitSync.repo (FieldValueInvalid), " +
		"spec.gitSync.mountPath (FieldValueRequired)"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestNothingIsWrittenOfAProfileThatTheCatalogDoesNotHaveYet(t *testing.T) {
	profile := gitSyncProfile(clusterProfile("a", v1alpha1.FailurePolicyIgnore, "", ""))
	writes := 0
	f := newFakeCluster(t, func(error) error { writes++; return nil }, profile)
	f.reconcile(t, f.reconcileCluster, profile)
	if writes != 0 {
		t.Error("a status was written")
	}
	f.settle(t)
	f.reconcile(t, f.reconcileCluster, profile)
	if writes != 1 {
		t.Errorf("written %d times", writes)
	}
}

func TestCountsAloneAreNotWrittenAtOnce(t *testing.T) {
	profile := gitSyncProfile(withoutMatch(clusterProfile("a", "", "", "")))
	writes := 0
	f := newFakeCluster(t, func(err error) error { writes++; return err }, profile)
	f.countsInterval = time.Hour
	f.pods.index = newPodIndex()
	for range 2 {
		f.settle(t)
		f.reconcile(t, f.reconcileCluster, profile)
	}
	before := writes
	for i := range 5 {
		f.pods.index.put(wovenPod("shop", "web-"+string(rune('a'+i)), `{"a":{"revision":"1"}}`))
		result := f.reconcile(t, f.reconcileCluster, profile)
		if waits := result.RequeueAfter > 0; waits != (i > 0) {
			t.Errorf("after %d Pods again after %s", i+1, result.RequeueAfter)
		}
	}
	if writes != before+1 {
		t.Errorf("five Pods were written %d times", writes-before)
	}
	f.clock = f.clock.Add(2 * time.Hour)
	f.reconcile(t, f.reconcileCluster, profile)
	if got := f.cluster(t, "a").Status.Pods; got == nil || got.Outdated != 5 || got.Current != 0 {
		t.Errorf("%+v", got)
	}
}

// fakeCluster is a profileReconciler of a cluster that is not there.
type fakeCluster struct {
	*profileReconciler

	clock time.Time
	// tick is what passes whenever the clock is looked at: a status that is written for the time alone would be written each time.
	tick time.Duration
}

// newFakeCluster has a cluster of the objects; wrote is called after each write of a status, with its error, and says what the write
// gives instead.
func newFakeCluster(t *testing.T, wrote func(error) error, objects ...client.Object) *fakeCluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		v1alpha1.AddToScheme, admissionregistrationv1.AddToScheme, corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme,
		metav1.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.ClusterPatternProfile{}, &v1alpha1.PatternProfile{}).
		WithInterceptorFuncs(interceptor.Funcs{SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch,
			options ...client.SubResourcePatchOption,
		) error {
			return wrote(c.SubResource(sub).Patch(ctx, object, patch, options...))
		}}).Build()
	catalog, err := newCatalog(c, excluded())
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeCluster{clock: time.Unix(1000, 0), tick: time.Second}
	counter := newPodCounter(nil, catalog.tellCounts)
	now := func() time.Time {
		f.clock = f.clock.Add(f.tick)
		return f.clock
	}
	f.profileReconciler = &profileReconciler{
		client: c, catalog: catalog, pods: counter,
		desired: &desired{reader: c, catalog: catalog, name: "pillion", excluded: excluded(), bundle: newBundle()},
		finder: &userFinder{
			live: c, cached: c, pods: counter, excluded: excluded(), unsettled: catalog.unsettled, recheck: 30 * time.Second, now: now,
		},
		isRemade: func(profileObject) (isRemade, known bool) { return false, true },
		now:      now, countsInterval: 10 * time.Second, counted: map[types.UID]time.Time{},
	}
	return f
}

// settle brings the catalog up to date.
func (f *fakeCluster) settle(t *testing.T) {
	t.Helper()
	if _, err := f.catalog.Reconcile(t.Context(), one()); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeCluster) reconcile(t *testing.T, do reconcile.Func, object client.Object) reconcile.Result {
	t.Helper()
	result, err := do(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func (f *fakeCluster) cluster(t *testing.T, name string) *v1alpha1.ClusterPatternProfile {
	t.Helper()
	profile := &v1alpha1.ClusterPatternProfile{}
	if err := f.client.Get(t.Context(), types.NamespacedName{Name: name}, profile); err != nil {
		t.Fatal(err)
	}
	return profile
}
