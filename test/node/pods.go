package node

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// Kubectl runs kubectl as a cluster admin, and returns what it wrote.
func (n *Node) Kubectl(ctx context.Context, args ...string) (string, error) {
	path, err := apiserver.Kubectl()
	if err != nil {
		return "", err
	}
	said, err := output(exec.CommandContext(ctx, path, append([]string{"--kubeconfig", n.Kubeconfig}, args...)...))
	if err != nil {
		return said, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return said, nil
}

// Exec runs a command in a container of a Pod, and returns what it wrote.
func (n *Node) Exec(ctx context.Context, namespace, pod, container string, command ...string) (string, error) {
	args := []string{"exec", "--namespace", namespace, pod, "--container", container, "--quiet", "--"}
	return n.Kubectl(ctx, append(args, command...)...)
}

// Logs returns what a container of a Pod wrote so far.
func (n *Node) Logs(ctx context.Context, namespace, pod, container string) (string, error) {
	content, err := n.Clientset.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("read the logs of container %s of Pod %s/%s: %w", container, namespace, pod, err)
	}
	return string(content), nil
}

// Events returns the Events of a namespace, one a line, the oldest first: when, of what, why, and the message.
func (n *Node) Events(ctx context.Context, namespace string) (string, error) {
	list, err := n.Clientset.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list the Events of namespace %s: %w", namespace, err)
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return when(&a).Compare(when(&b)) })
	var text strings.Builder
	for i := range list.Items {
		e := &list.Items[i]
		fmt.Fprintf(&text, "%s %s %s/%s %s: %s\n", when(e).Format(time.TimeOnly), e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name,
			e.Reason, e.Message)
	}
	return text.String(), nil
}

// when is the time of an Event: those of the newer API have no timestamps of the older.
func when(event *corev1.Event) time.Time {
	for _, t := range []time.Time{event.LastTimestamp.Time, event.EventTime.Time} {
		if !t.IsZero() {
			return t
		}
	}
	return event.CreationTimestamp.Time
}

// Explain tells what there is to know of a namespace for whoever wonders why something did not happen there: its Pods, what their
// containers wait for or ended with, their last lines, and the Events.
func (n *Node) Explain(ctx context.Context, namespace string) string {
	var text strings.Builder
	if err := n.Err(); err != nil {
		fmt.Fprintln(&text, err)
	}
	pods, err := n.Clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Sprintf("%slist the Pods of namespace %s: %s", text.String(), namespace, err)
	}
	for i := range pods.Items {
		n.explainPod(ctx, &text, &pods.Items[i])
	}
	events, err := n.Events(ctx, namespace)
	if err != nil {
		events = err.Error()
	}
	fmt.Fprintf(&text, "Events:\n%s", events)
	return text.String()
}

func (n *Node) explainPod(ctx context.Context, text *strings.Builder, pod *corev1.Pod) {
	fmt.Fprintf(text, "Pod %s: %s %s\n", pod.Name, pod.Status.Phase, pod.Status.Message)
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		fmt.Fprintf(text, "  container %s: ready %t, restarted %d times, %s\n", status.Name, status.Ready, status.RestartCount,
			state(status.State))
		if status.LastTerminationState.Terminated != nil {
			fmt.Fprintf(text, "    before: %s\n", state(status.LastTerminationState))
		}
		options := &corev1.PodLogOptions{Container: status.Name, TailLines: new(int64(20))}
		if log, err := n.Clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).DoRaw(ctx); err == nil && len(log) > 0 {
			fmt.Fprintf(text, "    | %s\n", strings.ReplaceAll(strings.TrimSpace(string(log)), "\n", "\n    | "))
		}
	}
}

// state says in words what a container does.
func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "runs"
	case s.Waiting != nil:
		return strings.TrimSpace("waits: " + s.Waiting.Reason + " " + s.Waiting.Message)
	case s.Terminated != nil:
		return strings.TrimSpace(fmt.Sprintf("ended with %d: %s %s", s.Terminated.ExitCode, s.Terminated.Reason, s.Terminated.Message))
	default:
		return "is not started"
	}
}
