package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func TestPodsAreCounted(t *testing.T) {
	const both = `{"site":{"kind":"GitSync","revision":"new"},"cache":{"revision":"c1"}}`
	ending := wovenPod("shop", "ending", both)
	ending.DeletionTimestamp = new(metav1.Now())
	unmarked := wovenPod("shop", "unmarked", both)
	unmarked.Labels = nil
	twice := wovenPod("shop", "twice", `{"site":{"revision":"old"}}`)
	twice.Annotations[v1alpha1.InjectedKey+".2"] = `{"cache":{"revision":"c1"}}`
	twice.Annotations[v1alpha1.InjectedKey+".10"] = `{"cache":{"revision":"c2"}}`
	tests := map[string]struct {
		pods          []*metav1.PartialObjectMetadata
		current, rest int32 // of site at revision new
		cache         int32 // of cache at revision c1
	}{
		"Pods of the current revision and of others": {
			pods: []*metav1.PartialObjectMetadata{
				wovenPod("shop", "a", both), wovenPod("shop", "b", both), wovenPod("blog", "a", `{"site":{"revision":"old"}}`),
			},
			current: 2, rest: 1, cache: 2,
		},
		"a Pod that changed a field carries the profile's revision": {
			pods:    []*metav1.PartialObjectMetadata{wovenPod("shop", "a", `{"site":{"revision":"its own","profile":"new"}}`)},
			current: 1,
		},
		"a Pod that carries a namespace's own profile of the name": {
			pods:  []*metav1.PartialObjectMetadata{wovenPod("shop", "a", `{"site":{"revision":"new","namespace":"shop"},"cache":{"revision":"c1"}}`)},
			cache: 1,
		},
		"a Pod that was woven several times": {pods: []*metav1.PartialObjectMetadata{twice}, rest: 1},
		"a Pod that is being deleted":        {pods: []*metav1.PartialObjectMetadata{ending}},
		"a Pod without the mark":             {pods: []*metav1.PartialObjectMetadata{unmarked}},
		"a mark that cannot be read":         {pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", `["forged"]`)}},
		"a Pod that is told of twice": {
			pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", both), wovenPod("shop", "a", both)}, current: 1, cache: 1,
		},
		"a Pod whose mark changes": {
			pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", both), wovenPod("shop", "a", `{"site":{"revision":"x"}}`)},
			rest: 1,
		},
		"a Pod that begins to be deleted": {pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "ending", both), ending}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			index := newPodIndex()
			for _, pod := range test.pods {
				index.put(pod)
			}
			site, cache := index.counts(types.NamespacedName{Name: "site"}, "new"), index.counts(types.NamespacedName{Name: "cache"}, "c1")
			if site.Current != test.current || site.Outdated != test.rest || cache.Current != test.cache {
				t.Errorf("site %+v, cache %+v", site, cache)
			}
			for _, pod := range test.pods {
				index.remove(pod)
			}
			if diff := cmp.Diff(*newPodIndex(), *index, cmp.AllowUnexported(podIndex{}, podKey{}, podShape{})); diff != "" {
				t.Errorf("something is left when all Pods are gone:\n%s", diff)
			}
		})
	}
}

func TestPodsThatAskAreKnownByTheOwnerThatIsNotLookedAt(t *testing.T) {
	tests := map[string]struct {
		apiVersion, kind string
		asks             string
		want             string
	}{
		"of a kind that is not known":   {apiVersion: "example.com/v1", kind: "Rollout", asks: "site, cache", want: "Rollout shop/web"},
		"of a ReplicaSet":               {apiVersion: "apps/v1", kind: "ReplicaSet", asks: "site"},
		"of another's ReplicaSet":       {apiVersion: "example.com/v1", kind: "ReplicaSet", asks: "site", want: "ReplicaSet shop/web"},
		"of a Job":                      {apiVersion: "batch/v1", kind: "Job", asks: "site"},
		"of a kind of the core group":   {apiVersion: "v1", kind: "Set", asks: "site", want: "Set shop/web"},
		"of nobody":                     {asks: "site"},
		"that ask for something else":   {apiVersion: "example.com/v1", kind: "Rollout", asks: "cache"},
		"whose namespace asked for all": {apiVersion: "example.com/v1", kind: "Rollout"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			index := newPodIndex()
			for i := range 3 {
				pod := wovenPod("shop", fmt.Sprint(i), `{"site":{"revision":"1"}}`)
				if test.asks != "" {
					pod.Annotations[v1alpha1.InjectKey] = test.asks
				}
				if test.kind != "" {
					pod.OwnerReferences = []metav1.OwnerReference{{
						APIVersion: test.apiVersion, Kind: test.kind, Name: "web", Controller: new(true),
					}}
				}
				index.put(pod)
			}
			askers := index.askers("site", func(in string) bool { return in == "shop" })
			if got := strings.Join(askers, ", "); got != test.want {
				t.Errorf("%q ask, want %q", got, test.want)
			}
			if got := index.askers("site", func(string) bool { return false }); len(got) > 0 {
				t.Errorf("%q ask elsewhere", got)
			}
		})
	}
}

// wovenPod is the metadata of a Pod with a mark.
func wovenPod(namespace, name, injected string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.InjectedKey: "true"},
		Annotations: map[string]string{v1alpha1.InjectedKey: injected},
	}}
}
