package profiles_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pillion-dev/pillion/profiles"
)

func TestConditionsOfMatch(t *testing.T) {
	when := func(expressions ...string) string {
		conditions := make([]string, len(expressions))
		for i, expression := range expressions {
			conditions[i] = fmt.Sprintf("{name: c%d, expression: %q}", i, expression)
		}
		return gitSync + `, match: {conditions: [` + strings.Join(conditions, ", ") + `]}`
	}
	const applied, notMet, failed = "site Match Applied Applied", "site Match Skipped ConditionNotMet", "site Match Rejected ConditionFailed"
	tests := map[string]struct {
		profile, metadata string
		want              string
		denied            bool
	}{
		"true of the Pod":               {profile: when("object.spec.containers.exists(c, c.name == 'app')"), want: applied},
		"false of the Pod":              {profile: when("!('batch' in object.metadata.?labels.orValue({}))"), metadata: `{labels: {batch: x}}`, want: notMet},
		"absent labels":                 {profile: when("!('batch' in object.metadata.?labels.orValue({}))"), want: applied},
		"true of the namespace":         {profile: when("namespaceObject.metadata.labels.team == 'web'"), want: applied},
		"true of who asks":              {profile: when("request.userInfo.username == 'jane' && 'dev' in request.userInfo.groups"), want: applied},
		"false of who asks":             {profile: when("request.userInfo.username.startsWith('system:')"), want: notMet},
		"both true":                     {profile: when("true", "!request.dryRun"), want: applied},
		"the second false":              {profile: when("true", "request.dryRun"), want: notMet},
		"one that reads what is absent": {profile: when("object.metadata.labels.nosuch == 'x'"), want: failed},
		"one that divides by zero":      {profile: when("1 / 0 == 1"), want: failed},
		"one that yields no bool":       {profile: when("object.spec.containers[0].name"), want: failed},
		"one that errs, with Fail": {
			profile: `failurePolicy: Fail, ` + strings.Replace(when("object.metadata.labels.nosuch == 'x'"), "match: {",
				"match: {namespaceSelector: {matchLabels: {team: web}}, ", 1), want: failed, denied: true,
		},
		"one that errs, with enforce, whatever the failure policy": {
			profile: strings.Replace(when("object.metadata.labels.nosuch == 'x'"), "match: {", "match: {enforce: true, ", 1),
			want:    failed, denied: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			metadata := test.metadata
			if metadata == "" {
				metadata = `{}`
			}
			decision := profiles.Request{
				Namespace: web(), Pod: podOf(t, metadata, appOnly),
				User: authenticationv1.UserInfo{Username: "jane", Groups: []string{"dev"}},
			}.Decide(snapshotOf(t, cluster("site", test.profile)))
			if diff := cmp.Diff([]string{test.want}, outcomes(&decision)); diff != "" {
				t.Error(diff, decision.Outcomes)
			}
			if decision.Allowed == test.denied {
				t.Errorf("allowed: %v", decision.Allowed)
			}
		})
	}
}

func TestConditionsThatCannotBeCompiledAreReported(t *testing.T) {
	profile := compile(t, cluster("site", gitSync+`, match: {conditions: [{name: a, expression: "object."}, {name: b, expression: "nosuch"}]}`))
	if len(profile.Problems) != 2 {
		t.Fatal(profile.Problems)
	}
	for i, problem := range profile.Problems {
		if want := fmt.Sprintf("spec.match.conditions[%d].expression", i); problem.Field != want {
			t.Errorf("problem at %s, want %s", problem.Field, want)
		}
	}
}

const enforced = gitSync + `, match: {enforce: true, podSelector: {matchExpressions: [{key: exempt, operator: DoesNotExist}]}}`

