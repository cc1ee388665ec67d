package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// sending is a workload that is written in a namespace.
type sending struct {
	object, old     map[string]any // no old one: it is created
	namespaceLabels map[string]string
}

// sendingOf reads one from YAML; its kind is Deployment if it does not say.
func sendingOf(t *testing.T, object, old string, namespaceLabels map[string]string) sending {
	t.Helper()
	read := func(document string) map[string]any {
		if document == "" {
			return nil
		}
		read := map[string]any{}
		if err := yaml.Unmarshal([]byte(document), &read); err != nil {
			t.Fatal(err)
		}
		return complete(read)
	}
	return sending{read(object), read(old), namespaceLabels}
}

// complete gives an object what every one has that is sent.
func complete(object map[string]any) map[string]any {
	for key, value := range map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"}} {
		if object[key] == nil {
			object[key] = value
		}
	}
	return object
}

// called returns the names of the entries that the API server would call, by its own code.
func called(t rapid.TB, entries []admissionregistrationv1.ValidatingWebhook, w sending) []string {
	t.Helper()
	names := []string{}
	for i := range entries {
		namespaces, err := metav1.LabelSelectorAsSelector(entries[i].NamespaceSelector)
		if err != nil {
			t.Fatal(err)
		}
		if namespaces.Matches(k8slabels.Set(w.namespaceLabels)) && conditionsMatch(t, entries[i].MatchConditions, w) {
			names = append(names, entries[i].Name)
		}
	}
	return names
}

var conditionCompiler = sync.OnceValue(func() plugincel.ConditionCompiler {
	return plugincel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
})

// conditionsMatch evaluates match conditions as the API server does. None may err.
func conditionsMatch(t rapid.TB, conditions []admissionregistrationv1.MatchCondition, w sending) bool {
	t.Helper()
	expressions := make([]plugincel.ExpressionAccessor, len(conditions))
	for i := range conditions {
		expressions[i] = new(matchconditions.MatchCondition(conditions[i]))
	}
	evaluator := conditionCompiler().CompileCondition(expressions, plugincel.OptionalVariableDeclarations{HasAuthorizer: true},
		environment.NewExpressions)
	for i, err := range evaluator.CompilationErrors() {
		t.Errorf("condition %d does not compile: %v", i, err)
	}
	kind := schema.FromAPIVersionAndKind(w.object["apiVersion"].(string), w.object["kind"].(string))
	operation := admission.Create
	var old runtime.Object
	if w.old != nil {
		operation, old = admission.Update, &unstructured.Unstructured{Object: w.old}
	}
	object := &unstructured.Unstructured{Object: w.object}
	resource := kind.GroupVersion().WithResource(strings.ToLower(kind.Kind) + "s")
	attributes := admission.NewAttributesRecord(object, old, kind, "shop", "web", resource, "", operation, nil, false, nil)
	versioned := &admission.VersionedAttributes{
		Attributes: attributes, VersionedKind: kind, VersionedObject: admission.NewLazyObject(object), VersionedOldObject: admission.NewLazyObject(old),
	}
	result := matchconditions.NewMatcher(evaluator, new(admissionregistrationv1.Fail), "webhook", "validating", "test").
		Match(context.Background(), versioned, nil, nil)
	if result.Error != nil {
		t.Errorf("a condition errs for %v: %v", w.object, result.Error)
	}
	return result.Matches
}

