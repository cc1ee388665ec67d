package lifecycle_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/node/installed"
)

const page = "install.md"

// left is what docs/install.md says of an installation whose profiles stay: with Helm, which does not own its namespace.
var left = []string{
	"namespaces pillion-system", "secrets pillion-system/pillion-ca", "secrets pillion-system/pillion-webhook-tls",
	"leases pillion-system/pillion-controller",
	// The control plane makes these in every namespace.
	"serviceaccounts pillion-system/default", "configmaps pillion-system/kube-root-ca.crt",
}

// kept is what stays of an installation in every way that lets profiles stay.
var kept = []string{
	"customresourcedefinitions clusterpatternprofiles.pillion.dev", "customresourcedefinitions patternprofiles.pillion.dev",
	"clusterpatternprofiles cache-ambassador", "clusterpatternprofiles git-sync", "clusterpatternprofiles prometheus-adapter",
	"clusterpatternprofiles template-processor",
}

// TestUninstallingLeavesPodsAlone does what docs/install.md says with Helm: it installs, uninstalls and installs again, and then
// has everything go, while woven Pods run and others are created.
func TestUninstallingLeavesPodsAlone(t *testing.T) {
	told(t)
	removeAll(t)
	documented(t, page, "With Helm", 0)
	namespace := useProfiles(t)
	apps := runWoven(t, namespace)
	before := profileOf(t, namespace, "asked")

	whileCreating(t, namespace, func() {
		documented(t, page, "Profiles stay", 0)
		awaitNoPods(t)
	})
	checkLeft(t, append(left, kept...)...)
	apps.unharmed(t)

	documented(t, page, "With Helm", 0)
	if err := cluster.AwaitPillion(t.Context()); err != nil {
		t.Fatal(err)
	}
	goesOn(t, namespace, before, apps)

	whileCreating(t, namespace, func() {
		documented(t, page, "Everything goes", 0)
		documented(t, page, "Everything goes", 1)
		awaitNoPods(t)
	})
	checkLeft(t)
	apps.unharmed(t)
	apps.areMarked(t)
}

// awaitStuck waits until a namespace that is deleted waits for finalizers, and says so.
func awaitStuck(t *testing.T, name string) {
	t.Helper()
	cluster.Eventually(t, "a namespace that waits", func(ctx context.Context) error {
		waiting := namespaceNamed(name)
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(waiting), waiting); err != nil {
			return err
		}
		for _, condition := range waiting.Status.Conditions {
			if condition.Type == corev1.NamespaceFinalizersRemaining && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", waiting.Status.Conditions)
	})
}

// removeAll removes what a test before has left of Pillion, as the documentation says.
func removeAll(t *testing.T) {
	t.Helper()
	definition := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "patternprofiles.pillion.dev"}}
	switch err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(definition), definition); {
	case client.IgnoreNotFound(err) != nil:
		t.Fatal(err)
	case err == nil:
		documented(t, page, "Everything goes", 0)
		documented(t, page, "Everything goes", 1)
	}
	checkLeft(t)
}

// whileCreating does something while Pods are created, none of which is to fail: they are woven while Pillion is there, and not
// afterwards.
func whileCreating(t *testing.T, namespace string, do func()) {
	t.Helper()
	traffic := newCreates(t)
	clients := []*tally{
		traffic.keepDry(t, "Pods that ask", func() *corev1.Pod { return asking(namespace) }),
		traffic.keepDry(t, "Pods that are chosen under Fail", func() *corev1.Pod { return choosable(namespace) }),
		traffic.keepReal(t, "Pods that ask, and run", func() *corev1.Pod { return asking(namespace) }),
	}
	traffic.awaitMore(t, 2)
	do()
	traffic.awaitMore(t, 2)
	traffic.stop()
	for _, counted := range clients {
		counted.noneFailed(t)
		if counted.woven == 0 || counted.asis == 0 {
			t.Errorf("%s: %d were woven before and %d not afterwards: the control is missing", counted.what, counted.woven, counted.asis)
		}
	}
}

