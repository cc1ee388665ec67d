package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// mark is something that happened in the life of a Pod, and when, counted from the POST or the DELETE.
type mark struct {
	At   time.Duration
	What string
}

// What the API server tells, which is later than it happens.
const (
	markScheduled        = "scheduled, as the API server tells"
	markSandbox          = "ready to start containers, as the API server tells"
	markReady            = "Ready, as the API server tells"
	markFirstInstruction = "the app's first instruction"
)

// order puts marks in the order of their time.
func order(marks []mark) []mark {
	slices.SortStableFunc(marks, func(a, b mark) int { return int(a.At - b.At) })
	return marks
}

// containers returns the names of a Pod's containers by their ids, the one that holds its namespaces with them.
func (b *bench) containers(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	sandbox, err := b.Sandbox(ctx, string(pod.UID))
	if err != nil {
		return nil, err
	}
	names := map[string]string{sandbox: "sandbox"}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		_, id, _ := strings.Cut(status.ContainerID, "://")
		names[id] = status.Name
	}
	return names, nil
}

// runtimeMarks returns what containerd told of containers since a time.
func (b *bench) runtimeMarks(names map[string]string, since time.Time) []mark {
	b.mu.Lock()
	defer b.mu.Unlock()
	var marks []mark
	for _, event := range b.runtime {
		name, ours := names[event.Container]
		at := event.Time.Sub(since.Round(0))
		if !ours || at < 0 {
			continue
		}
		var what string
		switch event.Topic {
		case "/tasks/start":
			what = name + " starts"
		case "/tasks/exec-started":
			what = name + ": a probe or hook starts"
		case "/tasks/exit":
			if what = name + " ends"; event.Exec != "" {
				what = name + ": a probe or hook ends"
			}
			if event.ExitStatus != 0 {
				what += fmt.Sprintf(" with %d", event.ExitStatus)
			}
		default:
			continue
		}
		marks = append(marks, mark{at, what})
	}
	return marks
}

// print writes what happened in a Pod.
func (l *life) print(to io.Writer, title string) {
	fmt.Fprintf(to, "\n%s: started after %.3f s, ended after %.3f s\n", title, l.Start.Seconds(), l.End.Seconds())
	for _, broken := range l.Broken {
		fmt.Fprintf(to, "  BROKEN: %s\n", broken)
	}
	for _, part := range []struct {
		name  string
		marks []mark
	}{{"since the POST", l.Starting}, {"since the DELETE", l.Ending}} {
		fmt.Fprintf(to, "  %s\n", part.name)
		for _, m := range part.marks {
			fmt.Fprintf(to, "  %8.3f  %s\n", m.At.Seconds(), m.What)
		}
	}
}
