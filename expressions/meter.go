package expressions

import (
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
)

// perExpressionCost is what one evaluation may cost: about 2 ms. A unit is about what CEL takes for its own: one part of
// an expression, each time that it is evaluated, and 16 bytes of text or one element of what an operation walks over.
//
// CEL's own tracker is not used, for it charges an operation once it is done: a list that contains itself twice, twenty
// times over, is cheap to make and takes for ever to compare. Here what an operation will walk over, or make, is charged
// before.
const perExpressionCost = 20_000

// bytesPerUnit is how much text costs one unit.
const bytesPerUnit = 16

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

// meter decorates the parts of a plan whose cost depends on values.
func (p *parts) meter(part interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if call, ok := part.(interpreter.InterpretableCall); ok && len(call.Args()) > 0 {
		metered, err := newMeteredCall(call)
		if err != nil {
			return nil, err
		}
		part = metered
	}
	if size, ok := p.steps[part.ID()]; ok {
		if _, isConstant := part.(interpreter.InterpretableConst); !isConstant {
			return &meteredStep{InterpretableV2: part, size: size}, nil
		}
	}
	return part, nil
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
