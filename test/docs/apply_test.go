package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/cases"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// needed are examples that a page speaks of and does not repeat: the profiles that its own come after or read from.
func needed(document string) []string {
	return map[string][]string{
		"docs/composition.md": {"site-content.yaml", "trusted-ca.yaml"},
		"docs/concepts.md":    {"site-content.yaml"},
	}[document]
}

// TestExamplesOfDocumentsApply applies what each page shows, in its order, as a reader would: objects that begin with apiVersion and
// kind. Profiles become ready, Pods of the workloads have what they ask for, and nobody is warned of anything.
func TestExamplesOfDocumentsApply(t *testing.T) {
	found := 0
	for _, document := range documents(t) {
		blocks := document.blocks()
		if !slices.ContainsFunc(blocks, block.isWhole) {
			continue
		}
		found++
		t.Run(document.name, func(t *testing.T) {
			reader := newReader(t)
			for _, example := range needed(document.name) {
				reader.applyExample(example)
			}
			for i := range blocks {
				switch {
				case blocks[i].isWhole():
					reader.apply(document.at(blocks[i]), blocks[i].text)
				case blocks[i].mark == markWoven:
					reader.compare(&document, i)
				}
			}
		})
	}
	if found < 9 {
		t.Errorf("only %d pages have objects to apply", found)
	}
}

// isWhole tells whether a block has objects that apply as they are: each has an apiVersion and a kind. Test cases are no objects.
func (b block) isWhole() bool {
	lines := "\n" + b.text
	return b.language == "yaml" && b.mark == "" && strings.Contains(lines, "\napiVersion:") && strings.Contains(lines, "\nkind:") &&
		!strings.Contains(lines, "\nkind: "+cases.Kind+"\n")
}

// reader applies what a page shows, and removes it when the page is done.
type reader struct {
	t *testing.T
	// namespace is where objects go that name none.
	namespace string
	client    client.Client
	clientset *kubernetes.Clientset
	warnings  *warnings
	// made is what has been applied, and is deleted at the end in the opposite order.
	made []*unstructured.Unstructured
	// woven is the last Pod that was made of a workload.
	woven *corev1.Pod
}

type warnings struct{ messages []string }

// HandleWarningHeader keeps the warnings of responses.
func (w *warnings) HandleWarningHeader(_ int, _, message string) {
	w.messages = append(w.messages, message)
}

func newReader(t *testing.T) *reader {
	t.Helper()
	namespace, err := server.CreateNamespace(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, namespace: namespace, warnings: &warnings{}}
	config := rest.CopyConfig(server.Config)
	config.WarningHandler = r.warnings
	r.clientset, err = kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if r.client, err = client.New(config, client.Options{Scheme: server.Client.Scheme()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.remove)
	return r
}

func (r *reader) applyExample(file string) {
	r.t.Helper()
	root, err := apiserver.Root()
	if err != nil {
		r.t.Fatal(err)
	}
	objects, err := apiserver.ReadFile(filepath.Join(root, "examples", file))
	if err != nil {
		r.t.Fatal(err)
	}
	r.applyObjects("examples/"+file, objects)
}

func (r *reader) apply(at, text string) {
	r.t.Helper()
	objects, err := apiserver.Read(strings.NewReader(text))
	if err != nil {
		r.t.Fatalf("%s: %v", at, err)
	}
	r.applyObjects(at, objects)
}

func (r *reader) applyObjects(at string, objects []*unstructured.Unstructured) {
	r.t.Helper()
	for _, object := range objects {
		if object.GetAPIVersion() == "" || object.GetKind() == "" {
			r.t.Fatalf("%s: one of the objects has no apiVersion or no kind; mark the block as a %s", at, markFragment)
		}
		if err := r.applyObject(object); err != nil {
			r.t.Fatalf("%s: %v", at, err)
		}
		for _, warning := range r.warnings.messages {
			r.t.Errorf("%s: %s %s is warned of: %s", at, object.GetKind(), object.GetName(), warning)
		}
		r.warnings.messages = nil
	}
}

func (r *reader) applyObject(object *unstructured.Unstructured) error {
	mapping, err := r.client.RESTMapper().RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
	if err != nil {
		return fmt.Errorf("the API server knows no such kind: %w", err)
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace && object.GetNamespace() == "" {
		object.SetNamespace(r.namespace)
	}
	if object.GetKind() == "Namespace" {
		return server.Apply(r.t.Context(), object)
	}
	pod, err := podOf(object)
	if err != nil {
		return err
	}
	if object.GetKind() != "Pod" {
		r.made = append(r.made, object)
		configuration := client.ApplyConfigurationFromUnstructured(object.DeepCopy())
		if err := r.client.Apply(r.t.Context(), configuration, client.FieldOwner("reader"), client.ForceOwnership); err != nil {
			return err
		}
	}
	if object.GroupVersionKind().Group == v1alpha1.Group {
		return r.awaitReady(object)
	}
	if pod == nil {
		return nil
	}
	r.woven, err = r.weave(pod)
	return err
}

// awaitReady waits until the controller says that Pods get a profile as it is now.
func (r *reader) awaitReady(object *unstructured.Unstructured) error {
	return apiserver.Await(r.t.Context(), func(ctx context.Context) (bool, error) {
		current := object.DeepCopy()
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(object), current); err != nil {
			return false, err
		}
		profile := &v1alpha1.ClusterPatternProfile{} // a PatternProfile's status is the same
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(current.Object, profile); err != nil {
			return false, err
		}
		status := &profile.Status
		ready := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady) && status.ObservedGeneration == profile.Generation
		return ready, fmt.Errorf("profile %s is not ready: %+v", profile.Name, status.Conditions)
	})
}

