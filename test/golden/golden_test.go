// Package golden_test holds whole Pods: what goes in and what comes out. Run it with -update to write what comes out, and read
// the difference before you commit it.
package golden_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

var update = flag.Bool("update", false, "write the wanted files instead of comparing them")

// The files of a case. A case has either wanted file.
const (
	inputFile  = "input.yaml" // profiles, a Namespace if its labels count, and last the Pod
	wovenFile  = "want.yaml"  // the woven Pod, its warnings as comments
	denialFile = "want.txt"   // why the Pod is refused
)

func TestGolden(t *testing.T) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	cases := findCases(t)
	if len(cases) == 0 {
		t.Fatal("there are no cases")
	}
	for _, directory := range cases {
		t.Run(filepath.ToSlash(directory), func(t *testing.T) {
			in := readInput(t, compiler, filepath.Join("testdata", directory, inputFile))
			decision, woven := in.decide(t)
			want := map[string]string{wovenFile: woven, denialFile: denial(&decision)}
			for file, content := range want {
				compare(t, filepath.Join("testdata", directory, file), content)
			}
			if refused := strings.HasSuffix(directory, "-refused"); refused == decision.Allowed {
				t.Errorf("the case's name does not end in -refused as it should, or should not: allowed is %t", decision.Allowed)
			}
			if !decision.Allowed {
				return
			}
			pod := decodePod(t, toJSON(t, []byte(woven)))
			again := profiles.Decide(in.snapshot, in.namespace, pod)
			if len(again.Patch) > 0 || !again.Allowed {
				t.Errorf("the woven Pod is woven again: %v %s", again.Patch, again.Denial())
			}
			final := profiles.Request{Namespace: in.namespace, Pod: pod, Final: true}.Decide(in.snapshot)
			if !final.Allowed {
				t.Errorf("the woven Pod is refused once all webhooks are done: %s", final.Denial())
			}
		})
	}
}

// TestNoStaleFiles finds wanted files without an input, which no test reads.
func TestNoStaleFiles(t *testing.T) {
	err := filepath.WalkDir("testdata", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		switch name := entry.Name(); name {
		case inputFile:
		case wovenFile, denialFile:
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), inputFile)); err != nil {
				t.Errorf("%s is stale: there is no %s beside it", path, inputFile)
			}
		default:
			t.Errorf("%s is neither %s, %s nor %s", path, inputFile, wovenFile, denialFile)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// findCases returns the directories with an input, relative to testdata.
func findCases(t *testing.T) []string {
	t.Helper()
	inputs, err := filepath.Glob(filepath.Join("testdata", "*", "*", inputFile))
	if err != nil {
		t.Fatal(err)
	}
	var cases []string
	for _, path := range inputs {
		directory, err := filepath.Rel("testdata", filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, directory)
	}
	return cases
}

// input is what a case decides about.
type input struct {
	snapshot  *profiles.Snapshot
	namespace profiles.Namespace
	raw       []byte // the Pod as JSON
}

func readInput(t *testing.T, compiler *profiles.Compiler, path string) input {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	in := input{namespace: profiles.Namespace{Name: corev1.NamespaceDefault}}
	var compiled []*profiles.Profile
	for _, document := range documents(t, content) {
		raw := toJSON(t, document)
		object := map[string]any{}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
			t.Fatal(err)
		}
		switch object["kind"] {
		case "Namespace":
			namespace := corev1.Namespace{}
			if err := json.Unmarshal(raw, &namespace); err != nil {
				t.Fatal(err)
			}
			in.namespace = profiles.Namespace{Name: namespace.Name, Labels: namespace.Labels}
		case "Pod":
			in.raw = raw
		default:
			profile, ok := compiler.Object(object)
			if !ok {
				t.Fatalf("%s holds an object that is no profile, Namespace or Pod: %v", path, object["kind"])
			}
			if len(profile.Problems) > 0 {
				t.Fatalf("%s is not valid: %v", profile.Scope(), profile.Problems)
			}
			compiled = append(compiled, profile)
		}
	}
	if in.raw == nil {
		t.Fatalf("%s holds no Pod", path)
	}
	if namespace := decodePod(t, in.raw).Namespace; namespace != "" && namespace != in.namespace.Name {
		if in.namespace.Labels != nil {
			t.Fatalf("the Pod is in namespace %s, and the Namespace is %s", namespace, in.namespace.Name)
		}
		in.namespace.Name = namespace
	}
	in.snapshot = profiles.NewSnapshot(profiles.Options{
		Images:             injectors.DefaultImages(""),
		ExcludedNamespaces: []string{"kube-system"},
		Weave: weave.Options{LeadingContainers: []string{
			"istio-init", "istio-validation", "istio-proxy", "linkerd-network-validator", "linkerd-init", "linkerd-proxy",
		}},
	}, compiled)
	return in
}

// decide returns the decision and the woven Pod as YAML: the patch applied to the input, so that nothing is lost which Go types
// do not know. It is empty for a Pod that is refused.
func (in *input) decide(t *testing.T) (profiles.Decision, string) {
	t.Helper()
	decision := profiles.Decide(in.snapshot, in.namespace, decodePod(t, in.raw))
	if !decision.Allowed {
		return decision, ""
	}
	raw := in.raw
	if len(decision.Patch) > 0 {
		encoded, err := json.Marshal(decision.Patch)
		if err != nil {
			t.Fatal(err)
		}
		patch, err := jsonpatch.DecodePatch(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = patch.Apply(in.raw); err != nil {
			t.Fatal(err)
		}
	}
	woven, err := yaml.JSONToYAML(raw)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, warning := range decision.Warnings {
		text.WriteString("# Warning: " + warning + "\n")
	}
	text.Write(woven)
	return decision, text.String()
}

// denial is why a Pod is refused, a line for each reason.
func denial(decision *profiles.Decision) string {
	if decision.Allowed {
		return ""
	}
	return strings.ReplaceAll(decision.Denial(), "; [", ";\n[") + "\n"
}

// compare compares a file with what it should hold; the file is not there if that is nothing.
func compare(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if want == "" {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil { //nolint:gosec // anybody may read it
			t.Fatal(err)
		}
		return
	}
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && want == "":
	case errors.Is(err, fs.ErrNotExist):
		t.Errorf("%s is not there; make it with go test ./test/golden -update, and read it", path)
	case err != nil:
		t.Fatal(err)
	case want == "":
		t.Errorf("%s is stale: the Pod is decided otherwise", path)
	default:
		if diff := cmp.Diff(string(content), want); diff != "" {
			t.Errorf("%s differs (-file +now); if that is meant, run go test ./test/golden -update:\n%s", path, diff)
		}
	}
}

func documents(t *testing.T, content []byte) [][]byte {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var all [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if object := map[string]any{}; yaml.Unmarshal(document, &object) != nil || len(object) > 0 {
			all = append(all, document)
		}
	}
}

func toJSON(t *testing.T, document []byte) []byte {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict(bytes.TrimPrefix(document, []byte("---\n")))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decodePod(t *testing.T, raw []byte) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}
