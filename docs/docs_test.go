package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/docs"
)

var (
	reasonName = regexp.MustCompile(`^([a-z]*Reason|reason|cause)[A-Z]`)
	reasonCode = regexp.MustCompile(`^[A-Z][A-Za-z]+$`)
)

// reasonsInCode returns where each reason code of the module is declared: constants whose names or types say that they are
// reasons or causes, literals given to a field Reason, and the HTTP statuses of faults.
func reasonsInCode(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			_, noModule := os.Stat(filepath.Join(path, "go.mod"))
			apart := []string{"bin", "testdata", "test", "hack", ".git"}
			if path != ".." && (noModule == nil || slices.Contains(apart, entry.Name())) {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		note := func(value ast.Expr) {
			literal, ok := value.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return
			}
			if code, err := strconv.Unquote(literal.Value); err == nil && reasonCode.MatchString(code) {
				found[code] = set.Position(literal.Pos()).String()
			}
		}
		noteStatus := func(value ast.Expr) {
			selector, ok := value.(*ast.SelectorExpr)
			if !ok || file.Name.Name != "webhook" {
				return
			}
			if code, ok := strings.CutPrefix(selector.Sel.Name, "Status"); ok && isStatus(code) {
				found[code] = set.Position(selector.Pos()).String()
			}
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.ValueSpec:
				for i, name := range node.Names {
					if i < len(node.Values) && (reasonName.MatchString(name.Name) || isReason(node.Type)) {
						note(node.Values[i])
					}
				}
			case *ast.CallExpr: // metrics tell of faults by their HTTP status
				if called, ok := node.Fun.(*ast.Ident); ok && called.Name == "faultf" {
					noteStatus(node.Args[0])
				}
			case *ast.ReturnStmt:
				for _, result := range node.Results {
					noteStatus(result)
				}
			case *ast.KeyValueExpr:
				if key, ok := node.Key.(*ast.Ident); ok && strings.EqualFold(key.Name, "Reason") {
					note(node.Value)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// isReason tells whether a type is called Reason, of whatever package.
func isReason(expression ast.Expr) bool {
	switch expression := expression.(type) {
	case *ast.Ident:
		return expression.Name == "Reason"
	case *ast.SelectorExpr:
		return expression.Sel.Name == "Reason"
	}
	return false
}

// isStatus tells whether a code is made of the name of an HTTP status, as metrics tell of faults.
func isStatus(code string) bool {
	for status := http.StatusBadRequest; status < 600; status++ {
		if code == strings.ReplaceAll(http.StatusText(status), " ", "") {
			return true
		}
	}
	return false
}

func TestEveryReasonIsDocumented(t *testing.T) {
	inCode := reasonsInCode(t)
	if len(inCode) < 50 {
		t.Fatalf("only %d reason codes were found in the code; is it looked for in the right place?", len(inCode))
	}
	documented := map[string]bool{}
	for _, reason := range docs.Reasons() {
		if documented[reason.Code] {
			t.Errorf("%s is documented twice", reason.Code)
		}
		documented[reason.Code] = true
		if inCode[reason.Code] == "" {
			t.Errorf("docs/reasons.md documents %s, which the code does not have", reason.Code)
		}
	}
	for code, where := range inCode {
		if !documented[code] {
			t.Errorf("%s: reason %s is not documented; write in docs/reasons.md what it means, where it is seen and how to mend it",
				where, code)
		}
	}
}

func TestWhatIsSaidOfAReasonIsWhole(t *testing.T) {
	for _, reason := range docs.Reasons() {
		if reason.Section == "" || !strings.HasSuffix(reason.Summary, ".") || strings.ContainsAny(reason.Summary, "`*[") {
			t.Errorf("%s wants a section and a sentence for a summary: %q, %q", reason.Code, reason.Section, reason.Summary)
		}
		if rest := strings.TrimSpace(reason.Text[strings.Index(reason.Text+"\n\n", "\n\n"):]); rest == "" {
			t.Errorf("%s: nothing is said of how to mend it, or that there is nothing to mend", reason.Code)
		}
		if strings.Count(reason.Text, "```")%2 != 0 {
			t.Errorf("%s: an example does not end", reason.Code)
		}
		if found, ok := docs.Find(strings.ToUpper(reason.Code)); !ok || found.Code != reason.Code {
			t.Errorf("%s is not found by capitals", reason.Code)
		}
	}
	if _, ok := docs.Find("Nothing"); ok {
		t.Error("a reason is found that there is not")
	}
}

func TestLinksOfTheTroubleshootingLead(t *testing.T) {
	page, err := os.ReadFile("reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(page), -1) {
		file, heading, _ := strings.Cut(link[1], "#")
		if file == "" {
			file = "reasons.md"
		}
		target, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%s: %v", link[1], err)
			continue
		}
		var headings []string
		for line := range strings.Lines(string(target)) {
			if title := strings.TrimLeft(line, "#"); title != line {
				title = strings.ToLower(strings.TrimSpace(title))
				title = regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(title, "")
				headings = append(headings, strings.ReplaceAll(title, " ", "-"))
			}
		}
		if heading != "" && !slices.Contains(headings, heading) {
			t.Errorf("%s has no such heading; there are %v", link[1], headings)
		}
	}
}

func TestPlainHasNoMarks(t *testing.T) {
	tests := map[string]struct{ line, want string }{
		"code":                           {"write `none` alone", "write none alone"},
		"bold":                           {"**Look** here", "Look here"},
		"code in bold":                   {"**`kubectl apply` warns**", "kubectl apply warns"},
		"a link to another page":         {"see [policy](policy.md#enforce)", "see policy (docs/policy.md)"},
		"a link to a heading":            {"see [`Ready`](#ready)", "see Ready"},
		"a link to the web":              {"[CEL](https://example.com/cel)", "CEL (https://example.com/cel)"},
		"an asterisk that marks nothing": {"a*b*c", "a*b*c"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := docs.Plain(test.line); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
