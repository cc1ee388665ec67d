package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// shelfProfiles are profiles of all kinds, for namespaces web and db.
const shelfProfiles = `apiVersion: v1
kind: Namespace
metadata:
  name: web
  labels: {team: web}
  annotations: {agent.pillion.dev/level: debug}
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: site}
spec:
  gitSync: {repo: "https://git.example.com/site.git", ref: main, mountPath: /srv/site}
  overridable: [ref, period, depth, sparseCheckout, resources.limits]
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: agent}
spec:
  custom:
    parameters:
    - {name: level, description: How much the agent tells., enum: [info, debug], default: info}
    - {name: team, description: Who is told., required: true, minLength: 2, pattern: "^[a-z]+$"}
    - {name: port, type: integer, default: 2020, minimum: 1024, maximum: 65535}
    - {name: fixed, default: x}
    template:
      initContainers:
      - {image: "registry.example.com/agent:1", restartPolicy: Always, args: ["--level=${params.level}", "--team=${params.team}"]}
  overridable: [level, team, port]
  match:
    podSelector: {matchLabels: {tier: front}}
    conditions: [{name: not-batch, expression: "!('batch' in object.metadata.?labels.orValue({}))"}]
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: database-only}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
  allowedNamespaces: {matchLabels: {team: db}}
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: trusted-ca}
spec:
  templateProcessor: {templates: {configMap: {name: company-ca}}, mountPath: /etc/company-ca}
  allowedNamespaces: {matchLabels: {team: db}}
  match: {enforce: true, namespaceSelector: {matchLabels: {team: web}}}
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: cache, namespace: web}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
  overridable: [local.memory]
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: theirs, namespace: db}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
`

func TestProfilesOffline(t *testing.T) {
	tests := map[string][]string{
		"list.txt":          {},
		"list.json":         {"-o", "json"},
		"list.yaml":         {"-o", "yaml"},
		"built-in.txt":      {"site"},
		"built-in.json":     {"site", "-o", "json"},
		"custom.txt":        {"agent"},
		"custom.yaml":       {"agent", "-o", "yaml"},
		"only-by-match.txt": {"trusted-ca"},
		"namespaced.txt":    {"cache"},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"profiles", "--profiles", "all.yaml", "--namespace", "web"}, args...)
			stdout, stderr, err := run(t, map[string]string{"all.yaml": shelfProfiles}, "", args...)
			if err != nil || stderr != "" {
				t.Fatal(err, stderr)
			}
			golden(t, "testdata/profiles/"+name, stdout)
			for line := range strings.Lines(stdout) {
				if len([]rune(line)) > textWidth+1 && strings.HasSuffix(name, ".txt") && !strings.Contains(line, "pillion.dev/") &&
					!strings.HasPrefix(name, "list") {
					t.Errorf("a line of %d characters: %s", len(line), line)
				}
			}
			for _, hidden := range []string{"database-only", "theirs"} {
				if strings.Contains(stdout, hidden) {
					t.Errorf("%s is told of, which namespace web may not use", hidden)
				}
			}
		})
	}
}

func TestProfilesSayWhatIsNotThere(t *testing.T) {
	tests := map[string]struct {
		args        []string
		stdout, err string
	}{
		"a name that is misspelled": {
			args: []string{"sit"}, err: "profile sit is not available in namespace web; did you mean site? (ProfileNotAvailable)",
		},
		"one that there is not": {
			args: []string{"nothing-like-it"},
			err: "profile nothing-like-it is not available in namespace web; there are agent, cache, site, trusted-ca " +
				"(ProfileNotAvailable)",
		},
		"one that the namespace may not use, in the same words": {
			args: []string{"database-only"},
			err: "profile database-only is not available in namespace web; there are agent, cache, site, trusted-ca " +
				"(ProfileNotAvailable)",
		},
		"a namespace that is never touched": {
			args: []string{"-n", "kube-system"}, stdout: "Pillion never touches Pods in namespace kube-system: it is excluded.\n",
		},
		"a profile there": {
			args: []string{"-n", "kube-system", "site"}, err: "Pillion never touches Pods in namespace kube-system: it is excluded.",
		},
		"an output that there is not": {
			args: []string{"-o", "xml"}, err: `--output "xml" is unknown; write one of text, json, yaml`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"profiles", "-p", "all.yaml", "-n", "web"}, test.args...)
			stdout, _, err := run(t, map[string]string{"all.yaml": shelfProfiles}, "", args...)
			if message(err) != test.err || stdout != test.stdout {
				t.Errorf("got %q, %v", stdout, err)
			}
		})
	}
}

