package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/reconnect"
)

const (
	// unknownFor is how long a name that does not exist is remembered, so that Pods which ask for it in vain do not make us
	// ask the API server each time.
	unknownFor = time.Second
	// unknownNames bounds how many such names are remembered.
	unknownNames = 4096
)

// informed is the Cluster of a webhook that runs in one: informers keep its memory current.
type informed struct {
	cache    cache.Cache
	live     client.Reader // the API server itself
	compiler *profiles.Compiler
	options  profiles.Options

	snapshot atomic.Pointer[profiles.Snapshot]
	rebuilt  atomic.Int64 // when, in nanoseconds since 1970
	contact  *contact
	unknown  *utilcache.LRUExpireCache

	namespaces sync.Map // profiles.Namespace by name

	mu       sync.Mutex
	compiled map[profileKey]*compiledProfile
	changed  chan struct{}

	certificateChanged chan struct{}

	metrics *Metrics // nil: nobody counts
	logger  *slog.Logger
}

type profileKey struct{ namespace, name string }

// compiledProfile is what the informers' caches hold in place of a profile: what is read of its metadata, and what it compiles
// to.
type compiledProfile struct {
	metav1.ObjectMeta
	source  source
	profile *profiles.Profile
}

// source is what the compilation of a profile depends on, as far as it can change: while it is the same, so is what it compiles
// to.
type source struct {
	uid        types.UID
	generation int64
	lastGood   int64 // its generation; 0: there is none
	isObserved bool  // the controller has seen the spec
	isDeleted  bool
	release    string // the value of the annotation
}

func sourceOf(meta *metav1.ObjectMeta, status *v1alpha1.ProfileStatus) source {
	s := source{
		uid: meta.UID, generation: meta.Generation, isObserved: status.ObservedGeneration >= meta.Generation,
		isDeleted: meta.DeletionTimestamp != nil, release: meta.Annotations[v1alpha1.ReleaseKey],
	}
	if status.LastGood != nil {
		s.lastGood = status.LastGood.Generation
	}
	return s
}

// namespaceObject is what is read of a namespace: its metadata.
func namespaceObject() *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return object
}

// newScheme returns a scheme of what the webhook reads, and no more: registered types take memory.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, admissionregistrationv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the types that the webhook reads: %w", err)
		}
	}
	return scheme, nil
}

// newMemory returns a Cluster that is connected to nothing and knows nothing.
func newMemory(options profiles.Options) (*informed, error) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, err
	}
	c := &informed{
		compiler: compiler, options: options,
		contact:  newContact("clusterpatternprofiles", "patternprofiles", "namespaces"),
		unknown:  utilcache.NewLRUExpireCache(unknownNames),
		compiled: map[profileKey]*compiledProfile{},
		changed:  make(chan struct{}, 1),

		certificateChanged: make(chan struct{}, 1),
		logger:             slog.New(slog.DiscardHandler),
	}
	c.rebuild()
	return c, nil
}

// newInformed returns a Cluster whose memory fills once its cache is started.
func newInformed(restConfig *rest.Config, options RunOptions) (*informed, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	cluster, err := newMemory(options.Profiles)
	if err != nil {
		return nil, err
	}
	cluster.logger = options.Logger
	secret := cache.ByObject{Namespaces: map[string]cache.Config{options.Namespace: {
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, options.CertificateSecret),
	}}}
	configuration := cache.ByObject{Field: fields.OneTermEqualSelector(metav1.ObjectNameField, options.WebhookConfiguration)}
	followed := rest.CopyConfig(restConfig)
	followed.Wrap(cluster.contact.wrap)
	httpClient, err := rest.HTTPClientFor(restConfig)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	mapper, err := reconnect.Mapper(restConfig, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	cluster.cache, err = cache.New(followed, cache.Options{
		Scheme:                       scheme,
		Mapper:                       mapper,
		NewInformer:                  reconnect.NewInformer,
		DefaultTransform:             cluster.keep,
		DefaultUnsafeDisableDeepCopy: new(true), // readers neither change nor keep what they get
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: secret,
			&admissionregistrationv1.MutatingWebhookConfiguration{}:   configuration,
			&admissionregistrationv1.ValidatingWebhookConfiguration{}: configuration,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a cache: %w", err)
	}
	if cluster.live, err = client.New(restConfig, client.Options{HTTPClient: httpClient, Scheme: scheme, Mapper: mapper}); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return cluster, nil
}

// keep returns what the informers' caches hold of an object: of a profile what it compiles to, of others what is read.
func (c *informed) keep(object any) (any, error) {
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		object.ManagedFields, object.OwnerReferences, object.Finalizers = nil, nil, nil
		delete(object.Annotations, corev1.LastAppliedConfigAnnotation) // the manifest over again
	case *v1alpha1.PatternProfile:
		return c.namespaced(object), nil
	case *v1alpha1.ClusterPatternProfile:
		return c.cluster(object), nil
	}
	return object, nil
}

