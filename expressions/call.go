package expressions

import (
	"regexp"

	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// meteredCall calls a function after it has charged for the values that it is given.
type meteredCall struct {
	id       int64
	function string
	overload string
	args     []interpreter.InterpretableV2
	impl     *functions.Overload
	cost     func(m *meter, args []ref.Val)
	// pattern is the regular expression, where it is known before evaluation, and patternSize its size.
	pattern     *regexp.Regexp
	patternSize uint64
}

func newMeteredCall(call interpreter.InterpretableCall) (*meteredCall, error) {
	shared, err := baseEnvironment()
	if err != nil {
		return nil, err
	}
	metered := &meteredCall{id: call.ID(), function: call.Function(), overload: call.OverloadID(), args: call.Args()}
	impl, found := shared.functions.FindOverload(metered.overload)
	if !found {
		impl, _ = shared.functions.FindOverload(metered.function)
	}
	metered.impl = impl
	metered.cost = callCosts[metered.function]
	if metered.cost == nil {
		metered.cost = walkCost
	}
	err = metered.compilePattern()
	return metered, err
}

// compilePattern compiles the regular expression of matches if it is a literal.
func (c *meteredCall) compilePattern() error {
	if c.function != "matches" || len(c.args) != 2 {
		return nil
	}
	literal, ok := c.args[1].(interpreter.InterpretableConst)
	if !ok {
		return nil
	}
	pattern, ok := literal.Value().(types.String)
	if !ok {
		return nil
	}
	compiled, err := regexp.Compile(string(pattern))
	c.pattern, c.patternSize = compiled, patternSize(string(pattern))
	return err
}

// ID implements interpreter.Interpretable.
func (c *meteredCall) ID() int64 { return c.id }

// Eval implements interpreter.Interpretable.
func (c *meteredCall) Eval(vars interpreter.Activation) ref.Val {
	return c.Exec(interpreter.AsFrame(vars))
}

// Exec implements interpreter.InterpretableV2.
func (c *meteredCall) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	if c.function == "or" || c.function == "orValue" {
		return c.orElse(frame)
	}
	var few [3]ref.Val
	values := few[:0]
	strict := c.impl == nil || !c.impl.NonStrict
	small := true
	for _, arg := range c.args {
		value := arg.Exec(frame)
		if strict && types.IsUnknownOrError(value) {
			return value
		}
		small = small && isSmall(value)
		values = append(values, value)
	}
	switch text, isText := values[0].(types.String); {
	case c.pattern != nil && isText:
		meterOf(frame).charge(matchCost(string(text), c.patternSize))
	case !small || alwaysCharged[c.function]:
		c.cost(meterOf(frame), values)
	}
	return c.call(values)
}

// orElse evaluates an optional value, and the other argument only where that has none.
func (c *meteredCall) orElse(frame *interpreter.ExecutionFrame) ref.Val {
	value := c.args[0].Exec(frame)
	optional, ok := value.(*types.Optional)
	switch {
	case types.IsUnknownOrError(value):
		return value
	case !ok || len(c.args) != 2:
		return types.NewErr("no such overload: %s", c.function)
	case !optional.HasValue():
		return c.args[1].Exec(frame)
	case c.function == "or":
		return optional
	default:
		return optional.GetValue()
	}
}

// alwaysCharged are the functions that make much of little.
var alwaysCharged = map[string]bool{
	"lists.range": true, "format": true, "replace": true, "matches": true, "find": true, "findAll": true,
}

func (c *meteredCall) call(values []ref.Val) ref.Val {
	switch c.function {
	case operators.Equals:
		return types.Equal(values[0], values[1])
	case operators.NotEquals:
		return types.Bool(types.Equal(values[0], values[1]) != types.True)
	case "quantity", "isQuantity":
		if isExtremeQuantity(values[0]) {
			return c.noQuantity(values[0])
		}
	case operators.Add:
		if joined, ok := joinLists(values[0], values[1]); ok {
			return joined
		}
	}
	if text, ok := values[0].(types.String); ok && c.pattern != nil {
		return types.Bool(c.pattern.MatchString(string(text)))
	}
	return c.dispatch(values)
}

// dispatch calls the function that the values fit, as CEL's interpreter does.
func (c *meteredCall) dispatch(values []ref.Val) ref.Val {
	first := values[0]
	impl := c.impl
	fits := impl != nil &&
		(impl.OperandTrait == 0 || types.IsUnknownOrError(first) || first.Type().HasTrait(impl.OperandTrait))
	switch {
	case fits && len(values) == 1 && impl.Unary != nil:
		return impl.Unary(first)
	case fits && len(values) == 2 && impl.Binary != nil:
		return impl.Binary(first, values[1])
	case fits && impl.Function != nil:
		return impl.Function(append([]ref.Val(nil), values...)...)
	case first.Type().HasTrait(traits.ReceiverType):
		return first.(traits.Receiver).Receive(c.function, c.overload, append([]ref.Val(nil), values[1:]...))
	default:
		return types.NewErr("no such overload: %s", c.function)
	}
}

// extremeExponent is a number whose exponent has more digits than that of any quantity in use.
var extremeExponent = regexp.MustCompile(`[eE][+-]?0*[1-9]\d{3,}$`)

// isExtremeQuantity tells whether the parser of quantities would write out more digits than there is memory for.
func isExtremeQuantity(value ref.Val) bool {
	const longest = 256
	text, ok := value.(types.String)
	return ok && (len(text) > longest || extremeExponent.MatchString(string(text)))
}

func (c *meteredCall) noQuantity(value ref.Val) ref.Val {
	if c.function == "isQuantity" {
		return types.False
	}
	return types.NewErr("%q is out of the range of quantities", shorten(string(value.(types.String))))
}

// joinLists makes one list of two. CEL would make a pair of them, and a pair of pairs takes twice as long to walk over
// with each list that is added to itself.
func joinLists(left, right ref.Val) (ref.Val, bool) {
	if _, growing := left.(traits.MutableLister); growing {
		return nil, false
	}
	first, isList := left.(traits.Lister)
	second, areLists := right.(traits.Lister)
	if !isList || !areLists {
		return nil, false
	}
	var elements []ref.Val
	for _, list := range []traits.Lister{first, second} {
		for iterator := list.Iterator(); iterator.HasNext() == types.True; {
			elements = append(elements, iterator.Next())
		}
	}
	return types.NewRefValList(types.DefaultTypeAdapter, elements), true
}
