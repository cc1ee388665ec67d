package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSARIFSaysWhereAndWhy(t *testing.T) {
	directory, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	findings := []Finding{
		{File: "deploy/my shop.yaml", Line: 3, Column: 7, Severity: Error, Reason: "ProfileNotAvailable", Message: "no profile <x> & y"},
		{File: "./a:b/../c:d.yaml", Line: 2, Severity: Warning, Reason: "Misplaced", Message: "bytes \xff"},
		{File: "/tmp/x.yaml", Severity: Note, Reason: "Misplaced", Message: "of a file"},
		{Severity: Error, Reason: "Unreadable", Message: "of no file"},
		{File: filepath.Join(directory, "sub", "y.yaml"), Line: 1, Severity: Error, Reason: "Unreadable", Message: "below the working directory"},
	}
	explain := func(reason string) (string, string) {
		if reason == "Misplaced" {
			return "It is misplaced.", "It is **misplaced**: [a](limits.md#x), [b](#y)."
		}
		return "", ""
	}
	out := &bytes.Buffer{}
	if err := SARIF(out, "v1.2.3", findings, explain); err != nil {
		t.Fatal(err)
	}
	if problems := validate(t, out.Bytes()); len(problems) > 0 {
		t.Errorf("not SARIF 2.1.0: %q", problems)
	}
	type result struct {
		Rule, Level, Text, URI string
		Line, Column           int
	}
	want := []result{
		{"ProfileNotAvailable", "error", "no profile <x> & y", "deploy/my%20shop.yaml", 3, 7},
		{"Misplaced", "warning", "bytes \ufffd", "./c:d.yaml", 2, 0},
		{"Misplaced", "note", "of a file", "file:///tmp/x.yaml", 1, 0},
		{"Unreadable", "error", "of no file", ".", 1, 0},
		{"Unreadable", "error", "below the working directory", "sub/y.yaml", 1, 0},
	}
	read := sarifLog{}
	if err := json.Unmarshal(out.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	var got []result
	for _, r := range read.Runs[0].Results {
		one := result{Rule: read.Runs[0].Tool.Driver.Rules[r.RuleIndex].ID, Level: string(r.Level), Text: r.Message.Text}
		for _, location := range r.Locations {
			one.URI = location.PhysicalLocation.ArtifactLocation.URI
			one.Line, one.Column = location.PhysicalLocation.Region.StartLine, location.PhysicalLocation.Region.StartColumn
		}
		got = append(got, one)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	rules := []sarifRule{
		{
			"Misplaced",
			sarifMessage{"Misplaced"},
			sarifMessage{"It is misplaced."},
			sarifHelp{"It is misplaced. " + helpURI + "#misplaced", "It is **misplaced**: [a](" + docsURI + "limits.md#x), [b](" + helpURI + "#y)."},
			helpURI + "#misplaced",
		},
		{
			"ProfileNotAvailable",
			sarifMessage{"Profile not available"},
			sarifMessage{"Profile not available"},
			sarifHelp{Text: helpURI + "#profilenotavailable"},
			helpURI + "#profilenotavailable",
		},
		{"Unreadable", sarifMessage{"Unreadable"}, sarifMessage{"Unreadable"}, sarifHelp{Text: helpURI + "#unreadable"}, helpURI + "#unreadable"},
	}
	if diff := cmp.Diff(rules, read.Runs[0].Tool.Driver.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestSARIFOfNothingIsALogWithoutResults(t *testing.T) {
	out := &bytes.Buffer{}
	if err := SARIF(out, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if problems := validate(t, out.Bytes()); len(problems) > 0 {
		t.Errorf("not SARIF 2.1.0: %q", problems)
	}
	if !bytes.Contains(out.Bytes(), []byte(`"results": []`)) {
		t.Errorf("no empty list of results, which says that all was looked at:\n%s", out)
	}
}

// validate holds a log to what SARIF 2.1.0 demands of the objects that are used here, by the sections of the specification.
func validate(t *testing.T, encoded []byte) (problems []string) {
	t.Helper()
	var log map[string]any
	if err := json.Unmarshal(encoded, &log); err != nil {
		t.Fatal(err)
	}
	demand := func(ok bool, section, format string, args ...any) {
		if !ok {
			problems = append(problems, section+": "+fmt.Sprintf(format, args...))
		}
	}
	demand(log["version"] == "2.1.0", "3.13.2", "version %v", log["version"])
	runs, ok := log["runs"].([]any)
	demand(ok, "3.13.4", "runs %v", log["runs"])
	for _, run := range runs {
		run := run.(map[string]any)
		kinds := []any{"utf16CodeUnits", "unicodeCodePoints"}
		demand(slices.Contains(kinds, run["columnKind"]), "3.14.17", "columnKind %v", run["columnKind"])
		tool, _ := run["tool"].(map[string]any)
		driver, _ := tool["driver"].(map[string]any)
		name, _ := driver["name"].(string)
		demand(name != "", "3.19.8", "the driver has no name")
		information, err := url.Parse(fmt.Sprint(driver["informationUri"]))
		demand(err == nil && information.IsAbs(), "3.19.17", "informationUri %v", driver["informationUri"])
		rules, _ := driver["rules"].([]any)
		ids := map[string]int{}
		for i, rule := range rules {
			rule := rule.(map[string]any)
			id, _ := rule["id"].(string)
			_, twice := ids[id]
			demand(id != "" && !twice, "3.49.3", "rule %d has the id %q", i, id)
			ids[id] = i
			text, _ := rule["shortDescription"].(map[string]any)
			demand(text["text"] != "" && text["text"] != nil, "3.12.3", "rule %s has no text", id)
			help, err := url.Parse(fmt.Sprint(rule["helpUri"]))
			demand(err == nil && help.IsAbs(), "3.49.12", "helpUri %v", rule["helpUri"])
		}
		results, ok := run["results"].([]any)
		demand(ok, "3.14.23", "results %v", run["results"])
		for _, result := range results {
			result := result.(map[string]any)
			message, _ := result["message"].(map[string]any)
			demand(message["text"] != "" && message["text"] != nil, "3.27.11", "a result without a message")
			at, known := ids[fmt.Sprint(result["ruleId"])]
			demand(known && result["ruleIndex"] == float64(at), "3.27.6", "ruleIndex %v of %v", result["ruleIndex"], result["ruleId"])
			levels := []any{"none", "note", "warning", "error"}
			demand(slices.Contains(levels, result["level"]), "3.27.10", "level %v", result["level"])
			locations, _ := result["locations"].([]any)
			demand(len(locations) == 1, "code scanning", "locations %v", locations)
			for _, location := range locations {
				place, _ := location.(map[string]any)["physicalLocation"].(map[string]any)
				artifact, _ := place["artifactLocation"].(map[string]any)
				_, err := url.Parse(fmt.Sprint(artifact["uri"]))
				demand(err == nil && artifact["uri"] != nil, "3.4.3", "uri %v: %v", artifact["uri"], err)
				region, there := place["region"].(map[string]any)
				for _, field := range []string{"startLine", "startColumn"} {
					n, given := region[field].(float64)
					demand(there && (!given && field == "startColumn" || n >= 1), "3.30", "%s %v", field, region[field])
				}
			}
		}
	}
	return problems
}
