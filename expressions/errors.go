package expressions

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// maxReported is how many mistakes of one expression are told: those that follow are mostly made by the first.
const maxReported = 3

// costError says that an expression costs more than it may by itself, or than others left of what all may cost together.
func costError(limit uint64) error {
	if limit < perExpressionCost {
		return fmt.Errorf("costs more than the %d that are left of what all expressions may cost together for one Pod", limit)
	}
	return fmt.Errorf("costs more than %d: it loops over too much, or makes too large a value", limit)
}

// compileError says in one line what is wrong with an expression, and where.
func (e *Environment) compileError(source string, issues *cel.Issues) error {
	var messages []string
	for _, issue := range issues.Errors() {
		if len(messages) == maxReported {
			break
		}
		message := e.explain(e.unalias(issue.Message))
		switch {
		case issue.Location.Line() < 1:
			messages = append(messages, message)
		case strings.Contains(source, "\n"):
			messages = append(messages,
				fmt.Sprintf("at line %d, column %d: %s", issue.Location.Line(), issue.Location.Column()+1, message))
		default:
			messages = append(messages, fmt.Sprintf("at column %d: %s", issue.Location.Column()+1, message))
		}
	}
	return errors.New(strings.Join(messages, "; "))
}

var (
	syntaxError = regexp.MustCompile(
		`^Syntax error: (?:mismatched input|extraneous input|token recognition error at:) (.*?)(?: expecting .*)?$`)
	undeclared     = regexp.MustCompile(`^undeclared reference to '(.*)' \(in container ''\)$`)
	undefinedField = regexp.MustCompile(`^undefined field '(.*)'$`)
	conversion     = regexp.MustCompile(`^type conversion error from '(.*)' to '(.*)'$`)
	noMatching     = regexp.MustCompile(`^found no matching overload for '(.*)' applied to '(.*)'$`)
)

// explain writes a message of CEL's compiler in plain words.
func (e *Environment) explain(message string) string {
	message = strings.ReplaceAll(strings.Join(strings.Fields(message), " "), objectPrefix, "")
	if found := undeclared.FindStringSubmatch(message); found != nil {
		return fmt.Sprintf("there is no variable or function %q; the variables are %s", found[1], e.variableNames())
	}
	if found := undefinedField.FindStringSubmatch(message); found != nil {
		return fmt.Sprintf("there is no field %q; %s", found[1], e.fieldNames())
	}
	if found := noMatching.FindStringSubmatch(message); found != nil {
		return fmt.Sprintf("%s cannot be applied to %s", operator(found[1]), found[2])
	}
	if strings.HasPrefix(message, "expected type '") {
		return message + ": the values of a literal list or map are of one type, or each is wrapped in dyn()"
	}
	if found := syntaxError.FindStringSubmatch(message); found != nil {
		return "unexpected " + strings.ReplaceAll(found[1], "'<EOF>'", "end of the expression")
	}
	if syntax, ok := strings.CutPrefix(message, "Syntax error: "); ok {
		return strings.ReplaceAll(syntax, "'<EOF>'", "the end of the expression")
	}
	if strings.Contains(message, "recursion limit") || strings.Contains(message, "recursion depth") {
		return fmt.Sprintf("it nests deeper than %d levels", maxNesting)
	}
	return shortenMessage(message)
}

func (e *Environment) variableNames() string {
	names := make([]string, 0, len(e.variables))
	for _, variable := range e.variables {
		names = append(names, variable.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// fieldNames lists the fields of the variables that are declared with their fields.
func (e *Environment) fieldNames() string {
	var lists []string
	for _, variable := range e.variables {
		if variable.Fields == nil {
			continue
		}
		fields := strings.Join(slices.Sorted(maps.Keys(variable.Fields)), ", ")
		if fields == "" {
			fields = "none"
		}
		lists = append(lists, fmt.Sprintf("the fields of %s are %s", variable.Name, fields))
	}
	return strings.Join(lists, ", ")
}

// operator returns an operator as it is written, of the name that CEL has for it.
func operator(function string) string {
	return strings.ReplaceAll(function, "_", "")
}

// evaluationError says in plain words why an expression has no value.
func (x *Expression) evaluationError(value ref.Val) error {
	failure, ok := value.(*types.Err)
	if !ok {
		return errors.New("has no value")
	}
	message := failure.Error()
	if key, ok := strings.CutPrefix(message, "no such key: "); ok {
		return x.absenceError(key)
	}
	if name, ok := strings.CutPrefix(message, "no such attribute(s): "); ok {
		return fmt.Errorf("%s has no value here", aliasedVariable(name))
	}
	if function, ok := strings.CutPrefix(message, "no such overload: "); ok {
		return fmt.Errorf("%s cannot be applied to values of these types", operator(function))
	}
	if found := conversion.FindStringSubmatch(message); found != nil {
		return fmt.Errorf("cannot make a value of type %s of this one of type %s", found[2], found[1])
	}
	switch message {
	case "no such overload":
		return errors.New("has values of the wrong type: an operator or a function cannot be applied to them")
	case "division by zero", "modulus by zero":
		return errors.New("divides by zero")
	case "integer overflow", "unsigned integer overflow":
		return errors.New("makes a number that is too large for 64 bits")
	case "optional.none() dereference":
		return errors.New("asks for the value of something absent: use orValue()")
	}
	return errors.New(shortenMessage(aliasedVariable(message)))
}

// shortenMessage keeps a message of CEL readable that repeats what it was given.
func shortenMessage(message string) string {
	const long = 300
	if len(message) <= long {
		return message
	}
	return strings.ToValidUTF8(message[:long], "") + "…"
}

// absenceError names what is absent by how the expression reads it.
func (x *Expression) absenceError(key string) error {
	path := ""
	ast.PreOrderVisit(x.tree.Expr(), ast.NewExprVisitor(func(read ast.Expr) {
		if written, ok := selection(read, key); ok && path == "" {
			path = written
		}
	}))
	if path == "" {
		key = shorten(key)
		return fmt.Errorf("reads %q, which is absent: ask for it with has(), or read it with a question mark before its name", key)
	}
	return fmt.Errorf("%s is absent: ask for it with has(%s), or read it with a question mark before its name", path, path)
}

// selection returns an expression that reads a key as it is written, if it is no more than a chain of names.
func selection(read ast.Expr, key string) (string, bool) {
	if read.Kind() != ast.SelectKind || read.AsSelect().FieldName() != key {
		return "", false
	}
	return chain(read)
}

func chain(read ast.Expr) (string, bool) {
	switch read.Kind() {
	case ast.IdentKind:
		return aliasedVariable(read.AsIdent()), true
	case ast.SelectKind:
		operand, ok := chain(read.AsSelect().Operand())
		return operand + "." + read.AsSelect().FieldName(), ok
	default:
		return "", false
	}
}
