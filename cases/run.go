package cases

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	difference "github.com/rogpeppe/go-internal/diff"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
	"github.com/pillion-dev/pillion/webhook"
)

// law is the field of a Failure that no expectation is about.
const law = "law"

// run creates the Pod of a case and compares what becomes of it with what is expected.
func (c *testCase) run(ctx context.Context, update bool) Case {
	result := Case{Name: c.name, Line: c.line}
	fail := func(line int, field, diff, format string, args ...any) {
		result.Failures = append(result.Failures, Failure{Line: line, Field: field, Message: fmt.Sprintf(format, args...), Diff: diff})
	}
	got, err := c.world.admit(ctx, webhook.PathPods, c.request)
	if err != nil {
		fail(c.line, law, "", "%v", err)
		return result
	}
	decision, err := c.world.decide(c.request)
	if err != nil {
		fail(c.line, law, "", "%v", err)
		return result
	}
	result.Allowed, result.Message, result.Warnings, result.Outcomes = got.Allowed, got.message(), got.Warnings, decision.Outcomes
	c.expect.compare(got, &decision, fail)
	if got.Allowed {
		result.Written = c.compareGolden(got, update, fail)
	}
	for _, broken := range c.laws(ctx, got, &decision) {
		fail(c.line, law, "", "%s", broken)
	}
	result.Passed = len(result.Failures) == 0
	return result
}

// fail notes a Failure.
type fail func(line int, field, diff, format string, args ...any)

// compare compares an answer with all that is expected but the golden Pod.
func (e *expectation) compare(got *answer, decision *profiles.Decision, fail fail) {
	switch {
	case e.denied == nil && !got.Allowed:
		at := e.at
		if e.allowed != nil {
			at = *e.allowed
		}
		fail(at.line(), at.name(), "", "the Pod is refused: %s", got.message())
	case e.denied != nil && got.Allowed:
		fail(e.denied.line(), e.denied.name(), "", "the Pod is allowed, with %s", strings.Join(containersOf(got.pod), ", "))
	case e.denied != nil:
		e.denied.compare(got, decision, fail)
	}
	if got.Allowed {
		e.containers.compare(containersOf(got.pod), fail)
		e.injected.compare(injectedBy(decision), fail)
	}
	e.outcomes.compare(outcomesOf(decision), fail)
	e.compareSkipped(decision, fail)
	e.warnings.compare(got.Warnings, fail)
}

// name returns the expectation's name: expect.containers.
func (v value) name() string {
	if _, field, ok := strings.Cut(v.field, "."); ok {
		return field
	}
	return v.field
}

// compare compares why the Pod is refused.
func (d *denial) compare(got *answer, decision *profiles.Decision, fail fail) {
	var reasons []string
	for _, outcome := range decision.Denying() {
		reasons = append(reasons, string(outcome.Reason))
	}
	slices.Sort(reasons)
	d.reasons.compare(slices.Compact(reasons), fail)
	for _, want := range d.message {
		if !strings.Contains(got.message(), want.text) {
			fail(want.line(), want.name(), "", "the message has no %q: %s", want.text, got.message())
		}
	}
}

// compare compares lines, in their order. nil expects nothing.
func (l *lines) compare(got []string, fail fail) {
	if l != nil && !slices.Equal(l.want, got) {
		fail(l.line(), l.name(), listDiff(l.want, got), "not as expected")
	}
}

// compareSkipped looks for the profiles that should have been left out, and why.
func (e *expectation) compareSkipped(decision *profiles.Decision, fail fail) {
	for _, want := range e.skipped {
		var told []string
		met := false
		for i := range decision.Outcomes {
			outcome := &decision.Outcomes[i]
			if outcome.Profile != want.profile {
				continue
			}
			told = append(told, string(outcome.Reason))
			met = met || outcome.Result != profiles.Applied && string(outcome.Reason) == want.reason
		}
		switch {
		case met:
		case len(told) == 0:
			fail(want.line(), want.name(), "", "profile %s was not considered at all, and should have been left out (%s)",
				want.profile, want.reason)
		case slices.Contains(told, want.reason):
			fail(want.line(), want.name(), "", "expected %s, got %s, which is no reason to be left out", want.reason, want.reason)
		default:
			fail(want.line(), want.name(), "", "expected %s, got %s", want.reason, strings.Join(told, ", "))
		}
	}
}

