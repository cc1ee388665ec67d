package cases

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

// loader reads files of cases and what they name, everything once: profiles are compiled once for each set of them.
type loader struct {
	compiler *profiles.Compiler
	options  Options
	sets     map[string]*set
	worlds   map[string]*world
	manifest map[string]*manifestFile
	goldens  map[string]string // the cases that have them, by path
}

func newLoader(compiler *profiles.Compiler, options Options) *loader {
	return &loader{
		compiler: compiler, options: options, sets: map[string]*set{}, worlds: map[string]*world{},
		manifest: map[string]*manifestFile{}, goldens: map[string]string{},
	}
}

// set is profiles that were compiled together, and the Namespaces among their files.
type set struct {
	key        string
	compiled   []*profiles.Profile
	namespaces manifest.Namespaces
	problems   []Problem
	told       bool
}

// world is what decisions depend on, but for the Pod and its namespace.
type world struct {
	compiler *profiles.Compiler
	snapshot *profiles.Snapshot
	excluded []string
}

// request is how a Pod is created.
type request struct {
	raw        []byte
	namespace  string
	namespaces manifest.Namespaces
	user       authenticationv1.UserInfo
	dryRun     bool
}

// resolve finds what the cases of a document need.
func (l *loader) resolve(r *reader, t *test) {
	if len(t.cases) == 0 {
		return
	}
	set := l.setOf(r, t)
	if set != nil && len(set.problems) > 0 {
		l.tell(r, t, set)
		set = nil
	}
	settings := l.settings(t.settings, nil)
	namespaces := manifest.Namespaces{}
	if set != nil {
		maps.Copy(namespaces, set.namespaces)
	}
	for _, n := range t.namespaces {
		namespaces.Set(n.name, n.labels, n.annotations)
	}
	for _, c := range t.cases {
		own := settings
		switch {
		case c.settings != nil && settings != nil:
			own = l.settings(t.settings, c.settings)
		case c.settings != nil:
			l.settings(nil, c.settings) // for what is wrong with them
		}
		if set != nil && own != nil {
			c.world = l.world(own, set)
		}
		c.request = request{namespaces: maps.Clone(namespaces), dryRun: c.dryRun}
		if c.user != nil {
			c.request.user = *c.user
		}
		l.pod(c)
		c.place()
	}
}

// setOf compiles the profiles of a document. It is nil if the document does not say which.
func (l *loader) setOf(r *reader, t *test) *set {
	var paths, keys []string
	named := map[string]value{}
	var inline []value
	for _, one := range t.profiles {
		if path, ok := one.content.(string); ok {
			path = filepath.FromSlash(path)
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(r.document.File), path)
			}
			paths, keys, named[path] = append(paths, path), append(keys, absolute(path)), one
			continue
		}
		inline, keys = append(inline, one), append(keys, absolute(r.document.File)+fmt.Sprint(r.document.Number, one.pointer))
	}
	if len(t.profiles) == 0 {
		if t.at.has("profiles") {
			return nil // what is wrong with them has been told
		}
		if paths = l.options.Profiles; len(paths) == 0 {
			t.at.problem("it names no profiles; write their files or directories: profiles: [../profiles/]")
			return nil
		}
		for _, path := range paths {
			keys = append(keys, absolute(path))
		}
	}
	slices.Sort(keys)
	key := strings.Join(keys, "\x00")
	if known, ok := l.sets[key]; ok {
		return known
	}
	set := &set{key: key}
	l.sets[key] = set
	files, errs := manifest.ReadFiles(paths, strings.NewReader(""))
	compiled, loadErrs := manifest.ProfilesIn(l.compiler, files, corev1.NamespaceDefault)
	set.compiled, set.namespaces = compiled, manifest.NamespacesIn(files)
	for _, err := range append(errs, loadErrs...) {
		for _, problem := range problemsOf(err, Problem{File: r.document.File}) {
			if path, ok := named[problem.File]; ok && problem.Line == 0 { // it could not be read
				problem = path.problemHere("%s", problem)
			}
			set.problems = append(set.problems, problem)
		}
	}
	for _, one := range inline {
		set.add(one.profile(l.compiler), one)
	}
	if len(set.problems) == 0 && len(set.compiled) == 0 {
		at := t.at.under("profiles", nil)
		set.problems = append(set.problems, at.problemHere("there is no PatternProfile or ClusterPatternProfile in them"))
	}
	return set
}

// tell notes what is wrong with profiles: all of it in the first document that needs them.
func (l *loader) tell(r *reader, t *test, set *set) {
	at := t.at
	if content, ok := at.content.(map[string]any)["profiles"]; ok {
		at = at.under("profiles", content)
	}
	if set.told {
		at.problem("they cannot be used: %s", set.problems[0])
		return
	}
	set.told = true
	r.problems = append(r.problems, set.problems...)
}

func absolute(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return filepath.Clean(path)
}

// profile compiles a profile that is written in the document.
func (v value) profile(compiler *profiles.Compiler) *profiles.Profile {
	object := runtime.DeepCopyJSON(v.content.(map[string]any)) // compiling changes it
	metadata, ok := object["metadata"].(map[string]any)
	if ok && object["kind"] == "PatternProfile" && metadata["namespace"] == nil {
		metadata["namespace"] = corev1.NamespaceDefault
	}
	profile, _ := compiler.Object(object) // it was looked at before
	return profile
}

