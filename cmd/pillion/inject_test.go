package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

const siteProfile = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: site}
spec:
  gitSync: {repo: "https://git.example.com/site.git", ref: main, mountPath: /srv/site}
  overridable: [ref]
`

const cacheProfile = `apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: cache}
spec:
  cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}
`

const toolProfile = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: tool}
spec:
  custom:
    template:
      containers:
      - image: registry.example.com/tool
        securityContext: {allowPrivilegeEscalation: true}
      imagePullSecrets: [{name: registry}]
`

// escalation is the refusal of toolProfile by a level and version of Pod Security.
func escalation(level string) string {
	return fmt.Sprintf("Pod p: Pillion refuses this Pod: what profile tool adds violates Pod Security %q, which namespace default "+
		`enforces: allowPrivilegeEscalation != false (container "pillion-tool" must set `+
		"securityContext.allowPrivilegeEscalation=false) (PodSecurity)\n", level)
}

// run runs the command line in a directory of files. Messages name the files by their paths in it.
func run(t *testing.T, files map[string]string, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out, errs bytes.Buffer
	command := rootCommand()
	command.SetIn(strings.NewReader(stdin))
	command.SetOut(&out)
	command.SetErr(&errs)
	command.SetArgs(args)
	err = command.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestInject(t *testing.T) {
	const asking = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations: {pillion.dev/inject: %s}\nspec:\n" +
		"  containers:\n  - name: app\n"
	const service = "# a comment\napiVersion: v1\nkind:   Service\n"
	site, unknown := fmt.Sprintf(asking, "site"), fmt.Sprintf(asking, "sit")
	denial := "Pod p: Pillion refuses this Pod: profile sit is not available in namespace " +
		"default; did you mean site? (ProfileNotAvailable)\n"
	tests := map[string]struct {
		files      map[string]string
		stdin      string
		args       []string
		wantOut    string   // all of it
		wantLines  []string // each among the lines of the output, without indentation
		notInOut   string
		wantStderr string
		wantErr    string
	}{
		"documents of other kinds pass through as they are": {
			files:   map[string]string{"a.yaml": service + "---\n\n# end"},
			args:    []string{"-f", "a.yaml"},
			wantOut: service + "---\n\n# end",
		},
		"a Pod that asks for nothing passes through as it is": {
			stdin:   "apiVersion: v1\r\nkind: Pod\r\nspec: {containers: [{name:   app}]}\r\n",
			args:    []string{"-f", "-"},
			wantOut: "apiVersion: v1\r\nkind: Pod\r\nspec: {containers: [{name:   app}]}\r\n",
		},
		"a Pod from stdin that asks": {
			stdin:     site,
			args:      []string{"-f", "-"},
			wantLines: []string{"- name: pillion-site", "- --ref=main", "mountPath: /srv/site", "- name: app"},
		},
		"an override": {
			stdin:     strings.Replace(site, "site}", "site, site.pillion.dev/ref: v2}", 1),
			args:      []string{"-f", "-"},
			wantLines: []string{"- --ref=v2"},
		},
		"JSON gives JSON": {
			stdin: `{"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"pillion.dev/inject": "site"}}, ` +
				`"spec": {"containers": [{"name": "app"}]}}` + "\n",
			args:      []string{"-f", "-"},
			wantLines: nil,
			notInOut:  "- name",
		},
		"files are kept apart": {
			files:   map[string]string{"a/1.yaml": service, "a/2.yml": "kind: A", "b.json": `{"kind":"B"}`},
			args:    []string{"-f", "a", "-f", "b.json"},
			wantOut: service + "---\nkind: A\n---\n{\"kind\":\"B\"}",
		},
		"the label of a Namespace among the manifests asks": {
			files: map[string]string{
				"ns.yaml":  "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {pillion.dev/inject: site}}\n",
				"pod.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: web}\nspec: {containers: [{name: app}]}\n",
			},
			args:      []string{"-f", "pod.yaml", "-f", "ns.yaml"},
			wantLines: []string{"kind: Namespace"},
			notInOut:  "spec: {containers: [{name: app}]}",
		},
		"the label of a Namespace among the profiles asks, for Pods that name no namespace": {
			files: map[string]string{
				"profiles/ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {pillion.dev/inject: cache}}\n",
				"pod.yaml":         "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: app\n",
			},
			args:      []string{"-f", "pod.yaml", "-n", "web"},
			wantLines: []string{"- name: pillion-cache"},
		},
		"what is refused is left out, and the rest is not": {
			stdin:      service + "---\n" + unknown + "---\n" + site,
			args:       []string{"-f", "-"},
			wantLines:  []string{"kind:   Service", "- name: pillion-site"},
			notInOut:   "inject: sit}",
			wantStderr: "error: stdin:5:1: " + denial,
			wantErr:    "what the error above is about was left out",
		},
		"everything that is wrong is told": {
			files: map[string]string{
				"a.yaml": unknown + "---\nkind: A\nkind: B\n---\nhello\n",
				"b.yaml": "",
				"c.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
			},
			args: []string{"-f", "a.yaml", "-f", "b.yaml", "-f", "c.yaml", "-f", "missing.yaml"},
			wantStderr: "error: missing.yaml: no such file or directory\n" +
				"error: a.yaml:1:1: " + denial +
				"error: a.yaml:11:1: the key \"kind\" is on line 10 already; remove one of them\n" +
				"error: a.yaml:13:1: this is no Kubernetes object: write a mapping with apiVersion and kind\n" +
				"error: b.yaml:1: the file holds no object\n" +
				"error: c.yaml:1:1: Deployment d has no spec.template.spec, which is where its containers stand\n",
			wantErr: "what the 6 errors above are about was left out",
		},
		"an annotation on the workload instead of its Pod template": {
			stdin: "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, annotations: {pillion.dev/inject: " +
				"site, site.pillion.dev/ref: x}}\n" +
				"spec:\n  template: {spec: {containers: [{name: app}]}}\n",
			args:      []string{"-f", "-"},
			wantLines: []string{"template: {spec: {containers: [{name: app}]}}"},
			wantStderr: "warning: stdin:5:3: Job j: its own metadata.annotations have " +
				"pillion.dev/inject, site.pillion.dev/ref, " +
				"which is read from Pods only; move it to spec.template.metadata.annotations\n",
		},
		"an annotation on a CronJob's Job template": {
			stdin: "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\n" +
				"spec: {jobTemplate: {metadata: {annotations: {pillion.dev/inject: site}}, spec: {template: {spec: {containers: [{name: app}]}}}}}\n",
			args: []string{"-f", "-"},
			wantOut: "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\n" +
				"spec: {jobTemplate: {metadata: {annotations: {pillion.dev/inject: site}}, spec: {template: {spec: {containers: [{name: app}]}}}}}\n",
			wantStderr: "warning: stdin:4:82: CronJob c: the metadata.annotations of its Job template have pillion.dev/inject, " +
				"which is read from Pods only; move it to spec.jobTemplate.spec.template.metadata.annotations\n",
		},
		"a volume that the StatefulSet's controller adds": {
			files: map[string]string{"profiles/backup.yaml": "apiVersion: pillion.dev/v1alpha1\nkind: ClusterPatternProfile\n" +
				"metadata: {name: backup}\nspec:\n  custom:\n    template:\n      containers:\n" +
				"      - {image: registry.example.com/backup:1, volumeMounts: [{name: data, mountPath: /data}]}\n"},
			stdin: "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n" +
				"  volumeClaimTemplates: [{metadata: {name: data}}]\n" +
				"  template:\n    metadata:\n      annotations:\n        pillion.dev/inject: backup\n" +
				"    spec:\n      containers:\n      - name: app\n",
			args:      []string{"-f", "-"},
			wantLines: []string{"- name: pillion-backup", "mountPath: /data", "- name: pillion-backup-no-token"},
			notInOut:  "persistentVolumeClaim",
		},
		"pull secrets for a Pod that has none keep its ServiceAccount's away": {
			files:     map[string]string{"profiles/tool.yaml": toolProfile},
			stdin:     fmt.Sprintf(asking, "tool"),
			args:      []string{"-f", "-"},
			wantLines: []string{"- name: registry"},
			wantStderr: "warning: stdin:1:1: Pod p: imagePullSecrets are added where the Pod has none: the API server will not " +
				"add those of the Pod's ServiceAccount, as it does where the list is empty; list them in the manifest too, if images need them\n",
		},
		"pull secrets for a Pod that has some": {
			files:     map[string]string{"profiles/tool.yaml": toolProfile},
			stdin:     fmt.Sprintf(asking, "tool") + "  imagePullSecrets:\n  - name: own\n",
			args:      []string{"-f", "-"},
			wantLines: []string{"- name: registry", "- name: own"},
		},
		"what the namespace's Pod Security Standard does not allow": {
			files: map[string]string{
				"profiles/tool.yaml": toolProfile,
				"profiles/ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: " +
					"{pod-security.kubernetes.io/enforce: restricted}}\n",
			},
			stdin:      fmt.Sprintf(asking, "tool"),
			args:       []string{"-f", "-"},
			wantStderr: "error: stdin:1:1: " + escalation("restricted:latest"),
			wantErr:    "what the error above is about was left out",
		},
		"what the cluster's Pod Security does not allow, from the flags of the configuration": {
			files:      map[string]string{"profiles/tool.yaml": toolProfile},
			stdin:      fmt.Sprintf(asking, "tool"),
			args:       []string{"-f", "-", "--pod-security-enforce", "restricted", "--pod-security-enforce-version", "v1.30"},
			wantStderr: "error: stdin:1:1: " + escalation("restricted:v1.30"),
			wantErr:    "what the error above is about was left out",
		},
		"a namespace that Pod Security exempts": {
			files: map[string]string{"profiles/tool.yaml": toolProfile},
			stdin: fmt.Sprintf(asking, "tool") + "  imagePullSecrets:\n  - name: own\n",
			args: []string{
				"-f", "-", "--pod-security-enforce", "restricted", "--pod-security-exempt-namespaces", "default",
			},
			wantLines: []string{"- name: registry"},
		},
		"a Pod that asks in a namespace that is never touched": {
			stdin:   site,
			args:    []string{"-f", "-", "-n", "kube-system"},
			wantOut: site,
			wantStderr: "warning: stdin:1:1: Pod p: nothing is added: Pods of namespace kube-system are never touched " +
				"(--excluded-namespaces)\n",
		},
		"profiles that cannot be used are told all at once": {
			files: map[string]string{
				"profiles/bad.yaml": strings.Replace(siteProfile, "ref: main", "reff: main", 1) + "---\n" + siteProfile + "---\n" +
					"" + cacheProfile,
			},
			stdin: site,
			args:  []string{"-f", "-"},
			wantErr: "profiles/bad.yaml:5:55: ClusterPatternProfile site: spec.gitSync.reff: " +
				"Forbidden: there is no field of that name\n" +
				"profiles/bad.yaml:8:1: ClusterPatternProfile site is in profiles/bad.yaml on line 1 already; " +
				"remove one of them\n" +
				"profiles/cache.yaml:1:1: PatternProfile default/cache is in profiles/bad.yaml " +
				"on line 15 already; remove one of them\n" +
				"profiles/site.yaml:1:1: ClusterPatternProfile site is in profiles/bad.yaml on line 1 already; " +
				"remove one of them",
		},
		"a registry from the flags of the configuration": {
			stdin:     site,
			args:      []string{"-f", "-", "--images-registry", "mirror.example.com"},
			wantLines: []string{"image: mirror.example.com/git-sync/git-sync:v4.7.1"},
		},
		"a flag of the configuration that is wrong": {
			stdin:   site,
			args:    []string{"-f", "-", "--images-registry", "!"},
			wantErr: "--images-registry",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"profiles/site.yaml": siteProfile, "profiles/cache.yaml": cacheProfile}
			for name, text := range test.files {
				files[name] = text
			}
			args := append([]string{"inject", "--profiles", "profiles"}, test.args...)
			stdout, stderr, err := run(t, files, test.stdin, args...)
			if got := message(err); got != test.wantErr && (test.wantErr == "" || !strings.Contains(got, test.wantErr)) {
				t.Errorf("error %q, want %q", got, test.wantErr)
			}
			if diff := cmp.Diff(test.wantStderr, stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantOut, stdout); test.wantOut != "" && diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			if test.notInOut != "" && (stdout == "" || strings.Contains(stdout, test.notInOut)) {
				t.Errorf("stdout has %q, or nothing:\n%s", test.notInOut, stdout)
			}
			var lines []string
			for line := range strings.Lines(stdout) {
				lines = append(lines, strings.TrimSpace(line))
			}
			for _, line := range test.wantLines {
				if !slices.Contains(lines, line) {
					t.Errorf("stdout lacks the line %q:\n%s", line, stdout)
				}
			}
		})
	}
}

