package manifest

import (
	"strconv"
	"strings"
)

// Object is an object of the API in a document: the document itself, or an item of the List that it is.
type Object struct {
	Document *Document
	// Pointer is the JSON pointer of the object in the document, "" for the document itself.
	Pointer string
	// Fields is the object's decoded JSON.
	Fields map[string]any
}

// Objects returns the object of a document, or the items of a List, and of Lists among these. The items of a typed list (PodList) may
// leave out their kind, and get it.
func (d *Document) Objects() []Object {
	if d.Object == nil {
		return nil
	}
	return d.objectsAt(nil, d.Object, "")
}

func (d *Document) objectsAt(found []Object, object map[string]any, pointer string) []Object {
	kind, _ := object["kind"].(string)
	items, ok := object["items"].([]any)
	if !ok || !strings.HasSuffix(kind, "List") {
		return append(found, Object{Document: d, Pointer: pointer, Fields: object})
	}
	kind = strings.TrimSuffix(kind, "List")
	for i, item := range items {
		fields, ok := item.(map[string]any)
		if !ok {
			continue
		}
		if _, hasKind := fields["kind"]; !hasKind && kind != "" {
			fields["kind"], fields["apiVersion"] = kind, object["apiVersion"]
		}
		found = d.objectsAt(found, fields, pointer+"/items/"+strconv.Itoa(i))
	}
	return found
}

// GroupKind returns the object's API group and kind, as far as it has them.
func (o *Object) GroupKind() (group, kind string) { return groupKind(o.Fields) }

// Value returns what is at a path of keys, nil if there is nothing.
func (o *Object) Value(path ...string) any {
	var at any = o.Fields
	for _, key := range path {
		object, _ := at.(map[string]any)
		at = object[key]
	}
	return at
}

// Metadata returns a text of the object's metadata, "" if it has none.
func (o *Object) Metadata(field string) string {
	metadata, _ := o.Fields["metadata"].(map[string]any)
	text, _ := metadata[field].(string)
	return text
}

// Strings returns the annotations or labels of the object's metadata.
func (o *Object) Strings(field string) map[string]string {
	metadata, _ := o.Fields["metadata"].(map[string]any)
	return stringMap(metadata[field])
}

// At returns where a field of the object stands, by its path, or what of the way to it there is.
func (o *Object) At(path string) Position { return o.Document.FieldPosition(o.Pointer, path) }
