package cases

import (
	"fmt"
	"strings"

	"github.com/pillion-dev/pillion/report"
)

// Suites returns the report in the form of package report: a suite for each file, in which what is wrong with the file fails as a
// case of its own.
func (r *Report) Suites() []report.Suite {
	suites := make([]report.Suite, 0, len(r.Files))
	for _, file := range r.Files {
		suite := report.Suite{Name: file.File}
		for _, problem := range file.Problems {
			suite.Cases = append(suite.Cases, report.Case{
				Name: "can be used: " + problem.at(), File: problem.File, Line: problem.Line, Failure: problem.String(),
			})
		}
		for i := range file.Cases {
			c := &file.Cases[i]
			one := report.Case{Name: c.Name, File: file.File, Line: c.Line, Seconds: c.Seconds}
			if !c.Passed {
				one.Failure = c.Explanation()
			}
			suite.Cases = append(suite.Cases, one)
		}
		if len(suite.Cases) == 0 {
			continue // none of the file's was selected
		}
		suites = append(suites, suite)
	}
	return suites
}

// Explanation says what failed, what was expected, and what became of the profiles, each on lines of its own.
func (c *Case) Explanation() string {
	var text strings.Builder
	for _, failure := range c.Failures {
		text.WriteString(failure.String())
	}
	if len(c.Outcomes) == 0 {
		text.WriteString("no profile was considered: the Pod asks for none, and none chooses it\n")
		return text.String()
	}
	text.WriteString("what became of the profiles:\n")
	for i := range c.Outcomes {
		outcome := &c.Outcomes[i]
		fmt.Fprintf(&text, "  %s %s (%s, by %s): %s\n",
			outcome.Profile, outcome.Result, outcome.Reason, outcome.Source, outcome.Message)
	}
	return text.String()
}

// String returns the Failure, its difference on lines below it.
func (f *Failure) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (line %d): %s\n", f.Field, f.Line, f.Message)
	if f.Diff == "" {
		return text.String()
	}
	text.WriteString("  expected -, got +\n")
	for line := range strings.Lines(f.Diff) {
		text.WriteString("    " + line)
	}
	return text.String()
}
