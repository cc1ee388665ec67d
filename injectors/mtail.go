package injectors

import (
	"cmp"
	"fmt"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of mtail's compiler, --max_regexp_length, and one of our own that keeps recursion shallow.
const (
	maxMtailRegexp  = 1024
	maxMtailNesting = 500
)

// mtailError is what mtail's compiler would refuse, and the line where.
type mtailError struct {
	line    int
	message string
}

func (e mtailError) String() string { return fmt.Sprintf("line %d: %s", e.line, e.message) }

// checkMtail says what mtail's compiler would refuse in a program: mtail itself only logs it and serves no metric. It knows the
// grammar and the scopes of mtail 3.0, not its types: what it accepts may still mix numbers and strings, but what mtail accepts
// it accepts. A syntax error ends it. See https://google.github.io/mtail/Language.
func checkMtail(program string) []mtailError {
	p := &mtailParser{lexer: mtailLexer{rest: []rune(program), line: 1}}
	p.advance()
	p.openScope()
	p.statements(mtailEnd)
	p.closeScope()
	slices.SortFunc(p.errors, func(a, b mtailError) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.message, b.message))
	})
	return p.errors
}

// mtailParser reads a program by recursive descent, one token ahead, and looks names up as it goes: all are declared before
// they are used.
type mtailParser struct {
	lexer   mtailLexer
	token   mtailToken
	scope   *mtailScope
	nesting int
	// decorators are those whose definitions enclose what is read.
	decorators []*mtailSymbol
	failed     bool
	errors     []mtailError
}

// mtailSymbolKind is the kind of a symbol, as messages call it.
type mtailSymbolKind string

const (
	mtailMetric            mtailSymbolKind = "metric"
	mtailPattern           mtailSymbolKind = "pattern constant"
	mtailCaptureGroup      mtailSymbolKind = "capture group"
	mtailDecoratorFunction mtailSymbolKind = "decorator"
)

// mtailSymbol is what a name stands for.
type mtailSymbol struct {
	kind mtailSymbolKind
	name string
	line int
	used bool

	// keys is how many a metric is declared by, text whether it holds text.
	keys int
	text bool

	// pattern is the regular expression of a pattern constant.
	pattern string

	// visible are the symbols at the next statement of a decorator, which what it decorates sees. complete tells that its
	// definition has been read.
	visible  map[string]*mtailSymbol
	complete bool
}

type mtailScope struct {
	parent  *mtailScope
	symbols map[string]*mtailSymbol
}

// mtailForm is what an expression is, so far as it matters where it may stand.
type mtailForm int

const (
	mtailValue     mtailForm = iota // a literal, capture group or call
	mtailName                       // a metric, perhaps with keys
	mtailConstant                   // a pattern constant
	mtailOperation                  // an operation, which a condition wants
)

// mtailExpression is an expression that was read.
type mtailExpression struct {
	form   mtailForm
	symbol *mtailSymbol
	keys   int
	line   int
	// primary and unary tell how much the grammar takes it for: x is both, x++ and ~x unary, x + 1 neither. postfix: x, x++.
	primary, unary, postfix bool
	// literal is set for a string literal.
	literal *string
}

// Tokens

func (p *mtailParser) advance() {
	if p.failed {
		return
	}
	token, err := p.lexer.next()
	p.token = token
	if err != nil {
		p.fail(token.line, "%s", err)
	}
}

// fail reports a syntax error and ends the program, so that everything unwinds.
func (p *mtailParser) fail(line int, format string, args ...any) {
	if !p.failed {
		p.report(line, format, args...)
	}
	p.failed = true
	p.token = mtailToken{kind: mtailEnd, line: line}
}

func (p *mtailParser) report(line int, format string, args ...any) {
	p.errors = append(p.errors, mtailError{line, fmt.Sprintf(format, args...)})
}

func (p *mtailParser) at(kinds ...mtailKind) bool { return slices.Contains(kinds, p.token.kind) }

// take advances over a token of this kind.
func (p *mtailParser) take(kind mtailKind) bool {
	if !p.at(kind) {
		return false
	}
	p.advance()
	return true
}

