package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	lru "k8s.io/apimachinery/pkg/util/cache"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// ReasonProfileSkipped is the reason of Events that tell of a profile that policy chose and that was left out of a Pod. The note
// names the reason code.
const ReasonProfileSkipped = "ProfileSkipped"

const (
	// skippedPods selects the Pods that something was left out of.
	skippedPods = v1alpha1.SkippedKey + "=true"

	// eventLife is how long the API server keeps an Event by default. Of Pods that are older nothing is told: when the controller
	// starts it finds all that stand, of which it was told long ago.
	eventLife = time.Hour
	// gatherEvents is how long it is waited for more Pods of a kind before an Event tells of them. Then it is twice as long each time,
	// until betweenEvents.
	gatherEvents, betweenEvents = time.Second, time.Minute

	// The bounds of Events: how many are remembered, how many may wait to be made, in all and of one namespace, so that nobody's Pods
	// keep the others' from being told of, and how many are written in a second.
	maxEvents, maxWaitingEvents, maxWaitingInNamespace = 4096, 1000, 100
	eventsPerSecond, eventBurst                        = 10, 50
	// maxEventTries is how often it is tried to write an Event.
	maxEventTries = 5
	// tellUnwritten is how often it is logged how many Events have not been written.
	tellUnwritten = time.Minute
)

// skipTeller tells by Events, on what owns a Pod, of profiles that were left out of it. The library's recorder would do it otherwise
// in three ways that matter here: it takes Events of one object and reason for the same whatever they say, makes all of them anew
// after a restart, and logs whole Events where one is refused, while logs are to hold no values of annotations.
type skipTeller struct {
	pods     metadata.Interface
	events   eventsclient.EventsGetter
	excluded []string
	// instance is the name of this process, as Events tell it.
	instance string
	// gather and between are gatherEvents and betweenEvents.
	gather, between time.Duration
	now             func() time.Time
	logger          logr.Logger

	queue   workqueue.TypedRateLimitingInterface[eventKey]
	limiter flowcontrol.RateLimiter

	mu sync.Mutex
	// queued are those in the queue, known those of which an Event tells all, *occurrence by eventKey.
	queued map[eventKey]*occurrence
	known  *lru.LRUExpireCache
	// lists is how many lists of Pods have begun, listed the number of the last that ended.
	lists, listed int
	// waiting is how many Events are still to be made, by namespace, unmade how many will not be for there were too many, and
	// unwritten how many could not be written, with the last cause.
	waiting           map[string]int
	waitingInAll      int
	unmade, unwritten int
	cause             string
}

// occurrence is all Pods of one owner that lack a profile for the same reason. The skipTeller's lock guards it.
type occurrence struct {
	skip
	pod   corev1.ObjectReference // the first
	owner corev1.ObjectReference // the Pod itself if it has none
	// list is the number of the list that the first Pod was in; 0 if it was not in one.
	list        int
	first, last metav1.Time // when Pods were created

	// listed and watched are the Pods that no Event tells of yet: those that were there when the controller came, of which an Event
	// from before may tell, and those that were created since.
	listed, watched int32
	// event is the name of the Event, and told how many Pods it tells of; empty and 0 if there is none yet.
	event string
	told  int32
	// written is when the Event was, and pause how long it is left alone then. isWaiting says that it has not been written and counts
	// in waiting.
	written   time.Time
	pause     time.Duration
	isWaiting bool
}

func newSkipTeller(
	pods metadata.Interface, events eventsclient.EventsGetter, excluded []string, now func() time.Time, logger logr.Logger,
) *skipTeller {
	host, _ := os.Hostname() // the name of the process's Pod; without it the Event is as good
	return &skipTeller{
		pods: pods, events: events, excluded: excluded, instance: cut(LeaseName+"-"+host, validInstance),
		gather: gatherEvents, between: betweenEvents, now: now, logger: logger,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[eventKey](time.Second, time.Minute)),
		limiter: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventBurst),
		queued:  map[eventKey]*occurrence{},
		known:   lru.NewLRUExpireCache(maxEvents),
		waiting: map[string]int{},
	}
}

// validInstance is how long the name of a process may be in an Event.
const validInstance = 128

// Start follows the Pods until the context ends. It runs where the controller leads.
func (s *skipTeller) Start(ctx context.Context) error {
	reflector := toolscache.NewReflectorWithOptions(
		pagedPods{client: s.pods, labels: skippedPods, begin: s.list}, &metav1.PartialObjectMetadata{}, (*skippedStore)(s),
		toolscache.ReflectorOptions{Name: "skipped-pods", TypeDescription: "Pods with skipped profiles"})
	var group sync.WaitGroup
	group.Go(func() { reflector.RunWithContext(ctx) })
	group.Go(func() {
		for s.writeNext(ctx) {
		}
	})
	ticker := time.NewTicker(tellUnwritten)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.queue.ShutDown()
			group.Wait()
			return nil
		case <-ticker.C:
			s.logUnwritten()
		}
	}
}

