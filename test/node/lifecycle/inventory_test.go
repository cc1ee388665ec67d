package lifecycle_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// inventory is every object of the cluster, by its resource, namespace and name, with its uid. Events are not in it, nor what
// tests make in namespaces of their own.
func inventory(ctx context.Context) (map[string]string, error) {
	quiet := rest.CopyConfig(cluster.Config)
	quiet.WarningHandler = rest.NoWarnings{} // of kinds that are listed for being there
	objects, err := dynamic.NewForConfig(quiet)
	if err != nil {
		return nil, err
	}
	lists, err := cluster.Clientset.Discovery().ServerPreferredResources()
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
				key := resource.Name + " " + item.GetName()
				if item.GetNamespace() != "" {
					key = resource.Name + " " + item.GetNamespace() + "/" + item.GetName()
				}
				all[key] = string(item.GetUID())
			}
		}
	}
	maps.DeleteFunc(all, func(key, _ string) bool {
		return strings.Contains(key, " test-") || strings.HasPrefix(key, "namespaces test-")
	})
	return all, nil
}

// checkLeft compares what is in the cluster with what was before Pillion was: there is to be what is documented, and nothing
// else.
func checkLeft(t *testing.T, documented ...string) {
	t.Helper()
	cluster.Eventually(t, "the end of what goes", func(ctx context.Context) error { // controllers clean up behind it
		now, err := inventory(ctx)
		if err != nil {
			return err
		}
		maps.DeleteFunc(now, func(key, uid string) bool { return pristine[key] == uid || isKubernetesOwn(key) })
		for _, key := range documented {
			if _, ok := now[key]; !ok {
				return fmt.Errorf("%s is gone; there is %q", key, slices.Sorted(maps.Keys(now)))
			}
			delete(now, key)
		}
		if len(now) > 0 {
			return fmt.Errorf("it leaves %q", slices.Sorted(maps.Keys(now)))
		}
		return nil
	})
}

// isKubernetesOwn tells of what the control plane makes in its own time.
func isKubernetesOwn(key string) bool {
	for _, own := range []string{
		"apiservices ", "flowschemas ", "prioritylevelconfigurations ", "podmetrics ",
		" kube-system/", " kube-public/", " kube-node-lease/", " default/",
	} {
		if strings.HasPrefix(key, own) || (strings.HasPrefix(own, " ") && strings.Contains(key, own)) {
			return true
		}
	}
	return false
}