func (c *informed) namespaced(object *v1alpha1.PatternProfile) *compiledProfile {
	return c.compile(&object.ObjectMeta, &object.Status, func(compiler *profiles.Compiler) *profiles.Profile {
		return compiler.Namespaced(object)
	})
}

func (c *informed) cluster(object *v1alpha1.ClusterPatternProfile) *compiledProfile {
	return c.compile(&object.ObjectMeta, &object.Status, func(compiler *profiles.Compiler) *profiles.Profile {
		return compiler.Cluster(object)
	})
}

// compile compiles a profile, unless nothing has changed that it depends on. Where the spec has become one that cannot be used,
// what memory has goes on serving until the controller has told the last good one in the status.
func (c *informed) compile(
	meta *metav1.ObjectMeta, status *v1alpha1.ProfileStatus, compile func(*profiles.Compiler) *profiles.Profile,
) (compiled *compiledProfile) {
	c.mu.Lock()
	before := c.compiled[profileKey{meta.Namespace, meta.Name}]
	c.mu.Unlock()
	compiled = &compiledProfile{source: sourceOf(meta, status), ObjectMeta: metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, Generation: meta.Generation, ResourceVersion: meta.ResourceVersion,
	}}
	// A profile that makes compiling panic would end every replica, and again when it starts: it cannot be used, and no more.
	defer c.guard("compile a profile", func() {
		compiled.profile = unusable(meta)
		if before != nil && before.UID == meta.UID {
			compiled.profile = before.profile
		}
	})
	switch {
	case before != nil && before.source == compiled.source:
		compiled.profile = before.profile
	case before != nil && before.UID == meta.UID:
		compiled.profile = profiles.Keep(before.profile, compile(c.compiler.Since(before.profile)))
	default:
		compiled.profile = compile(c.compiler)
	}
	return compiled
}

// unusable returns the profile of one that could not be compiled.
func unusable(meta *metav1.ObjectMeta) *profiles.Profile {
	return &profiles.Profile{
		Namespace: meta.Namespace, Name: meta.Name, Generation: meta.Generation,
		Problems: field.ErrorList{field.InternalError(nil, errors.New("compiling it panicked"))},
	}
}

// guard is deferred where no request can be hurt: a panic is counted and logged, and otherwise says what holds instead.
func (c *informed) guard(doing string, otherwise func()) {
	cause := recover()
	if cause == nil {
		return
	}
	c.metrics.panicked()
	c.logger.Error("panic", "doing", doing, "cause", causeOf(cause), "stack", string(debug.Stack()))
	otherwise()
}

// watch says what the memory follows. It returns what tells that the memory holds all that the API server had; run fills it.
func (c *informed) watch(ctx context.Context) (synced []toolscache.InformerSynced, err error) {
	certificateChanged := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify(c.certificateChanged) },
		UpdateFunc: func(any, any) { notify(c.certificateChanged) },
		DeleteFunc: func(any) { notify(c.certificateChanged) },
	}
	changed := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    c.put,
		UpdateFunc: func(_, object any) { c.put(object) },
		DeleteFunc: c.remove,
	}
	for _, watched := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&v1alpha1.ClusterPatternProfile{}, changed},
		{&v1alpha1.PatternProfile{}, changed},
		{namespaceObject(), changed},
		{&corev1.Secret{}, certificateChanged},
		{&admissionregistrationv1.MutatingWebhookConfiguration{}, certificateChanged},
		{&admissionregistrationv1.ValidatingWebhookConfiguration{}, certificateChanged},
	} {
		informer, err := c.cache.GetInformer(ctx, watched.object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", watched.object, err)
		}
		registration, err := informer.AddEventHandler(watched.handler)
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", watched.object, err)
		}
		synced = append(synced, registration.HasSynced)
	}
	return synced, nil
}

// awaitSync returns once the memory holds all that the API server had when it was first read.
func (c *informed) awaitSync(ctx context.Context, synced []toolscache.InformerSynced) error {
	if !c.cache.WaitForCacheSync(ctx) || !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("read profiles and namespaces: %w", context.Cause(ctx))
	}
	c.rebuild()
	return nil
}

// settled is how long profiles have to stay as they are for what their changes left behind to be given back to the system.
const settled = 2 * time.Second

// follow makes a new snapshot whenever profiles have changed; changes that come together make one.
func (c *informed) follow(ctx context.Context) {
	quiet := time.NewTimer(settled)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
			c.rebuild()
			quiet.Reset(settled)
		case <-quiet.C:
			debug.FreeOSMemory() // compiling leaves much garbage behind, and requests little
		}
	}
}

// rebuild makes a snapshot of the profiles in memory. If that panics, the one before goes on serving.
func (c *informed) rebuild() {
	defer c.guard("make a snapshot of the profiles", func() {})
	c.mu.Lock()
	all := make([]*profiles.Profile, 0, len(c.compiled))
	for _, compiled := range c.compiled {
		all = append(all, compiled.profile)
	}
	c.mu.Unlock()
	c.snapshot.Store(profiles.NewSnapshot(c.options, all))
	c.rebuilt.Store(time.Now().UnixNano())
}