// add adds a profile that is written in a document, with what is wrong with it.
func (s *set) add(profile *profiles.Profile, at value) {
	if slices.ContainsFunc(s.compiled, func(p *profiles.Profile) bool { return p.Scope() == profile.Scope() }) {
		s.problems = append(s.problems, at.problemHere("%s is among the others already; remove one of them", profile.Scope()))
	}
	for _, problem := range profile.Problems {
		where := at.in.document.FieldPosition(at.pointer, problem.Field)
		s.problems = append(s.problems, Problem{
			File: at.in.document.File, Line: where.Line, Column: where.Column, Message: fmt.Sprintf("%s: %v", profile.Scope(), problem),
		})
	}
	s.compiled = append(s.compiled, profile)
}

// world returns what decides by settings.
func (l *loader) world(settings *config.Config, set *set) *world {
	options := l.options.Decisions(*settings)
	key := fmt.Sprintf("%s\x00%+v", set.key, options)
	if known, ok := l.worlds[key]; ok {
		return known
	}
	made := &world{
		compiler: l.compiler, snapshot: profiles.NewSnapshot(options, set.compiled), excluded: options.ExcludedNamespaces,
	}
	l.worlds[key] = made
	return made
}

// manifestFile is a file that Pods are taken from.
type manifestFile struct {
	templates []manifest.Template
	problems  []Problem
}

func (l *loader) read(path string) *manifestFile {
	key := absolute(path)
	if known, ok := l.manifest[key]; ok {
		return known
	}
	file := &manifestFile{}
	l.manifest[key] = file
	files, errs := manifest.ReadFiles([]string{path}, strings.NewReader(""))
	for i := range files {
		for _, document := range files[i].Documents {
			templates, err := document.Templates()
			file.templates = append(file.templates, templates...)
			errs = append(errs, document.Err, err)
		}
	}
	for _, err := range errs {
		file.problems = append(file.problems, problemsOf(err, Problem{File: path})...)
	}
	return file
}

// pod finds the Pod of a case.
func (l *loader) pod(c *testCase) {
	switch {
	case c.pod != nil && c.raw == nil: // what is wrong with it has been told
	case c.pod != nil:
		c.request.raw = c.raw
		metadata, _ := c.pod.content.(map[string]any)["metadata"].(map[string]any)
		c.request.namespace, _ = metadata["namespace"].(string)
	case c.manifest != nil:
		path := filepath.Join(filepath.Dir(c.file), filepath.FromSlash(c.manifest.content.(string)))
		file := l.read(path)
		if len(file.problems) > 0 {
			c.manifest.problem("it cannot be used: %s", file.problems[0])
			return
		}
		template := c.choose(file.templates)
		if template == nil {
			return
		}
		if _, err := template.Pod(); err != nil {
			c.manifest.problem("%s", unwrapped(err))
			return
		}
		raw, err := template.Raw()
		if err != nil {
			c.manifest.problem("%s", unwrapped(err))
			return
		}
		c.request.raw, c.request.namespace = raw, template.Namespace
		if c.user == nil {
			c.request.user = profiles.ControllerUser(template.Kind)
		}
	}
}

func unwrapped(err error) error {
	if at := (*manifest.Error)(nil); errors.As(err, &at) {
		return at.Err
	}
	return err
}

// choose returns the Pod template that a case means.
func (c *testCase) choose(templates []manifest.Template) *manifest.Template {
	var names []string
	var chosen []*manifest.Template
	for i := range templates {
		name := templates[i].Kind + "/" + templates[i].Name
		names = append(names, name)
		if c.object == nil || c.object.content == name {
			chosen = append(chosen, &templates[i])
		}
	}
	switch {
	case len(chosen) == 1:
		return chosen[0]
	case len(templates) == 0:
		c.manifest.problem("there is no Pod and no workload in it")
	case c.object == nil:
		c.manifest.problem("there are several Pods and workloads in it; choose one by object: %s", strings.Join(names, ", "))
	case len(chosen) == 0:
		c.object.problem("there is no %s in the file%s; there is %s", c.object.content, meant(c.object.content.(string), names),
			strings.Join(names, ", "))
	default:
		c.object.problem("there are several of it in the file; keep them in files apart")
	}
	return nil
}

// place finds the namespace of a case.
func (c *testCase) place() {
	at, field := c.namespace, c.request.namespace
	if at == nil {
		where := c.pod
		if where == nil {
			where = c.manifest
		}
		if c.request.namespace == "" {
			c.request.namespace = corev1.NamespaceDefault
		}
		if where == nil {
			return
		}
		c.known(*where)
		return
	}
	if field != "" && field != at.name {
		at.at.problem("the Pod names the namespace %s itself; write that, or remove one of them", field)
	}
	c.request.namespace = at.name
	if at.inline {
		c.request.namespaces.Set(at.name, at.labels, at.annotations)
		return
	}
	c.known(at.at)
}

// known tells of a namespace of which nothing is said: it may be misspelled.
func (c *testCase) known(at value) {
	if c.world == nil {
		return // whatever is known could not be read
	}
	name := c.request.namespace
	if _, there := c.request.namespaces[name]; there || name == corev1.NamespaceDefault || slices.Contains(c.world.excluded, name) {
		return
	}
	others := slices.Sorted(maps.Keys(c.request.namespaces))
	at.problem("nothing is said of the namespace %s%s; add it below namespaces: - name: %s", name, meant(name, others), name)
}