// podOf returns the Pod that a workload's controller would create, or nil if the object is no workload.
func podOf(object *unstructured.Unstructured) (*corev1.Pod, error) {
	paths := map[string][]string{
		"Pod": {}, "Deployment": {"spec", "template"}, "StatefulSet": {"spec", "template"}, "DaemonSet": {"spec", "template"},
		"ReplicaSet": {"spec", "template"}, "Job": {"spec", "template"}, "CronJob": {"spec", "jobTemplate", "spec", "template"},
	}
	path, found := paths[object.GetKind()]
	if !found {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	template, found, err := unstructured.NestedMap(object.Object, path...)
	if err != nil || !found {
		return nil, fmt.Errorf("%s %s has no Pod template: %w", object.GetKind(), object.GetName(), err)
	}
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(template, pod, true); err != nil {
		return nil, fmt.Errorf("read the Pod template of %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	pod.Namespace, pod.Name, pod.GenerateName = object.GetNamespace(), "", object.GetName()+"-"
	return pod, nil
}

// weave creates a Pod, and again until it has what it asks for: an entry for a match is taken up by the API server a moment after
// the profile is ready.
func (r *reader) weave(pod *corev1.Pod) (*corev1.Pod, error) {
	namespace, err := r.clientset.CoreV1().Namespaces().Get(r.t.Context(), pod.Namespace, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	asks := strings.FieldsFunc(namespace.Labels[v1alpha1.InjectKey], func(c rune) bool { return c == '.' })
	if annotation, found := pod.Annotations[v1alpha1.InjectKey]; found {
		asks = strings.FieldsFunc(annotation, func(c rune) bool { return c == ',' || c == ' ' })
	}
	var stored *corev1.Pod
	err = apiserver.Await(r.t.Context(), func(ctx context.Context) (bool, error) {
		r.warnings.messages = nil
		var err error
		stored, err = r.clientset.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		injected := map[string]v1alpha1.Injected{}
		if err := json.Unmarshal([]byte(stored.Annotations[v1alpha1.InjectedKey]), &injected); err != nil {
			return false, fmt.Errorf("the Pod has nothing of Pillion's: %w", err)
		}
		var missing []error
		for _, name := range asks {
			if _, found := injected[name]; !found && name != v1alpha1.None {
				missing = append(missing, fmt.Errorf("the Pod has no containers of profile %s", name))
			}
		}
		return len(missing) == 0, errors.Join(missing...)
	})
	return stored, err
}

// compare compares a block with what the last Pod has.
func (r *reader) compare(document *document, index int) {
	r.t.Helper()
	shown := document.blocks()[index]
	if r.woven == nil {
		r.t.Fatalf("%s: no workload stands before what is %s", document.at(shown), markWoven)
	}
	want, err := render(r.woven)
	if err != nil {
		r.t.Fatal(err)
	}
	if *update {
		if err := document.replace(shown, want); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, shown.text); diff != "" {
		r.t.Errorf("%s: the Pod looks otherwise; run go test ./test/docs -update (-Pod +page):\n%s", document.at(shown), diff)
	}
}

// remove deletes what was made, and says of profiles that they wait for nobody: Pods stay, and ask.
func (r *reader) remove() {
	ctx := context.Background() // the test's has ended
	for _, object := range slices.Backward(r.made) {
		if object.GroupVersionKind().Group == v1alpha1.Group {
			if err := release(ctx, object.DeepCopy()); err != nil {
				r.t.Error(err)
			}
		}
		if err := client.IgnoreNotFound(r.client.Delete(ctx, object.DeepCopy())); err != nil {
			r.t.Error(err)
		}
	}
	for _, object := range r.made {
		err := apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
			err := r.client.Get(ctx, client.ObjectKeyFromObject(object), object.DeepCopy())
			return err != nil && client.IgnoreNotFound(err) == nil, fmt.Errorf("%s %s is still there", object.GetKind(), object.GetName())
		})
		if err != nil {
			r.t.Error(err)
		}
	}
}

// release says of a profile that it waits for nobody when it is deleted.
func release(ctx context.Context, profile client.Object) error {
	patch := []byte(`{"metadata":{"annotations":{"` + v1alpha1.ReleaseKey + `":"true"}}}`)
	return client.IgnoreNotFound(server.Client.Patch(ctx, profile, client.RawPatch(types.MergePatchType, patch)))
}
