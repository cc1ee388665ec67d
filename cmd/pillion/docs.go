package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/docs"
	"github.com/pillion-dev/pillion/profiles"
)

func docsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "docs [REASON]",
		Short: "Say what a reason code means, and how to mend it",
		Long: `docs says what a reason code means, where it is seen and how to mend it. What Pillion says of a Pod that it refuses, or of what
it leaves out, ends with such a code in parentheses. Capitals do not matter. Without a code it lists all of them.

"where-to-look" says what to look at where there is neither a container nor a message.`,
		Example: `  pillion docs ProfileNotAvailable
  pillion docs where-to-look
  pillion docs
  pillion docs portcollision -o json`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeReasons(typed), cobra.ShellCompDirectiveNoFileComp
		},
	}
	out := addOutputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if len(args) == 0 {
			return listReasons(command.OutOrStdout(), out, command.CommandPath())
		}
		return printReason(command.OutOrStdout(), out, command.CommandPath(), args[0])
	}
	return command
}

// completeReasons returns the codes that begin with what is typed, capitals aside, with what they mean.
func completeReasons(typed string) []string {
	var completions []string
	add := func(name, summary string) {
		if len(name) >= len(typed) && strings.EqualFold(name[:len(typed)], typed) {
			completions = append(completions, cobra.CompletionWithDesc(name, summary))
		}
	}
	for _, reason := range docs.Reasons() {
		add(reason.Code, reason.Summary)
	}
	for _, topic := range topics() {
		add(slug(topic.Title), topic.Title)
	}
	return completions
}

// topics are the sections that are about no reason code.
func topics() []docs.Section {
	return slices.DeleteFunc(docs.Sections(), func(s docs.Section) bool { return len(s.Reasons) > 0 })
}

func slug(title string) string { return strings.ReplaceAll(strings.ToLower(title), " ", "-") }

// listReasons prints all codes with what they mean.
func listReasons(w io.Writer, out *output, path string) error {
	if out.form != formText {
		return out.print(w, struct {
			printedKind
			Reasons []docs.Reason `json:"reasons"`
		}{kindOfOutput("ReasonList"), docs.Reasons()})
	}
	style, text := styleFor(w), &strings.Builder{}
	width := 0
	for _, reason := range docs.Reasons() {
		width = max(width, len(reason.Code))
	}
	for _, section := range docs.Sections() {
		if len(section.Reasons) == 0 {
			continue
		}
		fmt.Fprintln(text, style.bold(section.Title))
		for _, reason := range section.Reasons {
			wrapInto(text, fmt.Sprintf("  %-*s  ", width, reason.Code), strings.Repeat(" ", width+4), reason.Summary)
		}
		fmt.Fprintln(text)
	}
	for _, topic := range topics() {
		fmt.Fprintf(text, "%s: %s\n", style.bold(topic.Title), path+" "+slug(topic.Title))
	}
	return writeText(w, text)
}

// printReason prints what is said of a code, or of a topic.
func printReason(w io.Writer, out *output, path, asked string) error {
	asked = strings.Trim(strings.TrimSpace(asked), "().")
	reason, found := docs.Find(asked)
	if !found {
		for _, topic := range topics() {
			if slug(topic.Title) == slug(asked) {
				reason, found = docs.Reason{Code: slug(topic.Title), Section: topic.Title, Text: topic.Text}, true
			}
		}
	}
	if !found {
		return unknownReason(path, asked)
	}
	if out.form != formText {
		return out.print(w, struct {
			printedKind
			docs.Reason
		}{kindOfOutput("Reason"), reason})
	}
	style, text := styleFor(w), &strings.Builder{}
	title := reason.Code
	if reason.Summary == "" {
		title = reason.Section
	}
	fmt.Fprintf(text, "%s\n\n", style.bold(title))
	renderMarkdown(text, reason.Text)
	return writeText(w, text)
}

// unknownReason tells how to find the code.
func unknownReason(path, asked string) error {
	var codes []string
	for _, reason := range docs.Reasons() {
		codes = append(codes, reason.Code)
	}
	suggestion := suggestFold(asked, codes)
	if suggestion == "" {
		suggestion = ": codes stand in parentheses at the end of what Pillion says, as in (ProfileNotAvailable);"
	}
	return fmt.Errorf("there is no reason code %q%s %s lists all of them", asked, suggestion, path)
}

// suggestFold suggests a name, capitals aside.
func suggestFold(name string, names []string) string {
	lower := make([]string, len(names))
	for i := range names {
		lower[i] = strings.ToLower(names[i])
	}
	suggestion := profiles.Suggest(strings.ToLower(name), lower)
	for i := range names {
		suggestion = strings.ReplaceAll(suggestion, " "+lower[i]+"?", " "+names[i]+"?")
	}
	return suggestion
}

// renderMarkdown writes what the documentation says for a terminal: without marks, in lines of textWidth, examples indented.
func renderMarkdown(w *strings.Builder, text string) {
	var words []string
	first, indent := "", ""
	flush := func() {
		if len(words) > 0 {
			wrapInto(w, first, indent, docs.Plain(strings.Join(words, " ")))
		}
		words, first, indent = nil, "", ""
	}
	isCode := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		marker, rest, isItem := listItem(line)
		switch {
		case strings.HasPrefix(line, "```"):
			flush()
			isCode = !isCode
		case isCode && line == "":
			fmt.Fprintln(w)
		case isCode:
			fmt.Fprintln(w, "    "+line)
		case strings.TrimSpace(line) == "":
			flush()
			fmt.Fprintln(w)
		case isItem:
			flush()
			first, indent, words = marker, strings.Repeat(" ", len(marker)), []string{rest}
		default:
			words = append(words, strings.TrimSpace(line))
		}
	}
	flush()
}

// listItem takes an item of a list apart.
func listItem(line string) (marker, rest string, ok bool) {
	if rest, ok = strings.CutPrefix(line, "- "); ok {
		return "- ", rest, true
	}
	number, rest, ok := strings.Cut(line, ". ")
	if ok && number != "" && strings.Trim(number, "0123456789") == "" {
		return number + ". ", rest, true
	}
	return "", line, false
}

func writeText(w io.Writer, text *strings.Builder) error {
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}
