package webhook

import (
	"context"
	"fmt"
	"maps"
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

	mu       sync.Mutex
	compiled map[profileKey]*profiles.Profile
	changed  chan struct{}

	certificateChanged chan struct{}
}

type profileKey struct{ namespace, name string }

// namespaceObject is what is kept of a namespace: its metadata.
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
	c, err := cache.New(restConfig, cache.Options{
		Scheme:                       scheme,
		DefaultTransform:             dropUnread,
		DefaultUnsafeDisableDeepCopy: &shared,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: secret,
			&admissionregistrationv1.MutatingWebhookConfiguration{}: configuration,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a cache: %w", err)
	}
	live, err := client.New(restConfig, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, err
	}
	cluster := &informed{
		cache: c, live: live, compiler: compiler, options: options.Profiles,
		unknown:  utilcache.NewLRUExpireCache(unknownNames),
		compiled: map[profileKey]*profiles.Profile{},
		changed:  make(chan struct{}, 1),

		certificateChanged: make(chan struct{}, 1),
	}
	cluster.snapshot.Store(profiles.NewSnapshot(options.Profiles, nil))
	return cluster, nil
}

// dropUnread removes what the webhook never reads from the objects that it keeps.
func dropUnread(object any) (any, error) {
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		object.ManagedFields, object.Annotations, object.OwnerReferences, object.Finalizers = nil, nil, nil, nil
	case *v1alpha1.PatternProfile:
		object.ManagedFields, object.Annotations, object.Status = nil, nil, v1alpha1.ProfileStatus{}
	case *v1alpha1.ClusterPatternProfile:
		object.ManagedFields, object.Annotations, object.Status = nil, nil, v1alpha1.ProfileStatus{}
	}
	return object, nil
}

// start fills the memory and returns once it holds all that the API server had. It is kept current until ctx ends.
func (c *informed) start(ctx context.Context) error {
	var registrations []toolscache.ResourceEventHandlerRegistration
	for _, object := range []client.Object{&v1alpha1.ClusterPatternProfile{}, &v1alpha1.PatternProfile{}} {
		informer, err := c.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch profiles: %w", err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { c.put(object) },
			UpdateFunc: func(_, object any) { c.put(object) },
			DeleteFunc: c.remove,
		})
		if err != nil {
			return fmt.Errorf("watch profiles: %w", err)
		}
		registrations = append(registrations, registration)
	}
	if _, err := c.cache.GetInformer(ctx, namespaceObject(), cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch namespaces: %w", err)
	}
	for _, object := range []client.Object{&corev1.Secret{}, &admissionregistrationv1.MutatingWebhookConfiguration{}} {
		informer, err := c.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch the certificate: %w", err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify(c.certificateChanged) },
			UpdateFunc: func(any, any) { notify(c.certificateChanged) },
			DeleteFunc: func(any) { notify(c.certificateChanged) },
		})
		if err != nil {
			return fmt.Errorf("watch the certificate: %w", err)
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
	all := slices.Collect(maps.Values(c.compiled))
	c.mu.Unlock()
	c.snapshot.Store(profiles.NewSnapshot(c.options, all))
}

// put compiles a profile that was added or changed.
func (c *informed) put(object any) {
	var profile *profiles.Profile
	switch object := object.(type) {
	case *v1alpha1.ClusterPatternProfile:
		profile = c.compiler.Cluster(object)
	case *v1alpha1.PatternProfile:
		profile = c.compiler.Namespaced(object)
	default:
		return
	}
	c.mu.Lock()
	c.compiled[profileKey{profile.Namespace, profile.Name}] = profile
	c.mu.Unlock()
	notify(c.changed)
}

func (c *informed) remove(object any) {
	if tombstone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	if metadata, ok := object.(metav1.Object); ok {
		c.mu.Lock()
		delete(c.compiled, profileKey{metadata.GetNamespace(), metadata.GetName()})
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
	object := namespaceObject()
	if err := c.cache.Get(context.Background(), client.ObjectKey{Name: name}, object); err != nil {
		return profiles.Namespace{}, false
	}
	return profiles.Namespace{Name: name, Labels: object.Labels}, true
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
