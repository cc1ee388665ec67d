package controller

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/util/flowcontrol"
)

const (
	// announceTimeout is how long is waited for an Event to be written.
	announceTimeout = 5 * time.Second
	// What is announced changes seldom. Should it not, this many Events come at once, and one more each ten seconds.
	announcementsAtOnce, announcementsPerSecond = 50, 0.1
)

// announcer writes Events about Pillion itself: one when something has changed, by whoever saw the change. Those of what was left out
// of Pods are written by the skipTeller, which has many to tell of.
type announcer struct {
	events   eventsclient.EventsGetter
	instance string
	limiter  flowcontrol.RateLimiter
	now      func() time.Time
	logger   logr.Logger
}

func newAnnouncer(events eventsclient.EventsGetter, now func() time.Time, logger logr.Logger) *announcer {
	return &announcer{
		events: events, instance: instanceName(), now: now, logger: logger,
		limiter: flowcontrol.NewTokenBucketRateLimiter(announcementsPerSecond, announcementsAtOnce),
	}
}

// instanceName is the name of this process, as Events tell it.
func instanceName() string {
	host, _ := os.Hostname() // the name of the process's Pod; without it the Event is as good
	return cut(LeaseName+"-"+host, validInstance)
}

// announcement is what an Event says.
type announcement struct {
	regarding corev1.ObjectReference
	// kind is Normal or Warning.
	kind, reason, action, note string
	// name is the Event's, if the same is not to be told twice; empty: one of its own.
	name string
}

// announce writes an Event in the namespace of what it is about, or in default if that is in none. One that cannot be written is logged, and nothing else waits for it.
func (a *announcer) announce(ctx context.Context, what announcement) {
	if !a.limiter.TryAccept() {
		a.logger.Info("An Event was not written: there were too many", "reason", what.reason)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	name := what.name
	if name == "" {
		name = fmt.Sprintf("%s.%s", cut(what.regarding.Name, validation.DNS1123SubdomainMaxLength-40), suffix())
	}
	event := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: cmp.Or(what.regarding.Namespace, metav1.NamespaceDefault), Name: name},
		EventTime:           metav1.NewMicroTime(a.now()),
		ReportingController: LeaseName,
		ReportingInstance:   a.instance,
		Type:                what.kind,
		Reason:              what.reason,
		Action:              what.action,
		Regarding:           what.regarding,
		Note:                shorten(what.note, maxNote),
	}
	_, err := a.events.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
	isTold := what.name != "" && apierrors.IsAlreadyExists(err)
	if err != nil && ctx.Err() == nil && !isTold {
		a.logger.Info("An Event was not written", "reason", what.reason, "namespace", event.Namespace, "cause", causeOf(err))
	}
}

// suffix makes a name one of its own.
func suffix() string {
	bytes := [8]byte{}
	_, _ = rand.Read(bytes[:]) // it never fails
	return fmt.Sprintf("%x", bytes)
}
