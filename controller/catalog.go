package controller

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// catalog is what all profiles come to together. What becomes of one may depend on others: on those that it comes after, and on
// those that had a right to an entry before it. So they are compiled in one place, each when it changes, and those that have
// changed, or become something else because others have, are told to whoever keeps their status.
type catalog struct {
	reader   client.Reader
	compiler *profiles.Compiler
	options  profiles.Options

	// clusterChanged and namespacedChanged tell of profiles, planChanged that the entries may have to be others.
	clusterChanged, namespacedChanged chan event.GenericEvent
	planChanged                       *signal

	mu       sync.RWMutex
	compiled map[types.NamespacedName]compiledProfile
	snapshot *profiles.Snapshot // nil until all profiles have been read
}

// compiledProfile is what an object compiles to by itself.
type compiledProfile struct {
	version string
	state   state
	profile *profiles.Profile
}

// state is all of an object that what it compiles to depends on.
type state struct {
	uid               types.UID
	generation        int64
	lastGood          [sha256.Size]byte
	settled           bool
	deleted, released bool
}

func newCatalog(reader client.Reader, excluded []string) (*catalog, error) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	const buffer = 1024
	return &catalog{
		reader:            reader,
		compiler:          compiler,
		options:           profiles.Options{ExcludedNamespaces: excluded},
		clusterChanged:    make(chan event.GenericEvent, buffer),
		namespacedChanged: make(chan event.GenericEvent, buffer),
		planChanged:       newSignal(),
		compiled:          map[types.NamespacedName]compiledProfile{},
	}, nil
}

// stateOf returns the state of a profile.
func stateOf(o profileObject) state {
	s := state{
		uid:        o.GetUID(),
		generation: o.GetGeneration(),
		settled:    o.status.ObservedGeneration >= o.GetGeneration(),
		deleted:    o.GetDeletionTimestamp() != nil,
		released:   isReleased(o),
	}
	if good := o.status.LastGood; good != nil {
		s.lastGood = sha256.Sum256(fmt.Appendf(nil, "%d %s", good.Generation, good.Spec.Raw))
	}
	return s
}

// isReleased tells whether an administrator says that the profile is to serve nobody by an earlier spec, or while it is deleted.
func isReleased(o client.Object) bool { return o.GetAnnotations()[v1alpha1.ReleaseKey] == "true" }

// current returns the snapshot of all profiles; nil if they have not all been read yet.
func (c *catalog) current() *profiles.Snapshot {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.snapshot
}

// serves returns the snapshot of all profiles, and what of it serves under the name of one. It is false if the profile as it is
// here is not in the snapshot yet: it will be told of.
func (c *catalog) serves(o profileObject) (*profiles.Snapshot, *profiles.Profile, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	compiled, ok := c.compiled[client.ObjectKeyFromObject(o)]
	if !ok || c.snapshot == nil || compiled.state != stateOf(o) {
		return nil, nil, false
	}
	served := c.snapshot.Profile(o.GetNamespace(), o.GetName())
	return c.snapshot, served, served != nil
}

// Reconcile makes a snapshot of the profiles as the cache has them, and tells what has changed.
func (c *catalog) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	objects, err := c.objects(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	before := c.current()
	compiled, changed := c.compile(objects)
	if before != nil && len(changed) == 0 {
		return reconcile.Result{}, nil
	}
	all := make([]*profiles.Profile, 0, len(compiled))
	for _, o := range objects {
		all = append(all, compiled[client.ObjectKeyFromObject(o)].profile)
	}
	next := profiles.NewSnapshot(c.options, all)

	c.mu.Lock()
	c.compiled, c.snapshot = compiled, next
	c.mu.Unlock()
	names := map[string]bool{} // that other profiles of the same name are told of, whose Pods may have to be counted otherwise
	for key := range changed {
		names[key.Name] = true
	}
	for _, o := range objects {
		if key := client.ObjectKeyFromObject(o); names[key.Name] || viewOf(before, key) != viewOf(next, key) {
			c.tell(ctx, o)
		}
	}
	c.planChanged.tell()
	return reconcile.Result{}, nil
}

// profiles returns what all profiles compile to by themselves.
func (c *catalog) profiles() []*profiles.Profile {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*profiles.Profile, 0, len(c.compiled))
	for _, compiled := range c.compiled {
		all = append(all, compiled.profile)
	}
	return all
}

// objects returns all profiles. Nothing of them is changed or kept.
func (c *catalog) objects(ctx context.Context) ([]profileObject, error) {
	cluster, namespaced := &v1alpha1.ClusterPatternProfileList{}, &v1alpha1.PatternProfileList{}
	if err := c.reader.List(ctx, cluster, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the ClusterPatternProfiles: %w", err)
	}
	if err := c.reader.List(ctx, namespaced, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the PatternProfiles: %w", err)
	}
	objects := make([]profileObject, 0, len(cluster.Items)+len(namespaced.Items))
	for i := range cluster.Items {
		objects = append(objects, clusterObject(&cluster.Items[i]))
	}
	for i := range namespaced.Items {
		objects = append(objects, namespacedObject(&namespaced.Items[i]))
	}
	return objects, nil
}

