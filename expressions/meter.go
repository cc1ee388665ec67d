package expressions

import (
	"slices"
	"strings"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// perExpressionCost is what one evaluation may cost: at most about 20 ms, mostly 2. A unit is about what CEL takes for its own:
// one part of an expression, each time that it is evaluated, and 16 bytes of text or one element of what an operation walks
// over.
//
// CEL's own tracker is not used, for it charges an operation once it is done: a list that contains itself twice, twenty
// times over, is cheap to make and takes for ever to compare. Here what an operation will walk over, or make, is charged
// before.
const perExpressionCost = 20_000

// bytesPerUnit is how much text costs one unit.
const bytesPerUnit = 16

// A Budget is what several evaluations may cost together, in the units of one. It is not safe for concurrent use.
type Budget struct{ left uint64 }

// NewBudget returns a Budget of so many units.
func NewBudget(units uint64) *Budget { return &Budget{left: units} }

// within returns what the next evaluation may cost, which by itself may cost most.
func (b *Budget) within(most uint64) uint64 {
	if b == nil {
		return most
	}
	return min(most, b.left)
}

// spend takes what an evaluation cost.
func (b *Budget) spend(cost uint64) {
	if b != nil {
		b.left -= min(cost, b.left)
	}
}

// meterName is the variable that holds the meter. No expression can read it.
const meterName = "@meter"

// meter adds up what one evaluation costs.
type meter struct{ spent, limit uint64 }

// exceeded is what an evaluation that costs too much panics with, for no CEL operator can absorb that.
type exceeded struct{ limit uint64 }

func (m *meter) charge(units uint64) {
	if units > m.limit-m.spent {
		m.spent = m.limit
		panic(exceeded{m.limit})
	}
	m.spent += units
}

func (m *meter) left() uint64 { return m.limit - m.spent }

// meterOf finds the meter of an evaluation. What is evaluated in compilation has none.
func meterOf(frame *interpreter.ExecutionFrame) *meter {
	if found, ok := frame.ResolveName(meterName); ok {
		return found.(*meter)
	}
	return &meter{limit: perExpressionCost}
}

// meter decorates the parts of a plan whose cost depends on values, and puts what is repeated in order.
func (p *parts) meter(part interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if call, ok := part.(interpreter.InterpretableCall); ok && len(call.Args()) > 0 {
		metered, err := newMeteredCall(call)
		if err != nil {
			return nil, err
		}
		part = metered
	}
	if _, isConstant := part.(interpreter.InterpretableConst); isConstant {
		return part, nil
	}
	if p.keys[part.ID()] {
		part = &meteredKey{part}
	}
	if p.ranges[part.ID()] {
		part = &meteredRange{part}
	}
	if size, ok := p.steps[part.ID()]; ok {
		part = &meteredStep{InterpretableV2: part, size: size}
	}
	return part, nil
}

// meteredKey is what an element is looked up by.
type meteredKey struct{ interpreter.InterpretableV2 }

// Exec evaluates the key and charges for its text.
func (k *meteredKey) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	key := k.InterpretableV2.Exec(frame)
	if !isSmall(key) {
		walkCost(meterOf(frame), []ref.Val{key})
	}
	return key
}

// Eval is Exec in a frame of its own.
func (k *meteredKey) Eval(vars interpreter.Activation) ref.Val {
	return k.Exec(interpreter.AsFrame(vars))
}

// meteredRange is what a comprehension goes over.
type meteredRange struct{ interpreter.InterpretableV2 }

// Exec evaluates the range and charges for the keys of a map, which are gathered and sorted each time. A list is not charged
// here, for whoever goes over it may stop at its first element.
func (r *meteredRange) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	value := r.InterpretableV2.Exec(frame)
	keyed, isMap := value.(traits.Mapper)
	if !isMap {
		return value
	}
	if view, isView := value.(*mapView); isView {
		meterOf(frame).charge(sizeOf(view))
		return value
	}
	meterOf(frame).charge(sizeOf(value) * unitsPerField)
	return &orderedMap{keyed}
}

// Eval is Exec in a frame of its own.
func (r *meteredRange) Eval(vars interpreter.Activation) ref.Val {
	return r.Exec(interpreter.AsFrame(vars))
}

// orderedMap is a map whose keys come sorted: those of Go's maps do not, and what is made of them would differ each time.
type orderedMap struct{ traits.Mapper }

// Iterator implements traits.Iterable.
func (o *orderedMap) Iterator() traits.Iterator {
	var keys []ref.Val
	for iterator := o.Mapper.Iterator(); iterator.HasNext() == types.True; {
		keys = append(keys, iterator.Next())
	}
	slices.SortFunc(keys, compareKeys)
	return newIterator(len(keys), func(i int) ref.Val { return keys[i] })
}

// compareKeys orders keys of one type by their values, and others by their types.
func compareKeys(a, b ref.Val) int {
	if comparer, ok := a.(traits.Comparer); ok && a.Type() == b.Type() {
		if order, ok := comparer.Compare(b).(types.Int); ok {
			return int(order)
		}
	}
	return strings.Compare(a.Type().TypeName(), b.Type().TypeName())
}

// meteredStep is what a comprehension does for each element.
type meteredStep struct {
	interpreter.InterpretableV2
	size uint64
}

// Exec charges for the step and evaluates it.
func (s *meteredStep) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	meterOf(frame).charge(s.size)
	return s.InterpretableV2.Exec(frame)
}

// Eval is Exec in a frame of its own.
func (s *meteredStep) Eval(vars interpreter.Activation) ref.Val {
	return s.Exec(interpreter.AsFrame(vars))
}
