package expressions

import (
	"math"
	"regexp/syntax"
	"strings"

	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	apiservercel "k8s.io/apiserver/pkg/cel"
)

// isSmall tells whether it does not matter what is done with a value.
func isSmall(value ref.Val) bool {
	switch v := value.(type) {
	case types.String:
		return len(v) <= 4*bytesPerUnit
	case types.Bytes:
		return len(v) <= 4*bytesPerUnit
	case types.Int, types.Bool, types.Double, types.Uint, types.Null, types.Duration, types.Timestamp:
		return true
	default:
		return false
	}
}

// callCosts charges for the functions that do something else than walk once over all that they are given.
var callCosts = map[string]func(m *meter, args []ref.Val){
	"size":                  sizeCost,
	"type":                  noCost,
	"dyn":                   noCost,
	"hasValue":              noCost,
	"value":                 noCost,
	"optional.of":           noCost,
	"first":                 noCost,
	"last":                  noCost,
	"@not_strictly_false":   noCost,
	"cel.@mapInsert":        insertCost,
	operators.In:            inCost,
	operators.Add:           addCost,
	"lists.range":           rangeCost,
	"replace":               replaceCost,
	"join":                  joinCost,
	"format":                formatCost,
	"matches":               patternCost,
	"find":                  patternCost,
	"findAll":               findAllCost,
	"indexOf":               searchCost,
	"lastIndexOf":           searchCost,
	"validate":              parseCost,
	"semver":                parseCost,
	"isSemver":              parseCost,
	"getQuery":              queryCost,
	"sets.contains":         productCost,
	"sets.equivalent":       productCost,
	"sets.intersects":       productCost,
	"distinct":              squareCost,
	"sort":                  squareCost,
	"@sortByAssociatedKeys": squareCost,
}

func noCost(*meter, []ref.Val) {}

// sizeCost charges for the characters that are counted, and for the fields of an object that are looked at.
func sizeCost(m *meter, args []ref.Val) {
	switch value := args[0].(type) {
	case types.String, types.Bytes:
		walkCost(m, args)
	case *mapView:
		if fields, ok := value.source.(structSource); ok {
			m.charge(uint64(fields.work()) / fieldsPerUnit)
		}
	}
}

// insertCost charges for the entries that one map gets of another. One entry is inserted at once.
func insertCost(m *meter, args []ref.Val) {
	if len(args) == 2 {
		m.charge(sizeOf(args[1]))
	}
}

// walkCost charges for all that the arguments hold.
func walkCost(m *meter, args []ref.Val) {
	for _, arg := range args {
		m.charge(weigh(m.left(), arg))
	}
}

// weigh returns what it costs to walk over a value, or more than a limit.
func weigh(limit uint64, value ref.Val) uint64 {
	switch v := value.(type) {
	case types.String:
		return uint64(len(v)) / bytesPerUnit
	case types.Bytes:
		return uint64(len(v)) / bytesPerUnit
	case *types.Optional:
		if v.HasValue() {
			return weigh(limit, v.GetValue())
		}
	case apiservercel.URL:
		return uint64(len(v.Opaque)+len(v.Host)+len(v.Path)+len(v.RawPath)+len(v.RawQuery)+len(v.RawFragment)) / bytesPerUnit
	case apiservercel.Semver:
		return uint64(len(v.Pre) + len(v.Build))
	case traits.Mapper:
		return weighMap(limit, v)
	case traits.Lister:
		return weighList(limit, v)
	}
	return 0
}

func weighMap(limit uint64, value traits.Mapper) uint64 {
	sum := sizeOf(value)
	if sum > limit {
		return sum
	}
	for iterator := value.Iterator(); iterator.HasNext() == types.True && sum <= limit; {
		key := iterator.Next()
		sum += weigh(limit-sum, key)
		if sum <= limit {
			sum += weigh(limit-sum, value.Get(key))
		}
	}
	return sum
}

func weighList(limit uint64, value traits.Lister) uint64 {
	sum := sizeOf(value)
	if sum > limit {
		return sum
	}
	for iterator := value.Iterator(); iterator.HasNext() == types.True && sum <= limit; {
		sum += weigh(limit-sum, iterator.Next())
	}
	return sum
}

// unitsPerField is what an element of a view costs, which is made each time that it is read.
const unitsPerField = 2

// fieldsPerUnit is how many fields of an object are looked at for one unit, where they are only counted.
const fieldsPerUnit = 4

// sizeOf returns what the elements of a value cost, with one for itself.
func sizeOf(value ref.Val) uint64 {
	switch view := value.(type) {
	case *mapView:
		return uint64(view.source.work())*unitsPerField + 1
	case *listView:
		return uint64(view.value.Len())*unitsPerField + 1
	}
	if sizer, ok := value.(traits.Sizer); ok {
		if size, ok := sizer.Size().(types.Int); ok && size >= 0 {
			return uint64(size) + 1
		}
	}
	return 1
}

// inCost charges for the list that is searched, or the key that is looked up in a map.
func inCost(m *meter, args []ref.Val) {
	if _, isMap := args[1].(traits.Mapper); isMap {
		args = args[:1]
	}
	walkCost(m, args)
}

// searchCost charges for the comparison of a text with another at each of its places.
func searchCost(m *meter, args []ref.Val) {
	walkCost(m, args)
	if text, ok := args[0].(types.String); ok && len(args) > 1 {
		m.charge(product(weigh(m.left(), text), weigh(m.left(), args[1])))
	}
}

// parseCost charges for what takes a text apart: a format, by its regular expressions, or a version.
func parseCost(m *meter, args []ref.Val) {
	for range 4 {
		walkCost(m, args)
	}
}

