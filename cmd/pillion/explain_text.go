package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	difference "github.com/rogpeppe/go-internal/diff"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

// templateDiff returns what is added to the document of a template, which stands behind some lines of its file.
func templateDiff(template *manifest.Template, decision *profiles.Decision, line int) (string, error) {
	document := template.Document
	patched, err := document.Patch(template.Operations(decision.Patch))
	if err != nil {
		return "", err
	}
	diff := difference.Diff(document.File, document.Raw, document.File, patched)
	return shiftHunks(dropCommand(string(diff)), line), nil
}

// podDiff returns the difference between two states of a Pod, as YAML.
func podDiff(name string, before, after *corev1.Pod) (string, error) {
	encode := func(pod *corev1.Pod) ([]byte, error) {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
		if err != nil {
			return nil, fmt.Errorf("encode the Pod: %w", err)
		}
		unstructured.RemoveNestedField(object, "status")
		unstructured.RemoveNestedField(object, "metadata", "managedFields")
		return yaml.Marshal(object)
	}
	old, err := encode(before)
	if err != nil {
		return "", err
	}
	now, err := encode(after)
	if err != nil {
		return "", err
	}
	return dropCommand(string(difference.Diff(name, old, name, now))), nil
}

// dropCommand takes the line "diff NAME NAME" off a diff, which no standard asks for.
func dropCommand(diff string) string {
	if first, rest, ok := strings.Cut(diff, "\n"); ok && strings.HasPrefix(first, "diff ") {
		return rest
	}
	return diff
}

var hunk = regexp.MustCompile(`(?m)^@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@`)

// shiftHunks makes the lines of a document in a diff those of its file.
func shiftHunks(diff string, lines int) string {
	if lines == 0 {
		return diff
	}
	return hunk.ReplaceAllStringFunc(diff, func(header string) string {
		parts := hunk.FindStringSubmatch(header)
		old, _ := strconv.Atoi(parts[1])
		now, _ := strconv.Atoi(parts[3])
		return fmt.Sprintf("@@ -%d%s +%d%s @@", old+lines, parts[2], now+lines, parts[4])
	})
}

// explanationText writes explanations for people.
type explanationText struct {
	style
	strings.Builder
}

func (t *explanationText) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// paragraph starts anew after a blank line.
func (t *explanationText) paragraph(text string) {
	if t.Len() > 0 {
		t.WriteByte('\n')
	}
	t.line("%s", text)
}

// explanation writes one: the verdict first, then the profiles, their settings, and the difference.
func (t *explanationText) explanation(x *explanation) {
	title := x.title()
	if x.File != "" {
		title += fmt.Sprintf(" (%s:%d)", x.File, x.Line)
	}
	t.paragraph(t.bold(title))
	paint := map[podVerdict]func(string) string{
		verdictWoven: t.green, verdictRefused: t.red, verdictUnknown: t.yellow, verdictUnchanged: func(s string) string { return s },
	}
	t.line("%s", paint[x.Verdict](x.Summary))
	if len(x.Unreadable) > 0 {
		t.line("You may not read %s: this is what a dry run of creating the Pod tells, without its reasons.", enumerate(x.Unreadable))
	}
	if x.Advice != "" {
		t.line("%s", x.Advice)
	}
	t.notes(x)
	if x.Explanation != nil {
		t.asks(x)
	}
	t.carried(x.titles().carried, x.Carries, x.Skipped)
	if x.Explanation != nil {
		t.profiles(x)
		t.settings(x)
	}
	t.dryRun(x)
	if x.Diff != "" {
		t.paragraph(t.bold(x.titles().diff))
		t.diff(x.Diff)
	}
}

// titles are those of the parts of an explanation.
type titles struct{ carried, profiles, diff string }