// expect advances over a token of this kind, or fails, and returns its text.
func (p *mtailParser) expect(kind mtailKind, where string) string {
	token := p.token
	if !p.take(kind) {
		p.fail(token.line, "%s where %s is expected %s", token, describeMtail(kind), where)
	}
	return token.text
}

func describeMtail(kind mtailKind) string {
	if strings.Contains(string(kind), " ") {
		return string(kind)
	}
	return strconv.Quote(string(kind))
}

// nest bounds recursion.
func (p *mtailParser) nest() (leave func()) {
	p.nesting++
	if p.nesting > maxMtailNesting {
		p.fail(p.token.line, "more than %d blocks and parentheses in each other", maxMtailNesting)
	}
	return func() { p.nesting-- }
}

// Scopes

func (p *mtailParser) openScope() {
	p.scope = &mtailScope{parent: p.scope, symbols: map[string]*mtailSymbol{}}
}

// closeScope ends a scope and reports what is declared in it and never used, which mtail refuses.
func (p *mtailParser) closeScope() {
	if !p.failed {
		for _, symbol := range p.scope.symbols {
			if !symbol.used && symbol.kind != mtailCaptureGroup {
				p.report(symbol.line, "the %s %s is never used", symbol.kind, symbol.name)
			}
		}
	}
	p.scope = p.scope.parent
}

// declare puts a symbol into the current scope.
func (p *mtailParser) declare(symbol *mtailSymbol) {
	other, taken := p.scope.symbols[symbol.name]
	switch {
	case !taken:
		p.scope.symbols[symbol.name] = symbol
	case symbol.kind != mtailCaptureGroup:
		p.report(symbol.line, "the %s %s is declared in line %d already", symbol.kind, symbol.name, other.line)
	case symbol.name == "0":
		p.report(symbol.line, "a second pattern in the same condition: mtail takes one, nest the other in a block")
	}
}

// lookUp finds a symbol in this scope and those around it, and marks it as used. Nil: there is none.
func (p *mtailParser) lookUp(name string, kind mtailSymbolKind) *mtailSymbol {
	for scope := p.scope; scope != nil; scope = scope.parent {
		if symbol := scope.symbols[name]; symbol != nil && symbol.kind == kind {
			symbol.used = true
			return symbol
		}
	}
	return nil
}

// visible returns all symbols of this scope and those around it.
func (p *mtailParser) visible() map[string]*mtailSymbol {
	all := map[string]*mtailSymbol{}
	for scope := p.scope; scope != nil; scope = scope.parent {
		for name, symbol := range scope.symbols {
			if _, shadowed := all[name]; !shadowed {
				all[name] = symbol
			}
		}
	}
	return all
}

// Statements

func (p *mtailParser) statements(end mtailKind) {
	for !p.at(end, mtailEnd) {
		p.statement()
	}
}

// block reads statements in braces, in a scope of their own.
func (p *mtailParser) block() {
	defer p.nest()()
	line := p.token.line
	p.expect("{", "to begin a block")
	p.openScope()
	p.statements("}")
	if p.at(mtailEnd) {
		p.fail(line, "the block that begins here has no closing }")
	}
	p.take("}")
	p.closeScope()
}

func (p *mtailParser) statement() {
	line := p.token.line
	switch p.token.kind {
	case mtailNewline, "stop":
		p.advance()
	case "next":
		p.advance()
		p.nextStatement(line)
	case "const":
		p.advance()
		p.constant()
	case "hidden", "counter", "gauge", "timer", "text", "histogram":
		p.metric()
	case "def":
		p.advance()
		p.definition()
	case mtailDecorator:
		p.decoration()
	case "del":
		p.advance()
		p.deletion()
	case "otherwise":
		p.advance()
		p.block()
		p.alternative()
	case "else":
		p.fail(line, "else must follow the } of its block on the same line")
	default:
		p.condition()
	}
}

