package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// patience is how long a Pod may take to start, or to end.
const patience = 3 * time.Minute

// life is what was measured of a Pod.
type life struct {
	// Start is from the POST to the app's first instruction, Admission to the answer to the POST, End from the DELETE until the
	// Pod is gone.
	Start, Admission, End time.Duration

	// Broken are promises that did not hold at the app's first instruction.
	Broken []string

	// Starting is what happened since the POST, Ending since the DELETE, in its order.
	Starting, Ending []mark
}

// result is what was measured of a lane.
type result struct {
	lane  lane
	lives []life
}

// rounds measures one Pod of each lane after the other, and that many times. A first round does not count: what the kubelet has
// seen once it finds faster.
func (b *bench) rounds(ctx context.Context, lanes []lane) ([]*result, error) {
	results := make([]*result, len(lanes))
	for i := range lanes {
		results[i] = &result{lane: lanes[i]}
	}
	for round := range b.options.rounds + 1 {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, b.options.rounds)
		for i := range results {
			// Each round begins with another lane, so that none always follows the same moment of the round.
			r := results[(i+round)%len(results)]
			measured, err := b.measure(ctx, &r.lane, fmt.Sprintf("%s-%d", r.lane.slug(), round))
			if err != nil {
				return nil, errors.Join(fmt.Errorf("lane %q: %w", r.lane.name, err), errors.New(b.Explain(context.Background(), b.namespace)))
			}
			if round == 0 {
				continue
			}
			r.lives = append(r.lives, *measured)
			if b.options.verbose {
				measured.print(os.Stderr, fmt.Sprintf("round %d, %s", round, r.lane.name))
			}
		}
	}
	return results, nil
}

// measure starts a Pod and ends it.
func (b *bench) measure(ctx context.Context, l *lane, name string) (*life, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reports := make(chan started, 1)
	b.mu.Lock()
	b.waiting[name], b.runtime = reports, nil
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.waiting, name)
	}()
	pod, err := l.build(b.namespace, name, b.reports+name)
	if err != nil {
		return nil, err
	}
	pods := b.Clientset.CoreV1().Pods(b.namespace)
	watching, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, TimeoutSeconds: new(int64(600))})
	if err != nil {
		return nil, err
	}
	defer watching.Stop()

	if err := atAnyMoment(ctx); err != nil {
		return nil, err
	}
	measured := &life{}
	posted := time.Now()
	pod, err = pods.Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	measured.Admission = time.Since(posted)
	if (len(pod.Spec.InitContainers) > 0) != (l.inject != "" || l.pod != nil && len(l.pod.Spec.InitContainers) > 0) {
		return nil, fmt.Errorf("the Pod has %d init containers", len(pod.Spec.InitContainers))
	}
	if err := b.awaitStart(ctx, measured, posted, watching, reports); err != nil {
		return nil, err
	}
	if pod, err = pods.Get(ctx, name, metav1.GetOptions{}); err != nil {
		return nil, err
	}
	names, err := b.containers(ctx, pod)
	if err != nil {
		return nil, err
	}
	measured.Starting = order(append(measured.Starting, b.runtimeMarks(names, posted)...))

	if err := atAnyMoment(ctx); err != nil {
		return nil, err
	}
	deleted := time.Now()
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return nil, err
	}
	if err := awaitEnd(ctx, watching); err != nil {
		return nil, err
	}
	measured.End = time.Since(deleted)
	measured.Ending = order(append(b.runtimeMarks(names, deleted), mark{measured.End, "gone"}))
	return measured, nil
}

// atAnyMoment waits for less than the second that passes between two looks of the kubelet at its containers. A Pod that is made
// when another one is gone would else come at the same moment of that second always.
func atAnyMoment(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rand.N(time.Second)):
		return nil
	}
}

// awaitStart waits until the app has started and the Pod is Ready.
func (b *bench) awaitStart(
	ctx context.Context, measured *life, posted time.Time, watching watch.Interface, reports <-chan started,
) error {
	measured.Starting = append(measured.Starting, mark{measured.Admission, "POST is answered"})
	seen := map[string]bool{}
	for reported := false; !reported || !seen[markReady]; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the app reported: %t; the Pod is Ready: %t: %w", reported, seen[markReady], ctx.Err())
		case report := <-reports:
			reported = true
			measured.Start, measured.Broken = report.Started.Sub(posted.Round(0)), report.Broken
			measured.Starting = append(measured.Starting, mark{measured.Start, markFirstInstruction})
		case event, open := <-watching.ResultChan():
			pod, ok := event.Object.(*corev1.Pod)
			if !open || !ok || event.Type == watch.Deleted {
				return fmt.Errorf("the watch of the Pod ended: %v", event)
			}
			for what, holds := range map[string]bool{
				markScheduled: pod.Spec.NodeName != "",
				markSandbox:   hasCondition(pod, corev1.PodReadyToStartContainers),
				markReady:     installed.IsReady(pod) == nil,
			} {
				if holds && !seen[what] {
					seen[what] = true
					measured.Starting = append(measured.Starting, mark{time.Since(posted), what})
				}
			}
		}
	}
	return nil
}

func hasCondition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == kind {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// awaitEnd waits until the Pod is gone.
func awaitEnd(ctx context.Context, watching watch.Interface) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Pod is still there: %w", ctx.Err())
		case event, open := <-watching.ResultChan():
			if !open || event.Type == watch.Error {
				return fmt.Errorf("the watch of the Pod ended: %v", event)
			}
			if event.Type == watch.Deleted {
				return nil
			}
		}
	}
}
