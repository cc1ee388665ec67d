package profiles_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

const (
	leftGitSync = `gitSync: {mountPath: /srv/git}, overridable: [repo, ref, credentials]`
	leftAll     = `gitSync: {}, overridable: [repo, mountPath]`
	leftCache   = `cacheAmbassador: {local: {}}, overridable: [protocol, local, port]`
	leftInPart  = `templateProcessor: {mountPath: /etc/app}, overridable: [templates.configMap, templates.gitSync, parameters]`
	leftByGit   = `templateProcessor: {mountPath: /etc/app}, overridable: [templates.gitSync]`
)

func TestAPodGivesWhatTheProfileLeavesToIt(t *testing.T) {
	tests := map[string]struct {
		profile           string
		pod, namespace    map[string]string
		argument          string
		reason            string // of a refusal
		says, doesNotSays []string
	}{
		"by its annotation": {
			profile: leftGitSync, pod: map[string]string{"repo": "https://git.example.com/a.git"}, argument: "--repo=https://git.example.com/a.git",
		},
		"by its namespace's": {
			profile: leftGitSync, namespace: map[string]string{"repo": "https://git.example.com/n.git"}, argument: "--repo=https://git.example.com/n.git",
		},
		"by its own rather than its namespace's": {
			profile: leftGitSync, pod: map[string]string{"repo": "https://git.example.com/a.git"},
			namespace: map[string]string{"repo": "https://git.example.com/n.git"}, argument: "--repo=https://git.example.com/a.git",
		},
		"by an object": {
			profile: leftInPart, pod: map[string]string{"templates.configMap": `{"name": "app-templates"}`}, argument: "--input-dir=/templates",
		},
		"by a field of an object": {
			profile: leftInPart, pod: map[string]string{"templates.configMap.name": "app-templates"}, argument: "--input-dir=/templates",
		},
		"or is told which annotation to write": {
			profile: leftGitSync, reason: "ParameterRequired", says: []string{
				"profile p leaves repo to Pods, and neither this Pod nor its namespace gives it: write the annotation p.pillion.dev/repo, " +
					"for example p.pillion.dev/repo: https://git.example.com/web/site.git",
			},
		},
		"or is told of everything at once": {
			profile: leftAll, reason: "ParameterRequired", says: []string{"write the annotation p.pillion.dev/repo", "write the annotation p.pillion.dev/mountPath"},
		},
		"or is told what else is wrong with it": {
			profile: leftGitSync, pod: map[string]string{"ref": "\x01"}, reason: "ParameterRequired",
			says: []string{"annotation p.pillion.dev/ref", "write the annotation p.pillion.dev/repo"},
		},
		"or hears of what it gave, and not that it gave nothing": {
			profile: leftGitSync, pod: map[string]string{"repo": "nonsense"}, reason: "InvalidOverride",
			says: []string{"must be https://host/path"}, doesNotSays: []string{"leaves"},
		},
		"or hears that what it gave cannot be given": {
			profile: leftInPart, pod: map[string]string{"templates.image.path": "/templates"}, reason: "FieldNotOverridable",
			says: []string{"annotation p.pillion.dev/templates.image.path", "it allows templates.configMap"},
		},
		"and is held to the rules that connect what it gives and what the profile says": {
			profile: leftGitSync, pod: map[string]string{"repo": "git@git.example.com:site.git"}, reason: "InvalidOverride",
			says: []string{"a repo over ssh wants credentials.ssh"},
		},
		"such as the protocol of a cache": {
			profile: leftCache, pod: map[string]string{"protocol": "Redis", "local.eviction": "LFU"}, argument: "allkeys-lfu",
		},
		"and what that protocol does not know": {
			profile: leftCache, pod: map[string]string{"protocol": "Memcached", "local.eviction": "LFU"}, reason: "InvalidOverride",
			says: []string{"memcached knows the evictions LRU and None"},
		},
		"or is told a field in what is left": {
			profile: leftInPart, reason: "ParameterRequired", says: []string{"for example p.pillion.dev/templates.configMap.name: app-templates"},
		},
		"or is told the field that it may set, if that is another": {
			profile: leftByGit, reason: "ParameterRequired", says: []string{"write the annotation p.pillion.dev/templates.gitSync"},
			doesNotSays: []string{"for example", "configMap"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, namespace := podOf(t, asking("p"), appOnly), web()
			pod.Annotations = annotate(pod.Annotations, "p", test.pod)
			namespace.Annotations = annotate(namespace.Annotations, "p", test.namespace)
			snapshot := snapshotOf(t, cluster("p", test.profile))
			decision := profiles.Decide(snapshot, namespace, pod)
			if test.reason == "" {
				if !decision.Allowed {
					t.Fatal(decision.Denial())
				}
				container := decision.Pod().Spec.InitContainers[0]
				if !slices.Contains(append(container.Args, container.Command...), test.argument) {
					t.Errorf("want %s among %q", test.argument, container.Args)
				}
				if again := profiles.Decide(snapshot, namespace, decision.Pod()); !again.Allowed || len(again.Patch) > 0 {
					t.Errorf("weaving again patches %v: %s", again.Patch, again.Denial())
				}
				return
			}
			if decision.Allowed || !slices.ContainsFunc(decision.Outcomes, func(o profiles.Outcome) bool { return string(o.Reason) == test.reason }) {
				t.Errorf("allowed is %t, want a refusal with %s: %+v", decision.Allowed, test.reason, decision.Outcomes)
			}
			for _, says := range test.says {
				if !strings.Contains(decision.Denial(), says) {
					t.Errorf("it is not said %q but: %s", says, decision.Denial())
				}
			}
			for _, says := range test.doesNotSays {
				if strings.Contains(decision.Denial(), says) {
					t.Errorf("it is said %q: %s", says, decision.Denial())
				}
			}
		})
	}
}