// nextStatement stands in a decorator's definition for what it decorates.
func (p *mtailParser) nextStatement(line int) {
	if len(p.decorators) == 0 {
		p.report(line, "next stands outside of a decorator's def")
		return
	}
	decorator := p.decorators[len(p.decorators)-1]
	if len(decorator.visible) > 0 {
		p.report(line, "a second next in the decorator %s", decorator.name)
		return
	}
	decorator.visible = p.visible()
}

// constant reads const NAME /pattern/.
func (p *mtailParser) constant() {
	symbol := &mtailSymbol{kind: mtailPattern, line: p.token.line}
	symbol.name = p.expect(mtailIdentifier, "after const")
	p.declare(symbol)
	p.take(mtailNewline)
	symbol.pattern, _ = p.pattern()
}

// metric reads a declaration: [hidden] counter NAME [by KEY, …] [as "NAME"] [buckets N, …] [limit N].
func (p *mtailParser) metric() {
	p.take("hidden")
	kind := p.token
	if !p.at("counter", "gauge", "timer", "text", "histogram") {
		p.fail(kind.line, "%s where counter, gauge, timer, text or histogram is expected after hidden", kind)
	}
	p.advance()
	symbol := &mtailSymbol{kind: mtailMetric, line: p.token.line, text: kind.kind == "text"}
	symbol.name = p.nameOrString("to name the " + kind.text)
	var buckets []float64
	for p.at("by", "as", "buckets", "limit") {
		attribute := p.token.kind
		p.advance()
		switch attribute {
		case "by":
			symbol.keys = p.keys()
		case "as":
			p.expect(mtailString, "after as")
		case "buckets":
			buckets = p.buckets()
		case "limit":
			p.expect(mtailInteger, "after limit")
		}
	}
	if p.failed {
		return
	}
	p.declare(symbol)
	p.checkBuckets(symbol, kind.kind, buckets)
}

func (p *mtailParser) nameOrString(where string) string {
	if p.at(mtailString) {
		return p.expect(mtailString, where)
	}
	return p.expect(mtailIdentifier, where)
}

func (p *mtailParser) keys() (count int) {
	for {
		p.nameOrString("as a key after by")
		count++
		if !p.take(",") {
			return count
		}
	}
}

func (p *mtailParser) buckets() (bounds []float64) {
	for {
		if !p.at(mtailInteger, mtailFloat) {
			p.fail(p.token.line, "%s where a number is expected in buckets", p.token)
		}
		bound, _ := strconv.ParseFloat(p.token.text, 64)
		bounds = append(bounds, bound)
		p.advance()
		if !p.take(",") {
			return bounds
		}
	}
}

func (p *mtailParser) checkBuckets(symbol *mtailSymbol, kind mtailKind, buckets []float64) {
	switch {
	case kind != "histogram" && len(buckets) > 0:
		p.report(symbol.line, "buckets are for histograms, and %s is a %s", symbol.name, kind)
	case kind == "histogram" && len(buckets) < 2:
		p.report(symbol.line, "the histogram %s wants buckets with two boundaries or more", symbol.name)
	case !isRising(buckets):
		p.report(symbol.line, "the buckets of %s must rise", symbol.name)
	}
}

// isRising tells whether each number is greater than the one before.
func isRising(numbers []float64) bool {
	for i := 1; i < len(numbers); i++ {
		if numbers[i] <= numbers[i-1] {
			return false
		}
	}
	return true
}

// definition reads def NAME { … next … }.
func (p *mtailParser) definition() {
	symbol := &mtailSymbol{kind: mtailDecoratorFunction, line: p.token.line}
	symbol.name = p.expect(mtailIdentifier, "after def")
	p.declare(symbol)
	p.decorators = append(p.decorators, symbol)
	p.block()
	p.decorators = p.decorators[:len(p.decorators)-1]
	symbol.complete = true
	if len(symbol.visible) == 0 && !p.failed {
		p.report(symbol.line, "the decorator %s has no next, in the place of what it decorates", symbol.name)
	}
}

