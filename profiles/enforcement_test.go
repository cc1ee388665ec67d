package profiles_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/profiles"
)

// create does with a Pod what the API server does: it has it woven, sets defaults, lets others edit it, and has it verified. It returns
// what is stored, or the denial.
func create(t *testing.T, snapshot *profiles.Snapshot, pod *corev1.Pod, between ...func(*corev1.Pod)) (*corev1.Pod, string) {
	t.Helper()
	first := profiles.Decide(snapshot, web(), pod)
	if !first.Allowed {
		return nil, first.Denial()
	}
	encoded, err := json.Marshal(first.Pod())
	if err != nil {
		t.Fatal(err)
	}
	stored := &corev1.Pod{}
	if err := json.Unmarshal(encoded, stored); err != nil {
		t.Fatal(err)
	}
	setDefaults(stored)
	for _, edit := range between {
		edit(stored)
	}
	final := profiles.Request{Namespace: web(), Pod: stored, Final: true}.Decide(snapshot)
	if !final.Allowed {
		return nil, final.Denial()
	}
	return stored, ""
}

const agent = `custom: {template: {
  initContainers: [{image: agent, restartPolicy: Always, env: [{name: A, value: a}, {name: B, value: "$(A)/b"}]}],
  volumes: [{name: ca, configMap: {name: company-ca}}],
  hostAliases: [{ip: 10.0.0.1, hostnames: [audit.example.com]}],
  app: [{env: [{name: SSL_CERT_DIR, value: /etc/ca}], volumeMounts: [{name: ca, mountPath: /etc/ca, readOnly: true}]}]}},
match: {enforce: true`

const enforcedAgent = agent + "}"

// Whoever creates a Pod may copy a woven one and bend what was added to it.
func TestAWovenPodThatIsBentIsRefused(t *testing.T) {
	snapshot := snapshotOf(t, cluster("agent", enforcedAgent))
	tests := map[string]struct {
		bend func(p *corev1.Pod)
		says string
	}{
		"another image": {func(p *corev1.Pod) { p.Spec.InitContainers[0].Image = "other" }, "image"},
		"a message of termination that hides a file": {
			func(p *corev1.Pod) { p.Spec.InitContainers[0].TerminationMessagePath = "/etc/agent/rules.conf" }, "terminationMessagePath",
		},
		"variables in another order": {func(p *corev1.Pod) {
			env := p.Spec.InitContainers[0].Env
			env[0], env[1] = env[1], env[0]
		}, "env"},
		"an init container of its own ahead that never ends": {func(p *corev1.Pod) {
			p.Spec.InitContainers = append([]corev1.Container{{Name: "for-ever", Image: "app"}}, p.Spec.InitContainers...)
		}, "for-ever starts before container pillion-agent"},
		"too little memory to run": {
			func(p *corev1.Pod) {
				p.Spec.InitContainers[0].Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1Mi")
			}, "memory",
		},
		"an image that is never pulled": {func(p *corev1.Pod) { p.Spec.InitContainers[0].ImagePullPolicy = corev1.PullNever }, "imagePullPolicy"},
		"a mount of the app of another path in the volume": {
			func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[0].SubPath = "empty" }, "/etc/ca",
		},
		"a mount of the app hidden by one within": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "own"})
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts,
				corev1.VolumeMount{Name: "own", MountPath: "/etc/ca/company.pem", SubPath: "mine.pem"})
		}, "/etc/ca/company.pem"},
		"a host name with another address first": {func(p *corev1.Pod) {
			p.Spec.HostAliases = append([]corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"audit.example.com"}}}, p.Spec.HostAliases...)
		}, "audit.example.com"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, refused := create(t, snapshot, podOf(t, `{}`, appOnly))
			if refused != "" {
				t.Fatal(refused)
			}
			test.bend(pod)
			if _, refused := create(t, snapshot, pod); !strings.Contains(refused, test.says) || !strings.Contains(refused, "enforced") {
				t.Errorf("copied: %q", refused)
			}
			if _, refused := create(t, snapshot, podOf(t, `{}`, appOnly), test.bend); !strings.Contains(refused, test.says) {
				t.Errorf("bent by another webhook: %q", refused)
			}
		})
	}
}

