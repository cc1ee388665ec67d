package webhook

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
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
	live     client.Reader
	compiler *profiles.Compiler
	options  profiles.Options

	snapshot atomic.Pointer[profiles.Snapshot]
	unknown  *utilcache.LRUExpireCache

	namespaces sync.Map // of the labels, map[string]string, by name

	mu       sync.Mutex
	compiled map[profileKey]*compiledProfile
	changed  chan struct{}

	certificateChanged chan struct{}
}

type profileKey struct{ namespace, name string }

// compiledProfile is what the informers' caches hold in place of a profile: what is read of its metadata, and what it compiles to.
type compiledProfile struct {
	metav1.ObjectMeta
	profile *profiles.Profile
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

// newInformed returns a Cluster whose memory fills once start is called.
func newInformed(restConfig *rest.Config, options RunOptions) (*informed, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	secret := cache.ByObject{Namespaces: map[string]cache.Config{options.Namespace: {
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, options.CertificateSecret),
	}}}
	configuration := cache.ByObject{Field: fields.OneTermEqualSelector(metav1.ObjectNameField, options.WebhookConfiguration)}
	shared := true // readers neither change nor keep what they get
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, err
	}
	cluster := &informed{
		compiler: compiler, options: options.Profiles,
		unknown:  utilcache.NewLRUExpireCache(unknownNames),
		compiled: map[profileKey]*compiledProfile{},
		changed:  make(chan struct{}, 1),

		certificateChanged: make(chan struct{}, 1),
	}
	cluster.snapshot.Store(profiles.NewSnapshot(options.Profiles, nil))
	cluster.cache, err = cache.New(restConfig, cache.Options{
		Scheme:                       scheme,
		DefaultTransform:             cluster.keep,
		DefaultUnsafeDisableDeepCopy: &shared,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: secret,
			&admissionregistrationv1.MutatingWebhookConfiguration{}: configuration,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a cache: %w", err)
	}
	if cluster.live, err = client.New(restConfig, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return cluster, nil
}

// keep returns what the informers' caches hold of an object: of a profile what it compiles to, of others what is read.
func (c *informed) keep(object any) (any, error) {
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		object.ManagedFields, object.Annotations, object.OwnerReferences, object.Finalizers = nil, nil, nil, nil
	case *v1alpha1.PatternProfile:
		return c.compile(&object.ObjectMeta, func() *profiles.Profile { return c.compiler.Namespaced(object) }), nil
	case *v1alpha1.ClusterPatternProfile:
		return c.compile(&object.ObjectMeta, func() *profiles.Profile { return c.compiler.Cluster(object) }), nil
	}
	return object, nil
}

// compile compiles a profile, unless only its status or metadata have changed.
func (c *informed) compile(meta *metav1.ObjectMeta, compile func() *profiles.Profile) *compiledProfile {
	c.mu.Lock()
	before := c.compiled[profileKey{meta.Namespace, meta.Name}]
	c.mu.Unlock()
	compiled := &compiledProfile{ObjectMeta: metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, Generation: meta.Generation, ResourceVersion: meta.ResourceVersion,
	}}
	if before != nil && before.UID == meta.UID && before.Generation == meta.Generation {
		compiled.profile = before.profile
	} else {
		compiled.profile = compile()
	}
	return compiled
}

// start fills the memory and returns once it holds all that the API server had. It is kept current until ctx ends.
func (c *informed) start(ctx context.Context) error {
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
	var registrations []toolscache.ResourceEventHandlerRegistration
	for _, watched := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&v1alpha1.ClusterPatternProfile{}, changed},
		{&v1alpha1.PatternProfile{}, changed},
		{namespaceObject(), changed},
		{&corev1.Secret{}, certificateChanged},
		{&admissionregistrationv1.MutatingWebhookConfiguration{}, certificateChanged},
	} {
		informer, err := c.cache.GetInformer(ctx, watched.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", watched.object, err)
		}
		registration, err := informer.AddEventHandler(watched.handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", watched.object, err)
		}
		registrations = append(registrations, registration)
	}
	failed := make(chan error, 1)
	go func() { failed <- c.cache.Start(ctx) }()
	if !c.cache.WaitForCacheSync(ctx) {
		select {
		case err := <-failed:
			return fmt.Errorf("start the cache: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	synced := make([]toolscache.InformerSynced, len(registrations))
	for i := range registrations {
		synced[i] = registrations[i].HasSynced
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	c.rebuild()
	go c.follow(ctx)
	return nil
}

// follow makes a new snapshot whenever profiles have changed; changes that come together make one.
func (c *informed) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
			c.rebuild()
		}
	}
}

func (c *informed) rebuild() {
	c.mu.Lock()
	all := make([]*profiles.Profile, 0, len(c.compiled))
	for _, compiled := range c.compiled {
		all = append(all, compiled.profile)
	}
	c.mu.Unlock()
	c.snapshot.Store(profiles.NewSnapshot(c.options, all))
}

// put takes a profile or namespace that was added or changed.
func (c *informed) put(object any) {
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		c.namespaces.Store(object.Name, object.Labels)
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
	labels, known := c.namespaces.Load(name)
	if !known {
		return profiles.Namespace{}, false
	}
	return profiles.Namespace{Name: name, Labels: labels.(map[string]string)}, true //nolint:forcetypeassert // nothing else is stored
}

// Live reads a namespace and profiles from the API server. Names that were not there a moment ago are not asked for again.
func (c *informed) Live(ctx context.Context, namespace string, names []string) (profiles.Namespace, []*profiles.Profile, error) {
	object := namespaceObject()
	if err := c.live.Get(ctx, client.ObjectKey{Name: namespace}, object); err != nil {
		return profiles.Namespace{}, nil, fmt.Errorf("get namespace %s: %w", namespace, err)
	}
	var read []*profiles.Profile
	for _, name := range names {
		key := profileKey{namespace, name}
		if _, remembered := c.unknown.Get(key); remembered {
			continue
		}
		found, err := c.liveProfiles(ctx, key)
		if err != nil {
			return profiles.Namespace{}, nil, err
		}
		if len(found) == 0 {
			c.unknown.Add(key, struct{}{}, unknownFor)
		}
		read = append(read, found...)
	}
	return profiles.Namespace{Name: namespace, Labels: object.Labels}, read, nil
}

// liveProfiles reads the profiles that a name may mean in a namespace.
func (c *informed) liveProfiles(ctx context.Context, key profileKey) ([]*profiles.Profile, error) {
	var found []*profiles.Profile
	namespaced := &v1alpha1.PatternProfile{}
	err := c.live.Get(ctx, client.ObjectKey{Namespace: key.namespace, Name: key.name}, namespaced)
	if err == nil {
		found = append(found, c.compiler.Namespaced(namespaced))
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get PatternProfile %s/%s: %w", key.namespace, key.name, err)
	}
	cluster := &v1alpha1.ClusterPatternProfile{}
	err = c.live.Get(ctx, client.ObjectKey{Name: key.name}, cluster)
	if err == nil {
		found = append(found, c.compiler.Cluster(cluster))
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get ClusterPatternProfile %s: %w", key.name, err)
	}
	return found, nil
}