// queryCost charges for the parameters that are made of a URL.
func queryCost(m *meter, args []ref.Val) {
	walkCost(m, args)
	if address, ok := args[0].(apiservercel.URL); ok {
		m.charge(uint64(strings.Count(address.RawQuery, "&")))
	}
}

// addCost charges for what is copied: the text of strings, the elements of lists but not what they hold.
func addCost(m *meter, args []ref.Val) {
	if _, growing := args[0].(traits.MutableLister); growing {
		args = args[1:]
	}
	for _, arg := range args {
		if _, isList := arg.(traits.Lister); isList {
			m.charge(sizeOf(arg))
			continue
		}
		walkCost(m, []ref.Val{arg})
	}
}

func rangeCost(m *meter, args []ref.Val) {
	if size, ok := args[0].(types.Int); ok && size > 0 {
		m.charge(uint64(size))
	}
}

// replaceCost charges for the text that is made.
func replaceCost(m *meter, args []ref.Val) {
	walkCost(m, args)
	if len(args) < 3 {
		return
	}
	text, isText := args[0].(types.String)
	before, isBefore := args[1].(types.String)
	after, isAfter := args[2].(types.String)
	if isText && isBefore && isAfter {
		m.charge(product(uint64(strings.Count(string(text), string(before))), uint64(len(after))) / bytesPerUnit)
	}
}

// joinCost charges for the text that is made.
func joinCost(m *meter, args []ref.Val) {
	walkCost(m, args)
	if len(args) > 1 {
		m.charge(product(sizeOf(args[0]), weigh(m.left(), args[1])))
	}
}

// formatCost charges for all that is formatted, and for the digits that the format asks for.
func formatCost(m *meter, args []ref.Val) {
	parseCost(m, args)
	format, ok := args[0].(types.String)
	if !ok {
		return
	}
	var number, sum uint64
	for i := range len(format) {
		if format[i] < '0' || format[i] > '9' {
			sum += number
			number = 0
			continue
		}
		number = min(number*10+uint64(format[i]-'0'), math.MaxInt32)
	}
	m.charge((sum + number) / bytesPerUnit)
}

func productCost(m *meter, args []ref.Val) {
	walkCost(m, args)
	if len(args) == 2 {
		m.charge(product(weigh(m.left(), args[0]), weigh(m.left(), args[1])))
	}
}

// squareCost charges for the comparison of each element with each other.
func squareCost(m *meter, args []ref.Val) {
	walkCost(m, args)
	m.charge(product(sizeOf(args[0]), weigh(m.left(), args[0])) / bytesPerUnit)
}

// maxPatternSize is how many states a regular expression may have.
const maxPatternSize = 10_000

// patternCost charges for each state of a regular expression at each place of the text, and refuses one that is too large.
func patternCost(m *meter, args []ref.Val) {
	if text, size, ok := chargePattern(m, args); ok {
		m.charge(matchCost(text, size))
	}
}

// matchCost is what it costs to hold a text to a regular expression.
func matchCost(text string, patternSize uint64) uint64 {
	return product(uint64(len(text))/bytesPerUnit+1, patternSize/statesPerUnit+1)
}

// findAllCost charges for a search in all of the text behind each match. What is found may end long before what was looked at.
func findAllCost(m *meter, args []ref.Val) {
	text, size, ok := chargePattern(m, args)
	if !ok {
		return
	}
	matches := uint64(len(text))
	if len(args) > 2 {
		if most, ok := args[2].(types.Int); ok && most >= 0 {
			matches = min(matches, uint64(most))
		}
	}
	m.charge(product(matchCost(text, size), matches/matchesPerUnit+1))
}

const (
	// statesPerUnit is how many states of a regular expression are looked at in as much text as one unit is.
	statesPerUnit = 2
	// matchesPerUnit is how many matches are taken for one: the text behind them gets shorter.
	matchesPerUnit = 2
	// unitsPerPatternByte is what it costs to read a regular expression, in which three bytes may stand for a thousand.
	unitsPerPatternByte = 4
)

// chargePattern charges for what makes a regular expression of its text, and returns what it is applied to.
func chargePattern(m *meter, args []ref.Val) (text string, size uint64, ok bool) {
	walkCost(m, args)
	if len(args) < 2 {
		return "", 0, false
	}
	subject, isText := args[0].(types.String)
	pattern, isPattern := args[1].(types.String)
	if !isText || !isPattern {
		return "", 0, false
	}
	m.charge(uint64(len(pattern)) * unitsPerPatternByte)
	size = patternSize(string(pattern))
	if size > maxPatternSize {
		m.charge(m.left() + 1)
	}
	m.charge(size / statesPerUnit)
	return string(subject), size, true
}

// PatternSize returns about how many states a regular expression (RE2) has, without compiling it. To match it takes time with
// their number and the length of the text. One that is not valid has none.
func PatternSize(pattern string) uint64 { return patternSize(pattern) }

// patternSize is PatternSize: of what is not valid, its function says so.
func patternSize(pattern string) uint64 {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	return states(parsed)
}

// runesPerState is how many bounds of a class of characters, which are searched by halves, count as a state.
const runesPerState = 32

func states(of *syntax.Regexp) uint64 {
	sum := uint64(1) + uint64(len(of.Rune))
	if of.Op == syntax.OpCharClass {
		sum = 1 + uint64(len(of.Rune))/runesPerState
	}
	for _, sub := range of.Sub {
		sum += states(sub)
	}
	if of.Op == syntax.OpRepeat {
		return product(sum, uint64(max(of.Min, of.Max, 1)))
	}
	return sum
}

// product multiplies up to a bound that is more than any limit.
func product(a, b uint64) uint64 {
	if a > math.MaxUint32 || b > math.MaxUint32 {
		return math.MaxUint32
	}
	return a * b
}
