// Package manifest reads Kubernetes manifests as people keep them (YAML or JSON, several documents in a file, files in a
// directory), finds the Pod templates in them, and writes additions into their text so that comments, order and formatting
// stay.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxFileBytes bounds a file. A manifest is a few kilobytes, the largest CustomResourceDefinitions a megabyte; what is larger
// than this is something else.
const MaxFileBytes = 32 << 20

// Stdin is the path that stands for standard input, and stdinName what messages call it.
const (
	Stdin     = "-"
	stdinName = "stdin"
)

// Error is what is wrong with a file or with one of its documents, and where.
type Error struct {
	// File is the path as it was given, or "stdin".
	File string
	// Line counts from 1 in the file. It is zero where the file as a whole is meant, and so is Document.
	Line int
	// Document counts the documents of the file from 1.
	Document int
	Err      error
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, e.Line)
	}
	if e.Document > 0 {
		where = fmt.Sprintf("%s (document %d)", where, e.Document)
	}
	return where + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// File is a file of manifests. Its documents' Raw, one after another, are the file byte for byte.
type File struct {
	Name      string
	Documents []*Document
}

// ReadFiles reads paths: files, directories (those of their files that end in .yaml, .yml or .json, sorted by name, without
// subdirectories), and Stdin. What cannot be read is left out and in the errors, each of which is an *Error; what is wrong
// inside a file is in its documents.
func ReadFiles(paths []string, stdin io.Reader) ([]File, []error) {
	var files []File
	var errs []error
	for _, path := range paths {
		if path == Stdin {
			file, err := readFrom(stdinName, stdin)
			files, errs = collect(files, errs, file, err)
			continue
		}
		names, err := filesAt(path)
		if err != nil {
			errs = append(errs, err)
		}
		for _, name := range names {
			file, err := readFile(name)
			files, errs = collect(files, errs, file, err)
		}
	}
	return files, errs
}

func collect(files []File, errs []error, file File, err error) ([]File, []error) {
	if err != nil {
		return files, append(errs, err)
	}
	return append(files, file), errs
}

// filesAt returns the file at a path, or the manifests in the directory there.
func filesAt(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathError(path, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, pathError(path, err)
	}
	var names []string
	for _, entry := range entries {
		extensions := []string{".yaml", ".yml", ".json"}
		if !entry.IsDir() && slices.Contains(extensions, strings.ToLower(filepath.Ext(entry.Name()))) {
			names = append(names, filepath.Join(path, entry.Name()))
		}
	}
	if len(names) == 0 {
		return nil, &Error{File: path, Err: errors.New("the directory has no file that ends in .yaml, .yml or .json; " +
			"subdirectories are not looked into")}
	}
	return names, nil
}

func readFile(name string) (file File, err error) {
	opened, err := os.Open(name)
	if err != nil {
		return File{}, pathError(name, err)
	}
	defer func() { _ = opened.Close() }() // it was only read
	return readFrom(name, opened)
}

func readFrom(name string, reader io.Reader) (File, error) {
	data, err := io.ReadAll(io.LimitReader(reader, MaxFileBytes+1))
	switch {
	case err != nil:
		return File{}, pathError(name, err)
	case len(data) > MaxFileBytes:
		return File{}, &Error{File: name, Err: fmt.Errorf("the file is larger than %d MiB, which no manifest is", MaxFileBytes>>20)}
	}
	return Parse(name, data), nil
}

// pathError says a path once: package os names it in its own errors too.
func pathError(path string, err error) error {
	if named := (*fs.PathError)(nil); errors.As(err, &named) {
		err = named.Err
	}
	return &Error{File: path, Err: err}
}

// Parse takes a file apart into documents. name is for messages. A document that cannot be used says so in its Err.
func Parse(name string, data []byte) File {
	file := File{Name: name}
	line, number := 1, 1
	chunks, isJSON := splitJSON(data)
	if !isJSON {
		chunks = splitYAML(data)
	}
	for _, chunk := range chunks {
		document := &Document{File: name, Number: number, Line: line, Raw: chunk, isJSON: isJSON, offset: line - 1}
		document.parse()
		if document.Empty() {
			document.Number = 0
		} else {
			number++
		}
		file.Documents = append(file.Documents, document)
		line += bytes.Count(chunk, []byte("\n"))
	}
	return file
}

// Empty tells whether the file holds no document but comments and blanks.
func (f *File) Empty() bool {
	return !slices.ContainsFunc(f.Documents, func(d *Document) bool { return !d.Empty() })
}

// splitYAML cuts a stream at the lines that start a document ("---"). Comments and directives that precede the first such line
// belong to the document that it starts.
func splitYAML(data []byte) [][]byte {
	var chunks [][]byte
	start, begun := 0, false
	for at := 0; at < len(data); {
		end := lineEnd(data, at)
		line := data[at:end]
		switch {
		case isDocumentStart(line):
			if begun {
				chunks = append(chunks, data[start:at])
				start = at
			}
			begun = true
		case !isBlankOrComment(line) && line[0] != '%':
			begun = true
		}
		at = end
	}
	if start < len(data) {
		chunks = append(chunks, data[start:])
	}
	return chunks
}

// lineEnd returns where the line at an offset ends, its line break included.
func lineEnd(data []byte, at int) int {
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(data)
}

func isDocumentStart(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])))
}

func isBlankOrComment(line []byte) bool {
	trimmed := bytes.TrimSpace(line)
	return len(trimmed) == 0 || trimmed[0] == '#'
}

// StartsDocument tells whether a text starts with the line that separates it from a document before it ("---"), not counting
// comments and directives ahead of that.
func StartsDocument(text []byte) bool {
	for at := 0; at < len(text); {
		end := lineEnd(text, at)
		line := text[at:end]
		switch {
		case isDocumentStart(line):
			return true
		case !isBlankOrComment(line) && line[0] != '%':
			return false
		}
		at = end
	}
	return false
}
