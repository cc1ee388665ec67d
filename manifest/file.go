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
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// MaxFileBytes bounds a file. A manifest is a few kilobytes, the largest CustomResourceDefinitions a megabyte; what is larger
// than this is something else.
const MaxFileBytes = 32 << 20

// GoldenSuffix is how the names of files end that hold what a test expects: Pods that nobody applies.
const GoldenSuffix = ".golden.yaml"

// Stdin is the path that stands for standard input, and stdinName what messages call it.
const (
	Stdin     = "-"
	stdinName = "stdin"
)

// Error is what is wrong with a file or with one of its documents, and where.
type Error struct {
	// File is the path as it was given, or "stdin".
	File string
	// Line counts from 1 in the file. It is zero where the file as a whole is meant, and so is Document. Column counts the characters of
	// the line from 1; it is zero where the whole line is meant, or where nobody knows better.
	Line, Column int
	// Document counts the documents of the file from 1.
	Document int
	Err      error
}

// Error says file, line and column as compilers do, so that editors find the place.
func (e *Error) Error() string {
	where := e.File
	switch {
	case e.Column > 0:
		where = fmt.Sprintf("%s:%d:%d", where, e.Line, e.Column)
	case e.Line > 0:
		where = fmt.Sprintf("%s:%d", where, e.Line)
	}
	return where + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// File is a file of manifests. Its documents' Raw, one after another, are the file byte for byte.
type File struct {
	Name string
	// Found says that the file was found in a directory, and not named itself.
	Found     bool
	Documents []*Document
}

// ReadFiles reads paths: files, directories (those of their files that end in .yaml, .yml or .json, sorted by name, without
// subdirectories), and Stdin. What cannot be read is left out and in the errors, each of which is an *Error; what is wrong
// inside a file is in its documents.
func ReadFiles(paths []string, stdin io.Reader) ([]File, []error) { return read(paths, stdin, false) }

// ReadTrees is ReadFiles with the subdirectories of directories, and theirs. What is hidden, by a name that starts with a dot, is left
// out, and so are golden files and subdirectories behind symbolic links. A file that several paths lead to is read once.
func ReadTrees(paths []string, stdin io.Reader) ([]File, []error) { return read(paths, stdin, true) }

func read(paths []string, stdin io.Reader, deep bool) ([]File, []error) {
	var names []string
	var errs []error
	named := map[string]bool{} // and not only found in a directory
	for _, path := range paths {
		if path == Stdin {
			names, named[path] = append(names, path), true
			continue
		}
		in := &finder{deep: deep}
		in.find(path)
		if !in.isDirectory {
			named[filepath.Clean(path)] = true
		}
		names, errs = append(names, in.names...), append(errs, in.errs...)
	}
	if deep {
		names = unique(names)
	}
	files, failures := make([]File, len(names)), make([]error, len(names))
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		group.Go(func() error {
			if name == Stdin {
				files[i], failures[i] = readFrom(stdinName, stdin)
			} else {
				files[i], failures[i] = readFile(name, !named[filepath.Clean(name)])
			}
			files[i].Found = !named[filepath.Clean(name)]
			return nil
		})
	}
	_ = group.Wait() // no function fails
	var usable []File
	for i := range files {
		if failures[i] != nil {
			errs = append(errs, failures[i])
			continue
		}
		usable = append(usable, files[i])
	}
	return usable, errs
}

// unique leaves out paths that stand for a file that is named before.
func unique(names []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(name string) bool {
		clean := filepath.Clean(name)
		again := seen[clean]
		seen[clean] = true
		return again
	})
}

// finder finds the manifests at a path.
type finder struct {
	deep        bool
	isDirectory bool
	names       []string
	errs        []error
}

func (f *finder) find(path string) {
	info, err := os.Stat(path)
	if err != nil {
		f.errs = append(f.errs, pathError(path, err))
		return
	}
	if !info.IsDir() {
		f.names = []string{path}
		return
	}
	f.isDirectory = true
	f.directory(path)
	if len(f.names) > 0 || len(f.errs) > 0 {
		return
	}
	missing := "the directory has no file that ends in .yaml, .yml or .json"
	if !f.deep {
		missing += "; subdirectories are not looked into"
	}
	f.errs = append(f.errs, &Error{File: path, Err: errors.New(missing)})
}

// directory adds the manifests in a directory, and in its subdirectories if they are asked for.
func (f *finder) directory(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		f.errs = append(f.errs, pathError(path, err))
	}
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		hidden := strings.HasPrefix(entry.Name(), ".")
		switch {
		case f.deep && (hidden || strings.HasSuffix(entry.Name(), GoldenSuffix)):
		case entry.IsDir():
			if f.deep {
				f.directory(name)
			}
		case slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name))):
			if info, err := os.Stat(name); err == nil && info.IsDir() { // behind a symbolic link
				continue
			}
			f.names = append(f.names, name)
		}
	}
}

// readFile reads a file. One that was found in a directory has to be regular: who names a pipe wants to wait for it.
func readFile(name string, found bool) (file File, err error) {
	if info, err := os.Stat(name); found && err == nil && !info.Mode().IsRegular() {
		return File{}, &Error{File: name, Err: errors.New("this is not a regular file; remove it, or name it as an argument")}
	}
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

// Parse takes a file apart into documents. name is for messages. A document that cannot be used says so in its Err; a file that is no
// text is one such document.
func Parse(name string, data []byte) File {
	if at, err := checkText(data); err != nil {
		return unusable(name, data, at, err)
	}
	file := File{Name: name}
	line, indent, number := 1, 0, 1
	chunks, isJSON := splitJSON(data)
	if !isJSON {
		chunks = splitYAML(data)
	}
	if len(chunks) > maxDocuments {
		return unusable(name, data, Position{}, fmt.Errorf("the file has more than %d documents, which no file of manifests has", maxDocuments))
	}
	for _, chunk := range chunks {
		document := &Document{File: name, Number: number, Line: line, Raw: chunk, isJSON: isJSON, offset: line - 1, indent: indent}
		document.parse()
		if document.Empty() {
			document.Number = 0
		} else {
			number++
		}
		file.Documents = append(file.Documents, document)
		end := positionAt(chunk, len(chunk))
		if end.Line > 1 {
			indent = 0
		}
		line, indent = line+end.Line-1, indent+end.Column-1
	}
	return file
}

// unusable is a file of which nothing can be read.
func unusable(name string, data []byte, at Position, err error) File {
	document := &Document{File: name, Number: 1, Line: max(at.Line, 1), Raw: data}
	document.Err = &Error{File: name, Document: 1, Line: at.Line, Column: at.Column, Err: err}
	return File{Name: name, Documents: []*Document{document}}
}

// Path returns the name in its shortest form, so that two names of one path are equal.
func (f *File) Path() string {
	if absolute, err := filepath.Abs(f.Name); err == nil {
		return absolute
	}
	return filepath.Clean(f.Name)
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
	for at := 0; at < len(data) && len(chunks) <= maxDocuments; { // more are refused
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
