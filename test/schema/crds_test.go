package schema

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// maxCRDSize leaves room to the 262,144 bytes of an annotation, in which kubectl apply keeps the whole object.
const maxCRDSize = 200_000

func TestTheCustomResourceDefinitionsAreEstablishedAndSmall(t *testing.T) {
	definitions, err := apiserver.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, definition := range definitions {
		encoded, err := json.Marshal(definition)
		if err != nil {
			t.Fatal(err)
		}
		if len(encoded) > maxCRDSize {
			t.Errorf("%s has %d bytes of JSON, want at most %d", definition.Name, len(encoded), maxCRDSize)
		}
		live := &apiextensionsv1.CustomResourceDefinition{}
		if err := server.Client.Get(t.Context(), types.NamespacedName{Name: definition.Name}, live); err != nil {
			t.Fatal(err)
		}
		for _, condition := range live.Status.Conditions {
			bad := condition.Type == apiextensionsv1.NonStructuralSchema ||
				condition.Type == apiextensionsv1.KubernetesAPIApprovalPolicyConformant
			if good := condition.Status == apiextensionsv1.ConditionTrue; good == bad {
				t.Errorf("%s: %s is %s: %s", definition.Name, condition.Type, condition.Status, condition.Message)
			}
		}
		if !slices.ContainsFunc(live.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established
		}) {
			t.Errorf("%s is not established", definition.Name)
		}
	}
}

func TestBothKindsHaveTheSamePatterns(t *testing.T) {
	all := schemas(t)
	cluster, namespaced := all[clusterKind].Properties["spec"], all[namespacedKind].Properties["spec"]
	for name, want := range cluster.Properties {
		if name == "match" || name == "allowedNamespaces" { // a namespace has no others to choose or to allow
			continue
		}
		if diff := cmp.Diff(want, namespaced.Properties[name]); diff != "" {
			t.Errorf("spec.%s (-%s +%s):\n%s", name, clusterKind, namespacedKind, diff)
		}
	}
	for name, want := range namespaced.Properties["match"].Properties {
		if diff := cmp.Diff(want, cluster.Properties["match"].Properties[name]); diff != "" {
			t.Errorf("spec.match.%s (-%s +%s):\n%s", name, namespacedKind, clusterKind, diff)
		}
	}
}

func TestProfilesHaveShortNamesAndACategory(t *testing.T) {
	list, err := server.Clientset.Discovery().ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][2][]string{}
	for _, resource := range list.APIResources {
		got[resource.Name] = [2][]string{resource.ShortNames, resource.Categories}
	}
	want := map[string][2][]string{
		"patternprofiles":               {{"pp"}, {"pillion"}},
		"patternprofiles/status":        {},
		"clusterpatternprofiles":        {{"cpp"}, {"pillion"}},
		"clusterpatternprofiles/status": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKubectlGetShowsWhatAProfileIsAndWhetherItIsReady(t *testing.T) {
	createReady(t, "shown")
	list := &metav1.Table{}
	config := rest.CopyConfig(server.Config)
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		config.Host+"apis/pillion.dev/v1alpha1/clusterpatternprofiles/shown", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	response, err := transport.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if err := json.NewDecoder(response.Body).Decode(list); err != nil || len(list.Rows) != 1 {
		t.Fatalf("%d rows: %v", len(list.Rows), err)
	}
	got := map[string]any{}
	for i, column := range list.ColumnDefinitions {
		got[column.Name] = list.Rows[0].Cells[i]
	}
	age, ok := got["Age"].(string)
	delete(got, "Age")
	want := map[string]any{
		"Name": "shown", "Pattern": "GitSync", "Ready": "True", "Reason": "Serving", "Revision": "0123456789",
		"Failure policy": "Ignore", "Pods": float64(3), "Outdated": float64(0), // as JSON has them
	}
	if diff := cmp.Diff(want, got); diff != "" || !ok || age == "" {
		t.Errorf("age %q (-want +got):\n%s", age, diff)
	}
}

// createReady creates a ClusterPatternProfile with the status that a controller would give it.
func createReady(t *testing.T, name string) {
	t.Helper()
	profile := &v1alpha1.ClusterPatternProfile{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.ClusterPatternProfileSpec{ProfileSpec: v1alpha1.ProfileSpec{Pattern: v1alpha1.Pattern{
			GitSync: &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"},
		}}},
	}
	if err := server.Client.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Clientset.RESTClient().Delete().
			AbsPath("/apis/pillion.dev/v1alpha1/clusterpatternprofiles", name).Do(context.Background()).Error(); err != nil {
			t.Error(err) // the test's own context has ended
		}
	})
	profile.Status = v1alpha1.ProfileStatus{
		Kind: v1alpha1.KindGitSync, Revision: "0123456789", ObservedGeneration: 1,
		Pods: &v1alpha1.PodCounts{Current: 3},
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Serving", Message: "Pods get it.",
			LastTransitionTime: metav1.Now(),
		}},
	}
	if err := server.Client.Status().Update(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
}