// titles returns those that suit. Of a Pod that was created some parts tell of it, and others of one like it.
func (x *explanation) titles() titles {
	t := titles{"It carries", "Profiles", "What is added"}
	if len(x.Carries) == 0 {
		t.carried = "When it was created"
	}
	if x.created {
		t.profiles, t.diff = "Profiles of such a Pod created today", "What was added to it"
	}
	if x.Explanation != nil && x.Allowed && len(x.Names()) > 0 {
		t.profiles += ", in the order in which they start"
	}
	return t
}

// notes writes what people may not expect.
func (t *explanationText) notes(x *explanation) {
	notes := slices.Clone(x.Notes)
	if x.Explanation != nil {
		notes = append(notes, x.Warnings...)
	} else if x.DryRun != nil {
		notes = append(notes, x.DryRun.Warnings...)
	}
	for _, note := range notes {
		t.line("%s %s", t.yellow("warning:"), note)
	}
}

// carried writes what a Pod says was woven into it.
func (t *explanationText) carried(title string, carried []profiles.Carried, skipped map[string]string) {
	if len(carried)+len(skipped) == 0 {
		return
	}
	t.paragraph(t.bold(title))
	says := map[profiles.CarriedState]string{
		profiles.CarriedCurrent: t.green("current"), profiles.CarriedOutdated: t.yellow("outdated"),
		profiles.CarriedNoMore: t.yellow("not added any more"), profiles.CarriedUnknown: "",
	}
	for i := range carried {
		c := &carried[i]
		parts := []string{scopeOf(c.Namespace), string(c.Kind), "revision " + c.Revision, says[c.State]}
		t.line("  %s  %s", t.bold(c.Profile), joined(parts))
		if len(c.Containers) > 0 {
			t.line("      containers: %s", strings.Join(c.Containers, ", "))
		}
		if len(c.Missing) > 0 {
			t.line("      %s the Pod does not have %s", t.yellow("warning:"), enumerate(c.Missing))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		t.line("  %s  %s: %s", t.bold(name), t.yellow("left out"), skipped[name])
	}
}

// asks writes what asks for profiles.
func (t *explanationText) asks(x *explanation) {
	if x.Asks == nil {
		return
	}
	says := "Asked for by"
	if x.Asks.Declined {
		says = "Declined by"
	}
	t.line("%s %s: %s", says, x.Asks.Where(x.Namespace), x.Asks.Value)
	if x.Asks.Replaces != "" {
		t.line("(which replaces the label of namespace %s: %s)", x.Namespace, x.Asks.Replaces)
	}
}

// profiles writes a list of the profiles, those that nobody asks for in a line at its end.
func (t *explanationText) profiles(x *explanation) {
	var idle []string
	title := x.titles().profiles
	for i := range x.Profiles {
		entry := &x.Profiles[i]
		if entry.Reason == profiles.ReasonNotRequested {
			idle = append(idle, entry.Profile)
			continue
		}
		if title != "" {
			t.paragraph(t.bold(title))
			title = ""
		}
		t.profile(entry, x.Allowed)
	}
	if len(idle) > 0 {
		slices.Sort(idle)
		t.paragraph("Not asked for, and without match: " + strings.Join(slices.Compact(idle), ", "))
	}
}

func (t *explanationText) profile(entry *profiles.Explained, allowed bool) {
	place, result := "-", t.faint("not applied")
	switch {
	case entry.Order > 0 && entry.Result == profiles.Applied && !allowed:
		result = "would be applied"
	case entry.Order > 0 && entry.Result == profiles.Applied:
		place, result = strconv.Itoa(entry.Order), t.green("applied")
	case entry.Order > 0:
		place, result = strconv.Itoa(entry.Order), "there already"
	case entry.Denies:
		result = t.red("refused")
	case entry.Result == profiles.Rejected:
		result = t.yellow("left out")
	}
	parts := []string{scopeOf(entry.Namespace), string(entry.Kind), whyConsidered(entry)}
	if entry.Revision != "" {
		parts = append(parts, "revision "+entry.Revision)
	}
	if entry.Profile == "" || entry.Reason == profiles.ReasonProfileNotAvailable { // nothing is known of it
		parts = []string{whyConsidered(entry)}
	}
	t.line("  %s  %s  %s: %s", place, t.bold(entry.Profile), result, joined(parts))
	if entry.Reason == profiles.ReasonApplied {
		t.line("      adds %s", cmp.Or(strings.Join(entry.Containers, ", "), "no container"))
	} else {
		for _, cause := range append([]profiles.Cause{entry.Cause}, entry.More...) {
			t.line("      %s: %s", cause.Reason, cause.Message)
		}
	}
	if entry.Warning != "" {
		t.line("      %s %s", t.yellow("warning:"), entry.Warning)
	}
}

func whyConsidered(entry *profiles.Explained) string {
	switch {
	case !entry.Considered:
		return ""
	case entry.Enforced:
		return "chosen by its match, which enforces"
	case entry.Source == profiles.SourceMatch:
		return "chosen by its match"
	case entry.Source == profiles.SourceNamespace:
		return "asked for by the namespace"
	default:
		return "asked for by the Pod"
	}
}

func scopeOf(namespace string) string {
	if namespace == "" {
		return "ClusterPatternProfile"
	}
	return "PatternProfile of namespace " + namespace
}

func joined(parts []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(part string) bool { return part == "" }), ", ")
}

