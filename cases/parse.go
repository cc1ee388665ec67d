package cases

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// Kind is the kind of the documents.
const Kind = "PatternTest"

// test is a document.
type test struct {
	at         value
	profiles   []value // texts and mappings
	namespaces []namespace
	settings   *value
	cases      []*testCase
}

// namespace is what a document says of a namespace.
type namespace struct {
	at                  value
	name                string
	inline              bool // it says what there is to know
	labels, annotations map[string]string
}

// testCase is a case. What resolve fills in comes last.
type testCase struct {
	name      string
	file      string
	line      int
	namespace *namespace // nil: the Pod's own, or "default"
	pod       *value
	raw       []byte // of the Pod written in the case
	manifest  *value
	object    *value
	user      *authenticationv1.UserInfo // nil: by what creates the Pod
	dryRun    bool
	settings  *value
	expect    expectation

	golden  string // its path
	request request
	world   *world
}

// test reads a document. names are those of the file's cases so far, with their lines.
func (r *reader) test(names map[string]int) *test {
	root := value{in: r, content: r.document.Object}
	t := &test{at: root}
	if !root.isTest() {
		return t
	}
	fields := root.fields("", "apiVersion", "kind", "metadata", "profiles", "configuration", "namespaces", "cases")
	if v, ok := fields["metadata"]; ok {
		if name, ok := v.fields("{name: site}", "name")["name"]; ok {
			name.text()
		}
	}
	if v, ok := fields["profiles"]; ok {
		t.profiles = v.profiles()
	}
	if v, ok := fields["configuration"]; ok {
		t.settings = &v
	}
	if v, ok := fields["namespaces"]; ok {
		t.namespaces = v.namespaces()
	}
	cases, ok := fields["cases"]
	if !ok {
		if !root.has("cases") {
			root.problem("there are no cases; write a list of them: cases: [{name: ..., pod: {...}, expect: {allowed: true}}]")
		}
		return t
	}
	items := cases.list("[{name: a Pod that asks gets its site, pod: {...}, expect: {allowed: true}}]")
	if len(items) == 0 {
		cases.problem("there is no case; write one")
	}
	for _, item := range items {
		t.cases = append(t.cases, item.testCase(names))
	}
	return t
}

// isTest tells whether a document is a PatternTest.
func (v value) isTest() bool {
	object, _ := v.content.(map[string]any)
	want := fmt.Sprintf("apiVersion: %s and kind: %s", v1alpha1.GroupVersion, Kind)
	switch apiVersion, kind := object["apiVersion"], object["kind"]; {
	case apiVersion == nil && kind == nil:
		v.problem("this is no %s: write %s, and give files that are something else another name", Kind, want)
	case kind != Kind && (kind == "ClusterPatternProfile" || kind == "PatternProfile"):
		v.problem("this is a %s: write it below profiles of the %s, or into a file that is named there", kind, Kind)
	case kind != Kind:
		v.under("kind", kind).problem("%s; write %s", describe(kind), want)
	case apiVersion != v1alpha1.GroupVersion.String():
		v.under("apiVersion", apiVersion).problem("%s; write %s", describe(apiVersion), v1alpha1.GroupVersion)
	default:
		return true
	}
	return false
}

// profiles returns the paths of profiles and the profiles that are written here.
func (v value) profiles() []value {
	var all []value
	items := v.list("[../profiles/, site.yaml]")
	if len(items) == 0 {
		v.problem("there is nothing in it; write files or directories with profiles, or the profiles themselves")
	}
	for _, item := range items {
		switch content := item.content.(type) {
		case string:
			if _, ok := item.text(); ok {
				all = append(all, item)
			}
		case map[string]any:
			if content["kind"] != "ClusterPatternProfile" && content["kind"] != "PatternProfile" {
				item.problem("this is no profile: write a path, or a profile with its apiVersion, kind, metadata and spec")
				continue
			}
			if content["apiVersion"] != v1alpha1.GroupVersion.String() {
				item.under("apiVersion", nil).problem("%s; write %s", describe(content["apiVersion"]), v1alpha1.GroupVersion)
				continue
			}
			all = append(all, item)
		default:
			item.problem("%s; write a path, or a profile", describe(item.content))
		}
	}
	return all
}

