package lifecycle_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestAnUpgradeFailsNoCreate upgrades to another image and another configuration, and rolls back, while Pods are created that
// must be woven.
func TestAnUpgradeFailsNoCreate(t *testing.T) {
	need(t)
	namespace := useProfiles(t)
	image := currentPods(t)[0].Spec.Containers[0].Image
	repository, tag, ok := strings.Cut(image, ":")
	if !ok {
		t.Fatalf("image %s has no tag", image)
	}
	const next = "next"
	if err := cluster.Tag(t.Context(), image, repository+":"+next); err != nil {
		t.Fatal(err)
	}
	revision := helmRevision(t)

	traffic := newCreates(t)
	askingDry := traffic.keepDry(t, "Pods that ask, by dry run", func() *corev1.Pod { return asking(namespace) })
	more := traffic.keepDry(t, "another client of them", func() *corev1.Pod { return asking(namespace) })
	chosenDry := traffic.keepDry(t, "Pods that are chosen, by dry run", func() *corev1.Pod { return choosable(namespace) })
	askingReal := traffic.keepReal(t, "Pods that ask, and run", func() *corev1.Pod { return asking(namespace) })
	chosenReal := traffic.keepReal(t, "Pods that are chosen, and run", func() *corev1.Pod { return choosable(namespace) })
	for _, change := range []struct {
		args []string
		tag  string
	}{
		{[]string{"upgrade", "pillion", cluster.Chart(), "--set", "image.tag=" + next, "--set", "config.logLevel=debug"}, next},
		{[]string{"rollback", "pillion", revision}, tag},
	} {
		traffic.awaitMore(t, 1)
		before := currentPods(t)
		if len(before) != 4 {
			t.Fatalf("there are %d Pods of Pillion", len(before))
		}
		if _, err := cluster.Helm(t.Context(), change.args...); err != nil {
			t.Fatal(err)
		}
		awaitOthers(t, before)
		traffic.awaitMore(t, 1)
		after := currentPods(t)
		if len(after) != 4 {
			t.Errorf("after helm %s there are %d Pods of Pillion", change.args[0], len(after))
		}
		for i := range after {
			pod := &after[i]
			if got := pod.Spec.Containers[0].Image; got != repository+":"+change.tag {
				t.Errorf("after helm %s Pod %s runs %s", change.args[0], pod.Name, got)
			}
			if restarts := pod.Status.ContainerStatuses[0].RestartCount; restarts > 0 {
				t.Errorf("after helm %s Pod %s was restarted %d times", change.args[0], pod.Name, restarts)
			}
		}
		testByHelm(t)
	}
	traffic.stop()
	for _, counted := range []*tally{askingDry, more, chosenDry, askingReal, chosenReal} {
		counted.allWoven(t)
	}
}

// testByHelm runs helm test.
func testByHelm(t *testing.T) {
	t.Helper()
	said, err := cluster.Helm(t.Context(), "test", "pillion", "--logs")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "The Pod gets self-check") {
		t.Errorf("helm test does not say that its Pod was woven:\n%s", said)
	}
}

// helmRevision returns the number of the release's revision.
func helmRevision(t *testing.T) string {
	t.Helper()
	said, err := cluster.Helm(context.WithoutCancel(t.Context()), "history", "pillion", "--max", "1", "-o", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(said) {
		if _, number, ok := strings.Cut(line, "revision:"); ok {
			return strings.TrimSpace(number)
		}
	}
	t.Fatalf("helm says of the history: %s", said)
	return ""
}
