package expressions

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// View returns what CEL sees of an object of the Kubernetes API: what its JSON would hold, made as it is read and not
// before, less metadata.managedFields. It reads the object, and nothing changes it; it must not change while the view is
// in use. What is JSON already (map[string]any, []any and the like) is returned as it is.
func View(object any) any {
	switch object.(type) {
	case nil, map[string]any, []any, string, bool, int64, float64:
		return object
	}
	return viewOf(reflect.ValueOf(object))
}

// scalars are the types that have a form of their own in JSON, and are read often enough not to be encoded for it.
var (
	quantityType    = reflect.TypeFor[resource.Quantity]()
	timeType        = reflect.TypeFor[metav1.Time]()
	intOrStringType = reflect.TypeFor[intstr.IntOrString]()
	bytesType       = reflect.TypeFor[[]byte]()
	marshalerType   = reflect.TypeFor[json.Marshaler]()
	objectMetaType  = reflect.TypeFor[metav1.ObjectMeta]()
)

// viewOf returns the CEL value of a Go value.
func viewOf(value reflect.Value) ref.Val {
	for value.IsValid() && (value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface) {
		if value.IsNil() {
			return types.NullValue
		}
		value = value.Elem()
	}
	if !value.IsValid() {
		return types.NullValue
	}
	switch value.Kind() {
	case reflect.String:
		return types.String(value.String())
	case reflect.Bool:
		return types.Bool(value.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return types.Int(value.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return types.DefaultTypeAdapter.NativeToValue(int64(value.Uint()))
	case reflect.Float32, reflect.Float64:
		return types.Double(value.Float())
	case reflect.Slice, reflect.Array:
		return viewOfSlice(value)
	case reflect.Map:
		return viewOfMap(value)
	case reflect.Struct:
		return viewOfStruct(value)
	default:
		return types.NewErr("a %s has no JSON", value.Type())
	}
}

func viewOfSlice(value reflect.Value) ref.Val {
	switch {
	case value.Kind() == reflect.Slice && value.IsNil():
		return types.NullValue
	case value.Type() == bytesType:
		return types.String(base64.StdEncoding.EncodeToString(value.Bytes()))
	case implements(value.Type(), marshalerType):
		return marshaled(value)
	default:
		return &listView{value: value}
	}
}

func viewOfMap(value reflect.Value) ref.Val {
	switch {
	case value.IsNil():
		return types.NullValue
	case implements(value.Type(), marshalerType) || value.Type().Key().Kind() != reflect.String:
		return marshaled(value)
	case value.Type().ConvertibleTo(stringMapType) && value.Type().Elem().Kind() == reflect.String:
		return &mapView{source: stringMap(value.Convert(stringMapType).Interface().(map[string]string))}
	default:
		return &mapView{source: reflectedMap{value}}
	}
}

var stringMapType = reflect.TypeFor[map[string]string]()

func viewOfStruct(value reflect.Value) ref.Val {
	switch value.Type() {
	case quantityType:
		quantity := value.Interface().(resource.Quantity)
		return types.String(quantity.String())
	case intOrStringType:
		number := value.Interface().(intstr.IntOrString)
		if number.Type == intstr.String {
			return types.String(number.StrVal)
		}
		return types.Int(number.IntVal)
	case timeType:
		at := value.Interface().(metav1.Time)
		if at.IsZero() {
			return types.NullValue
		}
		return types.String(at.UTC().Format("2006-01-02T15:04:05Z07:00"))
	}
	table := fieldsOf(value.Type())
	if table.marshals {
		return marshaled(value)
	}
	return &mapView{source: structSource{value: value, table: table}}
}

// marshaled returns the CEL value of the JSON of what encodes itself.
func marshaled(value reflect.Value) ref.Val {
	if value.Kind() != reflect.Pointer && reflect.PointerTo(value.Type()).Implements(marshalerType) {
		// A method of the pointer gets a copy, so that it cannot change the object.
		copied := reflect.New(value.Type())
		copied.Elem().Set(value)
		value = copied
	}
	encoded, err := json.Marshal(value.Interface())
	if err != nil {
		return types.NewErr("cannot be read: %v", err)
	}
	var decoded any
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		return types.NewErr("cannot be read: %v", err)
	}
	return types.DefaultTypeAdapter.NativeToValue(decoded)
}

func implements(of, wanted reflect.Type) bool {
	return of.Implements(wanted) || reflect.PointerTo(of).Implements(wanted)
}

// source is what a mapView reads.
type source interface {
	find(key string) (ref.Val, bool)
	// keys are sorted.
	keys() []string
	size() int
	// work is how much is looked at to know the keys.
	work() int
}

// stringMap reads a map of strings.
type stringMap map[string]string

func (s stringMap) find(key string) (ref.Val, bool) {
	value, ok := s[key]
	return types.String(value), ok
}

func (s stringMap) keys() []string { return slices.Sorted(maps.Keys(s)) }

func (s stringMap) size() int { return len(s) }
func (s stringMap) work() int { return len(s) }

// reflectedMap reads another map whose keys are strings.
type reflectedMap struct{ value reflect.Value }

func (r reflectedMap) find(key string) (ref.Val, bool) {
	element := r.value.MapIndex(reflect.ValueOf(key).Convert(r.value.Type().Key()))
	if !element.IsValid() {
		return nil, false
	}
	return viewOf(element), true
}

func (r reflectedMap) keys() []string {
	keys := make([]string, 0, r.value.Len())
	for _, key := range r.value.MapKeys() {
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}

func (r reflectedMap) size() int { return r.value.Len() }
func (r reflectedMap) work() int { return r.value.Len() }

// structSource reads a struct by the names of its fields in JSON.
type structSource struct {
	value reflect.Value
	table *fieldTable
}

func (s structSource) find(key string) (ref.Val, bool) {
	index, ok := s.table.byName[key]
	if !ok {
		return nil, false
	}
	value, ok := s.table.fields[index].read(s.value)
	if !ok {
		return nil, false
	}
	return viewOf(value), true
}

func (s structSource) keys() []string {
	keys := make([]string, 0, len(s.table.fields))
	for i := range s.table.fields {
		if _, ok := s.table.fields[i].read(s.value); ok {
			keys = append(keys, s.table.fields[i].name)
		}
	}
	return keys
}

func (s structSource) size() int {
	size := 0
	for i := range s.table.fields {
		if _, ok := s.table.fields[i].read(s.value); ok {
			size++
		}
	}
	return size
}

func (s structSource) work() int { return len(s.table.fields) }

// fieldTable is what is known of a struct's type.
type fieldTable struct {
	// fields are sorted by name.
	fields []jsonField
	byName map[string]int
	// marshals is set of a type that has its own JSON.
	marshals bool
}

// jsonField is how a field of a struct, or of one embedded in it, is found.
type jsonField struct {
	name      string
	index     []int
	omitEmpty bool
	omitZero  bool
	// isZero is set where the type says itself when it is zero.
	isZero bool
}

// read returns the field's value, and false where the JSON would not have it.
func (f *jsonField) read(of reflect.Value) (reflect.Value, bool) {
	for _, index := range f.index {
		if of.Kind() == reflect.Pointer {
			if of.IsNil() {
				return reflect.Value{}, false
			}
			of = of.Elem()
		}
		of = of.Field(index)
	}
	if f.omitEmpty && isEmpty(of) || f.omitZero && f.isZeroValue(of) {
		return reflect.Value{}, false
	}
	return of, true
}

func (f *jsonField) isZeroValue(value reflect.Value) bool {
	if !f.isZero {
		return value.IsZero()
	}
	if value.Kind() == reflect.Pointer && value.IsNil() {
		return true
	}
	if !value.Type().Implements(zeroerType) {
		copied := reflect.New(value.Type())
		copied.Elem().Set(value)
		value = copied
	}
	return value.Interface().(zeroer).IsZero()
}

type zeroer interface{ IsZero() bool }

var zeroerType = reflect.TypeFor[zeroer]()

// isEmpty is what encoding/json takes for empty.
func isEmpty(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return value.Len() == 0
	case reflect.Struct:
		return false
	default:
		return value.IsZero()
	}
}

// fieldTables are the tables that have been made, by type: there are as many as types are read.
var fieldTables sync.Map

func fieldsOf(of reflect.Type) *fieldTable {
	if known, ok := fieldTables.Load(of); ok {
		return known.(*fieldTable)
	}
	table := &fieldTable{marshals: implements(of, marshalerType), byName: map[string]int{}}
	if !table.marshals {
		table.fields = collectFields(of)
	}
	for i, field := range table.fields {
		table.byName[field.name] = i
	}
	known, _ := fieldTables.LoadOrStore(of, table)
	return known.(*fieldTable)
}

// collectFields returns the fields that encoding/json would write, sorted by name.
func collectFields(of reflect.Type) []jsonField {
	fields := appendFields(nil, of, nil)
	slices.SortFunc(fields, func(a, b jsonField) int {
		return cmp.Or(strings.Compare(a.name, b.name), len(a.index)-len(b.index))
	})
	// Of two of one name the outer one is written.
	return slices.CompactFunc(fields, func(a, b jsonField) bool { return a.name == b.name })
}

// appendFields adds the fields of a struct, and of those that are inline in it, which is at an index of an outer one.
func appendFields(fields []jsonField, of reflect.Type, at []int) []jsonField {
	for i := range of.NumField() {
		field := of.Field(i)
		index := append(slices.Clone(at), i)
		tag := field.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if field.Anonymous && name == "" && embedded(field.Type).Kind() == reflect.Struct {
			fields = appendFields(fields, embedded(field.Type), index)
			continue
		}
		if !field.IsExported() || tag == "-" || of == objectMetaType && name == "managedFields" {
			continue
		}
		fields = append(fields, jsonField{
			name:      cmp.Or(name, field.Name),
			index:     index,
			omitEmpty: hasOption(options, "omitempty"),
			omitZero:  hasOption(options, "omitzero"),
			isZero:    implements(field.Type, zeroerType),
		})
	}
	return fields
}

func embedded(of reflect.Type) reflect.Type {
	if of.Kind() == reflect.Pointer {
		return of.Elem()
	}
	return of
}

func hasOption(options, wanted string) bool {
	return slices.Contains(strings.Split(options, ","), wanted)
}
