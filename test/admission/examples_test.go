package admission

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// TestPodsWithEveryExample creates a Pod that asks for all profiles of each file of examples/, where the API server is strict.
func TestPodsWithEveryExample(t *testing.T) {
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples: %v", len(files), err)
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	restricted := namespace(t, map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
	})
	bounded := namespace(t, nil)
	bound(t, bounded)
	defaulted := namespace(t, nil)
	setDefaults(t, defaulted)

	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			objects, names := applyProfiles(t, file)
			ask := func(namespace string) *corev1.Pod {
				return pod(namespace, v1alpha1.InjectKey, strings.Join(names, ","))
			}
			stored, warnings := admit(t, ask(restricted))
			if len(added(stored)) < len(names) || len(warnings) > 0 {
				t.Fatalf("added %q, warnings %q", added(stored), warnings)
			}
			checkInjected(t, stored)
			isIdempotent(t, compiler, objects, stored)
			mayBeCreatedAgain(t, stored)

			t.Run("where a quota wants requests and limits", func(t *testing.T) {
				if stored, _ := admit(t, ask(bounded)); len(added(stored)) < len(names) {
					t.Errorf("added %q", added(stored))
				}
			})
			t.Run("where a LimitRange has defaults", func(t *testing.T) {
				there, _ := admit(t, ask(defaulted))
				want, got := resourcesOf(stored), resourcesOf(there)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the LimitRange changed what was injected (-without +with):\n%s", diff)
				}
				isIdempotent(t, compiler, objects, there)
			})
		})
	}
}

// applyProfiles creates the profiles of a file for the time of the test.
func applyProfiles(t *testing.T, file string) (profiles []*unstructured.Unstructured, names []string) {
	t.Helper()
	objects, err := apiserver.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if object.GroupVersionKind().Group != v1alpha1.Group {
			continue
		}
		if err := server.Apply(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the test's context has ended
			if err := server.Client.Delete(context.Background(), object); err != nil {
				t.Error(err)
			}
		})
		profiles, names = append(profiles, object), append(names, object.GetName())
	}
	if len(names) == 0 {
		t.Fatal("there is no profile in it")
	}
	return profiles, names
}

// checkInjected holds injected containers to what every one of them has.
func checkInjected(t *testing.T, stored *corev1.Pod) {
	t.Helper()
	tokens := map[string]bool{} // volumes with a ServiceAccount's token
	for i := range stored.Spec.Volumes {
		if projected := stored.Spec.Volumes[i].Projected; projected != nil {
			for j := range projected.Sources {
				if projected.Sources[j].ServiceAccountToken != nil {
					tokens[stored.Spec.Volumes[i].Name] = true
				}
			}
		}
	}
	mountsToken := func(c *corev1.Container) bool {
		for _, mount := range c.VolumeMounts {
			if tokens[mount.Name] {
				return true
			}
		}
		return false
	}
	for i := range stored.Spec.Containers {
		if !mountsToken(&stored.Spec.Containers[i]) {
			t.Errorf("the app's container %s has lost its token", stored.Spec.Containers[i].Name)
		}
	}
	for i := range stored.Spec.InitContainers {
		c := &stored.Spec.InitContainers[i]
		if mountsToken(c) {
			t.Errorf("container %s has the ServiceAccount's token", c.Name)
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			if request.IsZero() || limit.IsZero() {
				t.Errorf("container %s has no request or no limit of %s: %v", c.Name, name, c.Resources)
			}
		}
		if c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
			t.Errorf("container %s: terminationMessagePolicy %s", c.Name, c.TerminationMessagePolicy)
		}
		security := c.SecurityContext
		if security == nil || security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
			t.Errorf("container %s may write to its root", c.Name)
		}
	}
}

