package readme

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/profiles"
)

// TestProfilesInDocumentsCanBeUsed compiles every whole profile that README.md and docs/ show.
func TestProfilesInDocumentsCanBeUsed(t *testing.T) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)\n```yaml\n(apiVersion: pillion.dev/.*?)```\n")
	found := 0
	for _, document := range documents(t) {
		for _, sample := range shown.FindAllStringSubmatch(read(t, document), -1) {
			found++
			object := map[string]any{}
			if err := yaml.UnmarshalStrict([]byte(sample[1]), &object); err != nil {
				t.Errorf("%s: %v\n%s", document, err, sample[1])
				continue
			}
			profile, ok := compiler.Object(object)
			if !ok {
				t.Errorf("%s: this is no profile\n%s", document, sample[1])
				continue
			}
			for _, problem := range profile.Problems {
				t.Errorf("%s: %s: %v", document, profile.Scope(), problem)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d profiles were found", found)
	}
}

// TestLinksOfDocumentsLeadSomewhere follows the links between documents, down to the heading.
func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	found := 0
	for _, document := range documents(t) {
		for _, match := range link.FindAllStringSubmatch(read(t, document), -1) {
			file, heading, _ := strings.Cut(match[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			found++
			target := filepath.Join(filepath.Dir(document), filepath.FromSlash(file))
			if file == "" {
				target = document
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", document, match[1], err)
				continue
			}
			if heading != "" && !headings(read(t, target))[heading] {
				t.Errorf("%s: the link %s leads to no heading", document, match[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d links were found", found)
	}
}

// headings returns the anchors of a document: its headings in lower case with dashes, without marks.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	marks := regexp.MustCompile(`[^a-z0-9 -]`)
	for line := range strings.Lines(text) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			title = marks.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			anchors[strings.ReplaceAll(title, " ", "-")] = true
		}
	}
	return anchors
}

// documents are the files that are written for people.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{filepath.FromSlash("../../../README.md")}
	for _, pattern := range []string{"../../../docs/*.md", "../../../docs/decisions/*.md"} {
		files, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no documents: %v", pattern, err)
		}
		all = append(all, files...)
	}
	return all
}
