// Package expressions compiles and evaluates the CEL of profiles: the conditions of match, and the ${…} in the template of
// a custom pattern. It is pure, and its cost is bounded whatever an expression says.
package expressions

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/library"
)

// maxSourceLength is the length in bytes of the longest expression.
const maxSourceLength = 4096

// maxComprehensions is how many comprehensions an expression may have. The time that CEL takes to find the types of nested
// ones grows with the fourth power of their number.
const maxComprehensions = 16

// Kind is the type of a variable's field, as far as it is known before evaluation.
type Kind string

// The kinds. Of Any nothing is known.
const (
	Any    Kind = "any"
	String Kind = "string"
	Int    Kind = "int"
	Bool   Kind = "bool"
)

// Variable is what an expression may read.
type Variable struct {
	Name string
	// Fields are the only ones that there are, so that a misspelled one is found when the expression is compiled. One that has
	// no value can be asked for with has(). Nil: nothing is known of the variable.
	Fields map[string]Kind
}

// Environment is the variables of expressions. It is immutable and safe for concurrent use.
type Environment struct {
	cel       *cel.Env
	variables []Variable
	planner   interpreter.Interpreter
}

// NewEnvironment returns an Environment of variables. One may be called namespace, though CEL reserves that.
func NewEnvironment(variables ...Variable) (*Environment, error) {
	base, err := baseEnvironment()
	if err != nil {
		return nil, err
	}
	var objects []*apiservercel.DeclType
	var options []cel.EnvOption
	for _, variable := range variables {
		declared := cel.DynType
		if variable.Fields != nil {
			object, err := declareObject(variable)
			if err != nil {
				return nil, err
			}
			objects = append(objects, object)
			declared = object.CelType()
		}
		options = append(options, cel.Variable(variableAlias(variable.Name), declared))
	}
	provided, err := apiservercel.NewDeclTypeProvider(objects...).EnvOptions(base.env.CELTypeProvider())
	if err != nil {
		return nil, fmt.Errorf("declare the fields of variables: %w", err)
	}
	env, err := base.env.Extend(append(provided, options...)...)
	if err != nil {
		return nil, fmt.Errorf("declare variables: %w", err)
	}
	attributes := interpreter.NewAttributeFactory(env.Container, env.CELTypeAdapter(), env.CELTypeProvider())
	planner := interpreter.NewInterpreter(base.functions, env.Container, env.CELTypeProvider(), env.CELTypeAdapter(), attributes)
	return &Environment{cel: env, variables: slices.Clone(variables), planner: planner}, nil
}

// objectPrefix begins the names of the types of variables.
const objectPrefix = "variable."

// declareObject returns the type of a variable that has no fields but its own.
func declareObject(variable Variable) (*apiservercel.DeclType, error) {
	known := map[Kind]*apiservercel.DeclType{
		Any: apiservercel.DynType, String: apiservercel.StringType, Int: apiservercel.IntType, Bool: apiservercel.BoolType,
	}
	fields := make(map[string]*apiservercel.DeclField, len(variable.Fields))
	for name, kind := range variable.Fields {
		declared, ok := known[kind]
		if !ok {
			return nil, fmt.Errorf("%s.%s is of an unknown kind %q", variable.Name, name, kind)
		}
		fields[name] = apiservercel.NewDeclField(name, declared, false, nil, nil)
	}
	return apiservercel.NewObjectType(objectPrefix+variable.Name, fields), nil
}

// Expression is a compiled expression. It is immutable and safe for concurrent use.
type Expression struct {
	source string
	tree   *ast.AST
	plan   interpreter.InterpretableV2
	reads  map[string]bool
	// nodes are the parts that the expression is made of: what it costs if nothing in it repeats or is large.
	nodes int
}

// Compile compiles an expression. The error says what is wrong, and where in it.
func (e *Environment) Compile(source string) (compiled *Expression, err error) {
	return e.compile(nil, source)
}

