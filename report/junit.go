// Package report writes what checks found in the forms that other tools read: JUnit's XML, which CI systems show as tests, and
// SARIF, which code scanning shows at the lines of a change. Both say the same bytes for the same input: they hold no time of their
// own and no name of a machine.
package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Suite is a group of cases: a file that was checked, say.
type Suite struct {
	Name  string
	Cases []Case
}

// Case is one thing that was tried.
type Case struct {
	Name string
	// File is where it stands, and Line counts from 1 in it; zero is unknown.
	File string
	Line int
	// Seconds is how long it took; zero if nobody measured.
	Seconds float64
	// Failure is why it failed; empty if it passed. Its first line is the summary.
	Failure string
}

// JUnit writes suites as JUnit's XML, in the form that Jenkins, GitLab and GitHub's actions share. It has no standard; the
// attributes file and line are those of pytest and others.
func JUnit(w io.Writer, suites []Suite) error {
	all := junitSuites{Suites: make([]junitSuite, 0, len(suites))}
	var total float64
	for i := range suites {
		suite := junitOf(&suites[i])
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		for _, c := range suites[i].Cases {
			total += c.Seconds
		}
		all.Suites = append(all.Suites, suite)
	}
	all.Time = seconds(total)
	encoded, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the JUnit report: %w", err)
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", xml.Header, encoded); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	ClassName string        `xml:"classname,attr"`
	File      string        `xml:"file,attr,omitempty"`
	Line      int           `xml:"line,attr,omitempty"`
	Time      string        `xml:"time,attr"`
	Failure   *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func junitOf(suite *Suite) junitSuite {
	out := junitSuite{Name: printable(suite.Name), Tests: len(suite.Cases), Cases: make([]junitCase, 0, len(suite.Cases))}
	var total float64
	for _, c := range suite.Cases {
		total += c.Seconds
		one := junitCase{
			Name: printable(c.Name), ClassName: printable(suite.Name), File: printable(c.File), Line: c.Line, Time: seconds(c.Seconds),
		}
		if c.Failure != "" {
			out.Failures++
			text := printable(c.Failure)
			summary, _, _ := strings.Cut(text, "\n")
			one.Failure = &junitFailure{Message: summary, Text: text}
		}
		out.Cases = append(out.Cases, one)
	}
	out.Time = seconds(total)
	return out
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 3, 64) }

// printable replaces what neither XML 1.0 can hold, even escaped, nor a terminal should see: control characters but for the line
// break and the tab, and bytes that are no UTF-8. The rest of a message may come from any file.
func printable(text string) string {
	clean := func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r < ' ', r >= 0x7f && r < 0xa0, r == utf8.RuneError, r == 0xfffe, r == 0xffff:
			return utf8.RuneError
		default:
			return r
		}
	}
	return strings.Map(clean, text)
}
