package cases

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	difference "github.com/rogpeppe/go-internal/diff"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/manifest"
)

// compareGolden compares the woven Pod with its golden file, or writes that. It returns the path of what it wrote.
func (c *testCase) compareGolden(got *answer, update bool, fail fail) (written string) {
	golden := c.expect.golden
	if golden == nil {
		return ""
	}
	woven, err := yaml.JSONToYAML(got.raw)
	if err != nil {
		fail(golden.line(), golden.name(), "", "encode the Pod: %v", err)
		return ""
	}
	there, err := readGolden(c.golden)
	there = bytes.ReplaceAll(there, []byte("\r\n"), []byte("\n")) // as git may have checked it out
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		fail(golden.line(), golden.name(), "", "%s", pathProblem(c.golden, err))
	case !missing && bytes.Equal(there, woven):
	case update:
		if err := writeGolden(c.golden, woven); err != nil {
			fail(golden.line(), golden.name(), "", "%s", pathProblem(c.golden, err))
			return ""
		}
		return c.golden
	case missing:
		fail(golden.line(), golden.name(), "", "%s is not there; write it with --update, and read it", golden.path)
	default:
		diff := string(difference.Diff(golden.path, there, "woven", woven))
		_, diff, _ = strings.Cut(diff, "\n") // the line that repeats the names
		fail(golden.line(), golden.name(), diff, "the woven Pod differs from %s; if that is meant, run with --update", golden.path)
	}
	return ""
}

func readGolden(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(file, manifest.MaxFileBytes+1))
	if err == nil && len(content) > manifest.MaxFileBytes {
		err = fmt.Errorf("the file is larger than %d MiB, which no Pod is", manifest.MaxFileBytes>>20)
	}
	return content, err
}

func writeGolden(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// staleGoldens returns the golden files that no case uses. It finds none where something is wrong with a file: its cases may use
// them.
func staleGoldens(there []string, files []*loadedFile) []Problem {
	used := map[string]bool{}
	for _, file := range files {
		if file.unread {
			return nil
		}
		for _, path := range file.goldens {
			used[absolute(path)] = true
		}
	}
	var stale []Problem
	for _, path := range slices.Sorted(slices.Values(there)) {
		if !used[absolute(path)] {
			stale = append(stale, Problem{File: path, Message: "no case uses this golden file; remove it"})
		}
	}
	return stale
}