// What keeps other policy out of a Pod does not keep out what is enforced.
func TestNothingDeclinesWhatIsEnforced(t *testing.T) {
	tests := map[string]struct {
		namespace, metadata, spec string
		profiles                  []source
		want                      []string
		denied                    bool
	}{
		"none on the Pod":       {metadata: `{annotations: {pillion.dev/inject: none}}`, want: []string{"site Match Applied Applied"}},
		"none on the namespace": {namespace: "none", want: []string{"site Match Applied Applied"}},
		"a forged mark": {
			metadata: `{labels: {pillion.dev/injected: "true"}, annotations: {pillion.dev/injected: '{"site":{"kind":"GitSync"}}'}}`,
			want:     []string{"site Match Applied Applied"},
		},
		"a forged container": {
			spec: `{containers: [{name: app}], initContainers: [{name: pillion-site, image: busybox, command: [sleep, inf], restartPolicy: Always}]}`,
			want: []string{"site Match Rejected InjectionChanged"}, denied: true,
		},
		"a container that takes its volume's name": {
			spec: `{containers: [{name: app}], volumes: [{name: pillion-site, emptyDir: {}}]}`,
			want: []string{"site Match Rejected NameCollision"}, denied: true,
		},
		"a mount in its way": {
			spec: `{containers: [{name: app, volumeMounts: [{name: v, mountPath: /srv/site}]}], volumes: [{name: v, emptyDir: {}}]}`,
			want: []string{"site Match Rejected MountPathCollision"}, denied: true,
		},
		"a profile of the tenant in its way": {
			metadata: `{annotations: {pillion.dev/inject: mine}}`,
			profiles: []source{namespaced("web", "mine", gitSync)},
			want:     []string{"site Match Applied Applied", "web/mine Annotation Rejected MountPathCollision"}, denied: true,
		},
		"a profile of the tenant of its name": {
			metadata: `{annotations: {pillion.dev/inject: site}}`,
			profiles: []source{namespaced("web", "site", gitOther)},
			want:     []string{"web/site Annotation Rejected NameCollision", "site Match Applied Applied"}, denied: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			if test.namespace != "" {
				namespace.Labels["pillion.dev/inject"] = test.namespace
			}
			metadata, spec := test.metadata, test.spec
			if metadata == "" {
				metadata = `{}`
			}
			if spec == "" {
				spec = appOnly
			}
			snapshot := snapshotOf(t, append(test.profiles, cluster("site", enforced))...)
			decision := profiles.Decide(snapshot, namespace, podOf(t, metadata, spec))
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff, decision.Outcomes)
			}
			if decision.Allowed == test.denied {
				t.Errorf("allowed: %v: %s", decision.Allowed, decision.Denial())
			}
		})
	}
}

func TestWhatIsEnforcedAndBrokenFollowsItsFailurePolicy(t *testing.T) {
	for policy, allowed := range map[string]bool{"Ignore": true, "Fail": false} {
		t.Run(policy, func(t *testing.T) {
			snapshot := snapshotOf(t, cluster("site", enforcedIn(policy)+`, after: [nosuch]`))
			decision := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
			if diff := cmp.Diff([]string{"site Match Rejected ProfileNotReady"}, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
			if decision.Allowed != allowed {
				t.Errorf("allowed: %v", decision.Allowed)
			}
		})
	}
}

func enforcedIn(policy string) string {
	return gitSync + `, failurePolicy: ` + policy + `, match: {enforce: true, namespaceSelector: {matchLabels: {team: web}}}`
}

func TestTheFinalPodIsHeldToWhatIsEnforced(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", enforced), cluster("cache", memcached+`, match: {}`), cluster("other", gitOther))
	created := podOf(t, `{annotations: {pillion.dev/inject: other}}`, appOnly)
	first := profiles.Decide(snapshot, web(), created)
	tests := map[string]struct {
		edit func(pod *corev1.Pod)
		want []string
	}{
		"as it was woven":               {func(*corev1.Pod) {}, []string{"site Match Skipped Enforced"}},
		"what is not enforced stripped": {func(pod *corev1.Pod) { strip(pod, "pillion-cache") }, []string{"site Match Skipped Enforced"}},
		"the container stripped":        {func(pod *corev1.Pod) { strip(pod, "pillion-site") }, []string{"site Match Rejected NotInjected"}},
		"the container replaced": {
			func(pod *corev1.Pod) { containerOf(pod, "pillion-site").Image = "busybox" }, []string{"site Match Rejected InjectionChanged"},
		},
		"the app's mount removed": {
			func(pod *corev1.Pod) { pod.Spec.Containers[0].VolumeMounts = nil }, []string{"site Match Rejected InjectionChanged"},
		},
		"moved out of scope": {func(pod *corev1.Pod) { pod.Labels["exempt"] = "" }, nil},
		"given more resources by another webhook": {
			func(pod *corev1.Pod) {
				containerOf(pod, "pillion-site").Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1Gi")
			},
			[]string{"site Match Skipped Enforced"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := first.Pod()
			test.edit(pod)
			decision := profiles.Request{Namespace: web(), Pod: pod, Final: true}.Decide(snapshot)
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff, decision.Outcomes)
			}
			if denied := strings.Contains(strings.Join(test.want, " "), "Rejected"); decision.Allowed == denied {
				t.Errorf("allowed: %v", decision.Allowed)
			}
			if len(decision.Patch) > 0 {
				t.Errorf("the final Pod is changed: %v", decision.Patch)
			}
		})
	}
	t.Run("moved into scope by another webhook", func(t *testing.T) {
		pod := podOf(t, `{labels: {exempt: ""}}`, appOnly)
		decided := profiles.Decide(snapshot, web(), pod)
		woven := decided.Pod()
		delete(woven.Labels, "exempt")
		decision := profiles.Request{Namespace: web(), Pod: woven, Final: true}.Decide(snapshot)
		if diff := cmp.Diff([]string{"site Match Rejected NotInjected"}, outcomes(&decision)); diff != "" || decision.Allowed {
			t.Error(diff, decision.Allowed)
		}
	})
}

