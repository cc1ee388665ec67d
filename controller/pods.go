package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
)

const (
	// podPage is how many Pods are listed at once.
	podPage = 500
	// tellPods is how often it is told whose counts have changed.
	tellPods = time.Second
)

// podCounter counts the Pods that carry what profiles added and have not ended, from their metadata alone.
type podCounter struct {
	client metadata.Interface
	// tell asks for the statuses of profiles to be kept, whose counts have changed: those named, or all of them if changed is nil.
	// It is false if that cannot be done yet.
	tell func(ctx context.Context, changed []types.NamespacedName) bool

	mu    sync.RWMutex
	index *podIndex // nil until all Pods have been listed
	// listed is what is being listed, in place of index.
	listed  *podIndex
	changed map[types.NamespacedName]bool
	// anew says that the Pods have been listed and it was not told yet. Whatever was counted before, in an earlier process perhaps,
	// may be another number now, also where no Pod is left.
	anew bool
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

// visitAskers visits the owners of Pods that ask for profiles by name. It is false if the Pods are not known yet.
func (c *podCounter) visitAskers(wanted map[string]bool, visit func(profile string, owner asker)) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.index == nil {
		return false
	}
	c.index.visitAskers(wanted, visit)
	return true
}

// known tells whether the Pods are.
func (c *podCounter) known() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index != nil
}

// Start follows the Pods until the context ends.
func (c *podCounter) Start(ctx context.Context) error {
	reflector := toolscache.NewReflectorWithOptions(
		pagedPods{client: c.client, labels: wovenPods, fields: runningPods, begin: c.list}, &metav1.PartialObjectMetadata{}, (*podStore)(c),
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
	var changed []types.NamespacedName // of all
	anew, some := c.anew, len(c.changed) > 0
	if !anew {
		changed = slices.Collect(maps.Keys(c.changed))
	}
	c.anew = false
	clear(c.changed)
	c.mu.Unlock()
	if (anew || some) && !c.tell(ctx, changed) {
		c.mark(changed)
	}
}

// mark remembers what is still to be told.
func (c *podCounter) mark(changed []types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.anew = c.anew || changed == nil
	for _, key := range changed {
		c.changed[key] = true
	}
}

// list begins a list of all Pods, which takes the place of what is known of them when it ends.
func (c *podCounter) list() (each func(*metav1.PartialObjectMetadata), end func()) {
	listed := newPodIndex()
	return func(pod *metav1.PartialObjectMetadata) { listed.put(pod) }, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.listed = listed
	}
}

// wovenPods selects Pods by label, runningPods those that have not ended, by a field that the API server selects by although it
// sends the metadata alone. A Pod that ends is deleted as far as a watch with the selector tells.
const (
	wovenPods   = v1alpha1.InjectedKey + "=true"
	runningPods = "status.phase!=" + string(corev1.PodSucceeded) + ",status.phase!=" + string(corev1.PodFailed)
)

// pagedPods lists and watches the metadata of Pods. The list that it returns is empty: each page goes to whoever wants it and is
// forgotten, so that there are never more objects than a page has. For the same reason it does without the streaming of lists, for
// which a Reflector would collect all of them.
type pagedPods struct {
	client metadata.Interface
	// labels and fields are selectors.
	labels, fields string
	// begin begins a list: each takes its Pods, and end is called when it has had all of them. A list that fails has no end.
	begin func() (each func(*metav1.PartialObjectMetadata), end func())
}

func (p pagedPods) resource() metadata.ResourceInterface {
	return p.client.Resource(corev1.SchemeGroupVersion.WithResource("pods"))
}

// IsWatchListSemanticsUnSupported tells Reflectors not to stream lists.
func (pagedPods) IsWatchListSemanticsUnSupported() bool { return true }

// List does what ListWithContext does.
func (p pagedPods) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

// ListWithContext lists all Pods, page by page, whatever the options say.
func (p pagedPods) ListWithContext(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	each, end := p.begin()
	options := metav1.ListOptions{LabelSelector: p.labels, FieldSelector: p.fields, Limit: podPage}
	for {
		page, err := p.resource().List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list the Pods with %s: %w", p.labels, err)
		}
		for i := range page.Items {
			each(&page.Items[i])
		}
		if options.Continue = page.Continue; options.Continue == "" {
			end()
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
	options.LabelSelector, options.FieldSelector = p.labels, p.fields
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

// Delete takes a Pod that was deleted, has ended, or is not woven any more.
func (s *podStore) Delete(object any) error { return s.change(object, (*podIndex).remove) }

// Replace takes what was listed, which is not in the list.
func (s *podStore) Replace([]any, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anew = true
	s.index, s.listed = s.listed, nil
	return nil
}

// Resync has nothing to do.
func (s *podStore) Resync() error { return nil }
