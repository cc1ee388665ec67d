package profiles

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
	"github.com/pillion-dev/pillion/weave"
)

// condition is a compiled condition of a match.
type condition struct {
	name       string
	expression *expressions.Expression
}

// conditionVariables are what conditions read, as those of webhook configurations do.
var conditionVariables = sync.OnceValues(func() (*expressions.Environment, error) {
	return expressions.NewEnvironment(
		expressions.Variable{Name: "object"}, expressions.Variable{Name: "namespaceObject"}, expressions.Variable{Name: "request"})
})

// compileConditions compiles the conditions of a match. All problems are reported.
func compileConditions(conditions []v1alpha1.MatchCondition, path *field.Path) ([]condition, field.ErrorList) {
	if len(conditions) == 0 {
		return nil, nil
	}
	variables, err := conditionVariables()
	if err != nil {
		return nil, field.ErrorList{field.InternalError(path, err)}
	}
	var problems field.ErrorList
	compiled := make([]condition, len(conditions))
	for i, source := range conditions {
		expression, err := variables.Compile(source.Expression)
		if err != nil {
			problems = append(problems, field.Invalid(path.Index(i).Child("expression"), source.Expression, err.Error()))
		}
		compiled[i] = condition{source.Name, expression}
	}
	return compiled, problems
}

// conditionsOf evaluates the conditions of a profile's match, in their order: the first that is not true decides. It returns an empty
// name if all are true.
func (d *decider) conditionsOf(profile *Profile) (untrue string, problem *weave.Problem) {
	for _, condition := range profile.match.conditions {
		value, err := condition.expression.Evaluate(d.conditionValues())
		holds, isBool := value.(bool)
		if err == nil && !isBool {
			err = fmt.Errorf("it yields %T and not a bool", value)
		}
		if err != nil {
			return condition.name, &weave.Problem{Reason: ReasonConditionFailed, Message: fmt.Sprintf(
				"condition %s of %s cannot be evaluated for this Pod: %v", condition.name, profile.Scope(), err)}
		}
		if !holds {
			return condition.name, nil
		}
	}
	return "", nil
}

// conditionValues returns what conditions read, made once for a decision.
func (d *decider) conditionValues() map[string]any {
	if d.values == nil {
		user := d.request.User
		extra := make(map[string]any, len(user.Extra))
		for key, values := range user.Extra {
			extra[key] = []string(values)
		}
		d.values = map[string]any{
			"object":          d.podView(),
			"namespaceObject": d.namespaceView(),
			"request": map[string]any{
				"operation": "CREATE",
				"name":      d.bare.Name,
				"namespace": d.request.Namespace.Name,
				"dryRun":    d.request.DryRun,
				"userInfo": map[string]any{
					"username": user.Username, "uid": user.UID, "groups": user.Groups, "extra": extra,
				},
			},
		}
	}
	return d.values
}

// podView returns the Pod without what is reserved, as expressions see it.
func (d *decider) podView() any {
	if d.view == nil {
		d.view = expressions.View(d.bare)
	}
	return d.view
}

// namespaceView returns the metadata of the namespace, as expressions see it.
func (d *decider) namespaceView() any {
	if d.namespaceObject == nil {
		namespace := &d.request.Namespace
		metadata := map[string]any{"name": namespace.Name}
		if len(namespace.Labels) > 0 {
			metadata["labels"] = namespace.Labels
		}
		if len(namespace.Annotations) > 0 {
			metadata["annotations"] = namespace.Annotations
		}
		d.namespaceObject = map[string]any{"metadata": metadata}
	}
	return d.namespaceObject
}
