package injectors

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// mtailKind is the kind of a token. Operators, punctuation and keywords are their own kinds, spelled as in the program.
type mtailKind string

const (
	mtailEnd        mtailKind = "the end of the program"
	mtailNewline    mtailKind = "the end of the line"
	mtailIdentifier mtailKind = "a name"
	mtailBuiltin    mtailKind = "a function"
	mtailString     mtailKind = "a string"
	mtailInteger    mtailKind = "an integer"
	mtailFloat      mtailKind = "a number"
	mtailDuration   mtailKind = "a duration"
	mtailCapture    mtailKind = "a capture group"
	mtailDecorator  mtailKind = "a decorator"
)

// mtailToken is a token of a program.
type mtailToken struct {
	kind mtailKind
	// text is the token without its quotes, $ or @.
	text string
	line int
	// afterComment tells that a comment stands before the token. mtail takes the end of the comment's line for a part of it.
	afterComment bool
}

func (t mtailToken) String() string {
	switch t.kind {
	case mtailEnd, mtailNewline:
		return string(t.kind)
	case mtailCapture:
		return strconv.Quote("$" + t.text)
	case mtailDecorator:
		return strconv.Quote("@" + t.text)
	}
	return strconv.Quote(t.text)
}

// mtailLexer takes a program apart. Whether a slash begins a regular expression is known to the parser alone, which then calls
// regexp.
type mtailLexer struct {
	rest []rune
	line int
}

// mtailOperators are the operators and punctuation, the longer ones first.
func mtailOperators() []string {
	return []string{
		"--", "++", "+=", "**", "==", "=~", "<=", "<<", ">=", ">>", "!=", "!~", "&&", "||",
		"{", "}", "(", ")", "[", "]", ",", "-", "+", "*", "=", "<", ">", "/", "%", "&", "|", "^", "~",
	}
}

func isMtailKeyword(word string) bool {
	switch word {
	case "after", "as", "buckets", "by", "const", "counter", "def", "del", "else", "gauge", "hidden", "histogram", "limit",
		"next", "otherwise", "stop", "text", "timer":
		return true
	}
	return false
}

// mtailArity returns how many arguments a function takes.
func mtailArity(function string) (arguments int, ok bool) {
	switch function {
	case "timestamp", "getfilename":
		return 0, true
	case "bool", "float", "int", "len", "settime", "string", "tolower":
		return 1, true
	case "strptime", "strtol":
		return 2, true
	case "subst":
		return 3, true
	}
	return 0, false
}

// next returns the next token, or an error that ends the program.
func (l *mtailLexer) next() (mtailToken, error) {
	afterComment := l.skipSpace()
	token := mtailToken{line: l.line, afterComment: afterComment}
	var err error
	switch first := l.peek(0); {
	case first == noRune:
		token.kind = mtailEnd
	case first == '\n':
		token.kind = mtailNewline
		l.rest = l.rest[1:]
		l.line++
	case first == '"':
		l.rest = l.rest[1:]
		token.kind = mtailString
		token.text, err = l.quoted('"', "string")
	case first == '$' || first == '@':
		l.rest = l.rest[1:]
		token.kind = map[rune]mtailKind{'$': mtailCapture, '@': mtailDecorator}[first]
		token.text = l.while(isMtailWord)
	case unicode.IsLetter(first):
		token.text = l.while(isMtailWord)
		token.kind = mtailIdentifier
		if isMtailKeyword(token.text) {
			token.kind = mtailKind(token.text)
		} else if _, ok := mtailArity(token.text); ok {
			token.kind = mtailBuiltin
		}
	case unicode.IsDigit(first) || first == '.' || first == '-' && unicode.IsDigit(l.peek(1)):
		token.kind, token.text, err = l.number()
	default:
		token.text, err = l.operator()
		token.kind = mtailKind(token.text)
	}
	return token, err
}

// noRune is what peek returns behind the program's end.
const noRune rune = -1

func (l *mtailLexer) peek(n int) rune {
	if n < len(l.rest) {
		return l.rest[n]
	}
	return noRune
}

// while takes the runes that satisfy the predicate.
func (l *mtailLexer) while(satisfies func(rune) bool) string {
	n := 0
	for n < len(l.rest) && satisfies(l.rest[n]) {
		n++
	}
	taken := string(l.rest[:n])
	l.rest = l.rest[n:]
	return taken
}

func isMtailWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }

// skipSpace skips space and comments. A comment ends with the newline that ends its line.
func (l *mtailLexer) skipSpace() (comment bool) {
	for {
		l.while(func(r rune) bool { return r != '\n' && unicode.IsSpace(r) })
		if l.peek(0) != '#' {
			return comment
		}
		comment = true
		l.while(func(r rune) bool { return r != '\n' })
		if l.peek(0) == '\n' {
			l.rest = l.rest[1:]
			l.line++
		}
	}
}

// quoted takes text up to the delimiter on the same line. A backslash before the delimiter is dropped, every other one kept.
func (l *mtailLexer) quoted(delimiter rune, what string) (string, error) {
	var text strings.Builder
	for {
		switch r := l.peek(0); {
		case r == noRune || r == '\n' || r == '\\' && (l.peek(1) == noRune || l.peek(1) == '\n'):
			return "", fmt.Errorf("the %s %c%s has no closing %c on its line", what, delimiter, text.String(), delimiter)
		case r == delimiter:
			l.rest = l.rest[1:]
			return text.String(), nil
		case r == '\\':
			if l.peek(1) != delimiter {
				text.WriteRune(r)
			}
			text.WriteRune(l.peek(1))
			l.rest = l.rest[2:]
		default:
			text.WriteRune(r)
			l.rest = l.rest[1:]
		}
	}
}

// number takes an integer, a floating point number, or a duration: a number with a unit, and more of them.
func (l *mtailLexer) number() (kind mtailKind, text string, err error) {
	kind = mtailInteger
	take := func() { text += string(l.rest[:1]); l.rest = l.rest[1:] }
	if l.peek(0) == '-' {
		take()
	}
	text += l.while(unicode.IsDigit)
	if l.peek(0) == '.' {
		kind = mtailFloat
		take()
		text += l.while(unicode.IsDigit)
	}
	if l.peek(0) == 'e' || l.peek(0) == 'E' {
		kind = mtailFloat
		take()
		if l.peek(0) == '+' || l.peek(0) == '-' {
			take()
		}
		text += l.while(unicode.IsDigit)
	}
	if strings.ContainsRune("smhd", l.peek(0)) {
		kind = mtailDuration
		text += l.while(func(r rune) bool { return unicode.IsDigit(r) || strings.ContainsRune(".-+smhd", r) })
	}
	switch kind {
	case mtailInteger:
		_, err = strconv.ParseInt(text, 10, 64)
	case mtailFloat:
		_, err = strconv.ParseFloat(text, 64)
	case mtailDuration:
		_, err = time.ParseDuration(text)
	}
	if err != nil {
		return kind, text, fmt.Errorf("%q is not %s that mtail reads; the units of a duration are h, m and s", text, kind)
	}
	return kind, text, nil
}

func (l *mtailLexer) operator() (string, error) {
	for _, operator := range mtailOperators() {
		if len(l.rest) >= len(operator) && string(l.rest[:len(operator)]) == operator {
			l.rest = l.rest[len(operator):]
			return operator, nil
		}
	}
	return "", fmt.Errorf("%q has no meaning here", l.peek(0))
}
