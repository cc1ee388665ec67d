package expressions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// rules double dollars in env and below mounts in subPath, refuse dashes in args, and expressions in names.
func rules(path []string) (LeafRules, error) {
	if slices.Contains(path, "name") {
		return LeafRules{}, errors.New("a name holds no expression")
	}
	if slices.Contains(path, "mounts") {
		return LeafRules{DoubleDollarIn: "subPath"}, nil
	}
	return LeafRules{DoubleDollar: slices.Contains(path, "env"), NoLeadingDash: slices.Contains(path, "args")}, nil
}

func compileTemplate(tb testing.TB, document any) (*Template, field.ErrorList) {
	tb.Helper()
	options := TemplateOptions{Rules: rules, Early: []string{"params", "profile"}}
	return mustEnvironment(tb).CompileTemplate(document, field.NewPath("template"), options)
}

// renderTemplate returns what a document becomes, or all that is wrong with it.
func renderTemplate(tb testing.TB, document any, values map[string]any) (any, field.ErrorList) {
	tb.Helper()
	template, errs := compileTemplate(tb, document)
	if len(errs) > 0 {
		return nil, errs
	}
	bound, errs := template.Bind(values)
	if len(errs) > 0 {
		return nil, errs
	}
	leaves, errs := bound.Evaluate(values)
	if len(errs) > 0 {
		return nil, errs
	}
	return bound.Render(leaves), nil
}

