package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Severity is how bad a finding is. Its values are the levels of SARIF.
type Severity string

// The severities.
const (
	// Error is what will not work.
	Error Severity = "error"
	// Warning is what works, and hardly as it is meant.
	Warning Severity = "warning"
	// Note is what is worth knowing.
	Note Severity = "note"
)

// Finding is something to mend in a file.
type Finding struct {
	// File is a path, absolute or from the working directory; empty if the finding is about no file.
	File string `json:"file,omitempty"`
	// Line and Column count from 1; zero is unknown. A column counts characters (Unicode code points).
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	Severity Severity `json:"severity"`
	// Reason is a stable code.
	Reason string `json:"reason"`
	// Message is a sentence for people.
	Message string `json:"message"`
}

// Where SARIF's schema is, where this project's documents are, and what each reason's are called there.
const (
	sarifVersion   = "2.1.0"
	sarifSchema    = "https://json.schemastore.org/sarif-2.1.0.json"
	informationURI = "https://github.com/pillion-dev/pillion"
	docsURI        = informationURI + "/blob/main/docs/"
	helpURI        = docsURI + "reasons.md"
)

// SARIF writes findings as a SARIF 2.1.0 log (OASIS, https://docs.oasis-open.org/sarif/sarif/v2.1.0/), a rule for each reason. version
// is the tool's, and explain says what a reason means, in a sentence, and how to mend it, in Markdown; nil if nobody knows. Paths are URIs relative to the working directory, where they can be: code scanning takes that for the root of the
// repository. It also wants a place for each result: what is about a whole file is on its first line, and what is about none in the working
// directory.
//
// The dozen objects of SARIF that this needs are written out below: libraries for it model hundreds, and none of what this
// must get right, which is how a path becomes a URI.
func SARIF(w io.Writer, version string, findings []Finding, explain func(reason string) (summary, text string)) error {
	run := sarifRun{
		Tool: sarifTool{Driver: sarifDriver{
			Name: "pillion", Version: version, InformationURI: informationURI, Rules: rulesOf(findings, explain),
		}},
		ColumnKind: "unicodeCodePoints",
		Results:    make([]sarifResult, 0, len(findings)),
	}
	for i := range findings {
		run.Results = append(run.Results, resultOf(&findings[i], run.Tool.Driver.Rules))
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(sarifLog{Schema: sarifSchema, Version: sarifVersion, Runs: []sarifRun{run}}); err != nil {
		return fmt.Errorf("write the SARIF report: %w", err)
	}
	return nil
}

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool       sarifTool     `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	Version        string      `json:"version,omitempty"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string       `json:"id"`
	ShortDescription sarifMessage `json:"shortDescription"`
	FullDescription  sarifMessage `json:"fullDescription"`
	Help             sarifHelp    `json:"help"`
	HelpURI          string       `json:"helpUri"`
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifHelp struct {
	Text     string `json:"text"`
	Markdown string `json:"markdown,omitempty"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     Severity        `json:"level"`
	Message   sarifMessage    `json:"message"`
	Locations []sarifLocation `json:"locations,omitempty"`
}

type sarifLocation struct {
	PhysicalLocation sarifPhysicalLocation `json:"physicalLocation"`
}

type sarifPhysicalLocation struct {
	ArtifactLocation sarifArtifactLocation `json:"artifactLocation"`
	Region           sarifRegion           `json:"region"`
}

type sarifArtifactLocation struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn,omitempty"`
}

// rulesOf returns a rule for each reason that is given, sorted.
func rulesOf(findings []Finding, explain func(string) (string, string)) []sarifRule {
	var reasons []string
	for i := range findings {
		reasons = append(reasons, findings[i].Reason)
	}
	slices.Sort(reasons)
	rules := []sarifRule{}
	for _, reason := range slices.Compact(reasons) {
		uri := helpURI + "#" + strings.ToLower(reason)
		rule := sarifRule{
			ID: reason, ShortDescription: sarifMessage{words(reason)}, FullDescription: sarifMessage{words(reason)},
			Help: sarifHelp{Text: uri}, HelpURI: uri,
		}
		if explain != nil {
			if summary, text := explain(reason); summary != "" {
				rule.FullDescription, rule.Help = sarifMessage{summary}, sarifHelp{summary + " " + uri, absoluteLinks(text)}
			}
		}
		rules = append(rules, rule)
	}
	return rules
}

var pageLink = regexp.MustCompile(`\]\(([a-z0-9/-]+\.md)`)

// absoluteLinks makes links between the pages of the documentation, in Markdown, ones that lead there from elsewhere.
func absoluteLinks(text string) string {
	return strings.ReplaceAll(pageLink.ReplaceAllString(text, "]("+docsURI+"$1"), "](#", "]("+helpURI+"#")
}

// words writes a reason as words: "ProfileNotAvailable" becomes "Profile not available".
func words(reason string) string {
	out := &strings.Builder{}
	for i, r := range reason {
		if i > 0 && r >= 'A' && r <= 'Z' {
			out.WriteByte(' ')
			r += 'a' - 'A'
		}
		out.WriteRune(r)
	}
	return out.String()
}

func resultOf(finding *Finding, rules []sarifRule) sarifResult {
	result := sarifResult{
		RuleID: finding.Reason, Level: finding.Severity, Message: sarifMessage{strings.ToValidUTF8(finding.Message, "\ufffd")},
	}
	result.RuleIndex = slices.IndexFunc(rules, func(rule sarifRule) bool { return rule.ID == finding.Reason })
	location := sarifPhysicalLocation{
		ArtifactLocation: sarifArtifactLocation{fileURI(cmp.Or(finding.File, "."))},
		Region:           sarifRegion{max(finding.Line, 1), finding.Column},
	}
	result.Locations = []sarifLocation{{location}}
	return result
}

// fileURI returns a path as a URI reference (RFC 3986). A relative path whose first part has a colon gets a dot ahead, by url.URL: the
// colon would end a scheme. So does an absolute path below the working directory lose that.
func fileURI(path string) string {
	if filepath.IsAbs(path) {
		if directory, err := os.Getwd(); err == nil {
			if below, err := filepath.Rel(directory, path); err == nil && filepath.IsLocal(below) {
				path = below
			}
		}
	}
	isAbsolute := filepath.IsAbs(path)
	path = filepath.ToSlash(filepath.Clean(path))
	uri := url.URL{Path: path}
	if isAbsolute {
		uri.Scheme = "file"
		if !strings.HasPrefix(path, "/") { // C:/x
			uri.Path = "/" + path
		}
	}
	return uri.String()
}
