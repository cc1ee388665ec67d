package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/util/duration"
)

// write prints the report for people.
func (r *certsReport) write(w io.Writer) error {
	style := styleFor(w)
	text := &strings.Builder{}
	fmt.Fprintf(text, "Certificates of Pillion in namespace %s: %s\n", r.Namespace, r.verdict(style))
	if r.Mode != "" {
		fmt.Fprintf(text, "Mode: %s\n", r.Mode)
	}
	r.writeRotation(text)
	r.writeTables(text, style)
	for _, problem := range r.Problems {
		fmt.Fprintf(text, "\n%s %s\n", style.red("Problem:"), problem)
	}
	for _, line := range r.Unreadable {
		fmt.Fprintf(text, "\n%s %s\n", style.yellow("Note:"), line)
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

func (r *certsReport) verdict(style style) string {
	switch {
	case len(r.Problems) > 0:
		return style.red("not in order")
	case len(r.Unreadable) > 0:
		return style.yellow("in order, as far as could be read")
	default:
		return style.green("in order")
	}
}

func (r *certsReport) writeRotation(w io.Writer) {
	if r.Rotation == nil {
		return
	}
	since := ""
	if r.Rotation.Since != nil {
		since = fmt.Sprintf(" since %s (%s)", inUTC(*r.Rotation.Since), duration.HumanDuration(max(0, r.now.Sub(*r.Rotation.Since))))
	}
	fmt.Fprintf(w, "Phase: %s%s\n", r.Rotation.Phase, since)
	if r.Rotation.Message != "" {
		fmt.Fprintf(w, "  %s: %s\n", cmp.Or(string(r.Rotation.Reason), "Why"), r.Rotation.Message)
	}
	if r.Rotation.Next != "" {
		when := ""
		if at := r.Rotation.NextAt; at != nil {
			when = fmt.Sprintf(" at %s (in %s)", inUTC(*at), duration.HumanDuration(at.Sub(r.now)))
			if !at.After(r.now) {
				when = fmt.Sprintf(" at %s (due)", inUTC(*at))
			}
		}
		fmt.Fprintf(w, "  Next: %s%s\n", r.Rotation.Next, when)
	}
}

func (r *certsReport) writeTables(w io.Writer, style style) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if len(r.Certificates) > 0 {
		fmt.Fprintln(table, "\nCERTIFICATE\tSUBJECT\tSERIAL\tNAMES\tNOT BEFORE\tNOT AFTER\tREMAINING\tDUE")
		for i := range r.Certificates {
			c := &r.Certificates[i]
			due := "-"
			if c.RenewAt != nil {
				due = inUTC(*c.RenewAt)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Role, c.Subject, c.Serial, strings.Join(c.Names, ","),
				inUTC(c.NotBefore), inUTC(c.NotAfter), c.Remaining, due)
		}
	}
	if len(r.Entries) > 0 {
		fmt.Fprintln(table, "\nENTRY\tOF\tCAS\tAS RECORDED\tTRUSTS THE CERTIFICATE")
		for i := range r.Entries {
			e := &r.Entries[i]
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", e.Name, e.Configuration, e.CAs, yesOrNo(e.Exact, style), yesOrNo(e.Trusts, style))
		}
	}
	if len(r.Replicas) > 0 {
		fmt.Fprintln(table, "\nREPLICA\tPRESENTS UNTIL\tTHAT OF THE SECRET\tTRUSTED\tHANDSHAKE ERRORS")
		for i := range r.Replicas {
			s := &r.Replicas[i]
			if s.Unknown != "" {
				fmt.Fprintf(table, "%s\t%s\n", s.Pod, s.Unknown)
				continue
			}
			until := "nothing"
			if s.NotAfter != nil {
				until = inUTC(*s.NotAfter)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Pod, until, yesOrNo(s.Current, style), yesOrNo(s.Trusted, style), s.errorsText())
		}
	}
	_ = table.Flush() // to a strings.Builder
}

func yesOrNo(flag *bool, style style) string {
	switch {
	case flag == nil:
		return "?"
	case *flag:
		return style.green("yes")
	default:
		return style.red("no")
	}
}