func TestRender(t *testing.T) {
	type object = map[string]any
	values := testValues()
	values["params"].(map[string]any)["any"] = object{"a": []any{"$(X)", "-x"}}
	values["params"].(map[string]any)["name"] = "$(HOME)"
	for name, test := range map[string]struct{ document, want any }{
		"constants are kept": {
			object{"a": int64(1), "b": []any{true, nil, 1.5, "text"}, "c": object{}},
			object{"a": int64(1), "b": []any{true, nil, 1.5, "text"}, "c": object{}},
		},
		"one expression keeps its type":              {"${params.port}", int64(8080)},
		"a text with an expression is a text":        {"port ${params.port}", "port 8080"},
		"a space makes a text":                       {" ${params.port}", " 8080"},
		"numbers and booleans are text":              {"${1}${2.5}${true}${'x'}", "12.5truex"},
		"early and late in one text":                 {"${params.port}-${pod.metadata.name}", "8080-web-0"},
		"nil drops a key":                            {object{"a": "${null}", "b": "${params.?absent}", "c": "x"}, object{"c": "x"}},
		"nil drops an element":                       {[]any{"${null}", "x", "${pod.?no}"}, []any{"x"}},
		"a literal dollar and brace":                 {"$${params.port} ${params.port}", "${params.port} 8080"},
		"two dollars before a brace":                 {"$$${x}", "$${x}"},
		"other dollars are text":                     {"$(HOME) $X $ $$ }", "$(HOME) $X $ $$ }"},
		"braces in an expression":                    {"${{'a': {'b': 1}}['a']['b']}", int64(1)},
		"a brace in a string":                        {`${'}' + "}\"}" + r'\' + '''}'}'''}`, `}}"}\}'}`},
		"a brace in a string of three quotes":        {"${\"\"\"}\"}\n\"\"\"}", "}\"}\n"},
		"a brace in bytes":                           {`${string(b'}') + string(br'}\')}`, `}}\`},
		"a brace in a comment":                       {"${1 // }\n + 1}", int64(2)},
		"a dollar that is yielded is doubled in env": {object{"env": "${params.name}"}, object{"env": "$$(HOME)"}},
		"a dollar that is written is not":            {object{"env": "$(A) ${params.name} $(B)"}, object{"env": "$(A) $$(HOME) $(B)"}},
		"a dollar elsewhere is not":                  {object{"label": "${params.name}"}, object{"label": "$(HOME)"}},
		"dollars are doubled in what a result holds": {object{"env": "${params.any}"}, object{"env": object{"a": []any{"$$(X)", "-x"}}}},
		"dollars are doubled below one key alone": {
			object{"mounts": "${[{'subPath': '$(X)', 'path': '$(X)'}]}"},
			object{"mounts": []any{object{"subPath": "$$(X)", "path": "$(X)"}}},
		},
		"a dash that is spelt out is allowed":         {object{"args": []any{"${params.port > 1 ? '-v' : ''}"}}, object{"args": []any{"-v"}}},
		"a dash after text is allowed":                {object{"args": []any{"x=${'-' + 'v'}", "--${'-' + 'v'}"}}, object{"args": []any{"x=-v", "---v"}}},
		"a list of what is spelt out is allowed":      {object{"args": "${['-a', 'b']}"}, object{"args": []any{"-a", "b"}}},
		"a dash is allowed where there is no command": {"${'-' + 'v'}", "-v"},
	} {
		t.Run(name, func(t *testing.T) {
			got, errs := renderTemplate(t, test.document, values)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTemplateSaysWhatIsWrong(t *testing.T) {
	type object = map[string]any
	for name, test := range map[string]struct {
		document any
		want     []string
	}{
		"no end": {object{"a": "x ${params.port"}, []string{
			`template.a: Invalid value: "x ${params.port": has ${ without the } that ends it: add that, or write $${ for a literal ${`,
		}},
		"a string without an end": {"${'}", []string{"has ${ without the } that ends it"}},
		"an empty expression":     {"${}", []string{"is empty: write an expression"}},
		"a key": {object{"${params.name}": "x"}, []string{
			`template[${params.name}]: Invalid value: "${params.name}": a key holds no expression`,
		}},
		"an open key":        {object{"${": "x"}, []string{"template[${]: Invalid value"}},
		"a forbidden place":  {object{"name": "${params.name}"}, []string{"template.name: Forbidden: a name holds no expression"}},
		"no JSON":            {object{"a": struct{}{}}, []string{`template.a: Invalid value: "struct {}": is no JSON value`}},
		"a key with a slash": {object{"a.b/c": "${params.prot}"}, []string{"template[a.b/c]: Invalid value"}},
		"two mistakes": {[]any{"${params.prot}", object{"b": "${1 +}"}}, []string{
			`template[0]: Invalid value: "${params.prot}": at column 7: there is no field "prot"`,
			`template[1].b: Invalid value: "${1 +}": at column 4: unexpected end`,
		}},
		"two values": {[]any{"${pod.spec.nodeName}", "${1 / (params.port - params.port)}"}, []string{
			`template[1]: Invalid value: "${1 / (params.port - params.port)}": divides by zero`,
		}},
		"two late values": {[]any{"${pod.spec.nodeName}", "${1 / (pod.metadata.labels.size() - 2)}"}, []string{
			"template[0]: Invalid value", "template[1]: Invalid value",
		}},
		"a list in a text":       {"x${[1]}", []string{"yields a list, which cannot be part of a text"}},
		"a map in a text":        {"x${{'a': 1}}", []string{"yields a map, which cannot be part of a text"}},
		"nothing in a text":      {"x${null}", []string{"yields nothing, which cannot be part of a text"}},
		"a dash":                 {object{"args": []any{"${'-' + 'v'}"}}, []string{`template.args[0]: Invalid value: "${'-' + 'v'}": yields "-v", which begins with a dash`}},
		"a dash before a text":   {object{"args": []any{"${'-' + 'v'}=x"}}, []string{"begins with a dash"}},
		"a dash after nothing":   {object{"args": []any{"${''}${'-' + 'v'}"}}, []string{"begins with a dash"}},
		"a number with a dash":   {object{"args": []any{"${0 - 1}s"}}, []string{"begins with a dash"}},
		"a dash in a list":       {object{"args": "${['-' + 'a']}"}, []string{"begins with a dash"}},
		"too many expressions":   {slices.Repeat([]any{"${1}"}, 300), []string{"template: Too many: 300: must have at most 256 items"}},
		"too many in one string": {strings.Repeat("${1}", 300), []string{"template: Too many: 300"}},
		"much text":              {slices.Repeat([]any{"${pod.metadata.labels.map(l, '" + strings.Repeat("a", 4000) + "')[0] + params.name}"}, 250), []string{"Too long: may not be more than 524288 bytes"}},
		"much work that is always the same": {
			slices.Repeat([]any{"${lists.range(9000).size() == 1}"}, 20), []string{"left of what all expressions may cost together"},
		},
		"a nest": {nestedDocument(200), []string{"nests deeper than 100 levels"}},
		"much work": {slices.Repeat([]any{"${lists.range(params.port / 20).map(i, pod).size()}"}, 50), []string{
			"costs more than",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := renderTemplate(t, test.document, testValues())
			if len(errs) < len(test.want) || len(test.want) > 1 && len(errs) != len(test.want) {
				t.Fatalf("got %v, want %q", errs, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(errs[i].Error(), want) {
					t.Errorf("got %v, want %q", errs[i], want)
				}
			}
		})
	}
}

func nestedDocument(depth int) any {
	var document any = "x"
	for range depth {
		document = []any{document}
	}
	return document
}

func TestBindEvaluatesWhatIsEarly(t *testing.T) {
	template, errs := compileTemplate(t, map[string]any{
		"early": "${params.port}", "late": "${pod.metadata.name}", "both": "${profile.name}-${pod.metadata.name}", "none": "${1 + 1}",
	})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	bound, errs := template.Bind(map[string]any{"params": map[string]any{"port": int64(1)}, "profile": map[string]any{"name": "p"}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for place, want := range map[string]any{"early": int64(1), "none": int64(2), "late": nil, "both": nil} {
		if got, ok := bound.Value(place); got != want || ok != (want != nil) {
			t.Errorf("%s is %v, %t", place, got, ok)
		}
	}
	leaves, errs := bound.Evaluate(testValues())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := map[string]any{"early": int64(1), "late": "web-0", "both": "cache-web-0", "none": int64(2)}
	if diff := cmp.Diff(want, bound.Render(leaves)); diff != "" {
		t.Error(diff)
	}
}

func TestTryOutLeavesOpenWhatIsNotKnown(t *testing.T) {
	template, _ := compileTemplate(t, map[string]any{
		"early": "${params.port}", "late": "${pod.metadata.name}", "text": "x${namespace.metadata.name}",
		"list": []any{"${null}", "${pod.metadata.name}", "last", "${null}"}, "out": "${null}",
		"zero": "${1 / (params.port - 1)}", "absent": "${params.any.x}", "syntax": "${1 +}", "endless": "${1",
		"lacking": "${params.name}", "asking": "${has(params.name)}", "whole": "${string(dyn(params) == {})}",
		"optional": "${params.?name.orValue('')}", "other": "${profile.name}", "beside": "${params.port > 0 ? 'a' : params.name}",
	})
	tried, errs := template.TryOut(map[string]any{
		"params": map[string]any{"port": int64(1), "any": map[string]any{}}, "profile": map[string]any{"name": "p"},
	}, map[string][]string{"params": {"name"}})
	want := map[string]any{
		"early": int64(1), "late": Open{}, "text": Open{}, "list": []any{Open{}, Open{}, "last"},
		"zero": Open{}, "absent": Open{}, "syntax": Open{}, "endless": Open{}, "lacking": Open{}, "asking": Open{}, "whole": Open{},
		"optional": Open{}, "other": "p", "beside": Open{},
	}
	if diff := cmp.Diff(want, tried); diff != "" {
		t.Error(diff)
	}
	if len(errs) != 2 || errs[0].Field != "template.absent" || errs[1].Field != "template.zero" {
		t.Errorf("%v, want what is absent and the zero", errs)
	}
}

func TestTryOutSaysOnceThatAllCostTooMuch(t *testing.T) {
	document := map[string]any{"late": "${pod.metadata.name}"}
	for i := range 40 {
		document[fmt.Sprintf("x%02d", i)] = "${string(lists.range(500).map(i, i + params.port).size())}"
	}
	template, errs := compileTemplate(t, document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if _, errs = template.TryOut(map[string]any{"params": map[string]any{"port": int64(1)}}, nil); len(errs) != 1 {
		t.Errorf("%v, want one problem", errs)
	}
}

func TestCheckRefusesExpressions(t *testing.T) {
	refuse := func(expression *Expression) error {
		if expression.Selects("pod", "metadata", "name") {
			return errors.New("reads the name of " + expression.Source())
		}
		return nil
	}
	document := map[string]any{"a": "${params.port} ${pod.metadata.name}", "b": "${pod.spec}"}
	_, errs := mustEnvironment(t).CompileTemplate(document, field.NewPath("template"), TemplateOptions{Check: refuse})
	if len(errs) != 1 || errs[0].Error() != "template.a: Forbidden: reads the name of pod.metadata.name" {
		t.Error(errs)
	}
}

func TestRenderSharesNothing(t *testing.T) {
	template, errs := compileTemplate(t, map[string]any{"early": "${params.any}", "late": "${pod.metadata.labels}", "list": []any{"x"}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	bound, errs := template.Bind(testValues())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	leaves, errs := bound.Evaluate(testValues())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := bound.Render(leaves)
	changed := bound.Render(leaves).(map[string]any)
	changed["early"].([]any)[0] = "changed"
	changed["late"].(map[string]any)["app"] = "changed"
	changed["list"].([]any)[0] = "changed"
	if diff := cmp.Diff(want, bound.Render(leaves)); diff != "" {
		t.Error(diff)
	}
}

func TestKeysTellLeavesApart(t *testing.T) {
	results := []any{
		nil, true, false, int64(0), int64(1), int64(-1), 0.0, 1.0, "", "n", "t", "ab",
		[]any{},
		[]any{nil},
		[]any{"a", "b"},
		[]any{"ab"},
		[]any{[]any{}, "a"},
		[]any{[]any{"a"}},
		map[string]any{},
		map[string]any{"a": "b"},
		map[string]any{"a": nil},
		map[string]any{"b": "a"},
	}
	seen := map[string]string{}
	for _, first := range results {
		for _, second := range results {
			key := Leaves{results: []any{first, second}}.Key()
			if other, ok := seen[key]; ok {
				t.Errorf("%v, %v has the key of %s", first, second, other)
			}
			seen[key] = fmt.Sprintf("%#v, %#v", first, second)
			if again := (Leaves{results: []any{copyJSON(first), copyJSON(second)}}).Key(); again != key {
				t.Errorf("%v, %v has two keys", first, second)
			}
		}
	}
}

func TestPlacesOfExpressions(t *testing.T) {
	template, errs := compileTemplate(t, map[string]any{"ports": []any{
		map[string]any{"port": "${params.port}", "text": "x${params.port}", "sum": "${params.port + 1}", "plain": "$${x}", "pod": "${namespace.metadata}"},
	}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for place, want := range map[string][]string{
		"port": {"params", "port"}, "pod": {"namespace", "metadata"}, "text": nil, "sum": nil, "plain": nil, "none": nil,
	} {
		path := []string{"ports", "0", place}
		variable, name, ok := template.OnlyReads(path)
		if ok != (want != nil) || ok && (variable != want[0] || name != want[1]) {
			t.Errorf("OnlyReads(%q) = %q, %q, %t", place, variable, name, ok)
		}
		if got := template.HasExpression(path...); got != (place != "plain" && place != "none") {
			t.Errorf("HasExpression(%q) = %t", place, got)
		}
	}
	if !template.Reads("params") || !template.Reads("namespace") || template.Reads("pod") {
		t.Error("Reads is wrong")
	}
}