// compile is Compile that takes from a budget what it costs to evaluate an expression that reads nothing.
func (e *Environment) compile(budget *Budget, source string) (compiled *Expression, err error) {
	defer recoverTo(&err)
	if len(source) > maxSourceLength {
		return nil, fmt.Errorf("is %d bytes long: at most %d are allowed", len(source), maxSourceLength)
	}
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("is empty: write an expression")
	}
	parsed, issues := e.cel.Parse(aliasVariables(source, e.variables))
	if issues.Err() != nil {
		return nil, e.compileError(source, issues)
	}
	if err := inspect(parsed.NativeRep()).check(); err != nil {
		return nil, err
	}
	checked, issues := e.cel.Check(parsed)
	if issues.Err() != nil {
		return nil, e.compileError(source, issues)
	}
	tree := checked.NativeRep()
	parts := inspect(tree)
	plan, err := e.planner.NewInterpretable(tree, interpreter.CustomDecoratorV2(parts.meter), interpreter.Optimize())
	if err != nil {
		return nil, errors.New(e.unalias(err.Error()))
	}
	expression := &Expression{source: source, tree: tree, plan: asV2(plan), nodes: parts.nodes, reads: map[string]bool{}}
	for _, variable := range e.variables {
		expression.reads[variable.Name] = parts.identifiers[variableAlias(variable.Name)]
	}
	if err := e.checkMinimumCost(budget, expression, parts, checked); err != nil {
		return nil, err
	}
	return expression, nil
}

// checkMinimumCost refuses an expression of which it is known that it costs too much before any value is.
func (e *Environment) checkMinimumCost(budget *Budget, expression *Expression, parts *parts, checked *cel.Ast) error {
	if !slices.Contains(slices.Collect(maps.Values(expression.reads)), true) {
		// It has the same cost each time.
		limit := budget.within(perExpressionCost)
		_, cost, err := expression.evaluate(nil, limit)
		budget.spend(cost)
		if cost >= limit {
			return err
		}
		return nil
	}
	if parts.functions["lists.range"] {
		// CEL's estimate takes a range of unknown length for an endless one.
		return nil
	}
	estimate, err := e.cel.EstimateCost(checked, &library.CostEstimator{})
	if err != nil {
		return fmt.Errorf("estimate the cost: %w", err)
	}
	if estimate.Min > perExpressionCost {
		return costError(perExpressionCost)
	}
	return nil
}

// Source returns the expression as it was written.
func (x *Expression) Source() string { return x.source }

// Reads tells whether the expression reads a variable.
func (x *Expression) Reads(variable string) bool { return x.reads[variable] }

// Evaluate evaluates the expression and returns what JSON could hold: nil, bool, int64, float64, string, []any,
// map[string]any. Values that JSON does not know become strings as Kubernetes writes them: durations as Go does, times in
// RFC 3339, bytes in base64, quantities, versions, addresses and URLs in their own words. An optional value is its value
// or nil. An unsigned integer is an int64 if it fits in one, and a float that is not a number, or not finite, is an error.
// The caller owns the result.
func (x *Expression) Evaluate(values map[string]any) (any, error) {
	return x.EvaluateWithin(nil, values)
}

// EvaluateWithin is Evaluate that costs no more than is left of a budget, and takes its cost from that.
func (x *Expression) EvaluateWithin(budget *Budget, values map[string]any) (any, error) {
	result, cost, err := x.evaluate(values, budget.within(perExpressionCost))
	budget.spend(cost)
	return result, err
}

// evaluate is Evaluate with another limit. It also returns the cost.
func (x *Expression) evaluate(values map[string]any, limit uint64) (result any, cost uint64, err error) {
	run := &activation{values: values, meter: meter{limit: limit}}
	defer func() { cost = run.meter.spent }()
	defer recoverTo(&err)
	run.meter.charge(uint64(x.nodes))
	// CEL returns its frames to a pool. A frame of an evaluation that was stopped is left to the garbage collector.
	frame, err := interpreter.NewExecutionFrame(run)
	if err != nil {
		return nil, 0, err
	}
	value := x.plan.Exec(frame)
	frame.Close()
	if types.IsUnknownOrError(value) {
		return nil, 0, x.evaluationError(value)
	}
	result, size, err := native(value)
	run.meter.charge(uint64(size) / bytesPerUnit)
	return result, 0, err
}

