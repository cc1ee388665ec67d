package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// key is a constant of keys.go: an annotation, a label, or what one begins with.
type key struct{ name, value, doc string }

// keys are what keys.go says: its constants, in their order, and the fields of the JSON in the annotation that marks a Pod.
type keys struct {
	constants []key
	fields    []key
}

// readKeys reads keys.go in the folder of the types. Constants of the whole package may stand in its values.
func readKeys(dir string) (*keys, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	values, found := map[string]string{}, &keys{}
	slices.SortFunc(files, func(a, b string) int { // keys.go last: its constants are made of others
		last := func(path string) int {
			if filepath.Base(path) == "keys.go" {
				return 1
			}
			return 0
		}
		if order := last(a) - last(b); order != 0 {
			return order
		}
		return strings.Compare(a, b)
	})
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read the keys: %w", err)
		}
		constants := constantsOf(file, values)
		if filepath.Base(path) != "keys.go" {
			continue
		}
		found.constants = constants
		found.fields = fieldsOf(file, "Injected")
	}
	if len(found.constants) == 0 || len(found.fields) == 0 {
		return nil, fmt.Errorf("%s/keys.go has no constants, or no type Injected", dir)
	}
	return found, nil
}

// constantsOf returns the string constants of a file, and adds them to those that are known.
func constantsOf(file *ast.File, values map[string]string) []key {
	var all []key
	for _, declaration := range file.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok || general.Tok != token.CONST {
			continue
		}
		for _, spec := range general.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok || len(value.Values) != 1 {
				continue
			}
			if text, ok := evaluate(value.Values[0], values); ok {
				values[value.Names[0].Name] = text
				all = append(all, key{value.Names[0].Name, text, value.Doc.Text()})
			}
		}
	}
	return all
}

// evaluate computes a string of literals and constants that are known.
func evaluate(expression ast.Expr, values map[string]string) (string, bool) {
	switch e := expression.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		text, ok := values[e.Name]
		return text, ok
	case *ast.BinaryExpr:
		left, leftOK := evaluate(e.X, values)
		right, rightOK := evaluate(e.Y, values)
		return left + right, leftOK && rightOK && e.Op == token.ADD
	}
	return "", false
}

// fieldsOf returns the fields of a struct by the names that they have in JSON.
func fieldsOf(file *ast.File, name string) []key {
	var all []key
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, field := range structure.Fields.List {
			tag, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				continue
			}
			json, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			all = append(all, key{field.Names[0].Name, json, field.Doc.Text()})
		}
		return false
	})
	// A comment over several fields is for each the sentences that begin with its name.
	for i := range all {
		for j := range all {
			if before, after, found := strings.Cut(all[i].doc, ". "+all[j].name+" "); found && i != j {
				all[i].doc, all[j].doc = before+".", all[j].name+" "+after
			}
		}
	}
	return all
}

// keys writes the annotations and labels.
func (p *page) keys(all *keys) {
	p.line("## Annotations, labels and names\n")
	p.line("| key or value | meaning |\n|---|---|")
	for _, constant := range all.constants {
		shown := constant.value
		switch {
		case strings.HasPrefix(shown, "."): // the end of an annotation's prefix
			shown = "PROFILE" + shown + "/FIELD"
		case strings.HasSuffix(shown, ".") || strings.HasSuffix(shown, "-"):
			shown += "…"
		}
		p.line("| %s | %s |", code(shown), all.explain(constant))
	}
	p.line("\nThe JSON in `pillion.dev/injected` has an object for each profile, under its name. It has these keys, of which the pattern")
	p.line("(`kind`) and the names of the containers that were added need no words:\n")
	for _, field := range all.fields {
		if meaning := all.explain(field); meaning != "" {
			p.line("- %s: %s", code(field.value), meaning)
		} else {
			p.line("- %s", code(field.value))
		}
	}
}

// explain is a comment as a reader wants it: without the name that it begins with, and with values in place of constants' names.
func (k *keys) explain(of key) string {
	text := plain(strings.TrimPrefix(of.doc, of.name+" "))
	text = strings.ReplaceAll(text, " (see Injected)", ", as below")
	for _, constant := range k.constants {
		name := regexp.MustCompile(`\b` + constant.name + `\b`)
		text = name.ReplaceAllLiteralString(text, code(constant.value))
	}
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
