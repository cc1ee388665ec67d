package manifest

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// LoadProfiles reads the PatternProfiles and ClusterPatternProfiles in files and directories, and what the Namespaces there say
// of themselves. Objects of other kinds are ignored. A PatternProfile that names no namespace is in the one given. Everything
// that is wrong, in any file, is in the error.
func LoadProfiles(compiler *profiles.Compiler, paths []string, namespace string) ([]*profiles.Profile, Namespaces, error) {
	files, errs := ReadFiles(paths, strings.NewReader(""))
	loaded, loadErrs := ProfilesIn(compiler, files, namespace)
	errs = append(errs, loadErrs...)
	namespaces := NamespacesIn(files)
	if len(errs) == 0 && len(loaded) == 0 {
		errs = append(errs, fmt.Errorf("there is no PatternProfile or ClusterPatternProfile in %s", strings.Join(paths, ", ")))
	}
	return loaded, namespaces, errors.Join(errs...)
}

// ProfilesIn returns the profiles among the documents of files, and everything that is wrong with them.
func ProfilesIn(compiler *profiles.Compiler, files []File, namespace string) ([]*profiles.Profile, []error) {
	l := loader{compiler: compiler, namespace: namespace, seen: map[string]Object{}}
	for _, document := range documents(files) {
		if document.Err != nil {
			l.errs = append(l.errs, document.Err)
			continue
		}
		for _, object := range document.Objects() {
			l.load(&object)
		}
	}
	return l.profiles, l.errs
}

type loader struct {
	compiler  *profiles.Compiler
	namespace string
	seen      map[string]Object
	profiles  []*profiles.Profile
	errs      []error
}

func (l *loader) load(object *Object) {
	profile, ok := object.Profile(l.compiler, l.namespace)
	if !ok {
		return
	}
	if first, there := l.seen[profile.Scope()]; there {
		l.errs = append(l.errs, object.Document.ErrorAt(object.At(""), "%s is in %s on line %d already; remove one of them",
			profile.Scope(), first.Document.File, first.At("").Line))
		return
	}
	l.seen[profile.Scope()] = *object
	for _, problem := range profile.Problems {
		l.errs = append(l.errs, object.Document.ErrorAt(object.At(problem.Field), "%s: %w", profile.Scope(), problem))
	}
	l.profiles = append(l.profiles, profile)
}

// Profile compiles the object, which is changed: a PatternProfile that names no namespace is in the one given. It is false for an object
// that is no profile.
func (o *Object) Profile(compiler *profiles.Compiler, namespace string) (*profiles.Profile, bool) {
	metadata, ok := o.Fields["metadata"].(map[string]any)
	if ok && o.Fields["kind"] == "PatternProfile" && o.Fields["apiVersion"] == v1alpha1.GroupVersion.String() && metadata["namespace"] == nil {
		metadata["namespace"] = namespace
	}
	return compiler.Object(o.Fields)
}

// Namespaces are namespaces by their names.
type Namespaces map[string]profiles.Namespace

// NamespacesIn returns the Namespaces among the documents of files, as they would be in a cluster: with the label that the API
// server gives each.
func NamespacesIn(files []File) Namespaces {
	namespaces := Namespaces{}
	for _, document := range documents(files) {
		for _, object := range document.Objects() {
			if name := object.Metadata("name"); object.IsNamespace() && name != "" {
				namespaces.Set(name, object.Strings("labels"), object.Strings("annotations"))
			}
		}
	}
	return namespaces
}

// IsNamespace tells whether the object is a Namespace.
func (o *Object) IsNamespace() bool {
	return o.Fields["kind"] == "Namespace" && o.Fields["apiVersion"] == "v1"
}

// Set gives a namespace labels, with the one that the API server gives each, and annotations.
func (n Namespaces) Set(name string, labels, annotations map[string]string) {
	all := map[string]string{corev1.LabelMetadataName: name}
	for key, value := range labels {
		all[key] = value
	}
	n[name] = profiles.Namespace{Name: name, Labels: all, Annotations: annotations}
}

// Get returns what is known of a namespace. One that is not known exists, as any other without labels of its own.
func (n Namespaces) Get(name string) profiles.Namespace {
	if _, known := n[name]; !known {
		n = Namespaces{}
		n.Set(name, nil, nil)
	}
	return n[name]
}

func documents(files []File) []*Document {
	var all []*Document
	for i := range files {
		all = append(all, files[i].Documents...)
	}
	return all
}