const namespaceExample = "{name: shop, labels: {team: web}}"

func (v value) namespaces() []namespace {
	var all []namespace
	for _, item := range v.list("[" + namespaceExample + "]") {
		one, ok := item.namespace()
		if !ok {
			continue
		}
		if slices.ContainsFunc(all, func(n namespace) bool { return n.name == one.name }) {
			item.problem("the namespace %s is there twice; remove one of them", one.name)
			continue
		}
		all = append(all, one)
	}
	return all
}

// namespace reads a namespace with its labels and annotations.
func (v value) namespace() (namespace, bool) {
	n := namespace{at: v, inline: true}
	fields := v.fields(namespaceExample, "name", "labels", "annotations")
	if fields == nil {
		return n, false
	}
	if labels, ok := fields["labels"]; ok {
		n.labels = labels.strings("{team: web}")
	}
	if annotations, ok := fields["annotations"]; ok {
		n.annotations = annotations.strings("{region: eu}")
	}
	name, ok := fields["name"]
	if !ok {
		v.problem("it has no name; write one: %s", namespaceExample)
		return n, false
	}
	n.name, ok = name.namespaceName()
	return n, ok
}

func (v value) namespaceName() (string, bool) {
	name, ok := v.text()
	if ok && len(validation.IsDNS1123Label(name)) > 0 {
		v.problem("%q is not the name of a namespace: that has lower-case letters, digits and dashes", name)
		return name, false
	}
	return name, ok
}

const caseExample = "{name: a Pod that asks gets its site, namespace: shop, pod: {...}, expect: {allowed: true}}"

func (v value) testCase(names map[string]int) *testCase {
	c := &testCase{file: v.in.document.File, line: v.line()}
	fields := v.fields(caseExample, "name", "namespace", "pod", "file", "object", "user", "dryRun", "configuration", "expect")
	if fields == nil {
		return c
	}
	c.name = v.caseName(fields, names)
	if field, ok := fields["namespace"]; ok {
		c.namespace = field.reference()
	}
	c.source(v, fields)
	if field, ok := fields["user"]; ok {
		c.user = field.user()
	}
	if field, ok := fields["dryRun"]; ok {
		c.dryRun, _ = field.boolean()
	}
	if field, ok := fields["configuration"]; ok {
		c.settings = &field
	}
	if field, ok := fields["expect"]; ok {
		c.expect = field.expectation()
	} else if !v.has("expect") {
		v.problem("it expects nothing; write what should become of the Pod: expect: {allowed: true}")
	}
	return c
}

// caseName returns the name of a case, which no other of the file has.
func (v value) caseName(fields map[string]value, names map[string]int) string {
	field, ok := fields["name"]
	if !ok {
		v.problem("it has no name; write a sentence that says what is expected")
		return ""
	}
	name, ok := field.text()
	if !ok {
		return ""
	}
	if strings.ContainsAny(name, "\r\n") {
		field.problem("is of several lines; write one sentence")
	}
	if line, taken := names[name]; taken {
		field.problem("the case on line %d has this name already; write what differs", line)
		return name
	}
	names[name] = field.line()
	return name
}

// reference reads a namespace that is named, or described.
func (v value) reference() *namespace {
	if _, ok := v.content.(string); ok {
		name, ok := v.namespaceName()
		if !ok {
			return nil
		}
		return &namespace{at: v, name: name}
	}
	if n, ok := v.namespace(); ok {
		return &n
	}
	return nil
}

// source reads where the Pod is from.
func (c *testCase) source(at value, fields map[string]value) {
	pod, written := fields["pod"]
	file, named := fields["file"]
	object, chosen := fields["object"]
	switch {
	case written && named:
		file.problem("pod says what the Pod is already; remove one of them")
	case written && chosen:
		object.problem("it chooses from a file; write file, or remove it")
	case written:
		c.pod = &pod
		c.raw = pod.pod()
	case named:
		if path, ok := file.text(); ok && !filepath.IsAbs(path) {
			c.manifest = &file
		} else if ok {
			file.problem("%q is absolute; write the path from this file", path)
		}
		if chosen {
			c.object = &object
			if text, ok := object.text(); !ok || !isObject(text) {
				object.problem("%s; write kind and name: Deployment/shop", describe(object.content))
				c.manifest = nil
			}
		}
	default:
		at.problem("it has no Pod; write pod: {...}, or file: PATH to take it from a manifest")
	}
}

