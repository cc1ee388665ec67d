package controller

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/profiles"
)

// workloadPage is how many workloads are listed at once.
const workloadPage = 250

// userFinder finds who asks for a profile by name: workloads, namespaces, and owners of Pods of kinds that it does not know.
type userFinder struct {
	// live reads workloads from the API server: nothing of them is kept. cached reads the metadata of namespaces.
	live, cached client.Reader
	pods         *podCounter
	excluded     []string
}

// find returns who asks for a profile.
func (f *userFinder) find(ctx context.Context, snapshot *profiles.Snapshot, served *profiles.Profile) (*users, error) {
	namespaces, err := f.namespaces(ctx, served.Namespace)
	if err != nil {
		return nil, err
	}
	isMeant := meaning(snapshot, served.Namespace, served.Name)
	chosen := func(namespace string) bool {
		known, ok := namespaces[namespace]
		return ok && isMeant(namespace) && served.Allows(known)
	}
	found := &users{}
	for name, namespace := range namespaces {
		if chosen(name) && slices.Contains(profiles.AskedNames(nil, namespace), served.Name) {
			found.asking = append(found.asking, "Namespace "+name)
		}
	}
	for _, newList := range workloadLists() {
		err := f.each(ctx, newList, served.Namespace, func(object client.Object) {
			w := workloadOf(object)
			names := profiles.AskedNames(w.annotations, profiles.Namespace{})
			if w.creates && slices.Contains(names, served.Name) && chosen(object.GetNamespace()) {
				found.asking = append(found.asking, fmt.Sprintf("%s %s/%s", w.kind, object.GetNamespace(), object.GetName()))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	owners, counted := f.pods.askers(served.Name, chosen)
	found.asking, found.counted = append(found.asking, owners...), counted
	slices.Sort(found.asking)
	return found, nil
}

// namespaces returns the namespaces in which Pods may be created, or the one that is named.
func (f *userFinder) namespaces(ctx context.Context, only string) (map[string]profiles.Namespace, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := f.cached.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list the namespaces: %w", err)
	}
	found := map[string]profiles.Namespace{}
	for i := range list.Items {
		namespace := &list.Items[i]
		if (only == "" || only == namespace.Name) && namespace.DeletionTimestamp == nil &&
			!slices.Contains(f.excluded, namespace.Name) {
			found[namespace.Name] = profiles.Namespace{Name: namespace.Name, Labels: namespace.Labels}
		}
	}
	return found, nil
}

// terminating tells whether a namespace is about to go, or gone.
func (f *userFinder) terminating(ctx context.Context, name string) (bool, error) {
	if name == "" {
		return false, nil
	}
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	err := f.cached.Get(ctx, types.NamespacedName{Name: name}, namespace)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read namespace %s: %w", name, err)
	}
	return namespace.DeletionTimestamp != nil, nil
}

// each visits all objects of a kind, page by page.
func (f *userFinder) each(
	ctx context.Context, newList func() client.ObjectList, namespace string, visit func(client.Object),
) error {
	next := ""
	for {
		list := newList()
		err := f.live.List(ctx, list, client.InNamespace(namespace), client.Limit(workloadPage), client.Continue(next))
		if err != nil {
			return fmt.Errorf("list workloads: %w", err)
		}
		err = meta.EachListItem(list, func(object runtime.Object) error {
			if object, ok := object.(client.Object); ok {
				visit(object)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read a list of workloads: %w", err)
		}
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
}

// workloadLists are the kinds that create Pods from a template, or create what does.
func workloadLists() []func() client.ObjectList {
	return []func() client.ObjectList{
		func() client.ObjectList { return &appsv1.DeploymentList{} },
		func() client.ObjectList { return &appsv1.StatefulSetList{} },
		func() client.ObjectList { return &appsv1.DaemonSetList{} },
		func() client.ObjectList { return &appsv1.ReplicaSetList{} },
		func() client.ObjectList { return &batchv1.JobList{} },
		func() client.ObjectList { return &batchv1.CronJobList{} },
	}
}

// workload is what is read of one.
type workload struct {
	kind string
	// annotations are those of its Pods.
	annotations map[string]string
	// creates says that it may create Pods, and that no other workload that is looked at stands behind it.
	creates bool
}

func workloadOf(object client.Object) workload {
	switch object := object.(type) {
	case *appsv1.Deployment:
		return workload{"Deployment", object.Spec.Template.Annotations, true}
	case *appsv1.StatefulSet:
		return workload{"StatefulSet", object.Spec.Template.Annotations, true}
	case *appsv1.DaemonSet:
		return workload{"DaemonSet", object.Spec.Template.Annotations, true}
	case *appsv1.ReplicaSet:
		owner := metav1.GetControllerOf(object)
		// A Deployment speaks for its own. Whatever else has some keeps old ones, too, which have no replicas.
		creates := owner == nil || (owner.Kind != "Deployment" && (object.Spec.Replicas == nil || *object.Spec.Replicas > 0))
		return workload{"ReplicaSet", object.Spec.Template.Annotations, creates}
	case *batchv1.Job:
		return workload{"Job", object.Spec.Template.Annotations, !isFinished(object)}
	case *batchv1.CronJob:
		return workload{"CronJob", object.Spec.JobTemplate.Spec.Template.Annotations, true}
	default:
		return workload{}
	}
}

func isFinished(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(condition batchv1.JobCondition) bool {
		ended := condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed
		return ended && condition.Status == corev1.ConditionTrue
	})
}
