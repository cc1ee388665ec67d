package injectors

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
)

const (
	// defaultMaxLength is the most characters of a string parameter that declares no maxLength.
	defaultMaxLength = 4096
	// maxMatching bounds the work of a parameter's pattern: its states times the most characters of a value. One of both takes
	// about five nanoseconds.
	maxMatching = 4 << 20
	// maxAllMatching bounds that of all patterns of a profile, and that of all values that the profile holds.
	maxAllMatching = 4 * maxMatching
	// maxScalarLength is the longest text that is read as an integer, a boolean, a quantity or a duration.
	maxScalarLength = 40
)

var (
	parameterName = regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	// endlessExponent is an exponent of three digits or more: to read the quantity 1e-999999999 takes years.
	endlessExponent = regexp.MustCompile(`[eE][+-]?\d{3}`)
)

// reservedWords are the words of CEL that cannot be the name of a field.
var reservedWords = []string{
	"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop", "namespace", "null",
	"package", "return", "true", "var", "void", "while",
}

// parameter is a compiled parameter. Its values are what expressions see: int64, bool, or string.
type parameter struct {
	name             string
	kind             v1alpha1.ParameterType
	required         bool
	standard         any  // the default, nil if there is none
	isWrong          bool // no value is known: the default is wrong, or the type
	enum             []any
	pattern          *regexp.Regexp
	states           int // of the pattern
	minimum, maximum any
	minLength        int
	maxLength        int
}

// compileParameters returns the parameters, sorted by name.
func compileParameters(declared []v1alpha1.Parameter, path *field.Path) ([]parameter, field.ErrorList) {
	var errs field.ErrorList
	compiler := &parameterCompiler{}
	parameters := make([]parameter, 0, len(declared))
	for i := range declared {
		if slices.ContainsFunc(parameters, func(p parameter) bool { return p.name == declared[i].Name }) {
			errs = append(errs, field.Duplicate(path.Index(i).Child("name"), shortened(declared[i].Name)))
			continue
		}
		compiled, wrong := compiler.compile(&declared[i], path.Index(i))
		errs = append(errs, wrong...)
		parameters = append(parameters, compiled)
	}
	slices.SortFunc(parameters, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	return parameters, errs
}

// parameterCompiler knows how much work the patterns of a profile make.
type parameterCompiler struct {
	// matching is that of the longest values, and held that of the values which the profile itself holds.
	matching, held int
}

func (c *parameterCompiler) compile(declared *v1alpha1.Parameter, path *field.Path) (parameter, field.ErrorList) {
	p := parameter{name: declared.Name, kind: declared.Type, required: declared.Required, maxLength: defaultMaxLength}
	if p.kind == "" {
		p.kind = v1alpha1.ParameterString
	}
	errs := checkParameterName(declared.Name, path.Child("name"))
	if p.example() == "" {
		p.isWrong = true
		return p, append(errs, field.NotSupported(path.Child("type"), p.kind, []v1alpha1.ParameterType{
			v1alpha1.ParameterString, v1alpha1.ParameterInteger, v1alpha1.ParameterBoolean,
			v1alpha1.ParameterQuantity, v1alpha1.ParameterDuration,
		}))
	}
	errs = append(errs, p.checkOptions(declared, path)...)
	errs = append(errs, p.setLengths(declared, path)...)
	errs = append(errs, c.setPattern(&p, declared, path.Child("pattern"))...)
	errs = append(errs, p.setBounds(declared, path)...)
	errs = append(errs, c.setEnum(&p, declared, path)...)
	if declared.Default != nil && len(declared.Default.Raw) > 0 {
		value, err := p.fromJSON(declared.Default.Raw)
		if err == nil {
			err = c.check(&p, value)
		}
		if err != nil {
			errs = append(errs, field.Invalid(path.Child("default"), shortened(string(declared.Default.Raw)), err.Error()))
		}
		p.standard, p.isWrong = value, err != nil
		if declared.Required {
			errs = append(errs, field.Invalid(path.Child("required"), true,
				"has no effect beside a default: leave one of them out"))
		}
	}
	return p, errs
}

func checkParameterName(name string, path *field.Path) field.ErrorList {
	switch {
	case !parameterName.MatchString(name) || len(name) > 63:
		return field.ErrorList{field.Invalid(path, shortened(name),
			"must be letters and digits, the first a small letter, at most 63: expressions read it as params.NAME")}
	case slices.Contains(reservedWords, name):
		return field.ErrorList{field.Invalid(path, name, "is a word of CEL: choose another name")}
	}
	return nil
}

// checkOptions refuses the options that mean nothing for the type.
func (p *parameter) checkOptions(declared *v1alpha1.Parameter, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(set bool, option, types string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(option), fmt.Sprintf("is for %s; this parameter is of type %s", types, p.kind)))
		}
	}
	isText, isBool := p.kind == v1alpha1.ParameterString, p.kind == v1alpha1.ParameterBoolean
	refuse(declared.Pattern != "" && !isText, "pattern", "strings")
	refuse(declared.MinLength != nil && !isText, "minLength", "strings")
	refuse(declared.MaxLength != nil && !isText, "maxLength", "strings")
	refuse(declared.Minimum != nil && (isText || isBool), "minimum", "integers, quantities and durations")
	refuse(declared.Maximum != nil && (isText || isBool), "maximum", "integers, quantities and durations")
	refuse(len(declared.Enum) > 0 && isBool, "enum", "all types but boolean")
	return errs
}

