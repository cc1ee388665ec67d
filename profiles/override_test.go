package profiles_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

// openGitSync lets Pods override nearly everything.
const openGitSync = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, env: [{name: A, value: a}]},
  overridable: [ref, depth, readOnly, sparseCheckout, resources, env, onSync, mountPath, image, period, sizeLimit]`

func TestOverridesThatAreTaken(t *testing.T) {
	tests := map[string]struct {
		path, value string
		want        func(container *corev1.Container) any
		is          any
	}{
		"a string is literal": {"ref", "v2.1", argument("--ref="), "v2.1"},
		"a string that looks like JSON is literal, too": {
			"ref", `"quoted"`, argument("--ref="), `"quoted"`,
		},
		"a string with a variable of the kubelet's does not expand": {"ref", "$(HOME)", argument("--ref="), "$$(HOME)"},
		"a string with a command stays an argument": {
			"ref", "a;rm${IFS}-rf`id`|'", argument("--ref="),
			"a;rm$${IFS}-rf`id`|'",
		},
		"a number is JSON":      {"depth", "7", argument("--depth="), "7"},
		"zero is not absent":    {"depth", "0", argument("--depth="), "0"},
		"space around JSON":     {"depth", " 7\n", argument("--depth="), "7"},
		"a duration is literal": {"period", "90s", argument("--period="), "1m30s"},
		"a quantity is literal": {
			"resources.limits.memory", "300Mi",
			func(c *corev1.Container) any { return c.Resources.Limits.Memory().String() }, "300Mi",
		},
		"an object is JSON": {"resources", `{"limits": {"cpu": "2"}}`, func(c *corev1.Container) any {
			return c.Resources.Limits.Cpu().String() + " " + c.Resources.Limits.Memory().String()
		}, "2 256Mi"},
		"a list is JSON and replaces": {
			"env", `[{"name": "B", "value": "$(A)"}]`, func(c *corev1.Container) any { return c.Env },
			[]corev1.EnvVar{
				{Name: "HOME", Value: "/tmp"}, {Name: "B", Value: "$$(A)"},
			},
		},
		"a field of an object that is absent": {
			"onSync.url", "http://localhost:8080/-/reload", argument("--webhook-url="),
			"http://localhost:8080/-/reload",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podOf(t, asking("site"), appOnly)
			pod.Annotations["site.pillion.dev/"+test.path] = test.value
			decision := profiles.Decide(snapshotOf(t, cluster("site", openGitSync)), web(), pod)
			if !decision.Allowed {
				t.Fatal(decision.Denial())
			}
			if diff := cmp.Diff(test.is, test.want(&decision.Pod().Spec.InitContainers[0])); diff != "" {
				t.Error(diff)
			}
			if original := snapshotRevision(t, "site", openGitSync); decision.Outcomes[0].Revision == original {
				t.Error("another spec has the same revision")
			}
		})
	}
}

func TestAnOverrideThatSaysWhatTheProfileSaysKeepsTheRevision(t *testing.T) {
	pod := podOf(t, asking("site"), appOnly)
	pod.Annotations["site.pillion.dev/ref"] = "HEAD"
	decision := profiles.Decide(snapshotOf(t, cluster("site", openGitSync)), web(), pod)
	if want := snapshotRevision(t, "site", openGitSync); decision.Outcomes[0].Revision != want {
		t.Errorf("want revision %s, got %s", want, decision.Outcomes[0].Revision)
	}
}

func TestOverridesThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		path, value string
		reason      weave.Reason
		says        []string
	}{
		"a field that is not listed": {"repo", "https://evil.example.com/x.git", profiles.ReasonFieldNotOverridable, []string{
			"annotation site.pillion.dev/repo", "does not let Pods change repo", "it allows ref, depth",
		}},
		"a field that there is not, and whose name is close to one that is listed": {"perod", "1m", profiles.ReasonFieldNotOverridable, []string{
			"it allows ref, depth", "sizeLimit; did you mean period? Remove the annotation",
		}},
		"a field that there is, and whose name is close to one that is listed": {"repo", "x", profiles.ReasonFieldNotOverridable, []string{
			"sizeLimit. Remove the annotation",
		}},
		"a field whose name only begins like one that is listed": {"reference", "x", profiles.ReasonFieldNotOverridable, nil},
		"a field that does not exist in one that is listed": {"resources.limits.gpu", "1", profiles.ReasonInvalidOverride, []string{
			`there is no field "gpu" in resources.limits`, "cpu, ephemeral-storage, memory",
		}},
		"an empty path": {"", "x", profiles.ReasonFieldNotOverridable, nil},
		"a path into a string": {
			"ref.x", "x", profiles.ReasonInvalidOverride,
			[]string{`there is no field "x" in ref`},
		},
		"a number that is no number": {
			"depth", "many", profiles.ReasonInvalidOverride,
			[]string{"is not an integer; write a number"},
		},
		"a number with a fraction": {"depth", "1.5", profiles.ReasonInvalidOverride, []string{"depth"}},
		"a number out of bounds": {"depth", "-1", profiles.ReasonInvalidOverride, []string{
			"gitSync.depth",
			"greater than or equal to 0",
		}},
		"a number that is endless": {"depth", "1e999999", profiles.ReasonInvalidOverride, []string{"depth"}},
		"null":                     {"depth", "null", profiles.ReasonInvalidOverride, []string{"is not an integer"}},
		"a boolean that is a word": {
			"readOnly", "yes", profiles.ReasonInvalidOverride,
			[]string{"write true or false"},
		},
		"a list that is a string": {
			"sparseCheckout", "/docs/", profiles.ReasonInvalidOverride,
			[]string{`["a", "b"]`},
		},
		"an object that is a list": {"resources", "[]", profiles.ReasonInvalidOverride, []string{"resources"}},
		"an object with a field that is not known": {
			"resources", `{"requests": {"gpu": "1"}}`, profiles.ReasonInvalidOverride,
			[]string{"gpu", "there is no field of that name"},
		},
		"two JSON values": {"depth", "1 2", profiles.ReasonInvalidOverride, nil},
		"what a profile could not say": {
			"ref", "-upload-pack=x", profiles.ReasonInvalidOverride,
			[]string{"gitSync.ref"},
		},
		"a newline": {
			"ref", "main\n--one-time", profiles.ReasonInvalidOverride,
			[]string{"gitSync.ref"},
		},
		"a rule between fields": {
			"mountPath", "/etc", profiles.ReasonInvalidOverride,
			[]string{"must not be a directory of the system"},
		},
		"a bad image":         {"image", "x y", profiles.ReasonInvalidOverride, []string{"gitSync.image"}},
		"a negative duration": {"period", "-5s", profiles.ReasonInvalidOverride, []string{"gitSync.period"}},
		"a quantity beyond all bounds": {
			"resources.limits.memory", "1e999999", profiles.ReasonInvalidOverride,
			[]string{"resources.limits.memory"},
		},
		"a quantity that takes a year to read": {
			"resources.limits.memory", "1e-999999999", profiles.ReasonInvalidOverride,
			[]string{"resources.limits.memory"},
		},
		"such a quantity in an object": {
			"resources", `{"limits": {"cpu": "1E-999999999"}}`,
			profiles.ReasonInvalidOverride,
			[]string{"resources.limits.cpu"},
		},
		"such a quantity, long": {
			"sizeLimit", "0." + strings.Repeat("0", 200000) + "1",
			profiles.ReasonInvalidOverride,
			[]string{"sizeLimit"},
		},
		"a quantity that is no quantity": {
			"resources.limits.memory", "lots", profiles.ReasonInvalidOverride,
			[]string{"resources.limits.memory"},
		},
		"NUL": {"ref", "a\x00b", profiles.ReasonInvalidOverride, []string{"cannot be seen"}},
		"an escape character": {
			"ref", "a\x1b[31mb", profiles.ReasonInvalidOverride,
			[]string{"cannot be seen"},
		},
		"text that runs backwards": {
			"ref", "main\u202e", profiles.ReasonInvalidOverride,
			[]string{"cannot be seen"},
		},
		"invalid UTF-8": {
			"ref", "main\ufffd", profiles.ReasonInvalidOverride,
			[]string{"cannot be seen"},
		},
		"such characters in JSON, written as escapes": {
			"env", `[{"name":"B","value":"\u202e"}]`, profiles.ReasonInvalidOverride,
			[]string{"cannot be seen"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podOf(t, asking("site"), appOnly)
			pod.Annotations["site.pillion.dev/"+test.path] = test.value
			start := time.Now()
			decision := profiles.Decide(snapshotOf(t, cluster("site", openGitSync)), web(), pod)
			if elapsed := time.Since(start); elapsed > 2*time.Second {
				t.Errorf("it took %s", elapsed)
			}
			message := ""
			for i := range decision.Outcomes {
				if decision.Outcomes[i].Reason == test.reason {
					message += decision.Outcomes[i].Message
				}
			}
			if decision.Allowed || message == "" {
				t.Fatalf("allowed is %t, outcomes %v", decision.Allowed, outcomes(&decision))
			}
			for _, fact := range test.says {
				if !strings.Contains(message, fact) {
					t.Errorf("it does not say %q: %s", fact, message)
				}
			}
			expectReadable(t, &decision)
		})
	}
}

func TestAProfileThatListsNothingSaysSo(t *testing.T) {
	pod := podOf(t, asking("site"), appOnly)
	pod.Annotations["site.pillion.dev/ref"] = "x"
	decision := profiles.Decide(snapshotOf(t, cluster("site", gitSync)), web(), pod)
	want := "annotation site.pillion.dev/ref: profile site does not let Pods change ref; it allows none to be changed. " +
		"Remove the annotation, " +
		"or ask whoever owns the profile to list the field in spec.overridable"
	if diff := cmp.Diff(want, messageOf(t, &decision, profiles.ReasonFieldNotOverridable)); diff != "" {
		t.Error(diff)
	}
}

func TestAnOverrideOfAProfileThatIsNotAppliedIsWarnedOf(t *testing.T) {
	pod := podOf(t, `{annotations: {cache.pillion.dev/port: "1", cache.pillion.dev/env: "[]", pillion.dev/inject: site,
          example.com/ref: x}}`, appOnly)
	decision := profiles.Decide(snapshotOf(t, cluster("site", gitSync), cluster("cache", memcached)), web(), pod)
	want := []string{"annotations cache.pillion.dev/env, cache.pillion.dev/port has no effect: profile cache is not applied " +
		"to this Pod"}
	if diff := cmp.Diff(want, decision.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestOverridesReachPolicyToo(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", openGitSync+`, match: {}`))
	good := profiles.Decide(snapshot, web(), podOf(t, `{annotations: {site.pillion.dev/ref: v2}}`, appOnly))
	if diff := cmp.Diff("v2", argument("--ref=")(&good.Pod().Spec.InitContainers[0])); diff != "" {
		t.Error(diff)
	}
	bad := profiles.Decide(snapshot, web(), podOf(t, `{annotations: {site.pillion.dev/ref: "-v2"}}`, appOnly))
	if diff := cmp.Diff([]string{"site Match Rejected InvalidOverride"}, outcomes(&bad)); diff != "" || !bad.Allowed {
		t.Errorf("allowed is %t: %s", bad.Allowed, diff)
	}
}

// FuzzOverride gives any key and value: a Pod is refused, or the value is where it belongs and nowhere else.
func FuzzOverride(f *testing.F) {
	for _, seed := range []struct{ path, value string }{
		{"ref", "v2"},
		{"depth", "1e999999"},
		{"resources.limits.memory", "1e-9999999"},
		{"env", `[{"name":"A","value":"$(B)"}]`},
		{"repo", "x"},
		{"", ""},
		{"ref\u202e", "x"},
		{"resources", `{"limits":{"cpu":"1e-9999999"}}`},
		{"image", "x"},
		{"sparseCheckout", `["a","a"]`},
		{"a.b.c", "\xff"},
		{"onSync", `{"url":"http://x/","timeout":"1s"}`},
		{"sizeLimit", "-1"},
	} {
		f.Add(seed.path, seed.value)
	}
	snapshot := snapshotOf(f, cluster("site", openGitSync))
	f.Fuzz(func(t *testing.T, path, value string) {
		pod := podOf(t, asking("site"), appOnly)
		pod.Annotations["site.pillion.dev/"+path] = value
		decision := profiles.Decide(snapshot, web(), pod)
		expectReadable(t, &decision)
		if !decision.Allowed {
			if len(decision.Patch) > 0 {
				t.Fatal("a refused Pod is woven")
			}
			return
		}
		if len(decision.Pod().Spec.InitContainers) != 1 {
			t.Fatalf("init containers: %v", initNames(decision.Pod()))
		}
		container := decision.Pod().Spec.InitContainers[0]
		if path == "ref" {
			if want := "--ref=" + strings.ReplaceAll(value, "$", "$$"); !slices.Contains(container.Args, want) {
				t.Fatalf("%q is not one literal argument of %q", want, container.Args)
			}
		}
		for _, argument := range container.Args {
			if !strings.HasPrefix(argument, "--") || strings.ContainsAny(argument, "\n\x00") {
				t.Fatalf("the argument %q", argument)
			}
		}
		if container.SecurityContext == nil || *container.SecurityContext.RunAsUser != 65533 {
			t.Fatal("it is not hardened")
		}
	})
}

// argument returns the value of a flag.
func argument(flag string) func(*corev1.Container) any {
	return func(container *corev1.Container) any {
		for _, argument := range container.Args {
			if value, ok := strings.CutPrefix(argument, flag); ok {
				return value
			}
		}
		return "no " + flag
	}
}

func TestANamespaceOverridesForItsPods(t *testing.T) {
	tests := map[string]struct {
		namespace, pod map[string]string
		ref, depth     string // of git-sync; empty: refused
		denial         string
	}{
		"the namespace's annotation stands in for the profile's value": {
			namespace: map[string]string{"site.pillion.dev/ref": "prod"}, ref: "prod",
		},
		"the Pod's own wins": {
			namespace: map[string]string{"site.pillion.dev/ref": "prod"}, pod: map[string]string{"site.pillion.dev/ref": "v2"}, ref: "v2",
		},
		"both count where they change different fields": {
			namespace: map[string]string{"site.pillion.dev/ref": "prod"}, pod: map[string]string{"site.pillion.dev/depth": "7"},
			ref: "prod", depth: "7",
		},
		"the Pod's own wins over one that is not valid": {
			namespace: map[string]string{"site.pillion.dev/depth": "deep"}, pod: map[string]string{"site.pillion.dev/depth": "7"}, depth: "7",
		},
		"an object of the Pod's stands in for what the namespace says inside it": {
			namespace: map[string]string{"site.pillion.dev/onSync.successStatus": "any", "site.pillion.dev/ref": "prod"},
			pod:       map[string]string{"site.pillion.dev/onSync": `{"url": "http://localhost/"}`}, ref: "prod",
		},
		"one of a profile that the Pod does not get says nothing": {
			namespace: map[string]string{"other.pillion.dev/ref": "prod"}, ref: "HEAD",
		},
		"one that is not valid is told with its namespace": {
			namespace: map[string]string{"site.pillion.dev/depth": "deep"},
			denial:    `annotation site.pillion.dev/depth of namespace web: "deep" is not an integer; write a number, for example 10`,
		},
		"one that is not valid beside the profile is told with its namespace": {
			namespace: map[string]string{"site.pillion.dev/ref": "--upload-pack=x"},
			denial:    "profile site with annotation site.pillion.dev/ref of namespace web is not valid: gitSync.ref",
		},
		"what the profile does not list is not for the namespace either": {
			namespace: map[string]string{"site.pillion.dev/repo": "https://evil.example.com"},
			denial:    "annotation site.pillion.dev/repo of namespace web: profile site does not let Pods change repo",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			namespace.Annotations = test.namespace
			pod := podOf(t, asking("site"), appOnly)
			for key, value := range test.pod {
				pod.Annotations[key] = value
			}
			decision := profiles.Decide(snapshotOf(t, cluster("site", openGitSync)), namespace, pod)
			if test.denial != "" {
				if !strings.Contains(decision.Denial(), test.denial) {
					t.Errorf("want %q in %q", test.denial, decision.Denial())
				}
				return
			}
			if !decision.Allowed || len(decision.Warnings) > 0 {
				t.Fatal(decision.Denial(), decision.Warnings)
			}
			container := &decision.Pod().Spec.InitContainers[0]
			for flag, want := range map[string]string{"--ref=": test.ref, "--depth=": test.depth} {
				if got := argument(flag)(container); want != "" && got != want {
					t.Errorf("want %s%s, got %v", flag, want, got)
				}
			}
			again := profiles.Decide(snapshotOf(t, cluster("site", openGitSync)), namespace, decision.Pod())
			if len(again.Patch) > 0 || len(again.Warnings) > 0 {
				t.Errorf("the woven Pod is not left alone: %v, %v", again.Patch, again.Warnings)
			}
		})
	}
}

func TestANamespaceOverridesParametersOfACustomProfile(t *testing.T) {
	namespace := web()
	namespace.Annotations = map[string]string{"proxy.pillion.dev/upstream": "prod.example.com"}
	decision := profiles.Decide(snapshotOf(t, cluster("proxy", `custom: {parameters: [{name: upstream, default: dev.example.com}],
    template: {app: [{env: [{name: UPSTREAM, value: "${params.upstream}"}]}]}}, overridable: [upstream]`)), namespace, podOf(t, asking("proxy"), appOnly))
	if !decision.Allowed {
		t.Fatal(decision.Denial())
	}
	if env := decision.Pod().Spec.Containers[0].Env; len(env) != 1 || env[0].Value != "prod.example.com" {
		t.Errorf("got %v", env)
	}
}

func TestParametersThatSayWhatTheProfileSaysMakeNoOtherRevision(t *testing.T) {
	const port = `custom: {parameters: [{name: port, type: integer, default: 80}, {name: name}], template: {
      app: [{env: [{name: PORT, value: "${string(params.port)}"}]}]}}, overridable: [port, name]`
	own := snapshotRevision(t, "site", port)
	for value, isOwn := range map[string]bool{`port: "80"`: true, `port: "81"`: false, `name: ""`: false} {
		pod := podOf(t, `{annotations: {pillion.dev/inject: site, site.pillion.dev/`+value+`}}`, appOnly)
		decision := profiles.Decide(snapshotOf(t, cluster("site", port)), web(), pod)
		if got := decision.Outcomes[0].Revision; !decision.Allowed || (got == own) != isOwn {
			t.Errorf("%s: revision %s, that of the profile is %s; %s", value, got, own, decision.Denial())
		}
	}
}

// What a namespace says is compared with the final Pod like what the profile says.
func TestANamespaceOverridesWhatIsEnforced(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", openGitSync+`, match: {enforce: true}`))
	namespace := web()
	namespace.Annotations = map[string]string{"site.pillion.dev/ref": "prod"}
	decision := profiles.Decide(snapshot, namespace, podOf(t, "{}", appOnly))
	if !decision.Allowed || !slices.Contains(decision.Pod().Spec.InitContainers[0].Args, "--ref=prod") {
		t.Fatalf("%s\n%s", decision.Denial(), encode(t, decision.Pod()))
	}
	for ref, allowed := range map[string]bool{"prod": true, "test": false} {
		namespace.Annotations = map[string]string{"site.pillion.dev/ref": ref}
		final := profiles.Request{Namespace: namespace, Pod: decision.Pod(), Final: true}.Decide(snapshot)
		if final.Allowed != allowed {
			t.Errorf("%s: allowed is %t: %s", ref, final.Allowed, final.Denial())
		}
	}
}

func TestAPodWhoseNamespaceSaysSomethingElseSinceIsWarnedOf(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", openGitSync))
	namespace := web()
	decision := profiles.Decide(snapshot, namespace, podOf(t, asking("site"), appOnly))
	namespace.Annotations = map[string]string{"site.pillion.dev/ref": "prod"}
	again := profiles.Decide(snapshot, namespace, decision.Pod())
	if !again.Allowed || len(again.Patch) > 0 || len(again.Warnings) != 1 || !strings.Contains(again.Warnings[0], "has its containers at revision") {
		t.Errorf("allowed %t, patch %v, warnings %q: %s", again.Allowed, again.Patch, again.Warnings, again.Denial())
	}
}

func TestARevisionIsTheSameHoweverAValueIsWritten(t *testing.T) {
	tests := map[string]struct{ one, another string }{
		"a duration":           {"gitSync: {repo: https://git.example.com/a, mountPath: /srv, period: 120s}", "gitSync: {repo: https://git.example.com/a, mountPath: /srv, period: 2m}"},
		"a quantity":           {"cacheAmbassador: {protocol: Memcached, local: {memory: 1024Mi}}", "cacheAmbassador: {protocol: Memcached, local: {memory: 1Gi}}"},
		"a default":            {"gitSync: {repo: https://git.example.com/a, mountPath: /srv, syncTimeout: 2m}", "gitSync: {repo: https://git.example.com/a, mountPath: /srv}"},
		"the order of fields":  {"gitSync: {mountPath: /srv, repo: https://git.example.com/a}", "gitSync: {repo: https://git.example.com/a, mountPath: /srv}"},
		"a template of custom": {"custom: {template: {labels: {b: c, a: b}}}", "custom: {template: {labels: {a: b, b: c}}}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			one := snapshotRevision(t, "site", test.one)
			if another := snapshotRevision(t, "site", test.another); one != another {
				t.Errorf("%s and %s", one, another)
			}
			// The API server has what typed clients made of it.
			stored := &v1alpha1.ClusterPatternProfile{}
			if err := yaml.Unmarshal([]byte("metadata: {name: site}\nspec: {"+test.one+"}\n"), stored); err != nil {
				t.Fatal(err)
			}
			compiler, err := profiles.NewCompiler()
			if err != nil {
				t.Fatal(err)
			}
			if compiled := compiler.Cluster(stored); compiled.Revision != one {
				t.Errorf("%s in a file, and %s in the API server: %v", one, compiled.Revision, compiled.Problems)
			}
		})
	}
}
