package reconnect

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// stored are ConfigMaps of an API server that forgets from where watches go on each time that it restarts.
type stored struct {
	mu       sync.Mutex
	version  int
	objects  map[string]string // resource versions
	watchers []*watch.FakeWatcher
	lists    int
}

func (*stored) IsWatchListSemanticsUnSupported() bool { return true }

func configMap(name, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, ResourceVersion: version}}
}

func (s *stored) List(metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}}
	for name, version := range s.objects {
		list.Items = append(list.Items, *configMap(name, version))
	}
	return list, nil
}

func (s *stored) Watch(options metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if options.ResourceVersion != strconv.Itoa(s.version) {
		return nil, apierrors.NewResourceExpired("too old resource version")
	}
	watcher := watch.NewFakeWithChanSize(100, false)
	s.watchers = append(s.watchers, watcher)
	return watcher, nil
}

// watching returns the watches that go on.
func (s *stored) watching() []*watch.FakeWatcher {
	s.watchers = slices.DeleteFunc(s.watchers, (*watch.FakeWatcher).IsStopped)
	return s.watchers
}

// write writes an object, and tells whoever watches.
func (s *stored) write(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	_, isThere := s.objects[name]
	s.objects[name] = strconv.Itoa(s.version)
	for _, watcher := range s.watching() {
		if isThere {
			watcher.Modify(configMap(name, s.objects[name]))
		} else {
			watcher.Add(configMap(name, s.objects[name]))
		}
	}
}

func (s *stored) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	delete(s.objects, name)
	for _, watcher := range s.watching() {
		watcher.Delete(configMap(name, strconv.Itoa(s.version)))
	}
}

// restart ends all watches, and has changed something meanwhile.
func (s *stored) restart(change func()) {
	s.mu.Lock()
	watchers := s.watchers
	s.watchers = nil
	s.mu.Unlock()
	change()
	for _, watcher := range watchers {
		watcher.Stop()
	}
}

type newInformer = func(cache.ListerWatcher, runtime.Object, time.Duration, cache.Indexers) cache.SharedIndexInformer

// slowest restarts an API server some times in a row and returns how long it took at most until an informer knew what had changed.
func slowest(t *testing.T, newInformer newInformer) time.Duration {
	t.Helper()
	most := time.Duration(0)
	synctest.Test(t, func(t *testing.T) {
		s, informer := &stored{objects: map[string]string{}}, cache.SharedIndexInformer(nil)
		s.write("one")
		informer = newInformer(s, &corev1.ConfigMap{}, 0, cache.Indexers{})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { informer.RunWithContext(ctx) })
		defer func() { stop(); running.Wait(); synctest.Wait() }()
		for range 7 {
			time.Sleep(10 * time.Second)
			s.restart(func() { s.write("one") })
			began := time.Now()
			for versionOf(informer, "one") != s.objects["one"] {
				time.Sleep(10 * time.Millisecond)
			}
			most = max(most, time.Since(began))
		}
	})
	return most
}

func versionOf(informer cache.SharedIndexInformer, name string) string {
	object, isThere, err := informer.GetStore().GetByKey("a/" + name)
	if !isThere || err != nil {
		return ""
	}
	return object.(*corev1.ConfigMap).ResourceVersion //nolint:forcetypeassert // nothing else is in it
}

func TestAnAPIServerThatRestartsAgainAndAgainIsFoundWithinSeconds(t *testing.T) {
	if took := slowest(t, NewInformer); took > 7*time.Second {
		t.Errorf("what had changed was known after %s", took)
	}
	// If this is no longer so, NewInformer is needed no longer.
	if took := slowest(t, cache.NewSharedIndexInformer); took < 20*time.Second {
		t.Errorf("an informer of client-go knew what had changed after %s", took)
	}
}

func TestAnInformerIsToldAllThatHappens(t *testing.T) {
	tests := map[string]struct {
		do   func(*stored)
		want []string
	}{
		"an object is created": {func(s *stored) { s.write("two") }, []string{"added two"}},
		"an object is changed": {func(s *stored) { s.write("one") }, []string{"updated one"}},
		"an object is deleted": {func(s *stored) { s.remove("one") }, []string{"deleted one"}},
		"nothing in an outage": {func(s *stored) { s.restart(func() {}) }, nil},
		"something else is":    {func(s *stored) { s.restart(func() { s.version++ }) }, nil},
		"created in an outage": {func(s *stored) { s.restart(func() { s.write("two") }) }, []string{"added two"}},
		"changed in an outage": {func(s *stored) { s.restart(func() { s.write("one") }) }, []string{"updated one"}},
		"deleted in an outage": {func(s *stored) { s.restart(func() { s.remove("one") }) }, []string{"deleted one"}},
		"all of it in an outage": {
			func(s *stored) { s.restart(func() { s.remove("one"); s.write("two"); s.write("other") }) },
			[]string{"added two", "deleted one", "updated other"},
		},
		"deleted in an outage, and created again after it": {
			func(s *stored) {
				s.restart(func() { s.remove("one") })
				time.Sleep(20 * time.Second)
				s.write("one")
			},
			[]string{"added one", "deleted one"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stored{objects: map[string]string{}}
				s.write("one")
				s.write("other")
				informer := NewInformer(s, &corev1.ConfigMap{}, 0, cache.Indexers{})
				var mu sync.Mutex
				var told []string
				tell := func(what string, object any) {
					mu.Lock()
					defer mu.Unlock()
					if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
						object = unknown.Obj
					}
					told = append(told, what+" "+object.(*corev1.ConfigMap).Name) //nolint:forcetypeassert // nothing else is in it
				}
				_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
					AddFunc: func(object any) { tell("added", object) },
					UpdateFunc: func(before, now any) {
						if !cmp.Equal(before, now) { // a list is told of, whatever is new in it
							tell("updated", now)
						}
					},
					DeleteFunc: func(object any) { tell("deleted", object) },
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { informer.RunWithContext(ctx) })
				defer func() { stop(); running.Wait(); synctest.Wait() }()
				time.Sleep(time.Second)
				synctest.Wait()
				if !informer.HasSynced() || len(told) != 2 {
					t.Fatalf("synced: %v; %q", informer.HasSynced(), told)
				}
				told = nil
				test.do(s)
				time.Sleep(20 * time.Second)
				synctest.Wait()
				slices.Sort(told)
				if diff := cmp.Diff(test.want, told); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
}
