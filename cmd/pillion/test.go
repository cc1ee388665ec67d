package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/cases"
	"github.com/pillion-dev/pillion/report"
)

const formJUnit = "junit"

func testCommand() *cobra.Command {
	var only string
	var update, verbose bool
	command := &cobra.Command{
		Use:   "test PATH...",
		Short: "Run test cases of profiles: Pods, and what should become of them",
		Long: `test creates Pods as an API server would, through the webhook's own handler and without a cluster, and compares what
becomes of them with what is expected. The exit status is 1 if a case fails, if a file cannot be used, and if there is no case.

Cases are written in YAML, in files whose names end in _test.yaml or .test.yaml. They are looked for in the directories given and
below; a file that is given by itself may have any name. This is one:

  apiVersion: pillion.dev/v1alpha1
  kind: PatternTest                         # a file for this command, no object of a cluster
  profiles: [../profiles/]                  # files and directories, from this file; or profiles themselves
  namespaces:
  - {name: shop, labels: {team: web}}
  cases:
  - name: a Pod that asks gets its site before it starts
    namespace: shop
    pod:
      metadata: {annotations: {pillion.dev/inject: site-content}}
      spec: {containers: [{name: app}]}
    expect:
      containers: [pillion-site-content (sidecar), app]
  - name: a Deployment that follows another repository is refused
    namespace: shop
    file: deployment.yaml                   # its template; object: Deployment/shop chooses among several
    expect:
      denied: {reasons: [FieldNotOverridable]}

What can be expected: allowed, denied, containers, injected, skipped, outcomes, warnings, and golden, a file with the whole woven
Pod. That a woven Pod is not woven again is expected of every case. docs/testing.md describes it all.`,
		Example: `  pillion test tests/

  # One case, and the cases that pass as well
  pillion test tests/ --run 'another repository' -v

  # Write the golden files, and read what has changed
  pillion test tests/ --update && git diff tests/

  # For CI
  pillion test tests/ -o junit > report.xml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name files or directories with test cases, for example: pillion test tests/")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveDefault
		},
	}
	flags := command.Flags()
	flags.StringVar(&only, "run", "", "run only the cases whose names match this regular expression")
	flags.BoolVar(&update, "update", false, "write golden files that differ, instead of failing")
	flags.BoolVarP(&verbose, "verbose", "v", false, "list the cases that pass, too")
	decision := addDecisionFlags(command)
	flags.Lookup("profiles").Usage = "file or directory with profiles and Namespaces, for files that name none; may be repeated"
	form := addOutputFlag(command, formJUnit)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := form.check(); err != nil {
			return err
		}
		options := cases.Options{
			Profiles: decision.profiles, Flags: decision.configuration, Environ: os.Environ(), Decisions: decisionOptions, Update: update,
		}
		if only != "" {
			selected, err := regexp.Compile(only)
			if err != nil {
				return fmt.Errorf("--run: %w", err)
			}
			options.Only = selected
		}
		ran, err := cases.Run(command.Context(), args, options)
		if err != nil {
			return err
		}
		if err := printCases(command.OutOrStdout(), form, ran, verbose); err != nil {
			return err
		}
		return verdict(ran, args)
	}
	return command
}

// printCases writes what became of cases in the form that was asked for.
func printCases(w io.Writer, form *output, ran *cases.Report, verbose bool) error {
	switch form.form {
	case formText:
		_, err := io.WriteString(w, casesText(styleFor(w), ran, verbose))
		return err
	case formJUnit:
		return report.JUnit(w, ran.Suites())
	default:
		return form.print(w, struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			*cases.Report
		}{v1alpha1.GroupVersion.String(), "PatternTestReport", ran})
	}
}

// casesText is for people: what failed and why, and with verbose what passed.
func casesText(style style, ran *cases.Report, verbose bool) string {
	var text strings.Builder
	for _, file := range ran.Files {
		for _, problem := range file.Problems {
			fmt.Fprintf(&text, "%s %s\n", style.red("error:"), problem)
		}
		for i := range file.Cases {
			c := &file.Cases[i]
			where := fmt.Sprintf("%s:%d: %s", file.File, c.Line, c.Name)
			switch {
			case !c.Passed:
				fmt.Fprintf(&text, "%s %s\n", style.red("FAIL"), style.bold(where))
				for line := range strings.Lines(c.Explanation()) {
					text.WriteString("     " + colored(style, line))
				}
			case verbose:
				fmt.Fprintf(&text, "%s %s\n", style.green("pass"), where)
			}
			if c.Written != "" {
				fmt.Fprintf(&text, "%s %s\n", style.yellow("wrote"), c.Written)
			}
		}
	}
	if ran.OK() {
		fmt.Fprintf(&text, "%s%s\n", style.green(counted(ran.Cases, "case")+" passed"), excluded(ran))
	}
	return text.String()
}

// colored shows what was expected and what came in colors.
func colored(style style, line string) string {
	body := strings.TrimSuffix(line, "\n")
	switch {
	case strings.HasPrefix(body, "    -"):
		body = style.red(body)
	case strings.HasPrefix(body, "    +"):
		body = style.green(body)
	}
	return body + "\n"
}

// verdict is the error of a run in which all is not well.
func verdict(ran *cases.Report, args []string) error {
	var told []string
	if ran.Failed > 0 {
		told = append(told, fmt.Sprintf("%d of %s failed", ran.Failed, counted(ran.Cases, "case")))
	}
	if ran.Problems > 0 {
		told = append(told, counted(ran.Problems, "problem")+" in files")
	}
	switch {
	case len(told) > 0:
		return errors.New(strings.Join(told, ", ") + excluded(ran))
	case ran.Cases == 0 && ran.Excluded > 0:
		return fmt.Errorf("--run matches no name of the %s", counted(ran.Excluded, "case"))
	case ran.Cases == 0:
		return fmt.Errorf("there is no case in %s", strings.Join(args, ", "))
	default:
		return nil
	}
}

func excluded(ran *cases.Report) string {
	if ran.Excluded == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s not run, by --run)", counted(ran.Excluded, "case"))
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
