package cases

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pillion-dev/pillion/manifest"
)

// found is what the paths that were given hold.
type found struct {
	files    []string // of cases, each once, in the order of the paths and sorted in each directory
	goldens  []string // in directories that were looked through
	problems []Problem
}

// goldenSuffix is what the names of golden files end in, so that one that no case uses any more is found.
const goldenSuffix = manifest.GoldenSuffix

const noCaseHere = "no file in this directory or below has a name that ends in _test.yaml or .test.yaml"

// isTestFile tells whether a file in a directory is one of cases, by its name.
func isTestFile(name string) bool {
	name = strings.ToLower(name)
	extension := filepath.Ext(name)
	if extension != ".yaml" && extension != ".yml" {
		return false
	}
	name = strings.TrimSuffix(name, extension)
	return strings.HasSuffix(name, "_test") || strings.HasSuffix(name, ".test")
}

// find looks for files of cases: the files that are given, whatever their names, and those in directories and below. Directories
// whose names start with a dot are left out, and links to directories are not followed.
func find(paths []string) found {
	var f found
	for _, path := range paths {
		path = filepath.Clean(path)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			f.problems = append(f.problems, pathProblem(path, err))
		case info.IsDir():
			f.directory(path)
		default:
			f.file(path)
		}
	}
	return f
}

func (f *found) file(path string) {
	if !slices.Contains(f.files, path) {
		f.files = append(f.files, path)
	}
}

func (f *found) directory(root string) {
	before := len(f.problems)
	holds := false
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error { // it returns what this function does
		name := entry.Name()
		switch {
		case err != nil:
			f.problems = append(f.problems, pathProblem(path, err))
		case entry.IsDir():
			if path != root && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
		case strings.HasSuffix(name, goldenSuffix):
			if !slices.Contains(f.goldens, path) {
				f.goldens = append(f.goldens, path)
			}
		case isTestFile(name):
			holds = true
			f.file(path)
		}
		return nil
	})
	if !holds && len(f.problems) == before {
		f.problems = append(f.problems, Problem{File: root, Message: noCaseHere})
	}
}

// pathProblem says a path once: package os names it in its own errors too.
func pathProblem(path string, err error) Problem {
	if named := (*fs.PathError)(nil); errors.As(err, &named) {
		err = named.Err
	}
	return Problem{File: path, Message: err.Error()}
}
