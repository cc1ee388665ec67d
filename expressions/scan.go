package expressions

import (
	"strings"
	"unicode/utf8"
)

// tokenKind is what a token of an expression is.
type tokenKind int

const (
	// other is an operator, a bracket, a number: what neither begins nor ends a string.
	other tokenKind = iota
	// blank is white space or a comment.
	blank
	word
	text
	// open is a string that does not end.
	open
)

type token struct {
	kind   tokenKind
	length int
}

// nextToken returns the token at the beginning of a part of an expression, which must not be empty. It knows of CEL what
// is needed to tell code from the text of strings and comments.
func nextToken(source string) token {
	switch first := source[0]; {
	case strings.IndexByte(" \t\r\n\f", first) >= 0:
		return token{blank, 1}
	case strings.HasPrefix(source, "//"):
		if end := strings.IndexByte(source, '\n'); end >= 0 {
			return token{blank, end + 1}
		}
		return token{blank, len(source)}
	case first == '"' || first == '\'' || first == '`':
		return stringToken(source, 0, false)
	case isLetter(first):
		return wordToken(source)
	default:
		_, length := utf8.DecodeRuneInString(source)
		return token{other, length}
	}
}

func wordToken(source string) token {
	end := 0
	for end < len(source) && (isLetter(source[end]) || source[end] >= '0' && source[end] <= '9') {
		end++
	}
	prefix := strings.ToLower(source[:end])
	isPrefix := prefix == "r" || prefix == "b" || prefix == "br"
	if isPrefix && end < len(source) && (source[end] == '"' || source[end] == '\'') {
		return stringToken(source, end, strings.Contains(prefix, "r"))
	}
	return token{word, end}
}

// stringToken returns the string whose quote is at an offset. Only one of three quotes goes on over the end of a line.
func stringToken(source string, offset int, raw bool) token {
	quote := source[offset : offset+1]
	if triple := strings.Repeat(quote, 3); quote != "`" && strings.HasPrefix(source[offset:], triple) {
		quote = triple
	}
	for i := offset + len(quote); i < len(source); i++ {
		switch {
		case strings.HasPrefix(source[i:], quote):
			return token{text, i + len(quote)}
		case source[i] == '\\' && !raw && quote != "`":
			i++
		case source[i] == '\n' && len(quote) == 1:
			return token{open, i}
		}
	}
	return token{open, len(source)}
}

func isLetter(b byte) bool {
	return b == '_' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// expressionEnd returns where the } is that ends the expression at the beginning of a text, or false if there is none.
func expressionEnd(source string) (int, bool) {
	depth := 0
	for i := 0; i < len(source); {
		token := nextToken(source[i:])
		switch {
		case token.kind == open:
			return 0, false
		case source[i] == '{' && token.kind == other:
			depth++
		case source[i] == '}' && token.kind == other && depth == 0:
			return i, true
		case source[i] == '}' && token.kind == other:
			depth--
		}
		i += token.length
	}
	return 0, false
}
