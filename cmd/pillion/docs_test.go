package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/docs"
)

func TestDocs(t *testing.T) {
	tests := map[string][]string{
		"reason.txt":        {"portcollision"},
		"reason.json":       {"PortCollision", "-o", "json"},
		"where-to-look.txt": {"where-to-look"},
		"list.txt":          {},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := run(t, nil, "", append([]string{"docs"}, args...)...)
			if err != nil || stderr != "" {
				t.Fatal(err, stderr)
			}
			golden(t, "testdata/docs/"+name, stdout)
		})
	}
}

func TestDocsOfEveryReasonHaveNoMarks(t *testing.T) {
	for _, reason := range docs.Reasons() {
		stdout, _, err := run(t, nil, "", "docs", strings.ToLower(reason.Code))
		if err != nil || !strings.HasPrefix(stdout, reason.Code+"\n\n"+reason.Summary[:20]) {
			t.Errorf("%s: %q, %v", reason.Code, stdout, err)
		}
		for line := range strings.Lines(stdout) {
			isExample := strings.HasPrefix(line, "    ")
			if !isExample && (strings.ContainsAny(line, "`\x1b") || strings.Contains(line, "**") || strings.Contains(line, "](")) {
				t.Errorf("%s: marks are left: %s", reason.Code, line)
			}
		}
	}
}

func TestDocsForPrograms(t *testing.T) {
	stdout, _, err := run(t, nil, "", "docs", "-o", "json")
	list := struct {
		APIVersion, Kind string
		Reasons          []docs.Reason
	}{}
	if err != nil || json.Unmarshal([]byte(stdout), &list) != nil {
		t.Fatal(stdout, err)
	}
	if list.APIVersion != "pillion.dev/v1alpha1" || list.Kind != "ReasonList" || len(list.Reasons) != len(docs.Reasons()) {
		t.Errorf("%s %s with %d reasons", list.APIVersion, list.Kind, len(list.Reasons))
	}
}

func TestDocsOfWhatThereIsNot(t *testing.T) {
	tests := map[string]struct{ asked, want string }{
		"one that is misspelled": {
			"ProfileNotAvailabel",
			`there is no reason code "ProfileNotAvailabel"; did you mean ProfileNotAvailable? pillion docs lists all of them`,
		},
		"one that is misspelled in small letters": {
			"portcolision", `there is no reason code "portcolision"; did you mean PortCollision? pillion docs lists all of them`,
		},
		"what is nothing like one": {
			"whatever-this-is",
			`there is no reason code "whatever-this-is": codes stand in parentheses at the end of what Pillion says, as in ` +
				`(ProfileNotAvailable); pillion docs lists all of them`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, _, err := run(t, nil, "", "docs", test.asked); message(err) != test.want {
				t.Error(err)
			}
		})
	}
	if _, _, err := run(t, nil, "", "docs", "(PortCollision)"); err != nil {
		t.Errorf("a code as it is copied from a message: %v", err)
	}
}

func TestReasonsAreCompleted(t *testing.T) {
	stdout, _, err := run(t, nil, "", "__complete", "docs", "profilenot")
	const want = "ProfileNotAvailable\tThe Pod asks for a profile"
	if err != nil || !strings.Contains(stdout, want) || strings.Contains(stdout, "PortCollision") {
		t.Error(stdout, err)
	}
}
