package profiles

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
	"github.com/pillion-dev/pillion/injectors"
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

// conditionsOf returns what the conditions of a match that does not enforce come to, which is the same however often a request looks at
// the Pod: the name of the first that is not true, or cannot be evaluated; an empty one if all are true.
func (d *decider) conditionsOf(profile *Profile) (untrue string, problem *weave.Problem) {
	if len(profile.match.conditions) == 0 {
		return "", nil
	}
	known, ok := d.shared.conditions[profile]
	if !ok {
		if d.values == nil {
			d.values = d.valuesOf(d.podView())
		}
		known.untrue, known.problem = evaluateConditions(profile, d.values, d.shared.of(profile))
		d.shared.conditions[profile] = known
	}
	return known.untrue, known.problem
}

// evaluateConditions evaluates the conditions of a profile's match, in their order: the first that is not true decides.
func evaluateConditions(profile *Profile, values map[string]any, budget *expressions.Budget) (untrue string, problem *weave.Problem) {
	for _, condition := range profile.match.conditions {
		value, err := condition.expression.EvaluateWithin(budget, values)
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

// What all expressions may cost together for one Pod, in the units of one expression (see package expressions): about 20 ms for those of
// ClusterPatternProfiles and 10 ms for those of the namespace's own, apart, so that a tenant's leave the cluster's what they need.
const (
	clusterCost   = 400_000
	namespaceCost = 200_000
)

// shared is what all looks at the Pod of one request have in common: what is left of those budgets, and what is known already.
type shared struct {
	cluster, namespace *expressions.Budget
	// again is for conditions that enforce and are evaluated once more, seeing what was hidden.
	again *expressions.Budget

	met        map[*Profile]bool // that enforce, with conditions that were true
	conditions map[*Profile]conditionsResult
	evaluated  map[*Profile]evaluated
}

// conditionsResult is what the conditions of a match that does not enforce came to.
type conditionsResult struct {
	untrue  string
	problem *weave.Problem
}

// evaluated is what the expressions of a custom pattern yield for the Pod.
type evaluated struct {
	result   *injectors.CustomResult
	problems []weave.Problem
}

func newShared() *shared {
	return &shared{
		cluster: expressions.NewBudget(clusterCost), namespace: expressions.NewBudget(namespaceCost), again: expressions.NewBudget(clusterCost),
		met: map[*Profile]bool{}, conditions: map[*Profile]conditionsResult{}, evaluated: map[*Profile]evaluated{},
	}
}

// of returns the budget that a profile's expressions take from.
func (s *shared) of(profile *Profile) *expressions.Budget {
	if profile.Namespace == "" {
		return s.cluster
	}
	return s.namespace
}

// valuesOf returns what conditions read that see the Pod in a view.
func (d *decider) valuesOf(object any) map[string]any {
	user := d.request.User
	extra := make(map[string]any, len(user.Extra))
	for key, all := range user.Extra {
		extra[key] = []string(all)
	}
	return map[string]any{
		"object":          object,
		"namespaceObject": d.namespaceView(),
		"request": map[string]any{
			"operation": "CREATE",
			"name":      knownName(d.pod),
			"namespace": d.request.Namespace.Name,
			"dryRun":    d.request.DryRun,
			"userInfo": map[string]any{
				"username": user.Username, "uid": user.UID, "groups": user.Groups, "extra": extra,
			},
		},
	}
}

// podView returns the Pod without what is reserved and what profiles added, as expressions see it.
func (d *decider) podView() any {
	if d.view == nil {
		d.view = expressions.View(withoutServersPart(d.withoutAdditions()))
	}
	return d.view
}

// strictView returns the Pod as the conditions of profiles that enforce see it: all of it but what tells that it was woven, and the
// containers of some profiles. What hides under a reserved name is no way round them.
func (d *decider) strictView(hidden []*Profile) any {
	ours := map[string]bool{}
	for _, profile := range hidden {
		for _, name := range d.containersOf(profile) {
			ours[name] = true
		}
	}
	pod := *d.pod
	isOurs := func(c corev1.Container) bool { return ours[c.Name] }
	pod.Spec.InitContainers = slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), isOurs)
	pod.Spec.Containers = slices.DeleteFunc(slices.Clone(pod.Spec.Containers), isOurs)
	withoutMarks(&pod)
	return expressions.View(withoutServersPart(&pod))
}

// withoutServersPart returns the Pod without what the API server sets between the webhooks' two looks at it, so that an expression sees
// the same each time: a Pod with generateName has no name yet when it is woven.
func withoutServersPart(pod *corev1.Pod) *corev1.Pod {
	same := *pod
	same.Name = knownName(pod)
	same.UID, same.CreationTimestamp, same.ResourceVersion, same.Generation = "", metav1.Time{}, "", 0
	same.Status = corev1.PodStatus{}
	return &same
}

// knownName is the Pod's name, if it was sent with one. StatefulSets give their Pods a name and generateName.
func knownName(pod *corev1.Pod) string {
	if isGenerated(pod.Name, pod.GenerateName) {
		return ""
	}
	return pod.Name
}

// isGenerated tells whether a name is one that the API server makes (k8s.io/apiserver/pkg/storage/names): the beginning that is asked
// for, cut to 58 characters, and five of these.
func isGenerated(name, generateName string) bool {
	const most, random, alphabet = 58, 5, "bcdfghjklmnpqrstvwxz2456789"
	if generateName == "" {
		return false
	}
	rest, ok := strings.CutPrefix(name, generateName[:min(len(generateName), most)])
	return ok && len(rest) == random && strings.Trim(rest, alphabet) == ""
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
