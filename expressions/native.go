package expressions

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	apiservercel "k8s.io/apiserver/pkg/cel"
)

// maxResultSize is about how many bytes of JSON a result may be.
const maxResultSize = 64 << 10

// maxResultDepth is how deep a result may nest.
const maxResultDepth = 64

var (
	errResultSize  = fmt.Errorf("yields more than %d KiB", maxResultSize>>10)
	errResultDepth = fmt.Errorf("yields what nests deeper than %d levels", maxResultDepth)
)

// native returns a value as JSON has it, and about how many bytes of that were made, also where it fails.
func native(value ref.Val) (result any, size int, err error) {
	converter := converter{left: maxResultSize}
	result, err = converter.convert(value, 0)
	return result, maxResultSize - max(converter.left, 0), err
}

// converter counts down the bytes that a result may have.
type converter struct{ left int }

func (c *converter) take(size int) error {
	if c.left -= size; c.left < 0 {
		return errResultSize
	}
	return nil
}

func (c *converter) convert(value ref.Val, depth int) (any, error) {
	if depth > maxResultDepth {
		return nil, errResultDepth
	}
	if err := c.take(1); err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Uint:
		return unsigned(v)
	case types.Double:
		return finite(v)
	case types.String:
		return c.text(string(v))
	case *types.Optional:
		if !v.HasValue() {
			return nil, nil
		}
		return c.convert(v.GetValue(), depth+1)
	case *types.Err:
		return nil, v
	case traits.Mapper:
		return c.object(v, depth)
	case traits.Lister:
		return c.list(v, depth)
	default:
		return c.words(value)
	}
}

func unsigned(value types.Uint) (any, error) {
	if value > math.MaxInt64 {
		return nil, errors.New("yields a number that is too large for 64 bits")
	}
	return int64(value), nil
}

func finite(value types.Double) (any, error) {
	if math.IsNaN(float64(value)) || math.IsInf(float64(value), 0) {
		return nil, errors.New("yields no finite number")
	}
	return float64(value), nil
}

// text checks a string: JSON holds nothing but UTF-8.
func (c *converter) text(value string) (any, error) {
	if err := c.take(len(value) + 2); err != nil {
		return nil, err
	}
	if !utf8.ValidString(value) {
		return nil, errors.New("yields a string that is not valid UTF-8")
	}
	return value, nil
}

func (c *converter) object(value traits.Mapper, depth int) (any, error) {
	if size, ok := value.Size().(types.Int); ok && int(size) > c.left {
		return nil, errResultSize // before all keys are sorted
	}
	object := map[string]any{}
	for iterator := value.Iterator(); iterator.HasNext() == types.True; {
		key := iterator.Next()
		name, ok := key.(types.String)
		if !ok {
			return nil, fmt.Errorf("yields a map with a key that is no string: %v", key.Value())
		}
		if _, err := c.text(string(name)); err != nil {
			return nil, err
		}
		element, err := c.convert(value.Get(key), depth+1)
		if err != nil {
			return nil, err
		}
		object[string(name)] = element
	}
	return object, nil
}

func (c *converter) list(value traits.Lister, depth int) (any, error) {
	list := []any{}
	for iterator := value.Iterator(); iterator.HasNext() == types.True; {
		element, err := c.convert(iterator.Next(), depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, element)
	}
	return list, nil
}

// words returns what JSON does not know as a string.
func (c *converter) words(value ref.Val) (any, error) {
	switch v := value.(type) {
	case types.Bytes:
		if err := c.take(len(v)); err != nil {
			return nil, err
		}
		return c.text(base64.StdEncoding.EncodeToString(v))
	case types.Duration:
		return c.text(v.String())
	case types.Timestamp:
		return c.text(v.Format(time.RFC3339Nano))
	case apiservercel.Quantity:
		return c.text(v.String())
	case *apiservercel.Quantity:
		return c.text(v.String())
	case apiservercel.URL:
		return c.text(v.String())
	case apiservercel.IP:
		return c.text(v.String())
	case apiservercel.CIDR:
		return c.text(v.String())
	case apiservercel.Semver:
		return c.text(v.String())
	default:
		return nil, fmt.Errorf("yields a value of type %s, which has no place in JSON", value.Type().TypeName())
	}
}