// decoration reads @NAME { … }.
func (p *mtailParser) decoration() {
	token := p.token
	p.advance()
	p.openScope()
	switch decorator := p.lookUp(token.text, mtailDecoratorFunction); {
	case decorator == nil:
		p.report(token.line, "the decorator @%s is not defined: write def %s { … next … } before it", token.text, token.text)
	case !decorator.complete:
		p.report(token.line, "the decorator @%s stands within its own definition", token.text)
	default:
		for name, symbol := range decorator.visible {
			p.scope.symbols[name] = symbol
		}
	}
	p.block()
	p.scope = p.scope.parent
}

// deletion reads del METRIC[KEY, …] [after DURATION].
func (p *mtailParser) deletion() {
	target := p.postfixExpression()
	if p.take("after") {
		p.expect(mtailDuration, "after after")
	}
	if !p.failed && (target.form != mtailName || target.keys == 0) {
		p.report(target.line, "del wants a metric with its keys, such as del requests[$user]")
	}
}

// condition reads what is either CONDITION { … } [else { … }], an assignment or an expression that ends its line. Capture groups
// of a condition are visible in its blocks.
func (p *mtailParser) condition() {
	line := p.token.line
	p.openScope()
	var expression mtailExpression
	if p.at("/") {
		p.takePattern()
		expression.form = mtailOperation
		if p.at("&&", "||") {
			p.advance()
			p.take(mtailNewline)
			p.logicalExpression()
		}
	} else {
		expression = p.logicalExpression()
	}
	if p.at("{") {
		if expression.form == mtailValue || expression.form == mtailName {
			p.report(line, "this is no condition: compare it with something, or match it by =~")
		}
		p.block()
		p.alternative()
		p.closeScope()
		return
	}
	p.spillScope()
	p.expressionStatement(line, expression)
}

// alternative reads else { … }.
func (p *mtailParser) alternative() {
	if p.take("else") {
		p.block()
	}
}

// spillScope ends a scope whose symbols belong to the one around it.
func (p *mtailParser) spillScope() {
	inner := p.scope
	p.scope = inner.parent
	for _, symbol := range inner.symbols {
		p.declare(symbol)
	}
}

func (p *mtailParser) expressionStatement(line int, expression mtailExpression) {
	if expression.unary && p.at("=", "+=") {
		p.advance()
		p.take(mtailNewline)
		p.checkAssignable(expression)
		p.logicalExpression()
	} else if !expression.postfix && !p.failed {
		p.fail(line, "%s where a block in braces is expected after a condition", p.token)
	}
	if p.at(mtailNewline) || p.failed {
		p.advance()
		return
	}
	if p.token.afterComment {
		p.fail(line, "a comment behind a statement swallows the end of its line: put it on a line of its own")
	}
	p.fail(p.token.line, "%s where the end of the line is expected after a statement", p.token)
}

func (p *mtailParser) checkAssignable(expression mtailExpression) {
	if expression.form != mtailName && !p.failed {
		p.report(expression.line, "only a metric can be assigned to")
	}
}

// Expressions

// logicalExpression reads operands joined by && and ||. A pattern is no operand: it wants =~.
func (p *mtailParser) logicalExpression() mtailExpression {
	expression := p.logicalOperand()
	for p.at("&&", "||") {
		line := p.token.line
		p.advance()
		p.take(mtailNewline)
		p.logicalOperand()
		expression = mtailExpression{form: mtailOperation, line: line}
	}
	return expression
}

// logicalOperand reads an operation, or a match: OPERAND =~ PATTERN.
func (p *mtailParser) logicalOperand() mtailExpression {
	expression := p.binaryExpression(0)
	if !p.at("=~", "!~") {
		return expression
	}
	line := p.token.line
	if !expression.primary {
		p.fail(line, "the left side of %s is a name, a capture group or an expression in parentheses", p.token)
	}
	p.advance()
	p.take(mtailNewline)
	if p.at("/") {
		p.takePattern()
	} else if right := p.primaryExpression(); right.literal != nil {
		p.checkPattern(line, *right.literal)
	} else if right.form == mtailName && !p.failed {
		p.report(line, "the metric %s is no pattern: write /…/ or a const", right.symbol.name)
	}
	return mtailExpression{form: mtailOperation, line: line}
}