// annotate returns annotations, and those that set fields of a profile.
func annotate(annotations map[string]string, profile string, values map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, annotations)
	for path, value := range values {
		all[v1alpha1.OverrideKey(profile, path)] = value
	}
	return all
}

// TestAProfileThatLeavesSomethingToPodsHarmsNoOther has it stand beside others, be looked for in a Pod that carries its mark, and come to
// a Pod by policy.
func TestAProfileThatLeavesSomethingToPodsHarmsNoOther(t *testing.T) {
	const other = `custom: {template: {labels: {a: "${string(size(pod.spec.containers))}"}}}, match: {}`
	snapshot := snapshotOf(t, cluster("p", leftGitSync+`, match: {}`), cluster("cache", leftCache+`, match: {enforce: true}`), cluster("other", other))
	marked := podOf(t, `{labels: {pillion.dev/injected: "true"}, annotations: {pillion.dev/injected: '{"p":{"kind":"GitSync","revision":"x",`+
		`"containers":["pillion-p"]},"cache":{"kind":"CacheAmbassador","revision":"x","containers":["pillion-cache"]}}'}}`,
		`{initContainers: [{name: pillion-p}], containers: [{name: app}]}`)
	if decision := profiles.Decide(snapshot, web(), marked); decision.Allowed || !strings.Contains(decision.Denial(), "cache.pillion.dev/protocol") {
		t.Errorf("what is enforced lacks its protocol, and the Pod is allowed: %s", decision.Denial())
	}
	pod := podOf(t, `{annotations: {cache.pillion.dev/protocol: Redis}}`, appOnly)
	decision := profiles.Decide(snapshot, web(), pod)
	if !decision.Allowed || !slices.ContainsFunc(decision.Warnings, func(w string) bool { return strings.Contains(w, "write the annotation p.pillion.dev/repo") }) {
		t.Errorf("allowed %t: %s; want a warning of what policy left out, got %q", decision.Allowed, decision.Denial(), decision.Warnings)
	}
	if got := decision.Pod().Labels["a"]; got != "1" {
		t.Errorf("another profile's expression sees %s containers", got)
	}
}

func TestWhatIsLeftToPodsIsToldOfAsRequired(t *testing.T) {
	profile := compile(t, cluster("p", leftInPart))
	required := func(namespace profiles.Namespace) (names []string) {
		for _, parameter := range profile.Parameters(namespace) {
			if parameter.Required {
				names = append(names, parameter.Annotation+": "+parameter.Example())
			}
		}
		return names
	}
	if diff := cmp.Diff([]string{"p.pillion.dev/templates.configMap.name: app-templates"}, required(web())); diff != "" {
		t.Error(diff)
	}
	given := web()
	given.Annotations = annotate(given.Annotations, "p", map[string]string{"templates.gitSync.profile": "git"})
	if got := required(given); len(got) > 0 {
		t.Errorf("the namespace gives it, and Pods are told to give %q", got)
	}
	if diff := cmp.Diff([]string{"templates.configMap.name"}, profile.Left()); diff != "" {
		t.Error(diff)
	}
	if violations, known := profiles.RestrictedViolations(profile); !known || len(violations) > 0 {
		t.Errorf("what it adds does not follow from what it leaves to Pods, and meets restricted: %q, known is %t", violations, known)
	}
}