func TestKubectlFindsProfilesByCategoryAndExplainsThem(t *testing.T) {
	createReady(t, "by-category")
	kubectl := newKubectl(t)
	if out := kubectl("get", "pillion", "-A"); !strings.Contains(out, "clusterpatternprofile.pillion.dev/by-category") {
		t.Errorf("kubectl get pillion -A shows no profile:\n%s", out)
	}
	if out := kubectl("get", "cpp", "by-category"); !strings.Contains(out, "GitSync") || !strings.Contains(out, "Serving") {
		t.Errorf("kubectl get cpp shows no status:\n%s", out)
	}
	spec := schemas(t)[clusterKind].Properties["spec"]
	for _, name := range sortedKeys(spec.Properties) {
		property := spec.Properties[name]
		out := strings.Join(strings.Fields(kubectl("explain", "clusterpatternprofile.spec."+name)), " ")
		if want := strings.Join(strings.Fields(property.Description), " "); !strings.Contains(out, want) {
			t.Errorf("kubectl explain clusterpatternprofile.spec.%s does not say %q:\n%s", name, want, out)
		}
	}
}

// newKubectl returns a function that runs kubectl as a cluster admin.
func newKubectl(t *testing.T) func(args ...string) string {
	t.Helper()
	path, err := apiserver.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	kubeconfig := filepath.Join(home, "kubeconfig")
	if err := apiserver.WriteKubeconfig(server.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return func(args ...string) string {
		t.Helper()
		var stderr bytes.Buffer
		command := exec.CommandContext(t.Context(), path, args...)
		command.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=" + home}
		command.Stderr = &stderr
		out, err := command.Output()
		if err != nil {
			t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, &stderr)
		}
		return string(out)
	}
}

// TestEveryFieldIsExplained walks what kubectl explain reads.
func TestEveryFieldIsExplained(t *testing.T) {
	for kind, root := range schemas(t) {
		walk(root, kind, func(path string, at *apiextensionsv1.JSONSchemaProps) {
			for name, property := range at.Properties {
				if path == kind && slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
					continue // Kubernetes' own
				}
				if err := explains(name, property.Description); err != nil {
					t.Errorf("%s.%s: %v", path, name, err)
				}
			}
		})
		if len(strings.Fields(root.Description)) < 10 {
			t.Errorf("%s: %q says too little", kind, root.Description)
		}
	}
}

// explains tells what is wrong with the description of a field.
func explains(name, description string) error {
	switch rest, ok := strings.CutPrefix(description, name); {
	case description == "":
		return fmt.Errorf("there is no description")
	case !ok || !strings.ContainsAny(rest[:min(1, len(rest))], " :,'"):
		return fmt.Errorf("%q does not begin with the field's name", description)
	case len(strings.Fields(rest)) < 3:
		return fmt.Errorf("%q says too little", description)
	case strings.Contains(description, "TODO") || strings.Contains(description, "+kubebuilder"):
		return fmt.Errorf("%q is not written for people who read kubectl explain", description)
	}
	return nil
}
