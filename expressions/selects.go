package expressions

import (
	"maps"
	"slices"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// Selects tells whether the expression reads, or asks for, a field of a variable, or what is in it, however it is written: by
// dots, question marks, keys in brackets or in. It knows no more than the text: a key that is computed, or that a loop over
// all keys meets, is not found.
func (x *Expression) Selects(variable string, path ...string) bool {
	known := scope{variableAlias(variable): {}}
	return known.selects(ast.NavigateAST(x.tree), path)
}

// scope holds names of variables, and the fields by which what they hold is found from the variable that is looked for.
type scope map[string][]string

// selects tells whether a path begins what an expression, or a part of it, reads.
func (s scope) selects(expression ast.NavigableExpr, path []string) bool {
	if read, ok := s.path(expression); ok && len(read) >= len(path) && slices.Equal(read[:len(path)], path) {
		return true
	}
	inner := s
	var outer []int64
	if expression.Kind() == ast.ComprehensionKind {
		inner = s.within(expression.AsComprehension())
		outer = []int64{expression.AsComprehension().IterRange().ID(), expression.AsComprehension().AccuInit().ID()}
	}
	return slices.ContainsFunc(expression.Children(), func(child ast.NavigableExpr) bool {
		if slices.Contains(outer, child.ID()) {
			return s.selects(child, path)
		}
		return inner.selects(child, path)
	})
}

// within returns what is known in a comprehension, whose variables hide others. That of optMap holds what it is given.
func (s scope) within(comprehension ast.ComprehensionExpr) scope {
	inner := maps.Clone(s)
	delete(inner, comprehension.IterVar())
	delete(inner, comprehension.IterVar2())
	delete(inner, comprehension.AccuVar())
	if read, ok := s.path(comprehension.AccuInit()); ok {
		inner[comprehension.AccuVar()] = read
	}
	return inner
}

// path returns the fields that lead from the variable to what an expression reads, if it is no more than that.
func (s scope) path(expression ast.Expr) ([]string, bool) {
	switch expression.Kind() {
	case ast.IdentKind:
		fields, ok := s[expression.AsIdent()]
		return fields, ok
	case ast.SelectKind:
		return s.field(expression.AsSelect().Operand(), expression.AsSelect().FieldName())
	case ast.CallKind:
		return s.pathOfCall(expression.AsCall())
	default:
		return nil, false
	}
}

func (s scope) pathOfCall(call ast.CallExpr) ([]string, bool) {
	args := call.Args()
	switch call.FunctionName() {
	case operators.Index, operators.OptIndex, operators.OptSelect:
		if len(args) == 2 {
			return s.fieldAt(args[0], args[1])
		}
	case operators.In:
		return s.fieldAt(args[1], args[0])
	case "orValue", "or", "value":
		return s.path(call.Target())
	case "dyn", "optional.of", "optional.ofNonZeroValue":
		if len(args) == 1 {
			return s.path(args[0])
		}
	}
	return nil, false
}

// fieldAt returns the path of an element whose key is written out.
func (s scope) fieldAt(of, key ast.Expr) ([]string, bool) {
	if key.Kind() != ast.LiteralKind {
		return nil, false
	}
	name, ok := key.AsLiteral().(types.String)
	if !ok {
		return nil, false
	}
	return s.field(of, string(name))
}

func (s scope) field(of ast.Expr, name string) ([]string, bool) {
	fields, ok := s.path(of)
	return append(slices.Clone(fields), name), ok
}

// readsAny tells whether a leaf may read one of the fields of variables, or asks for it.
func (l *leaf) readsAny(fields map[string][]string) bool {
	return slices.ContainsFunc(l.parts, func(p part) bool {
		if !p.isExpression() {
			return false
		}
		for variable, names := range fields {
			if len(names) > 0 && p.compiled.mayRead(variable, names) {
				return true
			}
		}
		return false
	})
}

// mayRead tells whether the expression may read one of the fields of a variable. Where it does more with the variable than to
// select fields by their names, it may.
func (x *Expression) mayRead(variable string, names []string) bool {
	isVariable := func(e ast.NavigableExpr) bool {
		return e.Kind() == ast.IdentKind && e.AsIdent() == variableAlias(variable)
	}
	anything := scope{variableAlias(variable): {}}
	return slices.ContainsFunc(ast.MatchDescendants(ast.NavigateAST(x.tree), isVariable), func(e ast.NavigableExpr) bool {
		parent, ok := e.Parent()
		if !ok {
			return true
		}
		read, ok := anything.path(parent)
		return !ok || len(read) != 1 || slices.Contains(names, read[0])
	})
}