func TestProfilesTellThatTheFilesLackTheNamespace(t *testing.T) {
	const warning = "warning: the files have no Namespace docs, which therefore has no labels here: what only namespaces with certain labels " +
		"may use or get is not shown\n"
	files := map[string]string{"all.yaml": shelfProfiles, "free.yaml": siteProfile}
	for _, test := range []struct{ path, namespace, want string }{
		{"all.yaml", "docs", warning}, {"all.yaml", "web", ""}, {"all.yaml", "kube-system", ""}, {"free.yaml", "docs", ""},
	} {
		_, stderr, err := run(t, files, "", "profiles", "-p", test.path, "-n", test.namespace)
		if err != nil || stderr != test.want {
			t.Errorf("%s, namespace %s: %q, %v", test.path, test.namespace, stderr, err)
		}
	}
}

func TestWhatOthersDescribeControlsNoTerminal(t *testing.T) {
	files := map[string]string{"all.yaml": strings.Replace(shelfProfiles, "How much the agent tells.", `"How \e[2J much\u202e"`, 1)}
	stdout, _, err := run(t, files, "", "profiles", "agent", "-p", "all.yaml", "-n", "web")
	if err != nil || !strings.Contains(stdout, "How \ufffd[2J much\ufffd") {
		t.Errorf("%q, %v", stdout, err)
	}
}

// uncommented returns the annotations of a block to paste: all of them, or those without a # and one of the others.
func uncommented(t *testing.T, block string, only int) map[string]string {
	t.Helper()
	var lines []string
	for i, line := range slices.Collect(strings.Lines(block)) {
		if rest, ok := strings.CutPrefix(line, "# "); ok && (only < 0 || only == i) {
			line = rest
		}
		lines = append(lines, line)
	}
	annotations := map[string]string{}
	if err := yaml.UnmarshalStrict([]byte(strings.Join(lines, "")), &annotations); err != nil {
		t.Fatalf("%v\n%s", err, block)
	}
	return annotations
}

// Every line that is offered for pasting has to be valid as it is.
func TestWhatIsOfferedForPastingIsValid(t *testing.T) {
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal("there are no examples", err)
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{"the profiles of this test": shelfProfiles}
	for _, example := range examples {
		text, err := os.ReadFile(example)
		if err != nil {
			t.Fatal(err)
		}
		sources[filepath.Base(example)] = string(text)
	}
	lines := 0
	for name, text := range sources {
		files, errs := manifest.ReadFiles([]string{"-"}, strings.NewReader(text))
		for _, document := range files[0].Documents {
			letPodsChangeAll(document.Object)
		}
		loaded, moreErrs := manifest.ProfilesIn(compiler, files, "web")
		if errs := append(errs, moreErrs...); len(errs) > 0 {
			t.Fatal(name, errs)
		}
		namespace := manifest.NamespacesIn(files).Get("web")
		snapshot := profiles.NewSnapshot(profiles.Options{}, loaded)
		for _, profile := range snapshot.Available(namespace) {
			if !profile.MayAsk {
				continue
			}
			block := annotationsFor(profile.Name, profile.Parameters(namespace))
			for i := -1; i < strings.Count(block, "\n"); i++ {
				annotations := uncommented(t, block, i)
				if i >= 0 && !strings.HasPrefix(strings.Split(block, "\n")[i], "#") {
					continue
				}
				lines++
				pod := &corev1.Pod{}
				encoded, err := json.Marshal(map[string]any{
					"metadata": map[string]any{"annotations": annotations},
					"spec":     map[string]any{"containers": []any{map[string]any{"name": "app"}}},
				})
				if err != nil || json.Unmarshal(encoded, pod) != nil {
					t.Fatal(err)
				}
				for _, outcome := range profiles.Decide(snapshot, namespace, pod).Outcomes {
					switch outcome.Reason {
					case profiles.ReasonInvalidOverride, profiles.ReasonFieldNotOverridable, profiles.ReasonInvalidRequest,
						profiles.ReasonProfileNotAvailable, injectors.ReasonParameterRequired:
						if outcome.Profile == profile.Name {
							t.Errorf("%s: %s\n%v", name, outcome.Message, annotations)
						}
					}
				}
			}
		}
	}
	if lines < 150 {
		t.Errorf("only %d blocks were tried", lines)
	}
}

// letPodsChangeAll lists every field of a profile's pattern, or every parameter of a custom one, in overridable.
func letPodsChangeAll(object map[string]any) {
	spec, ok := object["spec"].(map[string]any)
	if !ok || !strings.HasSuffix(fmt.Sprint(object["kind"]), "PatternProfile") {
		return
	}
	var names []any
	if custom, ok := spec["custom"].(map[string]any); ok {
		parameters, _ := custom["parameters"].([]any)
		for _, parameter := range parameters {
			names = append(names, parameter.(map[string]any)["name"])
		}
	}
	for _, field := range []string{"gitSync", "prometheusAdapter", "cacheAmbassador", "templateProcessor"} {
		if pattern, ok := spec[field].(map[string]any); ok {
			for name := range pattern {
				names = append(names, name)
			}
			for _, name := range []string{"image", "resources", "env"} {
				if _, there := pattern[name]; !there {
					names = append(names, name)
				}
			}
		}
	}
	spec["overridable"] = names
}

