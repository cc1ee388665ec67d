package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The kinds of text that cannot be used and that a caller may want to know.
var (
	// ErrUnrendered is what makes of a document the template of a document.
	ErrUnrendered = errors.New(`this is a template of Helm, by its "{{", and not YAML yet; render it first`)
	// ErrNoObject is what is YAML or JSON, but not a Kubernetes object.
	ErrNoObject = errors.New("this is no Kubernetes object: write a mapping with apiVersion and kind")
)

// The bounds of a file, beside MaxFileBytes. What exceeds them is no manifest, and would take gigabytes of memory.
const (
	maxDocuments = 20_000
	// maxValues bounds the keys and values of a document, counted by what separates them.
	maxValues = 1_000_000
	// maxErrors bounds how many duplicate keys of one document are told.
	maxErrors = 100
)

// checkText says why a file cannot be text that Kubernetes reads, and where: YAML and JSON are UTF-8 there. (YAML may be UTF-16 by its
// specification, but kubectl cuts documents apart at the byte for a line break.)
func checkText(data []byte) (Position, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return Position{1, 1}, errors.New("the file is UTF-16; save it as UTF-8")
	case bytes.HasPrefix(data, []byte("\x00\x00\xfe\xff")):
		return Position{1, 1}, errors.New("the file is UTF-32; save it as UTF-8")
	}
	if nul := bytes.IndexByte(data, 0); nul >= 0 {
		if len(data) > 3 && nul < 2 && data[nul+2] == 0 { // a letter and NUL, in turn
			return Position{1, 1}, errors.New("the file is UTF-16; save it as UTF-8")
		}
		return positionAt(data, nul), errors.New("the file is binary: it has a byte 0 here")
	}
	if utf8.Valid(data) {
		return Position{}, nil
	}
	at := 0
	for at < len(data) {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return positionAt(data, at), fmt.Errorf("the byte 0x%02x here is not UTF-8; save the file as UTF-8", data[at])
}

// unrendered returns where the first action of a Go template stands that is not inside of a string or a comment: on a line that it begins,
// or as the value of a key or an item. ok is false if there is none.
func unrendered(text []byte) (at Position, ok bool) {
	line := 1
	for start := 0; start < len(text); line++ {
		end := lineEnd(text, start)
		content := text[start:end]
		trimmed := bytes.TrimLeft(content, " \t-")
		offset := -1
		switch {
		case bytes.HasPrefix(trimmed, []byte("#")):
		case bytes.HasPrefix(trimmed, []byte("{{")):
			offset = len(content) - len(trimmed)
		default:
			if i := bytes.Index(content, []byte(": {{")); i >= 0 {
				offset = i + len(": ")
			}
		}
		if offset >= 0 {
			return Position{line, 1 + utf8.RuneCount(content[:offset])}, true
		}
		start = end
	}
	return Position{}, false
}

// controlCharacter returns where the first character is that YAML does not allow.
func controlCharacter(text []byte) (at Position, found rune) {
	for i, r := range string(text) {
		switch {
		case r == '\t', r == '\n', r == '\r', r == 0x85, r >= 0xa0 && r != 0xfffe && r != 0xffff, r >= ' ' && r < 0x7f:
		default:
			return positionAt(text, i), r
		}
	}
	return Position{}, 0
}

// values is at least how many keys and values a document has, about.
func values(text []byte) int {
	n := 0
	for _, c := range text {
		switch c {
		case '\n', ',', '[', '{':
			n++
		}
	}
	return n
}

// isNothing tells whether a document has but comments and blanks below the line that starts it.
func isNothing(text []byte) bool {
	for at := 0; at < len(text); {
		end := lineEnd(text, at)
		line := text[at:end]
		if isDocumentStart(line) {
			line = line[len("---"):]
		}
		if !isBlankOrComment(line) {
			return false
		}
		at = end
	}
	return true
}
