package injectors

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// variableReference is a variable that the kubelet writes into a text, or a dollar that is escaped.
var variableReference = regexp.MustCompile(`\$\$|\$\(([^()]*)\)`)

// references returns the names of the variables that the kubelet writes into a text.
func references(text string) []string {
	var names []string
	for _, found := range variableReference.FindAllStringSubmatch(text, -1) {
		if found[0] != "$$" {
			names = append(names, found[1])
		}
	}
	return names
}

// yielded are the variables of a container whose values expressions yield, or whoever writes the Pod.
type yielded struct {
	// names maps each variable that is written out to whether it is one.
	names map[string]bool
	// others tells whether there may be more that are not written out.
	others bool
}

func (y yielded) has(name string) bool {
	isYielded, known := y.names[name]
	return isYielded || !known && y.others
}

// yieldedVariables reads the env of a container, as it is written in a template.
func yieldedVariables(container any) yielded {
	found := yielded{names: map[string]bool{}}
	env := valueAt(container, []string{"env"})
	found.others = holdsExpression(valueAt(container, []string{"envFrom"})) || env != nil && !isList(env)
	list, _ := env.([]any)
	for range list { // as often as one variable can lead to another
		for _, variable := range list {
			name, isName := valueAt(variable, []string{"name"}).(string)
			if !isName || hasExpression(name) {
				found.others = true
				continue
			}
			text, _ := valueAt(variable, []string{"value"}).(string)
			fieldPath, _ := valueAt(variable, []string{"valueFrom", "fieldRef", "fieldPath"}).(string)
			found.names[name] = found.names[name] || holdsExpression(variable) ||
				strings.HasPrefix(fieldPath, "metadata.annotations") || slices.ContainsFunc(references(text), found.has)
		}
	}
	return found
}

func isList(value any) bool {
	_, ok := value.([]any)
	return ok
}

// holdsExpression tells whether an expression begins anywhere in a value.
func holdsExpression(value any) bool {
	switch value := value.(type) {
	case string:
		return hasExpression(value)
	case []any:
		return slices.ContainsFunc(value, holdsExpression)
	case map[string]any:
		for _, element := range value {
			if holdsExpression(element) {
				return true
			}
		}
	}
	return false
}

// checkVariables refuses $(NAME) in what a shell runs where an expression yields the variable: the kubelet writes the value
// into the script as it is, for the shell to read as a part of it.
func (p *places) checkVariables(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := valueAt(p.document, []string{list}).([]any)
		for i, container := range containers {
			variables, at := yieldedVariables(container), path.Child(list).Index(i)
			command := textsOf(valueAt(container, []string{"command"}))
			line := slices.Concat(command, textsOf(valueAt(container, []string{"args"})))
			errs = append(errs, variables.check(line, func(i int) *field.Path {
				if i < len(command) {
					return at.Child("command").Index(i)
				}
				return at.Child("args").Index(i - len(command))
			})...)
			for _, probe := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
				line := textsOf(valueAt(container, []string{probe, "exec", "command"}))
				errs = append(errs, variables.check(line, at.Child(probe, "exec", "command").Index)...)
			}
		}
	}
	return errs
}

func (y yielded) check(line []string, path func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, text := range line {
		names := references(text)
		at := slices.IndexFunc(names, y.has)
		if at < 0 || !inShellLine(line, i) {
			continue
		}
		errs = append(errs, field.Invalid(path(i), shortened(text), fmt.Sprintf(
			"is, or precedes, what a shell runs, and the kubelet would write into it what an expression or an annotation yields for "+
				"$(%[1]s): write \"$%[1]s\", which the shell reads as a value", shortened(names[at]))))
	}
	return errs
}
