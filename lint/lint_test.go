package lint_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/lint"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
)

var compiler = sync.OnceValues(profiles.NewCompiler)

// options are those of an installation that leaves kube-system alone, with a profile "shared" beside the files.
func options(t testing.TB) lint.Options {
	t.Helper()
	compiler, err := compiler()
	if err != nil {
		t.Fatal(err)
	}
	beside := manifest.Parse("beside.yaml", []byte(strings.ReplaceAll(site, "site", "shared")))
	return lint.Options{
		Compiler: compiler, Decisions: profiles.Options{ExcludedNamespaces: []string{"kube-system"}}, Namespace: "default",
		Beside: []manifest.File{beside},
	}
}

const (
	site = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: site}
spec:
  gitSync: {repo: "https://git.example.com/site.git", ref: main, mountPath: /srv/site}
  overridable: [ref, period]
`
	// pod has room for annotations.
	pod = `apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations: {%s}
spec:
  containers:
  - name: app
    volumeMounts: [{name: a, mountPath: /data}, {name: a, mountPath: /srv}]
  volumes: [{name: a, emptyDir: {}}]
`
	deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  template:
    spec: {containers: [{name: app}]}
`
)

func TestFindings(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"nothing is wrong": {
			text: site + "---\n" + strings.Replace(fmt.Sprintf(pod, "pillion.dev/inject: 'site, shared'"), "mountPath: /srv}", "mountPath: /x}", 1) +
				"---\napiVersion: v1\nkind: Service\n",
		},
		"all that a profile does not allow, at its fields": {
			text: strings.Replace(strings.Replace(site, "ref: main", "reff: main, period: 1", 1), "name: site", "name: Site", 1),
			want: []string{
				`f.yaml:3:12: error: ClusterPatternProfile Site: Invalid value: a profile's name is a DNS label`,
				`f.yaml:5:55: error: ClusterPatternProfile Site: spec.gitSync.reff: Forbidden: there is no field of that name (InvalidSpec)`,
				`f.yaml:5:67: error: ClusterPatternProfile Site: spec.gitSync.period: Invalid value: "integer"`,
			},
		},
		"an expression of a match": {
			text: site + "  match:\n    podSelector: {}\n    conditions:\n    - name: x\n      expression: \"object.\"\n",
			want: []string{"f.yaml:11:7: error: ClusterPatternProfile site: spec.match.conditions[0].expression: "},
		},
		"what nobody has in after is a warning": {
			text: site + "  after:\n  - shared\n  - nobody\n",
			want: []string{"f.yaml:9:5: warning: ClusterPatternProfile site: spec.after[1] names nobody, which no profile here has: until there is one, " +
				"this profile is not ready (ProfileNotReady)"},
		},
		"a circle": {
			text: site + "  after: [b]\n---\n" + strings.ReplaceAll(site, "site", "b") + "  after: [site]\n",
			want: []string{
				`f.yaml:7:11: error: ClusterPatternProfile site: spec.after[0]: Invalid value: "b": leads back to the profile itself`,
				`f.yaml:15:11: error: ClusterPatternProfile b: spec.after[0]: Invalid value: "site": leads back to the profile itself`,
			},
		},
		"more calls for a Pod than there may be": {
			text: policies(11),
			want: []string{"f.yaml:107:3: error: ClusterPatternProfile p9: older profiles with failurePolicy Fail already have 10 different matches"},
		},
		"a profile in a namespace that is never touched": {
			text: strings.Replace(strings.Replace(site, "Cluster", "", 1), "{name: site}", "{name: site, namespace: kube-system}", 1),
			want: []string{"f.yaml:3:24: warning: PatternProfile kube-system/site: Pods of namespace kube-system are never touched"},
		},
		"objects of our group that there are not": {
			text: strings.Replace(site, "ClusterPatternProfile", "ClusterPatternProfil", 1) + "---\n" + strings.Replace(site, "v1alpha1", "v2", 1),
			want: []string{
				`f.yaml:2:1: error: there is no kind "ClusterPatternProfil" in pillion.dev; did you mean ClusterPatternProfile? (UnknownKind)`,
				`f.yaml:8:1: error: ClusterPatternProfile has no version "pillion.dev/v2"; write pillion.dev/v1alpha1 (UnknownKind)`,
			},
		},
		"a file of test cases, which is for another command": {
			text: "apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\ncases: []\n",
		},
		"objects that are there twice": {
			text: site + "---\n" + site + "---\n" + deployment + "---\n" + deployment + "---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n" +
				"spec: {containers: [{name: a}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\nspec: {containers: [{name: a}]}\n",
			want: []string{
				"f.yaml:10:12: error: ClusterPatternProfile site is in this file, on line 3, already; remove or rename one of them (DuplicateObject)",
				"f.yaml:24:12: warning: Deployment default/shop is in this file, on line 17, already; remove or rename one of them (DuplicateObject)",
			},
		},
		"a profile of the files replaces the one beside them": {
			text: strings.NewReplacer("site", "shared", "/srv/", "/x/").Replace(site) + "---\n" + fmt.Sprintf(pod, "pillion.dev/inject: shared"),
		},
		"what a Pod asks for and there is not": {
			text: site + "---\n" + fmt.Sprintf(pod, "a: b, pillion.dev/inject: 'sitee, UP'"),
			want: []string{
				`f.yaml:12:23: error: Pod p: annotation pillion.dev/inject names "UP", which is no profile's name`,
				"f.yaml:12:23: error: Pod p: profile sitee is not available in namespace default; did you mean site? (ProfileNotAvailable)",
			},
		},
		"overrides, at their annotations": {
			text: strings.ReplaceAll(site, "/srv/site", "/x") + "---\n" + fmt.Sprintf(pod,
				"pillion.dev/inject: site, site.pillion.dev/repo: x, site.pillion.dev/period: soon, absent.pillion.dev/ref: x"),
			want: []string{
				"f.yaml:12:43: error: Pod p: annotation site.pillion.dev/repo: profile site does not let Pods change repo; it allows ref, period. ",
				"f.yaml:12:100: warning: Pod p: annotation absent.pillion.dev/ref has no effect: profile absent is not applied to this Pod " +
					"(OverrideWithoutEffect)",
			},
		},
		"an override that is not valid": {
			text: strings.ReplaceAll(site, "/srv/site", "/x") + "---\n" + fmt.Sprintf(pod, "pillion.dev/inject: site, site.pillion.dev/period: soon"),
			want: []string{
				"f.yaml:12:43: error: Pod p: profile site with annotation site.pillion.dev/period is not valid: gitSync.period: ",
				"f.yaml:12:43: error: Pod p: profile site with annotation site.pillion.dev/period is not valid: gitSync.period: ",
			},
		},
		"a mount in a container that is taken": {
			text: site + "---\n" + fmt.Sprintf(pod, "pillion.dev/inject: site"),
			want: []string{"f.yaml:16:49: error: Pod p: profile site mounts /srv/site into container app, where "},
		},
		"what policy would leave out is a warning": {
			text: site + "  match: {podSelector: {}}\n---\n" + fmt.Sprintf(pod, ""),
			want: []string{"f.yaml:17:49: warning: Pod p: profile site would be left out: profile site mounts /srv/site into container app, where "},
		},
		"a request on the workload and not on its Pods": {
			text: strings.Replace(deployment, "shop}", "shop, annotations: {pillion.dev/inject: shared}}", 1),
			want: []string{"f.yaml:3:38: error: Deployment shop: its own metadata.annotations have pillion.dev/inject, which is read from Pods only; " +
				"move it to spec.template.metadata.annotations (Misplaced)"},
		},
		"a request by a label": {
			text: strings.Replace(deployment, "shop}", "shop, labels: {pillion.dev/inject: shared}}", 1),
			want: []string{"f.yaml:3:33: error: Deployment shop: its label pillion.dev/inject is not read: "},
		},
		"keys that nobody knows, nor others'": {
			text: fmt.Sprintf(pod, "pillion.dev/injct: x, pillion.dev/quite-another: x, .pillion.dev/x: v, pilion.dev/inject: x, site.pillon.dev/ref: v, "+
				"example.com/inject: x, pillion.dev/config.x: v, pillion.dev/injected.2: v"),
			want: []string{
				"f.yaml:5:17: error: nothing reads the annotation pillion.dev/injct; did you mean pillion.dev/inject? (UnknownKey)",
				"f.yaml:5:39: error: nothing reads the annotation pillion.dev/quite-another; those read here are pillion.dev/inject, ",
				`f.yaml:5:69: error: nothing reads the annotation ".pillion.dev/x"; write PROFILE.pillion.dev/FIELD (UnknownKey)`,
				"f.yaml:5:88: error: nothing reads the annotation pilion.dev/inject; did you mean pillion.dev/inject? (UnknownKey)",
				"f.yaml:5:110: error: nothing reads the annotation site.pillon.dev/ref; did you mean site.pillion.dev/ref? (UnknownKey)",
			},
		},
		"keys of a profile": {
			text: strings.Replace(site, "{name: site}", `{name: site, annotations: {pillion.dev/inject: x, pillion.dev/release: "true"}}`, 1),
			want: []string{"f.yaml:3:38: error: nothing reads the annotation pillion.dev/inject; those read here are pillion.dev/release (UnknownKey)"},
		},
		"a Namespace, whose Pods are not told again": {
			text: "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {pillion.dev/inject: shared.sharedd}\n" +
				"  annotations: {pillion.dev/inject: a, shared.pillion.dev/repo: x}\n---\n" + deployment,
			want: []string{
				"f.yaml:5:12: error: Namespace default: profile sharedd is not available in namespace default; did you mean shared? (ProfileNotAvailable)",
				"f.yaml:6:17: error: Namespace default: its annotation pillion.dev/inject is not read: a Namespace asks by a label",
				"f.yaml:6:40: error: Namespace default: annotation shared.pillion.dev/repo: profile shared does not let Pods change repo",
			},
		},
		"Pods of a Namespace that is not among the files are told at the workload": {
			text: "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system, labels: {pillion.dev/inject: shared, shared.pillion.dev/ref: x}}\n---\n" +
				strings.Replace(fmt.Sprintf(pod, "pillion.dev/inject: shared"), "name: p", "namespace: kube-system", 1),
			want: []string{
				"f.yaml:3:40: warning: Namespace kube-system: its label pillion.dev/inject adds nothing: ",
				"f.yaml:3:68: error: Namespace kube-system: its label shared.pillion.dev/ref is not read: profiles are changed by annotations",
				"f.yaml:9:17: warning: Pod: nothing is added: Pods of namespace kube-system are never touched (--excluded-namespaces) (NamespaceExcluded)",
			},
		},
		"every workload of a List": {
			text: "apiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: DaemonSet\n  metadata: {name: d}\n- apiVersion: v1\n  kind: List\n  items:\n" +
				"  - apiVersion: v1\n    kind: Pod\n    metadata: {name: p, annotations: {pillion.dev/inject: nope}}\n    spec: {containers: [{name: a}]}\n" +
				"- {apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {containers: 1}}\n- {spec: {}}\n",
			want: []string{
				"f.yaml:4:3: error: DaemonSet d has no spec.template.spec, which is where its containers stand (InvalidWorkload)",
				"f.yaml:12:39: error: Pod p: profile nope is not available in namespace default (ProfileNotAvailable)",
				"f.yaml:14:59: error: Pod q: spec.containers is a number to YAML, and has to be a list: write one (InvalidWorkload)",
				"f.yaml:15:3: error: this is no Kubernetes object: it has no apiVersion and no kind (InvalidManifest)",
			},
		},
		"JSON": {
			text: `{"apiVersion": "v1", "kind": "Pod",` + "\n" + ` "metadata": {"name": "p", "annotations": {"pillion.dev/inject": "nope"}}, "spec": {"containers": []}}`,
			want: []string{"f.yaml:2:44: error: Pod p: profile nope is not available in namespace default (ProfileNotAvailable)"},
		},
		"an annotation by an alias": {
			text: "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: &x\n    pillion.dev/inject: nope\n  annotations: *x\nspec: {containers: [{name: a}]}\n",
			want: []string{"f.yaml:5:5: error: Pod: profile nope is not available in namespace default (ProfileNotAvailable)"},
		},
		"documents that cannot be used do not hide the others": {
			text: "kind: A\nkind: B\nkind: C\n---\na: [\n---\n- x\n---\nkind: Deployment\nspec: {}\n---\n" + fmt.Sprintf(pod, "pillion.dev/inject: nope"),
			want: []string{
				`f.yaml:2:1: error: the key "kind" is on line 1 already; remove one of them (InvalidManifest)`,
				`f.yaml:3:1: error: the key "kind" is on line 1 already; remove one of them (InvalidManifest)`,
				"f.yaml:5: error: this is not YAML that Kubernetes reads: did not find expected node content (InvalidManifest)",
				"f.yaml:7:1: error: this is no Kubernetes object: write a mapping with apiVersion and kind (InvalidManifest)",
				"f.yaml:9:1: error: this is no Kubernetes object: it has no apiVersion (InvalidManifest)",
				"f.yaml:16:17: error: Pod p: profile nope is not available in namespace default (ProfileNotAvailable)",
			},
		},
		"a template of Helm": {
			text: "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n",
			want: []string{`f.yaml:4:9: error: this is a template of Helm, by its "{{", and not YAML yet; render it first: ` +
				"helm template CHART | pillion lint - (Unrendered)"},
		},
		"what YAML does not read as text": {
			text: "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {pillion.dev/inject: off}}\n---\n" +
				fmt.Sprintf(pod, "a: b, pillion.dev/inject: no") + "---\n" + strings.Replace(deployment, "name: app", "name: 1.20, image: a", 1) +
				"---\n" + strings.Replace(deployment, "name: app", "name: app, ports: 80", 1),
			want: []string{
				"f.yaml:3:30: error: Namespace a: its label pillion.dev/inject is no string to YAML; write its value in quotes (InvalidManifest)",
				`f.yaml:9:23: error: Pod p: metadata.annotations[pillion.dev/inject] is a boolean to YAML, and has to be a string: write it in quotes, if ` +
					`that is what is meant, as in "false" (InvalidWorkload)`,
				`f.yaml:21:26: error: Deployment shop: spec.containers[0].name is a number to YAML, and has to be a string: write it in quotes, if ` +
					`that is what is meant, as in "1.2" (InvalidWorkload)`,
				"f.yaml:25:12: warning: Deployment default/shop is in this file",
				"f.yaml:28:37: error: Deployment shop: spec.containers[0].ports is a number to YAML, and has to be a list: write one (InvalidWorkload)",
			},
		},
		"what a Namespace changes of a profile is told once, where it stands, also where only its Pods ask": {
			text: "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  annotations:\n    shared.pillion.dev/period: 1m\n" +
				"    shared.pillion.dev/repo: x\n    other.pillion.dev/repo: x\n---\n" + fmt.Sprintf(pod, "pillion.dev/inject: shared") +
				"---\n" + strings.Replace(fmt.Sprintf(pod, "pillion.dev/inject: shared"), "name: p", "name: q", 1),
			want: []string{
				"f.yaml:7:5: error: Namespace default: annotation shared.pillion.dev/repo: profile shared does not let Pods change repo",
			},
		},
		"an empty file": {
			text: "# nothing\n",
			want: []string{"f.yaml:1: error: the file holds no object (InvalidManifest)"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			result := lint.Files([]manifest.File{manifest.Parse("f.yaml", []byte(test.text))}, nil, options(t))
			var got []string
			for i, finding := range result.Findings {
				got = append(got, shown(finding))
				if i < len(test.want) && strings.HasPrefix(got[i], test.want[i]) {
					got[i] = test.want[i] // the rest is said elsewhere
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func shown(f report.Finding) string {
	where := fmt.Sprintf("%s:%d", f.File, f.Line)
	if f.Column > 0 {
		where += fmt.Sprintf(":%d", f.Column)
	}
	return fmt.Sprintf("%s: %s: %s (%s)", where, f.Severity, f.Message, f.Reason)
}

// policies returns profiles each of which wants a call of its own.
func policies(n int) string {
	text := ""
	for i := range n {
		text += strings.ReplaceAll(site, "site", fmt.Sprintf("p%d", i)) + fmt.Sprintf(
			"  failurePolicy: Fail\n  match:\n    namespaceSelector: {matchLabels: {x: x%d}}\n    podSelector: {}\n---\n", i)
	}
	return text
}

func TestDocumentsOfOtherToolsAreIgnoredInDirectories(t *testing.T) {
	tests := map[string]struct {
		name, text   string
		found, named int // how many findings there are if the file was found in a directory, and if it was named
	}{
		"values of a chart":                {"values.yaml", "image: x\n", 0, 1},
		"the description of a chart":       {"Chart.yaml", "apiVersion: v2\nname: x\n", 0, 1},
		"a kustomization":                  {"kustomization.yaml", "resources: [a.yaml]\n", 0, 1},
		"settings of a tool":               {"tool.json", `{"compilerOptions": {}}`, 0, 1},
		"a list":                           {"tasks.yaml", "- hosts: all\n", 0, 1},
		"an object that lacks its kind":    {"a.yaml", "apiVersion: v1\nmetadata: {name: x}\n", 1, 1},
		"an object that lacks its version": {"a.yaml", "kind: Pod\nspec: {}\n", 1, 1},
		"what is not YAML":                 {"a.yaml", "a: [\n", 1, 1},
		"an object of another kind":        {"a.yaml", "apiVersion: example.com/v1\nkind: Thing\n", 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := manifest.Parse(test.name, []byte(test.text))
			for _, found := range []bool{true, false} {
				file.Found = found
				want := test.named
				if found {
					want = test.found
				}
				result := lint.Files([]manifest.File{file}, nil, options(t))
				if len(result.Findings) != want {
					t.Errorf("found in a directory: %v; findings %v, want %d", found, result.Findings, want)
				}
				if ignored := test.named - test.found; found && result.Ignored != ignored {
					t.Errorf("%d documents ignored, want %d", result.Ignored, ignored)
				}
			}
		})
	}
}

func TestPatchesOfAKustomizationAreNoObjects(t *testing.T) {
	var files []manifest.File
	for name, text := range map[string]string{
		"base/kustomization.yaml":    "patches: [{path: ../patches/replicas.yaml}, {patch: inline}, 1]\npatchesStrategicMerge: [merge.yaml]\n",
		"patches/replicas.yaml":      "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 2}\n",
		"base/merge.yaml":            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\n",
		"patches/none-says-so.yaml":  "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: c}\n",
		"elsewhere/merge.yaml":       "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
		"broken/kustomization.yaml":  "patches: [",
		"another/kustomization.yaml": "patches: {}\n",
	} {
		file := manifest.Parse(name, []byte(text))
		file.Found = true
		files = append(files, file)
	}
	var got []string
	for _, finding := range lint.Files(files, nil, options(t)).Findings {
		got = append(got, finding.File)
	}
	want := []string{"broken/kustomization.yaml", "elsewhere/merge.yaml", "patches/none-says-so.yaml"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files with findings (-want +got):\n%s", diff)
	}
}

// The order of files, and what runs beside what, is not to be seen in the findings.
func TestTheSameFilesGiveTheSameFindings(t *testing.T) {
	read := func() []manifest.File {
		var files []manifest.File
		for i := range 40 {
			text := fmt.Sprintf(pod, fmt.Sprintf("pillion.dev/inject: 'site, no%d', site.pillion.dev/ref: x, nope.pillion.dev/ref: v", i))
			files = append(files, manifest.Parse(fmt.Sprintf("pod-%d.yaml", i), []byte(text)),
				manifest.Parse(fmt.Sprintf("profile-%d.yaml", i), []byte(strings.ReplaceAll(site, "site", fmt.Sprintf("p%d", i))+"  after: [x, y]\n")))
		}
		return files
	}
	first := lint.Files(read(), nil, options(t))
	if len(first.Findings) < 100 {
		t.Fatalf("only %d findings", len(first.Findings))
	}
	turned := read()
	slices.Reverse(turned)
	second := lint.Files(turned, nil, options(t))
	if diff := cmp.Diff(first.Findings, second.Findings); diff != "" {
		t.Errorf("findings (-first +second):\n%s", diff)
	}
}

// A finding stands in logs of CI, which more people read than the files.
func TestFindingsHoldNoPassword(t *testing.T) {
	profile := func(name, repo, more, overridable string) string {
		return fmt.Sprintf("apiVersion: pillion.dev/v1alpha1\nkind: ClusterPatternProfile\nmetadata: {name: %s}\nspec:\n"+
			"  gitSync: {repo: %q, mountPath: /srv/site%s}\n  overridable: [%s]\n---\n", name, repo, more, overridable)
	}
	text := profile("a", "https://u:hunter2@host/x", "", "ref") + profile("b", "https://u:hunter2 @host /x", "", "ref") +
		profile("c", "https://host/x", `, onSync: {url: "http://u:hunter2@localhost:9/x"}`, "ref") + profile("d", "https://host/x", "", "repo, onSync") +
		fmt.Sprintf(pod, `pillion.dev/inject: d, d.pillion.dev/repo: "https://u:hunter2@host:99999/x"`) + "---\n" +
		fmt.Sprintf(pod, `pillion.dev/inject: d, d.pillion.dev/onSync: '{"url": "http://u:hunter2@host/"'`)
	found := lint.Files([]manifest.File{manifest.Parse("f.yaml", []byte(text))}, nil, options(t)).Findings
	if len(found) < 6 { // and one of the Pod that is there twice
		t.Errorf("only %v", found)
	}
	for _, finding := range found {
		if strings.Contains(finding.Message, "hunter2") {
			t.Errorf("a password is in %q", finding.Message)
		}
	}
}