// A Pod that is looked at again has the warnings of each look, and all are counted.
func TestWarningsOfSeveralLooksAreCountedOnce(t *testing.T) {
	sources := []source{
		cluster("aaa", `custom: {template: {labels: {looked: again}}}`),
		cluster("again", `custom: {template: {initContainers: [{image: agent, restartPolicy: Always}], app: [{env: [{name: MINE, value: b}]}]}},
match: {enforce: true, podSelector: {matchLabels: {looked: again}}}`),
	}
	metadata := `{annotations: {pillion.dev/inject: aaa`
	for i := range 20 {
		metadata += fmt.Sprintf(`, none-%d.pillion.dev/ref: a`, i)
	}
	pod := podOf(t, metadata+"}}", `{containers: [{name: app, env: [{name: MINE, value: a}]}]}`)
	decision := profiles.Decide(snapshotOf(t, sources...), web(), pod)
	if !decision.Allowed || len(decision.Warnings) != 10 || decision.Warnings[9] != "there are 12 more warnings" {
		t.Errorf("%s %q", decision.Denial(), decision.Warnings)
	}
}

// A Pod may be written so that what is enforced finds nothing to apply to.
func TestWhatIsEnforcedFindsItsPod(t *testing.T) {
	const java = agent + `, conditions: [{name: java, expression: "object.spec.containers.exists(c, c.?image.orValue('') == 'java') ||
  object.spec.?initContainers.orValue([]).exists(c, c.?image.orValue('') == 'java')"}]}`
	tests := map[string]struct {
		profiles       []source
		metadata, spec string
		want           []string // init containers
		denied         string
		appGains       string // the container that has the enforced variable
	}{
		"an init container of a reserved name": {
			spec: `{initContainers: [{name: pillion-x, image: app}], containers: [{name: app}]}`, want: []string{"pillion-agent", "pillion-x"}, appGains: "app",
		},
		"an app of a reserved name": {
			spec: `{containers: [{name: pillion-app, image: app}]}`, want: []string{"pillion-agent"}, appGains: "pillion-app",
		},
		"an app of a reserved name that a condition is about": {
			profiles: []source{cluster("agent", java)},
			spec:     `{containers: [{name: pillion-app, image: java}]}`, want: []string{"pillion-agent"}, appGains: "pillion-app",
		},
		"an app of the enforced profile's name that a condition is about": {
			profiles: []source{cluster("agent", java)},
			spec:     `{initContainers: [{name: pillion-agent, image: java}], containers: [{name: app}]}`, denied: "InjectionChanged",
		},
		"an app of the name of another profile, which enforces others, that a condition is about": {
			profiles: []source{cluster("agent", java), cluster("batch", `custom: {template: {containers: [{image: b}]}},
              match: {enforce: true, conditions: [{name: c, expression: "'batch' in object.metadata.?labels.orValue({})"}]}`)},
			spec: `{containers: [{name: pillion-batch, image: java}]}`, want: []string{"pillion-agent"}, appGains: "pillion-batch",
		},
		"an app that a profile of the tenant adds": {
			profiles: []source{
				cluster("agent", java), namespaced("web", "app", `custom: {template: {containers: [{image: java}]}}`),
			},
			metadata: asking("app"), spec: appOnly, want: []string{"pillion-agent"}, appGains: "app",
		},
		"an init container of the tenant's profile that never ends": {
			profiles: []source{
				cluster("agent", enforcedAgent), namespaced("web", "aaa", `custom: {template: {initContainers: [{image: app}]}}`),
			},
			metadata: asking("aaa"), spec: appOnly, want: []string{"pillion-agent", "pillion-aaa"}, appGains: "app",
		},
		"a volume of its own mount": {
			profiles: []source{cluster("agent", strings.Replace(enforcedAgent, "configMap: {name: company-ca}", "emptyDir: {}", 1))},
			spec:     `{containers: [{name: app, volumeMounts: [{name: pillion-agent-ca, mountPath: /x}]}]}`, denied: "pillion-agent-ca",
		},
		"a host name with two addresses": {
			spec: `{containers: [{name: app}], hostAliases: [{ip: 127.0.0.1, hostnames: [audit.example.com]},
              {ip: 10.0.0.1, hostnames: [audit.example.com]}]}`, denied: "HostAliasCollision",
		},
		"a label of the tenant's profile that the enforcing one excludes": {
			profiles: []source{
				cluster("agent", agent+`, podSelector: {matchExpressions: [{key: exempt, operator: DoesNotExist}]}}`),
				namespaced("web", "aaa", `custom: {template: {labels: {exempt: "yes"}}}`),
			},
			metadata: asking("aaa"), spec: appOnly, want: []string{"pillion-agent"}, appGains: "app",
		},
		"a profile that starts something and brings the Pod into scope": {
			profiles: []source{
				cluster("zzz", agent+`, podSelector: {matchLabels: {tier: front}}}`),
				namespaced("web", "aaa", `custom: {template: {labels: {tier: front}, initContainers: [{image: app}]}}`),
			},
			metadata: asking("aaa"), spec: `{initContainers: [{name: own}], containers: [{name: app}]}`,
			want: []string{"pillion-zzz", "pillion-aaa", "own"}, appGains: "app",
		},
		"what the tenant's profile adds makes a condition true": {
			profiles: []source{
				cluster("agent", agent+`, conditions: [{name: c, expression: "'x/y' in object.metadata.?annotations.orValue({})"}]}`),
				namespaced("web", "aaa", `custom: {template: {annotations: {"x/y": "yes"}}}`),
			},
			metadata: asking("aaa"), spec: appOnly, want: []string{"pillion-agent"}, appGains: "app",
		},
		"what policy adds besides makes a condition untrue that was true": {
			profiles: []source{
				cluster("aaa", `custom: {template: {initContainers: [{image: first, restartPolicy: Always}]}},
match: {enforce: true, conditions: [{name: c, expression: "size(object.spec.?initContainers.orValue([])) < 2"}]}`),
				cluster("agent", enforcedAgent),
				cluster("late", `custom: {template: {initContainers: [{name: one, image: a}, {name: two, image: b}]}}, match: {}`),
			},
			spec: appOnly, want: []string{"pillion-aaa", "pillion-agent", "pillion-late-one", "pillion-late-two"}, appGains: "app",
		},
		"a chain of labels, each of which the next one chooses by": {profiles: []source{
			cluster("e0", `custom: {template: {labels: {l0: x}}}, match: {enforce: true}`),
			cluster("e1", `custom: {template: {labels: {l1: x}}}, match: {enforce: true, podSelector: {matchLabels: {l0: x}}}`),
			cluster("e2", `custom: {template: {labels: {l2: x}}}, match: {enforce: true, podSelector: {matchLabels: {l1: x}}}`),
			cluster("e3", `custom: {template: {labels: {l3: x}}}, match: {enforce: true, podSelector: {matchLabels: {l2: x}}}`),
			cluster("e4", `custom: {template: {labels: {l4: x}}}, match: {enforce: true, podSelector: {matchLabels: {l3: x}}}`),
			cluster("e5", `custom: {template: {labels: {l5: x}}}, match: {enforce: true, podSelector: {matchLabels: {l4: x}}}`),
			cluster("e6", agent+`, podSelector: {matchLabels: {l5: x}}}`),
		}, spec: appOnly, want: []string{"pillion-e6"}, appGains: "app"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.profiles == nil {
				test.profiles = []source{cluster("agent", enforcedAgent)}
			}
			if test.metadata == "" {
				test.metadata = `{}`
			}
			stored, refused := create(t, snapshotOf(t, test.profiles...), podOf(t, test.metadata, test.spec))
			if test.denied != "" || refused != "" {
				if !strings.Contains(refused, test.denied) || test.denied == "" {
					t.Errorf("refused: %q", refused)
				}
				return
			}
			if diff := cmp.Diff(test.want, initNames(stored)); diff != "" {
				t.Error(diff)
			}
			if env := containerOf(stored, test.appGains).Env; len(env) != 1 || env[0].Name != "SSL_CERT_DIR" {
				t.Errorf("%s gained %v", test.appGains, env)
			}
		})
	}
}

