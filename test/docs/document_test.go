package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// The marks of code blocks, behind the language: ```yaml woven. Markdown does not show them.
const (
	// markFragment is on YAML that has apiVersion and kind and yet is not for applying as it is.
	markFragment = "fragment"
	// markWoven is on YAML that tells what the Pod of the workload before it looks like. This test writes it, with -update.
	markWoven = "woven"
	// markElsewhere is on commands that this test does not run, for they are for another place or time.
	markElsewhere = "elsewhere"
	// markFails is on commands of which the last fails, which is what the page shows.
	markFails = "fails"
)

// document is a page of the documentation.
type document struct{ path, name, text string }

// block is a code block of a page.
type block struct {
	language, mark, text string
	// line is that of its first line of code, start and end are the bytes that the code has in the page.
	line, start, end int
}

// documents returns README.md and the pages of docs/.
func documents(t *testing.T) []document {
	t.Helper()
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(root, "README.md")}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) == ".md" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []document
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document{path: path, name: filepath.ToSlash(name), text: string(content)})
	}
	return all
}

// blocks returns the code blocks of a page, also those that are indented in a list.
func (d *document) blocks() []block {
	fence := regexp.MustCompile("(?ms)^( *)```([a-z]+) *([^\n`]*)\n(.*?)^ *``` *$") //nolint:gocritic // each ^ is where a line begins
	var all []block
	for _, at := range fence.FindAllStringSubmatchIndex(d.text, -1) {
		part := func(i int) string { return d.text[at[2*i]:at[2*i+1]] }
		text := part(4)
		if indent := part(1); indent != "" {
			text = strings.ReplaceAll("\n"+text, "\n"+indent, "\n")[1:]
		}
		all = append(all, block{
			language: part(2), mark: strings.TrimSpace(part(3)), text: text,
			line: strings.Count(d.text[:at[8]], "\n") + 1, start: at[8], end: at[9],
		})
	}
	return all
}

func (d *document) at(b block) string { return fmt.Sprintf("%s:%d", d.name, b.line) }

// replace writes other code into a block. Blocks that were found before lie elsewhere afterwards.
func (d *document) replace(b block, text string) error {
	d.text = d.text[:b.start] + text + d.text[b.end:]
	return os.WriteFile(d.path, []byte(d.text), 0o644)
}

func TestMarksAreKnown(t *testing.T) {
	known := map[string]bool{
		"yaml": true, "sh": true,
		"yaml " + markFragment: true, "yaml " + markWoven: true, "sh " + markElsewhere: true, "sh " + markFails: true,
	}
	found := 0
	for _, document := range documents(t) {
		for _, block := range document.blocks() {
			found++
			if block.language != "yaml" && block.language != "sh" {
				continue
			}
			if !known[strings.TrimSpace(block.language+" "+block.mark)] {
				t.Errorf("%s: a block of %s is marked %q, which this test does not know", document.at(block), block.language, block.mark)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d blocks were found", found)
	}
}
