package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

const (
	// podPage is how many Pods are listed at once.
	podPage = 500
	// tellPods is how often it is told whose counts have changed.
	tellPods = time.Second
)

// podCounter counts the Pods that carry what profiles added, from their metadata alone. Whether a Pod has ended cannot be told
// from that: it counts until it is deleted.
type podCounter struct {
	client metadata.Interface
	// tell asks for the statuses of profiles to be kept, whose counts have changed. It is false if that cannot be done yet.
	tell func(ctx context.Context, changed []types.NamespacedName) bool

	mu    sync.RWMutex
	index *podIndex // nil until all Pods have been listed
	// listed is what is being listed, in place of index.
	listed  *podIndex
	changed map[types.NamespacedName]bool
}

func newPodCounter(client metadata.Interface, tell func(context.Context, []types.NamespacedName) bool) *podCounter {
	return &podCounter{client: client, tell: tell, changed: map[types.NamespacedName]bool{}}
}

// of returns the counts of a profile, nil if the Pods are not known yet.
func (c *podCounter) of(namespace, name, revision string) *v1alpha1.PodCounts {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.index == nil {
		return nil
	}
	return new(c.index.counts(types.NamespacedName{Namespace: namespace, Name: name}, revision))
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

// askers returns the owners of Pods that ask for a profile by name. It is false if the Pods are not known yet.
func (c *podCounter) askers(profile string, chosen func(namespace string) bool) ([]string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.index == nil {
		return nil, false
	}
	return c.index.askers(profile, chosen), true
}

// Start follows the Pods until the context ends.
func (c *podCounter) Start(ctx context.Context) error {
	reflector := toolscache.NewReflectorWithOptions(
		pagedPods{counter: c}, &metav1.PartialObjectMetadata{}, (*podStore)(c),
		toolscache.ReflectorOptions{Name: "pods", TypeDescription: "woven Pods"})
	var group sync.WaitGroup
	group.Go(func() { reflector.RunWithContext(ctx) })
	ticker := time.NewTicker(tellPods)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			group.Wait()
			return nil
		case <-ticker.C:
			c.flush(ctx)
		}
	}
}

// flush tells whose counts have changed since it was told last.
func (c *podCounter) flush(ctx context.Context) {
	c.mu.Lock()
	changed := make([]types.NamespacedName, 0, len(c.changed))
	for key := range c.changed {
		changed = append(changed, key)
	}
	clear(c.changed)
	c.mu.Unlock()
	if len(changed) > 0 && !c.tell(ctx, changed) {
		c.mark(changed)
	}
}

func (c *podCounter) mark(changed []types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range changed {
		c.changed[key] = true
	}
}

// pagedPods lists and watches the metadata of woven Pods. The list that it returns is empty: each page goes into the counter's
// memory and is forgotten, so that there are never more objects than a page has. For the same reason it does without the
// streaming of lists, for which a Reflector would collect all of them.
type pagedPods struct{ counter *podCounter }

func (p pagedPods) resource() metadata.ResourceInterface {
	return p.counter.client.Resource(corev1.SchemeGroupVersion.WithResource("pods"))
}

const wovenPods = v1alpha1.InjectedKey + "=true"

// IsWatchListSemanticsUnSupported tells Reflectors not to stream lists.
func (pagedPods) IsWatchListSemanticsUnSupported() bool { return true }

// List does what ListWithContext does.
func (p pagedPods) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

// ListWithContext lists all Pods, page by page, whatever the options say.
func (p pagedPods) ListWithContext(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	listed := newPodIndex()
	options := metav1.ListOptions{LabelSelector: wovenPods, Limit: podPage}
	for {
		page, err := p.resource().List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list the woven Pods: %w", err)
		}
		for i := range page.Items {
			listed.put(&page.Items[i])
		}
		if options.Continue = page.Continue; options.Continue == "" {
			p.counter.mu.Lock()
			p.counter.listed = listed
			p.counter.mu.Unlock()
			return &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: page.ResourceVersion}}, nil
		}
	}
}

// Watch does what WatchWithContext does.
func (p pagedPods) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), options)
}

// WatchWithContext watches the Pods.
func (p pagedPods) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.LabelSelector = wovenPods
	return p.resource().Watch(ctx, options)
}

// podStore is the podCounter as Reflectors see it.
type podStore podCounter

func (s *podStore) change(object any, change func(*podIndex, *metav1.PartialObjectMetadata) []types.NamespacedName) error {
	pod, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("a %T was watched for Pods' metadata", object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range change(s.index, pod) {
		s.changed[key] = true
	}
	return nil
}

// Add takes a Pod that was created.
func (s *podStore) Add(object any) error { return s.change(object, (*podIndex).put) }

// Update takes a Pod that was changed.
func (s *podStore) Update(object any) error { return s.change(object, (*podIndex).put) }

// Delete takes a Pod that was deleted, or is not woven any more.
func (s *podStore) Delete(object any) error { return s.change(object, (*podIndex).remove) }

// Replace takes what was listed, which is not in the list.
func (s *podStore) Replace([]any, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, index := range []*podIndex{s.index, s.listed} {
		if index != nil {
			for _, key := range index.all() {
				s.changed[key] = true
			}
		}
	}
	s.index, s.listed = s.listed, nil
	return nil
}

// Resync has nothing to do.
func (s *podStore) Resync() error { return nil }
