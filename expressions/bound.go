package expressions

import (
	"encoding/binary"
	"math"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// templateCost is what all expressions of a template may cost together, each time that they are evaluated.
	templateCost = 100_000
	// maxTemplateSize is about how many bytes of JSON all expressions of a template may yield together.
	maxTemplateSize = 512 << 10
)

// Bind evaluates the expressions that read no more than the early variables.
func (t *Template) Bind(values map[string]any) (*Bound, field.ErrorList) {
	results, errs := t.evaluate(nil, values, true)
	if len(errs) > 0 {
		return nil, errs
	}
	return &Bound{template: t, early: results}, nil
}

// evaluate evaluates the leaves that are early, or the others. The results are by the numbers of the leaves.
func (t *Template) evaluate(budget *Budget, values map[string]any, early bool) ([]any, field.ErrorList) {
	var errs field.ErrorList
	results := make([]any, len(t.leaves))
	left, room := budget.within(templateCost), maxTemplateSize
	for _, leaf := range t.leaves {
		if leaf.early != early {
			continue
		}
		result, cost, err := leaf.evaluate(values, left)
		left -= min(cost, left)
		budget.spend(cost)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if room -= sizeOfJSON(result); room < 0 {
			return nil, append(errs, field.TooLong(leaf.path, "", maxTemplateSize))
		}
		results[leaf.number] = result
	}
	return results, errs
}

// sizeOfJSON returns about how long the JSON of a value is.
func sizeOfJSON(value any) int {
	size := 8
	switch value := value.(type) {
	case string:
		size += len(value)
	case []any:
		for _, element := range value {
			size += sizeOfJSON(element)
		}
	case map[string]any:
		for key, element := range value {
			size += len(key) + sizeOfJSON(element)
		}
	}
	return size
}

// Bound is a Template whose early variables have their values. It is immutable and safe for concurrent use.
type Bound struct {
	template *Template
	early    []any
	// keepsPlaces is set if what follows an element of a list that is left out keeps its index.
	keepsPlaces bool
}

// Evaluate evaluates the other expressions.
func (b *Bound) Evaluate(values map[string]any) (Leaves, field.ErrorList) {
	return b.EvaluateWithin(nil, values)
}

// EvaluateWithin is Evaluate that costs no more than is left of a budget, and takes its cost from that.
func (b *Bound) EvaluateWithin(budget *Budget, values map[string]any) (Leaves, field.ErrorList) {
	results, errs := b.template.evaluate(budget, values, false)
	if len(errs) > 0 {
		return Leaves{}, errs
	}
	return Leaves{results: results}, nil
}

// Value returns what stands at the place where keys and indices lead, or false if there is nothing, or what is known only
// once the other expressions are evaluated. The caller owns it.
func (b *Bound) Value(path ...string) (any, bool) {
	leaf := b.template.find(path)
	if leaf == nil || !leaf.early || b.early[leaf.number] == nil {
		return nil, false
	}
	return copyJSON(b.early[leaf.number]), true
}

// Open stands for what is not known yet.
type Open struct{}

// TryOut evaluates the early expressions for all that is wrong with them. It returns the JSON value with their results, and an
// Open in the place of each other string with expressions: of those that are not early, that did not compile, that fail, and
// that read one of the fields of variables that lack a value. An Open is also what stands for an element of a list that is left
// out, if another follows, so that this keeps its index. The caller owns the value.
func (t *Template) TryOut(values map[string]any, lacking map[string][]string) (any, field.ErrorList) {
	var errs field.ErrorList
	results := make([]any, len(t.leaves))
	left, room := uint64(templateCost), maxTemplateSize
	for _, leaf := range t.leaves {
		results[leaf.number] = Open{}
		isSpent := len(errs) > 0 && (left == 0 || room < 0) // as was said of another leaf
		if isSpent || leaf.isWrong || !leaf.early || leaf.readsAny(lacking) {
			continue
		}
		result, cost, err := leaf.evaluate(values, left)
		left -= min(cost, left)
		if err == nil {
			if room -= sizeOfJSON(result); room < 0 {
				err = field.TooLong(leaf.path, "", maxTemplateSize)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		results[leaf.number] = result
	}
	tried := &Bound{template: t, early: results, keepsPlaces: true}
	return tried.Render(Leaves{results: results}), errs
}

// Render returns the JSON value with the results in place of the expressions. The caller owns it.
func (b *Bound) Render(leaves Leaves) any {
	value, _ := b.render(b.template.root, leaves)
	return value
}

// render returns a node's value, and false if it is left out.
func (b *Bound) render(from *node, leaves Leaves) (any, bool) {
	switch {
	case from.leaf != nil:
		value := b.result(from.leaf, leaves)
		return copyJSON(value), value != nil
	case from.isObject:
		object := make(map[string]any, len(from.keys))
		for i, key := range from.keys {
			if value, ok := b.render(from.children[i], leaves); ok {
				object[key] = value
			}
		}
		return object, true
	case from.isList:
		list, kept := make([]any, 0, len(from.children)), 0
		for _, child := range from.children {
			value, ok := b.render(child, leaves)
			switch {
			case ok:
				list = append(list, value)
				kept = len(list)
			case b.keepsPlaces:
				list = append(list, Open{})
			}
		}
		return list[:kept], true
	default:
		return from.constant, true
	}
}

func (b *Bound) result(of *leaf, leaves Leaves) any {
	if of.early {
		return b.early[of.number]
	}
	if of.number < len(leaves.results) {
		return leaves.results[of.number]
	}
	return nil
}

// copyJSON copies what can be changed.
func copyJSON(value any) any {
	switch value := value.(type) {
	case []any:
		list := make([]any, len(value))
		for i := range value {
			list[i] = copyJSON(value[i])
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(value))
		for key := range value {
			object[key] = copyJSON(value[key])
		}
		return object
	default:
		return value
	}
}

// Leaves are the results of a Bound's expressions.
type Leaves struct {
	// results are by the numbers of the leaves; those of early ones are nil.
	results []any
}

// Key is equal for Leaves that are equal, and differs for those that are not.
func (l Leaves) Key() string {
	var encoded []byte
	for _, result := range l.results {
		encoded = appendKey(encoded, result)
	}
	return string(encoded)
}

// appendKey writes a value so that no other is written the same: its type, its size where it has one, what it holds.
func appendKey(to []byte, value any) []byte {
	switch value := value.(type) {
	case nil:
		return append(to, 'n')
	case bool:
		if value {
			return append(to, 't')
		}
		return append(to, 'f')
	case int64:
		return binary.AppendVarint(append(to, 'i'), value)
	case float64:
		return binary.BigEndian.AppendUint64(append(to, 'd'), math.Float64bits(value))
	case string:
		return append(binary.AppendUvarint(append(to, 's'), uint64(len(value))), value...)
	case []any:
		to = binary.AppendUvarint(append(to, 'l'), uint64(len(value)))
		for _, element := range value {
			to = appendKey(to, element)
		}
		return to
	case map[string]any:
		to = binary.AppendUvarint(append(to, 'm'), uint64(len(value)))
		for _, key := range sortedKeys(value) {
			to = appendKey(appendKey(to, key), value[key])
		}
		return to
	}
	return to
}