// setLengths sets what is for strings alone.
func (p *parameter) setLengths(declared *v1alpha1.Parameter, path *field.Path) (errs field.ErrorList) {
	if p.kind != v1alpha1.ParameterString {
		return nil
	}
	if declared.MinLength != nil {
		p.minLength = int(*declared.MinLength)
	}
	if declared.MaxLength != nil {
		p.maxLength = int(*declared.MaxLength)
	}
	if p.minLength > p.maxLength {
		errs = append(errs, field.Invalid(path.Child("minLength"), p.minLength, fmt.Sprintf("is more than maxLength, %d", p.maxLength)))
		p.minLength = 0 // no default could be right
	}
	return errs
}

// setPattern compiles the pattern of a string, if matching it is not too much work.
func (c *parameterCompiler) setPattern(p *parameter, declared *v1alpha1.Parameter, path *field.Path) field.ErrorList {
	if p.kind != v1alpha1.ParameterString || declared.Pattern == "" {
		return nil
	}
	refuse := func(detail string, args ...any) field.ErrorList {
		return field.ErrorList{field.Invalid(path, shortened(declared.Pattern), fmt.Sprintf(detail, args...))}
	}
	if _, err := syntax.Parse(declared.Pattern, syntax.Perl); err != nil {
		return refuse("is no regular expression (RE2): %v", err)
	}
	states := max(1, int(expressions.PatternSize(declared.Pattern)))
	if states > maxMatching/max(1, p.maxLength) {
		return refuse("has %d states, which takes long to match with %d characters: set maxLength to at most %d, or repeat less",
			states, p.maxLength, maxMatching/states)
	}
	if c.matching += states * p.maxLength; c.matching > maxAllMatching {
		return refuse("is one too many of patterns that take long to match: set maxLength of the parameters, so that the states of "+
			"each pattern times maxLength are at most %d together", maxAllMatching)
	}
	pattern, err := regexp.Compile(declared.Pattern)
	if err != nil {
		return refuse("is no regular expression (RE2): %v", err)
	}
	p.pattern, p.states = pattern, states
	return nil
}

// check is the parameter's, of a value that the profile holds.
func (c *parameterCompiler) check(p *parameter, value any) error {
	text, isText := value.(string)
	if isText && CheckText(text) != nil {
		return CheckText(text)
	}
	if isText && p.pattern != nil && len(text) <= utf8.UTFMax*p.maxLength {
		if c.held += p.states * len(text); c.held > maxAllMatching {
			return fmt.Errorf("%q is one too many of the values that are long to match with their patterns: write fewer, or shorter ones",
				shortened(text))
		}
	}
	return p.check(value)
}