// compare looks for each text in some warning; no text expects no warning.
func (w *warnings) compare(got []string, fail fail) {
	if w == nil {
		return
	}
	if len(w.contain) == 0 && len(got) > 0 {
		fail(w.line(), w.name(), "", "expected none, got %s", quotedList(got))
	}
	for _, want := range w.contain {
		if slices.ContainsFunc(got, func(warning string) bool { return strings.Contains(warning, want.text) }) {
			continue
		}
		if len(got) == 0 {
			fail(want.line(), want.name(), "", "no warning has %q: there is none", want.text)
		} else {
			fail(want.line(), want.name(), "", "no warning has %q: there is %s", want.text, quotedList(got))
		}
	}
}

func quotedList(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = fmt.Sprintf("%q", text)
	}
	return strings.Join(quoted, ", ")
}

// injectedBy returns the profiles that are woven into the Pod, sorted.
func injectedBy(decision *profiles.Decision) []string {
	names := []string{}
	for i := range decision.Outcomes {
		if decision.Outcomes[i].Result == profiles.Applied {
			names = append(names, decision.Outcomes[i].Profile)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// outcomesOf returns what became of every profile, in the order in which they start.
func outcomesOf(decision *profiles.Decision) []string {
	all := make([]string, len(decision.Outcomes))
	for i := range decision.Outcomes {
		all[i] = fmt.Sprintf("%s: %s", decision.Outcomes[i].Profile, decision.Outcomes[i].Reason)
	}
	return all
}

// listDiff returns all lines, and which of them are in one list only.
func listDiff(want, got []string) string {
	text := func(lines []string) []byte {
		if len(lines) == 0 {
			return nil
		}
		return []byte(strings.Join(lines, "\n") + "\n")
	}
	diff := string(difference.Diff("expected", text(want), "got", text(got)))
	var kept []string
	for line := range strings.Lines(diff) {
		if strings.HasPrefix(line, "diff ") || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ") ||
			strings.HasPrefix(line, "@@") {
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// laws returns what is not as it is for every Pod, whatever is expected of it.
func (c *testCase) laws(ctx context.Context, got *answer, decision *profiles.Decision) []string {
	if got.Allowed != decision.Allowed || got.message() != decision.Denial() {
		return []string{fmt.Sprintf("the webhook's answer is not the decision (%q, %q): this is a mistake in Pillion",
			got.message(), decision.Denial())}
	}
	if !got.Allowed {
		return nil
	}
	var broken []string
	if encoded, err := weave.Encode(decision.Patch); len(decision.Patch) > 0 && (err != nil || !bytes.Equal(encoded, got.Patch)) {
		broken = append(broken, "two decisions about the same Pod differ: this is a mistake in Pillion")
	}
	if !equality.Semantic.DeepEqual(got.pod, decision.Pod()) {
		broken = append(broken, "the patch does not make the Pod that was decided: this is a mistake in Pillion")
	}
	if replaces(got.Patch) {
		broken = append(broken, "the patch does more than add: this is a mistake in Pillion")
	}
	woven := c.request
	woven.raw = got.raw
	again, err := c.world.admit(ctx, webhook.PathPods, woven)
	switch {
	case err != nil:
		broken = append(broken, "the woven Pod cannot be created again: "+err.Error())
	case !again.Allowed:
		broken = append(broken, "the woven Pod is refused when it is created again: "+again.message())
	case len(again.Patch) > 0:
		broken = append(broken, "the woven Pod is woven again when it is created again: "+string(again.Patch))
	}
	final, err := c.world.admit(ctx, profiles.PathVerify, woven)
	switch {
	case err != nil:
		broken = append(broken, "the woven Pod cannot be verified: "+err.Error())
	case !final.Allowed:
		broken = append(broken, "the woven Pod is refused where policy is verified: "+final.message())
	}
	return broken
}

// replaces tells whether a patch has an operation other than add.
func replaces(patch []byte) bool {
	var operations []struct {
		Operation string `json:"op"`
	}
	if len(patch) == 0 {
		return false
	}
	if err := json.Unmarshal(patch, &operations); err != nil {
		return true
	}
	for _, operation := range operations {
		if operation.Operation != "add" {
			return true
		}
	}
	return false
}
