// Package lint checks manifests before a cluster sees them: profiles, Namespaces and workloads together, as the webhook would decide
// about their Pods. Files go in, findings come out; the same files give the same findings.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
	"github.com/pillion-dev/pillion/weave"
)

// Options are what the findings depend on beside the files.
type Options struct {
	// Compiler compiles the profiles.
	Compiler *profiles.Compiler
	// Decisions are the settings of the installation.
	Decisions profiles.Options
	// Namespace is that of objects that name none.
	Namespace string
	// Beside are files whose profiles and Namespaces count, and in which nothing is checked but that they can be read.
	Beside []manifest.File
}

// Result is what was looked at and what was found.
type Result struct {
	// Files, Profiles, Namespaces and Workloads count what was checked.
	Files, Profiles, Namespaces, Workloads int
	// Ignored counts documents in directories that are for other tools: they have neither apiVersion nor kind, or a kustomization
	// names them as patches.
	Ignored int
	// Names are those of the files.
	Names []string
	// Findings are sorted by file, line and column.
	Findings []report.Finding
}

// Count returns how many findings have a severity.
func (r *Result) Count(severity report.Severity) int {
	n := 0
	for i := range r.Findings {
		if r.Findings[i].Severity == severity {
			n++
		}
	}
	return n
}

// Files checks files. unread is what could not be read, errors of package manifest, which become findings too. Objects in the files are
// changed.
func Files(files []manifest.File, unread []error, options Options) Result {
	files = slices.SortedStableFunc(slices.Values(files), func(a, b manifest.File) int { return strings.Compare(a.Name, b.Name) })
	l := linter{options: options, files: files}
	l.result.Files = len(files)
	for i := range files {
		l.result.Names = append(l.result.Names, files[i].Name)
	}
	for _, err := range unread {
		l.add(l.findingOf(err, ReasonUnreadable))
	}
	l.collect()
	l.compile()
	l.checkDuplicates()
	l.checkProfiles()
	l.checkNamespaces()
	l.checkWorkloads()
	l.result.Findings = sorted(l.result.Findings)
	return l.result
}

// linter is one run.
type linter struct {
	options Options
	files   []manifest.File
	result  Result

	objects    []manifest.Object
	profiles   []compiled
	snapshot   *profiles.Snapshot
	namespaces manifest.Namespaces
	// told are what Namespaces were told, which their Pods need not be told again.
	told map[toldNamespace]bool
}

func (l *linter) add(findings ...report.Finding) {
	l.result.Findings = append(l.result.Findings, findings...)
}

// find adds a finding about an object.
func (l *linter) find(object *manifest.Object, at manifest.Position, severity report.Severity, reason weave.Reason, format string, args ...any) {
	l.add(finding(object.Document, at, severity, reason, fmt.Sprintf(format, args...)))
}

func finding(document *manifest.Document, at manifest.Position, severity report.Severity, reason weave.Reason, message string) report.Finding {
	return report.Finding{
		File: document.File, Line: at.Line, Column: at.Column, Severity: severity, Reason: string(reason), Message: message,
	}
}

// findingOf makes a finding of an error of package manifest.
func (l *linter) findingOf(err error, reason weave.Reason) report.Finding {
	found := report.Finding{Severity: report.Error, Reason: string(reason), Message: err.Error()}
	if in := (*manifest.Error)(nil); errors.As(err, &in) {
		found.File, found.Line, found.Column, found.Message = in.File, in.Line, in.Column, in.Err.Error()
	}
	if errors.Is(err, manifest.ErrUnrendered) {
		found.Reason = string(ReasonUnrendered)
		found.Message += ": helm template CHART | pillion lint -"
	}
	return found
}

// collect finds the objects in the files.
func (l *linter) collect() {
	patches := kustomizePatches(l.files)
	for i := range l.files {
		file := &l.files[i]
		if file.Empty() {
			l.add(report.Finding{
				File: file.Name, Line: 1, Severity: report.Error, Reason: string(ReasonInvalidManifest), Message: "the file holds no object",
			})
		}
		for _, document := range file.Documents {
			switch {
			case document.Empty():
			case file.Found && patches[filepath.Clean(file.Name)]:
				l.result.Ignored++
			default:
				l.collectFrom(file, document)
			}
		}
	}
}

// checkReadable tells why a document cannot be used. It is false for one that cannot, told or not.
func (l *linter) checkReadable(file *manifest.File, document *manifest.Document) bool {
	if document.Err != nil && (!file.Found || !errors.Is(document.Err, manifest.ErrNoObject)) {
		for _, err := range each(document.Err) {
			l.add(l.findingOf(err, ReasonInvalidManifest))
		}
	}
	return document.Err == nil
}

func (l *linter) collectFrom(file *manifest.File, document *manifest.Document) {
	if !l.checkReadable(file, document) {
		if file.Found && errors.Is(document.Err, manifest.ErrNoObject) {
			l.result.Ignored++
		}
		return
	}
	for _, object := range document.Objects() {
		missing, foreign := incomplete(&object)
		switch {
		case missing == "":
			l.objects = append(l.objects, object)
		case foreign && file.Found:
			l.result.Ignored++
		default:
			l.find(&object, object.At(""), report.Error, ReasonInvalidManifest, "this is no Kubernetes object: it has no %s", missing)
		}
	}
}

// each returns the errors that one joins, or the error itself.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// incomplete says what an object lacks to be one of the API. foreign says that it was hardly meant as one: values of Helm and settings
// of other tools have neither metadata nor spec beside the kind or apiVersion that they may have.
func incomplete(object *manifest.Object) (missing string, foreign bool) {
	kind, _ := object.Fields["kind"].(string)
	version, _ := object.Fields["apiVersion"].(string)
	_, hasMetadata := object.Fields["metadata"]
	_, hasSpec := object.Fields["spec"]
	switch {
	case kind != "" && version != "":
		return "", false
	case kind == "" && version == "":
		return "apiVersion and no kind", object.Pointer == ""
	case kind == "":
		return "kind", object.Pointer == "" && !hasMetadata && !hasSpec
	default:
		return "apiVersion", object.Pointer == "" && !hasMetadata && !hasSpec
	}
}

// kustomizePatches returns the files that kustomizations among the files name as patches: parts of objects.
func kustomizePatches(files []manifest.File) map[string]bool {
	patches := map[string]bool{}
	for i := range files {
		directory, name := filepath.Split(files[i].Name)
		if name != "kustomization.yaml" && name != "kustomization.yml" {
			continue
		}
		for _, document := range files[i].Documents {
			for _, field := range []string{"patches", "patchesStrategicMerge", "patchesJson6902"} {
				listed, _ := document.Object[field].([]any)
				for _, entry := range listed {
					path, _ := entry.(string)
					if object, ok := entry.(map[string]any); ok {
						path, _ = object["path"].(string)
					}
					if path != "" {
						patches[filepath.Join(directory, path)] = true
					}
				}
			}
		}
	}
	return patches
}

// sorted returns findings in the order of files, lines and columns, each once.
func sorted(findings []report.Finding) []report.Finding {
	slices.SortStableFunc(findings, func(a, b report.Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			strings.Compare(string(a.Severity), string(b.Severity)), strings.Compare(a.Reason, b.Reason), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(findings)
}

// inParallel calls a function for 0 to n-1, several at a time.
func inParallel(n int, do func(i int)) {
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		group.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = group.Wait() // no function fails
}
