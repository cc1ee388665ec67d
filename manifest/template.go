package manifest

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"

	"github.com/mattbaird/jsonpatch"
	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
)

// Template is a Pod, or the Pod template of a workload, in a document.
type Template struct {
	// Document is where it stands.
	Document *Document
	// Path is the JSON pointer of the template in the document, "" for a document that is a Pod.
	Path string
	// Field is the template's path in the workload, for people: "spec.template"; "" for a Pod.
	Field string
	// Line is the line of the file on which the template starts.
	Line int

	// Kind, Name and Namespace are the workload's. The namespace is empty if the manifest leaves it to kubectl.
	Kind, Name, Namespace string
	// Annotations are the workload's own; nil for a Pod, whose template it is itself.
	Annotations map[string]string

	object map[string]any // the template
}

// templatePaths tells where the Pod template of a kind is.
func templatePaths() map[schema.GroupKind]string {
	return map[schema.GroupKind]string{
		{Kind: "Pod"}:                        "",
		{Kind: "PodTemplate"}:                "/template",
		{Kind: "ReplicationController"}:      "/spec/template",
		{Group: "apps", Kind: "Deployment"}:  "/spec/template",
		{Group: "apps", Kind: "StatefulSet"}: "/spec/template",
		{Group: "apps", Kind: "DaemonSet"}:   "/spec/template",
		{Group: "apps", Kind: "ReplicaSet"}:  "/spec/template",
		{Group: "batch", Kind: "Job"}:        "/spec/template",
		{Group: "batch", Kind: "CronJob"}:    "/spec/jobTemplate/spec/template",
	}
}

// Templates returns the Pod templates of a document: one for a workload, one for each workload of a List, none for other kinds.
// A workload without a template is an error.
func (d *Document) Templates() ([]Template, error) {
	if d.Object == nil {
		return nil, nil
	}
	return d.templatesAt(d.Object, "")
}

func (d *Document) templatesAt(object map[string]any, at string) ([]Template, error) {
	group, kind := groupKind(object)
	if items, ok := object["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		return d.templatesOf(items, strings.TrimSuffix(kind, "List"), object["apiVersion"], at)
	}
	path, ok := templatePaths()[schema.GroupKind{Group: group, Kind: kind}]
	if !ok {
		return nil, nil
	}
	field := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	template := Template{Document: d, Path: at + path, Field: field, Kind: kind}
	metadata, _ := object["metadata"].(map[string]any)
	template.Name, _ = metadata["name"].(string)
	if template.Name == "" {
		template.Name, _ = metadata["generateName"].(string)
	}
	template.Namespace, _ = metadata["namespace"].(string)
	if kind != "Pod" {
		template.Annotations = stringMap(metadata["annotations"])
	}
	template.Line = d.lineOf(template.Path)
	template.object, ok = lookUp(object, path).(map[string]any)
	if _, hasSpec := template.object["spec"].(map[string]any); !ok || !hasSpec {
		return nil, d.Errorf(template.Line, "%s has no %s, which is where its containers stand",
			template.Workload(), strings.TrimPrefix(template.Field+".spec", "."))
	}
	return []Template{template}, nil
}

// templatesOf returns the templates of a list's items. The items of a typed list (PodList) may leave out their kind.
func (d *Document) templatesOf(items []any, kind string, apiVersion any, at string) ([]Template, error) {
	var all []Template
	for i, item := range items {
		object, ok := item.(map[string]any)
		if !ok {
			continue
		}
		if _, hasKind := object["kind"]; !hasKind && kind != "" {
			object["kind"], object["apiVersion"] = kind, apiVersion
		}
		templates, err := d.templatesAt(object, at+"/items/"+strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		all = append(all, templates...)
	}
	return all, nil
}

// Workload names the workload for people: "Deployment shop".
func (t *Template) Workload() string {
	if t.Name == "" {
		return t.Kind
	}
	return t.Kind + " " + t.Name
}

// Raw returns the Pod that the template makes, as JSON, with every field that the template has.
func (t *Template) Raw() ([]byte, error) {
	pod := maps.Clone(t.object)
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	if pod["metadata"] == nil {
		pod["metadata"] = map[string]any{} // every Pod that the API server sends has it
	}
	encoded, err := json.Marshal(pod)
	if err != nil {
		return nil, t.Document.Errorf(t.Line, "encode the Pod template of %s: %w", t.Workload(), err)
	}
	return encoded, nil
}

// Pod returns the Pod that the template makes, as the API server would send it for admission but for defaults.
func (t *Template) Pod() (*corev1.Pod, error) {
	encoded, err := t.Raw()
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(encoded, pod); err != nil {
		return nil, t.Document.Errorf(t.Line, "the Pod template of %s is not valid: %w", t.Workload(), err)
	}
	return pod, nil
}

// Operations returns a patch of the Pod as a patch of the document. Every Pod that the API server sends has metadata, but a
// template need not.
func (t *Template) Operations(patch []jsonpatch.JsonPatchOperation) []jsonpatch.JsonPatchOperation {
	var operations []jsonpatch.JsonPatchOperation
	if _, ok := t.object["metadata"].(map[string]any); !ok && len(patch) > 0 {
		operations = append(operations, jsonpatch.NewPatch("add", t.Path+"/metadata", map[string]any{}))
	}
	for _, operation := range patch {
		operation.Path = t.Path + operation.Path
		operations = append(operations, operation)
	}
	return operations
}

func groupKind(object map[string]any) (group, kind string) {
	kind, _ = object["kind"].(string)
	apiVersion, _ := object["apiVersion"].(string)
	group, _, named := strings.Cut(apiVersion, "/")
	if !named {
		group = ""
	}
	return group, kind
}

// lookUp returns what is at a path of object keys, nil if there is nothing.
func lookUp(object map[string]any, path string) any {
	var at any = object
	for _, key := range splitPointer(path) {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[key]
	}
	return at
}

func stringMap(value any) map[string]string {
	object, ok := value.(map[string]any)
	if !ok {
		return nil
	}
	strs := make(map[string]string, len(object))
	for key, value := range object {
		strs[key], _ = value.(string)
	}
	return strs
}

// lineOf returns the line of the file on which a value of the document stands, or as much of the way to it as there is.
func (d *Document) lineOf(pointer string) int {
	at, line := d.root, d.root.Line
	for _, token := range splitPointer(pointer) {
		key, value := child(at, token)
		if value == nil {
			break
		}
		at, line = value, key.Line
	}
	return line + d.offset
}

// child returns the value of a mapping's key, or the item of a sequence, and the node that it starts with; nil if there is none.
func child(node *yaml.Node, token string) (start, value *yaml.Node) {
	switch node.Kind {
	case yaml.AliasNode:
		return child(node.Alias, token)
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == token {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
	}
	return nil, nil
}

// splitPointer returns the reference tokens of a JSON pointer (RFC 6901).
func splitPointer(pointer string) []string {
	if pointer == "" {
		return nil
	}
	tokens := strings.Split(pointer[1:], "/")
	for i := range tokens {
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(tokens[i], "~1", "/"), "~0", "~")
	}
	return tokens
}