// lastChange returns when the profiles in memory last changed.
func (c *informed) lastChange() time.Time { return time.Unix(0, c.rebuilt.Load()) }

// put takes a profile or namespace that was added or changed.
func (c *informed) put(object any) {
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		c.namespaces.Store(object.Name, namespaceOf(object))
	case *compiledProfile:
		key := profileKey{object.Namespace, object.Name}
		c.mu.Lock()
		before := c.compiled[key]
		c.compiled[key] = object
		c.mu.Unlock()
		if before == nil || before.profile != object.profile {
			notify(c.changed)
		}
	}
}

// remove takes leave of a profile or namespace.
func (c *informed) remove(object any) {
	if tombstone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		c.namespaces.Delete(object.Name)
	case *compiledProfile:
		c.mu.Lock()
		delete(c.compiled, profileKey{object.Namespace, object.Name})
		c.mu.Unlock()
		notify(c.changed)
	}
}

// notify says that something has changed, unless that has been said and not been heard yet.
func notify(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

// Snapshot returns the profiles in memory.
func (c *informed) Snapshot() *profiles.Snapshot { return c.snapshot.Load() }

// Namespace returns what memory has of a namespace.
func (c *informed) Namespace(name string) (profiles.Namespace, bool) {
	namespace, known := c.namespaces.Load(name)
	if !known {
		return profiles.Namespace{}, false
	}
	return namespace.(profiles.Namespace), true //nolint:forcetypeassert // nothing else is stored
}

// namespaceOf returns what decisions know of a namespace. It shares what the object holds.
func namespaceOf(object *metav1.PartialObjectMetadata) profiles.Namespace {
	return profiles.Namespace{Name: object.Name, Labels: object.Labels, Annotations: object.Annotations}
}

// Live reads a namespace and profiles from the API server. Names that were not there a moment ago, or not for the namespace, are
// not asked for again.
func (c *informed) Live(
	ctx context.Context, namespace string, names []string, policy bool,
) (profiles.Namespace, []*profiles.Profile, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, remembered := c.unknown.Get(profileKey{namespace, name})
		return remembered
	})
	if known, ok := c.Namespace(namespace); ok && len(names) == 0 && !policy && c.recentlyRead(namespace) {
		return known, nil, nil
	}
	object := namespaceObject()
	if err := c.live.Get(ctx, client.ObjectKey{Name: namespace}, object); err != nil {
		return profiles.Namespace{}, nil, fmt.Errorf("get namespace %s: %w", namespace, err)
	}
	delete(object.Annotations, corev1.LastAppliedConfigAnnotation)
	current := namespaceOf(object)
	var read []*profiles.Profile
	for _, name := range names {
		found, err := c.liveProfiles(ctx, profileKey{namespace, name})
		if err != nil {
			return profiles.Namespace{}, nil, err
		}
		if !slices.ContainsFunc(found, func(profile *profiles.Profile) bool { return profile.Allows(current) }) {
			c.unknown.Add(profileKey{namespace, name}, struct{}{}, unknownFor)
			c.unknown.Add(namespaceKey(namespace), struct{}{}, unknownFor)
		}
		read = append(read, found...)
	}
	if policy {
		all, err := c.livePolicy(ctx)
		if err != nil {
			return profiles.Namespace{}, nil, err
		}
		read = append(read, all...)
	}
	return current, read, nil
}

// namespaceKey remembers that a namespace was read while a name was not found for it.
type namespaceKey string

func (c *informed) recentlyRead(namespace string) bool {
	_, remembered := c.unknown.Get(namespaceKey(namespace))
	return remembered
}

// livePolicy reads all ClusterPatternProfiles. Those that memory has are not compiled again.
func (c *informed) livePolicy(ctx context.Context) ([]*profiles.Profile, error) {
	list := &v1alpha1.ClusterPatternProfileList{}
	if err := c.live.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list ClusterPatternProfiles: %w", err)
	}
	read := make([]*profiles.Profile, len(list.Items))
	for i := range list.Items {
		read[i] = c.cluster(&list.Items[i]).profile
	}
	return read, nil
}

// liveProfiles reads the profiles that a name may mean in a namespace.
func (c *informed) liveProfiles(ctx context.Context, key profileKey) ([]*profiles.Profile, error) {
	var found []*profiles.Profile
	namespaced := &v1alpha1.PatternProfile{}
	err := c.live.Get(ctx, client.ObjectKey{Namespace: key.namespace, Name: key.name}, namespaced)
	if err == nil {
		found = append(found, c.namespaced(namespaced).profile)
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get PatternProfile %s/%s: %w", key.namespace, key.name, err)
	}
	cluster := &v1alpha1.ClusterPatternProfile{}
	err = c.live.Get(ctx, client.ObjectKey{Name: key.name}, cluster)
	if err == nil {
		found = append(found, c.cluster(cluster).profile)
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get ClusterPatternProfile %s: %w", key.name, err)
	}
	return found, nil
}