// mtailPrecedence are the binary operators, those that bind least first.
func mtailPrecedence() [][]mtailKind {
	return [][]mtailKind{
		{"&", "|", "^"},
		{"<", ">", "<=", ">=", "==", "!="},
		{"<<", ">>"},
		{"+", "-"},
		{"*", "/", "%", "**"},
	}
}

func (p *mtailParser) binaryExpression(level int) mtailExpression {
	levels := mtailPrecedence()
	if level == len(levels) {
		return p.unaryExpression()
	}
	expression := p.binaryExpression(level + 1)
	for p.at(levels[level]...) {
		line := p.token.line
		p.advance()
		p.take(mtailNewline)
		p.binaryExpression(level + 1)
		expression = mtailExpression{form: mtailOperation, line: line}
	}
	return expression
}

func (p *mtailParser) unaryExpression() mtailExpression {
	defer p.nest()()
	line := p.token.line
	if p.take("~") {
		p.unaryExpression()
		return mtailExpression{form: mtailOperation, line: line, unary: true}
	}
	return p.postfixExpression()
}

func (p *mtailParser) postfixExpression() mtailExpression {
	expression := p.primaryExpression()
	for p.at("++", "--") {
		p.checkAssignable(expression)
		if expression.form == mtailName && expression.symbol.text {
			p.report(p.token.line, "%s is text, which %s cannot count", expression.symbol.name, p.token.text)
		}
		expression = mtailExpression{form: mtailOperation, line: p.token.line, unary: true, postfix: true}
		p.advance()
	}
	return expression
}

func (p *mtailParser) primaryExpression() mtailExpression {
	token := p.token
	expression := mtailExpression{form: mtailValue, line: token.line, primary: true, unary: true, postfix: true}
	switch token.kind {
	case mtailIdentifier:
		return p.indexedExpression()
	case mtailBuiltin:
		p.call()
	case mtailCapture:
		p.advance()
		if p.lookUp(token.text, mtailCaptureGroup) == nil {
			p.report(token.line, "no pattern in scope has the capture group $%s", token.text)
		}
	case mtailString:
		p.advance()
		expression.literal = &token.text
	case mtailInteger, mtailFloat:
		p.advance()
	case "(":
		defer p.nest()()
		p.advance()
		inner := p.logicalExpression()
		expression.form, expression.symbol, expression.keys = inner.form, inner.symbol, inner.keys
		expression.literal = inner.literal
		p.expect(")", "to close the parenthesis")
	case "/":
		p.fail(token.line, "a pattern cannot stand here: write $0 =~ /…/, or begin the condition with it")
	default:
		p.fail(token.line, "%s where an expression is expected", token)
	}
	return expression
}

// indexedExpression reads NAME, NAME[KEY, …] or the name of a pattern constant, which matches the line.
func (p *mtailParser) indexedExpression() mtailExpression {
	token := p.token
	p.advance()
	expression := mtailExpression{form: mtailName, line: token.line, primary: true, unary: true, postfix: true}
	for p.take("[") {
		expression.keys += len(p.arguments("]"))
	}
	if p.failed {
		return expression
	}
	if expression.symbol = p.lookUp(token.text, mtailMetric); expression.symbol != nil {
		p.checkKeys(token.line, expression)
	} else if expression.symbol = p.lookUp(token.text, mtailPattern); expression.symbol != nil {
		expression.form = mtailConstant
		p.checkPattern(token.line, expression.symbol.pattern)
	} else {
		p.report(token.line, "%s is not declared: write counter %s, or const %s /…/, before it", token.text, token.text, token.text)
		expression.symbol = &mtailSymbol{kind: mtailMetric, name: token.text, keys: expression.keys}
	}
	return expression
}

func (p *mtailParser) checkKeys(line int, expression mtailExpression) {
	if metric := expression.symbol; metric.keys != expression.keys {
		p.report(line, "the metric %s is declared by %d keys, and used here with %d", metric.name, metric.keys, expression.keys)
	}
}

