package chart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// TestAnInstallationLives installs the chart, lets Pillion fill it, upgrades it in every way, tests and uninstalls it, and
// installs it again.
func TestAnInstallationLives(t *testing.T) {
	finishNamespaces(t)
	binary := build(t)
	before, err := inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	helm(t, "install", release, chartDir(), "--create-namespace")
	t.Cleanup(func() { removeNamespaces(t) })
	restrict(t)
	createDefaultAccounts(t, namespace, selfCheck)
	pillion := startProcesses(t, binary)
	awaitEntries(t)
	app, profile := weavePod(t)

	t.Run("upgrades leave what the controller wrote", func(t *testing.T) { upgrade(t, pillion) })
	t.Run("CustomResourceDefinitions are upgraded", upgradeDefinitions)
	t.Run("helm test proves the path", func(t *testing.T) { helmTest(t, pillion) })
	t.Run("uninstalling takes the entries first", func(t *testing.T) { uninstall(t, pillion, app) })
	if t.Failed() {
		return
	}
	t.Run("nothing is left but what is documented", func(t *testing.T) { checkLeft(t, before, app, profile) })
	t.Run("it installs again, and profiles are as they were", func(t *testing.T) { reinstall(t, binary, before, profile) })
}

// awaitEntries returns once both configurations have entries that trust the webhook.
func awaitEntries(t *testing.T) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		mutating, validating, err := entries(ctx)
		if err != nil {
			return false, err
		}
		return len(mutating) > 0 && len(validating) > 0 && len(mutating[0].ClientConfig.CABundle) > 0,
			errors.New("the controller has not filled the webhook configurations")
	})
	if err != nil {
		t.Fatal(err)
	}
}

func entries(
	ctx context.Context,
) ([]admissionregistrationv1.MutatingWebhook, []admissionregistrationv1.ValidatingWebhook, error) {
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	key := client.ObjectKey{Name: "pillion"}
	if err := errors.Join(server.Client.Get(ctx, key, mutating), server.Client.Get(ctx, key, validating)); err != nil {
		return nil, nil, err
	}
	return mutating.Webhooks, validating.Webhooks, nil
}

// weavePod makes a profile, and a Pod in a namespace of a user's that it is woven into.
func weavePod(t *testing.T) (*corev1.Pod, *v1alpha1.ClusterPatternProfile) {
	t.Helper()
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: "site"}}
	profile.Spec.GitSync = &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
	if err := server.Client.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	in, err := server.CreateNamespace(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNamespaceLater(t, in) })
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "app", Annotations: map[string]string{v1alpha1.InjectKey: profile.Name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		pod.ResourceVersion = ""
		err := server.Client.Create(ctx, pod)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if pod.Annotations[v1alpha1.InjectedKey] == "" {
		t.Fatalf("nothing was woven into the Pod: %v", pod.Annotations)
	}
	return pod, profile
}

func removeNamespaceLater(t *testing.T, name string) {
	ctx := context.WithoutCancel(t.Context())
	err := server.Client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}

// upgrade upgrades the release while the controller is away, who could mend what an upgrade breaks.
func upgrade(t *testing.T, pillion *processes) {
	pillion.controller.stop(t)
	defer func() {
		pillion.controller.start(t, pillion)
		pillion.controller.awaitReady(t)
	}()
	mutating, validating, err := entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unchanged := func(t *testing.T, after string) {
		t.Helper()
		haveMutating, haveValidating, err := entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(mutating, haveMutating) + cmp.Diff(validating, haveValidating); diff != "" {
			t.Errorf("after %s (-before +after):\n%s", after, diff)
		}
	}
	for _, args := range [][]string{
		{"upgrade", release, chartDir(), "--set", "config.logLevel=debug", "--server-side=true"},
		// As Helm 3 does, by a three-way merge. Then back.
		{"upgrade", release, chartDir(), "--set", "webhook.replicas=3", "--server-side=false"},
		{"upgrade", release, chartDir(), "--set", "service.labels.team=platform", "--server-side=true"},
		{"upgrade", release, chartDir(), "--server-side=true", "--force-conflicts"},
		{"rollback", release, "1"},
		{"upgrade", release, chartDir(), "--server-side=false"},
	} {
		helm(t, args...)
		unchanged(t, "helm "+strings.Join(args[:1], " ")+" "+strings.Join(args[2:], " "))
	}
	// The control: replacing objects, which nobody does unless told to, empties them. So the comparison sees what it is for.
	helm(t, "upgrade", release, chartDir(), "--server-side=false", "--force-replace")
	if mutating, _, err := entries(t.Context()); err != nil || len(mutating) > 0 {
		t.Errorf("--force-replace leaves %d entries (%v): the documentation says otherwise", len(mutating), err)
	}
	pillion.controller.start(t, pillion)
	awaitEntries(t)
	unchangedOnceFilled(t, mutating)
	pillion.controller.stop(t)
}