func TestProfilesOfACluster(t *testing.T) {
	server := fixture.APIServer(t, apiserver.Options{})
	const db = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: db}}\n"
	objects, err := apiserver.Read(strings.NewReader(shelfProfiles + db))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { // Namespaces before PatternProfiles
		return strings.Compare(a.GetKind(), b.GetKind())
	})
	for _, o := range objects {
		if err := server.Apply(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	setReady(t, server.Client, "site", metav1.ConditionTrue, "Ready", "Pods get the profile.")
	setReady(t, server.Client, "agent", metav1.ConditionFalse, "ServingLastGood", "Pods get the spec of generation 1.")

	dir := t.TempDir()
	kubeconfigOf := func(name string, config *rest.Config) string {
		path := filepath.Join(dir, name)
		if err := apiserver.WriteKubeconfig(config, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	admin := kubeconfigOf("admin", server.Config)
	tenant := kubeconfigOf("tenant", tenantOf(t, server))

	stdout, stderr, err := run(t, nil, "", "profiles", "--kubeconfig", admin, "-n", "web")
	if err != nil || stderr != "" {
		t.Fatal(err, stderr)
	}
	golden(t, "testdata/profiles/cluster.txt", stdout)

	stdout, stderr, err = run(t, nil, "", "profiles", "agent", "--kubeconfig", admin, "-n", "web")
	const broken = "Ready:    False (ServingLastGood): Pods get the spec of generation 1.\n"
	if err != nil || stderr != "" || !strings.Contains(stdout, broken) {
		t.Error(stdout, stderr, err)
	}

	stdout, stderr, err = run(t, nil, "", "profiles", "--kubeconfig", tenant, "-n", "web")
	if err != nil || !strings.Contains(stdout, "cache") || strings.Contains(stdout, "site") {
		t.Error(stdout, err)
	}
	for _, want := range []string{
		"warning: you may not read the ClusterPatternProfiles; they are not shown: ",
		"warning: you may not read namespace web; what only", "forbidden",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not told: %s", want, stderr)
		}
	}

	for _, crd := range []string{"clusterpatternprofiles.pillion.dev", "patternprofiles.pillion.dev"} {
		definition := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: crd}}
		definition.APIVersion, definition.Kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
		if err := server.Client.Delete(t.Context(), definition); err != nil {
			t.Fatal(err)
		}
	}
	var last error
	waiting, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = apiserver.Await(waiting, func(context.Context) (bool, error) {
		_, _, last = run(t, nil, "", "profiles", "--kubeconfig", admin, "-n", "web")
		return errors.Is(last, errNoPillion), nil
	})
	if err != nil {
		t.Errorf("that Pillion is not installed is not told: %v, %v", err, last)
	}
}

// tenantOf returns the configuration of somebody who may read the PatternProfiles of namespace web, and nothing else.
func tenantOf(t *testing.T, server *apiserver.Server) *rest.Config {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "tenant", Namespace: "web"}
	for _, o := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.Group}, Resources: []string{"patternprofiles"}, Verbs: []string{"get", "list"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tenant"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "tenant", Namespace: "web"}},
		},
	} {
		if err := server.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	config, err := server.ServiceAccountConfig(t.Context(), "web", "tenant")
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := client.New(config, client.Options{Scheme: server.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) { // the authorizer sees the binding a moment later
		return tenant.List(ctx, &v1alpha1.PatternProfileList{}, client.InNamespace("web")) == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// setReady writes the condition Ready of a ClusterPatternProfile, as the controller does.
func setReady(t *testing.T, c client.Client, name string, status metav1.ConditionStatus, reason, text string) {
	t.Helper()
	profile := &v1alpha1.ClusterPatternProfile{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: name}, profile); err != nil {
		t.Fatal(err)
	}
	profile.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: text, LastTransitionTime: metav1.Unix(0, 0),
	}}
	if err := c.Status().Update(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
}

func TestProfilesWithoutAClusterSayHowToGoOn(t *testing.T) {
	for _, key := range []string{"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_MASTER"} {
		t.Setenv(key, "")
	}
	t.Setenv("HOME", t.TempDir())
	_, _, err := run(t, nil, "", "profiles", "--kubeconfig", "missing")
	if err == nil || !strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), "--profiles") {
		t.Error(err)
	}
}
