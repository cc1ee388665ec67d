// Package profiles decides which profiles apply to a Pod, and why not: profiles compiled to effective specs, the immutable
// snapshot of them, and Decide, which webhook, command line, controller and tests share. It is pure: it reads no clock, no
// file and no API server.
package profiles

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

	// Problems are why the profile cannot be used; none if it can.
	Problems field.ErrorList

	injector      injectors.Injector
	schema        *schema // of the pattern's field
	document      []byte  // the pattern's field as JSON, with defaults
	configuration string
	overridable   []string
	allowed       labels.Selector // namespaces that may ask; nil: all
	match         *match          // nil: only those that ask
}

// match is who gets a profile without asking.
type match struct {
	namespaces, pods labels.Selector
	// requirements are what namespaces and pods want of labels, for the index.
	namespaceRequirements, podRequirements labels.Requirements
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
	injectors           []injectors.Injector
}

// NewCompiler returns a Compiler. It takes tens of milliseconds, in which the schemas' CEL rules are compiled.
func NewCompiler() (*Compiler, error) {
	c := &Compiler{patterns: map[string]*schema{}, injectors: injectors.All()}
	fields := make([]string, len(c.injectors))
	for i := range c.injectors {
		fields[i] = c.injectors[i].Field
	}
	var err error
	if c.namespaced, _, err = loadSchemas(crds.PatternProfiles, fields); err != nil {
		return nil, err
	}
	cluster, patterns, err := loadSchemas(crds.ClusterPatternProfiles, fields)
	if err != nil {
		return nil, err
	}
	c.cluster = cluster
	for name, props := range patterns {
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

// compile makes a Profile from an object, which is changed.
func (c *Compiler) compile(object map[string]any, cluster bool) *Profile {
	delete(object, "status")
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
		profile.Problems = append(profile.Problems, c.applyPatterns(document)...)
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
		if pattern, ok := document[injector.Field]; ok {
			profile.injector, profile.schema = injector, c.patterns[injector.Field]
			profile.Kind = injector.Kind
			profile.document, _ = json.Marshal(pattern)
		}
	}
	profile.Revision = revision(profile.injector.Field, profile.document)
	profile.FailurePolicy = spec.FailurePolicy
	profile.overridable = spec.Overridable

	problems := profile.injector.Validate(&spec.Pattern, path.Child(profile.injector.Field))
	for i, name := range spec.Overridable {
		if _, err := profile.schema.typeAt(name); err != nil {
			problems = append(problems, field.Invalid(path.Child("overridable").Index(i), name, err.Error()))
		}
	}
	var errs field.ErrorList
	profile.allowed, errs = selector(spec.AllowedNamespaces, path.Child("allowedNamespaces"))
	problems = append(problems, errs...)
	if spec.Match != nil {
		profile.match = &match{}
		profile.match.namespaces, errs = selector(spec.Match.NamespaceSelector, path.Child("match", "namespaceSelector"))
		problems = append(problems, errs...)
		profile.match.pods, errs = selector(spec.Match.PodSelector, path.Child("match", "podSelector"))
		problems = append(problems, errs...)
		profile.match.namespaceRequirements = requirements(profile.match.namespaces)
		profile.match.podRequirements = requirements(profile.match.pods)
	}
	if profile.Problems = problems; len(problems) == 0 {
		profile.Pattern = &spec.Pattern
		profile.configuration = configuration(profile.injector, profile.Pattern)
	}
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

// revision is a hash of an effective spec, short enough to be read and compared by people.
func revision(field string, document []byte) string {
	sum := sha256.Sum256(slices.Concat([]byte(field), []byte{0}, document))
	return hex.EncodeToString(sum[:5])
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