func (p *parameter) setBounds(declared *v1alpha1.Parameter, path *field.Path) (errs field.ErrorList) {
	if p.kind == v1alpha1.ParameterString || p.kind == v1alpha1.ParameterBoolean {
		return nil
	}
	read := func(bound *apiextensionsv1.JSON, option string) any {
		if bound == nil || len(bound.Raw) == 0 {
			return nil
		}
		value, err := p.fromJSON(bound.Raw)
		if err != nil {
			errs = append(errs, field.Invalid(path.Child(option), shortened(string(bound.Raw)), err.Error()))
		}
		return value
	}
	p.minimum = read(declared.Minimum, "minimum")
	p.maximum = read(declared.Maximum, "maximum")
	if p.minimum != nil && p.maximum != nil && p.compare(p.minimum, p.maximum) > 0 {
		errs = append(errs, field.Invalid(path.Child("minimum"), p.minimum, fmt.Sprintf("is more than maximum, %v", p.maximum)))
		p.minimum, p.maximum = nil, nil // no default could be right
	}
	return errs
}

// setEnum wants values that are distinct and could be given.
func (c *parameterCompiler) setEnum(p *parameter, declared *v1alpha1.Parameter, path *field.Path) (errs field.ErrorList) {
	if p.kind == v1alpha1.ParameterBoolean {
		return nil
	}
	var allowed []any
	for i := range declared.Enum {
		at, raw := path.Child("enum").Index(i), declared.Enum[i].Raw
		value, err := p.fromJSON(raw)
		if err == nil {
			err = c.check(p, value)
		}
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(at, shortened(string(raw)), err.Error()))
		case slices.ContainsFunc(allowed, func(other any) bool { return p.compare(value, other) == 0 }):
			errs = append(errs, field.Duplicate(at, shortened(string(raw))))
		default:
			allowed = append(allowed, value)
		}
	}
	p.enum = allowed
	return errs
}

// fromJSON reads a value that a profile holds.
func (p *parameter) fromJSON(raw []byte) (any, error) {
	var value any
	if err := utiljson.Unmarshal(raw, &value); err != nil {
		return nil, p.unreadable(string(raw))
	}
	switch value := value.(type) {
	case string:
		if p.kind != v1alpha1.ParameterInteger && p.kind != v1alpha1.ParameterBoolean {
			return p.fromText(value)
		}
	case int64:
		if p.kind != v1alpha1.ParameterString && p.kind != v1alpha1.ParameterBoolean {
			return p.fromText(strconv.FormatInt(value, 10))
		}
	case bool:
		if p.kind == v1alpha1.ParameterBoolean {
			return value, nil
		}
	}
	return nil, p.unreadable(string(raw))
}

// fromText reads a value from text: a string literally, the others as they are written in YAML.
func (p *parameter) fromText(text string) (any, error) {
	if p.kind == v1alpha1.ParameterString {
		return text, nil
	}
	if len(text) > maxScalarLength {
		return nil, p.unreadable(text)
	}
	switch p.kind {
	case v1alpha1.ParameterInteger, v1alpha1.ParameterBoolean:
		var value any
		_ = utiljson.Unmarshal([]byte(text), &value) // what is no JSON is neither of the two
		_, isInteger := value.(int64)
		_, isBool := value.(bool)
		if isInteger && p.kind == v1alpha1.ParameterInteger || isBool && p.kind == v1alpha1.ParameterBoolean {
			return value, nil
		}
	case v1alpha1.ParameterQuantity:
		if _, err := readQuantity(text); err == nil {
			return text, nil
		}
	case v1alpha1.ParameterDuration:
		if _, err := time.ParseDuration(text); err == nil {
			return text, nil
		}
	}
	return nil, p.unreadable(text)
}

func (p *parameter) unreadable(text string) error {
	return fmt.Errorf("%q is no %s", shortened(text), p.example())
}

// example says what the type is and how to write one; "" for a type that there is not.
func (p *parameter) example() string {
	switch p.kind {
	case v1alpha1.ParameterString:
		return "string; put it in quotes"
	case v1alpha1.ParameterInteger:
		return "integer; write a number such as 10"
	case v1alpha1.ParameterBoolean:
		return "boolean; write true or false"
	case v1alpha1.ParameterQuantity:
		return "quantity; write one such as 100m or 64Mi"
	case v1alpha1.ParameterDuration:
		return "duration; write one such as 30s or 1m30s"
	}
	return ""
}