func strip(pod *corev1.Pod, name string) {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers[:i:i], pod.Spec.InitContainers[i+1:]...)
			return
		}
	}
}

func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}

// A label that one profile adds can be what an enforcing one matches: the Pod gets both at once, and no more the second time.
func TestAPodThatWeavingBringsIntoScopeGetsWhatIsEnforced(t *testing.T) {
	snapshot := snapshotOf(t,
		cluster("labels", `custom: {template: {labels: {tier: front}}}`),
		cluster("site", gitSync+`, match: {enforce: true, podSelector: {matchLabels: {tier: front}}}`))
	first := profiles.Decide(snapshot, web(), podOf(t, asking("labels"), appOnly))
	if diff := cmp.Diff([]string{"labels Annotation Applied Applied", "site Match Applied Applied"}, outcomes(&first)); diff != "" {
		t.Error(diff, first.Outcomes)
	}
	if diff := cmp.Diff([]string{"pillion-site"}, initNames(first.Pod())); diff != "" {
		t.Error(diff)
	}
	second := profiles.Decide(snapshot, web(), first.Pod())
	if diff := cmp.Diff([]string{"site Match Skipped AlreadyInjected", "labels Annotation Skipped AlreadyInjected"}, outcomes(&second)); diff != "" {
		t.Error(diff)
	}
	if len(second.Patch) > 0 {
		t.Errorf("patch: %v", second.Patch)
	}
}

