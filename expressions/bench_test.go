package expressions

import (
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func benchmarkPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-0", Namespace: "shop",
			Labels:      map[string]string{"app": "web", "tier": "front"},
			Annotations: map[string]string{"team": "checkout"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "web",
			Containers:         []corev1.Container{{Name: "main", Image: "web:1"}, {Name: "proxy", Image: "proxy:2"}},
		},
	}
}

func mustEnvironment(tb testing.TB) *Environment {
	tb.Helper()
	environment, err := NewEnvironment(
		Variable{Name: "params", Fields: map[string]Kind{"port": Int, "name": String, "on": Bool, "any": Any, "absent": String}},
		Variable{Name: "pod"},
		Variable{Name: "namespace"},
		Variable{Name: "profile", Fields: map[string]Kind{"name": String}},
	)
	if err != nil {
		tb.Fatal(err)
	}
	return environment
}

// tenLate are ten expressions as templates have them.
var tenLate = []any{
	"${pod.metadata.name}",
	"${pod.metadata.labels['app']}",
	"${pod.metadata.labels.tier}-${pod.metadata.namespace}",
	"${pod.metadata.?annotations['team'].orValue('none')}",
	"${pod.spec.serviceAccountName}",
	"${pod.spec.containers[0].image}",
	"${has(pod.spec.nodeName) ? pod.spec.nodeName : 'any'}",
	"--name=${pod.metadata.name}",
	"${string(params.port) + ':' + pod.metadata.name}",
}

func BenchmarkEvaluate(b *testing.B) {
	template, errs := mustEnvironment(b).CompileTemplate(tenLate, field.NewPath("template"), TemplateOptions{Early: []string{"params"}})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	params := map[string]any{"port": int64(8080)}
	bound, errs := template.Bind(map[string]any{"params": params})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	pod := benchmarkPod()
	b.Run("ten late expressions", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			leaves, errs := bound.Evaluate(map[string]any{"params": params, "pod": View(pod)})
			if len(errs) > 0 {
				b.Fatal(errs)
			}
			if leaves.Key() == "" {
				b.Fatal("no key")
			}
		}
	})
	for _, source := range []string{
		"pod.metadata.labels['app']",
		"pod.spec.containers.exists(c, c.name == 'proxy')",
		"!('batch' in pod.metadata.?labels.orValue({}))",
	} {
		b.Run(source, func(b *testing.B) { benchmarkExpression(b, source, map[string]any{"pod": View(pod)}) })
	}
}

func benchmarkExpression(b *testing.B, source string, values map[string]any) {
	expression, err := mustEnvironment(b).Compile(source)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := expression.Evaluate(values); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	environment := mustEnvironment(b)
	number := 0
	for b.Loop() {
		number++
		if _, err := environment.Compile("pod.metadata.labels['app'] + '" + strconv.Itoa(number) + "'"); err != nil {
			b.Fatal(err)
		}
	}
}
