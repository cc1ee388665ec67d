package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// retryConflict is how long to wait after somebody else wrote at the same time, for the cache to show what.
const retryConflict = time.Second

// profileReconciler keeps the status of profiles, and their finalizer.
type profileReconciler struct {
	client  client.Client
	catalog *catalog
	desired *desired
	pods    *podCounter
	finder  *userFinder
	now     func() time.Time
	// isRemade tells whether a profile is made again when it is deleted, and whether that is known: if not, it will be told of.
	isRemade func(profileObject) (isRemade, known bool)

	// countsInterval is how often the status of one profile is written for nothing but its numbers of Pods.
	countsInterval time.Duration

	mu      sync.Mutex
	counted map[types.UID]time.Time // when counts were last written
}

// reconcileCluster keeps the status of a ClusterPatternProfile.
func (r *profileReconciler) reconcileCluster(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	return r.reconcile(ctx, request, clusterObject(&v1alpha1.ClusterPatternProfile{}))
}

// reconcileNamespaced keeps the status of a PatternProfile.
func (r *profileReconciler) reconcileNamespaced(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	return r.reconcile(ctx, request, namespacedObject(&v1alpha1.PatternProfile{}))
}

func (r *profileReconciler) reconcile(ctx context.Context, request reconcile.Request, o profileObject) (reconcile.Result, error) {
	if err := r.client.Get(ctx, request.NamespacedName, o.Object); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	snapshot, served, ok := r.catalog.serves(o)
	if !ok {
		return reconcile.Result{}, nil // it will be told of
	}
	if served.Deleted {
		if free, err := r.isFree(ctx, o, served); err != nil || free {
			return r.release(ctx, o, err)
		}
	}
	seen, err := r.observe(ctx, o, snapshot, served)
	if err != nil {
		return reconcile.Result{}, err
	}
	if served.Deleted && !seen.users.any() {
		return r.release(ctx, o, nil)
	}
	result, err := r.write(ctx, o, seen)
	if err != nil || seen.users == nil {
		return result, err
	}
	if seen.users.err != nil { // what else is known has been written
		return reconcile.Result{}, seen.users.err
	}
	if result.RequeueAfter == 0 || seen.lookAgain < result.RequeueAfter {
		result.RequeueAfter = seen.lookAgain
	}
	return result, nil
}

// observe collects what the profile's status follows from.
func (r *profileReconciler) observe(
	ctx context.Context, o profileObject, snapshot *profiles.Snapshot, served *profiles.Profile,
) (*observation, error) {
	seen := &observation{
		generation: o.GetGeneration(), spec: o.spec, released: isReleased(o),
		served: served, serving: ready(), now: metav1.NewTime(r.now()),
		pods: r.pods.of(o.GetNamespace(), o.GetName(), served.Revision),
	}
	selection, refused := snapshot.Plan().Of(served)
	seen.refused = refused
	var err error
	switch {
	case slices.Contains(r.desired.excluded, o.GetNamespace()):
		seen.serving = verdict{reason: ReasonNamespaceExcluded, message: fmt.Sprintf(
			"Pillion is configured never to touch Pods of namespace %s.", o.GetNamespace())}
	case selection != nil:
		if seen.serving, err = r.desired.serves(ctx, snapshot.Plan(), selection); err != nil {
			return nil, err
		}
	}
	if seen.released || !needsUsers(served) {
		r.finder.forget(client.ObjectKeyFromObject(o))
		return seen, nil
	}
	seen.users, seen.lookAgain = r.finder.find(ctx, snapshot, served)
	seen.users.policy = selection != nil
	seen.users.readers = snapshot.Readers(served)
	return seen, nil
}

// isFree tells whether a deleted profile need not be kept, whoever asks for it.
func (r *profileReconciler) isFree(ctx context.Context, o profileObject, served *profiles.Profile) (bool, error) {
	if isReleased(o) || len(served.Problems) > 0 {
		return true, nil
	}
	return r.finder.terminating(ctx, o.GetNamespace())
}

// release takes the finalizer off a deleted profile.
func (r *profileReconciler) release(ctx context.Context, o profileObject, err error) (reconcile.Result, error) {
	if err != nil {
		return reconcile.Result{}, err
	}
	return r.changeFinalizers(ctx, o, controllerutil.RemoveFinalizer)
}