// costly are enforcing profiles without containers, whose expressions cost about a tenth of what all may together.
func costly(n int) []source {
	const expression = `string([1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4].map(c, a + b + c + size(pod.spec.containers)))).size())`
	all := make([]source, n)
	for i := range all {
		all[i] = cluster(fmt.Sprintf("p%d", i), fmt.Sprintf(`custom: {template: {app: [{env: [{name: A%[1]d, value: "${%[2]s}"},
          {name: B%[1]d, value: "${%[2]s}"}, {name: C%[1]d, value: "${%[2]s}"}]}]}}, match: {enforce: true}`, i, expression))
	}
	return all
}

// What nobody bent has to be admitted, whatever the API server and other webhooks do to the Pod between the two looks at it.
func TestWhatIsEnforcedRefusesNoHonestPod(t *testing.T) {
	late := func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "late", Image: "v"})
	}
	named := func(p *corev1.Pod) { p.Name, p.UID = "app-x7", "123" }
	reads := func(expression string) []source {
		return []source{cluster("agent", strings.Replace(enforcedAgent, "value: a}", `value: "${`+expression+`}"}`, 1))}
	}
	const onPort = `custom: {parameters: [{name: port, type: integer, default: 9000}], template: {initContainers: [{image: agent, restartPolicy: Always,
      ports: [{containerPort: "${params.port}"}]}]}}, onPortConflict: Pick, match: {enforce: true}`
	tests := map[string]struct {
		profiles       []source
		metadata, spec string
		between        func(*corev1.Pod)
	}{
		"a container that comes late, beside a sidecar": {profiles: []source{cluster("agent", enforcedAgent)}, between: late},
		"a container that comes late, where there is none": {profiles: []source{cluster("ca", `custom: {template: {
          volumes: [{name: ca, configMap: {name: company-ca}}],
          app: [{env: [{name: SSL_CERT_DIR, value: /etc/ca}], volumeMounts: [{name: ca, mountPath: /etc/ca}]}]}}, match: {enforce: true}`)}, between: late},
		"a condition that reads a name that is generated": {
			profiles: []source{cluster("agent",
				agent+`, conditions: [{name: c, expression: "object.metadata.?name.orValue('') == '' && request.name == ''"}]}`)},
			metadata: `{generateName: app-}`, between: named,
		},
		"a condition that reads the name of a Pod that has one": {profiles: []source{cluster("agent",
			agent+`, conditions: [{name: c, expression: "object.metadata.name == 'app' && request.name == 'app'"}]}`)}, metadata: `{name: app}`},
		"a template that reads the app's mounts":      {profiles: reads("pod.spec.containers[0].?volumeMounts.orValue([]).map(m, m.mountPath).join(',')")},
		"a template that reads the app's variables":   {profiles: reads("string(size(pod.spec.containers[0].?env.orValue([])))")},
		"a template that reads the Pod's annotations": {profiles: reads("string(size(pod.metadata.?annotations.orValue({})))")},
		"a template that reads a variable of the app's, which keeps its own": {
			profiles: []source{
				cluster("agent", strings.Replace(enforcedAgent, "value: a}",
					`value: "${pod.spec.containers[0].?env.orValue([]).map(e, e.value).join(',')}"}`, 1)),
				cluster("level", `custom: {template: {app: [{env: [{name: LOG_LEVEL, value: info}]}]}}`),
			},
			metadata: asking("level"), spec: `{containers: [{name: app, env: [{name: LOG_LEVEL, value: debug}]}]}`,
		},
		"a condition that reads the name of a StatefulSet's Pod": {profiles: []source{cluster("agent",
			agent+`, conditions: [{name: c, expression: "object.metadata.name.endsWith('-0')"}]}`)}, metadata: `{generateName: web-, name: web-0}`},
		"what is asked for of a name that enforces others": {
			profiles: []source{
				cluster("x", agent+`, conditions: [{name: c, expression: "'batch' in object.metadata.?labels.orValue({})"}]}`),
				cluster("a", `custom: {template: {initContainers: [{image: a, restartPolicy: Always}]}}`),
			},
			metadata: asking("a,x"),
		},
		"a part of a profile that bears the name of another, which enforces others": {
			profiles: []source{
				cluster("a", `custom: {template: {initContainers: [{name: b, image: x, restartPolicy: Always}]}},
                  match: {enforce: true, conditions: [{name: c, expression: "'batch' in object.metadata.?labels.orValue({})"}]}`),
				cluster("a-b", `custom: {template: {initContainers: [{image: a, restartPolicy: Always}]}}`),
			},
			metadata: asking("a-b"),
		},
		"expressions that together cost most of what they may": {profiles: costly(6)},
		"expressions beside a condition that is not met": {profiles: append(costly(5),
			cluster("z", agent+`, conditions: [{name: c, expression: "'batch' in object.metadata.?labels.orValue({})"}]}`))},
		"a reader and its source": {profiles: []source{
			cluster("site", gitSync+`, match: {enforce: true}`),
			cluster("tpl", `templateProcessor: {templates: {gitSync: {profile: site, path: conf}}, mountPath: /etc/app}, match: {enforce: true}`),
		}},
		"a container that comes late on the port beside the one that was picked": {
			profiles: []source{cluster("agent", onPort)}, spec: `{containers: [{name: app, ports: [{containerPort: 9000}]}]}`,
			between: func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "late", Ports: []corev1.ContainerPort{{ContainerPort: 9001}}})
			},
		},
		"an app of a reserved name on the port beside the one that was picked": {
			profiles: []source{cluster("agent", onPort)},
			spec:     `{containers: [{name: app, ports: [{containerPort: 9000}]}, {name: pillion-x, ports: [{containerPort: 9001}]}]}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			between := []func(*corev1.Pod){}
			if test.between != nil {
				between = append(between, test.between)
			}
			metadata, spec := test.metadata, test.spec
			if metadata == "" {
				metadata = `{}`
			}
			if spec == "" {
				spec = appOnly
			}
			snapshot := snapshotOf(t, test.profiles...)
			stored, refused := create(t, snapshot, podOf(t, metadata, spec), between...)
			if refused != "" {
				t.Fatal(refused)
			}
			if len(stored.Annotations) == 0 {
				t.Error("nothing was woven")
			}
			if again := profiles.Decide(snapshot, web(), stored); !again.Allowed || len(again.Patch) > 0 {
				t.Errorf("woven again: %s %v", again.Denial(), again.Patch)
			}
		})
	}
}

// What a template adds without containers is found in the Pod by itself, so that it has to be the same each time.
func TestATemplateThatReadsWhatItAddsIsWovenOnce(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", `custom: {template: {labels: {a: "${string(size(pod.metadata.?annotations.orValue({})))}"}}}`))
	first := profiles.Decide(snapshot, web(), podOf(t, asking("site"), appOnly))
	if again := profiles.Decide(snapshot, web(), first.Pod()); !again.Allowed || len(again.Patch) > 0 {
		t.Errorf("%s %v", again.Denial(), again.Patch)
	}
}

// A tenant's profile of the same name is another source than the one that policy means.
func TestATenantReplacesNoSourceOfClusterPolicy(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync), namespaced("web", "site", gitOther),
		cluster("tpl", `templateProcessor: {templates: {gitSync: {profile: site, path: conf}}, mountPath: /etc/app}, match: {}`))
	decision := profiles.Decide(snapshot, web(), podOf(t, asking("site"), appOnly))
	if diff := cmp.Diff([]string{"web/site Annotation Applied Applied", "tpl Match Rejected SourceNotApplied"}, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

// What is enforced depends on nothing that Pods may have otherwise.
func TestWhatIsEnforcedDependsOnWhatIsEnforced(t *testing.T) {
	const reader = `templateProcessor: {templates: {gitSync: {profile: site, path: conf}}, mountPath: /etc/app}`
	tests := map[string]struct {
		profiles []source
		want     string // of the last one
	}{
		"after what is not": {
			[]source{cluster("site", gitSync+`, match: {}`), cluster("agent", enforcedAgent+`, after: [site]`)},
			`spec.after[0]: Invalid value: "site": is not enforced, and what is enforced starts before what is not`,
		},
		"after what is": {
			[]source{cluster("site", gitSync+`, match: {enforce: true}`), cluster("agent", enforcedAgent+`, after: [site]`)}, "",
		},
		"reading from what is not": {
			[]source{cluster("site", gitSync), cluster("tpl", reader+`, match: {enforce: true}`)},
			"spec.match.enforce: Invalid value: true: the pattern reads from profile site, which is not enforced",
		},
		"reading from what is": {
			[]source{cluster("site", gitSync+`, match: {enforce: true}`), cluster("tpl", reader+`, match: {enforce: true}`)}, "",
		},
		"what is not enforced may": {
			[]source{cluster("site", gitSync), cluster("tpl", reader+`, match: {}, after: [site]`)}, "",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := snapshotOf(t, test.profiles...)
			last := compile(t, test.profiles[len(test.profiles)-1])
			problems, _ := snapshot.Review(last)
			served := snapshot.Profile("", last.Name)
			for what, got := range map[string]string{"review": fmt.Sprint(problems.ToAggregate()), "snapshot": fmt.Sprint(served.Problems.ToAggregate())} {
				if (test.want == "") != (got == "<nil>") || !strings.Contains(got, test.want) {
					t.Errorf("%s: %s", what, got)
				}
			}
		})
	}
}

// What all profiles of a namespace may cost is bounded, so that a tenant takes nothing from policy or from others.
func TestATenantsExpressionsLeaveEnoughForClusterPolicy(t *testing.T) {
	const costly = `[1,2,3,4,5,6].all(a, [1,2,3,4,5,6].all(b, [1,2,3,4,5,6].all(c, a + b + c + size(object.spec.containers) > 0)))`
	all := []source{cluster("zzz", agent+`, conditions: [{name: c, expression: "`+costly+`"}]}`)}
	for i := range 100 {
		all = append(all, namespaced("web", fmt.Sprintf("p%d", i), gitSync+`, match: {conditions: [{name: c, expression: "`+costly+`"}]}`))
	}
	decision := profiles.Decide(snapshotOf(t, all...), web(), podOf(t, `{}`, appOnly))
	counts := map[string]int{}
	for _, outcome := range decision.Outcomes {
		counts[outcome.Namespace+" "+string(outcome.Reason)]++
	}
	if counts[" Applied"] != 1 || counts["web ConditionFailed"] == 0 || counts["web ConditionFailed"] == 100 {
		t.Errorf("%v", counts)
	}
}

func TestNoMoreOfANamespacesOwnProfilesChooseAPodThanMay(t *testing.T) {
	for _, policy := range []string{"Ignore", "Fail"} {
		all := []source{cluster("agent", enforcedAgent)}
		for i := range 70 {
			all = append(all, namespaced("web", fmt.Sprintf("p%02d", i), fmt.Sprintf(`custom: {template: {labels: {l%d: x}}}, match: {}`, i)))
		}
		all[len(all)-1] = namespaced("web", "p69", gitSync+`, match: {}, failurePolicy: `+policy)
		decision := profiles.Decide(snapshotOf(t, all...), web(), podOf(t, `{}`, appOnly))
		counts := map[string]int{}
		for _, outcome := range decision.Outcomes {
			counts[outcome.Namespace+" "+string(outcome.Reason)]++
		}
		if diff := cmp.Diff(map[string]int{" Applied": 1, "web Applied": 64, "web TooManyProfiles": 1}, counts); diff != "" {
			t.Errorf("%s: %s", policy, diff)
		}
		if decision.Allowed != (policy == "Ignore") {
			t.Errorf("%s: allowed: %t", policy, decision.Allowed)
		}
	}
}

// What expressions make of Pods is remembered, and whoever makes Pods can make it large.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	snapshot := snapshotOf(t, namespaced("web", "big", `custom: {template: {app: [{env: [
      {name: A, value: "${pod.metadata.annotations.a}"}, {name: B, value: "${pod.metadata.annotations.a}"}]}]}}`))
	heap := func() uint64 {
		runtime.GC()
		stats := runtime.MemStats{}
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	for i := range 400 {
		value := fmt.Sprintf("%05d", i) + strings.Repeat("x", 60_000)
		decision := profiles.Decide(snapshot, web(), podOf(t, `{annotations: {pillion.dev/inject: big, a: `+value+`}}`, appOnly))
		if !decision.Allowed || len(decision.Patch) == 0 {
			t.Fatal(decision.Denial())
		}
	}
	if grown := int64(heap()) - int64(before); grown > 16<<20 {
		t.Errorf("400 Pods of 60 KB left %d MiB behind", grown>>20)
	}
	runtime.KeepAlive(snapshot)
}

// Memory behind the API server's is overlaid with what was read just now: what that means beside the others is found as for all.
func TestWhatIsReadLiveIsHeldToThePlan(t *testing.T) {
	var all []*profiles.Profile
	for i := range 11 {
		all = append(all, compile(t, cluster(fmt.Sprintf("p%02d", i), fmt.Sprintf(`gitSync: {repo: "https://git.example.com/a.git", mountPath: /srv/s%d},
          failurePolicy: Fail, match: {namespaceSelector: {matchExpressions: [{key: k%d, operator: DoesNotExist}]}}`, i, i))))
	}
	all = append(all, compile(t, cluster("waiting", gitSync+`, after: [nobody], match: {}`)))
	memory := profiles.NewSnapshot(options(), all)
	for name, snapshot := range map[string]*profiles.Snapshot{"memory": memory, "read live": memory.With(all...), "half of it": memory.With(all[6:]...)} {
		decision := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
		counts := map[string]int{}
		for _, outcome := range decision.Outcomes {
			counts[string(outcome.Reason)]++
		}
		if diff := cmp.Diff(map[string]int{"Applied": 10, "ProfileNotReady": 1}, counts); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A profile may be wrong in thousands of places, and every Pod that asks for it is told.
func TestAProfileWithManyProblemsIsToldShortly(t *testing.T) {
	var fields []string
	for i := range 6000 {
		fields = append(fields, fmt.Sprintf("q%x: 1", i))
	}
	snapshot := snapshotOf(t, namespaced("web", "bad", `custom: {template: {initContainers: [{image: x, `+strings.Join(fields, ", ")+`}]}}`))
	problems := snapshot.Profile("web", "bad").Problems
	if n := len(problems); n != 101 || !strings.Contains(problems[n-1].Error(), "more problems") {
		t.Errorf("%d problems", n)
	}
	decision := profiles.Decide(snapshot, web(), podOf(t, asking("bad"), appOnly))
	if denial := decision.Denial(); len(denial) > 5000 || !strings.Contains(denial, "and 91 more") {
		t.Errorf("%d bytes: %.500s", len(denial), denial)
	}
}
