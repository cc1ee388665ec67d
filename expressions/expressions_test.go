package expressions

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testValues() map[string]any {
	return map[string]any{
		"params":    map[string]any{"port": int64(8080), "name": "cache", "any": []any{int64(1), "two"}},
		"pod":       View(benchmarkPod()),
		"namespace": map[string]any{"metadata": map[string]any{"labels": map[string]any{"env": "prod"}}},
		"profile":   map[string]any{"name": "cache"},
	}
}

func TestEvaluate(t *testing.T) {
	environment := mustEnvironment(t)
	for name, test := range map[string]struct {
		source string
		want   any
	}{
		"a parameter keeps its type":                   {"params.port", int64(8080)},
		"a list keeps the types in it":                 {"params.any", []any{int64(1), "two"}},
		"a parameter without a value is asked for":     {"has(params.on)", false},
		"a parameter with a value is asked for":        {"has(params.name)", true},
		"a default stands in for a parameter":          {"params.?on.orValue(true)", true},
		"what stands in is not evaluated without need": {"params.?port.orValue(1 / 0)", int64(8080)},
		"one optional value stands in for another":     {"params.?absent.or(optional.of('x')).value()", "x"},
		"an optional value that is absent is nil":      {"params.?absent", nil},
		"an optional value is its value":               {"params.?name", "cache"},
		"a label is read":                              {"pod.metadata.labels['app']", "web"},
		"labels are a map":                             {"pod.metadata.labels", map[string]any{"app": "web", "tier": "front"}},
		"labels that are absent have a default":        {"pod.metadata.?finalizers.orValue([])", []any{}},
		"containers are searched":                      {"pod.spec.containers.exists(c, c.name == 'proxy')", true},
		"containers are mapped in order":               {"pod.spec.containers.map(c, c.image)", []any{"web:1", "proxy:2"}},
		"keys of a map that is none of a Pod come sorted": {
			"{'g': 1, 'b': 2, 'f': 3, 'd': 4, 'e': 5, 'c': 6, 'a': 7, 'h': 8}.map(k, k).join('')", "abcdefgh",
		},
		"keys for two variables come sorted": {
			"{'g': 1, 'b': 2, 'f': 3, 'd': 4, 'e': 5, 'c': 6, 'a': 7, 'h': 8}.transformList(k, v, k).join('')", "abcdefgh",
		},
		"keys come sorted":                                 {"pod.metadata.labels.map(k, k).join(',')", "app,tier"},
		"a reserved word is a variable":                    {"namespace.metadata.labels.env", "prod"},
		"a reserved word in a string is text":              {"'namespace ' + namespace.metadata.labels.env", "namespace prod"},
		"a reserved word after a dot is a field":           {"pod.metadata.namespace", "shop"},
		"a reserved word after a question mark is a field": {"pod.metadata.?namespace.orValue('')", "shop"},
		"a reserved word after another question mark":      {"true ? namespace.metadata.labels.env : ''", "prod"},
		"a reserved word in a comment":                     {"1 // namespace", int64(1)},
		"numbers of two types are compared":                {"1 < 2.5", true},
		"bytes are base64":                                 {"b'abc'", "YWJj"},
		"a duration is as Go writes it":                    {"duration('90s')", "1m30s"},
		"a time is in RFC 3339":                            {"timestamp('2020-01-02T03:04:05Z')", "2020-01-02T03:04:05Z"},
		"a time is in UTC":                                 {"timestamp('2020-01-02T03:04:05Z').getHours()", int64(3)},
		"a quantity is a string":                           {"quantity('1Gi')", "1Gi"},
		"a sum of quantities is a string":                  {"quantity('1Gi').add(quantity('1Gi'))", "2Gi"},
		"an extreme quantity is none":                      {"isQuantity('1e-2147483648')", false},
		"a version is a string":                            {"semver('1.2.3')", "1.2.3"},
		"an address is a string":                           {"ip('10.0.0.1')", "10.0.0.1"},
		"a network is a string":                            {"cidr('10.0.0.0/8')", "10.0.0.0/8"},
		"a URL is a string":                                {"url('http://a/b')", "http://a/b"},
		"an unsigned integer is an integer":                {"5u", int64(5)},
		"null is nil":                                      {"null", nil},
		"lists are joined":                                 {"[1] + [2] + pod.spec.containers.map(c, 3)", []any{int64(1), int64(2), int64(3), int64(3)}},
		"a list of a Pod is joined":                        {"(pod.spec.containers + pod.spec.containers).size()", int64(4)},
		"a map is made of two variables":                   {"{'a': 1}.transformMap(k, v, v + 1)", map[string]any{"a": int64(2)}},
		"a list is sorted by what its elements hold":       {"[3, 1, 2].sortBy(x, -x)", []any{int64(3), int64(2), int64(1)}},
		"a literal pattern is matched":                     {"pod.metadata.name.matches('^web-[0-9]+$')", true},
		"another pattern is matched":                       {"pod.metadata.name.matches('^' + pod.metadata.labels.app)", true},
		"sets are compared":                                {"sets.contains(['a', 'b'], ['a'])", true},
	} {
		t.Run(name, func(t *testing.T) {
			expression, err := environment.Compile(test.source)
			if err != nil {
				t.Fatal(err)
			}
			got, err := expression.Evaluate(testValues())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompileSaysWhatIsWrong(t *testing.T) {
	environment := mustEnvironment(t)
	for name, test := range map[string]struct{ source, want string }{
		"nothing":            {" ", "is empty: write an expression"},
		"too long":           {strings.Repeat("1", 5000), "is 5000 bytes long: at most 4096 are allowed"},
		"a misspelled field": {"params.prot", `at column 7: there is no field "prot"; the fields of params are absent, any, name, on, port`},
		"a misspelled name":  {"pot.spec", `at column 1: there is no variable or function "pot"; the variables are namespace, params, pod, profile`},
		"an end too soon":    {"1 +", "at column 4: unexpected end of the expression"},
		"a second line":      {"1 +\n 'a' +", "at line 2, column 7: unexpected end of the expression"},
		"types":              {"params.port + 'a'", "at column 13: + cannot be applied to (int, string)"},
		"an index":           {"params['port']", "at column 7: [] cannot be applied to (params, string)"},
		"the hidden name":    {"nam_space.metadata", "at column 1: reserved identifier: namespace"},
		"mixed literals":     {"[1, 'a']", "expected type 'int' but found 'string': the values of a literal list or map are of one type"},
		"a Unicode name":     {"größe", "unexpected 'ö'"},
		"parentheses":        {strings.Repeat("(", 2000) + "1" + strings.Repeat(")", 2000), "it nests deeper than 100 levels"},
		"open parentheses":   {strings.Repeat("(", 4000), "nests deeper than 100 levels"},
		"minus signs":        {strings.Repeat("-(", 2000) + "1" + strings.Repeat(")", 2000), "is 6001 bytes long"},
		"comprehensions":     {"[1]" + strings.Repeat(".map(x, {'a': x})", 30), "has 30 comprehensions"},
		"a pattern":          {"'a'.matches('a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}')", "too large a regular expression"},
		"no pattern":         {"'a'.matches('(')", "invalid matches argument"},
		"no duration":        {"duration('1 fortnight')", "invalid duration argument"},
		"a loop that is set": {"lists.range(1000000).map(x, x)", "costs more than 20000"},
		"nested loops":       {nestedLoops("1"), "costs more than 20000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := environment.Compile(test.source)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
		})
	}
}

// nestedLoops repeats an expression a million times.
func nestedLoops(inner string) string {
	for range 6 {
		inner = "[1,2,3,4,5,6,7,8,9,0].map(x, " + inner + ")"
	}
	return inner
}

func TestEvaluateSaysWhatIsWrong(t *testing.T) {
	environment := mustEnvironment(t)
	for name, test := range map[string]struct{ source, want string }{
		"an absent parameter":   {"params.absent", "params.absent is absent: ask for it with has(params.absent)"},
		"an absent field":       {"pod.spec.nodeName.size()", "pod.spec.nodeName is absent"},
		"an absent label":       {"pod.metadata.labels['no']", `reads "no", which is absent`},
		"an absent namespace":   {"namespace.spec", "namespace.spec is absent"},
		"an index":              {"pod.spec.containers[7]", "index out of bounds: 7"},
		"division":              {"params.port / 0", "divides by zero"},
		"remainder":             {"params.port % 0", "divides by zero"},
		"overflow":              {"params.port + 9223372036854775807", "too large for 64 bits"},
		"an infinite number":    {"1.0 / 0.0", "yields no finite number"},
		"a large unsigned":      {"18446744073709551615u", "too large for 64 bits"},
		"types":                 {"pod.metadata.name + 1", "values of the wrong type"},
		"a conversion":          {"int(pod.metadata.name)", "cannot make a value of type int of this one of type string"},
		"a type":                {"type(1)", "has no place in JSON"},
		"a key":                 {"{1: 2}", "a map with a key that is no string"},
		"an extreme quantity":   {"quantity('1e-2147483648')", "out of the range of quantities"},
		"an absent optional":    {"params.?absent.value()", "use orValue()"},
		"bytes of no text":      {"string(b'\\xff')", "UTF-8"},
		"doubled strings":       {"pod.spec.containers.map(c, c.image)" + strings.Repeat(".map(x, x + x + x)", 15), "costs more than 20000"},
		"replaced strings":      {"[pod.metadata.name]" + strings.Repeat(".map(x, x.replace('', x))", 10), "costs more than 20000"},
		"joined strings":        {"[pod.metadata.name]" + strings.Repeat(".map(x, lists.range(9).map(y, x).join(x))", 7), "costs more than 20000"},
		"doubled lists":         {"pod.spec.containers.map(c, [c])" + strings.Repeat(".map(x, x + x)", 15), "costs more than 20000"},
		"equal lists":           {"[[pod.metadata.name]" + strings.Repeat(".map(x, [x, x])", 14) + "].all(x, x == x)", "costs more than 20000"},
		"searched lists":        {"[[pod.metadata.name]" + strings.Repeat(".map(x, [x, x])", 14) + "].all(x, x[0] in x)", "costs more than 20000"},
		"a range":               {"lists.range(params.port * 1000)", "costs more than 20000"},
		"nested ranges":         {"lists.range(params.port / 8).exists(x, lists.range(params.port / 8).exists(y, false))", "costs more than 20000"},
		"filters of nothing":    {"lists.range(params.port / 10).filter(x, lists.range(params.port / 10).filter(y, false) == [1])", "costs more than 20000"},
		"digits":                {"'%.1000000000f'.format([double(params.port)])", "costs more than 20000"},
		"a made pattern":        {"pod.metadata.name.matches('a{1000}' + 'a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}a{1000}')", "costs more than 20000"},
		"a large product set":   {"sets.contains(lists.range(params.port / 20), lists.range(params.port / 20))", "costs more than 20000"},
		"much that is distinct": {"lists.range(params.port / 2).distinct()", "costs more than 20000"},
	} {
		t.Run(name, func(t *testing.T) {
			expression, err := environment.Compile(test.source)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = expression.Evaluate(testValues())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestEvaluateIsBriefAboutWhatIsLong(t *testing.T) {
	environment, values := mustEnvironment(t), hostileValues()
	for _, source := range []string{
		"{'a': 1}[pod.metadata.annotations.short]", "ip(pod.metadata.annotations.long)", "quantity(pod.metadata.annotations.long)",
		"int(pod.metadata.annotations.digits)",
	} {
		expression, err := environment.Compile(source)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := expression.Evaluate(values); err == nil || len(err.Error()) > 500 {
			t.Errorf("%s: %d bytes: %.500v", source, len(fmt.Sprint(err)), err)
		}
	}
}

func TestEvaluateChargesForResults(t *testing.T) {
	expression, err := mustEnvironment(t).Compile("pod.spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, cost, err := expression.evaluate(hostileValues(), perExpressionCost); err == nil || cost < maxResultSize/bytesPerUnit {
		t.Errorf("cost %d, %v", cost, err)
	}
}

func TestEvaluateBoundsTheResult(t *testing.T) {
	values := map[string]any{"pod": map[string]any{"text": strings.Repeat("a", maxResultSize)}}
	expression, err := mustEnvironment(t).Compile("pod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := expression.Evaluate(values); err == nil || err.Error() != "yields more than 64 KiB" {
		t.Errorf("got %v", err)
	}
}

func TestEvaluateNamesAVariableWithoutAValue(t *testing.T) {
	expression, err := mustEnvironment(t).Compile("namespace.metadata")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := expression.Evaluate(nil); err == nil || err.Error() != "namespace has no value here" {
		t.Errorf("got %v", err)
	}
}

func TestReads(t *testing.T) {
	expression, err := mustEnvironment(t).Compile("namespace.metadata.labels.exists(pod, pod == params.name)")
	if err != nil {
		t.Fatal(err)
	}
	for variable, want := range map[string]bool{"namespace": true, "params": true, "profile": false, "unknown": false} {
		if got := expression.Reads(variable); got != want {
			t.Errorf("Reads(%q) = %t", variable, got)
		}
	}
}

func TestSelects(t *testing.T) {
	environment := mustEnvironment(t)
	for source, want := range map[string]bool{
		"pod.metadata.name":                                            true,
		"pod.metadata['name']":                                         true,
		"pod['metadata'].name":                                         true,
		"pod.?metadata.?name.orValue('')":                              true,
		"pod.metadata[?'name'].orValue('')":                            true,
		"pod[?'metadata'].orValue({}).name":                            true,
		"pod.?metadata.optMap(m, m.name).orValue('')":                  true,
		"has(pod.metadata.name)":                                       true,
		"'name' in pod.metadata":                                       true,
		"dyn(pod).metadata.name.size()":                                true,
		"[1].exists(i, pod.metadata.name == string(i))":                true,
		"pod.metadata.name.exists(pod, true)":                          true,
		"params.any.map(x, x + 1) == [1] && pod.metadata . name == ''": true,
		"'pod.metadata.name'":                                          false,
		"pod.metadata.namespace":                                       false,
		"pod.metadata.names":                                           false,
		"pod.metadata.labels.name":                                     false,
		"pod.metadata.labels['pod.metadata.name']":                     false,
		"pod.spec.containers.exists(c, c.name == 'x')":                 false,
		"pod.spec.containers.exists(pod, pod.metadata.name == 'x')":    false,
		"namespace.metadata.name":                                      false,
		"pod.metadata":                                                 false,
		"1 + 1":                                                        false,
	} {
		t.Run(source, func(t *testing.T) {
			expression, err := environment.Compile(source)
			if err != nil {
				t.Fatal(err)
			}
			if got := expression.Selects("pod", "metadata", "name"); got != want {
				t.Errorf("got %t", got)
			}
		})
	}
	expression, err := environment.Compile("namespace.metadata.name")
	if err != nil {
		t.Fatal(err)
	}
	if !expression.Selects("namespace", "metadata", "name") {
		t.Error("a variable whose name CEL reserves is not found")
	}
}

func TestNewEnvironmentRefusesAnUnknownKind(t *testing.T) {
	if _, err := NewEnvironment(Variable{Name: "params", Fields: map[string]Kind{"x": "text"}}); err == nil {
		t.Error("no error")
	}
}

func TestEvaluateSideBySide(t *testing.T) {
	expression, err := mustEnvironment(t).Compile("pod.spec.containers.map(c, c.image + string(params.port))")
	if err != nil {
		t.Fatal(err)
	}
	values := testValues()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				got, err := expression.Evaluate(values)
				if diff := cmp.Diff([]any{"web:18080", "proxy:28080"}, got); err != nil || diff != "" {
					t.Error(err, diff)
				}
			}
		})
	}
	group.Wait()
}
