package expressions

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// leaf is a string with expressions.
type leaf struct {
	path *field.Path
	at   []string
	// number is the leaf's among those of its template.
	number int
	rules  LeafRules
	parts  []part
	// early is set if all that the expressions read is early.
	early bool
	// isWrong is set if the template cannot be used, for what was said of this leaf.
	isWrong bool
}

// part of a string is text or an expression.
type part struct {
	text string
	// source is the expression's as it is written. It is never empty: an empty expression is a space.
	source   string
	compiled *Expression
	// literals are the strings that the expression spells out.
	literals []string
}

func (p part) isExpression() bool { return p.source != "" }

// written is the expression for messages.
func (p part) written() string { return shorten("${" + p.source + "}") }

// splitTemplate takes a string apart.
func splitTemplate(value string) ([]part, error) {
	var parts []part
	var text strings.Builder
	for rest := value; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "$${"):
			text.WriteString("${")
			rest = rest[3:]
		case strings.HasPrefix(rest, "${"):
			end, ok := expressionEnd(rest[2:])
			if !ok {
				return nil, errors.New("has ${ without the } that ends it: add that, or write $${ for a literal ${")
			}
			if text.Len() > 0 {
				parts = append(parts, part{text: text.String()})
				text.Reset()
			}
			source := rest[2 : 2+end]
			if source == "" {
				source = " "
			}
			parts = append(parts, part{source: source})
			rest = rest[2+end+1:]
		default:
			text.WriteByte(rest[0])
			rest = rest[1:]
		}
	}
	if text.Len() > 0 {
		parts = append(parts, part{text: text.String()})
	}
	return parts, nil
}

func joinText(parts []part) string {
	var text strings.Builder
	for _, piece := range parts {
		text.WriteString(piece.text)
	}
	return text.String()
}

// evaluate returns what the leaf becomes. The second result is its cost.
func (l *leaf) evaluate(values map[string]any, limit uint64) (any, uint64, *field.Error) {
	if len(l.parts) == 1 {
		return l.evaluateWhole(values, limit)
	}
	return l.evaluateText(values, limit)
}

// evaluateWhole returns what the only expression of a leaf yields.
func (l *leaf) evaluateWhole(values map[string]any, limit uint64) (any, uint64, *field.Error) {
	only := &l.parts[0]
	result, cost, err := only.compiled.evaluate(values, min(limit, perExpressionCost))
	if err != nil {
		return nil, cost, l.invalid(only, err)
	}
	if l.rules.NoLeadingDash {
		if err := checkDashes(result, only.literals); err != nil {
			return nil, cost, l.invalid(only, err)
		}
	}
	if l.rules.DoubleDollar {
		result = doubleDollars(result)
	}
	if l.rules.DoubleDollarIn != "" {
		doubleDollarsIn(result, l.rules.DoubleDollarIn)
	}
	return result, cost, nil
}

// evaluateText joins the text and the expressions of a leaf.
func (l *leaf) evaluateText(values map[string]any, limit uint64) (any, uint64, *field.Error) {
	var text strings.Builder
	var sum uint64
	for i := range l.parts {
		piece := &l.parts[i]
		if !piece.isExpression() {
			text.WriteString(piece.text)
			continue
		}
		result, cost, err := piece.compiled.evaluate(values, min(limit-sum, perExpressionCost))
		sum += cost
		if err != nil {
			return nil, sum, l.invalid(piece, err)
		}
		words, err := textOf(result)
		if err == nil && l.rules.NoLeadingDash && text.Len() == 0 {
			err = checkDashes(words, piece.literals)
		}
		if err != nil {
			return nil, sum, l.invalid(piece, err)
		}
		if l.rules.DoubleDollar {
			words = strings.ReplaceAll(words, "$", "$$")
		}
		text.WriteString(words)
	}
	return text.String(), sum, nil
}

func (l *leaf) invalid(piece *part, err error) *field.Error {
	return field.Invalid(l.path, piece.written(), err.Error())
}

// textOf returns a result as part of a text.
func textOf(result any) (string, error) {
	switch value := result.(type) {
	case string:
		return value, nil
	case bool:
		return strconv.FormatBool(value), nil
	case int64:
		return strconv.FormatInt(value, 10), nil
	case float64:
		return strconv.FormatFloat(value, 'g', -1, 64), nil
	case nil:
		return "", errors.New("yields nothing, which cannot be part of a text: give a default with orValue()")
	case []any:
		return "", errors.New("yields a list, which cannot be part of a text: use join(), or make the expression the whole value")
	default:
		return "", errors.New("yields a map, which cannot be part of a text: make the expression the whole value")
	}
}

// checkDashes refuses a string, or one in a list, that begins with a dash and is not spelt out.
func checkDashes(result any, literals []string) error {
	switch value := result.(type) {
	case string:
		if strings.HasPrefix(value, "-") && !slices.Contains(literals, value) {
			return fmt.Errorf("yields %q, which begins with a dash and would be taken for a flag: put text before it, as in --name=${…}",
				shorten(value))
		}
	case []any:
		for _, element := range value {
			if err := checkDashes(element, literals); err != nil {
				return err
			}
		}
	}
	return nil
}

func doubleDollars(result any) any {
	switch value := result.(type) {
	case string:
		return strings.ReplaceAll(value, "$", "$$")
	case []any:
		for i := range value {
			value[i] = doubleDollars(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = doubleDollars(value[key])
		}
	}
	return result
}

// doubleDollarsIn doubles dollars in what stands under a key, wherever that is.
func doubleDollarsIn(result any, key string) {
	switch value := result.(type) {
	case []any:
		for i := range value {
			doubleDollarsIn(value[i], key)
		}
	case map[string]any:
		for name := range value {
			if name == key {
				value[name] = doubleDollars(value[name])
			} else {
				doubleDollarsIn(value[name], key)
			}
		}
	}
}

// stringLiterals returns the strings that an expression spells out.
func stringLiterals(of *Expression) []string {
	var literals []string
	ast.PreOrderVisit(of.tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.LiteralKind {
			return
		}
		if text, ok := e.AsLiteral().(types.String); ok {
			literals = append(literals, string(text))
		}
	}))
	return literals
}

// onlyReads returns the variable and its field if the expression is no more than that.
func (x *Expression) onlyReads() (variable, name string, ok bool) {
	read := x.tree.Expr()
	if read.Kind() != ast.SelectKind || read.AsSelect().IsTestOnly() || read.AsSelect().Operand().Kind() != ast.IdentKind {
		return "", "", false
	}
	return aliasedVariable(read.AsSelect().Operand().AsIdent()), read.AsSelect().FieldName(), true
}

func sortedKeys(of map[string]any) []string { return slices.Sorted(maps.Keys(of)) }

// shorten keeps a message readable.
func shorten(text string) string {
	const long = 80
	if len(text) <= long {
		return text
	}
	return strings.ToValidUTF8(text[:long], "") + "…"
}
