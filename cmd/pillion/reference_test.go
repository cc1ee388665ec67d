package main

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestCommandReference holds docs/commands.md to the commands; `make generate` writes it.
func TestCommandReference(t *testing.T) {
	golden(t, "../../docs/commands.md", commandReference(commandLine("pillion")))
}

// commandReference returns the documentation of all commands, in Markdown.
func commandReference(root *cobra.Command) string {
	w := &strings.Builder{}
	fmt.Fprintf(w, "# Commands\n\n<!-- Written by hack/generate.sh from the commands in cmd/pillion. -->\n\n%s\n\n", root.Long)
	fmt.Fprint(w, "Under the name `kubectl-pillion`, in a directory of `PATH`, the program is a plugin of kubectl: `kubectl pillion`\n"+
		"does what `pillion` does.\n\n")
	fmt.Fprintf(w, "```sh\n%s\n```\n", unindented(root.Example))
	for _, group := range append(root.Groups(), &cobra.Group{Title: "Else:"}) {
		fmt.Fprintf(w, "\n| %s | |\n|---|---|\n", strings.TrimSuffix(group.Title, ":"))
		for _, command := range root.Commands() {
			if command.GroupID == group.ID && command.IsAvailableCommand() {
				fmt.Fprintf(w, "| [`%s`](#%s) | %s |\n", command.Name(), anchor(command), command.Short)
			}
		}
	}
	for _, group := range append(root.Groups(), &cobra.Group{}) {
		for _, command := range root.Commands() {
			if command.GroupID == group.ID && command.IsAvailableCommand() {
				describeCommand(w, command)
				for _, sub := range command.Commands() {
					describeCommand(w, sub)
				}
			}
		}
	}
	return w.String()
}

func anchor(command *cobra.Command) string {
	return strings.ReplaceAll(command.CommandPath(), " ", "-")
}

func describeCommand(w *strings.Builder, command *cobra.Command) {
	fmt.Fprintf(w, "\n## %s\n\n", command.CommandPath())
	text := cmp.Or(command.Long, command.Short+".")
	fmt.Fprintf(w, "%s\n\n", indentsFenced(text))
	fmt.Fprintf(w, "```\n%s\n```\n", command.UseLine())
	if command.Example != "" {
		fmt.Fprintf(w, "\n```sh\n%s\n```\n", unindented(command.Example))
	}
	var rows []string
	command.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden || flag.Name == "help" {
			return
		}
		name := "--" + flag.Name
		if flag.Shorthand != "" {
			name = "-" + flag.Shorthand + ", " + name
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", "`"+name+"`", defaultOf(flag), strings.ReplaceAll(flag.Usage, "|", `\|`)))
	})
	if len(rows) > 0 {
		fmt.Fprintf(w, "\n| flag | default | |\n|---|---|---|\n%s\n", strings.Join(rows, "\n"))
	}
}

// defaultOf returns a flag's default, if there is one that says something.
func defaultOf(flag *pflag.Flag) string {
	switch flag.DefValue {
	case "", "[]", "false", "0", "0s":
		return ""
	default:
		return "`" + flag.DefValue + "`"
	}
}

// unindented takes the two spaces off that help indents examples by.
func unindented(example string) string {
	lines := strings.Split(example, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// indentsFenced puts what a text indents, which is to be read as it is, between fences.
func indentsFenced(text string) string {
	var lines []string
	isFenced := false
	for line := range strings.SplitSeq(text, "\n") {
		if isIndented := strings.HasPrefix(line, "  "); isIndented != isFenced && line != "" {
			lines = append(lines, "```")
			isFenced = isIndented
		}
		lines = append(lines, line)
	}
	if isFenced {
		lines = append(lines, "```")
	}
	return strings.Join(lines, "\n")
}
