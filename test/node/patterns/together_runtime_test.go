package patterns_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/test/node"
)

// runtimeLog is what the container runtime tells while a test runs, in finer times than a Pod's status has.
type runtimeLog struct {
	mu     sync.Mutex
	events []node.RuntimeEvent
}

func watchRuntime(t *testing.T) *runtimeLog {
	t.Helper()
	log := &runtimeLog{}
	err := cluster.WatchRuntime(t.Context(), func(event node.RuntimeEvent) {
		log.mu.Lock()
		defer log.mu.Unlock()
		log.events = append(log.events, event)
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// of are the events of a container, by its status.
func (l *runtimeLog) of(status corev1.ContainerStatus) []node.RuntimeEvent {
	_, id, _ := strings.Cut(status.ContainerID, "://")
	l.mu.Lock()
	defer l.mu.Unlock()
	var events []node.RuntimeEvent
	for _, event := range l.events {
		if event.Container == id {
			events = append(events, event)
		}
	}
	return events
}

// checkOrder checks that every container was started after what the one ahead of it was awaited for: the end of one that ends,
// and of a sidecar a command in it that succeeded, be it a hook or a probe.
func (l *runtimeLog) checkOrder(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	var awaited time.Time
	var ahead string
	for _, status := range statuses(pod) {
		events := l.of(status)
		started := slices.IndexFunc(events, func(e node.RuntimeEvent) bool { return e.Topic == "/tasks/start" })
		if started < 0 {
			t.Fatalf("the runtime did not tell of the start of container %s: %+v", status.Name, events)
		}
		if !events[started].Time.After(awaited) {
			t.Errorf("container %s was started at %s, and %s was not done before %s", status.Name, events[started].Time, ahead, awaited)
		}
		if status.Name == "app" {
			return
		}
		succeeded := slices.IndexFunc(events, func(e node.RuntimeEvent) bool {
			return e.Topic == "/tasks/exit" && e.ExitStatus == 0 && (e.Exec != "" || status.State.Terminated != nil)
		})
		if succeeded < 0 {
			t.Fatalf("nothing in container %s succeeded: %+v", status.Name, events)
		}
		ahead, awaited = status.Name, events[succeeded].Time
	}
	t.Error("the Pod has no app")
}
