package lifecycle_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestTheFileInstalls does what docs/install.md says for those without Helm: one file installs all, is applied again under
// creates, and goes in each way, the one after the controller is gone included.
func TestTheFileInstalls(t *testing.T) {
	told(t)
	removeAll(t)
	install := func() {
		t.Helper()
		documented(t, page, "With kubectl", 0)
		if err := cluster.AwaitPillion(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	install()
	namespace := useProfiles(t)
	apps := runWoven(t, namespace)
	doomed := useProfiles(t)
	cluster.Eventually(t, "profiles that are held", func(context.Context) error {
		if len(profileOf(t, doomed, "asked").Finalizers) == 0 {
			return errors.New("profile asked has no finalizer")
		}
		return nil
	})
	whileCreating(t, namespace, func() { documented(t, page, "Profiles stay", 1) })
	checkLeft(t, kept...)
	apps.unharmed(t)

	// Nothing of this goes by itself. Else there would be nothing to prove.
	if err := cluster.Client.Delete(t.Context(), namespaceNamed(doomed)); err != nil {
		t.Fatal(err)
	}
	awaitStuck(t, doomed)
	documented(t, page, "The controller is gone already", 0)
	awaitGone(t, "the namespace", namespaceNamed(doomed))
	checkLeft(t)
	apps.unharmed(t)

	install()
	traffic := newCreates(t)
	writeProfiles(t, namespace)
	clients := []*tally{
		traffic.keepDry(t, "Pods that ask", func() *corev1.Pod { return asking(namespace) }),
		traffic.keepDry(t, "Pods that are chosen under Fail", func() *corev1.Pod { return choosable(namespace) }),
	}
	install() // as an upgrade does
	traffic.awaitMore(t, 2)
	traffic.stop()
	for _, counted := range clients {
		counted.allWoven(t)
	}
	whileCreating(t, namespace, func() {
		documented(t, page, "Everything goes", 0)
		documented(t, page, "Everything goes", 2)
	})
	checkLeft(t)
	apps.unharmed(t)
}