// arguments reads expressions and patterns up to the closing bracket.
func (p *mtailParser) arguments(end mtailKind) (arguments []mtailExpression) {
	for {
		if p.at("/") {
			p.takePattern()
			arguments = append(arguments, mtailExpression{form: mtailOperation})
		} else {
			arguments = append(arguments, p.logicalExpression())
		}
		if !p.take(",") {
			p.expect(end, "to close the list")
			return arguments
		}
	}
}

func (p *mtailParser) call() {
	function := p.token
	p.advance()
	p.expect("(", "after "+function.text)
	var arguments []mtailExpression
	if !p.take(")") {
		arguments = p.arguments(")")
	}
	if p.failed {
		return
	}
	if arity, _ := mtailArity(function.text); len(arguments) != arity {
		p.report(function.line, "%s takes %d arguments, not %d", function.text, arity, len(arguments))
		return
	}
	if function.text == "strptime" {
		p.checkTimeFormat(function.line, arguments[1].literal)
	}
}

// checkTimeFormat checks that a layout of Go's time package reads itself, as mtail does.
func (p *mtailParser) checkTimeFormat(line int, layout *string) {
	if layout == nil {
		p.report(line, "the second argument of strptime is a string such as \"2006-01-02 15:04:05\"")
		return
	}
	if _, err := time.Parse(*layout, strings.NewReplacer("_", "", "Z", "+").Replace(*layout)); err != nil {
		p.report(line, "%q is no time layout of Go, such as \"2006-01-02 15:04:05\"", *layout)
	}
}

// takePattern reads a pattern and makes its capture groups visible.
func (p *mtailParser) takePattern() {
	line := p.token.line
	if pattern, ok := p.pattern(); ok {
		p.checkPattern(line, pattern)
	}
}

// pattern reads /…/ or fragments that plus signs join, and returns the regular expression. ok is false where it is not known.
func (p *mtailParser) pattern() (pattern string, ok bool) {
	ok = true
	for first := true; ; first = false {
		if !first && p.at(mtailIdentifier) {
			symbol := p.fragment()
			ok = ok && symbol != nil
			if symbol != nil {
				pattern += symbol.pattern
			}
		} else {
			pattern += p.regexp()
		}
		if p.failed || !p.at("+") {
			return pattern, ok && !p.failed
		}
		p.advance()
		p.take(mtailNewline)
	}
}

// regexp reads a regular expression. The token is its opening slash, behind which the lexer stands.
func (p *mtailParser) regexp() string {
	if !p.at("/") {
		p.fail(p.token.line, "%s where a pattern in slashes is expected", p.token)
		return ""
	}
	text, err := p.lexer.quoted('/', "pattern")
	if err != nil {
		p.fail(p.token.line, "%s", err)
		return ""
	}
	p.advance()
	return text
}

func (p *mtailParser) fragment() *mtailSymbol {
	token := p.token
	p.advance()
	symbol := p.lookUp(token.text, mtailPattern)
	if metric := p.lookUp(token.text, mtailMetric); metric != nil {
		p.report(token.line, "the metric %s cannot be a part of a pattern", token.text)
		return nil
	}
	if symbol == nil {
		p.report(token.line, "%s is not declared: write const %s /…/ before it", token.text, token.text)
	} else if symbol.pattern == "" {
		p.report(token.line, "the pattern constant %s is not complete here", token.text)
		return nil
	}
	return symbol
}

// checkPattern compiles a regular expression and declares its capture groups in the current scope.
func (p *mtailParser) checkPattern(line int, pattern string) {
	if pattern == "" {
		return
	}
	if len(pattern) > maxMtailRegexp {
		p.report(line, "a pattern of %d bytes: mtail takes %d", len(pattern), maxMtailRegexp)
		return
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		p.report(line, "%s", err)
		return
	}
	for number, name := range parsed.CapNames() {
		p.declare(&mtailSymbol{kind: mtailCaptureGroup, name: strconv.Itoa(number), line: line})
		if name != "" {
			p.declare(&mtailSymbol{kind: mtailCaptureGroup, name: name, line: line})
		}
	}
}
