package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// retryConflict is how long to wait after somebody else wrote at the same time, for the cache to show what.
const retryConflict = time.Second

// profileReconciler keeps the status of profiles.
type profileReconciler struct {
	client   client.Client
	compiler *profiles.Compiler
	desired  *desired
	now      func() time.Time
}

// reconcileCluster keeps the status of a ClusterPatternProfile.
func (r *profileReconciler) reconcileCluster(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	profile := &v1alpha1.ClusterPatternProfile{}
	if err := r.client.Get(ctx, request.NamespacedName, profile); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	refused, serving, err := r.servesCluster(ctx, profile)
	if err != nil {
		return reconcile.Result{}, err
	}
	before := profile.DeepCopy()
	profile.Status = statusOf(
		profile.Status, profile.Generation, r.compiler.Cluster(profile), refused, serving, metav1.NewTime(r.now()))
	return r.write(ctx, profile, before, equality.Semantic.DeepEqual(before.Status, profile.Status))
}

// reconcileNamespaced keeps the status of a PatternProfile.
func (r *profileReconciler) reconcileNamespaced(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	profile := &v1alpha1.PatternProfile{}
	if err := r.client.Get(ctx, request.NamespacedName, profile); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	refused, serving, err := r.servesNamespaced(ctx, profile)
	if err != nil {
		return reconcile.Result{}, err
	}
	before := profile.DeepCopy()
	profile.Status = statusOf(
		profile.Status, profile.Generation, r.compiler.Namespaced(profile), refused, serving, metav1.NewTime(r.now()))
	return r.write(ctx, profile, before, equality.Semantic.DeepEqual(before.Status, profile.Status))
}

// servesCluster tells whether the Pods that the profile's match chooses are sent to the webhook.
func (r *profileReconciler) servesCluster(
	ctx context.Context, profile *v1alpha1.ClusterPatternProfile,
) (*refusal, verdict, error) {
	if profile.Spec.Match == nil {
		return nil, ready(), nil
	}
	p, err := r.desired.plan(ctx)
	if err != nil {
		return nil, verdict{}, err
	}
	if refused, ok := p.refused[profile.Name]; ok {
		return &refused, verdict{}, nil
	}
	serving, err := r.desired.serves(ctx, p, p.cluster[profile.Name])
	return nil, serving, err
}

// servesNamespaced tells whether the Pods that the profile's match chooses are sent to the webhook.
func (r *profileReconciler) servesNamespaced(
	ctx context.Context, profile *v1alpha1.PatternProfile,
) (*refusal, verdict, error) {
	if slices.Contains(r.desired.excluded, profile.Namespace) {
		return nil, verdict{reason: ReasonNamespaceExcluded, message: fmt.Sprintf(
			"Pillion is configured never to touch Pods of namespace %s.", profile.Namespace)}, nil
	}
	if profile.Spec.Match == nil {
		return nil, ready(), nil
	}
	if errs := validateMatch(&v1alpha1.ClusterMatch{PodSelector: profile.Spec.Match.PodSelector}); len(errs) > 0 {
		return &refusal{ReasonInvalidSelector, errs.ToAggregate().Error()}, verdict{}, nil
	}
	p, err := r.desired.plan(ctx)
	if err != nil {
		return nil, verdict{}, err
	}
	serving, err := r.desired.serves(ctx, p, p.inside[policyOf(&profile.Spec.ProfileSpec)])
	return nil, serving, err
}

// write writes the status if it changed, unless somebody else changed the profile meanwhile.
func (r *profileReconciler) write(ctx context.Context, profile, before client.Object, same bool) (reconcile.Result, error) {
	if same {
		return reconcile.Result{}, nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	err := r.client.Status().Patch(ctx, profile, patch)
	switch {
	case apierrors.IsNotFound(err): // deleted meanwhile
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("write the profile's status: %w", err)
	}
	return reconcile.Result{}, nil
}

// clusterMatching requests every ClusterPatternProfile with match: their status follows from the webhook configuration.
func (r *profileReconciler) clusterMatching(ctx context.Context, _ client.Object) []reconcile.Request {
	list := &v1alpha1.ClusterPatternProfileList{}
	if err := r.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache was synced before the first event: it does not fail
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Spec.Match != nil {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// namespacedMatching requests every PatternProfile with match.
func (r *profileReconciler) namespacedMatching(ctx context.Context, _ client.Object) []reconcile.Request {
	list := &v1alpha1.PatternProfileList{}
	if err := r.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache was synced before the first event: it does not fail
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Spec.Match != nil {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