func isObject(text string) bool { return regexp.MustCompile(`^[A-Za-z]+/[^/\s]+$`).MatchString(text) }

var unknownField = regexp.MustCompile(`^unknown field "(.*)"$`)

// pod reads a Pod, of which apiVersion and kind may be left out, and returns it as JSON.
func (v value) pod() []byte {
	content, ok := v.mapping("{metadata: {annotations: {...}}, spec: {containers: [{name: app}]}}")
	if !ok {
		return nil
	}
	written := maps.Clone(content)
	for key, want := range map[string]string{"apiVersion": "v1", "kind": "Pod"} {
		if written[key] != nil && written[key] != want {
			v.under(key, written[key]).problem("%s; write a Pod here, and take the template of a workload by file", describe(written[key]))
			return nil
		}
		written[key] = want
	}
	if written["metadata"] == nil {
		written["metadata"] = map[string]any{} // every Pod that the API server sends has it
	}
	raw, err := json.Marshal(written)
	if err != nil {
		v.problem("it cannot be encoded: %v", err)
		return nil
	}
	pod := corev1.Pod{}
	strict, err := kjson.UnmarshalStrict(raw, &pod, kjson.DisallowUnknownFields)
	if err != nil {
		v.problem("this is no valid Pod: %s", strings.TrimPrefix(err.Error(), "json: "))
		return nil
	}
	for _, err := range strict {
		found := unknownField.FindStringSubmatch(err.Error())
		if found == nil {
			v.problem("%v", err)
			continue
		}
		field := value{in: v.in, pointer: v.pointer + pointerOf(found[1]), field: v.field + "." + found[1]}
		field.problem("a Pod has no such field")
	}
	if len(pod.Spec.Containers) == 0 {
		v.problem("it has no spec.containers; a Pod has one at least: spec: {containers: [{name: app}]}")
		return nil
	}
	return raw
}

// pointerOf returns a path of fields as a JSON pointer: spec.containers[0] is /spec/containers/0.
func pointerOf(field string) string {
	return "/" + strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(field)
}

// user reads who creates the Pod: a name, or all that is known.
func (v value) user() *authenticationv1.UserInfo {
	user := &authenticationv1.UserInfo{}
	if name, ok := v.content.(string); ok {
		v.text()
		user.Username, user.Groups = name, groupsOf(name)
		return user
	}
	fields := v.fields("{username: jane, groups: [developers]}", "username", "uid", "groups", "extra")
	if fields == nil {
		return nil
	}
	if field, ok := fields["username"]; ok {
		user.Username, _ = field.text()
	} else {
		v.problem("it has no username; write one: {username: jane, groups: [developers]}")
	}
	if field, ok := fields["uid"]; ok {
		user.UID, _ = field.text()
	}
	user.Groups = groupsOf(user.Username)
	if field, ok := fields["groups"]; ok {
		for _, group := range field.texts("[developers]") {
			if !slices.Contains(user.Groups, group) {
				user.Groups = append(user.Groups, group)
			}
		}
	}
	if field, ok := fields["extra"]; ok {
		content, _ := field.mapping("{scopes: [write]}")
		for _, key := range slices.Sorted(maps.Keys(content)) {
			if user.Extra == nil {
				user.Extra = map[string]authenticationv1.ExtraValue{}
			}
			user.Extra[key] = field.under(key, content[key]).texts("[write]")
		}
	}
	return user
}

// groupsOf returns the groups that the API server gives a user.
func groupsOf(name string) []string {
	account, ok := strings.CutPrefix(name, "system:serviceaccount:")
	if namespace, _, named := strings.Cut(account, ":"); ok && named {
		return []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}
	}
	return []string{"system:authenticated"}
}