// recoverTo makes an error of a panic: CEL stops evaluations by panics, and a library's mistake must not end the process.
func recoverTo(err *error) { //nolint:gocritic // it sets the named result of the function that defers it
	switch reason := recover().(type) {
	case nil:
	case exceeded:
		*err = costError(reason.limit)
	default:
		*err = fmt.Errorf("cannot be evaluated: %v", reason)
	}
}

// activation is the values of variables, and the meter of one evaluation.
type activation struct {
	values map[string]any
	meter  meter
}

// ResolveName implements interpreter.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	if name == meterName {
		return &a.meter, true
	}
	value, ok := a.values[aliasedVariable(name)]
	return value, ok
}

// Parent implements interpreter.Activation.
func (a *activation) Parent() interpreter.Activation { return nil }

// parts is what is known of an expression from its text.
type parts struct {
	nodes       int
	identifiers map[string]bool
	functions   map[string]bool
	// patternSize is that of the largest regular expression that is written out.
	patternSize uint64
	// steps are the sizes of what comprehensions repeat, by the id of their step.
	steps map[int64]uint64
	// ranges are the ids of what comprehensions go over.
	ranges map[int64]bool
	// keys are the ids of what elements are looked up by, and of the keys of literal maps.
	keys map[int64]bool
}

func inspect(tree *ast.AST) *parts {
	found := &parts{
		identifiers: map[string]bool{}, functions: map[string]bool{},
		steps: map[int64]uint64{}, ranges: map[int64]bool{}, keys: map[int64]bool{},
	}
	found.nodes = found.count(ast.NavigateAST(tree))
	return found
}

// check refuses what takes CEL long to compile.
func (p *parts) check() error {
	if len(p.steps) > maxComprehensions {
		return fmt.Errorf("has %d comprehensions (all, exists, map, filter, optMap and the like): at most %d are allowed",
			len(p.steps), maxComprehensions)
	}
	if p.patternSize > maxPatternSize {
		return fmt.Errorf("has too large a regular expression: at most %d states are allowed", maxPatternSize)
	}
	return nil
}

// count returns how many parts an expression has, those of all that is in it included.
func (p *parts) count(expression ast.NavigableExpr) int {
	nodes := 1
	for _, child := range expression.Children() {
		nodes += p.count(child)
	}
	switch expression.Kind() {
	case ast.IdentKind:
		p.identifiers[strings.TrimPrefix(expression.AsIdent(), ".")] = true
	case ast.CallKind:
		p.countCall(expression.AsCall())
	case ast.ComprehensionKind:
		p.steps[expression.AsComprehension().LoopStep().ID()] = uint64(nodes)
		p.ranges[expression.AsComprehension().IterRange().ID()] = true
	case ast.MapKind:
		for _, entry := range expression.AsMap().Entries() {
			p.keys[entry.AsMapEntry().Key().ID()] = true
		}
	}
	return nodes
}

func (p *parts) countCall(call ast.CallExpr) {
	function, args := call.FunctionName(), call.Args()
	p.functions[function] = true
	switch {
	case (function == operators.Index || function == operators.OptIndex) && len(args) == 2:
		p.keys[args[1].ID()] = true
	case function == "matches" || function == "find" || function == "findAll":
		for _, arg := range args {
			if arg.Kind() != ast.LiteralKind {
				continue
			}
			if pattern, ok := arg.AsLiteral().(types.String); ok {
				p.patternSize = max(p.patternSize, patternSize(string(pattern)))
			}
		}
	}
}

func asV2(plan interpreter.Interpretable) interpreter.InterpretableV2 {
	if v2, ok := plan.(interpreter.InterpretableV2); ok {
		return v2
	}
	return evalOnly{plan}
}

// evalOnly adapts what has only the older way of evaluation.
type evalOnly struct{ interpreter.Interpretable }

// Exec evaluates within a frame.
func (e evalOnly) Exec(frame *interpreter.ExecutionFrame) ref.Val { return e.Eval(frame) }
