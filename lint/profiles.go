package lint

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
	"github.com/pillion-dev/pillion/weave"
)

// compiled is a profile and where it stands.
type compiled struct {
	object  *manifest.Object
	profile *profiles.Profile
}

// The kinds of profiles.
const (
	kindNamespaced = "PatternProfile"
	kindCluster    = "ClusterPatternProfile"
	kindTest       = "PatternTest" // of package cases
)

// compile compiles the profiles in the files, and those beside them that they do not replace, and knows all of them and the Namespaces.
func (l *linter) compile() {
	l.profiles = compileAll(l.objects, &l.options)
	l.result.Profiles = len(l.profiles)
	var beside []manifest.Object
	for i := range l.options.Beside {
		file := &l.options.Beside[i]
		for _, document := range file.Documents {
			l.checkReadable(file, document)
			beside = append(beside, document.Objects()...)
		}
	}
	known := map[string]bool{}
	var all []*profiles.Profile
	for _, c := range slices.Concat(l.profiles, compileAll(beside, &l.options)) {
		if scope := c.profile.Scope(); !known[scope] {
			known[scope] = true
			all = append(all, c.profile)
		}
	}
	l.snapshot = profiles.NewSnapshot(l.options.Decisions, all)
	l.namespaces = manifest.NamespacesIn(slices.Concat(l.options.Beside, l.files))
}

func compileAll(objects []manifest.Object, options *Options) []compiled {
	all := make([]compiled, len(objects))
	inParallel(len(objects), func(i int) {
		if profile, ok := objects[i].Profile(options.Compiler, options.Namespace); ok {
			all[i] = compiled{&objects[i], profile}
		}
	})
	return slices.DeleteFunc(all, func(c compiled) bool { return c.profile == nil })
}

// checkProfiles finds what is wrong with profiles, by themselves and beside each other.
func (l *linter) checkProfiles() {
	for i := range l.objects {
		l.checkKind(&l.objects[i])
	}
	checked := map[string]bool{}
	for _, c := range l.profiles {
		l.checkKeys(c.object, "annotations", ofProfile)
		problems := c.profile.Problems
		served := l.snapshot.Profile(c.profile.Namespace, c.profile.Name)
		if len(problems) == 0 && served != nil && !checked[c.profile.Scope()] {
			problems = served.Problems // beside the others
			l.checkPlan(c, served)
		}
		checked[c.profile.Scope()] = true
		for _, problem := range slices.Concat(problems, c.profile.Broken) {
			l.findProblem(c, problem)
		}
	}
}

// findProblem tells of a problem at the field that it names. What another profile may yet mend is a warning, as it is when a cluster is
// given the profile.
func (l *linter) findProblem(c compiled, problem *field.Error) {
	at, message := c.object.At(problem.Field), problem.Error()
	if problem.Field == "" || problem.Field == "<nil>" { // a rule about the whole object, and what it can see of that is the name
		at, message = c.object.At("metadata.name"), problem.ErrorBody()
	}
	if problem.Type == field.ErrorTypeNotFound && strings.HasPrefix(problem.Field, "spec.after[") {
		l.find(c.object, at, report.Warning, profiles.ReasonProfileNotReady,
			"%s: %s names %v, which no profile here has: until there is one, this profile is not ready",
			c.profile.Scope(), problem.Field, problem.BadValue)
		return
	}
	l.find(c.object, at, report.Error, ReasonInvalidSpec, "%s: %s", c.profile.Scope(), message)
}

// checkPlan tells of a match that chooses nobody.
func (l *linter) checkPlan(c compiled, served *profiles.Profile) {
	if _, refusal := l.snapshot.Plan().Of(served); refusal != nil {
		l.find(c.object, c.object.At("spec.match"), report.Error, weave.Reason(refusal.Reason), "%s: %s", c.profile.Scope(), refusal.Message)
	}
	if slices.Contains(l.options.Decisions.ExcludedNamespaces, c.profile.Namespace) {
		l.find(c.object, c.object.At("metadata.namespace"), report.Warning, ReasonNamespaceExcluded,
			"%s: Pods of namespace %s are never touched (--excluded-namespaces), so that none gets this profile",
			c.profile.Scope(), c.profile.Namespace)
	}
}

// checkKind tells of objects of our API group that nothing knows.
func (l *linter) checkKind(object *manifest.Object) {
	group, kind := object.GroupKind()
	if group != v1alpha1.Group {
		return
	}
	version := object.Fields["apiVersion"]
	switch {
	case kind == kindTest: // a file of "pillion test", which checks it
	case kind != kindCluster && kind != kindNamespaced:
		l.find(object, object.At("kind"), report.Error, ReasonUnknownKind, "there is no kind %q in %s%s", kind, v1alpha1.Group,
			suggest(kind, []string{kindCluster, kindNamespaced}))
	case version != v1alpha1.GroupVersion.String():
		l.find(object, object.At("apiVersion"), report.Error, ReasonUnknownKind, "%s has no version %q; write %s", kind, version,
			v1alpha1.GroupVersion)
	}
}

// checkDuplicates tells of objects of which there are two: the one that is applied last replaces the other. Of profiles and Namespaces
// it decides about Pods which that is.
func (l *linter) checkDuplicates() {
	seen := map[string]*manifest.Object{}
	for i := range l.objects {
		object := &l.objects[i]
		key, severity := l.identity(object)
		if key == "" {
			continue
		}
		first, there := seen[key]
		if !there {
			seen[key] = object
			continue
		}
		l.find(object, object.At("metadata.name"), severity, ReasonDuplicateObject, "%s is in %s already; remove or rename one of them",
			key, placeOf(first, object.Document))
	}
}

func placeOf(object *manifest.Object, from *manifest.Document) string {
	line := object.At("metadata.name").Line
	if object.Document.File == from.File {
		return fmt.Sprintf("this file, on line %d,", line)
	}
	return fmt.Sprintf("%s on line %d", object.Document.File, line)
}

// identity names an object that Pillion reads; "" for others, and for those that get their name when they are made.
func (l *linter) identity(object *manifest.Object) (string, report.Severity) {
	name, namespace := object.Metadata("name"), object.Metadata("namespace")
	group, kind := object.GroupKind()
	severity := report.Warning
	switch {
	case name == "":
		return "", ""
	case object.IsNamespace(), group == v1alpha1.Group && kind == kindCluster:
		return kind + " " + name, report.Error
	case group == v1alpha1.Group && kind == kindNamespaced:
		severity = report.Error
	case !object.IsWorkload():
		return "", ""
	}
	if namespace == "" {
		namespace = l.options.Namespace
	}
	return kind + " " + namespace + "/" + name, severity
}