// settings writes where the settings of the profiles that the Pod gets come from.
func (t *explanationText) settings(x *explanation) {
	for i := range x.Profiles {
		entry := &x.Profiles[i]
		if len(entry.Settings) == 0 {
			continue
		}
		t.paragraph(t.bold("Settings of " + entry.Profile))
		table := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
		for _, setting := range entry.Settings {
			from := string(setting.Source)
			switch setting.Source {
			case profiles.SettingAnnotation:
				from = "annotation of the Pod"
			case profiles.SettingNamespace:
				from = "annotation of namespace " + x.Namespace
			case profiles.SettingPicked:
				from = "picked, as the profile's own port is taken"
			case profiles.SettingDefault, profiles.SettingProfile:
			}
			if setting.From != "" {
				from += " (" + setting.From + ")"
			}
			// The table would count escape sequences as text, so that it has none.
			fmt.Fprintf(table, "  %s\t%s\t%s\n", setting.Path, shortened(string(setting.Value)), from)
		}
		_ = table.Flush() // into memory
	}
}

// shortened cuts a value for a table.
func shortened(value string) string {
	const most = 60
	if runes := []rune(value); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return value
}

// dryRun writes what the API server says.
func (t *explanationText) dryRun(x *explanation) {
	if x.DryRun == nil {
		return
	}
	if x.Explanation == nil {
		t.carried("The API server's Pod gets", x.DryRun.Woven, x.DryRun.Skipped)
		return
	}
	t.paragraph(t.bold("Dry run"))
	switch {
	case x.DryRun.Agrees:
		t.line("%s", t.green("The API server agrees."))
	case len(x.DryRun.Differences) > 0:
		for _, one := range x.DryRun.Differences {
			t.line("%s %s", t.yellow("differs:"), one)
		}
		t.line("%s", whyDifferent)
	case x.DryRun.Answer == dryRunDeniedBy:
		t.line("The API server refuses the Pod, but not by Pillion: %s", x.DryRun.Message)
	default:
		t.line("%s: %s", t.yellow("It tells nothing"), x.DryRun.Message)
	}
	for _, warning := range x.DryRun.Warnings {
		if slices.Contains(x.Warnings, warning) { // it stands above
			continue
		}
		t.line("%s %s", t.yellow("the API server warns:"), warning)
	}
}

// diff writes a unified diff.
func (t *explanationText) diff(diff string) {
	for line := range strings.Lines(diff) {
		text := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---"):
			text = t.bold(text)
		case strings.HasPrefix(text, "+"):
			text = t.green(text)
		case strings.HasPrefix(text, "-"):
			text = t.red(text)
		case strings.HasPrefix(text, "@@"):
			text = t.faint(text)
		}
		t.line("%s", text)
	}
}