// logUnwritten logs what was not told since it last did.
func (s *skipTeller) logUnwritten() {
	s.mu.Lock()
	unmade, unwritten, cause := s.unmade, s.unwritten, s.cause
	s.unmade, s.unwritten, s.cause = 0, 0, ""
	s.mu.Unlock()
	if unmade+unwritten > 0 {
		s.logger.Info("Some Events about skipped profiles were not written", "tooMany", unmade, "failed", unwritten, "lastFailure", cause)
	}
}

// list begins a list of Pods.
func (s *skipTeller) list() (each func(*metav1.PartialObjectMetadata), end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	list := s.lists
	return func(pod *metav1.PartialObjectMetadata) { s.see(pod, list) }, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listed = list
	}
}

// see takes a Pod, from a list or, where that is 0, as it is created.
func (s *skipTeller) see(pod *metav1.PartialObjectMetadata, list int) {
	if pod.DeletionTimestamp != nil || pod.Labels[v1alpha1.SkippedKey] != "true" || slices.Contains(s.excluded, pod.Namespace) ||
		s.now().Sub(pod.CreationTimestamp.Time) > eventLife {
		return
	}
	owner, owned := controllerOf(pod)
	if !owned {
		owner = referenceTo(pod)
	}
	skips := skipsOf(pod)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range skips {
		key := skips[i].key(pod.Namespace, &owner)
		known := s.occurrence(key)
		switch {
		case known == nil && !s.hasRoom(pod.Namespace):
			s.unmade++
			continue
		case known == nil:
			known = &occurrence{
				skip: skips[i], pod: referenceTo(pod), owner: owner, list: list, first: pod.CreationTimestamp, last: pod.CreationTimestamp,
				isWaiting: true,
			}
			s.waiting[pod.Namespace]++
			s.waitingInAll++
		case list > 0 && list != known.list:
			continue // it was seen before this list
		}
		known.add(pod, list)
		s.enqueue(key, known)
	}
}

// occurrence returns what is known by a key; nil if nothing is.
func (s *skipTeller) occurrence(key eventKey) *occurrence {
	if queued := s.queued[key]; queued != nil {
		return queued
	}
	value, _ := s.known.Get(key)
	known, _ := value.(*occurrence)
	return known
}

func (s *skipTeller) hasRoom(namespace string) bool {
	return s.waitingInAll < maxWaitingEvents && s.waiting[namespace] < maxWaitingInNamespace
}

// enqueue has the Event written: soon, unless it was written a moment ago.
func (s *skipTeller) enqueue(key eventKey, o *occurrence) {
	if s.queued[key] == nil {
		s.queued[key] = o
		s.queue.AddAfter(key, max(s.gather, o.written.Add(o.pause).Sub(s.now())))
	}
}

// add counts a Pod.
func (o *occurrence) add(pod *metav1.PartialObjectMetadata, list int) {
	if list > 0 {
		o.listed++
	} else {
		o.watched++
	}
	if pod.CreationTimestamp.Before(&o.first) {
		o.first = pod.CreationTimestamp
	}
	if o.last.Before(&pod.CreationTimestamp) {
		o.last = pod.CreationTimestamp
	}
}

// writeNext writes the next Event. It is false when there will be no more.
func (s *skipTeller) writeNext(ctx context.Context) bool {
	key, shutdown := s.queue.Get()
	if shutdown {
		return false
	}
	defer s.queue.Done(key)
	s.mu.Lock()
	known := s.queued[key]
	o := *known
	s.mu.Unlock()
	err := s.limiter.Wait(ctx)
	if err == nil {
		err = s.write(ctx, &o)
	}
	if err != nil && ctx.Err() != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && isWorthAnotherTry(err) && s.queue.NumRequeues(key) < maxEventTries-1 {
		s.queue.AddRateLimited(key)
		return true
	}
	s.queue.Forget(key)
	delete(s.queued, key)
	s.settle(known)
	if err != nil { // it is forgotten: the next Pod may have more luck
		s.known.Remove(key)
		s.unwritten++
		s.cause = causeOf(err)
		return true
	}
	known.event, known.told, known.written = o.event, o.told, s.now()
	known.pause = min(max(s.gather, 2*known.pause), s.between)
	known.listed -= o.listed
	known.watched -= o.watched
	s.known.Add(key, known, eventLife)
	if known.listed+known.watched > 0 {
		s.enqueue(key, known)
	}
	return true
}

