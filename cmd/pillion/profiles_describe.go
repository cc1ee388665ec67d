package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// textWidth is how wide text for people is.
const textWidth = 100

// addition is a container that a profile adds.
type addition struct {
	Container string `json:"container"`
	Runs      string `json:"runs"`
	Image     string `json:"image"`
}

// describe prints one of the profiles.
func (s *shelf) describe(w io.Writer, out *output, name string) error {
	available, err := s.find(name)
	if err != nil {
		return err
	}
	p := s.shown(available)
	p.Does = s.decider.compiler.Description(available.Profile)
	p.Parameters = available.Parameters(s.namespace)
	if p.MayAsk && p.Pattern != "" {
		p.Annotations = annotationsFor(p.Name, p.Parameters)
		p.Adds = s.additions(&p)
	}
	if out.form != formText {
		return out.print(w, struct {
			printedKind
			Namespace string       `json:"namespace"`
			Profile   shownProfile `json:"profile"`
		}{kindOfOutput("Profile"), s.namespace.Name, p})
	}
	text := &strings.Builder{}
	p.write(text, styleFor(w), s.namespace.Name)
	return writeText(w, text)
}

// additions are what a Pod of one container gets that asks for the profile; none if such a Pod would be refused.
func (s *shelf) additions(p *shownProfile) []addition {
	annotations := map[string]string{v1alpha1.InjectKey: p.Name}
	for i := range p.Parameters {
		if parameter := &p.Parameters[i]; parameter.Required {
			annotations[parameter.Annotation] = parameter.Example()
		}
	}
	// A Pod to be decided about comes from JSON.
	encoded, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "app", "annotations": annotations},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "app"}}},
	})
	pod := &corev1.Pod{}
	if err != nil || json.Unmarshal(encoded, pod) != nil {
		return nil
	}
	decision := profiles.Decide(s.decider.snapshot, s.namespace, pod)
	woven := decision.Pod()
	var added []addition
	for i := range decision.Outcomes {
		outcome := &decision.Outcomes[i]
		if outcome.Profile != p.Name || outcome.Result != profiles.Applied {
			continue
		}
		for _, name := range outcome.Containers {
			added = append(added, additionOf(&woven.Spec, name))
		}
	}
	return added
}

func additionOf(spec *corev1.PodSpec, name string) addition {
	for i := range spec.InitContainers {
		container := &spec.InitContainers[i]
		switch {
		case container.Name != name:
		case container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways:
			return addition{name, "native sidecar", container.Image}
		default:
			return addition{name, "init container", container.Image}
		}
	}
	for i := range spec.Containers {
		if spec.Containers[i].Name == name {
			return addition{name, "container", spec.Containers[i].Image}
		}
	}
	return addition{Container: name}
}