// changeFinalizers adds or removes the finalizer, if that changes anything.
func (r *profileReconciler) changeFinalizers(
	ctx context.Context, o profileObject, change func(client.Object, string) bool,
) (reconcile.Result, error) {
	before, _ := o.DeepCopyObject().(client.Object)
	if !change(o.Object, v1alpha1.InUseFinalizer) {
		return reconcile.Result{}, nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	return written(r.client.Patch(ctx, o.Object, patch), "the profile's finalizers")
}

// write writes the finalizer and the status if they have to change, unless somebody else changed the profile meanwhile.
func (r *profileReconciler) write(ctx context.Context, o profileObject, seen *observation) (reconcile.Result, error) {
	// Somebody may come to ask for it; but nothing is to wait for that of the self-check when Pillion is uninstalled.
	isRemade, known := r.isRemade(o)
	if len(seen.served.Problems) == 0 && !seen.served.Deleted && !isSelfCheck(o) && known {
		change := controllerutil.AddFinalizer
		if isRemade {
			change = controllerutil.RemoveFinalizer
		}
		if result, err := r.changeFinalizers(ctx, o, change); err != nil || result.RequeueAfter > 0 {
			return result, err
		}
	}
	before, _ := o.DeepCopyObject().(client.Object)
	status, err := statusOf(o.status, seen)
	if err != nil || equality.Semantic.DeepEqual(*o.status, status) {
		return reconcile.Result{}, err
	}
	if sameButCounts(o.status, &status, equality.Semantic.DeepEqual) {
		if wait := r.untilCounts(o.GetUID()); wait > 0 {
			return reconcile.Result{RequeueAfter: wait}, nil
		}
	}
	*o.status = status
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	return written(r.client.Status().Patch(ctx, o.Object, patch), "the profile's status")
}

// untilCounts returns how long to wait until counts may be written; zero, and remembers it, if they may be now.
func (r *profileReconciler) untilCounts(profile types.UID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if wait := r.counted[profile].Add(r.countsInterval).Sub(now); wait > 0 {
		return wait
	}
	for uid, when := range r.counted { // profiles that are gone are forgotten with those that have been quiet
		if now.Sub(when) > r.countsInterval {
			delete(r.counted, uid)
		}
	}
	r.counted[profile] = now
	return 0
}

// written returns what follows from the outcome of a write.
func written(err error, what string) (reconcile.Result, error) {
	switch {
	case apierrors.IsNotFound(err): // deleted meanwhile
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("write %s: %w", what, withoutValues(err))
	}
	return reconcile.Result{}, nil
}

// withoutValues returns an error that names the fields that the API server finds invalid and not what they hold, as its own words do:
// errors are logged, and a profile's values are not for logs. Every other error is returned as it is.
func withoutValues(err error) error {
	status := apierrors.APIStatus(nil)
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return err
	}
	var fields []string
	for _, cause := range status.Status().Details.Causes {
		fields = append(fields, fmt.Sprintf("%s (%s)", cause.Field, cause.Type))
	}
	return fmt.Errorf("the API server finds fields invalid: %s", strings.Join(fields, ", "))
}

// clusterMatching requests every ClusterPatternProfile with match: their status follows from the webhook configurations.
func (r *profileReconciler) clusterMatching(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.requests(ctx, func(o profileObject, served *profiles.Profile, plan *profiles.Plan) bool {
		selection, _ := plan.Of(served)
		return o.GetNamespace() == "" && selection != nil
	})
}

// namespacedMatching requests every PatternProfile with match.
func (r *profileReconciler) namespacedMatching(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.requests(ctx, func(o profileObject, served *profiles.Profile, plan *profiles.Plan) bool {
		selection, _ := plan.Of(served)
		return o.GetNamespace() != "" && selection != nil
	})
}

// deletedInside requests the deleted PatternProfiles of a namespace that is about to go, which waits for them.
func (r *profileReconciler) deletedInside(ctx context.Context, namespace client.Object) []reconcile.Request {
	if namespace.GetDeletionTimestamp() == nil {
		return nil
	}
	return r.requests(ctx, func(o profileObject, _ *profiles.Profile, _ *profiles.Plan) bool {
		return o.GetNamespace() == namespace.GetName() && o.GetDeletionTimestamp() != nil
	})
}

// requests returns those for the profiles that are chosen.
func (r *profileReconciler) requests(
	ctx context.Context, choose func(profileObject, *profiles.Profile, *profiles.Plan) bool,
) []reconcile.Request {
	snapshot := r.catalog.current()
	objects, err := r.catalog.objects(ctx)
	if err != nil || snapshot == nil { // the cache was synced before the first event: it does not fail
		return nil
	}
	var requests []reconcile.Request
	for _, o := range objects {
		served := snapshot.Profile(o.GetNamespace(), o.GetName())
		if served != nil && choose(o, served, snapshot.Plan()) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		}
	}
	return requests
}
