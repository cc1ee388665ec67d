package injectors

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/expressions"
)

// customTemplate is what a template says once its expressions have their values.
type customTemplate struct {
	Containers       []corev1.Container            `json:"containers,omitempty"`
	InitContainers   []corev1.Container            `json:"initContainers,omitempty"`
	Volumes          []corev1.Volume               `json:"volumes,omitempty"`
	App              []customAddition              `json:"app,omitempty"`
	Labels           map[string]string             `json:"labels,omitempty"`
	Annotations      map[string]string             `json:"annotations,omitempty"`
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	HostAliases      []corev1.HostAlias            `json:"hostAliases,omitempty"`
}

// customAddition is what containers of the app gain.
type customAddition struct {
	Containers   []string             `json:"containers,omitempty"`
	Env          []corev1.EnvVar      `json:"env,omitempty"`
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`
}

func (t *customTemplate) isEmpty() bool {
	return len(t.Containers)+len(t.InitContainers)+len(t.Volumes)+len(t.App)+len(t.Labels)+len(t.Annotations)+
		len(t.ImagePullSecrets)+len(t.HostAliases) == 0
}

// allContainers calls visit with every container and its path.
func (t *customTemplate) allContainers(path *field.Path, visit func(container *corev1.Container, path *field.Path, isInit bool)) {
	for i := range t.InitContainers {
		visit(&t.InitContainers[i], path.Child("initContainers").Index(i), true)
	}
	for i := range t.Containers {
		visit(&t.Containers[i], path.Child("containers").Index(i), false)
	}
}

// shapeKind is what a JSON value has to be.
type shapeKind string

const (
	shapeObject      shapeKind = "an object"
	shapeMap         shapeKind = "an object of values"
	shapeList        shapeKind = "a list"
	shapeText        shapeKind = "a string"
	shapeInteger     shapeKind = "an integer"
	shapeNumber      shapeKind = "a number"
	shapeBool        shapeKind = "true or false"
	shapeQuantity    shapeKind = "a quantity such as 100m or 64Mi"
	shapeIntOrString shapeKind = "an integer or a string"
	shapeAnything    shapeKind = "anything"
)

// shape is the form of the JSON of a Go type. Decoding would find the same faults, but only the first of them, without the index
// in a list that leads there, and not before all expressions have their values.
type shape struct {
	kind    shapeKind
	fields  map[string]*shape
	element *shape
	bits    int
}

// templateShape is the shape of customTemplate.
var templateShape = sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[customTemplate]()) })

func shapeOf(t reflect.Type) *shape {
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		return &shape{kind: shapeQuantity}
	case reflect.TypeFor[intstr.IntOrString]():
		return &shape{kind: shapeIntOrString}
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return &shape{kind: shapeAnything}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Struct:
		s := &shape{kind: shapeObject, fields: map[string]*shape{}}
		addFields(s, t)
		return s
	case reflect.Map:
		return &shape{kind: shapeMap, element: shapeOf(t.Elem())}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &shape{kind: shapeText}
		}
		return &shape{kind: shapeList, element: shapeOf(t.Elem())}
	case reflect.String:
		return &shape{kind: shapeText}
	case reflect.Bool:
		return &shape{kind: shapeBool}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &shape{kind: shapeInteger, bits: t.Bits()}
	case reflect.Float32, reflect.Float64:
		return &shape{kind: shapeNumber}
	default:
		return &shape{kind: shapeAnything}
	}
}

func addFields(s *shape, t reflect.Type) {
	for i := range t.NumField() {
		member := t.Field(i)
		name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
		switch {
		case name == "-" || !member.IsExported():
		case name == "" && member.Anonymous:
			addFields(s, member.Type)
		case name != "":
			s.fields[name] = shapeOf(member.Type)
		}
	}
}

// shapeWalk holds a JSON value to a shape. Expressions in it that have no value are expressions.Open.
type shapeWalk struct {
	// document is the value as it is written, with its expressions, or nil.
	document any
	// unknown are the paths of which nothing is known: those of expressions, and of what is wrong.
	unknown []string
	errs    field.ErrorList
}

// wrong reports what is wrong at its path, where nothing more is known then.
func (w *shapeWalk) wrong(problem *field.Error) {
	w.errs, w.unknown = append(w.errs, problem), append(w.unknown, problem.Field)
}

// value returns a copy of the value without what is wrong or an expression.
func (w *shapeWalk) value(value any, at *shape, path *field.Path, keys []string) any {
	switch value := value.(type) {
	case nil:
		return nil
	case map[string]any:
		if at.kind == shapeObject || at.kind == shapeMap {
			return w.object(value, at, path, keys)
		}
	case []any:
		if at.kind == shapeList {
			return w.list(value, at, path, keys)
		}
	default:
		if problem := at.scalar(value); problem != "" {
			w.wrong(field.Invalid(path, shortened(fmt.Sprint(value)), problem))
			return nil
		}
		if text, isText := value.(string); isText && CheckText(text) != nil {
			w.wrong(field.Invalid(path, shortened(text), CheckText(text).Error()))
			return nil
		}
		return value
	}
	if at.kind == shapeAnything {
		return value
	}
	w.wrong(field.Invalid(path, field.OmitValueType{}, "must be "+string(at.kind)))
	return nil
}

func (w *shapeWalk) object(value map[string]any, at *shape, path *field.Path, keys []string) any {
	object := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(value)) {
		child, element := path.Child(name), at.fields[name]
		if at.kind == shapeMap {
			child, element = path.Key(shortened(name)), at.element
			if err := CheckText(name); err != nil {
				w.errs = append(w.errs, field.Invalid(child, shortened(name), err.Error()))
			}
		}
		if element == nil {
			w.noField(name, at, path)
			continue
		}
		var found any
		if !w.dynamic(value[name], child, append(keys, name)) {
			found = w.value(value[name], element, child, append(keys, name))
		}
		if found == nil && value[name] != nil && at.kind == shapeMap {
			found = element.zero() // for the key to be checked
		}
		if found != nil {
			object[name] = found
		}
	}
	return object
}

// noField reports a field that there is not. Nothing is known of the one that was probably meant.
func (w *shapeWalk) noField(name string, at *shape, path *field.Path) {
	detail := "; there are " + strings.Join(slices.Sorted(maps.Keys(at.fields)), ", ")
	if meant := at.meant(name); meant != "" {
		detail = "; write " + meant
		w.unknown = append(w.unknown, path.Child(meant).String())
	}
	w.wrong(field.Forbidden(path.Child(shortened(name)), "there is no field of that name"+detail))
}

func (w *shapeWalk) list(value []any, at *shape, path *field.Path, keys []string) any {
	list := make([]any, len(value))
	for i := range value {
		child, keys := path.Index(i), append(keys, strconv.Itoa(i))
		if !w.dynamic(value[i], child, keys) {
			if value[i] == nil {
				w.wrong(field.Required(child, "must be "+string(at.element.kind)+", not null"))
			}
			list[i] = w.value(value[i], at.element, child, keys)
		}
		if list[i] == nil {
			list[i] = at.element.zero()
		}
	}
	return list
}

// dynamic notes an expression of whose value nothing is known. What is written there is checked in any case.
func (w *shapeWalk) dynamic(value any, path *field.Path, keys []string) bool {
	if text, isText := valueAt(w.document, keys).(string); isText && hasExpression(text) && CheckText(text) != nil {
		w.wrong(field.Invalid(path, shortened(text), CheckText(text).Error()))
		return true
	}
	if _, isOpen := value.(expressions.Open); !isOpen {
		return false
	}
	w.unknown = append(w.unknown, path.String())
	return true
}

// meant returns the field that was probably meant by a name, or "".
func (s *shape) meant(name string) string {
	for _, known := range slices.Sorted(maps.Keys(s.fields)) {
		if strings.EqualFold(known, name) || strings.EqualFold(known, name+"s") || strings.EqualFold(known+"s", name) ||
			strings.EqualFold(known+"e", name) {
			return known
		}
	}
	return ""
}

// zero stands for an element of a list of which nothing is known.
func (s *shape) zero() any {
	switch s.kind {
	case shapeObject, shapeMap:
		return map[string]any{}
	case shapeList:
		return []any{}
	case shapeText, shapeIntOrString, shapeAnything:
		return ""
	case shapeBool:
		return false
	default:
		return int64(0)
	}
}

// scalar says why a string, a number or a boolean is not what is wanted. Empty: it is.
func (s *shape) scalar(value any) string {
	text, isText := value.(string)
	_, isBool := value.(bool)
	number, isInteger, isNumber := numberText(value)
	wrong := "must be " + string(s.kind)
	switch s.kind {
	case shapeAnything:
		return ""
	case shapeText:
		if isNumber || isBool {
			return wrong + "; put it in quotes, or write ${string(…)} if an expression yields it"
		}
		return unless(isText, wrong)
	case shapeBool:
		return unless(isBool, wrong)
	case shapeNumber:
		return unless(isNumber, wrong)
	case shapeInteger:
		if isInteger && s.bits == 32 {
			_, err := strconv.ParseInt(number, 10, 32)
			return unless(err == nil, "is too large")
		}
		return unless(isInteger, wrong)
	case shapeIntOrString:
		if isInteger {
			_, err := strconv.ParseInt(number, 10, 32)
			return unless(err == nil, "is too large")
		}
		return unless(isText, wrong)
	case shapeQuantity:
		if isNumber {
			text = number
		}
		_, err := readQuantity(text)
		return unless((isText || isNumber) && err == nil, wrong)
	default:
		return wrong
	}
}

func unless(right bool, problem string) string {
	if right {
		return ""
	}
	return problem
}

// decodeTemplate decodes a value that was held to the shape.
func decodeTemplate(value any) (*customTemplate, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	if len(encoded) > maxRenderedBytes {
		return nil, fmt.Errorf("makes %d bytes; at most %d are allowed", len(encoded), maxRenderedBytes)
	}
	template := &customTemplate{}
	strict, err := kjson.UnmarshalStrict(encoded, template)
	if err != nil {
		return nil, err
	}
	if len(strict) > 0 {
		return nil, strict[0]
	}
	return template, nil
}