// isIdempotent decides on a Pod as the API server returned it.
func isIdempotent(t *testing.T, compiler *profiles.Compiler, objects []*unstructured.Unstructured, stored *corev1.Pod) {
	t.Helper()
	var compiled []*profiles.Profile
	for _, object := range objects {
		profile, ok := compiler.Object(object.DeepCopy().Object)
		if !ok || len(profile.Problems) > 0 {
			t.Fatalf("%s: %v", object.GetName(), profile.Problems)
		}
		compiled = append(compiled, profile)
	}
	raw, err := server.Clientset.CoreV1().RESTClient().Get().
		Namespace(stored.Namespace).Resource("pods").Name(stored.Name).SetHeader("Accept", "application/json").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{}
	if err := json.Unmarshal(raw, p); err != nil {
		t.Fatal(err)
	}
	snapshot := profiles.NewSnapshot(pillion.profileOptions, compiled)
	decision := profiles.Decide(snapshot, profiles.Namespace{Name: stored.Namespace}, p)
	if !decision.Allowed || len(decision.Patch) > 0 {
		t.Errorf("deciding on the woven Pod again: %s %v %+v", decision.Denial(), decision.Patch, decision.Outcomes)
	}
}

// mayBeCreatedAgain creates a Pod that was read back, as velero and people with kubectl get -o yaml do.
func mayBeCreatedAgain(t *testing.T, stored *corev1.Pod) {
	t.Helper()
	again := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: stored.Namespace, Name: stored.Name + "-again", Labels: stored.Labels, Annotations: stored.Annotations,
		},
		Spec: *stored.Spec.DeepCopy(),
	}
	got, _ := admit(t, again)
	if diff := cmp.Diff(stored.Spec, got.Spec); diff != "" {
		t.Errorf("created again, its spec is another (-first +again):\n%s", diff)
	}
	if diff := cmp.Diff(stored.Annotations, got.Annotations); diff != "" {
		t.Errorf("created again, its annotations are others (-first +again):\n%s", diff)
	}
}

// resourcesOf returns the requests and limits of injected containers.
func resourcesOf(p *corev1.Pod) map[string]corev1.ResourceRequirements {
	resources := map[string]corev1.ResourceRequirements{}
	for i := range p.Spec.InitContainers {
		resources[p.Spec.InitContainers[i].Name] = p.Spec.InitContainers[i].Resources
	}
	return resources
}

// bound gives a namespace a quota, with the status that a controller would give it: every container must then have requests
// and limits.
func bound(t *testing.T, namespace string) {
	t.Helper()
	hard, used := corev1.ResourceList{}, corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
	} {
		hard[name], used[name] = quantity("10T"), quantity("0")
	}
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard},
	}
	if err := server.Client.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: used}
	if err := server.Client.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	unbounded := pod(namespace)
	unbounded.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		_, err := server.Clientset.CoreV1().Pods(namespace).Create(ctx, unbounded, dryRun())
		if err == nil {
			return false, nil
		}
		return missing(err.Error(), "must specify") == nil, err
	})
	if err != nil {
		t.Fatalf("the quota does not work: %v", err)
	}
}

func dryRun() metav1.CreateOptions { return metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}} }

// setDefaults gives a namespace a LimitRange that sets requests and limits where there are none.
func setDefaults(t *testing.T, namespace string) {
	t.Helper()
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "defaults"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type:           corev1.LimitTypeContainer,
			Default:        corev1.ResourceList{corev1.ResourceCPU: quantity("777m"), corev1.ResourceMemory: quantity("777Mi")},
			DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: quantity("7m"), corev1.ResourceMemory: quantity("7Mi")},
		}}},
	}
	if err := server.Client.Create(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	unbounded := pod(namespace)
	unbounded.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		made, err := server.Clientset.CoreV1().Pods(namespace).Create(ctx, unbounded, dryRun())
		if err != nil {
			return false, err
		}
		cpu := made.Spec.Containers[0].Resources.Limits[corev1.ResourceCPU]
		return cpu.String() == "777m", nil
	})
	if err != nil {
		t.Fatalf("the LimitRange does not work: %v", err)
	}
}

// TestAnInstalledExampleIsReady asks the controller of each profile of examples/.
func TestAnInstalledExampleIsReady(t *testing.T) {
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		_, names := applyProfiles(t, file)
		for _, name := range names {
			awaitReadyProfile(t, types.NamespacedName{Name: name})
		}
	}
}
