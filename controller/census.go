package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/profiles"
)

const (
	// workloadPage is how many workloads are listed at once.
	workloadPage = 250
	// censusRest is how many times as long as a census took it is waited at least before the next, so that profiles that break or
	// are deleted one after another do not keep the API server listing workloads.
	censusRest = 4
)

// userFinder finds who asks for profiles by name: workloads, namespaces, and owners of Pods. All profiles of which it matters are
// looked for together, and what is found is remembered.
type userFinder struct {
	// live reads workloads from the API server: nothing of them is kept. cached reads the metadata of namespaces.
	live, cached client.Reader
	pods         *podCounter
	excluded     []string
	// unsettled returns the profiles of which it matters who asks.
	unsettled func() []*profiles.Profile
	// recheck is how long a census holds.
	recheck time.Duration
	now     func() time.Time

	mu   sync.Mutex // held while a census is taken: never two at once
	last *census    // nil: there was none yet
}

// census is who asks for some profiles.
type census struct {
	began, ended time.Time
	// needs are what it was taken for. One that is forgotten is to be looked for anew.
	needs  map[need]bool
	places map[string][]place // by name
	err    error
}

// need is why a census is taken. A profile that is deleted goes as soon as nobody asks for it, so that has to be looked up after
// the deletion, whatever was known while it was only broken.
type need struct {
	profile types.NamespacedName
	deleted bool
}

func needOf(served *profiles.Profile) need {
	return need{types.NamespacedName{Namespace: served.Namespace, Name: served.Name}, served.Deleted}
}

// place is who asks for a name in a namespace.
type place struct {
	namespace profiles.Namespace
	number    int
	some      []string // the first, sorted
}

// asker is one who asks: KIND NAMESPACE/NAME.
type asker struct{ kind, namespace, name string }

func (a asker) String() string {
	if a.namespace == "" {
		return a.kind + " " + a.name
	}
	return fmt.Sprintf("%s %s/%s", a.kind, a.namespace, a.name)
}

