package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestPodsAreCounted(t *testing.T) {
	const both = `{"site":{"kind":"GitSync","revision":"new"},"cache":{"revision":"c1"}}`
	const insideShop = `{"site":{"revision":"new","namespace":"shop"},"cache":{"revision":"c1"}}`
	ending := wovenPod("shop", "ending", both)
	ending.DeletionTimestamp = new(metav1.Now())
	unmarked := wovenPod("shop", "unmarked", both)
	unmarked.Labels = nil
	twice := wovenPod("shop", "twice", `{"site":{"revision":"old"}}`)
	twice.Annotations[v1alpha1.InjectedKey+".2"] = `{"cache":{"revision":"c1"}}`
	twice.Annotations[v1alpha1.InjectedKey+".10"] = `{"cache":{"revision":"c2"}}`
	long := wovenPod("shop", "long", `{"cache":{"revision":"c1"}}`)
	long.Annotations[v1alpha1.InjectedKey+".2"] = `{"site":{"revision":"new"}` + strings.Repeat(" ", profiles.MaxMarkBytes) + `}`
	long.Annotations[v1alpha1.InjectedKey+".3"] = `{"site":{"revision":"new"}}`
	tests := map[string]struct {
		pods          []*metav1.PartialObjectMetadata
		current, rest int32 // of site at revision new
		cache         int32 // of cache at revision c1
		names         int   // of profiles in all, unless zero
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
			pods:  []*metav1.PartialObjectMetadata{wovenPod("shop", "a", insideShop)},
			cache: 1,
		},
		"a Pod that was woven several times": {pods: []*metav1.PartialObjectMetadata{twice}, rest: 1},
		"a Pod that is being deleted":        {pods: []*metav1.PartialObjectMetadata{ending}},
		"a Pod without the mark":             {pods: []*metav1.PartialObjectMetadata{unmarked}},
		"a mark that cannot be read":         {pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", `["forged"]`)}},
		"a mark of a profile of another namespace": {
			pods: []*metav1.PartialObjectMetadata{wovenPod("evil", "a", insideShop)}, names: 1,
			cache: 1,
		},
		"a mark with names that no profile can have": {
			pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", `{"none":{},"Site":{},"a/b":{},"":{},"`+strings.Repeat("a", 41)+
				`":{},"cache":{"revision":"c1"}}`)},
			cache: 1, names: 1,
		},
		"a mark with a revision that is none": {
			pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", `{"site":{"revision":"`+strings.Repeat("a", 65)+`"}}`)},
		},
		"a mark of more profiles than a Pod can have": {
			pods: []*metav1.PartialObjectMetadata{wovenPod("shop", "a", forgedMark(1000, 0))}, names: maxMarkProfiles,
		},
		"marks of which the second is too long": {
			pods: []*metav1.PartialObjectMetadata{long}, cache: 1, names: 1,
		},
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
			if test.names != 0 && len(index.carried) != test.names {
				t.Errorf("%d names are counted", len(index.carried))
			}
			for _, pod := range test.pods {
				index.remove(pod)
			}
			if diff := cmp.Diff(*newPodIndex(), *index, cmp.AllowUnexported(podIndex{}, podKey{}, indexedPod{}, podShape{})); diff != "" {
				t.Errorf("something is left when all Pods are gone:\n%s", diff)
			}
		})
	}
}

func TestPodsThatAskAreKnownByTheirOwner(t *testing.T) {
	tests := map[string]struct {
		kind, owner, asks string
		want              asker
	}{
		"of any kind":                   {kind: "Rollout", owner: "web", asks: "site, cache", want: asker{"Rollout", "shop", "web"}},
		"of a ReplicaSet":               {kind: "ReplicaSet", owner: "web-1", asks: "site", want: asker{"ReplicaSet", "shop", "web-1"}},
		"of an owner with another name": {kind: "TaskRun", owner: "build-1", asks: "site", want: asker{"TaskRun", "shop", "build-1"}},
		"of an owner whose name and kind nothing can have": {
			kind: strings.Repeat("K", 1000), owner: strings.Repeat("o", 1000), asks: "site",
			want: asker{strings.Repeat("K", maxOwnerKind), "shop", strings.Repeat("o", maxOwnerName)},
		},
		"of nobody":                      {asks: "site"},
		"that ask for something else":    {kind: "Rollout", owner: "web", asks: "cache"},
		"that ask for more than any may": {kind: "Rollout", owner: "web", asks: "site" + strings.Repeat(",site", 32)},
		"that decline":                   {kind: "Rollout", owner: "web", asks: "none"},
		"whose namespace asked for them": {kind: "Rollout", owner: "web"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			index := newPodIndex()
			for i := range 3 {
				pod := wovenPod("shop", fmt.Sprint("web-1-", i), `{"site":{"revision":"1"}}`)
				if test.asks != "" {
					pod.Annotations[v1alpha1.InjectKey] = test.asks
				}
				if test.kind != "" {
					pod.OwnerReferences = []metav1.OwnerReference{{Kind: test.kind, Name: test.owner, Controller: new(true)}}
				}
				index.put(pod)
			}
			want := map[asker]bool{}
			if test.want != (asker{}) {
				want[test.want] = true
			}
			if diff := cmp.Diff(want, askersOf(index, "site")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPodThatChangesItsOwnerAsksForTheNewOne(t *testing.T) {
	index := newPodIndex()
	pod := wovenPod("shop", "web", `{"site":{"revision":"1"}}`)
	pod.Annotations[v1alpha1.InjectKey] = "site"
	for _, owner := range []string{"first", "second"} {
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "Rollout", Name: owner, Controller: new(true)}}
		index.put(pod)
	}
	if got := askersOf(index, "site"); len(got) != 1 || !got[asker{"Rollout", "shop", "second"}] {
		t.Errorf("%v", got)
	}
}

// askersOf returns the owners of Pods that ask for a profile.
func askersOf(index *podIndex, profile string) map[asker]bool {
	askers := map[asker]bool{}
	index.visitAskers(map[string]bool{profile: true}, func(_ string, owner asker) { askers[owner] = true })
	return askers
}

// forgedMark is a mark of profiles of as many different names, which no other number's has.
func forgedMark(profiles, number int) string {
	var mark strings.Builder
	mark.WriteString("{")
	for i := range profiles {
		fmt.Fprintf(&mark, `"%x-%x":{},`, number, i)
	}
	return strings.TrimSuffix(mark.String(), ",") + "}"
}

// wovenPod is the metadata of a Pod with a mark.
func wovenPod(namespace, name, injected string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.InjectedKey: "true"},
		Annotations: map[string]string{v1alpha1.InjectedKey: injected},
	}}
}
