package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	marks   = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// prose returns a page without its blocks of code, where a # begins no heading.
func (d *document) prose() string {
	return regexp.MustCompile("(?ms)^ *```.*?^ *```").ReplaceAllString(d.text, "") //nolint:gocritic // each ^ is where a line begins
}

// links returns where the links of a page lead that lead to files and headings. Brackets in code are none.
func (d *document) links() []string {
	var all []string
	prose := regexp.MustCompile("`[^`\n]*`").ReplaceAllString(d.prose(), "")
	for _, match := range link.FindAllStringSubmatch(prose, -1) {
		if !strings.Contains(match[1], "://") {
			all = append(all, match[1])
		}
	}
	return all
}

// anchors are what links to the headings of a page end in.
func anchors(page string) []string {
	var all []string
	for _, found := range heading.FindAllStringSubmatch(page, -1) {
		title := marks.ReplaceAllString(strings.ToLower(strings.TrimSpace(found[1])), "")
		all = append(all, strings.ReplaceAll(title, " ", "-"))
	}
	return all
}

func TestLinksLead(t *testing.T) {
	pages := documents(t)
	headings := map[string][]string{}
	for i := range pages {
		headings[pages[i].path] = anchors(pages[i].prose())
	}
	found := 0
	for _, page := range pages {
		for _, to := range page.links() {
			found++
			file, anchor, _ := strings.Cut(to, "#")
			target := page.path
			if file != "" {
				target = filepath.Join(filepath.Dir(page.path), filepath.FromSlash(file))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s leads nowhere: %v", page.name, to, err)
			} else if anchor != "" && !slices.Contains(headings[target], anchor) {
				t.Errorf("%s: %s: the page has no such heading", page.name, to)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d links were found", found)
	}
}

// TestEveryPageIsListed holds docs/README.md to be a list of all pages, and the pages to lead to every example.
func TestEveryPageIsListed(t *testing.T) {
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	linked, listed := map[string]bool{}, map[string]bool{}
	pages := documents(t)
	for _, page := range pages {
		for _, to := range page.links() {
			file, _, _ := strings.Cut(to, "#")
			target := filepath.Join(filepath.Dir(page.path), filepath.FromSlash(file))
			linked[target] = true
			if page.name == "docs/README.md" {
				listed[target] = true
			}
		}
	}
	for _, page := range pages {
		switch decision := strings.HasPrefix(page.name, "docs/decisions/"); {
		case page.name == "README.md" || page.name == "docs/README.md":
		case decision && !linked[page.path] && !listed[filepath.Dir(page.path)]:
			t.Errorf("no page leads to %s", page.name)
		case !decision && !listed[page.path]:
			t.Errorf("docs/README.md does not list %s", page.name)
		}
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	if err != nil || len(examples) < 10 {
		t.Fatalf("only %d examples were found: %v", len(examples), err)
	}
	for _, example := range examples {
		if !linked[example] {
			t.Errorf("no page leads to examples/%s", filepath.Base(example))
		}
	}
}
