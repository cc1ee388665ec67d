package schema

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

const (
	clusterKind    = "ClusterPatternProfile"
	namespacedKind = "PatternProfile"
	// namespace of the PatternProfiles.
	namespace = "default"
)

// testCase is a profile and what is wrong with it.
type testCase struct {
	// Name is a sentence.
	Name string `json:"name"`
	// Kind is ClusterPatternProfile where it is empty.
	Kind string `json:"kind,omitempty"`
	// MetadataName is "case" where it is empty.
	MetadataName string `json:"metadataName,omitempty"`
	// Spec is the whole spec of the profile.
	Spec json.RawMessage `json:"spec"`
	// WantErrors are parts of the message that refuses the profile. None: it is accepted.
	WantErrors []string `json:"wantErrors,omitempty"`

	file string
}

// readCases returns the cases of testdata.
func readCases(t *testing.T) []testCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	var all []testCase
	names := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []testCase
		if err := yaml.UnmarshalStrict(content, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i := range cases {
			cases[i].file = strings.TrimSuffix(filepath.Base(file), ".yaml")
			if name := cases[i].fullName(); names[name] || cases[i].Name == "" || len(cases[i].Spec) == 0 {
				t.Fatalf("%s: case %d, %q, has no spec, or no name of its own", file, i, name)
			}
			names[cases[i].fullName()] = true
		}
		all = append(all, cases...)
	}
	return all
}

func (c *testCase) fullName() string { return c.file + "/" + c.Name }

// object returns the profile, as new at each call.
func (c *testCase) object(t *testing.T) map[string]any {
	t.Helper()
	var spec any
	if err := utiljson.Unmarshal(c.Spec, &spec); err != nil {
		t.Fatal(err)
	}
	kind, metadata := clusterKind, map[string]any{"name": "case"}
	if c.MetadataName != "" {
		metadata["name"] = c.MetadataName
	}
	if c.Kind == namespacedKind {
		kind, metadata["namespace"] = namespacedKind, namespace
	} else if c.Kind != "" && c.Kind != clusterKind {
		t.Fatalf("kind %s: want %s or %s", c.Kind, clusterKind, namespacedKind)
	}
	return map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": kind, "metadata": metadata, "spec": spec,
	}
}

func deepCopy(object map[string]any) map[string]any {
	return (&unstructured.Unstructured{Object: object}).DeepCopy().Object
}