// compile compiles what it has not compiled before, and returns which have changed, come or gone.
func (c *catalog) compile(objects []profileObject) (map[types.NamespacedName]compiledProfile, map[types.NamespacedName]bool) {
	compiled := make(map[types.NamespacedName]compiledProfile, len(objects))
	changed := map[types.NamespacedName]bool{}
	for _, o := range objects {
		key := client.ObjectKeyFromObject(o)
		known, ok := c.compiled[key]
		switch {
		case ok && known.version == o.GetResourceVersion() && known.version != "":
		case ok && known.state == stateOf(o):
			known.version = o.GetResourceVersion()
		default:
			compiler := c.compiler
			if ok && known.state.uid == o.GetUID() {
				compiler = compiler.Since(known.profile)
			}
			known = compiledProfile{version: o.GetResourceVersion(), state: stateOf(o), profile: o.compile(compiler)}
			changed[key] = true
		}
		compiled[key] = known
	}
	for key := range c.compiled {
		if _, ok := compiled[key]; !ok {
			changed[key] = true
		}
	}
	return compiled, changed
}

// view is all of a profile in a snapshot that its status tells.
type view struct {
	kind              v1alpha1.PatternKind
	revision          string
	generation        int64
	problems, broken  string
	deleted           bool
	selection, reason string
	readers           string
}

func viewOf(snapshot *profiles.Snapshot, key types.NamespacedName) view {
	if snapshot == nil {
		return view{}
	}
	served := snapshot.Profile(key.Namespace, key.Name)
	if served == nil {
		return view{}
	}
	v := view{
		kind: served.Kind, revision: served.Revision, generation: served.Generation, deleted: served.Deleted,
		problems: linesOf(served.Problems), broken: linesOf(served.Broken), readers: strings.Join(snapshot.Readers(served), " "),
	}
	selection, refusal := snapshot.Plan().Of(served)
	if selection != nil {
		v.selection = selection.ID()
	}
	if refusal != nil {
		v.reason = refusal.Message
	}
	return v
}

// tell asks for the status of a profile to be kept.
func (c *catalog) tell(ctx context.Context, o profileObject) {
	changed := c.clusterChanged
	if o.GetNamespace() != "" {
		changed = c.namespacedChanged
	}
	select {
	case changed <- event.GenericEvent{Object: o.Object}:
	case <-ctx.Done():
	}
}

// tellCounts asks for the status of profiles to be kept, by the names that Pods carry and the Pods' namespaces, or of all
// profiles if changed is nil. It is false if it is not known yet which profiles they are.
func (c *catalog) tellCounts(ctx context.Context, changed []types.NamespacedName) bool {
	snapshot := c.current()
	if snapshot == nil {
		return false
	}
	if changed == nil {
		c.mu.RLock()
		changed = slices.Collect(maps.Keys(c.compiled))
		c.mu.RUnlock()
	}
	for _, key := range changed {
		if snapshot.Profile(key.Namespace, key.Name) == nil {
			continue
		}
		meta := metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
		if key.Namespace == "" {
			c.tell(ctx, clusterObject(&v1alpha1.ClusterPatternProfile{ObjectMeta: meta}))
		} else {
			c.tell(ctx, namespacedObject(&v1alpha1.PatternProfile{ObjectMeta: meta}))
		}
	}
	return true
}

// unsettled returns the profiles of which it matters who asks for them: those that are deleted or broken, and not released.
func (c *catalog) unsettled() []*profiles.Profile {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var all []*profiles.Profile
	for key, compiled := range c.compiled { // made together with the snapshot
		served := c.snapshot.Profile(key.Namespace, key.Name)
		if served != nil && needsUsers(served) && !compiled.state.released {
			all = append(all, served)
		}
	}
	return all
}

// profileObject is a profile of either kind.
type profileObject struct {
	client.Object

	status  *v1alpha1.ProfileStatus
	spec    any
	compile func(*profiles.Compiler) *profiles.Profile
}

func clusterObject(profile *v1alpha1.ClusterPatternProfile) profileObject {
	return profileObject{profile, &profile.Status, &profile.Spec, func(c *profiles.Compiler) *profiles.Profile {
		return c.Cluster(profile)
	}}
}

func namespacedObject(profile *v1alpha1.PatternProfile) profileObject {
	return profileObject{profile, &profile.Status, &profile.Spec, func(c *profiles.Compiler) *profiles.Profile {
		return c.Namespaced(profile)
	}}
}
