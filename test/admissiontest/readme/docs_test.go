package readme

import (
	"io/fs"
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
		for _, match := range link.FindAllStringSubmatch(withoutCode(read(t, document)), -1) {
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
	if found < 100 {
		t.Errorf("only %d links were found", found)
	}
}

// withoutCode leaves out what is code: what looks like a link or a heading there is none.
func withoutCode(text string) string {
	text = regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(text, "") //nolint:gocritic // each ^ is where a line begins
	return regexp.MustCompile("`[^`\n]*`").ReplaceAllStringFunc(text, func(code string) string {
		return regexp.MustCompile(`[^A-Za-z0-9 _-]`).ReplaceAllString(code, "") // a heading's anchor has the letters of its code
	})
}

// headings returns the anchors of a document: its headings in lower case with dashes, without marks.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	marks := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.Lines(withoutCode(text)) {
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
	err := filepath.WalkDir(filepath.FromSlash("../../../docs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) == ".md" {
			all = append(all, path)
		}
		return err
	})
	if err != nil || len(all) < 20 {
		t.Fatalf("only %d documents: %v", len(all), err)
	}
	return all
}

// TestEveryPageIsInTheIndex looks for each page of docs/ in docs/README.md, where readers look for it.
func TestEveryPageIsInTheIndex(t *testing.T) {
	index := read(t, "../../../docs/README.md")
	for _, document := range documents(t) {
		path, err := filepath.Rel(filepath.FromSlash("../../../docs"), document)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.ToSlash(path)
		if path == "README.md" || strings.HasPrefix(path, "../") || strings.HasPrefix(path, "decisions/") {
			continue
		}
		if !strings.Contains(index, "]("+path+")") {
			t.Errorf("docs/README.md has no link to %s", path)
		}
	}
}
