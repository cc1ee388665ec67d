package controller

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func TestTheCatalogTellsOfThoseThatBecomeSomethingElse(t *testing.T) {
	dependent := gitSyncProfile(withoutMatch(clusterProfile("dependent", "", "", "")))
	dependent.Spec.After = []string{"base"}
	bystander := gitSyncProfile(clusterProfile("bystander", v1alpha1.FailurePolicyIgnore, "env=prod", ""))
	inside := namespacedProfile("shop", "inside", v1alpha1.FailurePolicyIgnore)
	inside.Spec.GitSync = gitSync()
	f := newFakeCluster(t, func(err error) error { return err }, dependent, bystander, &inside)
	base := gitSyncProfile(withoutMatch(clusterProfile("base", "", "", "")))
	shadow := namespacedProfile("shop", "bystander", v1alpha1.FailurePolicyIgnore)
	shadow.Spec.GitSync = gitSync()
	for _, step := range []struct {
		name     string
		do       func() error
		want     []string
		withPlan bool
	}{
		{"at first of all", func() error { return nil }, []string{"bystander", "dependent", "shop/inside"}, true},
		{"of none when nothing changed", func() error { return nil }, nil, false},
		{"of those that come after a profile that is there now", func() error {
			return f.client.Create(t.Context(), base)
		}, []string{"base", "dependent"}, true},
		{"of none when only metadata changed", func() error {
			base.Labels = map[string]string{"a": "b"}
			return f.client.Update(t.Context(), base)
		}, nil, false},
		{"of one that is released", func() error {
			base.Annotations = map[string]string{v1alpha1.ReleaseKey: "true"}
			return f.client.Update(t.Context(), base)
		}, []string{"base"}, true},
		{"of one whose last good spec was written", func() error {
			bystander.Status.LastGood = &v1alpha1.LastGood{Generation: 1, Spec: apiextensionsv1.JSON{Raw: []byte(`{}`)}}
			return f.client.Status().Update(t.Context(), bystander)
		}, []string{"bystander"}, true},
		{"of a namesake, whose Pods are counted otherwise", func() error {
			return f.client.Create(t.Context(), &shadow)
		}, []string{"bystander", "shop/bystander"}, true},
		{"of those that came after a profile that is gone", func() error {
			return f.client.Delete(t.Context(), base)
		}, []string{"dependent"}, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			f.settle(t)
			if diff := cmp.Diff(step.want, told(f.catalog)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, channel := range []chan event.GenericEvent{f.catalog.planChanged.mutating, f.catalog.planChanged.validating} {
				if got := len(channel) == 1; got != step.withPlan {
					t.Errorf("told of the plan: %v", got)
				}
				for len(channel) > 0 {
					<-channel
				}
			}
		})
	}
}

func TestAChangeOfOneProfileOfManyTellsOfNoOther(t *testing.T) {
	const many = 300
	objects := make([]client.Object, 0, many)
	for i := range many {
		name, selector := fmt.Sprintf("p%03d", i), fmt.Sprintf("n=%d", i)
		objects = append(objects, gitSyncProfile(clusterProfile(name, v1alpha1.FailurePolicyIgnore, selector, "")))
	}
	f := newFakeCluster(t, func(err error) error { return err }, objects...)
	f.settle(t)
	if got := len(told(f.catalog)); got != many {
		t.Fatalf("told of %d", got)
	}
	changed := f.cluster(t, "p123")
	changed.Spec.GitSync.Ref = "v2"
	changed.Generation++
	if err := f.client.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	f.settle(t)
	if diff := cmp.Diff([]string{"p123"}, told(f.catalog)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// told returns the profiles that were told of, sorted.
func told(c *catalog) []string {
	var names []string
	for _, channel := range []chan event.GenericEvent{c.clusterChanged, c.namespacedChanged} {
		for len(channel) > 0 {
			o := (<-channel).Object
			name := o.GetName()
			if o.GetNamespace() != "" {
				name = o.GetNamespace() + "/" + name
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
