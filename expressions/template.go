package expressions

import (
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxExpressions is how many expressions a template may have.
const maxExpressions = 256

// LeafRules say how what an expression yields is treated at one place of a template.
type LeafRules struct {
	// DoubleDollar doubles each $ in what expressions yield, for the kubelet expands $(NAME) there.
	DoubleDollar bool
	// DoubleDollarIn does so only in what stands under this key, where an expression yields a list or an object.
	DoubleDollarIn string
	// NoLeadingDash refuses a value that begins with what an expression yields, and that with a dash, unless the expression
	// spells it out as a string: a program would take it for a flag.
	NoLeadingDash bool
}

// TemplateOptions are what a template's owner knows of its places.
type TemplateOptions struct {
	// Rules returns how an expression is treated at a place, given as the keys and indices that lead there, or why there may
	// be none.
	Rules func(path []string) (LeafRules, error)
	// Check says why an expression may not stand in the template. Nil: all may.
	Check func(expression *Expression) error
	// Early are the variables whose values Bind gets.
	Early []string
}

// Template is a JSON value whose strings may hold expressions. It is immutable and safe for concurrent use.
//
// In a string, ${…} is an expression and $${ stands for ${. A string that is one expression and nothing else becomes what
// that yields; where it yields nil the key, or the element of the list, is left out. Other $ are text, and so is $(NAME).
type Template struct {
	root *node
	// leaves are the strings with expressions, in the order of their places.
	leaves []*leaf
}

// CompileTemplate compiles all expressions in the strings of a JSON value. Everything that is wrong is reported, under path. A
// template of which something is wrong is good for TryOut alone.
func (e *Environment) CompileTemplate(document any, path *field.Path, options TemplateOptions) (*Template, field.ErrorList) {
	compiler := &templateCompiler{environment: e, options: options, template: &Template{}, budget: NewBudget(templateCost)}
	compiler.template.root = compiler.compile(document, path, nil)
	if compiler.expressions > maxExpressions {
		compiler.errs = append(compiler.errs, field.TooMany(path, compiler.expressions, maxExpressions))
	}
	return compiler.template, compiler.errs
}

// node is a value of a template: an object, a list, a leaf or a constant.
type node struct {
	constant any
	// keys are the sorted keys of an object. Those of a list are nil.
	keys     []string
	children []*node
	isObject bool
	isList   bool
	leaf     *leaf
}

// templateCompiler gathers what is wrong.
type templateCompiler struct {
	environment *Environment
	options     TemplateOptions
	template    *Template
	expressions int
	// budget is what all expressions may cost that read nothing.
	budget *Budget
	errs   field.ErrorList
}

func (c *templateCompiler) compile(document any, path *field.Path, at []string) *node {
	if len(at) > maxNesting {
		c.errs = append(c.errs, field.Invalid(path, "", fmt.Sprintf("nests deeper than %d levels", maxNesting)))
		return &node{}
	}
	switch value := document.(type) {
	case map[string]any:
		return c.compileObject(value, path, at)
	case []any:
		list := &node{isList: true}
		for i, element := range value {
			list.children = append(list.children, c.compile(element, path.Index(i), append(slices.Clone(at), strconv.Itoa(i))))
		}
		return list
	case string:
		return c.compileString(value, path, at)
	case nil, bool, int64, float64, int, int32:
		return &node{constant: value}
	default:
		c.errs = append(c.errs, field.Invalid(path, fmt.Sprintf("%T", value), "is no JSON value"))
		return &node{}
	}
}

func (c *templateCompiler) compileObject(value map[string]any, path *field.Path, at []string) *node {
	object := &node{isObject: true}
	for _, key := range sortedKeys(value) {
		place := childPath(path, key)
		if parts, err := splitTemplate(key); err != nil || slices.ContainsFunc(parts, part.isExpression) {
			c.errs = append(c.errs, field.Invalid(place, key, "a key holds no expression: write it out, and an expression as its value"))
			continue
		}
		object.keys = append(object.keys, key)
		object.children = append(object.children, c.compile(value[key], place, append(slices.Clone(at), key)))
	}
	return object
}

func (c *templateCompiler) compileString(value string, path *field.Path, at []string) *node {
	parts, err := splitTemplate(value)
	if err != nil {
		c.errs = append(c.errs, field.Invalid(path, shorten(value), err.Error()))
		return &node{leaf: c.addLeaf(&leaf{path: path, at: at, isWrong: true})}
	}
	if !slices.ContainsFunc(parts, part.isExpression) {
		return &node{constant: joinText(parts)}
	}
	return &node{leaf: c.compileLeaf(parts, path, at)}
}

// compileLeaf compiles the expressions of a string. Those beyond the limit are only counted.
func (c *templateCompiler) compileLeaf(parts []part, path *field.Path, at []string) *leaf {
	compiled := &leaf{path: path, at: at, early: true}
	before := len(c.errs)
	if c.options.Rules != nil {
		rules, err := c.options.Rules(at)
		if err != nil {
			c.errs = append(c.errs, field.Forbidden(path, err.Error()))
		}
		compiled.rules = rules
	}
	for _, piece := range parts {
		if piece.isExpression() {
			c.expressions++
			if c.expressions > maxExpressions {
				compiled.isWrong = true
				continue
			}
			expression, err := c.environment.compile(c.budget, piece.source)
			if err != nil {
				c.errs = append(c.errs, field.Invalid(path, piece.written(), err.Error()))
				continue
			}
			if c.options.Check != nil {
				if err := c.options.Check(expression); err != nil {
					c.errs = append(c.errs, field.Forbidden(path, err.Error()))
				}
			}
			piece.compiled = expression
			piece.literals = stringLiterals(expression)
			compiled.early = compiled.early && c.isEarly(expression)
		}
		compiled.parts = append(compiled.parts, piece)
	}
	compiled.isWrong = compiled.isWrong || len(c.errs) > before
	return c.addLeaf(compiled)
}

func (c *templateCompiler) addLeaf(added *leaf) *leaf {
	added.number = len(c.template.leaves)
	c.template.leaves = append(c.template.leaves, added)
	return added
}

// isEarly tells whether an expression reads no more than the early variables.
func (c *templateCompiler) isEarly(expression *Expression) bool {
	for variable, read := range expression.reads {
		if read && !slices.Contains(c.options.Early, variable) {
			return false
		}
	}
	return true
}

// HasExpression tells whether the string at the place where keys and indices lead holds an expression.
func (t *Template) HasExpression(path ...string) bool { return t.find(path) != nil }

// OnlyReads returns the variable and its field if the string at a place is ${variable.field} and no more.
func (t *Template) OnlyReads(path []string) (variable, name string, ok bool) {
	found := t.find(path)
	if found == nil || len(found.parts) != 1 {
		return "", "", false
	}
	return found.parts[0].compiled.onlyReads()
}

// Reads tells whether any expression of the template reads a variable.
func (t *Template) Reads(variable string) bool {
	return slices.ContainsFunc(t.leaves, func(l *leaf) bool {
		return slices.ContainsFunc(l.parts, func(p part) bool { return p.compiled != nil && p.compiled.Reads(variable) })
	})
}

func (t *Template) find(path []string) *leaf {
	for _, candidate := range t.leaves {
		if slices.Equal(candidate.at, path) {
			return candidate
		}
	}
	return nil
}

// childPath is the path of a key, in brackets where dots and slashes would make it ambiguous.
func childPath(path *field.Path, key string) *field.Path {
	for i := range len(key) {
		if !isLetter(key[i]) && (key[i] < '0' || key[i] > '9') && key[i] != '-' {
			return path.Key(key)
		}
	}
	if key == "" {
		return path.Key(key)
	}
	return path.Child(key)
}
