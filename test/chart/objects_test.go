package chart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// inventory is every object of the cluster, by its resource, namespace and name, with its uid. Those that come and go by
// themselves are not in it.
func inventory(ctx context.Context) (map[string]string, error) {
	lists, err := server.Clientset.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("find out what kinds there are: %w", err)
	}
	all := map[string]string{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for i := range list.APIResources {
			resource := &list.APIResources[i]
			if !slices.Contains(resource.Verbs, "list") || resource.Name == "events" || resource.Name == "componentstatuses" {
				continue
			}
			found, err := objects.Resource(version.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", resource.Name, err)
			}
			for i := range found.Items {
				item := &found.Items[i]
				all[strings.TrimSuffix(resource.Name+" "+item.GetNamespace()+"/"+item.GetName(), "/")] = string(item.GetUID())
			}
		}
	}
	return all, nil
}

// added returns what there is now and was not before, but for what the API server makes by itself.
func added(t *testing.T, before map[string]string) []string {
	t.Helper()
	now, err := inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(now, func(key, uid string) bool {
		return before[key] == uid || strings.Contains(key, " kube-system/") || strings.HasPrefix(key, "apiservices ") ||
			strings.HasPrefix(key, "flowschemas ") || strings.HasPrefix(key, "prioritylevelconfigurations ")
	})
	return slices.Sorted(maps.Keys(now))
}

func awaitNothing(t *testing.T, what string, get func(context.Context) error) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		err := get(ctx)
		return apierrors.IsNotFound(err), fmt.Errorf("%s is still there: %w", what, err)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// finishNamespace does what the controller manager does with a namespace that is deleted: it deletes what is in it, and lets it
// go. What waits for somebody is an error.
func finishNamespace(ctx context.Context, name string) error {
	object, err := server.Clientset.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case object.DeletionTimestamp == nil:
		return fmt.Errorf("nobody has deleted namespace %s", name)
	}
	lists, err := server.Clientset.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		return err
	}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for i := range list.APIResources {
			if slices.Contains(list.APIResources[i].Verbs, "deletecollection") {
				if err := empty(ctx, version.WithResource(list.APIResources[i].Name), name); err != nil {
					return err
				}
			}
		}
	}
	object.Spec.Finalizers = nil
	_, err = server.Clientset.CoreV1().Namespaces().Finalize(ctx, object, metav1.UpdateOptions{})
	return client.IgnoreNotFound(err)
}

// empty deletes all objects of a kind in a namespace.
func empty(ctx context.Context, resource schema.GroupVersionResource, name string) error {
	within, zero := objects.Resource(resource).Namespace(name), int64(0)
	err := within.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, listAll)
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) { // its definition goes as well
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete the %s of namespace %s: %w", resource.Resource, name, err)
	}
	left, err := within.List(ctx, listAll)
	if err == nil && len(left.Items) > 0 {
		return fmt.Errorf("%d %s of namespace %s wait for somebody", len(left.Items), resource.Resource, name)
	}
	return client.IgnoreNotFound(err)
}

// finishNamespaces finishes every namespace that is deleted, until the test ends.
func finishNamespaces(t *testing.T) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		var last error
		for ctx.Err() == nil {
			list, err := server.Clientset.CoreV1().Namespaces().List(ctx, listAll)
			if err != nil {
				continue
			}
			last = nil
			for i := range list.Items {
				if list.Items[i].DeletionTimestamp != nil {
					last = errors.Join(last, finishNamespace(ctx, list.Items[i].Name))
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond): // as the watch of a controller would lag
			}
		}
		ended <- last
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("a namespace does not go: %v", err)
		}
	})
}

// awaitFinished returns once a namespace is gone.
func awaitFinished(t *testing.T, name string) {
	t.Helper()
	awaitNothing(t, "namespace "+name, func(ctx context.Context) error {
		return server.Client.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{})
	})
}

// removeNamespace deletes a namespace with all that is in it.
func removeNamespace(t *testing.T, name string) {
	t.Helper()
	err := server.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	awaitFinished(t, name)
}

// restrict lets only Pods of Pod Security restricted into Pillion's namespace, which helm made.
func restrict(t *testing.T) {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json", []byte(
		`{"metadata": {"labels": {
			"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"
		}}}`))
	err := server.Client.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, patch)
	if err != nil {
		t.Fatal(err)
	}
}

// createDefaultAccounts does what the controller manager does in every namespace; without its default ServiceAccount no Pod is
// let in.
func createDefaultAccounts(t *testing.T, namespaces ...string) {
	t.Helper()
	for _, name := range namespaces {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}}
		if err := server.Client.Create(t.Context(), account); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

// countQuota does what the controller manager does with a ResourceQuota: without a status no Pod that it is for is let in.
func countQuota(t *testing.T) {
	t.Helper()
	quotas := &corev1.ResourceQuotaList{}
	if err := server.Client.List(t.Context(), quotas, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	for i := range quotas.Items {
		quota := &quotas.Items[i]
		quota.Status.Hard, quota.Status.Used = quota.Spec.Hard.DeepCopy(), quota.Spec.Hard.DeepCopy()
		for name, used := range quota.Status.Used {
			used.Set(0)
			quota.Status.Used[name] = used
		}
		if err := server.Client.Status().Update(t.Context(), quota); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	patternProfiles = schema.GroupVersionResource{Group: "pillion.dev", Version: "v1alpha1", Resource: "patternprofiles"}
	listAll         = metav1.ListOptions{}
)
