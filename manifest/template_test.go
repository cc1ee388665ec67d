package manifest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTemplates(t *testing.T) {
	type template struct {
		Workload, Namespace, Path, Field string
		Line                             int
	}
	tests := map[string]struct {
		text    string
		want    []template
		wantErr string
	}{
		"a Pod is its own template": {
			text: "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: web}\nspec: {}\n",
			want: []template{{"Pod p", "web", "", "", 1}},
		},
		"a Deployment": {
			text: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {generateName: d-}\nspec:\n  template:\n    spec: {}\n",
			want: []template{{"Deployment d-", "", "/spec/template", "spec.template", 5}},
		},
		"a CronJob": {
			text: "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {}}}}}\n",
			want: []template{{"CronJob", "", "/spec/jobTemplate/spec/template", "spec.jobTemplate.spec.template", 3}},
		},
		"a PodTemplate": {
			text: "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: t}\ntemplate: {spec: {}}\n",
			want: []template{{"PodTemplate t", "", "/template", "template", 4}},
		},
		"a List, with what is no workload, and a List in it": {
			text: "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service}\n" +
				"- apiVersion: v1\n  kind: Pod\n  spec: {}\n" +
				"- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: apps/v1\n    kind: StatefulSet\n" +
				"    spec: {template: {spec: {}}}\n",
			want: []template{
				{"Pod", "", "/items/1", "", 5},
				{"StatefulSet", "", "/items/2/items/0/spec/template", "spec.template", 13},
			},
		},
		"the items of a typed list need no kind": {
			text: "apiVersion: batch/v1\nkind: JobList\nitems: [{metadata: {name: j}, spec: {template: {spec: {}}}}]\n",
			want: []template{{"Job j", "", "/items/0/spec/template", "spec.template", 3}},
		},
		"another group's kind of the same name is none of ours": {
			text: "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {}\n",
		},
		"an object without a kind": {text: "resources: [a.yaml]\n"},
		"a workload without a template": {
			text:    "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\nspec: {}\n",
			wantErr: "test.yaml:4:1: DaemonSet d has no spec.template.spec, which is where its containers stand",
		},
		"a Pod whose spec is no object": {
			text:    "apiVersion: v1\nkind: Pod\nspec: [1]\n",
			wantErr: "test.yaml:1:1: Pod has no spec, which is where its containers stand",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			templates, err := only(t, test.text).Templates()
			message := ""
			if err != nil {
				message = err.Error()
			}
			if message != test.wantErr {
				t.Errorf("error %q, want %q", message, test.wantErr)
			}
			var got []template
			for i := range templates {
				at := &templates[i]
				got = append(got, template{at.Workload(), at.Namespace, at.Path, at.Field, at.Line})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("templates (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTemplatePod(t *testing.T) {
	templates, err := only(t, "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      volumes: []\n"+
		"").Templates()
	if err != nil {
		t.Fatal(err)
	}
	pod, err := templates[0].Pod()
	if err != nil {
		t.Fatal(err)
	}
	if pod.Spec.Volumes == nil || pod.Spec.InitContainers != nil {
		t.Errorf("an empty list must not be taken for an absent one: %#v", pod.Spec)
	}
	got := templates[0].Operations([]patchOperation{add("/metadata/labels", object{"a": "b"})})
	want := []patchOperation{add("/spec/template/metadata", object{}), add("/spec/template/metadata/labels", object{"a": "b"})}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}

	templates, err = only(t, "apiVersion: v1\nkind: Pod\nspec:\n  containers: x\n").Templates()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := templates[0].Pod(); err == nil {
		t.Error("containers that are a string make a Pod")
	}
}
