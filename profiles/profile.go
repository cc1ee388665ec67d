// Package profiles decides which profiles apply to a Pod, and why not: profiles compiled to effective specs, the immutable
// snapshot of them, and Decide, which webhook, command line, controller and tests share. It is pure: it reads no clock, no
// file and no API server.
package profiles

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/crds"
	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
)

// Profile is a PatternProfile or ClusterPatternProfile made ready for decisions. It is immutable.
type Profile struct {
	// Namespace is empty for a ClusterPatternProfile.
	Namespace string
	Name      string

	// Kind is empty if the spec names no pattern, or several.
	Kind v1alpha1.PatternKind

	// Revision is a hash of the effective spec.
	Revision string

	// Pattern is the effective spec: with defaults, and valid. It is nil if there are Problems.
	Pattern *v1alpha1.Pattern

	FailurePolicy v1alpha1.FailurePolicy

	// Generation is that of the spec, which is an earlier one than the object's if the current spec cannot be used. Created is when
	// the object was made.
	Generation int64
	Created    metav1.Time

	// Problems are why the profile cannot be used; none if it can.
	Problems field.ErrorList

	// Broken is what is wrong with the current spec, if this is the last good one in its place.
	Broken field.ErrorList

	// Deleted says that the object is being deleted, and kept for those who ask for it by name.
	Deleted bool

	injector       injectors.Injector
	schema         *schema // of the pattern's field
	document       []byte  // the pattern's field as JSON, with defaults
	configuration  string
	custom         *injectors.Custom      // nil: a built-in pattern
	declared       *declared              // by the template of a custom pattern
	bound          *injectors.BoundCustom // with the parameters' defaults; nil if one is required
	overridable    []string
	left           []injectors.Required // what the profile leaves to Pods
	after          []string
	onPortConflict v1alpha1.PortConflictPolicy
	allowed        labels.Selector // namespaces that may ask; nil: all
	match          *match          // nil: only those that ask
	ended          *match          // that of a profile that is deleted, which holds only while others read from it

	// settled says that the controller has seen the current spec, or that an administrator released the profile.
	settled bool
	// lastGood is what serves if the spec turns out not to be usable beside other profiles; nil if there is none. It may be the
	// profile itself.
	lastGood *Profile
}

// match is who gets a profile without asking.
type match struct {
	enforce          bool
	namespaces, pods labels.Selector
	// namespaceSelector and podSelector are what they were made of.
	namespaceSelector, podSelector *metav1.LabelSelector
	// requirements are what namespaces and pods want of labels, for the index.
	namespaceRequirements, podRequirements labels.Requirements
	conditions                             []condition
	// selection is what the plan of a ClusterPatternProfile wants, made once.
	selection *Selection
}

// Scope says where the profile is from, for people: "PatternProfile web/site" or "ClusterPatternProfile site".
func (p *Profile) Scope() string {
	if p.Namespace == "" {
		return "ClusterPatternProfile " + p.Name
	}
	return "PatternProfile " + p.Namespace + "/" + p.Name
}

// Allows tells whether Pods of a namespace may ask for the profile.
func (p *Profile) Allows(namespace Namespace) bool {
	return (p.Namespace == "" || p.Namespace == namespace.Name) &&
		(p.allowed == nil || p.allowed.Matches(labels.Set(namespace.Labels)))
}

// Compiler makes Profiles from API objects. It is safe for concurrent use.
type Compiler struct {
	cluster, namespaced *schema            // of the profiles, without their patterns
	patterns            map[string]*schema // by the pattern's field
	required            map[string]string  // see schemas
	injectors           []injectors.Injector
	before              *Profile // see Since; nil: everything is compiled
}

// Since returns a Compiler for what has become of the object that before was compiled from, the same by its uid. Specs that were
// compiled then are taken over by their generations, so that each is compiled once.
func (c *Compiler) Since(before *Profile) *Compiler {
	since := *c
	since.before = before
	return &since
}

// compiledBefore returns the profile of a generation, as it was compiled before and is by itself; nil if it was not, or cannot be used.
func (c *Compiler) compiledBefore(generation int64) *Profile {
	if c.before == nil || generation == 0 { // what no API server has stored has none
		return nil
	}
	for _, known := range []*Profile{c.before, c.before.lastGood} {
		if known != nil && known.Generation == generation && len(known.Problems) == 0 {
			alone := *known
			alone.Broken, alone.lastGood = nil, nil
			if known.Deleted {
				alone.Deleted, alone.match, alone.ended = false, known.ended, nil
			}
			return &alone
		}
	}
	return nil
}