// apps are woven Pods that run.
type apps struct{ pods []corev1.Pod }

// runWoven runs a Deployment whose Pods a profile chooses, and one that uses a default profile.
func runWoven(t *testing.T, namespace string) *apps {
	t.Helper()
	chosen := installed.Deployment(namespace, "shop", waits)
	chosen.Spec.Template.Labels[chosenLabel] = "true"
	cached := installed.Deployment(namespace, "cached", waits)
	cached.Spec.Template.Annotations = map[string]string{v1alpha1.InjectKey: "cache-ambassador"}
	running := &apps{}
	for _, deployment := range []client.Object{chosen, cached} {
		cluster.Create(t, deployment)
	}
	for _, name := range []string{"shop", "cached"} {
		pod := cluster.ReadyPod(t, namespace, name)
		if woven, err := isWoven(pod); err != nil || !woven {
			t.Fatalf("nothing is woven into Pod %s: %v", name, err)
		}
		running.pods = append(running.pods, *pod)
	}
	return running
}

// unharmed checks that the Pods are the ones of before, and that nothing in them was restarted or is not ready.
func (a *apps) unharmed(t *testing.T) {
	t.Helper()
	for i := range a.pods {
		before, now := &a.pods[i], &corev1.Pod{}
		if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(before), now); err != nil {
			t.Error(err)
			continue
		}
		if now.UID != before.UID || now.DeletionTimestamp != nil {
			t.Errorf("Pod %s is another one, or is being deleted", before.Name)
		}
		if err := installed.IsReady(now); err != nil {
			t.Error(err)
		}
		statuses := slices.Concat(now.Status.InitContainerStatuses, now.Status.ContainerStatuses)
		if len(statuses) != 2 {
			t.Errorf("Pod %s has %d containers, want the app and what was woven", now.Name, len(statuses))
		}
		for _, status := range statuses {
			if status.RestartCount > 0 || status.State.Running == nil {
				t.Errorf("container %s of Pod %s was restarted %d times: %+v", status.Name, now.Name, status.RestartCount, status.State)
			}
		}
	}
}

// areMarked checks that Pods keep what says what was woven into them.
func (a *apps) areMarked(t *testing.T) {
	t.Helper()
	for i := range a.pods {
		now := &corev1.Pod{}
		if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(&a.pods[i]), now); err != nil {
			t.Fatal(err)
		}
		if now.Annotations[v1alpha1.InjectedKey] != a.pods[i].Annotations[v1alpha1.InjectedKey] {
			t.Errorf("Pod %s has lost its mark", now.Name)
		}
	}
}

func profileOf(t *testing.T, namespace, name string) *v1alpha1.PatternProfile {
	t.Helper()
	profile := &v1alpha1.PatternProfile{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, profile); err != nil {
		t.Fatal(err)
	}
	return profile
}

// goesOn checks that a new installation takes up where the one before ended: profiles are the same, give the same, and know who
// has it.
func goesOn(t *testing.T, namespace string, before *v1alpha1.PatternProfile, running *apps) {
	t.Helper()
	for _, pod := range []*corev1.Pod{asking(namespace), choosable(namespace)} {
		cluster.Eventually(t, "Pods that are woven again", func(ctx context.Context) error { return wovenByDryRun(ctx, pod) })
	}
	now := profileOf(t, namespace, before.Name)
	if now.UID != before.UID || now.Generation != before.Generation || now.Status.Revision != before.Status.Revision {
		t.Errorf("profile %s was %s, generation %d, revision %s; it is %s, %d, %s", before.Name, before.UID, before.Generation,
			before.Status.Revision, now.UID, now.Generation, now.Status.Revision)
	}
	cluster.Eventually(t, "the count of Pods", func(context.Context) error {
		if counted := profileOf(t, namespace, "chosen").Status.Pods; counted == nil || counted.Current != 1 {
			return fmt.Errorf("profile chosen counts %+v", counted)
		}
		return nil
	})
	running.unharmed(t)
}
