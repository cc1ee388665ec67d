package injectors

import "errors"

// errUnsupportedText says that a text holds what no configuration wants and no reader sees.
var errUnsupportedText = errors.New("the value holds characters that cannot be seen or are not text " +
	"(NUL or another control character, invalid UTF-8, or one that changes the direction of text); write it without them")

// CheckText refuses a text that would look to a reader like something else than it is.
func CheckText(text string) error {
	for _, r := range text {
		switch {
		case r == '\n', r == '\t', r == '\r':
		case r < ' ', r == 0x7f, r >= 0x80 && r <= 0x9f, // C0 and C1 controls
			r == '\uFFFD',                               // what decoding makes of invalid UTF-8
			r == '\u061C', r == '\u200E', r == '\u200F', // marks of direction
			r >= '\u202A' && r <= '\u202E', r >= '\u2066' && r <= '\u2069': // embeddings, overrides, isolates
			return errUnsupportedText
		}
	}
	return nil
}
