// Package cases runs test cases of profiles that are written in YAML: Pods go through the webhook's own handler, without a
// cluster, and what becomes of them is compared with what a case expects. It is what `pillion test` runs.
//
// A file holds one PatternTest, or several as documents. That is no kind of the Kubernetes API: it is never applied.
// docs/testing.md describes it.
package cases

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

// Options are how cases are run.
type Options struct {
	// Profiles are paths of the profiles for files of cases that name none.
	Profiles []string
	// Flags and Environ are the settings that decisions depend on, as package config has them. What a file or a case sets itself
	// comes before them. Nil: the defaults.
	Flags   *pflag.FlagSet
	Environ []string
	// Decisions makes settings what decisions depend on.
	Decisions func(config.Config) profiles.Options
	// Only selects the cases whose names match. Nil: all.
	Only *regexp.Regexp
	// Update writes golden files that differ, instead of failing.
	Update bool
}

// Problem is what keeps cases from being run, and where.
type Problem struct {
	File string `json:"file"`
	// Line and Column count from 1; zero is the file, or the line, as a whole.
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

// String returns the Problem with its place before it.
func (p Problem) String() string {
	return p.at() + ": " + p.Message
}

// at returns the place: FILE:LINE:COLUMN, as far as it is known.
func (p Problem) at() string {
	if p.Column > 0 {
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	return place(p.File, p.Line)
}

func place(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// Report is what became of cases.
type Report struct {
	Files []File `json:"files"`
	// Cases counts those that ran, and Failed how many of them failed.
	Cases  int `json:"cases"`
	Failed int `json:"failed"`
	// Problems counts those of all files.
	Problems int `json:"problems"`
	// Excluded counts the cases that were not selected.
	Excluded int `json:"excluded,omitempty"`
}

// OK tells whether all is well: nothing failed, and something ran.
func (r *Report) OK() bool { return r.Failed == 0 && r.Problems == 0 && r.Cases > 0 }

// File is what became of the cases of a file.
type File struct {
	File     string    `json:"file"`
	Cases    []Case    `json:"cases,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
}

// Case is what became of one case.
type Case struct {
	Name string `json:"name"`
	Line int    `json:"line"`
	// Passed is true if there are no Failures.
	Passed   bool      `json:"passed"`
	Failures []Failure `json:"failures,omitempty"`
	// Allowed, Message, Warnings and Outcomes are what the webhook answered, and why.
	Allowed  bool               `json:"allowed"`
	Message  string             `json:"message,omitempty"`
	Warnings []string           `json:"warnings,omitempty"`
	Outcomes []profiles.Outcome `json:"outcomes,omitempty"`
	// Written is the golden file that was written.
	Written string  `json:"written,omitempty"`
	Seconds float64 `json:"-"`
}

// Failure is what was expected of a Pod and did not come.
type Failure struct {
	// Line is that of the expectation.
	Line int `json:"line"`
	// Field is the expectation: expect.containers; "law" for what is held of every Pod.
	Field   string `json:"field"`
	Message string `json:"message"`
	// Diff has a line for each that was expected (-), came (+), or both.
	Diff string `json:"diff,omitempty"`
}

// Run runs the cases in files and directories, in their order. What is wrong with files is in the Report; the error is for what
// keeps all of them from being run.
func Run(ctx context.Context, paths []string, options Options) (*Report, error) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	if _, err := config.Load(options.Flags, options.Environ); err != nil {
		return nil, err
	}
	l := newLoader(compiler, options)
	at := find(paths)
	loaded := make([]*loadedFile, len(at.files))
	for i, name := range at.files {
		loaded[i] = l.load(name)
	}
	report := &Report{}
	for _, problem := range at.problems {
		report.add(File{File: problem.File, Problems: []Problem{problem}})
	}
	for _, file := range loaded {
		result := File{File: file.name, Problems: file.problems}
		for _, c := range file.cases {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("run the cases of %s: %w", file.name, err)
			}
			if options.Only != nil && !options.Only.MatchString(c.name) {
				report.Excluded++
				continue
			}
			start := time.Now()
			ran := c.run(ctx, options.Update)
			ran.Seconds = time.Since(start).Seconds()
			result.Cases = append(result.Cases, ran)
		}
		report.add(result)
	}
	for _, stale := range staleGoldens(at.goldens, loaded) {
		report.add(File{File: stale.File, Problems: []Problem{stale}})
	}
	return report, nil
}

func (r *Report) add(file File) {
	for i := range file.Cases {
		r.Cases++
		if !file.Cases[i].Passed {
			r.Failed++
		}
	}
	r.Problems += len(file.Problems)
	r.Files = append(r.Files, file)
}

// loadedFile is a file of cases that has been read.
type loadedFile struct {
	name     string
	cases    []*testCase
	goldens  []string // that its cases have
	unread   bool     // something is wrong with it, so that these may not be all
	problems []Problem
}

// load reads a file of cases and what its cases need. The cases of a document that something is wrong with are not run.
func (l *loader) load(name string) *loadedFile {
	file := &loadedFile{name: name}
	read, errs := manifest.ReadFiles([]string{name}, strings.NewReader(""))
	for _, err := range errs {
		file.problems = append(file.problems, problemsOf(err, Problem{File: name})...)
	}
	file.unread = len(errs) > 0
	names := map[string]int{}
	for i := range read {
		if read[i].Empty() {
			file.problems = append(file.problems, Problem{File: name, Line: 1, Message: "the file holds no PatternTest"})
		}
		for _, document := range read[i].Documents {
			switch {
			case document.Empty():
			case document.Err != nil:
				file.unread = true
				file.problems = append(file.problems, problemsOf(document.Err, Problem{File: name})...)
			default:
				l.document(file, document, names)
			}
		}
	}
	return file
}

// document reads a document of a file.
func (l *loader) document(file *loadedFile, document *manifest.Document, names map[string]int) {
	r := &reader{document: document}
	test := r.test(names)
	for _, c := range test.cases {
		if c.expect.golden == nil {
			continue
		}
		path := filepath.Join(filepath.Dir(file.name), filepath.FromSlash(c.expect.golden.path))
		c.golden = path
		file.goldens = append(file.goldens, path)
		if first, taken := l.goldens[path]; taken {
			c.expect.golden.problem("%s is the golden file of the case at %s too; give each its own", c.expect.golden.path, first)
			continue
		}
		l.goldens[path] = place(file.name, c.line)
	}
	l.resolve(r, test)
	slices.SortStableFunc(r.problems, func(a, b Problem) int { // those of profiles and manifests come last, as they came up
		elsewhere := func(p Problem) int {
			if p.File == document.File {
				return 0
			}
			return 1
		}
		if elsewhere(a)+elsewhere(b) > 0 {
			return elsewhere(a) - elsewhere(b)
		}
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	file.problems = append(file.problems, r.problems...)
	file.unread = file.unread || len(r.problems) > 0
	if len(r.problems) == 0 {
		file.cases = append(file.cases, test.cases...)
	}
}