func TestInjectDiff(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p # my Pod\n  annotations:\n    pillion.dev/inject: cache\n" +
		"spec:\n  containers:\n" +
		"    - name: app\n\n      image: app:1\n---\nkind: Other\n"
	files := map[string]string{"pod.yaml": pod, "other.yaml": "kind: Other\n", "profiles/cache.yaml": cacheProfile}
	stdout, stderr, err := run(t, files, "", "inject", "-f", "pod.yaml", "-f", "other.yaml", "--profiles", "profiles", "--diff")
	if err != nil || stderr != "" {
		t.Fatalf("%v\n%s", err, stderr)
	}
	const start = "diff pod.yaml pod.yaml\n--- pod.yaml\n+++ pod.yaml\n@@ -4,10 +4,"
	if !strings.HasPrefix(stdout, start) || strings.Contains(stdout, "other.yaml") {
		t.Errorf("no unified diff of pod.yaml alone:\n%s", stdout)
	}
	for line := range strings.Lines(stdout) {
		if strings.HasPrefix(line, "-") && line != "--- pod.yaml\n" {
			t.Errorf("the diff removes %q", line)
		}
	}
}

// workloads are manifests of all kinds, laid out in several ways.
func workloads() map[string]string {
	const spec = "spec:\n  containers:\n  - name: app\n    image: app:1\n    # mine\n    env:\n    - {name: A, value: b}\n" +
		"\n  - name: other\n    image: b\n"
	const template = "metadata:\n  labels:\n    app: web\n  annotations:\n    pillion.dev/inject: PROFILES\n" + spec
	indented := func(by int, text string) string {
		return strings.ReplaceAll(strings.Repeat(" ", by)+strings.TrimSuffix(text, "\n"), "\n", "\n"+strings.Repeat(" ", by)) + "\n"
	}
	controlled := func(apiVersion, kind string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: w}\nspec:\n  template:\n" + indented(4, template)
	}
	return map[string]string{
		"Pod":                   "apiVersion: v1\nkind: Pod\n" + template,
		"Deployment":            controlled("apps/v1", "Deployment"),
		"StatefulSet":           controlled("apps/v1", "StatefulSet"),
		"DaemonSet":             controlled("apps/v1", "DaemonSet"),
		"ReplicaSet":            controlled("apps/v1", "ReplicaSet"),
		"ReplicationController": controlled("v1", "ReplicationController"),
		"Job":                   controlled("batch/v1", "Job"),
		"CronJob": "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: w}\nspec:\n  schedule: '* * * * *'\n" +
			"  jobTemplate:\n    spec:\n" +
			"      template:\n" + indented(8, template),
		"PodTemplate": "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: w}\ntemplate:\n" + indented(2, template),
		"List": "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n" + indented(2, template) +
			"- apiVersion: v1\n  kind: Pod\n" + indented(2, template),
		"a Pod in brackets": "{apiVersion: v1, kind: Pod, metadata: {annotations: {pillion.dev/inject: \"PROFILES\"}},\n" +
			" spec: {containers: [{name: app, env: []}], initContainers: [{name: mine}, ], volumes: null}}\n",
		"a Pod in JSON": "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Pod\",\n" +
			"  \"metadata\": {\"annotations\": {\"pillion.dev/inject\": \"PROFILES\"}},\n" +
			"  \"spec\": {\"containers\": [{\"name\": \"app\", \"unknownField\": 1.50}], \"initContainers\": null}\n}\n",
		"a Pod with aliases": "apiVersion: v1\nkind: Pod\nmetadata: {annotations: {pillion.dev/inject: \"PROFILES\"}}\n" +
			"spec:\n  containers:\n" +
			"  - &app\n    name: app\n    env: &env [{name: A, value: b}]\n  - <<: *app\n    name: second\n" +
			"  - {name: third, env: *env}\n",
		"a Pod with Windows' line breaks": strings.ReplaceAll("apiVersion: v1\nkind: Pod\n"+template, "\n", "\r\n"),
		"a Pod with a mesh": "apiVersion: v1\nkind: Pod\nmetadata: {annotations: {pillion.dev/inject: \"PROFILES\"}}\nspec:\n" +
			"    containers:\n" +
			"      - name: app\n    initContainers:\n      # the mesh\n      - name: istio-init\n        image: i\n\n" +
			"      # mine\n      - name: migrate\n        image: m\n",
	}
}