func TestWorkloadsAreSentThatAskOrThatPolicyConcerns(t *testing.T) {
	const web, batch, audit = 0, 1, 2
	cluster := []v1alpha1.ClusterPatternProfile{
		clusterProfile("web", v1alpha1.FailurePolicyIgnore, "env=prod", "app=web"),
		clusterProfile("batch", v1alpha1.FailurePolicyFail, "env=prod", "app=batch"),
		enforcing(clusterProfile("audit", v1alpha1.FailurePolicyFail, "env=audited", "")),
		clusterProfile("also", v1alpha1.FailurePolicyIgnore, "env=audited", "app=web"),
	}
	plan := planOf(t, cluster, []v1alpha1.PatternProfile{
		namespacedProfile("shop", "metrics", v1alpha1.FailurePolicyIgnore), namespacedProfile("shop", "config", v1alpha1.FailurePolicyFail),
	})
	entries := compileWorkloads(plan, service(), excluded())
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	entryOf := func(i int) string {
		selection, _ := plan.Of(compiler.Cluster(&cluster[i]))
		return workloadMatchEntryName(selection.ID())
	}
	const (
		plain    = `{spec: {template: {metadata: {labels: {app: web}}}}}`
		asking   = `{spec: {template: {metadata: {labels: {app: web}, annotations: {pillion.dev/inject: site}}}}}`
		declines = `{spec: {template: {metadata: {labels: {app: web}, annotations: {pillion.dev/inject: " none "}}}}}`
	)
	prod, audited := map[string]string{"env": "prod"}, map[string]string{"env": "audited"}
	labeled := map[string]string{v1alpha1.InjectKey: "site", "env": "prod"}
	tests := map[string]struct {
		object, old string
		namespace   map[string]string
		want        []string
	}{
		"one that does not ask":                         {object: plain},
		"one without template":                          {object: `{spec: {}}`},
		"one without spec":                              {object: `{}`},
		"one that asks":                                 {object: asking, want: []string{workloadsEntry}},
		"one that declines":                             {object: declines, namespace: labeled},
		"one that asks where its namespace asks":        {object: asking, namespace: labeled, want: []string{workloadsEntry}},
		"one that asks and policy selects":              {object: asking, namespace: prod, want: []string{workloadsEntry}},
		"one whose namespace asks":                      {object: plain, namespace: labeled, want: []string{workloadNamespacesEntry}},
		"one whose namespace declines":                  {object: plain, namespace: map[string]string{v1alpha1.InjectKey: "none", "env": "prod"}},
		"one that policy selects":                       {object: plain, namespace: prod, want: []string{entryOf(web)}},
		"one that policy selects and that declines":     {object: declines, namespace: prod},
		"one that enforcing policy selects":             {object: plain, namespace: audited, want: []string{entryOf(audit)}},
		"one that declines what is enforced":            {object: declines, namespace: audited, want: []string{entryOf(audit)}},
		"one that policy selects by its own label only": {object: `{metadata: {labels: {app: web}}, spec: {template: {}}}`, namespace: prod},
		"one that is woven in the manifest": {
			object:    `{spec: {template: {metadata: {labels: {app: web, pillion.dev/injected: "true"}}}}}`,
			namespace: prod,
		},
		"one in a namespace with PatternProfiles, by one of two entries": {
			object: plain, namespace: map[string]string{"kubernetes.io/metadata.name": "shop"},
			want: []string{insideEntryOf(t, plan)},
		},
		"one in an excluded namespace": {object: asking, namespace: map[string]string{"kubernetes.io/metadata.name": "kube-system"}},
		"one whose own annotation asks": {
			object: `{metadata: {annotations: {pillion.dev/inject: site}}, spec: {template: {}}}`, namespace: prod, want: []string{workloadsEntry},
		},
		"one whose own annotation overrides a field": {
			object: `{metadata: {annotations: {site.pillion.dev/ref: v2}}, spec: {template: {}}}`, want: []string{workloadsEntry},
		},
		"one whose own label asks": {
			object: `{metadata: {labels: {pillion.dev/inject: site}}, spec: {template: {}}}`, want: []string{workloadsEntry},
		},
		"one whose template has a label that asks": {
			object: `{spec: {template: {metadata: {labels: {pillion.dev/inject: site}}}}}`, want: []string{workloadsEntry},
		},
		"one whose template overrides a field of nothing": {
			object: `{spec: {template: {metadata: {annotations: {site.pillion.dev/ref: v2}}}}}`, want: []string{workloadsEntry},
		},
		"a CronJob that asks": {
			object: `{apiVersion: batch/v1, kind: CronJob, spec: {jobTemplate: {spec: {template: {metadata: {annotations: {pillion.dev/inject: a}}}}}}}`,
			want:   []string{workloadsEntry},
		},
		"a CronJob that policy selects": {
			object:    `{apiVersion: batch/v1, kind: CronJob, spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: batch}}}}}}}`,
			namespace: prod, want: []string{entryOf(batch)},
		},
		"a CronJob whose Jobs have what Pods need": {
			object: `{apiVersion: batch/v1, kind: CronJob, spec: {jobTemplate: {metadata: {annotations: {pillion.dev/inject: a}}}}}`,
			want:   []string{workloadsEntry},
		},
		"a CronJob whose Jobs have a label that Pods need": {
			object: `{apiVersion: batch/v1, kind: CronJob, spec: {jobTemplate: {metadata: {labels: {pillion.dev/inject: a}}}}}`,
			want:   []string{workloadsEntry},
		},
		"a CronJob whose Jobs override": {
			object: `{apiVersion: batch/v1, kind: CronJob, spec: {jobTemplate: {metadata: {annotations: {a.pillion.dev/ref: b}}}}}`,
			want:   []string{workloadsEntry},
		},
		"one that a controller made": {
			object: `{kind: ReplicaSet, metadata: {name: web-1, ownerReferences: [{kind: Deployment, controller: true}]},
				spec: {template: {metadata: {annotations: {pillion.dev/inject: a}}}}}`,
		},
		"one with more annotations than are looked at": {
			object: `{metadata: {annotations: {` + manyKeys(501) + `, site.pillion.dev/ref: v2}}, spec: {template: {}}}`,
		},
		"one with as many annotations as are looked at": {
			object: `{metadata: {annotations: {` + manyKeys(499) + `, site.pillion.dev/ref: v2}}, spec: {template: {}}}`,
			want:   []string{workloadsEntry},
		},
		"one that somebody owns who does not control it": {
			object: `{metadata: {ownerReferences: [{kind: ConfigMap}, {kind: ConfigMap, controller: false}]},
				spec: {template: {metadata: {annotations: {pillion.dev/inject: a}}}}}`,
			want: []string{workloadsEntry},
		},
		"an update that changes nothing of these": {object: asking, old: asking},
		"an update that makes it ask":             {object: asking, old: plain, want: []string{workloadsEntry}},
		"an update of the status and the finalizers": {
			object: strings.Replace(asking, "{", "{status: {replicas: 1}, metadata: {finalizers: [a]}, ", 1), old: asking,
		},
		"an update of its own annotations": {
			object: strings.Replace(asking, "{", "{metadata: {annotations: {a: b}}, ", 1), old: asking, want: []string{workloadsEntry},
		},
		"an update of its own labels": {
			object: strings.Replace(asking, "{", "{metadata: {labels: {a: b}}, ", 1), old: asking, want: []string{workloadsEntry},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := called(t, entries, sendingOf(t, test.object, test.old, test.namespace))
			if diff := cmp.Diff(append([]string{}, test.want...), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// insideEntryOf returns the name of the first entry for namespaces with PatternProfiles.
func insideEntryOf(t *testing.T, plan *profiles.Plan) string {
	t.Helper()
	i := slices.IndexFunc(plan.Selections, func(s profiles.Selection) bool { return s.Inside })
	if i < 0 {
		t.Fatal("none")
	}
	return workloadMatchEntryName(plan.Selections[i].ID())
}

func TestASelectorIsTheSameInCEL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		selector := drawSelector(t)
		object := map[string]any{}
		drawn := drawLabels(t, "labels")
		if len(drawn) > 0 || rapid.Bool().Draw(t, "has labels") {
			object["spec"] = map[string]any{"template": map[string]any{"metadata": map[string]any{"labels": drawn}}}
		}
		compiled, err := metav1.LabelSelectorAsSelector(&selector)
		if err != nil {
			t.Fatal(err)
		}
		want := compiled.Matches(setOf(drawn))
		condition := admissionregistrationv1.MatchCondition{Name: "selected", Expression: selectorCEL(templateLabels, &selector)}
		if got := conditionsMatch(t, []admissionregistrationv1.MatchCondition{condition}, sending{object: complete(object)}); got != want {
			t.Fatalf("%s is %t of %v, and the selector %t", condition.Expression, got, drawn, want)
		}
	})
}

// What no label can be is text in CEL all the same.
func TestTextIsALiteralInCEL(t *testing.T) {
	for _, text := range []string{"", `'`, `"`, `\`, `\"`, `' || true || '`, "\n", "\x00", "\x7f", "ü", "\u202e", "😀", "${a}", "`"} {
		condition := admissionregistrationv1.MatchCondition{
			Name: "same", Expression: "object.spec.text == " + literal(text) + " && size(object.spec.text) == " + fmt.Sprint(len([]rune(text))),
		}
		object := complete(map[string]any{"spec": map[string]any{"text": text}})
		if !conditionsMatch(t, []admissionregistrationv1.MatchCondition{condition}, sending{object: object}) {
			t.Errorf("%q is not what %s says", text, condition.Expression)
		}
	}
}

// Every workload whose Pods would be sent is sent, and no entries of the same namespaces send one twice.
func TestWorkloadsAreSentWhereTheirPodsWouldBe(t *testing.T) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	rapid.Check(t, func(t *rapid.T) {
		var all []*profiles.Profile
		for i := range rapid.IntRange(1, 5).Draw(t, "profiles") {
			all = append(all, compiler.Cluster(drawProfile(t, fmt.Sprintf("p%d", i))))
		}
		plan := profiles.NewSnapshot(profiles.Options{}, all).Plan()
		entries := compileWorkloads(plan, service(), excluded())
		namespace, pod := drawLabels(t, "namespace"), drawLabels(t, "pod")
		metadata := map[string]any{"labels": pod}
		object := complete(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": metadata}}})
		w := sending{object: object, namespaceLabels: setOf(namespace)}
		want := false
		for i := range plan.Selections {
			s := &plan.Selections[i]
			want = want || selects(t, &s.Namespaces, namespace) && selects(t, &s.Pods, pod)
		}
		byNamespaces := map[string][]string{}
		for i := range entries {
			if names := called(t, entries[i:i+1], w); len(names) > 0 {
				key := metav1.FormatLabelSelector(entries[i].NamespaceSelector)
				byNamespaces[key] = append(byNamespaces[key], names...)
				sent++
			}
		}
		if (len(byNamespaces) > 0) != want {
			t.Fatalf("sent by %v, want any: %t", byNamespaces, want)
		}
		for selector, names := range byNamespaces {
			if len(names) > 1 {
				t.Fatalf("of namespaces %s it is sent by %q", selector, names)
			}
		}
	})
	if sent == 0 {
		t.Error("nothing that was drawn is sent")
	}
}

func drawProfile(t *rapid.T, name string) *v1alpha1.ClusterPatternProfile {
	profile := clusterProfile(name, rapid.SampledFrom([]v1alpha1.FailurePolicy{"Fail", "Ignore"}).Draw(t, "policy"),
		rapid.SampledFrom([]string{"a=1", "a=2"}).Draw(t, "namespaces"), "")
	if profile.Spec.FailurePolicy == v1alpha1.FailurePolicyIgnore && rapid.Bool().Draw(t, "any namespace") {
		profile.Spec.Match.NamespaceSelector = nil
	}
	profile.Spec.GitSync = gitSync()
	profile.Spec.Match.PodSelector = new(drawSelector(t))
	profile.Spec.Match.Enforce = rapid.Bool().Draw(t, "enforce")
	return &profile
}

func drawSelector(t *rapid.T) metav1.LabelSelector {
	key, value := rapid.SampledFrom([]string{"a", "example.com/b-c", "D_e.f"}), rapid.SampledFrom([]string{"", "1", "2", "x.y_z"})
	selector := metav1.LabelSelector{MatchLabels: rapid.MapOfN(key, value, 0, 1).Draw(t, "matchLabels")}
	for range rapid.IntRange(0, 2).Draw(t, "requirements") {
		r := metav1.LabelSelectorRequirement{Key: key.Draw(t, "key"), Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{
			metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist,
		}).Draw(t, "operator")}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = rapid.SliceOfN(value, 1, 3).Draw(t, "values")
		}
		selector.MatchExpressions = append(selector.MatchExpressions, r)
	}
	return selector
}

func drawLabels(t *rapid.T, of string) map[string]any {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "example.com/b-c", "D_e.f"}),
		rapid.Map(rapid.SampledFrom([]string{"", "1", "2", "x.y_z"}), func(value string) any { return value }), 0, 3).Draw(t, of)
}

func setOf(drawn map[string]any) k8slabels.Set {
	set := k8slabels.Set{}
	for key, value := range drawn {
		set[key] = value.(string)
	}
	return set
}

func selects(t *rapid.T, selector *metav1.LabelSelector, drawn map[string]any) bool {
	t.Helper()
	compiled, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return compiled.Matches(setOf(drawn))
}

// manyKeys are so many entries of a map in YAML.
func manyKeys(number int) string {
	keys := make([]string, number)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d: v", i)
	}
	return strings.Join(keys, ", ")
}
