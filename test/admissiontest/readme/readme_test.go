// Package readme holds README.md's samples as files that are used: the Go test, the profile that it reads, and a workload.
package readme

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/test/admissiontest"
)

func TestTheShopGetsItsContent(t *testing.T) {
	webhook, err := admissiontest.New(
		admissiontest.WithProfilesFrom("profiles/"),
		admissiontest.WithNamespace("shop", map[string]string{"team": "web"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	result, err := webhook.CreateFile("deployment.yaml") // or a *corev1.Pod, or YAML
	if err != nil {
		t.Fatal(err)
	}
	if result.Denied {
		t.Fatal(result.Message)
	}
	if result.Container("pillion-site-content") == nil {
		t.Errorf("no git-sync in the woven Pod, but %v", result.Injected())
	}
}

// TestTheSamplesOfREADME compares README.md with what is here, to the letter.
func TestTheSamplesOfREADME(t *testing.T) {
	tests := map[string]struct {
		language string
		// begins is what the sample begins with; the file has it from there to the end of the function, or of the file.
		begins, file, ends string
	}{
		"the Go test": {language: "go", begins: "func TestTheShopGetsItsContent(", file: "readme_test.go", ends: "\n}\n"},
		"the profile": {language: "yaml", begins: "apiVersion: pillion.dev/v1alpha1\n", file: "profiles/site-content.yaml"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := from(t, test.file, read(t, test.file), test.begins)
			if test.ends != "" {
				body, _, _ := strings.Cut(want, test.ends)
				want = body + test.ends
			}
			got := from(t, "README.md", read(t, "../../../README.md"), "```"+test.language+"\n"+test.begins)
			got = strings.TrimPrefix(got, "```"+test.language+"\n")
			got, _, _ = strings.Cut(got, "```")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s says otherwise than README.md (-file +README):\n%s", test.file, diff)
			}
		})
	}
}

// from returns a text from where it has a line that begins so.
func from(t *testing.T, name, text, begins string) string {
	t.Helper()
	_, rest, found := strings.Cut("\n"+text, "\n"+begins)
	if !found {
		t.Fatalf("%s has no line that begins with %q", name, begins)
	}
	return begins + rest
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
