package schema

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
)

var server *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(apiserver.Run(m, apiserver.Options{}, func(s *apiserver.Server) { server = s }))
}

// TestTheAPIServerAndPillionAgree creates the profile of each case on the API server, and compiles it in process.
func TestTheAPIServerAndPillionAgree(t *testing.T) {
	b := newBoth(t)
	for _, c := range readCases(t) {
		t.Run(c.fullName(), func(t *testing.T) {
			stored, refusal := b.create(t.Context(), c.object(t))
			local := c.object(t)
			problems := b.compile(t, local)
			if len(c.WantErrors) == 0 {
				if refusal != nil || problems != "" {
					t.Fatalf("want it accepted\nAPI server: %v\nin process: %s", refusal, problems)
				}
				if diff := cmp.Diff(stored.Object["spec"], local["spec"]); diff != "" {
					t.Errorf("the defaults differ (-API server +in process):\n%s", diff)
				}
				return
			}
			if refusal == nil || problems == "" {
				t.Fatalf("want it refused by both with %q\nAPI server: %v\nin process: %s", c.WantErrors, refusal, problems)
			}
			for _, want := range c.WantErrors {
				if !strings.Contains(refusal.Error(), want) {
					t.Errorf("the API server does not say %q but: %v", want, refusal)
				}
				if !strings.Contains(problems, want) {
					t.Errorf("in process it is not said %q but: %s", want, problems)
				}
			}
		})
	}
}

// TestAnObjectThatIsReadBackIsWhatPillionMakesOfIt creates a profile of each pattern for good.
func TestAnObjectThatIsReadBackIsWhatPillionMakesOfIt(t *testing.T) {
	b := newBoth(t)
	patterns := map[string]bool{}
	for _, c := range readCases(t) {
		if len(c.WantErrors) > 0 || patterns[c.file] {
			continue
		}
		patterns[c.file] = true
		t.Run(c.file, func(t *testing.T) {
			object := c.object(t)
			resource := b.resource(object)
			created, err := resource.Create(t.Context(), &unstructured.Unstructured{Object: deepCopy(object)}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // the test's context has ended
				if err := resource.Delete(context.Background(), created.GetName(), metav1.DeleteOptions{}); err != nil {
					t.Error(err)
				}
			})
			read, err := resource.Get(t.Context(), created.GetName(), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if problems := b.compile(t, object); problems != "" {
				t.Fatal(problems)
			}
			if diff := cmp.Diff(read.Object["spec"], object["spec"]); diff != "" {
				t.Errorf("the defaults differ (-API server +in process):\n%s", diff)
			}
		})
	}
}

// both are the API server and Pillion in process.
type both struct {
	dynamic  dynamic.Interface
	compiler *profiles.Compiler
}

func newBoth(t *testing.T) both {
	t.Helper()
	client, err := dynamic.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return both{client, compiler}
}

func (b both) resource(object map[string]any) dynamic.ResourceInterface {
	if object["kind"] == namespacedKind {
		return b.dynamic.Resource(v1alpha1.GroupVersion.WithResource("patternprofiles")).Namespace(namespace)
	}
	return b.dynamic.Resource(v1alpha1.GroupVersion.WithResource("clusterpatternprofiles"))
}

// create asks the API server for a dry run that is as strict as kubectl.
func (b both) create(ctx context.Context, object map[string]any) (*unstructured.Unstructured, error) {
	return b.resource(object).Create(ctx, &unstructured.Unstructured{Object: deepCopy(object)}, metav1.CreateOptions{
		DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
	})
}

// compile returns what Pillion says against the object, into which it writes the defaults.
func (b both) compile(t *testing.T, object map[string]any) string {
	t.Helper()
	profile, ok := b.compiler.Object(object)
	if !ok {
		t.Fatal("Pillion does not take the object for a profile")
	}
	if err := profile.Problems.ToAggregate(); err != nil {
		return err.Error()
	}
	return ""
}

// causes returns the single problems of a refusal, with their fields.
func causes(err error) []metav1.StatusCause {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return status.Status().Details.Causes
}
