package expressions

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"pgregory.net/rapid"
)

// reporter is what testing and rapid have in common.
type reporter interface {
	Helper()
	Fatal(args ...any)
}

// materialize reads all that a view shows.
func materialize(tb reporter, object any) any {
	tb.Helper()
	value, ok := object.(ref.Val)
	if !ok {
		value = types.DefaultTypeAdapter.NativeToValue(object)
	}
	got, err := (&converter{left: 1 << 30}).convert(value, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

// throughJSON is what an object's JSON holds.
func throughJSON(tb reporter, object any) any {
	tb.Helper()
	encoded, err := json.Marshal(object)
	if err != nil {
		tb.Fatal(err)
	}
	var decoded any
	if err := utiljson.Unmarshal(encoded, &decoded); err != nil {
		tb.Fatal(err)
	}
	return decoded
}

func TestViewIsWhatTheJSONHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod := &corev1.Pod{}
		fill(t, reflect.ValueOf(pod).Elem(), 0)
		before := pod.DeepCopy()
		view := View(pod)
		got := materialize(t, view)
		if diff := cmp.Diff(throughJSON(t, pod), got); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(before, pod); diff != "" {
			t.Fatal("reading changed the Pod", diff)
		}
		plain := types.DefaultTypeAdapter.NativeToValue(got)
		if types.Equal(view.(ref.Val), plain) != types.True || types.Equal(plain, view.(ref.Val)) != types.True {
			t.Fatal("a view and its JSON are not equal")
		}
	})
}

// fill sets fields of a Go value at random.
func fill(t *rapid.T, value reflect.Value, depth int) {
	number := rapid.IntRange(0, 3).Draw(t, "number")
	switch pointer := value.Addr().Interface().(type) {
	case *resource.Quantity:
		*pointer = resource.MustParse([]string{"0", "100m", "1Gi", "1e3"}[number])
		return
	case *metav1.Time:
		*pointer = metav1.Time{Time: time.Unix(int64(number)*1e9, 0)}
		return
	case *intstr.IntOrString:
		*pointer = []intstr.IntOrString{intstr.FromInt32(0), intstr.FromString("http"), intstr.FromInt32(80), intstr.FromString("")}[number]
		return
	case *[]metav1.ManagedFieldsEntry:
		return
	}
	switch value.Kind() {
	case reflect.Struct:
		for i := range value.NumField() {
			fill(t, value.Field(i), depth+1)
		}
	case reflect.Pointer:
		if number > depth/4 {
			value.Set(reflect.New(value.Type().Elem()))
			fill(t, value.Elem(), depth+1)
		}
	case reflect.Slice:
		if number > depth/2 {
			value.Set(reflect.MakeSlice(value.Type(), 2, 2))
			fill(t, value.Index(1), depth+2)
		}
	case reflect.Map:
		if number > 1 && depth < 8 {
			value.Set(reflect.MakeMap(value.Type()))
			key, element := reflect.New(value.Type().Key()).Elem(), reflect.New(value.Type().Elem()).Elem()
			fill(t, key, depth+1)
			fill(t, element, depth+1)
			value.SetMapIndex(key, element)
		}
	case reflect.String:
		value.SetString([]string{"", "a", "é", "cpu"}[number])
	case reflect.Bool:
		value.SetBool(number > 1)
	case reflect.Int32, reflect.Int64, reflect.Int:
		value.SetInt(int64(number) - 1)
	case reflect.Uint8:
		value.SetUint(uint64(number))
	}
}

func TestViewOfOtherObjects(t *testing.T) {
	for name, object := range map[string]any{
		"a namespace":       &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", CreationTimestamp: metav1.Unix(1e9, 0)}},
		"a secret":          &corev1.Secret{Data: map[string][]byte{"a": []byte("b"), "empty": {}, "nil": nil}},
		"a precise time":    metav1.NewMicroTime(time.Unix(1e9, 123000)),
		"a duration":        metav1.Duration{Duration: time.Minute},
		"fields":            metav1.NewFieldsV1(`{"f:a":{}}`),
		"resources":         corev1.ResourceList{"cpu": resource.MustParse("1500m")},
		"a list":            []corev1.ContainerPort{{ContainerPort: 80}},
		"a map of integers": map[string]int{"a": 1},
		"keys of integers":  map[int]string{1: "a"},
		"an object of JSON": map[string]any{"a": []any{int64(1), nil}},
		"nothing":           nil,
		"a nil pointer":     (*corev1.Pod)(nil),
		"an embedded nil":   struct{ *metav1.TypeMeta }{},
		"an outer field": struct {
			metav1.TypeMeta
			Kind string `json:"kind"`
		}{metav1.TypeMeta{Kind: "inner"}, "outer"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(throughJSON(t, object), materialize(t, View(object))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestViewLeavesOutManagedFields(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}}}
	metadata := materialize(t, View(pod)).(map[string]any)["metadata"].(map[string]any)
	if len(metadata) != 0 {
		t.Errorf("got %v", metadata)
	}
}

func TestViewIsReadByCEL(t *testing.T) {
	environment := mustEnvironment(t)
	for _, source := range []string{
		"has(pod.metadata.labels) && !has(pod.metadata.finalizers) && !has(pod.spec.nodeName)",
		"'app' in pod.metadata.labels && !('no' in pod.metadata.labels) && !(1 in pod.metadata.labels)",
		"size(pod.metadata.labels) == 2 && pod.spec.containers.size() == 2",
		"pod.metadata.labels == {'app': 'web', 'tier': 'front'} && {'app': 'web', 'tier': 'front'} == pod.metadata.labels",
		"pod.metadata.labels != {'app': 'web', 'tier': 'back'} && pod.metadata.labels != {'app': 'web'}",
		"pod.spec.containers[0] in pod.spec.containers && !('main' in pod.spec.containers)",
		"pod.spec.containers == pod.spec.containers && pod.spec.containers != []",
		"pod.spec.containers[0] != pod.spec.containers[1]",
		"pod.spec.containers[?5].orValue('none') == 'none'",
		"pod[?'metadata'].?labels[?'app'].orValue('') == 'web'",
		"pod.spec.containers.filter(c, c.name.startsWith('m'))[0].image == 'web:1'",
		"pod.metadata.labels.exists(k, v, k == 'app' && v == 'web')",
		"optional.ofNonZeroValue(pod.metadata.annotations).hasValue() && optional.ofNonZeroValue(pod.spec.containers).hasValue()",
		"type(pod.metadata) == map && type(pod.spec.containers) == list",
		"sets.contains(pod.spec.containers, [pod.spec.containers[1]])",
		"[pod.spec.containers].flatten().size() == 2",
		"dyn(pod.spec.containers[0].resources) == {}",
	} {
		t.Run(source, func(t *testing.T) {
			expression, err := environment.Compile(source)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := expression.Evaluate(testValues()); got != true {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
