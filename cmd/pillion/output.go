package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// The forms of output that commands share. Text is for people, and may change; the others are for programs, and are stable.
const (
	formText = "text"
	formJSON = "json"
	formYAML = "yaml"
)

// output is how a command prints what it found.
type output struct {
	form  string
	forms []string
}

// addOutputFlag adds --output: text, which is the default, json, yaml, and whatever else the command knows.
func addOutputFlag(command *cobra.Command, more ...string) *output {
	o := &output{forms: append([]string{formText, formJSON, formYAML}, more...)}
	command.Flags().StringVarP(&o.form, "output", "o", formText, "form of the output: "+strings.Join(o.forms, ", "))
	mustMark(command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.forms, cobra.ShellCompDirectiveNoFileComp)))
	return o
}

// check says what is wrong with the flag.
func (o *output) check() error {
	if !slices.Contains(o.forms, o.form) {
		return fmt.Errorf("--output %q is unknown; write one of %s", o.form, strings.Join(o.forms, ", "))
	}
	return nil
}

// print writes a value as JSON or YAML, whichever is asked for. The keys are those of the JSON tags.
func (o *output) print(w io.Writer, value any) error {
	encoded, err := json.MarshalIndent(value, "", "  ")
	if err == nil && o.form == formYAML {
		encoded, err = yaml.JSONToYAML(encoded)
	} else {
		encoded = append(encoded, '\n')
	}
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	if _, err := w.Write(encoded); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// writeLine writes a text and ends the line.
func writeLine(w io.Writer, text string) error {
	if _, err := fmt.Fprintln(w, text); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// style colors text for people, and only where they see it: on a terminal, unless NO_COLOR (https://no-color.org) is set.
type style struct{ colored bool }

func styleFor(w io.Writer) style {
	file, ok := w.(*os.File)
	return style{ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))}
}

func (s style) bold(text string) string   { return s.with("1", text) }
func (s style) faint(text string) string  { return s.with("2", text) }
func (s style) red(text string) string    { return s.with("31", text) }
func (s style) green(text string) string  { return s.with("32", text) }
func (s style) yellow(text string) string { return s.with("33", text) }

// with gives text an attribute, by its code in ECMA-48 (Select Graphic Rendition).
func (s style) with(code, text string) string {
	if !s.colored || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
