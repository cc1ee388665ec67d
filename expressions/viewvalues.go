package expressions

import (
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// mapView is a CEL map of an object.
type mapView struct{ source source }

var _ traits.Mapper = (*mapView)(nil)

// Find implements traits.Mapper.
func (m *mapView) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	return m.source.find(string(name))
}

// Get implements traits.Indexer.
func (m *mapView) Get(key ref.Val) ref.Val {
	if value, ok := m.Find(key); ok {
		return value
	}
	return types.ValOrErr(key, "no such key: %v", key)
}

// Contains implements traits.Container.
func (m *mapView) Contains(key ref.Val) ref.Val {
	_, ok := m.Find(key)
	return types.Bool(ok)
}

// Size implements traits.Sizer.
func (m *mapView) Size() ref.Val { return types.Int(m.source.size()) }

// IsZeroValue implements traits.Zeroer.
func (m *mapView) IsZeroValue() bool { return m.source.size() == 0 }

// Iterator implements traits.Iterable. Keys come sorted.
func (m *mapView) Iterator() traits.Iterator {
	keys := m.source.keys()
	return newIterator(len(keys), func(i int) ref.Val { return types.String(keys[i]) })
}

// Equal implements ref.Val.
func (m *mapView) Equal(other ref.Val) ref.Val {
	others, ok := other.(traits.Mapper)
	if !ok || m.Size() != others.Size() {
		return types.False
	}
	for _, key := range m.source.keys() {
		theirs, ok := others.Find(types.String(key))
		if !ok || types.Equal(m.Get(types.String(key)), theirs) != types.True {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (m *mapView) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (m *mapView) Value() any { return m }

// ConvertToType implements ref.Val.
func (m *mapView) ConvertToType(wanted ref.Type) ref.Val {
	return convertView(m, types.MapType, wanted)
}

// ConvertToNative implements ref.Val.
func (m *mapView) ConvertToNative(wanted reflect.Type) (any, error) {
	return types.NewRefValMap(types.DefaultTypeAdapter, m.entries()).ConvertToNative(wanted)
}

func (m *mapView) entries() map[ref.Val]ref.Val {
	entries := make(map[ref.Val]ref.Val)
	for _, key := range m.source.keys() {
		entries[types.String(key)] = m.Get(types.String(key))
	}
	return entries
}

// listView is a CEL list of a slice.
type listView struct{ value reflect.Value }

var _ traits.Lister = (*listView)(nil)

// Get implements traits.Indexer.
func (l *listView) Get(index ref.Val) ref.Val {
	i, err := types.IndexOrError(index)
	if err != nil {
		return types.WrapErr(err)
	}
	if i < 0 || i >= l.value.Len() {
		return types.NewErr("index out of bounds: %d", i)
	}
	return viewOf(l.value.Index(i))
}

// Contains implements traits.Container.
func (l *listView) Contains(wanted ref.Val) ref.Val {
	for i := range l.value.Len() {
		if types.Equal(viewOf(l.value.Index(i)), wanted) == types.True {
			return types.True
		}
	}
	return types.False
}

// Size implements traits.Sizer.
func (l *listView) Size() ref.Val { return types.Int(l.value.Len()) }

// IsZeroValue implements traits.Zeroer.
func (l *listView) IsZeroValue() bool { return l.value.Len() == 0 }

// Iterator implements traits.Iterable.
func (l *listView) Iterator() traits.Iterator {
	return newIterator(l.value.Len(), func(i int) ref.Val { return viewOf(l.value.Index(i)) })
}

// Add implements traits.Adder.
func (l *listView) Add(other ref.Val) ref.Val {
	if joined, ok := joinLists(l, other); ok {
		return joined
	}
	return types.MaybeNoSuchOverloadErr(other)
}

// Equal implements ref.Val.
func (l *listView) Equal(other ref.Val) ref.Val {
	others, ok := other.(traits.Lister)
	if !ok || l.Size() != others.Size() {
		return types.False
	}
	for i := range l.value.Len() {
		if types.Equal(viewOf(l.value.Index(i)), others.Get(types.Int(i))) != types.True {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (l *listView) Type() ref.Type { return types.ListType }

// Value implements ref.Val.
func (l *listView) Value() any { return l }

// ConvertToType implements ref.Val.
func (l *listView) ConvertToType(wanted ref.Type) ref.Val {
	return convertView(l, types.ListType, wanted)
}

// ConvertToNative implements ref.Val.
func (l *listView) ConvertToNative(wanted reflect.Type) (any, error) {
	elements := make([]ref.Val, 0, l.value.Len())
	for i := range l.value.Len() {
		elements = append(elements, viewOf(l.value.Index(i)))
	}
	return types.NewRefValList(types.DefaultTypeAdapter, elements).ConvertToNative(wanted)
}

func convertView(view ref.Val, own *types.Type, wanted ref.Type) ref.Val {
	switch wanted {
	case own:
		return view
	case types.TypeType:
		return own
	}
	return types.NewErr("type conversion error from '%s' to '%s'", own.TypeName(), wanted.TypeName())
}

// iterator yields the elements of a view.
type iterator struct {
	next, size int
	at         func(int) ref.Val
}

func newIterator(size int, at func(int) ref.Val) *iterator { return &iterator{size: size, at: at} }

// HasNext implements traits.Iterator.
func (i *iterator) HasNext() ref.Val { return types.Bool(i.next < i.size) }

// Next implements traits.Iterator.
func (i *iterator) Next() ref.Val {
	if i.next >= i.size {
		return nil
	}
	i.next++
	return i.at(i.next - 1)
}

// ConvertToNative implements ref.Val.
func (i *iterator) ConvertToNative(wanted reflect.Type) (any, error) {
	return nil, fmt.Errorf("an iterator is no %s", wanted)
}

// ConvertToType implements ref.Val.
func (i *iterator) ConvertToType(ref.Type) ref.Val { return types.NoSuchOverloadErr() }

// Equal implements ref.Val.
func (i *iterator) Equal(ref.Val) ref.Val { return types.NoSuchOverloadErr() }

// Type implements ref.Val.
func (i *iterator) Type() ref.Type { return types.IteratorType }

// Value implements ref.Val.
func (i *iterator) Value() any { return nil }
