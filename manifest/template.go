package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/mattbaird/jsonpatch"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/profiles"
)

// Template is a Pod, or the Pod template of a workload, in a document.
type Template struct {
	// Document is where it stands.
	Document *Document
	// Path is the JSON pointer of the template in the document, "" for a document that is a Pod.
	Path string
	// Field is the template's path in the workload, for people: "spec.template"; "" for a Pod.
	Field string
	// Own is the JSON pointer of the workload: "", or that of an item of a List.
	Own string
	// Position is where the template starts in the file, and Line is the line of that.
	Position Position
	Line     int

	// Kind, Name and Namespace are the workload's. The namespace is empty if the manifest leaves it to kubectl.
	Kind, Name, Namespace string
	// Annotations and Labels are the workload's own; nil for a Pod, whose template it is itself.
	Annotations, Labels map[string]string
	// JobMeta has the annotations and labels of a CronJob's Job template; nil for other kinds.
	JobMeta *metav1.ObjectMeta
	// ClaimVolumes are the names of the volumes that the controller of a StatefulSet adds to its Pods.
	ClaimVolumes []string

	object map[string]any // the template
}

// templatePaths are where the Pod template of a kind is.
var templatePaths = map[schema.GroupKind]string{
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

// Templates returns the Pod templates of a document: one for a workload, one for each workload of a List, none for other kinds.
// A workload without a template is an error, beside the templates of the others.
func (d *Document) Templates() ([]Template, error) {
	var all []Template
	var errs []error
	for _, object := range d.Objects() {
		template, err := object.Template()
		switch {
		case err != nil:
			errs = append(errs, err)
		case template != nil:
			all = append(all, *template)
		}
	}
	return all, errors.Join(errs...)
}

// IsWorkload tells whether the object is of a kind that has a Pod template, or a Pod.
func (o *Object) IsWorkload() bool {
	group, kind := o.GroupKind()
	_, ok := templatePaths[schema.GroupKind{Group: group, Kind: kind}]
	return ok
}

// Template returns the Pod template of a workload, nil for other kinds. A workload without one is an error.
func (o *Object) Template() (*Template, error) {
	d, object, at := o.Document, o.Fields, o.Pointer
	group, kind := groupKind(object)
	path, ok := templatePaths[schema.GroupKind{Group: group, Kind: kind}]
	if !ok {
		return nil, nil
	}
	field := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	template := Template{Document: d, Path: at + path, Own: at, Field: field, Kind: kind}
	metadata, _ := object["metadata"].(map[string]any)
	template.Name, _ = metadata["name"].(string)
	if template.Name == "" {
		template.Name, _ = metadata["generateName"].(string)
	}
	template.Namespace, _ = metadata["namespace"].(string)
	if kind != "Pod" {
		template.Annotations, template.Labels = stringMap(metadata["annotations"]), stringMap(metadata["labels"])
	}
	switch kind {
	case "CronJob":
		job, _ := lookUp(object, "/spec/jobTemplate/metadata").(map[string]any)
		template.JobMeta = &metav1.ObjectMeta{Annotations: stringMap(job["annotations"]), Labels: stringMap(job["labels"])}
	case "StatefulSet":
		template.ClaimVolumes = claimVolumes(object)
	}
	template.object, ok = lookUp(object, path).(map[string]any)
	template.Position = d.Position(template.Path)
	template.Line = template.Position.Line
	if _, hasSpec := template.object["spec"].(map[string]any); !ok || !hasSpec {
		return nil, d.ErrorAt(template.Position, "%s has no %s, which is where its containers stand",
			template.Workload(), strings.TrimPrefix(template.Field+".spec", "."))
	}
	return &template, nil
}

// claimVolumes returns the names of a StatefulSet's volume claim templates, as far as they have one.
func claimVolumes(object map[string]any) (names []string) {
	claims, _ := lookUp(object, "/spec/volumeClaimTemplates").([]any)
	for _, claim := range claims {
		claim, _ := claim.(map[string]any)
		if name, _ := lookUp(claim, "/metadata/name").(string); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Misplaced tells of what asks for profiles where nothing reads it. pod is the Pod that the template makes.
func (t *Template) Misplaced(pod *corev1.Pod) []string {
	if t.Kind == "Pod" {
		return profiles.Misplaced(nil, nil, &pod.ObjectMeta, "")
	}
	return profiles.Misplaced(&metav1.ObjectMeta{Annotations: t.Annotations, Labels: t.Labels}, t.JobMeta, &pod.ObjectMeta, t.Field)
}

// At returns where a field of the template stands, by its path there ("spec.containers[0]"), or what of the way to it there is.
func (t *Template) At(path string) Position { return t.Document.FieldPosition(t.Path, path) }

// OwnAt is At for a field of the workload itself.
func (t *Template) OwnAt(path string) Position { return t.Document.FieldPosition(t.Own, path) }

// ErrorAt returns an *Error about the workload, at a place in its document.
func (t *Template) ErrorAt(at Position, format string, args ...any) error {
	return t.Document.ErrorAt(at, "%s: %w", t.Workload(), fmt.Errorf(format, args...))
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
		return nil, t.Document.ErrorAt(t.Position, "encode the Pod template of %s: %w", t.Workload(), err)
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
		return nil, t.typeError(err)
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

// index reads a reference token as an index of a list.
func index(token string) (int, bool) {
	i, err := strconv.Atoi(token)
	return i, err == nil && i >= 0
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
