package profiles_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/profiles"
)

func TestWhatAsksWhereNothingReadsItIsTold(t *testing.T) {
	meta := func(annotations, labels map[string]string) *metav1.ObjectMeta {
		return &metav1.ObjectMeta{Annotations: annotations, Labels: labels}
	}
	asks := map[string]string{"pillion.dev/inject": "site"}
	overrides := map[string]string{"site.pillion.dev/ref": "v2"}
	tests := map[string]struct {
		own, job, pod *metav1.ObjectMeta
		want          []string
	}{
		"annotations of the Pod template are read": {own: meta(nil, nil), pod: meta(asks, nil)},
		"an annotation of the workload alone is not": {
			own: meta(asks, nil), pod: meta(nil, nil),
			want: []string{"its own metadata.annotations have pillion.dev/inject, which is read from Pods only; " +
				"move it to spec.template.metadata.annotations"},
		},
		"an override of the workload alone is not": {
			own: meta(overrides, nil), pod: meta(asks, nil),
			want: []string{"its own metadata.annotations have site.pillion.dev/ref, which is read from Pods only; " +
				"move it to spec.template.metadata.annotations"},
		},
		"what stands in both places is read":         {own: meta(asks, nil), pod: meta(asks, nil)},
		"other annotations of the workload are none": {own: meta(map[string]string{"app": "web"}, nil), pod: meta(nil, nil)},
		"a label of the template is not read": {
			own: meta(nil, nil), pod: meta(nil, asks),
			want: []string{"its label pillion.dev/inject is not read: only Namespaces ask by a label; write an annotation in " +
				"spec.template.metadata.annotations, where commas join names"},
		},
		"a label of the workload is not read, and both are told once": {
			own: meta(nil, asks), pod: meta(nil, asks),
			want: []string{"its label pillion.dev/inject is not read: only Namespaces ask by a label; write an annotation in " +
				"spec.template.metadata.annotations, where commas join names"},
		},
		"an annotation of a Job template alone is not": {
			own: meta(nil, nil), job: meta(asks, nil), pod: meta(overrides, nil),
			want: []string{"the metadata.annotations of its Job template have pillion.dev/inject, which is read from Pods only; " +
				"move it to spec.template.metadata.annotations"},
		},
		"a label of a Job template is not read": {
			own: meta(nil, nil), job: meta(nil, asks), pod: meta(nil, nil),
			want: []string{"its label pillion.dev/inject is not read: only Namespaces ask by a label; write an annotation in " +
				"spec.template.metadata.annotations, where commas join names"},
		},
		"a label beside the annotation does no harm": {own: meta(nil, asks), pod: meta(asks, asks)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, profiles.Misplaced(test.own, test.job, test.pod, "spec.template")); diff != "" {
				t.Error(diff)
			}
		})
	}
	got := profiles.Misplaced(nil, nil, meta(nil, asks), "")
	want := "its label pillion.dev/inject is not read: only Namespaces ask by a label; write an annotation in metadata.annotations, where commas join names"
	if len(got) != 1 || got[0] != want {
		t.Errorf("of a Pod: want %q, got %q", want, got)
	}
}