// unchangedOnceFilled waits until the controller has made the entries what they were.
func unchangedOnceFilled(t *testing.T, want []admissionregistrationv1.MutatingWebhook) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		have, _, err := entries(ctx)
		if err != nil {
			return false, err
		}
		return equality.Semantic.DeepEqual(want, have), errors.New(cmp.Diff(want, have))
	})
	if err != nil {
		t.Errorf("the controller does not fill them again (-want +have): %v", err)
	}
}

// upgradeDefinitions upgrades to a chart whose definitions have something new.
func upgradeDefinitions(t *testing.T) {
	newer := filepath.Join(t.TempDir(), "pillion")
	if err := os.CopyFS(newer, os.DirFS(chartDir())); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(newer, "files", "crds", "pillion.dev_clusterpatternprofiles.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const categories = "categories:\n    - novelties\n    - "
	changed := strings.Replace(string(content), "categories:\n    - ", categories, 1)
	if changed == string(content) {
		const kind = "    kind: ClusterPatternProfile\n"
		changed = strings.Replace(string(content), kind, "    categories:\n    - novelties\n"+kind, 1)
	}
	if changed == string(content) {
		t.Fatal("the definition has no place for a category")
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() []string {
		definition, err := objects.Resource(definitions).Get(t.Context(), "clusterpatternprofiles.pillion.dev", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		spec, _ := definition.Object["spec"].(map[string]any)
		names, _ := spec["names"].(map[string]any)
		return strings.Fields(strings.Trim(fmt.Sprint(names["categories"]), "[]"))
	}
	helm(t, "upgrade", release, newer)
	if got := read(); !slices.Contains(got, "novelties") {
		t.Errorf("the definition has the categories %v", got)
	}
	helm(t, "upgrade", release, chartDir())
	if got := read(); slices.Contains(got, "novelties") {
		t.Errorf("the definition has the categories %v still", got)
	}
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// deletions records in which order objects were deleted, by the revision of what is stored.
type deletions struct {
	mu sync.Mutex
	at map[string]string
}

// watchDeletions watches the kinds whose order matters.
func watchDeletions(t *testing.T) *deletions {
	t.Helper()
	d := &deletions{at: map[string]string{}}
	for _, resource := range []schema.GroupVersionResource{
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "serviceaccounts"},
		{Version: "v1", Resource: "configmaps"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	} {
		list, err := objects.Resource(resource).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		watching, err := objects.Resource(resource).Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(watching.Stop)
		go func() {
			for event := range watching.ResultChan() {
				if object, ok := event.Object.(metav1.Object); ok && event.Type == watch.Deleted {
					d.mu.Lock()
					d.at[resource.Resource+"/"+object.GetName()] = fmt.Sprintf("%020s", object.GetResourceVersion())
					d.mu.Unlock()
				}
			}
		}()
	}
	return d
}

func (d *deletions) seen() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[string]string{}
	for key, at := range d.at {
		seen[key] = at
	}
	return seen
}

// uninstall uninstalls the release, with a Pod that is woven, and one more that asks while it is going.
func uninstall(t *testing.T, pillion *processes, app *corev1.Pod) {
	order := watchDeletions(t)
	helm(t, "uninstall", release)
	others := []string{
		"deployments/pillion-webhook", "deployments/pillion-controller", "services/pillion-webhook",
		"serviceaccounts/pillion-webhook", "configmaps/pillion", "clusterrolebindings/pillion-webhook", "rolebindings/pillion-webhook",
	}
	configurations := []string{"mutatingwebhookconfigurations/pillion", "validatingwebhookconfigurations/pillion"}
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		seen := order.seen()
		missing := slices.DeleteFunc(slices.Concat(others, configurations), func(key string) bool { return seen[key] != "" })
		return len(missing) == 0, fmt.Errorf("%v are not deleted", missing)
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := order.seen()
	for _, configuration := range configurations {
		for _, other := range others {
			if seen[configuration] > seen[other] {
				t.Errorf("%s goes after %s", configuration, other)
			}
		}
	}
	// Without entries nobody waits for a webhook that is gone.
	pillion.webhook.stop(t)
	pillion.controller.stop(t)
	again := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: app.Namespace, Name: "later", Annotations: map[string]string{v1alpha1.InjectKey: "site"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) { // the API server's watch lags
		err := server.Client.Create(ctx, again.DeepCopy())
		return err == nil, err
	})
	if err != nil {
		t.Errorf("a Pod is refused when Pillion is gone: %v", err)
	}
}

// checkLeft looks at the whole cluster.
func checkLeft(t *testing.T, before map[string]string, app *corev1.Pod, profile *v1alpha1.ClusterPatternProfile) {
	now := &corev1.Pod{}
	err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(app), now)
	if err != nil || now.ResourceVersion != app.ResourceVersion {
		t.Errorf("the woven Pod was touched: %v", err)
	}
	awaitFinished(t, selfCheck)
	documented := []string{
		"customresourcedefinitions /clusterpatternprofiles.pillion.dev", "customresourcedefinitions /patternprofiles.pillion.dev",
		"clusterpatternprofiles /" + profile.Name,
		"namespaces /" + namespace, "secrets " + namespace + "/pillion-ca", "secrets " + namespace + "/pillion-webhook-tls",
		"leases " + namespace + "/pillion-controller", "serviceaccounts " + namespace + "/default",
	}
	found := added(t, before)
	for _, key := range documented {
		if _, was := before[key]; !was && !slices.Contains(found, key) {
			t.Errorf("%s is gone", key)
		}
	}
	for _, key := range found {
		isProfile := strings.HasPrefix(key, "clusterpatternprofiles /") // profiles stay
		if !slices.Contains(documented, key) && len(withoutTests([]string{key})) > 0 && !isProfile {
			t.Errorf("%s is left", key)
		}
	}
}

// withoutTests leaves out namespaces of a user's and what is in them.
func withoutTests(keys []string) []string {
	return slices.DeleteFunc(keys, func(key string) bool {
		return strings.Contains(key, " test-") || strings.HasPrefix(key, "namespaces /test-")
	})
}

// reinstall installs the chart where an earlier one left definitions, profiles and Secrets, uninstalls it by the documentation,
// and so leaves nothing.
func reinstall(t *testing.T, binary string, before map[string]string, profile *v1alpha1.ClusterPatternProfile) {
	helm(t, "install", release, chartDir())
	pillion := startProcesses(t, binary)
	awaitEntries(t)
	now := &v1alpha1.ClusterPatternProfile{}
	if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(profile), now); err != nil || now.UID != profile.UID {
		t.Errorf("the profile is another one: %v", err)
	}
	documented(t, "Everything goes", 0)
	documented(t, "Everything goes", 1)
	pillion.controller.stop(t)
	pillion.webhook.stop(t)
	awaitFinished(t, selfCheck)
	if left := added(t, before); len(withoutTests(left)) > 0 {
		t.Errorf("it leaves %q", left)
	}
}