// settle notes that an Event is not waited for any more.
func (s *skipTeller) settle(o *occurrence) {
	if !o.isWaiting {
		return
	}
	o.isWaiting = false
	s.waitingInAll--
	s.waiting[o.pod.Namespace]--
	if s.waiting[o.pod.Namespace] == 0 {
		delete(s.waiting, o.pod.Namespace)
	}
}

// isWorthAnotherTry tells whether a request may have failed for a reason that passes.
func isWorthAnotherTry(err error) bool {
	return !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) && !apierrors.IsNotFound(err) && !apierrors.IsBadRequest(err)
}

// causeOf says why a request failed, without what the API server repeats of it.
func causeOf(err error) string {
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return string(reason)
	}
	return err.Error()
}

// write makes the Event, or tells one that is there of the Pods that came since, and notes what it says now.
func (s *skipTeller) write(ctx context.Context, o *occurrence) error {
	if o.event != "" {
		err := s.count(ctx, o, o.told+o.listed+o.watched)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	event, err := s.newEvent(ctx, o)
	if err != nil {
		return err
	}
	_, err = s.events.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
	o.event, o.told = event.Name, o.listed+o.watched
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	// An earlier process made it, or it tells of Pods of another ReplicaSet. An empty patch returns it.
	there, err := s.events.Events(event.Namespace).Patch(ctx, event.Name, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	last, fresh := there.EventTime, o.watched
	o.told = 1
	if there.Series != nil {
		last, o.told = there.Series.LastObservedTime, there.Series.Count
	}
	if fresh == 0 && o.last.After(last.Time) { // some came while there was no controller, nobody knows how many
		fresh = 1
	}
	if fresh == 0 {
		return nil
	}
	return s.count(ctx, o, o.told+fresh)
}

// count tells an Event of how many Pods it is.
func (s *skipTeller) count(ctx context.Context, o *occurrence, number int32) error {
	patch, err := json.Marshal(map[string]*eventsv1.EventSeries{"series": o.series(number)})
	if err != nil {
		return err
	}
	if _, err = s.events.Events(o.pod.Namespace).Patch(ctx, o.event, types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
		o.told = number
	}
	return err
}

// series tells of some Pods, which the API takes of two and more.
func (o *occurrence) series(number int32) *eventsv1.EventSeries {
	if number < 2 {
		return nil
	}
	return &eventsv1.EventSeries{Count: number, LastObservedTime: metav1.NewMicroTime(o.last.Time)}
}

// newEvent returns an Event that tells of the Pods.
func (s *skipTeller) newEvent(ctx context.Context, o *occurrence) (*eventsv1.Event, error) {
	regarding, err := s.regarding(ctx, o)
	if err != nil {
		return nil, err
	}
	event := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: o.pod.Namespace, Name: o.eventName(&regarding)},
		EventTime:           metav1.NewMicroTime(o.first.Time),
		Series:              o.series(o.listed + o.watched),
		ReportingController: LeaseName,
		ReportingInstance:   s.instance,
		Type:                corev1.EventTypeWarning,
		Reason:              ReasonProfileSkipped,
		Action:              "Inject",
		Regarding:           regarding,
		Note:                o.note(o.pod.Name),
	}
	if regarding.UID != o.pod.UID {
		event.Related = &o.pod
	}
	return event, nil
}

// regarding returns what people look at: the Deployment of a Pod's ReplicaSet, the CronJob of its Job, whatever else controls it, or
// the Pod itself.
func (s *skipTeller) regarding(ctx context.Context, o *occurrence) (corev1.ObjectReference, error) {
	resource, controlled := controlledResource(&o.owner)
	if !controlled {
		return o.owner, nil
	}
	owner, err := s.pods.Resource(resource).Namespace(o.pod.Namespace).Get(ctx, o.owner.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && owner.UID != o.owner.UID) { // it is gone, or never was
		return o.pod, nil
	}
	if err != nil {
		return corev1.ObjectReference{}, fmt.Errorf("read what owns a Pod: %w", err)
	}
	if top, ok := controllerOf(owner); ok {
		return top, nil
	}
	return o.owner, nil
}

// skippedStore is the skipTeller as Reflectors see it. Pods change often, and what was left out of one does not.
type skippedStore skipTeller

// Add takes a Pod that was created.
func (s *skippedStore) Add(object any) error {
	pod, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("a %T was watched for Pods' metadata", object)
	}
	(*skipTeller)(s).see(pod, 0)
	return nil
}

// Update has nothing to do.
func (*skippedStore) Update(any) error { return nil }

// Delete has nothing to do.
func (*skippedStore) Delete(any) error { return nil }

// Replace has nothing to do: what was listed has been seen.
func (*skippedStore) Replace([]any, string) error { return nil }

// Resync has nothing to do.
func (*skippedStore) Resync() error { return nil }