// find returns who asks for a profile, and when it is to be looked anew.
func (f *userFinder) find(ctx context.Context, snapshot *profiles.Snapshot, served *profiles.Profile) (*users, time.Duration) {
	if !f.pods.known() { // all profiles are told of when they are
		return &users{}, f.recheck
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	why := needOf(served)
	wait := f.last.wait(why, f.now(), f.recheck)
	if wait <= 0 {
		f.last = f.take(ctx, append(f.unsettled(), served))
		wait = f.last.wait(why, f.now(), f.recheck)
	}
	if f.last.err != nil {
		return &users{err: f.last.err}, wait
	}
	if !f.last.needs[why] {
		return &users{}, wait
	}
	found := &users{counted: true}
	isMeant := meaning(snapshot, served.Namespace, served.Name)
	for _, place := range f.last.places[served.Name] {
		if isMeant(place.namespace.Name) && served.Allows(place.namespace) {
			found.number += place.number
			found.asking = append(found.asking, place.some...)
		}
	}
	slices.Sort(found.asking)
	found.asking = found.asking[:min(len(found.asking), maxMessageUsers)]
	return found, max(wait, time.Millisecond)
}

// forget says that it does not matter any more who asks for a profile. Should it matter again, those who came meanwhile count.
func (f *userFinder) forget(profile types.NamespacedName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != nil {
		delete(f.last.needs, need{profile, false})
		delete(f.last.needs, need{profile, true})
	}
}

// wait returns how long to wait until the next census: until this one is too old if it tells what is needed, and never less than
// censusRest says.
func (c *census) wait(why need, now time.Time, recheck time.Duration) time.Duration {
	if c == nil {
		return 0
	}
	next := c.ended.Add(min(censusRest*c.ended.Sub(c.began), recheck))
	if old := c.began.Add(recheck); c.err == nil && c.needs[why] && old.After(next) {
		next = old
	}
	return next.Sub(now)
}

// meaning tells in which namespaces a name means the profile of a namespace, or of the cluster where that is empty.
func meaning(snapshot *profiles.Snapshot, namespace, name string) func(string) bool {
	return func(in string) bool {
		if namespace != "" {
			return in == namespace
		}
		return snapshot.Profile(in, name) == nil
	}
}

// take takes a census of profiles.
func (f *userFinder) take(ctx context.Context, all []*profiles.Profile) *census {
	c := &census{began: f.now(), needs: map[need]bool{}}
	for _, served := range all {
		c.needs[needOf(served)] = true
	}
	c.places, c.err = f.places(ctx, all)
	c.ended = f.now()
	return c
}

// places returns who asks for profiles in which namespaces, by the profiles' names.
func (f *userFinder) places(ctx context.Context, all []*profiles.Profile) (map[string][]place, error) {
	within := scopeOf(all)
	namespaces, err := f.namespaces(ctx, within)
	if err != nil {
		return nil, err
	}
	found := newAskers(all)
	for _, namespace := range namespaces {
		found.add(profiles.AskedNames(nil, namespace), asker{kind: "Namespace", name: namespace.Name})
	}
	for _, kind := range workloadKinds() {
		err := f.each(ctx, kind, within, func(object client.Object) {
			if namespace, ok := namespaces[object.GetNamespace()]; ok {
				found.addWorkload(namespace.Name, object)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	f.pods.visitAskers(found.wanted, func(profile string, owner asker) {
		if _, ok := namespaces[owner.namespace]; ok {
			found.add([]string{profile}, owner)
		}
	})
	return found.places(namespaces), nil
}

// scopeOf returns the namespace that all profiles are of, or an empty one.
func scopeOf(all []*profiles.Profile) string {
	for _, served := range all {
		if served.Namespace != all[0].Namespace {
			return ""
		}
	}
	return all[0].Namespace
}

// askers collects who asks for some names.
type askers struct {
	wanted map[string]bool
	asking map[string]map[asker]bool // by name
	// deployments are those of ReplicaSets.
	deployments map[asker]asker
}

func newAskers(all []*profiles.Profile) *askers {
	a := &askers{wanted: map[string]bool{}, asking: map[string]map[asker]bool{}, deployments: map[asker]asker{}}
	for _, served := range all {
		a.wanted[served.Name] = true
	}
	return a
}

// add adds one who asks for names, of which some may matter.
func (a *askers) add(names []string, who asker) {
	for _, name := range names {
		if !a.wanted[name] {
			continue
		}
		if a.asking[name] == nil {
			a.asking[name] = map[asker]bool{}
		}
		a.asking[name][who] = true
	}
}

// addWorkload adds a workload of a namespace.
func (a *askers) addWorkload(namespace string, object client.Object) {
	w := workloadOf(object)
	names := profiles.AskedNames(w.annotations, profiles.Namespace{})
	if !slices.ContainsFunc(names, func(name string) bool { return a.wanted[name] }) {
		return
	}
	who := asker{w.kind, namespace, object.GetName()}
	if w.creates {
		a.add(names, who)
	}
	if w.deployment != "" {
		a.deployments[who] = asker{"Deployment", namespace, w.deployment}
	}
}

// places returns who asks. What a Deployment that asks has is not named beside it.
func (a *askers) places(namespaces map[string]profiles.Namespace) map[string][]place {
	places := map[string][]place{}
	for name, asking := range a.asking {
		texts := map[string][]string{} // by namespace
		for who := range asking {
			if deployment, ok := a.deployments[who]; ok && asking[deployment] {
				continue
			}
			in := who.namespace
			if in == "" {
				in = who.name
			}
			texts[in] = append(texts[in], who.String())
		}
		for in, all := range texts {
			slices.Sort(all)
			places[name] = append(places[name], place{namespaces[in], len(all), slices.Clone(all[:min(len(all), maxMessageUsers)])})
		}
	}
	return places
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

// each visits all objects of a kind, page by page. There are none of a kind that the API server does not have.
func (f *userFinder) each(ctx context.Context, kind workloadKind, namespace string, visit func(client.Object)) error {
	next := ""
	for {
		list := kind.newList()
		err := f.live.List(ctx, list, client.InNamespace(namespace), client.Limit(workloadPage), client.Continue(next))
		if meta.IsNoMatchError(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the %ss: %w", kind.kind, err)
		}
		err = meta.EachListItem(list, func(object runtime.Object) error {
			if object, ok := object.(client.Object); ok {
				visit(object)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read a list of %ss: %w", kind.kind, err)
		}
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
}
