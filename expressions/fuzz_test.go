package expressions

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// hostile are expressions that would loop, grow or fail.
var hostile = []string{
	"1 / 0", "params.absent", "pod.a.b.c", "pod == pod", "has(params.on)", "namespace.metadata", "'é' + 'größe'", "größe",
	strings.Repeat("(", 1000) + "1" + strings.Repeat(")", 1000),
	strings.Repeat("[", 90) + strings.Repeat("]", 90),
	"[pod]" + strings.Repeat(".map(x, [x, x])", 14) + " == [1]",
	"[pod]" + strings.Repeat(".map(x, {'a': x, 'b': x})", 14),
	"['ab']" + strings.Repeat(".map(x, x + x)", 14),
	"['ab']" + strings.Repeat(".map(x, x.replace('', x))", 8),
	"[[1]]" + strings.Repeat(".map(x, x + x)", 14) + ".flatten().distinct()",
	nestedLoops("1"), "lists.range(1000000).map(x, x)", "lists.range(params.port).map(x, lists.range(x))",
	"'aaaaaaaaaaaaaaaaaaaaaaaaaaaa'.matches('(a*)*(a|aa)+$')", "'x'.matches('((((x{10}){10}){10}){10})')", "'%.999999999f'.format([1.0])",
	"quantity('1e-2147483648')", "pod.spec.containers.map(c, c.image.split('')).flatten().join('x')", "duration('999999h') + timestamp('9999-12-31T00:00:00Z')",
	"pod.metadata.annotations.long.indexOf(pod.metadata.annotations.half)", "pod.metadata.annotations.long.findAll('(a|b)*c|a|b')",
	"lists.range(99).all(i, pod.metadata.annotations.runes.size() > i)",
	"lists.range(99).all(i, pod.metadata.labels.exists(k, true))",
	"lists.range(99).all(i, [1].transformMapEntry(k, v, namespace.metadata.labels).size() > i)",
	"lists.range(99).all(i, namespace.metadata.labels[?pod.metadata.annotations.million].hasValue())",
	"'a'.matches(pod.metadata.annotations.classes)", "semver(pod.metadata.annotations.version)",
	"url(pod.metadata.annotations.query).getQuery()",
	"'%s'.format([namespace.metadata.labels])", "pod.spec.containers.map(c, c.env.map(e, e.name))",
	"pod[?'metadata'].orValue({}).name",
	"pod.?metadata.?labels[?'app'].optMap(v, v + v).orValue('')", "pod.metadata.labels.transformMap(k, v, v)", "b'\\xff'", "string(b'\\xff')", "`x`", "r'\\'",
}

// longest is far more than one evaluation or compilation takes. It is that of a slow machine.
const longest = 5 * time.Second

func FuzzCompile(f *testing.F) {
	for _, source := range hostile {
		f.Add(source)
	}
	environment := mustEnvironment(f)
	values := hostileValues()
	f.Fuzz(func(t *testing.T, source string) {
		start := time.Now()
		expression, err := environment.Compile(source)
		if err == nil {
			_ = expression.Selects("pod", "metadata", "name")
			var result any
			var cost uint64
			if result, cost, err = expression.evaluate(values, perExpressionCost); err == nil && sizeOfJSON(result) > 16*maxResultSize {
				t.Errorf("yields too much")
			}
			if cost > perExpressionCost {
				t.Errorf("costs %d", cost)
			}
		}
		if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "runtime error")) {
			t.Errorf("says nothing of use: %v", err)
		}
		if took := time.Since(start); took > longest {
			t.Errorf("took %s", took)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, source := range hostile {
		f.Add("${"+source+"}", "x")
		f.Add("a ${"+source+"} $${ b", source)
	}
	f.Add("$${", "$")
	f.Add("${'}'}", "${")
	f.Add("${1 // }\n}", "$(HOME)")
	environment := mustEnvironment(f)
	values := testValues()
	f.Fuzz(func(t *testing.T, value, text string) {
		if !utf8.ValidString(value) || !utf8.ValidString(text) {
			return // as neither a manifest nor an annotation is
		}
		// Text without expressions comes back as it was.
		escaped := strings.ReplaceAll(text, "${", "$${")
		document := map[string]any{"value": value, "text": escaped, "list": []any{value, escaped}}
		template, errs := environment.CompileTemplate(document, field.NewPath("template"), TemplateOptions{Early: []string{"params"}})
		if len(errs) > 0 {
			return
		}
		bound, errs := template.Bind(values)
		if len(errs) > 0 {
			return
		}
		leaves, errs := bound.Evaluate(values)
		if len(errs) > 0 {
			return
		}
		rendered := bound.Render(leaves).(map[string]any)
		if !strings.Contains(text, "$${") && rendered["text"] != text {
			t.Errorf("%q became %q", text, rendered["text"])
		}
		again, errs := bound.Evaluate(values)
		if len(errs) > 0 || again.Key() != leaves.Key() {
			t.Errorf("the second evaluation differs: %v", errs)
		}
		if diff := cmp.Diff(rendered, bound.Render(again)); diff != "" {
			t.Error(diff)
		}
	})
}