// TestAPodSetsOneOfSeveralFieldsInThePlaceOfAnother has Pods choose among fields of which exactly one can be set.
func TestAPodSetsOneOfSeveralFieldsInThePlaceOfAnother(t *testing.T) {
	const adapter = `prometheusAdapter: {statsd: {port: 8125}}, overridable: [statsd, json, server, logs.directory]`
	const processor = `templateProcessor: {mountPath: /etc/app, templates: {configMap: {name: t}}}, overridable: [templates.volume]`
	tests := map[string]struct {
		profile        string
		pod, namespace map[string]string
		container      string
		says           string // where it is refused
	}{
		"by a field in it":           {profile: adapter, pod: map[string]string{"server.type": "Redis"}, container: "redis_exporter"},
		"by all of it":               {profile: adapter, pod: map[string]string{"server": `{"type": "Memcached"}`}, container: "memcached-exporter"},
		"though the namespace chose": {adapter, map[string]string{"server.type": "Redis"}, map[string]string{"json": `{}`}, "redis_exporter", ""},
		"as the namespace does":      {adapter, nil, map[string]string{"server.type": "Redis"}, "redis_exporter", ""},
		"back to what the profile has, with its defaults": {
			adapter, map[string]string{"statsd.port": "9000"}, map[string]string{"server.type": "Redis"}, "statsd-exporter", "",
		},
		"but not two of them": {
			profile: adapter, pod: map[string]string{"server.type": "Redis", "statsd.port": "9000"},
			says: "exactly one of the fields in [json statsd logs server] must be set",
		},
		"but not by what the profile does not list": {
			profile: `prometheusAdapter: {statsd: {}}, overridable: [statsd, json.url]`, pod: map[string]string{"server.type": "Redis"},
			says: "does not let Pods change server.type",
		},
		"but not by a part that says too little": {
			profile: adapter, pod: map[string]string{"logs.directory": "/var/log/app"}, says: "programs: Required value",
		},
		"below the top": {profile: processor, pod: map[string]string{"templates.volume.name": "v"}, container: "gomplate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, namespace := podOf(t, asking("p"), `{containers: [{name: app}], volumes: [{name: v, emptyDir: {}}]}`), web()
			pod.Annotations = annotate(pod.Annotations, "p", test.pod)
			namespace.Annotations = annotate(namespace.Annotations, "p", test.namespace)
			snapshot := snapshotOf(t, cluster("p", test.profile))
			request := profiles.Request{Namespace: namespace, Pod: pod}
			decision := request.Decide(snapshot)
			if test.says != "" {
				if decision.Allowed || !strings.Contains(decision.Denial(), test.says) {
					t.Errorf("want it refused with %q, got: %s", test.says, decision.Denial())
				}
				return
			}
			if !decision.Allowed {
				t.Fatal(decision.Denial())
			}
			image := func(c corev1.Container) bool { return strings.Contains(c.Image, test.container) }
			if !slices.ContainsFunc(decision.Pod().Spec.InitContainers, image) {
				t.Errorf("no container runs %s: %+v", test.container, decision.Pod().Spec.InitContainers)
			}
			for _, setting := range request.Explain(snapshot).Profiles[0].Settings {
				if strings.HasPrefix(setting.Path, "statsd") && test.container != "statsd-exporter" {
					t.Errorf("it is told of %s, which does not count", setting.Path)
				}
			}
			if again := profiles.Decide(snapshot, namespace, decision.Pod()); !again.Allowed || len(again.Patch) > 0 {
				t.Errorf("weaving again patches %v: %s", again.Patch, again.Denial())
			}
		})
	}
}

// TestEveryRuleOfAlternativesIsRead holds what is read from the schemas to a profile of each: the marker's rule may become another.
func TestEveryRuleOfAlternativesIsRead(t *testing.T) {
	for spec, path := range map[string]string{
		`prometheusAdapter: {statsd: {}}, overridable: [server]`:                                                           "server.type=Redis",
		`cacheAmbassador: {protocol: Redis, proxy: {servers: [{address: "a:1"}]}}, overridable: [local]`:                   "local.memory=64Mi",
		`templateProcessor: {mountPath: /a, templates: {volume: {name: v}}}, overridable: [templates]`:                     "templates.configMap.name=c",
		`gitSync: {repo: "https://a/b", mountPath: /a, credentials: {token: {secretName: s}}}, overridable: [credentials]`: "credentials.basic.secretName=t",
	} {
		pod := podOf(t, asking("p"), appOnly)
		name, value, _ := strings.Cut(path, "=")
		pod.Annotations = annotate(pod.Annotations, "p", map[string]string{name: value})
		if decision := profiles.Decide(snapshotOf(t, cluster("p", spec)), web(), pod); !decision.Allowed {
			t.Errorf("%s with %s: %s", spec, path, decision.Denial())
		}
	}
}