// check says why a value of the type is not allowed.
func (p *parameter) check(value any) error {
	if p.kind == v1alpha1.ParameterString {
		if err := p.checkText(value.(string)); err != nil {
			return err
		}
	}
	if p.minimum != nil && p.compare(value, p.minimum) < 0 || p.maximum != nil && p.compare(value, p.maximum) > 0 {
		return fmt.Errorf("%v is not allowed; write a value %s", value, p.bounds())
	}
	if p.kind == v1alpha1.ParameterDuration && p.minimum == nil && strings.HasPrefix(value.(string), "-") {
		return fmt.Errorf("%v is negative; write a duration such as 30s", value)
	}
	if len(p.enum) > 0 && !slices.ContainsFunc(p.enum, func(allowed any) bool { return p.compare(value, allowed) == 0 }) {
		return fmt.Errorf("%q is not allowed; write one of %s", shortened(fmt.Sprint(value)), p.choices())
	}
	return nil
}

func (p *parameter) checkText(value string) error {
	switch length := utf8.RuneCountInString(value); {
	case length > p.maxLength:
		return fmt.Errorf("%q has %d characters; write at most %d", shortened(value), length, p.maxLength)
	case length < p.minLength:
		return fmt.Errorf("%q has %d characters; write at least %d", shortened(value), length, p.minLength)
	case p.pattern != nil && !p.pattern.MatchString(value):
		return fmt.Errorf("%q does not match %s", shortened(value), p.pattern)
	}
	return nil
}

func (p *parameter) bounds() string {
	switch {
	case p.maximum == nil:
		return fmt.Sprintf("of at least %v", p.minimum)
	case p.minimum == nil:
		return fmt.Sprintf("of at most %v", p.maximum)
	default:
		return fmt.Sprintf("from %v to %v", p.minimum, p.maximum)
	}
}

func (p *parameter) choices() string {
	choices := make([]string, len(p.enum))
	for i := range p.enum {
		choices[i] = shortened(fmt.Sprint(p.enum[i]))
	}
	return strings.Join(choices, ", ")
}

// compare orders two values of the type; of strings it tells only whether they are equal.
func (p *parameter) compare(a, b any) int {
	switch p.kind {
	case v1alpha1.ParameterInteger:
		return cmp.Compare(a.(int64), b.(int64))
	case v1alpha1.ParameterQuantity:
		first, _ := readQuantity(a.(string)) // both were read before
		second, _ := readQuantity(b.(string))
		return first.Cmp(second)
	case v1alpha1.ParameterDuration:
		first, _ := time.ParseDuration(a.(string))
		second, _ := time.ParseDuration(b.(string))
		return cmp.Compare(first, second)
	default:
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	}
}

// kindOf is what expressions know of the parameter before they are evaluated.
func (p *parameter) kindOf() expressions.Kind {
	switch p.kind {
	case v1alpha1.ParameterInteger:
		return expressions.Int
	case v1alpha1.ParameterBoolean:
		return expressions.Bool
	case v1alpha1.ParameterString, v1alpha1.ParameterQuantity, v1alpha1.ParameterDuration:
		return expressions.String
	default:
		return expressions.Any
	}
}

// parse reads the value of an annotation.
func (p *parameter) parse(text string) (any, error) {
	value, err := p.fromText(text)
	if err != nil {
		return nil, err
	}
	return value, p.check(value)
}

// readQuantity reads a quantity that is neither long nor endless.
func readQuantity(text string) (resource.Quantity, error) {
	if len(text) > maxScalarLength || endlessExponent.MatchString(text) {
		return resource.Quantity{}, errors.New("is no quantity; write one such as 100m or 64Mi")
	}
	quantity, err := resource.ParseQuantity(text)
	if err != nil {
		return quantity, errors.New("is no quantity; write one such as 100m or 64Mi")
	}
	return quantity, nil
}

// shortened cuts a value of the user's for a message.
func shortened(value string) string {
	const most = 64
	value = WithoutCredentials(value)
	if len(value) <= most {
		return value
	}
	return strings.ToValidUTF8(value[:most], "") + "…"
}

// numberText returns a JSON number as it would be written, and whether it is an integer.
func numberText(value any) (text string, isInteger, ok bool) {
	switch value := value.(type) {
	case int64:
		return strconv.FormatInt(value, 10), true, true
	case float64:
		encoded, err := json.Marshal(value)
		return string(encoded), math.Trunc(value) == value && math.Abs(value) < 1<<53, err == nil
	}
	return "", false, false
}
