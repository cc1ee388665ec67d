package injectors

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
	"github.com/pillion-dev/pillion/weave"
)

// customSpec reads a spec as the schema would let it pass.
func customSpec(t testing.TB, text string) *v1alpha1.Custom {
	t.Helper()
	spec := &v1alpha1.Custom{}
	if err := yaml.UnmarshalStrict([]byte(text), spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func compileCustom(t testing.TB, text string) (*Custom, field.ErrorList) {
	t.Helper()
	return CompileCustom("logs", "", customSpec(t, text), field.NewPath("spec", "custom"))
}

// mustCompileCustom compiles a spec that has to be right.
func mustCompileCustom(t testing.TB, text string) *Custom {
	t.Helper()
	custom, errs := compileCustom(t, text)
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return custom
}

// customPod is the Pod that templates are evaluated for.
func customPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "shop-", Labels: map[string]string{"app": "shop", "money": "$(HOME)", "flag": "--evil", "hidden": "a\u202eb"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "shop"}}},
	}
}

// customFragmentOf evaluates a template for customPod with parameters as annotations have them.
func customFragmentOf(t testing.TB, text string, annotations map[string]string, hardening Hardening) (weave.Fragment, []Problem) {
	t.Helper()
	custom := mustCompileCustom(t, text)
	given := map[string]any{}
	for name, value := range annotations {
		parsed, err := custom.Parse(name, value)
		if err != nil {
			t.Fatal(err)
		}
		given[name] = parsed
	}
	bound, problems := custom.Bind(given)
	if len(problems) > 0 {
		return weave.Fragment{}, problems
	}
	return evaluated(t, bound, hardening)
}

func evaluated(t testing.TB, bound *BoundCustom, hardening Hardening) (weave.Fragment, []Problem) {
	t.Helper()
	namespace := map[string]any{"metadata": map[string]any{"name": "prod", "labels": map[string]any{"env": "prod"}}}
	result, problems := bound.Evaluate(expressions.View(customPod()), namespace)
	if len(problems) > 0 {
		return weave.Fragment{}, problems
	}
	return result.Fragment(hardening)
}

func mustFragment(t testing.TB, text string, hardening Hardening) weave.Fragment {
	t.Helper()
	fragment, problems := customFragmentOf(t, text, nil, hardening)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return fragment
}

const shipper = `
parameters:
- {name: level, default: info, enum: [debug, info]}
- {name: port, type: integer, default: 2020, minimum: 1024, maximum: 65535}
- {name: memory, type: quantity, default: 64Mi}
template:
  initContainers:
  - name: agent
    image: registry.example.com/agent:1.2
    restartPolicy: Always
    args: ["--level=${params.level}", --app, "${pod.metadata.labels.app}", "${params.level == 'debug' ? dyn('--trace') : null}"]
    ports: [{name: status, containerPort: "${params.port}"}]
    env:
    - {name: TEAM, value: "${namespace.metadata.?labels.?team.orValue('none')} of ${profile.name}"}
    resources: {limits: {memory: "${params.memory}"}}
    volumeMounts: [{name: files, mountPath: /logs, readOnly: true}]
  volumes:
  - {name: files, emptyDir: {}}
  app:
  - env: [{name: LOG_DIR, value: /var/log/app}]
    volumeMounts: [{name: files, mountPath: /var/log/app}]
  labels: {logs: "${pod.metadata.labels.app}"}
  annotations: {example.com/port: "${string(params.port)}"}
  imagePullSecrets: [{name: registry}]
  hostAliases: [{ip: 10.0.0.1, hostnames: [collector.example.com]}]
`