// NewCompiler returns a Compiler. It takes tens of milliseconds, in which the schemas' CEL rules are compiled.
func NewCompiler() (*Compiler, error) {
	c := &Compiler{patterns: map[string]*schema{}, injectors: injectors.All()}
	fields := make([]string, len(c.injectors))
	for i := range c.injectors {
		fields[i] = c.injectors[i].Field
	}
	namespaced, err := loadSchemas(crds.PatternProfiles, fields)
	if err != nil {
		return nil, err
	}
	cluster, err := loadSchemas(crds.ClusterPatternProfiles, fields)
	if err != nil {
		return nil, err
	}
	c.namespaced, c.cluster, c.required = namespaced.profile, cluster.profile, cluster.required
	for name, props := range cluster.patterns {
		if c.patterns[name], err = newSchema(props, false); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Cluster compiles a ClusterPatternProfile. What is wrong with it is in the Profile's Problems.
func (c *Compiler) Cluster(profile *v1alpha1.ClusterPatternProfile) *Profile {
	return c.typed(profile, &profile.ObjectMeta, true)
}

// Namespaced compiles a PatternProfile. What is wrong with it is in the Profile's Problems.
func (c *Compiler) Namespaced(profile *v1alpha1.PatternProfile) *Profile {
	return c.typed(profile, &profile.ObjectMeta, false)
}

func (c *Compiler) typed(profile any, meta *metav1.ObjectMeta, cluster bool) *Profile {
	encoded, err := json.Marshal(profile)
	if err == nil {
		object := map[string]any{}
		if err = utiljson.Unmarshal(encoded, &object); err == nil {
			return c.compile(object, cluster)
		}
	}
	return &Profile{Namespace: meta.Namespace, Name: meta.Name, Problems: field.ErrorList{field.InternalError(nil, err)}}
}

// Object compiles a profile from its decoded JSON, as a file holds it: unlike a typed object it still has the fields that the
// API does not know, which are reported. It is false for an object that is not a profile.
func (c *Compiler) Object(object map[string]any) (*Profile, bool) {
	if object["apiVersion"] != v1alpha1.GroupVersion.String() {
		return nil, false
	}
	switch object["kind"] {
	case "ClusterPatternProfile":
		return c.compile(object, true), true
	case "PatternProfile":
		return c.compile(object, false), true
	default:
		return nil, false
	}
}

// compile makes a Profile from an object, which is changed. If the current spec cannot be used, it is the last good one.
func (c *Compiler) compile(object map[string]any, cluster bool) *Profile {
	meta := unstructured.Unstructured{Object: object}
	good := lastGoodOf(object)
	observed := integerAt(object, "status", "observedGeneration")
	released := meta.GetAnnotations()[v1alpha1.ReleaseKey] == "true"
	generation, created, deleted := integerAt(object, "metadata", "generation"), meta.GetCreationTimestamp(), meta.GetDeletionTimestamp() != nil
	delete(object, "status")

	compileAt := func(at int64) *Profile {
		profile := c.compiledBefore(at)
		if profile == nil {
			profile = c.compileSpec(object, cluster)
			profile.Problems = cappedProblems(profile.Problems)
		}
		profile.Generation, profile.Created = at, created
		profile.settled = released || observed >= generation
		if deleted {
			profile.endPolicy()
		}
		return profile
	}
	profile := compileAt(generation)
	if good == nil || released {
		return profile
	}
	if len(profile.Problems) == 0 && good.generation == generation {
		profile.lastGood = profile
		return profile
	}
	object["spec"] = good.spec
	earlier := compileAt(good.generation)
	switch {
	case len(earlier.Problems) > 0:
	case len(profile.Problems) > 0:
		return earlier.insteadOf(profile.Problems)
	default:
		profile.lastGood = earlier
	}
	return profile
}

// maxProblems bounds how many problems of one profile are told: whoever mends a hundred is told of the next.
const maxProblems = 100

func cappedProblems(problems field.ErrorList) field.ErrorList {
	if len(problems) <= maxProblems {
		return problems
	}
	more := field.Invalid(field.NewPath("spec"), field.OmitValueType{}, fmt.Sprintf("there are %d more problems", len(problems)-maxProblems))
	return append(slices.Clone(problems[:maxProblems]), more)
}

// insteadOf returns the profile as the last good one, in place of one with problems.
func (p *Profile) insteadOf(problems field.ErrorList) *Profile {
	standIn := *p
	standIn.Broken, standIn.lastGood = problems, nil
	return &standIn
}

// endPolicy makes the profile one that is deleted: those who ask keep it, and it chooses nobody any more.
func (p *Profile) endPolicy() { p.Deleted, p.match, p.ended = true, nil, p.match }

// stillRead returns a profile that is deleted as it is for those that read from it: it goes on choosing Pods, which would else be
// refused what reads from it.
func (p *Profile) stillRead() *Profile {
	read := *p
	read.match = p.ended
	return &read
}

// Keep returns what serves once an object that compiled to before compiles to after: after, unless that cannot be used, before can, and
// the controller has not yet seen the new spec, so that the status does not tell the last good one yet.
func Keep(before, after *Profile) *Profile {
	if before == nil || len(before.Problems) > 0 || after.settled {
		return after
	}
	kept := after
	switch {
	case len(after.Problems) > 0:
		kept = before.insteadOf(after.Problems)
	case len(after.Broken) > 0 && before.Generation > after.Generation:
		kept = before.insteadOf(after.Broken)
	}
	if kept != after && after.Deleted {
		kept.endPolicy()
	}
	return kept
}

// lastGood is the last good spec as the status has it.
type lastGood struct {
	generation int64
	spec       map[string]any
}

// lastGoodOf reads the last good spec of an object; nil if there is none.
func lastGoodOf(object map[string]any) *lastGood {
	spec, found, err := unstructured.NestedFieldNoCopy(object, "status", "lastGood", "spec")
	decoded, ok := spec.(map[string]any)
	if !found || err != nil || !ok {
		return nil
	}
	return &lastGood{integerAt(object, "status", "lastGood", "generation"), decoded}
}

// integerAt returns an integer of an object, which is a float where it was decoded from YAML; 0 if there is none.
func integerAt(object map[string]any, path ...string) int64 {
	value, _, _ := unstructured.NestedFieldNoCopy(object, path...)
	switch value := value.(type) {
	case int64:
		return value
	case float64:
		return int64(value)
	default:
		return 0
	}
}

// compileSpec makes a Profile from the spec of an object, which is changed.
func (c *Compiler) compileSpec(object map[string]any, cluster bool) *Profile {
	profile := &Profile{}
	if metadata, ok := object["metadata"].(map[string]any); ok {
		profile.Name, _ = metadata["name"].(string)
		profile.Namespace, _ = metadata["namespace"].(string)
	}
	rules := c.namespaced
	if cluster {
		rules, profile.Namespace = c.cluster, ""
	}
	profile.Problems = rules.apply(nil, object)
	if document, ok := object["spec"].(map[string]any); ok {
		errs := append(c.applyPatterns(document), c.givenByNobody(document)...)
		sortErrors(errs)
		profile.Problems = append(profile.Problems, errs...)
	}

	spec := v1alpha1.ClusterPatternProfileSpec{} // a superset of PatternProfileSpec
	if len(profile.Problems) == 0 {
		if err := decodeInto(object["spec"], &spec); err != nil {
			profile.Problems = append(profile.Problems, field.Invalid(field.NewPath("spec"), field.OmitValueType{}, err.Error()))
		}
	}
	if len(profile.Problems) > 0 {
		return profile
	}
	c.complete(profile, &spec, object["spec"].(map[string]any))
	return profile
}

// applyPatterns applies the schemas of the patterns that a spec has.
func (c *Compiler) applyPatterns(document map[string]any) field.ErrorList {
	var errs field.ErrorList
	for _, injector := range c.injectors {
		if pattern, ok := document[injector.Field].(map[string]any); ok {
			errs = append(errs, c.patterns[injector.Field].apply(field.NewPath("spec", injector.Field), pattern)...)
		}
	}
	return errs
}

// complete fills a Profile from a spec that its schema admits.
func (c *Compiler) complete(profile *Profile, spec *v1alpha1.ClusterPatternProfileSpec, document map[string]any) {
	path := field.NewPath("spec")
	for _, injector := range c.injectors {
		if _, ok := document[injector.Field]; ok {
			profile.injector, profile.schema = injector, c.patterns[injector.Field]
			profile.Kind = injector.Kind
			profile.document = canonicalJSON(injector.Field, &spec.Pattern)
		}
	}
	profile.Revision = revision(profile.injector.Field, profile.document)
	profile.FailurePolicy = spec.FailurePolicy
	profile.overridable = spec.Overridable
	profile.left = profile.absentFrom(document[profile.injector.Field].(map[string]any))
	profile.after = spec.After
	profile.onPortConflict = spec.OnPortConflict

	problems := c.completePattern(profile, spec, path)
	var errs field.ErrorList
	profile.allowed, errs = selector(spec.AllowedNamespaces, path.Child("allowedNamespaces"))
	problems = append(problems, errs...)
	if spec.Match != nil {
		profile.match, errs = newMatch(spec.Match, path.Child("match"))
		problems = append(problems, errs...)
		if profile.match != nil {
			profile.match.selection = new(newSelection(spec.FailurePolicy, profile.match))
		}
	}
	if i := slices.Index(spec.After, profile.Name); i >= 0 {
		problems = append(problems, field.Invalid(path.Child("after").Index(i), profile.Name, "is the profile itself; remove it"))
	}
	if profile.Problems = problems; len(problems) == 0 {
		profile.Pattern = &spec.Pattern
		profile.configuration = configuration(profile.injector, profile.Pattern)
	}
}

// completePattern fills what of a Profile depends on its pattern.
func (c *Compiler) completePattern(profile *Profile, spec *v1alpha1.ClusterPatternProfileSpec, path *field.Path) field.ErrorList {
	problems := profile.injector.Validate(&spec.Pattern, path.Child(profile.injector.Field))
	if spec.Custom == nil {
		for i, name := range spec.Overridable {
			if _, err := profile.schema.typeAt(name); err != nil {
				problems = append(problems, field.Invalid(path.Child("overridable").Index(i), name, err.Error()))
			}
		}
		return problems
	}
	custom, errs := injectors.CompileCustom(profile.Name, profile.Namespace, spec.Custom, path.Child("custom"))
	problems = append(problems, errs...)
	problems = append(problems, overridableParameters(spec, path)...)
	if len(problems) == 0 {
		profile.custom, profile.declared = custom, declaredBy(spec.Custom.Template.Raw)
		if bound, missing := custom.Bind(nil); len(missing) == 0 {
			profile.bound = bound
		}
	}
	return problems
}

// overridableParameters finds what overridable lists that is no parameter, and parameters that nobody could give.
func overridableParameters(spec *v1alpha1.ClusterPatternProfileSpec, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	var names []string
	for i := range spec.Custom.Parameters {
		parameter := &spec.Custom.Parameters[i]
		names = append(names, parameter.Name)
		if parameter.Required && !slices.Contains(spec.Overridable, parameter.Name) {
			problems = append(problems, field.Invalid(path.Child("custom", "parameters").Index(i).Child("required"), true, fmt.Sprintf(
				"no Pod could give %s; list it in spec.overridable", parameter.Name)))
		}
	}
	for i, name := range spec.Overridable {
		if !slices.Contains(names, name) {
			problems = append(problems, field.Invalid(path.Child("overridable").Index(i), name,
				"is no parameter; Pods may change parameters of a custom pattern only"))
		}
	}
	return problems
}

// newMatch returns what a match selects.
func newMatch(spec *v1alpha1.ClusterMatch, path *field.Path) (*match, field.ErrorList) {
	m := &match{enforce: spec.Enforce, namespaceSelector: spec.NamespaceSelector, podSelector: spec.PodSelector}
	strict := validation.LabelSelectorValidationOptions{} // as the API server holds webhook configurations to it
	problems := append(
		validation.ValidateLabelSelector(spec.NamespaceSelector, strict, path.Child("namespaceSelector")),
		validation.ValidateLabelSelector(spec.PodSelector, strict, path.Child("podSelector"))...)
	var errs field.ErrorList
	m.conditions, errs = compileConditions(spec.Conditions, path.Child("conditions"))
	if problems = append(problems, errs...); len(problems) > 0 {
		return nil, problems
	}
	m.namespaces, _ = selector(spec.NamespaceSelector, nil) // valid, by the above
	m.pods, _ = selector(spec.PodSelector, nil)
	m.namespaceRequirements, m.podRequirements = requirements(m.namespaces), requirements(m.pods)
	return m, nil
}

// configuration is the configuration file of the pattern's program.
func configuration(injector injectors.Injector, pattern *v1alpha1.Pattern) string {
	if injector.Configuration == nil {
		return ""
	}
	return injector.Configuration(pattern)
}

// selector returns what a label selector selects; nil, everything, if it is absent.
func selector(s *metav1.LabelSelector, path *field.Path) (labels.Selector, field.ErrorList) {
	if s == nil {
		return nil, nil
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path, field.OmitValueType{}, err.Error())}
	}
	return parsed, nil
}

func requirements(s labels.Selector) labels.Requirements {
	if s == nil {
		return nil
	}
	r, _ := s.Requirements()
	return r
}

// decodeInto decodes a JSON value that a schema admits, and so without unknown fields, into a typed struct.
func decodeInto(value, into any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(encoded)))
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}
