// Package docs carries the documentation that the command line prints: what the reason codes mean.
package docs

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
)

//go:embed reasons.md
var reasons string

// Reason is what the documentation says of one reason code. Texts are Markdown.
type Reason struct {
	Code string `json:"code"`
	// Section is the title of those that it is among.
	Section string `json:"section"`
	// Summary is one sentence that says what the code means.
	Summary string `json:"summary"`
	// Text is all that is to be said, Summary first.
	Text string `json:"text"`
}

// Section is a part of the documentation.
type Section struct {
	Title string
	// Text is what is said before the first of the Reasons, often nothing.
	Text    string
	Reasons []Reason
}

// Reasons returns all reason codes, in the order of the documentation.
func Reasons() []Reason {
	var all []Reason
	for _, section := range Sections() {
		all = append(all, section.Reasons...)
	}
	return all
}

// Sections returns the parts of the documentation, in their order.
func Sections() []Section { return parse(reasons) }

// Find returns what is said of a code, however it is capitalized.
func Find(code string) (Reason, bool) {
	all := Reasons()
	i := slices.IndexFunc(all, func(r Reason) bool { return strings.EqualFold(r.Code, code) })
	if i < 0 {
		return Reason{}, false
	}
	return all[i], true
}

// parse reads a page whose sections have headings of two #, and whose reason codes have headings of three.
func parse(page string) []Section {
	var sections []Section
	var text *string // what a line belongs to
	isCode := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			isCode = !isCode
		}
		title, isSection := strings.CutPrefix(line, "## ")
		code, isReason := strings.CutPrefix(line, "### ")
		switch {
		case isCode:
		case isSection:
			sections = append(sections, Section{Title: strings.TrimSpace(title)})
			text = &sections[len(sections)-1].Text
			continue
		case isReason && len(sections) > 0:
			section := &sections[len(sections)-1]
			section.Reasons = append(section.Reasons, Reason{Code: strings.TrimSpace(code), Section: section.Title})
			text = &section.Reasons[len(section.Reasons)-1].Text
			continue
		}
		if text != nil {
			*text += line
		}
	}
	for i := range sections {
		sections[i].Text = strings.TrimSpace(sections[i].Text)
		for j := range sections[i].Reasons {
			reason := &sections[i].Reasons[j]
			reason.Text = strings.TrimSpace(reason.Text)
			reason.Summary = summary(reason.Text)
		}
	}
	return sections
}

// summary returns the first paragraph in one line.
func summary(text string) string {
	first, _, _ := strings.Cut(text, "\n\n")
	return Plain(strings.Join(strings.Fields(first), " "))
}

var (
	markdownLink = regexp.MustCompile(`\[([^\]]+)\]\(([^)]+)\)`)
	markdownBold = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	markdownCode = regexp.MustCompile("`([^`]*)`")
)

// Plain returns a line of Markdown without its marks. A link to another page of the documentation says where that is.
func Plain(line string) string {
	line = markdownLink.ReplaceAllStringFunc(line, func(link string) string {
		parts := markdownLink.FindStringSubmatch(link)
		page, _, _ := strings.Cut(parts[2], "#")
		if page == "" { // a heading of the same page
			return parts[1]
		}
		if strings.HasSuffix(page, ".md") && !strings.Contains(page, "/") {
			return parts[1] + " (docs/" + page + ")"
		}
		return parts[1] + " (" + parts[2] + ")"
	})
	return markdownCode.ReplaceAllString(markdownBold.ReplaceAllString(line, "$1"), "$1")
}