// examples returns the profiles of examples/ that any Pod can have.
func examples(t *testing.T) []*profiles.Profile {
	t.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range []string{"site-content", "page-cache", "session-cache-proxy", "metrics-from-statsd", "metrics-from-json"} {
		paths = append(paths, filepath.Join("..", "..", "examples", name+".yaml"))
	}
	loaded, _, err := manifest.LoadProfiles(compiler, paths, corev1.NamespaceDefault)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestInjectIsWhatTheWebhookDoes(t *testing.T) {
	loaded := examples(t)
	settings, err := config.Load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	options := decisionOptions(settings)
	decider := &decider{options: options, snapshot: profiles.NewSnapshot(options, loaded), namespaces: manifest.Namespaces{}}
	inject := func(t *testing.T, text string) string {
		t.Helper()
		var stderr bytes.Buffer
		i := &injection{decider: decider, namespace: corev1.NamespaceDefault, stderr: &stderr}
		out := i.inject([]manifest.File{manifest.Parse("test", []byte(text))}, false)
		if stderr.Len() > 0 {
			t.Fatal(stderr.String())
		}
		return string(out)
	}
	for _, profile := range loaded {
		for workload, text := range workloads() {
			t.Run(profile.Name+" into "+workload, func(t *testing.T) {
				text = strings.ReplaceAll(text, "PROFILES", profile.Name)
				once := inject(t, text)
				if diff := cmp.Diff(once, inject(t, once)); diff != "" {
					t.Errorf("injecting twice (-once +twice):\n%s", diff)
				}
				before, after := podsIn(t, text), podsIn(t, once)
				for i := range before {
					decision := profiles.Decide(decider.snapshot, decider.namespaces.Get(corev1.NamespaceDefault), before[i])
					if !decision.Allowed || len(decision.Patch) == 0 {
						t.Fatalf("the decision adds nothing: %+v", decision.Outcomes)
					}
					if diff := cmp.Diff(asJSON(t, decision.Pod()), asJSON(t, after[i])); diff != "" {
						t.Errorf("Pod %d (-decided +injected):\n%s", i, diff)
					}
				}
				if workload != "a Pod with aliases" && workload != "a Pod in JSON" {
					linesRemain(t, text, once)
				}
			})
		}
	}
}

// linesRemain checks that a text has the lines of an earlier one, in order; only brackets may have gained something.
func linesRemain(t *testing.T, before, after string) {
	t.Helper()
	rest := strings.SplitAfter(after, "\n")
	for line := range strings.Lines(before) {
		if strings.ContainsAny(line, "{[") {
			continue
		}
		i := slices.Index(rest, line)
		if i < 0 {
			t.Fatalf("the line %q is gone:\n%s", line, after)
		}
		rest = rest[i+1:]
	}
}

func podsIn(t *testing.T, text string) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	file := manifest.Parse("test", []byte(text))
	for _, document := range file.Documents {
		templates, err := document.Templates()
		if err != nil || document.Err != nil {
			t.Fatal(err, document.Err)
		}
		for i := range templates {
			pod, err := templates[i].Pod()
			if err != nil {
				t.Fatal(err)
			}
			pods = append(pods, pod)
		}
	}
	if len(pods) == 0 {
		t.Fatalf("no Pods in:\n%s", text)
	}
	return pods
}

func asJSON(t *testing.T, pod *corev1.Pod) any {
	t.Helper()
	encoded, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(encoded, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
