package expressions

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apiserver/pkg/cel/library"
)

// base is what all environments share.
type base struct {
	env *cel.Env
	// functions finds the implementation of a function by its overload's id or its own name.
	functions interpreter.Dispatcher
}

// baseEnvironment is the language of the match conditions of Kubernetes 1.37, without what asks an authorizer. It is built
// here and not taken from k8s.io/apiserver, whose environment tracks the cost of every evaluation in a way that is slower
// than most expressions, and learns of a large value only once it has been made.
var baseEnvironment = sync.OnceValues(func() (*base, error) {
	env, err := cel.NewEnv(
		cel.HomogeneousAggregateLiterals(),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		cel.ParserRecursionLimit(maxNesting),
		cel.ParserErrorRecoveryLimit(4),
		cel.ParserExpressionSizeLimit(maxSourceLength),
		cel.CostEstimatorOptions(checker.PresenceTestHasCost(false)),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
			cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(),
		),
		library.URLs(),
		library.Regex(),
		library.Quantity(),
		library.IP(),
		library.CIDR(),
		library.Format(),
		library.SemverLib(library.SemverVersion(1)),
		library.Lists(library.ListsVersion(1)),
		ext.Strings(ext.StringsVersion(2)),
		ext.Sets(),
		ext.TwoVarComprehensions(),
		ext.Lists(ext.ListsVersion(3)),
	)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	// CEL notes in this error, which all evaluations share, where it came from, once. Here that is done before they run side
	// by side.
	types.LabelErrNode(1, types.NoSuchOverloadErr())
	dispatcher := interpreter.NewDispatcher()
	for _, name := range slices.Sorted(maps.Keys(env.Functions())) {
		var bindings []*functions.Overload
		if bindings, err = env.Functions()[name].Bindings(); err != nil {
			return nil, fmt.Errorf("set up CEL's function %s: %w", name, err)
		}
		if err = dispatcher.Add(bindings...); err != nil {
			return nil, fmt.Errorf("set up CEL's function %s: %w", name, err)
		}
	}
	return &base{env: env, functions: dispatcher}, nil
})

// maxNesting is how deep an expression may nest.
const maxNesting = 100

// CEL reserves the name of one variable that we have. It sees another in its place, which is as long, so that columns stay
// true.
const (
	reservedName  = "namespace"
	reservedAlias = "nam_space"
)

func variableAlias(name string) string {
	if name == reservedName {
		return reservedAlias
	}
	return name
}

func aliasedVariable(alias string) string {
	if alias == reservedAlias {
		return reservedName
	}
	return alias
}

// aliasVariables writes variables with the names that CEL sees.
func aliasVariables(source string, variables []Variable) string {
	var written strings.Builder
	selected := false
	for rest := source; rest != ""; {
		token := nextToken(rest)
		text := rest[:token.length]
		rest = rest[token.length:]
		switch {
		case token.kind != word || selected:
		case declares(variables, aliasedVariable(text)) && aliasedVariable(text) != text:
			// Who writes the alias reads a word that is reserved, and is told so.
			text = aliasedVariable(text)
		case declares(variables, text):
			text = variableAlias(text)
		}
		written.WriteString(text)
		// In x.?y the question mark belongs to the dot.
		if token.kind != blank && (text != "?" || !selected) {
			selected = text == "."
		}
	}
	return written.String()
}

func declares(variables []Variable, name string) bool {
	return slices.ContainsFunc(variables, func(variable Variable) bool { return variable.Name == name })
}

// unalias writes a message of CEL with the names that people see.
func (e *Environment) unalias(message string) string {
	for _, variable := range e.variables {
		message = strings.ReplaceAll(message, variableAlias(variable.Name), variable.Name)
	}
	return message
}
