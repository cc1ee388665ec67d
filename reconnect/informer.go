package reconnect

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// NewInformer makes the informers of a cache (cache.Options). They are like any other, but where the API server has begun anew and does not
// know from where to go on, as after each restart, they ask it for everything again within seconds. client-go waits twice as long each
// time, up to a minute, and lets nobody choose for an informer (kubernetes/kubernetes#136943).
func NewInformer(from cache.ListerWatcher, object runtime.Object, resync time.Duration, indexers cache.Indexers) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(newRelay(from, object), object, resync, indexers)
}

// soon is how long is waited before everything is asked for again. With the jitter it stays below what convergence may take.
func soon() *wait.Backoff {
	return &wait.Backoff{Duration: 2 * firstPause, Cap: 2 * longestPause, Factor: 2, Jitter: .5, Steps: 10}
}

// relay lists and watches for an informer what a reflector of its own, which does not wait for long, has from the API server.
type relay struct {
	from   cache.ListerWatcher
	object runtime.Object

	mu      sync.Mutex
	stop    context.CancelFunc // ends the reflector of now
	current *generation
}

func newRelay(from cache.ListerWatcher, object runtime.Object) *relay {
	return &relay{from: from, object: object}
}

// IsWatchListSemanticsUnSupported has the informer list first. Whether the reflector does is its own affair.
func (*relay) IsWatchListSemanticsUnSupported() bool { return true }

// List implements cache.ListerWatcher.
func (r *relay) List(options metav1.ListOptions) (runtime.Object, error) {
	return r.ListWithContext(context.Background(), options)
}

// Watch implements cache.ListerWatcher.
func (r *relay) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return r.WatchWithContext(context.Background(), options)
}

// ListWithContext begins anew and returns once everything is there.
func (r *relay) ListWithContext(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	following, stop := context.WithCancel(ctx)
	next := &generation{listed: make(chan struct{}), more: make(chan struct{}, 1)}
	r.mu.Lock()
	if r.stop != nil {
		r.stop()
	}
	r.stop, r.current = stop, next
	r.mu.Unlock()
	reflector := cache.NewReflectorWithOptions(r.from, r.object, next, cache.ReflectorOptions{Backoff: soon()})
	go reflector.RunWithContext(following)
	select {
	case <-ctx.Done():
		stop()
		return nil, ctx.Err()
	case <-next.listed:
		return next.take(), nil
	}
}

// WatchWithContext tells what has come since the list. It ends only with the context, or if there is less than there was, which a list
// tells better.
func (r *relay) WatchWithContext(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return watching(ctx, r.current), nil
}

// generation is what one reflector has stored, from its first list on.
type generation struct {
	listed chan struct{} // closed by the first list
	more   chan struct{} // there are events

	mu      sync.Mutex
	list    *metainternalversion.List
	known   map[string]string // the resource version of each object
	pending []watch.Event
}

// take returns the first list, which is not kept.
func (g *generation) take() *metainternalversion.List {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.list
	g.list = nil
	return list
}

// Replace implements cache.ReflectorStore. The first list is for the informer to list, of later ones it is told what has changed.
func (g *generation) Replace(objects []any, version string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := make(map[string]string, len(objects))
	list := &metainternalversion.List{ListMeta: metav1.ListMeta{ResourceVersion: version}}
	for _, given := range objects {
		key, at, object, err := identify(given)
		if err != nil {
			return err
		}
		now[key] = at
		before, isKnown := g.known[key]
		switch {
		case g.known == nil:
			list.Items = append(list.Items, object)
		case !isKnown:
			g.tell(watch.Added, object)
		case before != at:
			g.tell(watch.Modified, object)
		}
	}
	for key := range g.known {
		if _, isThere := now[key]; !isThere {
			g.tell(watch.Error, expired())
			break
		}
	}
	if g.known == nil {
		g.list = list
		close(g.listed)
	}
	g.known = now
	return nil
}

// expired has an informer list anew, which finds out what there is no more.
func expired() runtime.Object {
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired,
		Message: "something was deleted while the API server could not be watched",
	}
}

// Add implements cache.ReflectorStore.
func (g *generation) Add(object any) error { return g.store(watch.Added, object) }

// Update implements cache.ReflectorStore.
func (g *generation) Update(object any) error { return g.store(watch.Modified, object) }

// Delete implements cache.ReflectorStore.
func (g *generation) Delete(object any) error { return g.store(watch.Deleted, object) }

// Resync implements cache.ReflectorStore: the informer does it.
func (*generation) Resync() error { return nil }

func (g *generation) store(what watch.EventType, given any) error {
	key, at, object, err := identify(given)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if what == watch.Deleted {
		delete(g.known, key)
	} else {
		g.known[key] = at
	}
	g.tell(what, object)
	return nil
}

func identify(given any) (key, version string, object runtime.Object, err error) {
	object, ok := given.(runtime.Object)
	if !ok {
		return "", "", nil, fmt.Errorf("%T is no object", given)
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return "", "", nil, err
	}
	return accessor.GetNamespace() + "/" + accessor.GetName(), accessor.GetResourceVersion(), object, nil
}

// tell has whoever watches learn of an event.
func (g *generation) tell(what watch.EventType, object runtime.Object) {
	g.pending = append(g.pending, watch.Event{Type: what, Object: object})
	select {
	case g.more <- struct{}{}:
	default: // it is known already that there is more
	}
}

// next returns the event that is to be told next.
func (g *generation) next() (watch.Event, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.pending) == 0 {
		g.pending = nil // which may have been many
		return watch.Event{}, false
	}
	event := g.pending[0]
	g.pending[0] = watch.Event{}
	g.pending = g.pending[1:]
	return event, true
}

// watching passes the events of a generation on until ctx ends or it is stopped. What it has taken and could not pass on is lost; the
// informer, which alone stops it, lists again then.
func watching(ctx context.Context, g *generation) watch.Interface {
	events := make(chan watch.Event)
	w := watch.NewProxyWatcher(events)
	go func() {
		defer close(events)
		for {
			event, is := g.next()
			if !is {
				select {
				case <-ctx.Done():
					return
				case <-w.StopChan():
					return
				case <-g.more:
				}
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-w.StopChan():
				return
			case events <- event:
			}
		}
	}()
	return w
}
