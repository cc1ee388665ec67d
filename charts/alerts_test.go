package charts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	alertsFile    = "pillion/files/alerts.yaml"
	dashboardFile = "pillion/files/dashboard.json"
)

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// each returns what the first group of an expression finds, once each.
func each(expression, text string) []string {
	var found []string
	for _, match := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// TestEveryAlertHasARunbook, and every runbook its alert: the heading is the alert's name, as the annotation runbook_url has it
// for an anchor, and below it stands what it means, where to look and what to do.
func TestEveryAlertHasARunbook(t *testing.T) {
	alerts := each(`(?m)^ *- alert: (\w+)$`, read(t, alertsFile))
	page := read(t, "../docs/runbooks.md")
	if len(alerts) < 15 {
		t.Fatalf("only %d alerts were found", len(alerts))
	}
	sections := map[string]string{}
	for _, section := range strings.Split(page, "\n#")[1:] {
		heading, text, _ := strings.Cut(section, "\n")
		if name := strings.TrimLeft(heading, "# "); strings.HasPrefix(name, "Pillion") {
			sections[name] = text
		}
	}
	for _, alert := range alerts {
		text, ok := sections[alert]
		if !ok {
			t.Errorf("%s has no runbook", alert)
			continue
		}
		for _, part := range []string{"**Means** ", "**Look** ", "**Do** "} {
			if !strings.Contains(text, part) {
				t.Errorf("the runbook of %s has no %s", alert, part)
			}
		}
		delete(sections, alert)
	}
	for name := range sections {
		t.Errorf("there is no alert %s", name)
	}
}

// TestEveryAlertSaysWhatIsUp holds alerts to have a severity and two texts.
func TestEveryAlertSaysWhatIsUp(t *testing.T) {
	for _, rule := range strings.Split(read(t, alertsFile), "- alert: ")[1:] {
		name, text, _ := strings.Cut(rule, "\n")
		for _, part := range []string{"expr:", "labels: {severity: ", "summary: ", "description: "} {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
	}
}

// TestAlertsAndDashboardReadMetricsThatExist: docs/observability.md lists them, and the code of webhook and controller names
// them.
func TestAlertsAndDashboardReadMetricsThatExist(t *testing.T) {
	page := read(t, "../docs/observability.md")
	documented := each("(?m)^\\| `(pillion_\\w+)` \\|", page)
	if len(documented) < 25 {
		t.Fatalf("only %d metrics were found", len(documented))
	}
	named := each(`"(pillion_\w+)"`, source(t, "../webhook")+source(t, "../controller"))
	for _, file := range []string{alertsFile, dashboardFile} {
		used := each(`\b(pillion_\w+)`, read(t, file))
		if len(used) < 10 {
			t.Errorf("%s: only %d metrics were found", file, len(used))
		}
		for _, metric := range used {
			if !slices.Contains(documented, strings.TrimSuffix(metric, "_bucket")) {
				t.Errorf("%s reads %s, which is not in docs/observability.md", file, metric)
			}
			if !slices.Contains(named, strings.TrimSuffix(metric, "_bucket")) {
				t.Errorf("%s reads %s, which no process has", file, metric)
			}
		}
	}
}

// source returns the code of a package, without its tests.
func source(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			code.WriteString(read(t, file))
		}
	}
	return code.String()
}