func TestCustomAddsWhatItsTemplateSays(t *testing.T) {
	got, problems := customFragmentOf(t, shipper, map[string]string{"level": "debug", "memory": "256Mi"}, Hardening{HideToken: true})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := weave.Fragment{
		Profile: "logs",
		InitContainers: []corev1.Container{{
			Name:          "pillion-logs-agent",
			Image:         "registry.example.com/agent:1.2",
			RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
			Args:          []string{"--level=debug", "--app", "shop", "--trace"},
			Ports:         []corev1.ContainerPort{{Name: "status", ContainerPort: 2020}},
			Env:           []corev1.EnvVar{{Name: "TEAM", Value: "none of logs"}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("32Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("256Mi")},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "pillion-logs-files", MountPath: "/logs", ReadOnly: true},
				{Name: "pillion-logs-no-token", MountPath: serviceAccountPath, ReadOnly: true},
			},
			SecurityContext:          restricted(),
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		}},
		Volumes: []corev1.Volume{
			emptyDir("pillion-logs-files", resource.MustParse("100Mi")),
			emptyDir("pillion-logs-no-token", resource.MustParse("1Mi")),
		},
		Additions: []weave.Addition{{
			Env:          []corev1.EnvVar{{Name: "LOG_DIR", Value: "/var/log/app"}},
			VolumeMounts: []corev1.VolumeMount{{Name: "pillion-logs-files", MountPath: "/var/log/app"}},
		}},
		Labels:           map[string]string{"logs": "shop"},
		Annotations:      map[string]string{"example.com/port": "2020"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
		HostAliases:      []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"collector.example.com"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fragment (-want +got):\n%s", diff)
	}
}

func TestCustomTellsWhatItAddsWithoutEvaluation(t *testing.T) {
	custom := mustCompileCustom(t, `
template:
  containers: [{name: web, image: web}]
  initContainers: [{image: setup}, {name: agent, image: agent, restartPolicy: Always}]
`)
	want := []string{"pillion-logs", "pillion-logs-agent", "pillion-logs-web"}
	if diff := cmp.Diff(want, custom.Containers()); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
}

func TestWrongParametersAreFoundWhenTheProfileIsCompiled(t *testing.T) {
	tests := map[string]struct {
		parameter string
		want      []string
	}{
		"a word of CEL": {"{name: while}", []string{"parameters[0].name", "word of CEL"}},
		"a default of another type": {
			"{name: x, type: integer, default: many}",
			[]string{"parameters[0].default", "no integer"},
		},
		"an integer for a string": {"{name: x, default: 5}", []string{"parameters[0].default", "no string"}},
		"a default out of bounds": {
			"{name: x, type: integer, default: 5, maximum: 4}",
			[]string{"default", "of at most 4"},
		},
		"a default that is not in enum": {"{name: x, default: c, enum: [a, b]}", []string{"default", "one of a, b"}},
		"a default beside required": {
			"{name: x, default: c, required: true}",
			[]string{"required", "beside a default"},
		},
		"an enum with a value twice": {
			"{name: x, type: quantity, enum: [1Gi, 1024Mi]}",
			[]string{"enum[1]", "Duplicate"},
		},
		"an enum out of bounds": {
			"{name: x, type: duration, enum: [1h], maximum: 1m}",
			[]string{"enum[0]", "at most 1m"},
		},
		"an enum of booleans": {
			"{name: x, type: boolean, enum: [true]}",
			[]string{"enum", "all types but boolean"},
		},
		"bounds of a string": {"{name: x, minimum: 1, maximum: 2}", []string{"minimum", "maximum", "integers"}},
		"a pattern of an integer": {
			"{name: x, type: integer, pattern: a, minLength: 1, maxLength: 2}",
			[]string{"pattern", "minLength", "maxLength"},
		},
		"a pattern that does not compile": {"{name: x, pattern: '('}", []string{"pattern", "regular expression"}},
		"a default that does not match": {
			"{name: x, pattern: '^a', default: b}",
			[]string{"default", "does not match ^a"},
		},
		"a pattern that takes minutes": {
			"{name: x, pattern: '" + strings.Repeat("a{0,1000}", 56) + "', maxLength: 65536, default: a}",
			[]string{"parameters[0].pattern", "set maxLength to at most 24"},
		},
		"patterns that take minutes together": {
			manyParameters(6, "pattern: 'a{0,300}b', maxLength: 4096"),
			[]string{"parameters[4].pattern", "one too many of patterns", "at most 16777216 together"},
		},
		"values that take minutes together": {
			"{name: x, pattern: '^a{0,900}b?a*$', maxLength: 1400, enum: [" + manyValues(64, 1300) + "]}",
			[]string{"parameters[0].enum[63]", "one too many of the values"},
		},
		"a minimum over the maximum": {
			"{name: x, type: quantity, minimum: 1Gi, maximum: 1Mi}",
			[]string{"minimum", "more than maximum"},
		},
		"lengths the wrong way round": {
			"{name: x, minLength: 3, maxLength: 2}",
			[]string{"minLength", "more than maxLength"},
		},
		"a quantity that takes years to read": {
			"{name: x, type: quantity, default: 1e999999999}",
			[]string{"default", "no quantity"},
		},
		"a bound that takes years to read": {
			"{name: x, type: quantity, minimum: '1e-999999999'}",
			[]string{"minimum", "no quantity"},
		},
		"a default of NUL":                           {`{name: x, default: "a\0b"}`, []string{"default", "cannot be seen"}},
		"a value of enum that changes its direction": {`{name: x, enum: ["a\u202eb"]}`, []string{"enum[0]", "direction"}},
		"a negative duration":                        {"{name: x, type: duration, default: -1s}", []string{"default", "negative"}},
		"a type that there is not":                   {"{name: x, type: float}", []string{"type", "supported values"}},
		"a name twice":                               {"{name: x}, {name: x}", []string{"parameters[1].name", "Duplicate"}},
		"several at once": {
			"{name: in}, {name: y, type: boolean, default: 1}",
			[]string{"parameters[0].name", "parameters[1].default"},
		},
		"a name that is no name of a variable": {"{name: a-b}", []string{"parameters[0].name", "letters and digits"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, errs := compileCustom(t, "parameters: ["+test.parameter+"]\ntemplate: {labels: {a: b}}")
			mentions(t, errs, test.want...)
		})
	}
}

// manyParameters are parameters that differ in their names.
func manyParameters(count int, fields string) string {
	all := make([]string, count)
	for i := range all {
		all[i] = fmt.Sprintf("{name: p%d, %s}", i, fields)
	}
	return strings.Join(all, ", ")
}

// manyValues are texts of a length that differ.
func manyValues(count, length int) string {
	all := make([]string, count)
	for i := range all {
		all[i] = strings.Repeat("a", length+i)
	}
	return strings.Join(all, ", ")
}

// mentions wants an error with each of the texts, and one at all.
func mentions(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	if len(errs) == 0 {
		t.Fatalf("no error, want %q", want)
	}
	all := errs.ToAggregate().Error()
	for _, text := range want {
		if !strings.Contains(all, text) {
			t.Errorf("%s\ndoes not mention %q", all, text)
		}
	}
}

func TestParameterValuesOfAnnotations(t *testing.T) {
	custom := mustCompileCustom(t, `
parameters:
- {name: text, minLength: 2, maxLength: 5, pattern: '^[a-zé]+$'}
- {name: any}
- {name: count, type: integer, minimum: 1, maximum: 10}
- {name: enabled, type: boolean}
- {name: size, type: quantity, maximum: 1Gi}
- {name: wait, type: duration}
- {name: offset, type: duration, minimum: -1h}
- {name: level, enum: [debug, info]}
- {name: bytes, type: integer, minimum: -3000000000, maximum: 9223372036854775806}
template: {labels: {a: b}}
`)
	tests := map[string]struct {
		name, text string
		want       any
		wrong      string
	}{
		"a string is literal":              {"any", `"${x}" $(Y) 5`, `"${x}" $(Y) 5`, ""},
		"characters are counted":           {"text", "ééééé", "ééééé", ""},
		"too many characters":              {"text", "aaaaaa", nil, "at most 5"},
		"too few":                          {"text", "a", nil, "at least 2"},
		"one that does not match":          {"text", "AB", nil, "does not match"},
		"a megabyte":                       {"any", strings.Repeat("x", 1<<20), nil, "at most 4096"},
		"an integer":                       {"count", "7", int64(7), ""},
		"an integer out of bounds":         {"count", "11", nil, "from 1 to 10"},
		"an integer beyond 32 bits":        {"bytes", "9223372036854775806", int64(9223372036854775806), ""},
		"one out of bounds of 64 bits":     {"bytes", "9223372036854775807", nil, "from -3000000000 to 9223372036854775806"},
		"a fraction":                       {"count", "1.5", nil, "no integer"},
		"an integer of a megabyte":         {"count", strings.Repeat("1", 1<<20), nil, "no integer"},
		"a boolean":                        {"enabled", "true", true, ""},
		"no boolean":                       {"enabled", "yes", nil, "write true or false"},
		"a quantity stays as it is":        {"size", "0.5Gi", "0.5Gi", ""},
		"a quantity out of bounds":         {"size", "2Gi", nil, "at most 1Gi"},
		"a quantity that takes years":      {"size", "1e-999999999", nil, "no quantity"},
		"a duration":                       {"wait", "1m30s", "1m30s", ""},
		"a negative duration":              {"wait", "-1s", nil, "negative"},
		"a duration that may be negative":  {"offset", "-1m", "-1m", ""},
		"no duration":                      {"wait", "10", nil, "no duration"},
		"what enum does not list":          {"level", "trace", nil, "one of debug, info"},
		"a parameter that there is not":    {"lvl", "info", nil, "there are any, bytes, count"},
		"an integer that begins with zero": {"count", "007", nil, "no integer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := custom.Parse(test.name, test.text)
			if test.wrong == "" {
				if err != nil || got != test.want {
					t.Fatalf("got %v, %v, want %v", got, err, test.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.wrong) || len(err.Error()) > 400 {
				t.Errorf("error %v, want one that says %q", err, test.wrong)
			}
		})
	}
}

func TestAParameterThatIsRequired(t *testing.T) {
	const text = `
parameters: [{name: team, required: true}, {name: url, required: true}, {name: note}]
template: {annotations: {example.com/team: "${params.team} ${params.url}", example.com/note: "${params.?note}"}}
`
	_, problems := customFragmentOf(t, text, map[string]string{"team": "web"}, Hardening{})
	if len(problems) != 1 || problems[0].Reason != ReasonParameterRequired ||
		!strings.Contains(problems[0].Message, "logs.pillion.dev/url") {
		t.Errorf("problems %v", problems)
	}
	fragment, problems := customFragmentOf(t, text, map[string]string{"team": "web", "url": "u"}, Hardening{})
	if diff := cmp.Diff(map[string]string{"example.com/team": "web u"}, fragment.Annotations); diff != "" || len(problems) > 0 {
		t.Errorf("annotations (-want +got):\n%s\n%v", diff, problems)
	}
}

func TestWrongTemplatesAreFoundWhenTheProfileIsCompiled(t *testing.T) {
	manyContainers := "initContainers: [" + strings.TrimSuffix(strings.Repeat("{image: a},", 500), ",") + "]"
	agent := func(fields string) string {
		return "initContainers: [{name: a, image: a, restartPolicy: Always, " + fields + "}]"
	}
	tests := map[string]struct {
		template string
		want     []string
	}{
		"nothing":          {"{}", []string{"template: Required"}},
		"lists of nothing": {"{containers: [], labels: {}, app: []}", []string{"template: Required", "write what is added"}},
		"500 containers":   {manyContainers, []string{"500", "at most 16"}},
		"64 KiB":           {"labels: {a: " + strings.Repeat("x", 64<<10) + "}", []string{"Too long"}},
		"a key that is not known": {
			"sidecars: []",
			[]string{"template.sidecars", "there are annotations, app, containers"},
		},
		"a misspelled field": {agent("imagee: b"), []string{"initContainers[0].imagee", "write image"}},
		"a misspelled field beside an expression": {
			agent(`workDir: "${pod.metadata.labels.app}"`),
			[]string{"initContainers[0].workDir"},
		},
		"a list for an object": {agent("resources: []"), []string{"resources", "must be an object"}},
		"a number for a string": {
			agent("env: [{name: A, value: 5}]"),
			[]string{"env[0].value", "put it in quotes"},
		},
		"a string for a number": {
			agent("ports: [{containerPort: http}]"),
			[]string{"ports[0].containerPort", "an integer"},
		},
		"a quantity that takes years to read": {
			agent("resources: {limits: {memory: 1e999999999}}"),
			[]string{"limits[memory]", "a quantity"},
		},
		"an expression that does not compile": {agent(`args: ["${params.}"]`), []string{"args[0]"}},
		"a parameter that there is not":       {agent(`args: ["${params.other}"]`), []string{"args[0]", `no field "other"`}},
		"an expression that does not end":     {agent(`args: ["${params"]`), []string{"args[0]"}},
		"division by zero": {
			agent(`args: ["x${1 / (size(profile.name) - 4)}"]`),
			[]string{"args[0]", "divides by zero"},
		},
		"an absent key": {
			agent(`args: ["x${ {'a': 'b'}[profile.name]}"]`),
			[]string{"args[0]", "absent"},
		},
		"an optional parameter without a has": {agent(`args: ["x${params.note}"]`), []string{"args[0]", "has(params.note)"}},
		"the Pod's name":                      {agent(`args: ["x${pod.metadata.name}"]`), []string{"args[0]", "fieldRef"}},
		"the Pod's name by a key":             {agent(`args: ["x${pod.metadata['name']}"]`), []string{"args[0]", "fieldRef"}},
		"the Pod's name below a key":          {agent(`args: ["x${pod['metadata'].name}"]`), []string{"args[0]", "fieldRef"}},
		"the Pod's uid by an optional key":    {agent(`args: ["x${pod.metadata[?'uid'].orValue('')}"]`), []string{"args[0]", "fieldRef"}},
		"the Pod's name by an optional one":   {agent(`args: ["x${pod.?metadata.?name.orValue('')}"]`), []string{"args[0]", "fieldRef"}},
		"an expression as a container's name": {
			`initContainers: [{name: "${profile.name}", image: a}]`,
			[]string{"[0].name", "no expression"},
		},
		"an expression as a volume's name": {
			`volumes: [{name: "${profile.name}", emptyDir: {}}]`,
			[]string{"[0].name", "no expression"},
		},
		"an expression as all containers": {
			`initContainers: "${[]}"`,
			[]string{"initContainers", "no expression as a whole"},
		},
		"an expression as a key":      {`labels: {"${profile.name}": a}`, []string{"key"}},
		"an expression as all labels": {`labels: "${pod.metadata.labels}"`, []string{"labels", "its keys"}},
		"an expression as the app's container": {
			`app: [{containers: ["${profile.name}"], env: [{name: A}]}]`,
			[]string{"containers[0]", "no expression"},
		},
		"an expression in a shell line": {
			agent(`command: [/bin/sh, -ec, "echo ${profile.name}"]`),
			[]string{"command[2]", "$1"},
		},
		"an expression in a line of busybox": {
			agent(`command: [busybox, sh], args: [-c, "echo ${profile.name}"]`),
			[]string{"args[1]", "$1"},
		},
		"an expression behind options": {
			agent(`command: [bash, -o, pipefail, -c, "${profile.name}"]`),
			[]string{"command[4]"},
		},
		"an expression as a shell's option":     {agent(`command: [sh, "${profile.name}", "x"]`), []string{"command[1]"}},
		"an expression in a shell line of args": {agent(`args: [sh, -c, "${profile.name}"]`), []string{"args[2]"}},
		"an expression in a probe's shell line": {
			agent(`livenessProbe: {exec: {command: [sh, -c, "${profile.name}"]}}`),
			[]string{"command[2]"},
		},
		"an expression in a hook's shell line": {
			agent(`lifecycle: {preStop: {exec: {command: [sh, -c, "${profile.name}"]}}}`),
			[]string{"command[2]"},
		},
		"a program that may be a shell": {
			agent(`command: ["${profile.name}", -c, "${profile.name}"]`),
			[]string{"command[2]"},
		},
		"an expression that env splits": {
			agent(`command: [env, -S, "sh -c '${profile.name}'"]`),
			[]string{"command[2]", "$1"},
		},
		"an expression that env splits beside its option": {
			agent(`command: [/usr/bin/env, "-vSprogram ${profile.name}"]`),
			[]string{"command[1]"},
		},
		"an expression that env splits behind its long option": {
			agent(`command: [env, A=b, "--split-string=program ${profile.name}"]`),
			[]string{"command[2]"},
		},
		"an expression behind what env splits": {
			agent(`command: [env, -i, -u, A, -S, "sh -c", "${profile.name}"]`),
			[]string{"command[6]"},
		},
		"an expression as an option of env": {
			agent(`command: [env, "-${profile.name}"]`),
			[]string{"command[1]"},
		},
		"an expression in a fish's command": {
			agent(`command: [tini, --, fish, "--command=${profile.name}"]`),
			[]string{"command[3]"},
		},
		"a variable of an expression in a shell line": {
			agent(`env: [{name: A, value: "${profile.name}"}], command: [sh, -c, "echo $(A)"]`),
			[]string{"command[2]", `write "$A"`},
		},
		"a variable by way of another": {
			agent(`env: [{name: A, value: "${profile.name}"}, {name: B, value: "x$(A)"}, {name: C, value: "$(B)"}], ` +
				`args: [sh, -c, "$(C)"]`),
			[]string{"args[2]", `write "$C"`},
		},
		"a variable before a shell line": {
			agent(`env: [{name: A, value: "${profile.name}"}], command: [bash, $(A), -c, "echo"]`),
			[]string{"command[1]", `write "$A"`},
		},
		"a variable of an expression that is all of env": {
			agent(`env: "${[{'name': 'A', 'value': profile.name}]}", command: [sh, -c, "echo $(A)"]`),
			[]string{"command[2]", `write "$A"`},
		},
		"a variable of an expression that is one of env": {
			agent(`env: ["${ {'name': 'A', 'value': profile.name} }"], command: [sh, -c, "echo $(A)"]`),
			[]string{"command[2]", `write "$A"`},
		},
		"a variable of a ConfigMap that an expression chooses": {
			agent(`envFrom: [{configMapRef: {name: "${profile.name}"}}], command: [sh, -c, "echo $(A)"]`),
			[]string{"command[2]", `write "$A"`},
		},
		"a variable of an annotation": {
			agent(`env: [{name: A, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['a']"}}}], command: [sh, -c, "echo $(A)"]`),
			[]string{"command[2]", `write "$A"`},
		},
		"a variable of an expression in a probe's shell line": {
			agent(`env: [{name: A, value: "${profile.name}"}], readinessProbe: {exec: {command: [sh, -c, "echo $(A)"]}}`),
			[]string{"readinessProbe.exec.command[2]", `write "$A"`},
		},
		"an integer for a string beside an expression over the Pod": {
			agent(`args: ["${size(profile.name)}", "x${pod.metadata.labels.app}"]`),
			[]string{"args[0]", "must be a string"},
		},
		"a label's value beside an expression over the Pod": {
			`labels: {a: "${profile.name + ' '}", b: "${pod.metadata.labels.app}"}`,
			[]string{"labels[a]"},
		},
		"a port that is too high beside an expression over the Pod": {
			agent(`ports: [{name: x, containerPort: "${size(profile.name) * 20000}"}], args: ["x${namespace.metadata.name}"]`),
			[]string{"ports[0].containerPort", "65535"},
		},
		"NUL": {`annotations: {b: "a\0b"}`, []string{"annotations[b]", "cannot be seen"}},
		"text that changes its direction": {
			agent(`args: ["a\u202eb"]`),
			[]string{"args[0]", "direction"},
		},
		"text that changes its direction beside an expression": {
			agent(`args: ["a\u202e${pod.metadata.labels.app}"]`),
			[]string{"args[0]", "direction"},
		},
		"a digest that is too short": {
			"initContainers: [{image: 'a@sha512:" + strings.Repeat("0", 64) + "'}]",
			[]string{"image", "no image reference"},
		},
		"a reserved name": {
			"initContainers: [{name: pillion-logs-a, image: a}]",
			[]string{"[0].name", "already"},
		},
		"a name that is too long": {
			"volumes: [{name: " + strings.Repeat("a", 60) + ", emptyDir: {}}]",
			[]string{"too long"},
		},
		"a name that is none": {"initContainers: [{name: A_B, image: a}]", []string{"[0].name"}},
		"two containers of a name": {
			"initContainers: [{name: a, image: a}]\n  containers: [{name: a, image: a}]",
			[]string{"Duplicate"},
		},
		"two containers without": {
			"initContainers: [{image: a}, {image: a}]",
			[]string{"[1].name", "only one container"},
		},
		"two volumes of a name": {
			"volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]",
			[]string{"volumes[1].name", "Duplicate"},
		},
		"a volume without a name": {"volumes: [{emptyDir: {}}]", []string{"volumes[0].name"}},
		"a volume of nothing":     {"volumes: [{name: a}]", []string{"volumes[0]", "write one of"}},
		"a volume of two sources": {
			"volumes: [{name: a, emptyDir: {}, secret: {secretName: b}}]",
			[]string{"one at a time"},
		},
		"the volume that hides the token": {"volumes: [{name: no-token, emptyDir: {}}]", []string{"choose another name"}},
		"a label of Kubernetes": {
			"labels: {app.kubernetes.io/name: a}",
			[]string{"labels[app.kubernetes.io/name]", "kubernetes.io"},
		},
		"an annotation of Kubernetes": {
			"annotations: {scheduler.alpha.kubernetes.io/x: a, node.k8s.io/y: b}",
			[]string{"scheduler", "node.k8s.io"},
		},
		"a key of ours": {
			"annotations: {pillion.dev/injected: a, logs.pillion.dev/level: b}",
			[]string{"pillion.dev/injected", "logs.pillion.dev/level"},
		},
		"a controller's label": {
			"labels: {pod-template-hash: a, controller-revision-hash: b}",
			[]string{"pod-template-hash", "controller-revision-hash"},
		},
		"a label's value": {"labels: {a: 'b c'}", []string{"labels[a]"}},
		"a regular container's restartPolicy": {
			"containers: [{image: a, restartPolicy: Always}]",
			[]string{"restartPolicy", "initContainers"},
		},
		"an init container that never restarts": {
			"initContainers: [{image: a, restartPolicy: Never}]",
			[]string{"restartPolicy", "Always"},
		},
		"a probe of an init container": {
			"initContainers: [{image: a, startupProbe: {tcpSocket: {port: 1}}}]",
			[]string{"startupProbe", "restartPolicy: Always"},
		},
		"a probe of nothing": {
			agent("startupProbe: {periodSeconds: 1}"),
			[]string{"startupProbe", "write one of"},
		},
		"a container without an image": {"initContainers: [{name: a}]", []string{"image: Required"}},
		"an image that is none":        {"initContainers: [{image: 'a b'}]", []string{"image", "no image reference"}},
		"a port that is too high":      {agent("ports: [{containerPort: 70000}]"), []string{"containerPort", "65535"}},
		"one port twice": {
			agent("ports: [{containerPort: 80}, {containerPort: 80}]"),
			[]string{"ports[1].containerPort", "too"},
		},
		"the name of a variable": {agent("env: [{name: 'A=B'}]"), []string{"env[0].name"}},
		"a mount without a path": {agent("volumeMounts: [{name: a}]"), []string{"mountPath: Required"}},
		"a mount of another profile's volume": {
			agent("volumeMounts: [{name: pillion-site, mountPath: /a}]"),
			[]string{"other profiles"},
		},
		"a request above the limit": {
			agent("resources: {requests: {cpu: 2}, limits: {cpu: 1}}"),
			[]string{"requests[cpu]", "more than the limit"},
		},
		"a Windows path of a null": {agent("args: [null]"), []string{"args[0]", "not null"}},
		"an addition of nothing":   {"app: [{containers: [a]}]", []string{"app[0]", "env or volumeMounts"}},
		"an addition to an injected container": {
			"app: [{containers: [pillion-x], env: [{name: A}]}]",
			[]string{"injected container"},
		},
		"two additions of a variable": {
			"app: [{env: [{name: A}]}, {containers: [a], env: [{name: A}]}]",
			[]string{"app[1].env[0].name", "set by"},
		},
		"an address that is none":        {"hostAliases: [{ip: here, hostnames: [a]}]", []string{"hostAliases[0].ip"}},
		"a Secret without a name":        {"imagePullSecrets: [{}]", []string{"imagePullSecrets[0].name"}},
		"an ephemeral container's field": {agent("targetContainerName: b"), []string{"targetContainerName"}},
		"privileged without its privileges": {
			agent("securityContext: {privileged: true, allowPrivilegeEscalation: false}"),
			[]string{"contradicts privileged"},
		},
		"what late expressions leave to be seen": {
			agent(`args: ["${pod.metadata.labels.app}"], imagee: b, ports: [{}]`),
			[]string{"imagee", "containerPort: Required"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, errs := compileCustom(t, "parameters: [{name: note}]\ntemplate:\n  "+test.template)
			mentions(t, errs, test.want...)
		})
	}
}

func TestEveryProblemOfACustomPatternIsToldOnce(t *testing.T) {
	agent := func(fields string) string {
		return "initContainers: [{name: a, restartPolicy: Always, " + fields + "}]"
	}
	const container = "template.initContainers[0]."
	tests := map[string]struct {
		parameter, template string
		want                []string
	}{
		"an unknown field and a division by zero": {
			"{name: x}", agent(`image: a, imagee: b, args: ["x${1/params.zero}"]`),
			[]string{container + "args[0]", container + "imagee"},
		},
		"a default of another type and a division by zero": {
			"{name: x, type: integer, default: x}", agent(`image: a, args: ["x${1/params.zero}"]`),
			[]string{"parameters[1].default", container + "args[0]"},
		},
		"a division by zero and a string for a port": {
			"{name: x, default: a}", agent(`image: a, args: ["x${1/params.zero}"], ports: [{containerPort: "${params.x}"}]`),
			[]string{container + "args[0]", container + "ports[0].containerPort"},
		},
		"an integer for a string and a port that is too high": {
			"{name: x, type: integer, default: 70000}",
			agent(`image: a, env: [{name: A, value: "${params.zero}"}], ports: [{containerPort: "${params.x}"}]`),
			[]string{container + "env[0].value", container + "ports[0].containerPort"},
		},
		"a variable that there is not, and what the others yield": {
			"{name: x, type: integer, default: 70000}",
			agent(`image: "${params.nothing}", args: ["${1"], ports: [{containerPort: "${params.x}"}], workingDir: "${1/params.zero}"`),
			[]string{container + "args[0]", container + "image", container + "ports[0].containerPort", container + "workingDir"},
		},
		"what comes of a default that is out of bounds follows from that": {
			"{name: x, type: integer, default: 70000, maximum: 80}", agent(`image: a, ports: [{containerPort: "${params.x}"}]`),
			[]string{"parameters[1].default"},
		},
		"what reads a type that there is not follows from that": {
			"{name: x, type: float, default: 1}", agent(`image: a, args: ["x${params.x + 1}"]`),
			[]string{"parameters[1].type"},
		},
		"a division by zero beside a required parameter": {
			"{name: x, required: true}", agent(`image: "a:${params.x}", args: ["x${1/params.zero}"]`),
			[]string{container + "args[0]"},
		},
		"a default follows from bounds the wrong way round": {
			"{name: x, type: integer, default: 3, minimum: 4, maximum: 2}", agent(`image: a, args: ["x${1/params.zero}"]`),
			[]string{"parameters[1].minimum", container + "args[0]"},
		},
		"a default follows from lengths the wrong way round": {
			"{name: x, default: abc, minLength: 4, maxLength: 3}", "labels: {a: b}",
			[]string{"parameters[1].minLength"},
		},
		"an image that is missing follows from its name": {
			"{name: x}", agent(`imagee: a`),
			[]string{container + "imagee"},
		},
		"a probe that goes with Always follows from another restartPolicy": {
			"{name: x}", `initContainers: [{image: a, restartPolicy: Never, startupProbe: {tcpSocket: {port: 1}}}]`,
			[]string{container + "restartPolicy"},
		},
		"a request above the limit follows from a limit of nothing": {
			"{name: x}", agent(`image: a, resources: {requests: {cpu: 1}, limits: {cpu: "${params.zero}", memory: 0}}`),
			[]string{container + "resources.limits[cpu]", container + "resources.limits[memory]"},
		},
		"a request above the limit of another resource": {
			"{name: x}", agent(`image: a, resources: {requests: {example.com/gpu: 1}, limits: {example.com/gpu: 0}}`),
			[]string{container + "resources.requests[example.com/gpu]"},
		},
		"text that changes its direction, in a label's value": {
			"{name: x}", `labels: {a: "b\u202e", b: "\u202e${pod.kind}", c: "\u202e${profile.name}"}`,
			[]string{"template.labels[a]", "template.labels[b]", "template.labels[c]"},
		},
		"text that changes its direction, in a label's key": {
			"{name: x}", `labels: {"a\u202e": "${pod.kind}"}`,
			[]string{"template.labels[a\u202e]"},
		},
		"a key of Kubernetes, and of values that are wrong or not known": {
			"{name: x}", `labels: {app.kubernetes.io/name: "${pod.kind}", pod-template-hash: 5}`,
			[]string{
				"template.labels[app.kubernetes.io/name]", "template.labels[pod-template-hash]", "template.labels[pod-template-hash]",
			},
		},
		"an expression as the name of a volume of nothing": {
			"{name: x}", `volumes: [{name: "${profile.name}"}]`,
			[]string{"template.volumes[0]", "template.volumes[0].name"},
		},
		"an expression as the container of an addition of nothing": {
			"{name: x}", `app: [{containers: ["${profile.name}"]}]`,
			[]string{"template.app[0]", "template.app[0].containers[0]"},
		},
		"an element behind one that is left out": {
			"{name: x}", agent(`image: a, args: ["${null}", 5, "${params.zero}"]`),
			[]string{container + "args[1]", container + "args[2]"},
		},
		"an addition of what is left out": {
			"{name: x}", `app: [{env: ["${null}"]}]`,
			[]string{"template.app[0]"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			zero := "{name: zero, type: integer, default: 0}"
			_, errs := compileCustom(t, "parameters: ["+zero+", "+test.parameter+"]\ntemplate:\n  "+test.template)
			var got []string
			for _, err := range errs {
				got = append(got, strings.TrimPrefix(err.Field, "spec.custom."))
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s\n%v", diff, errs.ToAggregate())
			}
		})
	}
}

func TestExpressionsReadTheProfile(t *testing.T) {
	spec := func(annotation string) *v1alpha1.Custom {
		return customSpec(t, `template: {annotations: {example.com/of: "`+annotation+`"}}`)
	}
	for namespace, want := range map[string]string{"team-a": "team-a/logs", "": "/logs"} {
		custom, errs := CompileCustom("logs", namespace, spec("${profile.namespace}/${profile.name}"), field.NewPath("spec", "custom"))
		if len(errs) > 0 {
			t.Fatal(errs.ToAggregate())
		}
		bound, _ := custom.Bind(nil)
		fragment, problems := evaluated(t, bound, Hardening{})
		if got := fragment.Annotations["example.com/of"]; got != want || len(problems) > 0 {
			t.Errorf("in the namespace %q it is %q, not %q: %v", namespace, got, want, problems)
		}
	}
	_, errs := CompileCustom("logs", "team-a", spec("${profile.revision}"), field.NewPath("spec", "custom"))
	mentions(t, errs, `there is no field "revision"`, "the fields of profile are name, namespace")
}

func TestWhatATemplateMayHold(t *testing.T) {
	agent := func(fields string) string {
		return "initContainers: [{name: a, image: a, restartPolicy: Always, " + fields + "}]"
	}
	for name, template := range map[string]string{
		"a value behind a shell's script":       agent(`command: [sh, -c, 'echo "$1"', sh, "${profile.name}"]`),
		"a program whose option -c is no shell": agent(`command: [/bin/agent, -c, "/etc/${profile.name}.conf"]`),
		"a program in a directory of a version": agent(`command: ["/opt/${profile.name}/agent", -c, "/etc/${profile.name}.conf"]`),
		"a word that is a shell's name":         agent(`command: [grep, sh, "${profile.name}"]`),
		"a literal ${":                          agent(`command: [sh, -c, "echo $${HOME}"]`),
		"an image of an expression":             `initContainers: [{image: "registry.example.com/a:${profile.name}"}]`,
		"a volume's source of an expression":    `volumes: [{name: a, emptyDir: "${ {'sizeLimit': '1Gi'} }"}]`,
		"a variable that may not be there":      agent(`env: ["${has(pod.spec) ? dyn({'name': 'B'}) : null}"]`),
		"a privileged container":                agent("securityContext: {privileged: true}"),
		"a hostPath":                            "volumes: [{name: a, hostPath: {path: /var/log}}]",
		"a digest of SHA-512":                   "initContainers: [{image: 'example.com/a@sha512:" + strings.Repeat("0a", 64) + "'}]",
		"a registry at an IPv6 address":         "initContainers: [{image: '[fd00::1]:5000/x/y:1'}]",
		"a host's name of an expression":        `hostAliases: [{ip: 10.0.0.1, hostnames: ["${pod.metadata.labels.app}"]}]`,
		"an address of an expression":           `hostAliases: [{ip: "${pod.metadata.annotations.ip}", hostnames: [a]}]`,
		"hosts of an expression":                `hostAliases: ["${ {'ip': dyn('10.0.0.1'), 'hostnames': dyn([pod.metadata.labels.app])} }"]`,
		"a Secret's name of an expression":      `imagePullSecrets: [{name: "${pod.metadata.labels.app}"}]`,
		"a list of which an early element is left out": agent(
			`args: ["${has(params.note) ? dyn(params.note) : null}", "x${pod.metadata.labels.app}", last]`),
		"a limit that is not known":      agent(`resources: {requests: {cpu: 2}, limits: {cpu: "${pod.metadata.labels.cpu}"}}`),
		"a label that is left out":       `labels: {a: "${params.?note}"}`,
		"a device that is not to be had": agent("resources: {limits: {example.com/gpu: 0}}"),
		"the name of a Pod's container":  agent(`args: ["x${pod.spec.containers[0].name}", "pod.metadata.name of ${pod.kind}"]`),
		"a word that is a Pod's name":    agent(`args: ["x${pod.metadata.labels['pod.metadata.name']}"]`),
		"a variable that a shell reads":  agent(`env: [{name: A, value: "${profile.name}"}], command: [sh, -c, 'echo "$A"']`),
		"a variable behind a script":     agent(`env: [{name: A, value: "${profile.name}"}], command: [sh, -c, 'echo "$1"', sh, $(A)]`),
		"a variable that is written out": agent(`env: [{name: A, value: "${profile.name}"}, {name: B}], command: [sh, -c, "$(B) $$(A)"]`),
		"a variable of no shell":         agent(`env: [{name: A, value: "${profile.name}"}], command: [/agent, -c, "$(A)"]`),
		"a variable in a hook, where it is not expanded": agent(
			`env: [{name: A, value: "${profile.name}"}], lifecycle: {preStop: {exec: {command: [sh, -c, "$(A)"]}}}`),
		"a program that env runs": agent(`command: [env, A=b, program, -S, "${profile.name}x"]`),
		"two init containers with one port": "initContainers: [{image: a, ports: [{containerPort: 80}]}, " +
			"{name: b, image: b, ports: [{containerPort: 80}]}]",
		"one port for two protocols": agent("ports: [{containerPort: 53}, {containerPort: 53, protocol: UDP}]"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, errs := compileCustom(t, "parameters: [{name: note}]\ntemplate:\n  "+template); len(errs) > 0 {
				t.Error(errs.ToAggregate())
			}
		})
	}
}

func TestWhatExpressionsYieldIsLiteral(t *testing.T) {
	fragment := mustFragment(t, `
template:
  initContainers:
  - image: a
    restartPolicy: Always
    env: [{name: HOME, value: /root}, {name: A, value: "$(HOME) ${pod.metadata.labels.money} $${x}"}]
    args: ["$(HOME)", "${pod.metadata.labels.money}"]
    livenessProbe: {exec: {command: [test, "${pod.metadata.labels.money}"]}}
    lifecycle: {preStop: {exec: {command: [stop, "${pod.metadata.labels.money}"]}}}
    volumeMounts:
    - {name: v, mountPath: /v, subPathExpr: "${pod.metadata.labels.money}"}
    - "${ {'name': 'v', 'mountPath': '/w$', 'subPathExpr': string(pod.metadata.labels.money)} }"
  volumes: [{name: v, emptyDir: {}}]
  app:
  - env: [{name: B, value: "${pod.metadata.labels.money}"}]
    volumeMounts: "${[{'name': 'v', 'mountPath': '/v$', 'subPathExpr': string(pod.metadata.labels.money)}]}"
  annotations: {example.com/a: "${pod.metadata.labels.money}"}
`, Hardening{})
	container := fragment.InitContainers[0]
	got := []string{
		container.Env[1].Value, container.Args[0], container.Args[1], container.LivenessProbe.Exec.Command[1],
		container.Lifecycle.PreStop.Exec.Command[1], container.VolumeMounts[0].SubPathExpr, fragment.Additions[0].Env[0].Value,
		fragment.Annotations["example.com/a"],
		container.VolumeMounts[1].MountPath, container.VolumeMounts[1].SubPathExpr,
		fragment.Additions[0].VolumeMounts[0].MountPath, fragment.Additions[0].VolumeMounts[0].SubPathExpr,
	}
	// The kubelet expands a probe's command, but not a hook's.
	want := []string{
		"$(HOME) $$(HOME) ${x}", "$(HOME)", "$$(HOME)", "$$(HOME)", "$(HOME)", "$$(HOME)", "$$(HOME)", "$(HOME)",
		"/w$", "$$(HOME)", "/v$", "$$(HOME)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestWhatATemplateMakesForAPodIsChecked(t *testing.T) {
	tests := map[string]struct {
		template string
		reason   Reason
		want     string
	}{
		"a leading dash": {
			`initContainers: [{image: a, args: ["${pod.metadata.labels.flag}"]}]`,
			ReasonExpressionFailed, "dash",
		},
		"an absent label": {
			`initContainers: [{image: a, args: ["x${pod.metadata.labels.other}"]}]`,
			ReasonExpressionFailed, "absent",
		},
		"a value that is no label's": {
			`labels: {a: "${pod.metadata.labels.money}"}`,
			ReasonInvalidTemplate, "template.labels[a]",
		},
		"a string for a port": {
			`initContainers: [{image: a, ports: [{containerPort: "${pod.metadata.labels.app}"}]}]`,
			ReasonInvalidTemplate, "ports[0].containerPort",
		},
		"a port that is too high": {
			`initContainers: [{image: a, ports: [{containerPort: "${size(pod.metadata.labels.app) * 20000}"}]}]`,
			ReasonInvalidTemplate, "65535",
		},
		"an unknown field": {
			`initContainers: [{image: a, resources: "${ {'limit': {pod.metadata.labels.app: '1'}} }"}]`,
			ReasonInvalidTemplate, "resources.limit",
		},
		"an image that is none": {
			`initContainers: [{image: "${pod.metadata.labels.flag}"}]`,
			ReasonInvalidTemplate, "no image reference",
		},
		"no image": {
			`initContainers: [{image: "${pod.metadata.labels.app == 'shop' ? null : dyn('a')}"}]`,
			ReasonInvalidTemplate, "image: Required",
		},
		"text that changes its direction": {
			`annotations: {a: "${pod.metadata.labels.hidden}"}`,
			ReasonInvalidTemplate, "direction",
		},
		"a host's name that is none": {
			`hostAliases: [{ip: 10.0.0.1, hostnames: ["${pod.metadata.labels.money}"]}]`,
			ReasonInvalidTemplate, "hostnames[0]",
		},
		"a limit that bounds nothing": {
			`initContainers: [{image: a, resources: {limits: {memory: "${size(pod.metadata.labels.app) - 4}"}}}]`,
			ReasonInvalidTemplate, "bounds nothing",
		},
		"a quantity that takes years": {
			`initContainers: [{image: a, resources: {limits: {memory: "1e9${size(pod.metadata.labels)}999999"}}}]`,
			ReasonInvalidTemplate, "a quantity",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, problems := customFragmentOf(t, "template:\n  "+test.template, nil, Hardening{})
			if len(problems) != 1 || problems[0].Reason != test.reason || !strings.Contains(problems[0].Message, test.want) ||
				!strings.HasPrefix(problems[0].Message, "profile logs: ") {
				t.Errorf("problems %v, want one of %s that says %q", problems, test.reason, test.want)
			}
		})
	}
}

func TestEveryProblemOfWhatATemplateMakesForAPodIsTold(t *testing.T) {
	_, problems := customFragmentOf(t, `
template:
  initContainers:
  - image: a
    env: [{name: A, value: "${size(pod.metadata.labels)}"}]
    ports: [{containerPort: "${size(pod.metadata.labels) + 70000}"}]
`, nil, Hardening{})
	if len(problems) != 2 || !strings.Contains(problems[0].Message, "env[0].value") ||
		!strings.Contains(problems[1].Message, "ports[0].containerPort") {
		t.Errorf("problems %v, want those of the variable and of the port", problems)
	}
}

func TestHardeningFillsWhatTheTemplateLeavesOpen(t *testing.T) {
	tests := map[string]struct {
		fields string
		want   func(*corev1.SecurityContext)
	}{
		"nothing said": {"", func(*corev1.SecurityContext) {}},
		"a user": {"{runAsUser: 7}", func(s *corev1.SecurityContext) {
			s.RunAsUser, s.RunAsGroup = new(int64(7)), nil
		}},
		"the image's user": {"{runAsNonRoot: false}", func(s *corev1.SecurityContext) {
			s.RunAsNonRoot, s.RunAsUser, s.RunAsGroup = new(false), nil, nil
		}},
		"root": {"{runAsUser: 0}", func(s *corev1.SecurityContext) {
			s.RunAsNonRoot, s.RunAsUser, s.RunAsGroup = new(false), new(int64(0)), nil
		}},
		"a root that is written to": {"{readOnlyRootFilesystem: false}", func(s *corev1.SecurityContext) {
			s.ReadOnlyRootFilesystem = new(false)
		}},
		"a capability": {"{capabilities: {add: [NET_BIND_SERVICE]}}", func(s *corev1.SecurityContext) {
			s.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
		}},
		"other capabilities dropped": {"{capabilities: {drop: [NET_RAW]}}", func(s *corev1.SecurityContext) {
			s.Capabilities.Drop = []corev1.Capability{"NET_RAW"}
		}},
		"privileged": {"{privileged: true}", func(s *corev1.SecurityContext) {
			s.Privileged, s.AllowPrivilegeEscalation = new(true), nil
		}},
		"another seccomp profile": {"{seccompProfile: {type: Unconfined}}", func(s *corev1.SecurityContext) {
			s.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text := "template: {containers: [{image: a}]}"
			if test.fields != "" {
				text = "template: {containers: [{image: a, securityContext: " + test.fields + "}]}"
			}
			want := restricted()
			test.want(want)
			got := mustFragment(t, text, Hardening{}).Containers[0]
			if diff := cmp.Diff(want, got.SecurityContext); diff != "" {
				t.Errorf("securityContext (-want +got):\n%s", diff)
			}
			if got.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
				t.Errorf("terminationMessagePolicy %q", got.TerminationMessagePolicy)
			}
		})
	}
}

func TestResourcesOfCustomContainersAreAlwaysSet(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	}
	tests := map[string]struct {
		resources        string
		guaranteed       bool
		requests, limits corev1.ResourceList
	}{
		"nothing said":                       {"{}", false, list("10m", "32Mi"), list("500m", "128Mi")},
		"one key":                            {"{limits: {memory: 1Gi}}", false, list("10m", "32Mi"), list("500m", "1Gi")},
		"a request above the default limit":  {"{requests: {memory: 1Gi}}", false, list("10m", "1Gi"), list("500m", "1Gi")},
		"a limit below the default request":  {"{limits: {cpu: 5m}}", false, list("5m", "32Mi"), list("5m", "128Mi")},
		"a Guaranteed Pod stays so":          {"{}", true, list("500m", "128Mi"), list("500m", "128Mi")},
		"a Guaranteed Pod, with one request": {"{requests: {cpu: 1}}", true, list("1", "128Mi"), list("1", "128Mi")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := mustFragment(t, "template: {containers: [{image: a, resources: "+test.resources+"}]}",
				Hardening{Guaranteed: test.guaranteed}).Containers[0].Resources
			if diff := cmp.Diff(corev1.ResourceRequirements{Requests: test.requests, Limits: test.limits}, got); diff != "" {
				t.Errorf("resources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATemplateMayMountTheTokenItself(t *testing.T) {
	fragment := mustFragment(t, `
template:
  containers: [{image: a, volumeMounts: [{name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount/}]}]
  volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token}}]}}]
`, Hardening{HideToken: true})
	if len(fragment.Volumes) != 1 || len(fragment.Containers[0].VolumeMounts) != 1 {
		t.Errorf("volumes %v, mounts %v", fragment.Volumes, fragment.Containers[0].VolumeMounts)
	}
}

func TestEmptyDirectoriesOfCustomProfilesAreBounded(t *testing.T) {
	fragment := mustFragment(t, `
template:
  volumes: [{name: a, emptyDir: {}}, {name: b, emptyDir: {sizeLimit: 2Gi}}, {name: c, emptyDir: {medium: Memory}}]
`, Hardening{HideToken: true})
	var got []string
	for _, volume := range fragment.Volumes {
		if volume.EmptyDir.SizeLimit == nil {
			got = append(got, "")
		} else {
			got = append(got, volume.EmptyDir.SizeLimit.String())
		}
	}
	if diff := cmp.Diff([]string{"100Mi", "2Gi", ""}, got); diff != "" {
		t.Errorf("size limits (-want +got):\n%s", diff)
	}
}

func TestNamesInATemplateMeanItsOwn(t *testing.T) {
	fragment := mustFragment(t, `
template:
  containers:
  - name: a
    image: a
    volumeMounts: [{name: files, mountPath: /a}, {name: apps, mountPath: /b}]
    env:
    - {name: LIMIT, valueFrom: {resourceFieldRef: {containerName: a, resource: limits.cpu}}}
  volumes:
  - {name: files, downwardAPI: {items: [{path: own, resourceFieldRef: {containerName: a, resource: limits.cpu}},
      {path: app, resourceFieldRef: {containerName: app, resource: limits.cpu}}]}}
`, Hardening{})
	container, items := fragment.Containers[0], fragment.Volumes[0].DownwardAPI.Items
	got := []string{
		container.VolumeMounts[0].Name, container.VolumeMounts[1].Name, container.Env[0].ValueFrom.ResourceFieldRef.ContainerName,
		items[0].ResourceFieldRef.ContainerName, items[1].ResourceFieldRef.ContainerName,
	}
	if diff := cmp.Diff([]string{"pillion-logs-files", "apps", "pillion-logs-a", "pillion-logs-a", "app"}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestWhyACustomPatternCannotBeWoven(t *testing.T) {
	fragment := mustFragment(t, `
template:
  containers: [{name: a, image: a, ports: [{containerPort: 8080}], volumeMounts: [{name: data, mountPath: /a}]}]
  app: [{volumeMounts: [{name: data, mountPath: /b}, {name: own, mountPath: /c}]}]
  volumes: [{name: own, emptyDir: {}}]
`, Hardening{HideToken: true})
	tests := map[string]struct {
		edit func(*corev1.Pod)
		want []Reason
	}{
		"all is well": {func(*corev1.Pod) {}, nil},
		"a Job's Pod": {
			func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }, []Reason{ReasonNeverCompletes},
		},
		"no volume": {func(pod *corev1.Pod) { pod.Spec.Volumes[0].Name = "other" }, []Reason{ReasonVolumeNotFound}},
		"host network and all": {func(pod *corev1.Pod) {
			pod.Spec.HostNetwork, pod.Spec.Volumes, pod.Spec.RestartPolicy = true, nil, corev1.RestartPolicyNever
		}, []Reason{ReasonNeverCompletes, ReasonVolumeNotFound, ReasonHostNetwork}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := customPod()
			pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
			pod.Spec.Volumes = []corev1.Volume{{Name: "data"}}
			test.edit(pod)
			var got []Reason
			for _, problem := range CustomProblems(&fragment, pod) {
				got = append(got, problem.Reason)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadsPod(t *testing.T) {
	for template, want := range map[string]bool{
		`labels: {a: b}`:                              false,
		`labels: {a: "${profile.name}"}`:              false,
		`labels: {a: "${pod.metadata.labels.app}"}`:   true,
		`labels: {a: "x${namespace.metadata.name}y"}`: true,
	} {
		if got := mustCompileCustom(t, "template:\n  "+template).ReadsPod(); got != want {
			t.Errorf("%s: %t", template, got)
		}
	}
}

func TestEqualResultsHaveEqualKeys(t *testing.T) {
	custom := mustCompileCustom(t, shipper)
	bound, _ := custom.Bind(nil)
	key := func(app string) string {
		pod := customPod()
		pod.Labels["app"] = app
		result, problems := bound.Evaluate(expressions.View(pod), map[string]any{"metadata": map[string]any{}})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return result.Key()
	}
	shop, again, cart := key("shop"), key("shop"), key("cart")
	if shop != again || shop == cart {
		t.Error("keys do not tell what the template makes of two Pods")
	}
}

func TestAFragmentIsTheCallersOwn(t *testing.T) {
	custom := mustCompileCustom(t, shipper)
	bound, _ := custom.Bind(nil)
	first, _ := evaluated(t, bound, Hardening{HideToken: true})
	first.InitContainers[0].Args[0], first.Labels["logs"] = "changed", "changed"
	second, _ := evaluated(t, bound, Hardening{HideToken: true})
	if second.InitContainers[0].Args[0] != "--level=info" || second.Labels["logs"] != "shop" {
		t.Errorf("what one Pod got was changed through another's: %v", second)
	}
}

// takenPorts returns a Taken of ports of TCP.
func takenPorts(ports ...int32) Taken {
	return func(port int32, protocol corev1.Protocol) bool {
		return protocol != corev1.ProtocolUDP && slices.Contains(ports, port)
	}
}

func TestPickMovesParametersThatArePorts(t *testing.T) {
	tests := map[string]struct {
		parameters, ports string
		taken             []int32
		want              map[string]any // nil: none
	}{
		"a port that is free": {"{name: p, type: integer, default: 8080}", `{containerPort: "${params.p}"}`, nil, nil},
		"a port that is taken": {
			"{name: p, type: integer, default: 8080}", `{containerPort: "${ params.p }"}`,
			[]int32{8080, 8081},
			map[string]any{"p": int64(8082)},
		},
		"one that is more than a parameter": {
			"{name: p, type: integer, default: 8080}",
			`{containerPort: "${params.p + 1}"}`,
			[]int32{8081},
			nil,
		},
		"a maximum": {
			"{name: p, type: integer, default: 8080, minimum: 8080, maximum: 8081}",
			`{containerPort: "${params.p}"}`,
			[]int32{8080, 8081},
			nil,
		},
		"from the top around to the bottom": {
			"{name: p, type: integer, default: 65535}", `{containerPort: "${params.p}"}`, []int32{65535}, map[string]any{"p": int64(1024)},
		},
		"an enum": {
			"{name: p, type: integer, default: 80, enum: [80, 90, 70]}", `{containerPort: "${params.p}"}`,
			[]int32{80, 90},
			map[string]any{"p": int64(70)},
		},
		"two that would pick the same": {
			"{name: p, type: integer, default: 8080}, {name: q, type: integer, default: 8081}",
			`{containerPort: "${params.p}"}, {containerPort: "${params.q}"}`,
			[]int32{8080, 8081},
			map[string]any{"p": int64(8082), "q": int64(8083)},
		},
		"one beside a port that is fixed": {
			"{name: p, type: integer, default: 8080}", `{containerPort: "${params.p}"}, {containerPort: 8081}`,
			[]int32{8080},
			map[string]any{"p": int64(8082)},
		},
		"a port below 1024 that the parameter allows": {
			"{name: p, type: integer, default: 80, minimum: 80, maximum: 90}", `{containerPort: "${params.p}"}`,
			[]int32{80, 81},
			map[string]any{"p": int64(82)},
		},
		"a port below 1024 around the top of its bounds": {
			"{name: p, type: integer, default: 90, minimum: 80, maximum: 90}", `{containerPort: "${params.p}"}`,
			[]int32{90},
			map[string]any{"p": int64(80)},
		},
		"a port below a maximum that is below 1024": {
			"{name: p, type: integer, default: 90, maximum: 90}", `{containerPort: "${params.p}"}`,
			[]int32{90},
			map[string]any{"p": int64(1)},
		},
		"bounds that end above what is taken": {
			"{name: p, type: integer, default: 9000, minimum: 9000, maximum: 9002}", `{containerPort: "${params.p}"}`,
			[]int32{9000, 9001},
			map[string]any{"p": int64(9002)},
		},
		"ports that need a privilege come last": {
			"{name: p, type: integer, default: 65535, minimum: 1}", `{containerPort: "${params.p}"}`,
			[]int32{65535},
			map[string]any{"p": int64(1024)},
		},
		"one beside the same of another protocol": {
			"{name: p, type: integer, default: 5300}, {name: q, type: integer, default: 5300}, {name: r, type: integer, default: 80}",
			`{containerPort: "${params.p}"}, {containerPort: "${params.q}", protocol: UDP}, {containerPort: "${params.r}"}`,
			[]int32{80},
			map[string]any{"p": int64(5300), "q": int64(5300), "r": int64(1024)},
		},
		"one beside a fixed port of another protocol": {
			"{name: p, type: integer, default: 5300}, {name: r, type: integer, default: 80}",
			`{containerPort: "${params.p}"}, {containerPort: 5300, protocol: UDP}, {containerPort: "${params.r}"}`,
			[]int32{80},
			map[string]any{"p": int64(5300), "r": int64(1024)},
		},
		"one beside a protocol that is not known": {
			"{name: p, type: integer, default: 5300}",
			`{containerPort: "${params.p}"}, {containerPort: 5301, protocol: "${params.?none.orValue('UDP')}"}`,
			[]int32{5300},
			map[string]any{"p": int64(5302)},
		},
		"another protocol": {
			"{name: p, type: integer, default: 8080}",
			`{containerPort: "${params.p}", protocol: UDP}`,
			[]int32{8080},
			nil,
		},
		"a pattern's own port": {
			"{name: p, type: integer, default: 9101}", `{containerPort: "${params.p}"}`, []int32{9101}, map[string]any{"p": int64(9103)},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			custom := mustCompileCustom(t,
				"parameters: ["+test.parameters+", {name: none}]\ntemplate: {containers: [{image: a, ports: ["+test.ports+"]}]}")
			bound, problems := custom.Bind(nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			picked, ok := bound.Pick(takenPorts(test.taken...))
			if !ok {
				if test.want != nil {
					t.Errorf("none picked, want %v", test.want)
				}
				return
			}
			if diff := cmp.Diff(test.want, picked.Values()); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPickedPortReachesAllThatTheParameterDoes(t *testing.T) {
	custom := mustCompileCustom(t, shipper)
	bound, _ := custom.Bind(nil)
	picked, ok := bound.Pick(takenPorts(2020))
	if !ok {
		t.Fatal("no port picked")
	}
	fragment, problems := evaluated(t, picked, Hardening{})
	if len(problems) > 0 || fragment.InitContainers[0].Ports[0].ContainerPort != 2021 ||
		fragment.Annotations["example.com/port"] != "2021" {
		t.Errorf("%v %v", problems, fragment)
	}
	if bound.Values()["port"] != int64(2020) {
		t.Error("the pattern was changed")
	}
}

func TestPickOfPatterns(t *testing.T) {
	adapter := func(spec v1alpha1.PrometheusAdapter) *v1alpha1.Pattern {
		return &v1alpha1.Pattern{PrometheusAdapter: &spec}
	}
	server := func(of v1alpha1.ServerType, port int32) *v1alpha1.Pattern {
		return adapter(v1alpha1.PrometheusAdapter{Server: &v1alpha1.ServerSource{Type: of, Port: port}})
	}
	redis := v1alpha1.PrometheusAdapter{Server: &v1alpha1.ServerSource{Type: v1alpha1.ServerRedis}}
	proxy := v1alpha1.CacheAmbassador{Proxy: &v1alpha1.CacheProxy{Servers: []v1alpha1.CacheServer{{Address: "localhost:11213"}}}}
	tests := map[string]struct {
		injector Injector
		pattern  *v1alpha1.Pattern
		taken    []int32
		want     []int32
	}{
		"metrics on a port that is free":  {prometheusAdapterInjector(), adapter(redis), nil, []int32{9121}},
		"metrics on a port that is taken": {prometheusAdapterInjector(), adapter(redis), []int32{9121}, []int32{9122}},
		"the exporter's own port is taken": {
			prometheusAdapterInjector(), adapter(redis),
			[]int32{19121, 19122},
			[]int32{9123},
		},
		"nginx's exporter has one": {
			prometheusAdapterInjector(), server(v1alpha1.ServerNginx, 0),
			[]int32{19113},
			[]int32{9113},
		},
		"the next is the measured server's": {
			prometheusAdapterInjector(), server(v1alpha1.ServerRedis, 9122),
			[]int32{9121},
			[]int32{9123},
		},
		"the next is the port of the app's JSON": {
			prometheusAdapterInjector(),
			adapter(v1alpha1.PrometheusAdapter{JSON: &v1alpha1.JSONSource{URL: "http://localhost:7980/a"}}),
			[]int32{7979},
			[]int32{7981},
		},
		"StatsD's port too": {
			prometheusAdapterInjector(),
			adapter(v1alpha1.PrometheusAdapter{StatsD: &v1alpha1.StatsDSource{Port: 9103}}),
			[]int32{9102, 9103},
			[]int32{9105, 9106},
		},
		"a cache": {
			cacheAmbassadorInjector(), &v1alpha1.Pattern{CacheAmbassador: &v1alpha1.CacheAmbassador{Local: &v1alpha1.LocalCache{}}},
			[]int32{11211, 21212},
			[]int32{11212},
		},
		"a proxy, with its statistics and itself": {
			cacheAmbassadorInjector(), &v1alpha1.Pattern{CacheAmbassador: &proxy},
			[]int32{11211, 21212},
			[]int32{11214},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			picked := test.injector.Pick(test.pattern, takenPorts(test.taken...))
			if picked == nil || picked == test.pattern {
				t.Fatalf("picked %v", picked)
			}
			var got []int32
			if picked.PrometheusAdapter != nil {
				got = append(got, picked.PrometheusAdapter.MetricsPort)
				if picked.PrometheusAdapter.StatsD != nil {
					got = append(got, picked.PrometheusAdapter.StatsD.Port)
				}
			} else {
				got = append(got, picked.CacheAmbassador.Port)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
	everything := func(int32, corev1.Protocol) bool { return true }
	if picked := prometheusAdapterInjector().Pick(adapter(redis), everything); picked != nil {
		t.Errorf("picked %v where all is taken", picked)
	}
}

func TestLimitsOfATemplate(t *testing.T) {
	items := func(count int, item func(i int) string) string {
		all := make([]string, count)
		for i := range all {
			all[i] = item(i)
		}
		return strings.Join(all, ", ")
	}
	volume := func(i int) string { return "{name: v" + strconv.Itoa(i) + ", emptyDir: {}}" }
	label := func(i int) string { return "l" + strconv.Itoa(i) + ": a" }
	variable := func(i int) string { return "{env: [{name: A" + strconv.Itoa(i) + "}]}" }
	for name, test := range map[string]struct {
		most int
		make func(count int) string
	}{
		"volumes":   {maxVolumes, func(count int) string { return "volumes: [" + items(count, volume) + "]" }},
		"labels":    {maxMetadata, func(count int) string { return "labels: {" + items(count, label) + "}" }},
		"additions": {maxAdditions, func(count int) string { return "app: [" + items(count, variable) + "]" }},
	} {
		t.Run(name, func(t *testing.T) {
			if _, errs := compileCustom(t, "template: {"+test.make(test.most)+"}"); len(errs) > 0 {
				t.Errorf("%d: %v", test.most, errs.ToAggregate())
			}
			if _, errs := compileCustom(t, "template: {"+test.make(test.most+1)+"}"); len(errs) != 1 {
				t.Errorf("%d: %v, want one problem", test.most+1, errs)
			}
		})
	}
}

// FuzzCustom compiles any template and evaluates it with any text for parameters of each type.
func FuzzCustom(f *testing.F) {
	f.Add(`{"initContainers":[{"name":"a","image":"a:1","args":["${params.text}","x${pod.metadata.labels.app}"]}]}`, "text")
	f.Add(`{"containers":[{"image":"a","ports":[{"containerPort":"${size(params.text)}"}]}],"labels":{"a":"${params.text}"}}`, "-x")
	f.Add(`{"volumes":[{"name":"a","emptyDir":{}}],"app":[{"volumeMounts":[{"name":"a","mountPath":"${params.text}"}]}]}`,
		"/$(HOME)")
	f.Add(`{"labels":{"app.kubernetes.io/name":"a"},"annotations":{"pillion.dev/injected":"a","${params.text}":"b"}}`,
		"kubernetes.io/a")
	f.Add(`{"initContainers":[{"name":"pillion-x","image":"${params.text}","command":["sh","-c","${params.text}"]}]}`, "; rm -rf /")
	f.Add(`{"containers":"${params.text}","volumes":[null,1,"${[]}"],"app":{"a":null}}`, "\x00\u202e")
	f.Add(`{"containers":[{"image":"a","resources":"${ {'limits': {params.text: '1e9999999'}} }"}]}`, "memory")
	f.Add(`{"containers":[{"image":"a","ports":[{"containerPort":"${params.count + 1}"}],"args":["x${1 / (params.count + 1)}"]}]}`,
		"70000")
	f.Add(`{"containers":[{"image":"a","tty":"${params.enabled}","args":["${params.enabled ? dyn(params.text) : null}"]}]}`, "true")
	f.Add(`{"containers":[{"image":"a","resources":{"limits":{"cpu":0,"memory":"${params.memory}"}}}],"labels":{"a":"${pod.kind}"}}`,
		"0")
	f.Add(`{"initContainers":[{"image":"a","args":["--wait=${params.wait}"],"resources":{"limits":{"memory":"${params.memory}"}}}]}`,
		"1m")
	f.Fuzz(func(t *testing.T, template, text string) {
		spec := &v1alpha1.Custom{
			Parameters: []v1alpha1.Parameter{
				{Name: "text", Default: &apiextensionsv1.JSON{Raw: []byte(`"a"`)}},
				{Name: "count", Type: v1alpha1.ParameterInteger, Default: &apiextensionsv1.JSON{Raw: []byte(`0`)}},
				{Name: "enabled", Type: v1alpha1.ParameterBoolean, Default: &apiextensionsv1.JSON{Raw: []byte(`false`)}},
				{Name: "memory", Type: v1alpha1.ParameterQuantity, Default: &apiextensionsv1.JSON{Raw: []byte(`"1Mi"`)}},
				{Name: "wait", Type: v1alpha1.ParameterDuration, Default: &apiextensionsv1.JSON{Raw: []byte(`"1s"`)}},
			},
			Template: apiextensionsv1.JSON{Raw: []byte(template)},
		}
		custom, errs := CompileCustom("logs", "", spec, field.NewPath("spec", "custom"))
		if len(errs) > 0 {
			return
		}
		given := map[string]any{}
		for _, name := range custom.Parameters() {
			if value, err := custom.Parse(name, text); err == nil {
				given[name] = value
			}
		}
		bound, problems := custom.Bind(given)
		if len(problems) > 0 {
			return
		}
		if fragment, problems := evaluated(t, bound, Hardening{HideToken: true, Guaranteed: true}); len(problems) == 0 {
			checkReserved(t, custom, &fragment)
		}
	})
}

// checkReserved holds a Fragment to names and keys that are a profile's to give.
func checkReserved(t *testing.T, custom *Custom, fragment *weave.Fragment) {
	t.Helper()
	var names []string
	for _, container := range slices.Concat(fragment.InitContainers, fragment.Containers) {
		names = append(names, container.Name)
	}
	if diff := cmp.Diff(custom.Containers(), names); diff != "" {
		t.Errorf("containers (-declared +made):\n%s", diff)
	}
	for _, volume := range fragment.Volumes {
		names = append(names, volume.Name)
	}
	for _, name := range names {
		if name != "pillion-logs" && !strings.HasPrefix(name, "pillion-logs-") || len(name) > 63 {
			t.Errorf("name %q", name)
		}
	}
	for _, keys := range []map[string]string{fragment.Labels, fragment.Annotations} {
		for key := range keys {
			if strings.Contains(key, "kubernetes.io/") || strings.Contains(key, "k8s.io/") || strings.Contains(key, "pillion.dev/") {
				t.Errorf("key %q", key)
			}
		}
	}
	for _, key := range []string{"pod-template-hash", "controller-revision-hash"} {
		if _, there := fragment.Labels[key]; there {
			t.Errorf("label %q", key)
		}
	}
}