// annotationsFor returns the annotations to paste into a Pod template. What is behind a # is as it is without: it is for people
// to change. Long values and what has none are left out.
func annotationsFor(name string, parameters []profiles.Parameter) string {
	const longest = 200
	lines := []string{v1alpha1.InjectKey + ": " + quoted(name)}
	for i := range parameters {
		parameter := &parameters[i]
		line := parameter.Annotation + ": " + quoted(parameter.Example())
		switch {
		case parameter.Required:
			lines = append(lines, line+"  # required: write your own")
		case parameter.Value != nil && !parameter.Fields && len(*parameter.Value) <= longest:
			lines = append(lines, "# "+line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// quoted writes a text as a value in YAML that is a string whatever it looks like. JSON is YAML.
func quoted(text string) string {
	encoder := &strings.Builder{}
	e := json.NewEncoder(encoder)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		return strconv.Quote(text)
	}
	return strings.TrimSuffix(encoder.String(), "\n")
}

// write describes the profile for people.
func (p *shownProfile) write(w *strings.Builder, style style, namespace string) {
	line := func(label, format string, args ...any) {
		wrapInto(w, fmt.Sprintf("%-10s", label+":"), strings.Repeat(" ", 10), fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s\n", style.bold(p.Name))
	line("Kind", "%s", p.Kind)
	line("Pattern", "%s", p.Pattern)
	ready := p.Ready.String()
	if p.Ready.Status != metav1.ConditionTrue && p.Ready.Message != "" {
		ready += ": " + p.Ready.Message
	}
	line("Ready", "%s", ready)
	line("Applied", "%s", p.applied())
	if p.Revision != "" {
		line("Revision", "%s", p.Revision)
	}
	if p.Does != "" {
		line("Does", "%s", p.Does)
	}
	for _, added := range p.Adds {
		line("Adds", "%s %s (%s)", added.Runs, added.Container, added.Image)
	}
	p.writeParameters(w, style)
	if p.Annotations == "" {
		fmt.Fprintf(w, "\nPods of namespace %s may not ask for it by its name.\n", namespace)
		return
	}
	fmt.Fprintf(w, "\n%s\n", style.bold("Paste this into the Pod template of a workload (spec.template.metadata):"))
	fmt.Fprintln(w, "annotations:")
	for text := range strings.Lines(p.Annotations) {
		if strings.HasPrefix(text, "#") {
			text = style.faint(strings.TrimSuffix(text, "\n")) + "\n"
		}
		fmt.Fprint(w, "  "+text)
	}
}

func (p *shownProfile) writeParameters(w *strings.Builder, style style) {
	if len(p.Parameters) == 0 {
		fmt.Fprintf(w, "\nPods may change nothing of it.\n")
		return
	}
	fmt.Fprintf(w, "\n%s\n", style.bold("What Pods may change:"))
	for i := range p.Parameters {
		parameter := &p.Parameters[i]
		fmt.Fprintf(w, "  %s  %s%s\n", style.bold(parameter.Name), parameter.Type, valueOf(parameter))
		for _, text := range append([]string{parameter.Description}, boundsOf(parameter)...) {
			if text != "" {
				wrapInto(w, "    ", "    ", text)
			}
		}
	}
}

// valueOf says what a Pod gets that does not set the parameter.
func valueOf(parameter *profiles.Parameter) string {
	const longest = 60
	switch {
	case parameter.Required:
		return ", required"
	case parameter.Fields:
		return ""
	case parameter.Value == nil:
		return ", not set"
	}
	value := *parameter.Value
	if runes := []rune(value); len(runes) > longest {
		value = string(runes[:longest]) + "…"
	}
	value = ", now " + quoted(value)
	if parameter.Namespace {
		value += " by an annotation of the namespace"
	}
	if parameter.Default != nil && *parameter.Default != *parameter.Value {
		value += fmt.Sprintf(" (default %s)", quoted(*parameter.Default))
	}
	return value
}

// boundsOf says what a value is held to, a sentence each.
func boundsOf(parameter *profiles.Parameter) []string {
	var bounds []string
	tell := func(isSo bool, format string, args ...any) {
		if isSo {
			bounds = append(bounds, fmt.Sprintf(format, args...))
		}
	}
	tell(len(parameter.Enum) > 0, "One of %s.", strings.Join(parameter.Enum, ", "))
	tell(parameter.Minimum != "" && parameter.Maximum != "", "From %s to %s.", parameter.Minimum, parameter.Maximum)
	tell(parameter.Minimum != "" && parameter.Maximum == "", "At least %s.", parameter.Minimum)
	tell(parameter.Minimum == "" && parameter.Maximum != "", "At most %s.", parameter.Maximum)
	tell(parameter.MinLength > 1, "At least %d characters.", parameter.MinLength)
	isText := parameter.Type == "string" && len(parameter.Enum) == 0
	tell(parameter.MaxLength > 0 && isText, "At most %d characters.", parameter.MaxLength)
	for _, rule := range parameter.Rules {
		if strings.HasPrefix(rule, "must") {
			rule = "It " + rule
		}
		tell(true, "%s.", strings.ToUpper(rule[:1])+rule[1:])
	}
	tell(parameter.Pattern != "" && len(parameter.Rules) == 0, "It must match %s", parameter.Pattern)
	return bounds
}

// harmless replaces what would control a terminal, or change the direction of text: descriptions and conditions are written by
// others.
func harmless(r rune) rune {
	if (unicode.IsControl(r) && !unicode.IsSpace(r)) || unicode.Is(unicode.Bidi_Control, r) {
		return unicode.ReplacementChar
	}
	return r
}

// wrapInto writes words in lines of textWidth characters at most, where words are not longer.
func wrapInto(w *strings.Builder, first, indent, text string) {
	line, width := first, len([]rune(first))
	isEmpty := true
	for _, word := range strings.Fields(strings.Map(harmless, text)) {
		size := len([]rune(word))
		if !isEmpty && width+1+size > textWidth {
			fmt.Fprintln(w, line)
			line, width, isEmpty = indent, len([]rune(indent)), true
		}
		if !isEmpty {
			line, width = line+" ", width+1
		}
		line, width, isEmpty = line+word, width+size, false
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}
