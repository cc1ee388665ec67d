package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

func TestACustomProfileTakesParametersFromAnnotations(t *testing.T) {
	t.Parallel()
	create(t, custom(t, "agent", `
custom:
  parameters:
  - {name: text, default: hello}
  - {name: count, type: integer, default: 3, minimum: 1, maximum: 9}
  - {name: fixed, default: "0"}
  template:
    initContainers:
    - image: registry.example.com/agent:1
      restartPolicy: Always
      command: [/agent]
      args: ["${params.text}", "--text=${params.text}", "--count=${params.count}", $(POD_NAME)]
      env:
      - {name: TEXT, value: "${params.text}"}
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    app:
    - {containers: [web], env: [{name: AGENT, value: "${namespace.metadata.name}/${params.text}"}]}
overridable: [text, count]
`))
	in := namespace(t, nil)
	ask := func(pairs ...string) *corev1.Pod {
		p := pod(in, v1alpha1.InjectKey, "agent")
		for i := 0; i+1 < len(pairs); i += 2 {
			p.Annotations[v1alpha1.OverrideKey("agent", pairs[i])] = pairs[i+1]
		}
		return p
	}
	for _, test := range []struct {
		name      string
		pod       *corev1.Pod
		args      []string
		text, app string
	}{
		{
			name: "without annotations the defaults hold", pod: ask(),
			args: []string{"hello", "--text=hello", "--count=3", "$(POD_NAME)"}, text: "hello", app: "hello",
		},
		{
			name: "annotations override them", pod: ask("text", "good bye", "count", "9"),
			args: []string{"good bye", "--text=good bye", "--count=9", "$(POD_NAME)"}, text: "good bye", app: "good bye",
		},
		{
			name: "what the kubelet would expand arrives as it is written", pod: ask("text", "$(HOME)"),
			args: []string{"$$(HOME)", "--text=$$(HOME)", "--count=3", "$(POD_NAME)"}, text: "$$(HOME)", app: "$$(HOME)",
		},
		{
			name: "a value is no expression, no script and no YAML", pod: ask("text", "a\n${params.count}; rm -rf `x` {{.}} \"'"),
			args: []string{
				"a\n$${params.count}; rm -rf `x` {{.}} \"'", "--text=a\n$${params.count}; rm -rf `x` {{.}} \"'", "--count=3", "$(POD_NAME)",
			},
			text: "a\n$${params.count}; rm -rf `x` {{.}} \"'", app: "a\n$${params.count}; rm -rf `x` {{.}} \"'",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			stored, _ := admit(t, test.pod)
			agent := containerOf(t, stored, "pillion-agent")
			if diff := cmp.Diff(test.args, agent.Args); diff != "" {
				t.Errorf("args (-want +got):\n%s", diff)
			}
			if got := envOf(agent, "TEXT"); got != test.text {
				t.Errorf("TEXT is %q, not %q", got, test.text)
			}
			if got := envOf(containerOf(t, stored, "web"), "AGENT"); got != in+"/"+test.app {
				t.Errorf("AGENT is %q", got)
			}
			if got := envOf(containerOf(t, stored, "app"), "AGENT"); got != "" {
				t.Errorf("a container that is not named got AGENT %q", got)
			}
		})
	}
	for _, test := range []struct {
		name string
		pod  *corev1.Pod
		says []string
	}{
		{name: "a value that begins with a dash", pod: ask("text", "--kill"), says: []string{"args[0]", "--kill", "dash"}},
		{name: "a parameter that there is not", pod: ask("color", "red"), says: []string{"agent.pillion.dev/color"}},
		{name: "a parameter that Pods may not change", pod: ask("fixed", "1"), says: []string{"fixed", "text, count", "FieldNotOverridable"}},
		{name: "another type", pod: ask("count", "many"), says: []string{"agent.pillion.dev/count", "integer", "InvalidOverride"}},
		{name: "out of bounds", pod: ask("count", "10"), says: []string{"10", "from 1 to 9", "InvalidOverride"}},
		{name: "far too long", pod: ask("text", strings.Repeat("x", 1<<20)), says: []string{"1048576 characters", "at most 4096"}},
		{name: "two at once", pod: ask("count", "0", "fixed", "1"), says: []string{"2 reasons", "count", "fixed"}},
	} {
		t.Run(test.name+" is refused", func(t *testing.T) {
			message := refuse(t, test.pod)
			if err := missing(message, append(test.says, "Pillion refuses this Pod")...); err != nil || len(message) > 2000 {
				t.Errorf("%d bytes: %v", len(message), err)
			}
		})
	}
}

