package cases

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// expectation is what should become of a Pod. What is nil is not looked at.
type expectation struct {
	at         value
	allowed    *value // nil: it follows from the others
	denied     *denial
	containers *lines
	injected   *lines
	outcomes   *lines
	skipped    []skip
	warnings   *warnings
	golden     *golden
}

// denial is why a Pod should be refused.
type denial struct {
	value
	reasons *lines
	message []item
}

// lines are an expectation that is compared line by line.
type lines struct {
	value
	want []string
}

// item is a text of a list.
type item struct {
	value
	text string
}

type skip struct {
	value
	profile, reason string
}

type warnings struct {
	value
	contain []item
}

type golden struct {
	value
	path string
}

const expectExample = "{containers: [site (sidecar), app]} or {denied: {reasons: [ProfileNotAvailable]}}"

// The kinds of containers, as they are written behind a name. A container of spec.containers has none.
const (
	initContainer = " (init)"
	sidecar       = " (sidecar)"
)

func (v value) expectation() expectation {
	e := expectation{at: v}
	fields := v.fields(expectExample,
		"allowed", "denied", "containers", "injected", "skipped", "outcomes", "warnings", "golden")
	if fields == nil {
		return e
	}
	if len(fields) == 0 && len(v.content.(map[string]any)) == 0 {
		v.problem("it expects nothing; write {allowed: true} at least")
	}
	if field, ok := fields["allowed"]; ok {
		if is, ok := field.boolean(); ok && !is {
			field.problem("write denied: true, or denied: {reasons: [...], message: ...}, for a Pod that should be refused")
		}
		e.allowed = &field
	}
	if field, ok := fields["denied"]; ok {
		e.denied = field.denial()
	}
	if field, ok := fields["containers"]; ok {
		e.containers = &lines{field, field.texts("[site (sidecar), migrate (init), app]")}
		for _, text := range e.containers.want {
			checkContainer(field, text)
		}
	}
	if field, ok := fields["injected"]; ok {
		e.injected = &lines{field, slices.Sorted(slices.Values(field.texts("[site-content]")))}
	}
	if field, ok := fields["outcomes"]; ok {
		e.outcomes = field.outcomes()
	}
	if field, ok := fields["skipped"]; ok {
		e.skipped = field.skips()
	}
	if field, ok := fields["warnings"]; ok {
		e.warnings = &warnings{field, field.items("[the app keeps its own value]")}
	}
	if field, ok := fields["golden"]; ok {
		e.golden = field.golden()
	}
	e.agree(fields)
	return e
}

// agree notes expectations that cannot both come true.
func (e *expectation) agree(fields map[string]value) {
	if e.denied == nil {
		return
	}
	for _, key := range []string{"allowed", "containers", "injected", "golden"} {
		if field, ok := fields[key]; ok {
			field.problem("this is of a Pod that is allowed, and denied says that it is not; remove one of them")
		}
	}
}

func checkContainer(v value, text string) {
	name := strings.TrimSuffix(strings.TrimSuffix(text, initContainer), sidecar)
	if strings.ContainsAny(name, " ()") {
		v.problem("%q: write a name alone for a container, NAME%s for an init container and NAME%s for a native sidecar",
			text, initContainer, sidecar)
	}
}

const denialExample = "true, or {reasons: [ProfileNotAvailable], message: not available}"

func (v value) denial() *denial {
	d := &denial{value: v}
	if is, ok := v.content.(bool); ok {
		if !is {
			v.problem("write allowed: true for a Pod that should be allowed")
		}
		return d
	}
	fields := v.fields(denialExample, "reasons", "message")
	if field, ok := fields["reasons"]; ok {
		d.reasons = &lines{field, slices.Sorted(slices.Values(field.texts("[ProfileNotAvailable]")))}
		if len(d.reasons.want) == 0 {
			field.problem("there is none; a Pod is refused for a reason: write it, or denied: true for whatever reason")
		}
	}
	if field, ok := fields["message"]; ok {
		if _, several := field.content.([]any); several {
			if d.message = field.items("[not available]"); len(field.content.([]any)) == 0 {
				field.problem("there is none; write a text that the message contains, or leave it out")
			}
		} else if text, ok := field.text(); ok {
			d.message = []item{{field, text}}
		}
	}
	if fields != nil && len(fields) == 0 {
		v.problem("there is nothing in it; write %s", denialExample)
	}
	return d
}

// items returns the texts of a list with their places.
func (v value) items(example string) []item {
	var items []item
	for _, one := range v.list(example) {
		if text, ok := one.text(); ok {
			items = append(items, item{one, text})
		}
	}
	return items
}

const outcomesExample = "[site-content: Applied, page-cache: ConditionNotMet]"

// outcomes reads a list of mappings with one profile and its reason each.
func (v value) outcomes() *lines {
	all := &lines{v, []string{}}
	for _, one := range v.list(outcomesExample) {
		content, ok := one.mapping("{site-content: Applied}")
		if !ok {
			continue
		}
		if len(content) != 1 {
			one.problem("it has %d keys; write one profile and its reason: {site-content: Applied}", len(content))
			continue
		}
		for profile, reason := range content {
			if text, ok := one.under(profile, reason).text(); ok {
				all.want = append(all.want, profile+": "+text)
			}
		}
	}
	return all
}

func (v value) skips() []skip {
	content, ok := v.mapping("{site-content: ConditionNotMet}")
	if !ok {
		return nil
	}
	if len(content) == 0 {
		v.problem("there is nothing in it; write profiles and why they are left out: {site-content: ConditionNotMet}")
	}
	var skips []skip
	for _, profile := range slices.Sorted(maps.Keys(content)) {
		field := v.under(profile, content[profile])
		if reason, ok := field.text(); ok {
			skips = append(skips, skip{field, profile, reason})
		}
	}
	return skips
}

// golden reads the path of a golden file, which stays in the directory of the file of cases and below.
func (v value) golden() *golden {
	path, ok := v.text()
	if !ok {
		return nil
	}
	switch {
	case !strings.HasSuffix(path, goldenSuffix) || strings.HasSuffix("/"+path, "/"+goldenSuffix):
		v.problem("%q does not end in %s; write, for example, golden/shop%s", path, goldenSuffix, goldenSuffix)
	case !filepath.IsLocal(filepath.FromSlash(path)):
		v.problem("%q leads out of this file's directory; write a path below it", path)
	default:
		return &golden{v, filepath.ToSlash(filepath.Clean(filepath.FromSlash(path)))}
	}
	return nil
}

// containersOf returns the containers of a Pod in the order in which they start, with their kinds.
func containersOf(pod *corev1.Pod) []string {
	names := []string{}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		kind := initContainer
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			kind = sidecar
		}
		names = append(names, c.Name+kind)
	}
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	return names
}
