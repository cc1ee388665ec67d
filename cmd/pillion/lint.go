package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/docs"
	"github.com/pillion-dev/pillion/lint"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
)

// formSARIF is the form of output for code scanning.
const formSARIF = "sarif"

func lintCommand() *cobra.Command {
	l := &linting{}
	command := &cobra.Command{
		Use:   "lint PATH...",
		Short: "Check profiles and workloads together, before a cluster sees them",
		Long: `lint reads manifests and says what the webhook would refuse, leave out or warn of, and what asks for profiles where
nothing reads it. It needs no cluster. Each finding names file, line and column, and a reason code that "pillion docs"
explains.

A path is a file, a directory with its subdirectories (files that end in .yaml, .yml or .json), or - for stdin.
Profiles, Namespaces and workloads may stand anywhere among them; those of --profiles count too, and are not checked
again. Objects of other kinds are passed over. So are, in directories, documents that have neither apiVersion nor kind,
such as the values of a chart, patches that a kustomization.yaml names, whatever is hidden, and files that end in .golden.yaml,
which "pillion test" writes. Templates of Helm and kustomizations are checked by what they make: render them first.

The exit status is 1 if there is an error; with --fail-on-warnings, if there is a finding at all.`,
		Example: `  # Everything in a directory
  pillion lint deploy/

  # What a chart makes, with profiles that are kept elsewhere
  helm template my-chart | pillion lint - --profiles profiles/

  # For code scanning, and for a CI system that shows tests
  pillion lint deploy/ -o sarif > pillion.sarif
  pillion lint deploy/ -o junit > pillion.xml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name files or directories to check, or - for stdin, for example: pillion lint deploy/")
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVarP(&l.namespace, "namespace", "n", corev1.NamespaceDefault, "namespace of the objects that name none")
	flags.BoolVar(&l.strict, "fail-on-warnings", false, "exit with status 1 for warnings too")
	l.output = addOutputFlag(command, formSARIF, formJUnit)
	l.decisions = addDecisionFlags(command)
	command.RunE = func(command *cobra.Command, paths []string) error {
		if err := l.output.check(); err != nil {
			return err
		}
		collectLess()
		result, err := l.check(paths, command.InOrStdin())
		if err != nil {
			return err
		}
		if err := l.print(command.OutOrStdout(), &result); err != nil {
			return err
		}
		if l.output.form == formText {
			fmt.Fprintln(command.ErrOrStderr(), summaryOf(&result))
		}
		return l.verdict(&result)
	}
	return command
}

// linting is one run of the command.
type linting struct {
	namespace string
	strict    bool
	output    *output
	decisions *decisionFlags
}

// check reads the files and checks them. What cannot be read is among the findings.
func (l *linting) check(paths []string, stdin io.Reader) (lint.Result, error) {
	settings, err := l.decisions.settings()
	if err != nil {
		return lint.Result{}, err
	}
	var compiler *profiles.Compiler
	group := errgroup.Group{}
	group.Go(func() (err error) { // while files are read
		compiler, err = profiles.NewCompiler()
		return err
	})
	files, unread := manifest.ReadTrees(paths, stdin)
	beside, besideErrs := manifest.ReadTrees(l.decisions.profiles, stdin)
	if err := group.Wait(); err != nil {
		return lint.Result{}, fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	return lint.Files(files, append(unread, besideErrs...), lint.Options{
		Compiler: compiler, Decisions: decisionOptions(settings), Namespace: l.namespace, Beside: without(beside, files),
	}), nil
}

// without leaves out files that are among others.
func without(files, others []manifest.File) []manifest.File {
	known := map[string]bool{}
	for i := range others {
		known[others[i].Path()] = true
	}
	var kept []manifest.File
	for i := range files {
		if !known[files[i].Path()] {
			kept = append(kept, files[i])
		}
	}
	return kept
}

// lintReport is the output for programs.
type lintReport struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Summary    lintSummary      `json:"summary"`
	Findings   []report.Finding `json:"findings"`
}

type lintSummary struct {
	Files      int `json:"files"`
	Profiles   int `json:"profiles"`
	Namespaces int `json:"namespaces"`
	Workloads  int `json:"workloads"`
	Ignored    int `json:"ignored"`
	Errors     int `json:"errors"`
	Warnings   int `json:"warnings"`
}

func (l *linting) print(w io.Writer, result *lint.Result) error {
	switch l.output.form {
	case formSARIF:
		return report.SARIF(w, thisBuild().Version, result.Findings, reasonText)
	case formJUnit:
		return report.JUnit(w, suitesOf(result, l.strict))
	case formText:
		colors := styleFor(w)
		for i := range result.Findings {
			if _, err := fmt.Fprintln(w, lineOf(&result.Findings[i], colors)); err != nil {
				return fmt.Errorf("write the findings: %w", err)
			}
		}
		return nil
	default:
		findings := result.Findings
		if findings == nil {
			findings = []report.Finding{}
		}
		return l.output.print(w, lintReport{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "LintReport", Findings: findings,
			Summary: lintSummary{
				Files: result.Files, Profiles: result.Profiles, Namespaces: result.Namespaces, Workloads: result.Workloads,
				Ignored: result.Ignored, Errors: result.Count(report.Error), Warnings: result.Count(report.Warning),
			},
		})
	}
}

// reasonText returns what the documentation says of a reason, in a sentence and as a whole.
func reasonText(code string) (summary, text string) {
	reason, _ := docs.Find(code)
	return reason.Summary, reason.Text
}

// lineOf writes a finding as compilers do, so that editors find the place.
func lineOf(finding *report.Finding, colors style) string {
	where := onOneLine(finding.File)
	for _, n := range []int{finding.Line, finding.Column} {
		if n > 0 {
			where += fmt.Sprintf(":%d", n)
		}
	}
	severity := colors.yellow(string(finding.Severity))
	if finding.Severity == report.Error {
		severity = colors.red(string(finding.Severity))
	}
	line := fmt.Sprintf("%s: %s %s", severity, onOneLine(finding.Message), colors.faint("("+finding.Reason+")"))
	if where == "" {
		return line
	}
	return colors.bold(where+":") + " " + line
}

// onOneLine returns a text that may be from a file, or its name, without what a terminal or a CI system would obey.
func onOneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, text)
}

// suitesOf makes a suite of each file. A file without errors is one test that passes.
func suitesOf(result *lint.Result, strict bool) []report.Suite {
	var suites []report.Suite
	for _, name := range result.Names {
		suites = append(suites, report.Suite{Name: name})
	}
	for i := range result.Findings {
		finding := &result.Findings[i]
		at := len(suites) - 1
		for at >= 0 && suites[at].Name != finding.File {
			at--
		}
		if at < 0 {
			suites, at = append(suites, report.Suite{Name: finding.File}), len(suites)
		}
		c := report.Case{
			Name: finding.Reason + ": " + finding.Message, File: finding.File, Line: finding.Line,
		}
		if finding.Line > 0 {
			c.Name = fmt.Sprintf("%s on line %d: %s", finding.Reason, finding.Line, finding.Message)
		}
		if finding.Severity == report.Error || strict {
			c.Failure = lineOf(finding, style{})
		}
		suites[at].Cases = append(suites[at].Cases, c)
	}
	for i := range suites {
		if len(suites[i].Cases) == 0 {
			suites[i].Cases = []report.Case{{Name: "nothing to mend", File: suites[i].Name}}
		}
	}
	return suites
}

// summaryOf says in a line what was looked at and found.
func summaryOf(result *lint.Result) string {
	looked := []string{
		count(result.Files, "file"), count(result.Profiles, "profile"), count(result.Namespaces, "Namespace"), count(result.Workloads, "workload"),
	}
	summary := strings.Join(looked, ", ")
	if result.Ignored > 0 {
		summary += fmt.Sprintf(" (%s for other tools ignored)", count(result.Ignored, "document"))
	}
	return fmt.Sprintf("%s: %s, %s", summary, count(result.Count(report.Error), "error"), count(result.Count(report.Warning), "warning"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// verdict is the error that makes the exit status 1.
func (l *linting) verdict(result *lint.Result) error {
	errs, warnings := result.Count(report.Error), result.Count(report.Warning)
	switch {
	case errs > 0:
		return fmt.Errorf("lint found %s", count(errs, "error"))
	case l.strict && warnings > 0:
		return fmt.Errorf("lint found %s, and --fail-on-warnings is set", count(warnings, "warning"))
	default:
		return nil
	}
}

// collectLess lets the garbage collector run less often than it does in what runs for days: a run makes most of its memory at once, and
// ends. Above a gibibyte it runs as it must. What the environment says goes.
func collectLess() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(1 << 30)
	}
}