func TestAProfileOfTheNamespaceShadowsTheClustersForWhoeverAsks(t *testing.T) {
	t.Parallel()
	const name = "both-scopes"
	create(t, custom(t, name, sidecar))
	in, elsewhere := namespace(t, nil), namespace(t, nil)
	create(t, inNamespace(in, custom(t, name, strings.ReplaceAll(sidecar, "agent:1", "agent:2"))))
	for of, image := range map[string]string{in: "registry.example.com/agent:2", elsewhere: "registry.example.com/agent:1"} {
		// The namespace's own comes into the webhook's memory a moment after it was written, which had the cluster's already.
		err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
			stored, _ := admit(t, pod(of, v1alpha1.InjectKey, name))
			got := containerOf(t, stored, "pillion-"+name).Image
			return got == image, fmt.Errorf("%s got %s, not %s", of, got, image)
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// badTemplates are templates of which no good can come, and where that is told.
func badTemplates() map[string]struct{ template, says string } {
	containers := strings.Repeat("    - {name: x, image: registry.example.com/x:1}\n", 500)
	tenfold := func(of string) string { return "[1,2,3,4,5,6,7,8,9,10].map(i, " + of + ")" }
	return map[string]struct{ template, says string }{
		"loops":          {"labels: {x: \"${string(" + tenfold(tenfold(tenfold(tenfold(tenfold(tenfold("i")))))) + ".size())}\"}", "labels.x"},
		"explodes":       {"annotations: {x: \"${" + strings.Repeat("params.long + ", 60) + "params.long}\"}", "annotations.x"},
		"divides by 0":   {"annotations: {x: \"${string(1 / params.zero)}\"}", "annotations.x"},
		"reads absences": {"annotations: {x: \"${params.nothing}\"}", "annotations.x"},
		"does not end":   {"annotations: {x: \"${params.zero\"}", "annotations.x"},
		"500 containers": {"initContainers:\n" + containers, ""},
		"a reserved key": {"labels: {pillion.dev/injected: \"true\"}", "labels[pillion.dev/injected]"},
		"a key of Kubernetes": {
			"labels: {app.kubernetes.io/name: x}\n    annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: \"true\"}",
			"annotations[cluster-autoscaler.kubernetes.io/safe-to-evict]",
		},
		"a controller's key":    {"labels: {pod-template-hash: x}", "labels[pod-template-hash]"},
		"a reserved name":       {"volumes: [{name: pillion-x, emptyDir: {}}]", "volumes[0].name"},
		"an unknown field":      {"initContainers: [{image: \"x:1\", imagePolicy: Always}]", "initContainers[0].imagePolicy"},
		"an expression's name":  {"initContainers: [{name: \"${params.long}\", image: \"x:1\"}]", "initContainers[0].name"},
		"a script's expression": {"initContainers: [{image: \"x:1\", command: [sh, -c, \"echo ${params.long}\"]}]", "initContainers[0].command[2]"},
	}
}

func TestATemplateOfWhichNoGoodCanComeIsRefusedWhereItStands(t *testing.T) {
	t.Parallel()
	create(t, custom(t, "still-there", sidecar))
	in := namespace(t, nil)
	n := 0
	for name, bad := range badTemplates() {
		n++
		profile := custom(t, fmt.Sprintf("bad-%d", n), `
custom:
  parameters:
  - {name: zero, type: integer, default: 0}
  - {name: long, default: "`+strings.Repeat("x", 4096)+`"}
  template:
    `+bad.template)
		t.Run(name, func(t *testing.T) {
			err := server.Client.Create(t.Context(), profile)
			if err == nil {
				t.Fatal("it is stored")
			}
			if missing := missing(err.Error(), "spec.custom.template."+bad.says); missing != nil || !apierrors.IsInvalid(err) {
				t.Errorf("invalid: %t: %v", apierrors.IsInvalid(err), missing)
			}
			if len(err.Error()) > 20_000 {
				t.Errorf("it takes %d bytes to say so", len(err.Error()))
			}
		})
	}
	if stored, _ := admit(t, pod(in, v1alpha1.InjectKey, "still-there")); len(added(stored)) != 1 {
		t.Errorf("afterwards a Pod got %q", added(stored))
	}
}

// TestAnExpressionThatFailsForAPodRefusesItWholly is of expressions that are good for some Pods.
func TestAnExpressionThatFailsForAPodRefusesItWholly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ expression, says string }{
		"absent":   {"pod.metadata.labels.team", "absent"},
		"zero":     {"string(1 / (pod.spec.containers.size() - 2))", "divides by zero"},
		"loop":     {"string(pod.spec.containers.map(a, lists.range(20000).map(b, lists.range(20000).map(c, c))).size())", "costs more"},
		"wrong":    {"pod.spec.containers", "list"},
		"overflow": {"string(9223372036854775807 + pod.spec.containers.size())", "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			profile := custom(t, "failing-"+name, sidecar+`
    annotations: {example.com/x: "of `+"${"+test.expression+"}"+`"}
`)
			if err := server.Client.Create(t.Context(), profile); err != nil {
				if says := missing(err.Error(), "spec.custom.template.annotations[example.com/x]", test.says); says != nil || !apierrors.IsInvalid(err) {
					t.Error(err)
				}
				return // it is as clear before any Pod
			}
			t.Cleanup(func() {
				if err := server.Client.Delete(context.Background(), profile); err != nil {
					t.Error(err)
				}
			})
			message := refuse(t, pod(namespace(t, nil), v1alpha1.InjectKey, profile.Name))
			if err := missing(message, profile.Name, "spec.custom.template.annotations[example.com/x]", test.says, "ExpressionFailed"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoProfileKeepsOthersFromBeingRead stores what the schema admits while no webhook looks at it: what is read as a whole would
// be lost as a whole.
func TestNoProfileKeepsOthersFromBeingRead(t *testing.T) {
	in := namespace(t, nil)
	create(t, inNamespace(in, custom(t, "next-door", sidecar)))
	if err := pillion.stopWebhook(); err != nil {
		t.Fatal(err)
	}
	tenant := namespace(t, nil)
	for name, bounds := range map[string]map[string]any{
		"beyond-32-bits": {"minimum": int64(-3_000_000_000), "maximum": int64(3_000_000_000)},
		"beyond-64-bits": {"maximum": 1e30},
		"no-number":      {"maximum": "many"},
	} {
		parameter := map[string]any{"name": "x", "type": "integer", "default": int64(2_500_000_000)}
		maps.Copy(parameter, bounds)
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": v1alpha1.GroupVersion.String(), "kind": "PatternProfile",
			"metadata": map[string]any{"name": name, "namespace": tenant},
			"spec": map[string]any{"custom": map[string]any{
				"parameters": []any{parameter},
				"template": map[string]any{"initContainers": []any{map[string]any{
					"image": "registry.example.com/agent:1", "restartPolicy": "Always", "args": []any{"--bytes=${params.x}"},
				}}},
			}},
		}}
		if err := server.Client.Create(t.Context(), object); err != nil && !apierrors.IsInvalid(err) { // better still
			t.Errorf("%s: %v", name, err)
		}
	}
	list := &v1alpha1.PatternProfileList{}
	if err := server.Client.List(t.Context(), list); err != nil || len(list.Items) < 2 {
		t.Errorf("%d profiles can be read: %v", len(list.Items), err)
	}
	if err := pillion.startWebhook(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stored, _ := admit(t, pod(in, v1alpha1.InjectKey, "next-door")); len(added(stored)) != 1 {
		t.Errorf("the profile next door added %q", added(stored))
	}
	stored, _ := admit(t, pod(tenant, v1alpha1.InjectKey, "beyond-32-bits"))
	if diff := cmp.Diff([]string{"--bytes=2500000000"}, containerOf(t, stored, "pillion-beyond-32-bits").Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
}

func TestWhoeverWritesAProfileIsToldEveryProblem(t *testing.T) {
	t.Parallel()
	causes := func(t *testing.T, err error) []string {
		t.Helper()
		status := apierrors.APIStatus(nil)
		if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
			t.Fatalf("it is stored, or refused otherwise: %v", err)
		}
		var fields []string
		for _, cause := range status.Status().Details.Causes {
			if cause.Field != "<nil>" { // that says that rules in CEL were not looked at for what is wrong already
				fields = append(fields, cause.Field)
			}
		}
		slices.Sort(fields)
		return slices.Compact(fields)
	}
	t.Run("by the schema", func(t *testing.T) {
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ClusterPatternProfile",
			"metadata": map[string]any{"name": "three-of-the-schema"},
			"spec": map[string]any{
				"gitSync":       map[string]any{"repo": "git@git.example.com:site.git", "credentials": map[string]any{"ssh": map[string]any{}}},
				"failurePolicy": "Perhaps", "onPortConflict": "Maybe",
			},
		}}
		want := []string{"spec.failurePolicy", "spec.gitSync.credentials.ssh.secretName", "spec.onPortConflict"}
		if diff := cmp.Diff(want, causes(t, server.Client.Create(t.Context(), object))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("by the webhook", func(t *testing.T) {
		err := server.Client.Create(t.Context(), custom(t, "five-of-the-webhook", fiveMistakes))
		if diff := cmp.Diff(fiveFields(), causes(t, err)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, field := range fiveFields() {
			if err := missing(err.Error(), field); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("also where a good one is changed, which stays as it is", func(t *testing.T) {
		profile := custom(t, "once-good", sidecar)
		createReady(t, profile)
		bad := profile.DeepCopy()
		bad.ResourceVersion = ""
		bad.Spec = custom(t, "once-good", threeMistakes).Spec
		patched := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ClusterPatternProfile",
			"metadata": map[string]any{"name": bad.Name},
			"spec":     map[string]any{"custom": map[string]any{"template": map[string]any{"nonsense": true}}},
		}}
		if diff := cmp.Diff([]string{"spec.custom.template.nonsense"}, causes(t, server.Apply(t.Context(), patched))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		awaitCondition(t, bad.Name, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	})
}

// threeMistakes is a spec that its schema admits, and that cannot be used for three reasons.
const threeMistakes = `
custom:
  parameters:
  - {name: port, type: integer, default: 8080, maximum: 80}
  template:
    initContainers:
    - image: "no image"
      env: [{name: X, value: "${params.prot}"}]
`

// threeFields are where the mistakes stand.
func threeFields() []string {
	return []string{
		"spec.custom.parameters[0].default",
		"spec.custom.template.initContainers[0].env[0].value",
		"spec.custom.template.initContainers[0].image",
	}
}

// fiveMistakes are those, and two that only evaluation finds: a division by zero, for a ClusterPatternProfile has no namespace,
// and what an expression yields.
const fiveMistakes = threeMistakes + `      args: ["--share=${1 / size(profile.namespace)}"]
      ports: [{containerPort: "${size(profile.name) + 70000}"}]
`

// fiveFields are where those stand, sorted.
func fiveFields() []string {
	return slices.Sorted(slices.Values(append(threeFields(),
		"spec.custom.template.initContainers[0].args[0]",
		"spec.custom.template.initContainers[0].ports[0].containerPort",
	)))
}
