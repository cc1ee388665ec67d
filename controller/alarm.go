package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// alarmTick is how often the alarm looks at the wall clock.
const alarmTick = time.Second

// alarm rings when the wall clock says that it is time. Timers do not: they follow the monotonic clock, which does not see that the wall
// clock was set, and stands still while the machine is suspended. It asks nobody but the clock.
type alarm struct {
	now  func() time.Time
	tick time.Duration

	mu      sync.Mutex
	due     time.Time // without a monotonic reading; zero: never
	changed chan struct{}
}

func newAlarm(now func() time.Time) *alarm {
	return &alarm{now: now, tick: alarmTick, changed: make(chan struct{}, 1)}
}

// set has the alarm ring at a time, and not before unless the clock is set back.
func (a *alarm) set(due time.Time) {
	a.mu.Lock()
	a.due = due.Round(0)
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// next returns when it is due, zero if never. If that has come by now it is forgotten.
func (a *alarm) next(now time.Time) (due time.Time, hasCome bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	due = a.due
	if hasCome = !due.IsZero() && !now.Before(due); hasCome {
		a.due = time.Time{}
	}
	return due, hasCome
}

// source makes a request when the alarm rings.
func (a *alarm) source() source.Source {
	return source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		go a.run(ctx, func() { queue.Add(one()) })
		return nil
	})
}

// run rings when it is due, and when the clock was set back: what is valid may not be then.
func (a *alarm) run(ctx context.Context, ring func()) {
	seen := a.now().Round(0)
	for {
		now := a.now().Round(0)
		due, hasCome := a.next(now)
		if hasCome || now.Before(seen.Add(-alarmTick)) {
			ring()
		}
		seen = now
		wait := a.tick
		if !hasCome && !due.IsZero() {
			wait = min(wait, due.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}