// The API server would not send these Pods; they come by another entry, and get what it would have sent them for.
func TestAMatchThatGetsNoEntryChoosesNobody(t *testing.T) {
	var all []source
	for i := range 11 {
		all = append(all, cluster(fmt.Sprintf("p%02d", i), fmt.Sprintf(`gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/%d},
          failurePolicy: Fail, match: {namespaceSelector: {matchLabels: {team: web}}, podSelector: {matchLabels: {p%d: ""}}}`, i, i)))
	}
	labels := `{labels: {p0: "", p10: ""}}`
	decision := profiles.Decide(snapshotOf(t, all...), web(), podOf(t, labels, appOnly))
	if diff := cmp.Diff([]string{"p00 Match Applied Applied"}, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestAPortThatIsTakenIsPickedAnew(t *testing.T) {
	taken := func(port int) string {
		return fmt.Sprintf(`{containers: [{name: app, ports: [{containerPort: %d}]}]}`, port)
	}
	tests := map[string]struct {
		profile, spec string
		want          []string // in the woven Pod's JSON
	}{
		"a cache and the app's environment": {
			memcached + `, onPortConflict: Pick`, taken(11211), []string{`"-p","11212"`, `"CACHE_PORT","value":"11212"`, `:2BCC `},
		},
		"an adapter, its probe and the scrape annotations": {
			statsd + `, onPortConflict: Pick`,
			`{containers: [{name: app, ports: [{containerPort: 9102}, {containerPort: 9125, protocol: UDP}]}]}`,
			[]string{`"prometheus.io/port":"9103"`, `"containerPort":9103`, `"STATSD_PORT","value":"9126"`, `:23A6 `},
		},
		"a custom pattern's parameter": {
			`onPortConflict: Pick, custom: {parameters: [{name: port, type: integer, default: 8080}], template: {initContainers: [{image: proxy,
        restartPolicy: Always, args: ["--listen=:${params.port}"], ports: [{containerPort: "${params.port}"}],
        readinessProbe: {tcpSocket: {port: "${params.port}"}}}], app: [{env: [{name: PROXY, value: "127.0.0.1:${params.port}"}]}]}}`,
			taken(8080),
			[]string{`"--listen=:8081"`, `"containerPort":8081`, `"port":8081`, `"127.0.0.1:8081"`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := snapshotOf(t, cluster("site", test.profile))
			decision := profiles.Decide(snapshot, web(), podOf(t, asking("site"), test.spec))
			if !decision.Allowed {
				t.Fatal(decision.Denial())
			}
			woven := string(encode(t, decision.Pod()))
			for _, want := range test.want {
				if !strings.Contains(woven, want) {
					t.Errorf("%s is not in %s", want, woven)
				}
			}
			if again := profiles.Decide(snapshot, web(), decision.Pod()); len(again.Patch) > 0 || !again.Allowed {
				t.Errorf("the woven Pod is changed: %v %s", again.Patch, again.Denial())
			}
			free := profiles.Decide(snapshot, web(), podOf(t, asking("site"), appOnly))
			if strings.Contains(string(encode(t, free.Pod())), test.want[0]) {
				t.Error("the port is another one though it was free")
			}
		})
	}
	t.Run("not without being told to", func(t *testing.T) {
		decision := profiles.Decide(snapshotOf(t, cluster("site", memcached)), web(), podOf(t, asking("site"), taken(11211)))
		if diff := cmp.Diff([]string{"site Annotation Rejected PortCollision"}, outcomes(&decision)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("two profiles that want the same", func(t *testing.T) {
		snapshot := snapshotOf(t, cluster("a", memcached+`, onPortConflict: Pick`), cluster("b",
			`cacheAmbassador: {protocol: Memcached, local: {}, envPrefix: B}, onPortConflict: Pick`))
		decision := profiles.Decide(snapshot, web(), podOf(t, asking("a,b"), taken(11212)))
		if !decision.Allowed {
			t.Fatal(decision.Denial())
		}
		if woven := string(encode(t, decision.Pod())); !strings.Contains(woven, `"B_PORT","value":"11213"`) {
			t.Error(woven)
		}
	})
}

func TestWhatANamespacesPodSecurityForbidsIsRefused(t *testing.T) {
	const privileged = `custom: {template: {initContainers: [{image: x, restartPolicy: Always, securityContext: {privileged: true}}]}}`
	tests := map[string]struct {
		level, profile string
		mode           profiles.PodSecurityMode
		want           string
	}{
		"a privileged container where restricted is enforced": {
			level: "restricted", profile: privileged, want: "site Annotation Rejected PodSecurity",
		},
		"a privileged container where nothing is enforced": {profile: privileged, want: "site Annotation Applied Applied"},
		"a privileged container where it is only warned of": {
			level: "restricted", profile: privileged, mode: profiles.PodSecurityWarn, want: "site Annotation Applied Applied",
		},
		"a built-in pattern where restricted is enforced": {level: "restricted", profile: gitSync, want: "site Annotation Applied Applied"},
		"a container that says nothing where restricted is enforced": {
			level: "restricted", profile: `custom: {template: {containers: [{image: x}]}}`, want: "site Annotation Applied Applied",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			if test.level != "" {
				namespace.Labels["pod-security.kubernetes.io/enforce"] = test.level
			}
			with := options()
			with.PodSecurity.Mode = test.mode
			snapshot := profiles.NewSnapshot(with, []*profiles.Profile{compile(t, cluster("site", test.profile))})
			decision := profiles.Decide(snapshot, namespace, podOf(t, asking("site"), appOnly))
			if diff := cmp.Diff([]string{test.want}, outcomes(&decision)); diff != "" {
				t.Error(diff, decision.Outcomes)
			}
			if test.level != "" && test.profile == privileged {
				told := decision.Denial() + strings.Join(decision.Warnings, " ")
				if !strings.Contains(told, `privileged (container "pillion-site" must not set securityContext.privileged=true)`) {
					t.Errorf("the check's own words are not told: %s", told)
				}
			}
		})
	}
}
