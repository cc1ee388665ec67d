package cases_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/cases"
)

// TestMistakesAreToldWhereTheyStand has the problems of documents, all of them at once.
func TestMistakesAreToldWhereTheyStand(t *testing.T) {
	const head = "apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\nprofiles: [profiles]\n"
	const pod = "  pod: {spec: {containers: [{name: app}]}}\n"
	const expect = "  expect: {allowed: true}\n"
	const one = "- name: one\n"
	tests := map[string]struct {
		document string
		want     []string // what is told, without the file's name
	}{
		"no cases": {head, []string{
			"1:1: there are no cases; write a list of them: cases: [{name: ..., pod: {...}, expect: {allowed: true}}]",
		}},
		"an empty list of cases": {head + "cases: []\n", []string{"4:1: cases: there is no case; write one"}},
		"cases without a value": {head + "cases:\n", []string{
			"4:1: cases: is empty; give it a value, or leave it out",
		}},
		"cases are no list": {head + "cases: {name: one}\n", []string{
			"4:1: cases: has keys of its own; write a list: [{name: a Pod that asks gets its site, pod: {...}, expect: {allowed: true}}]",
			"4:1: cases: there is no case; write one",
		}},
		"a case that is none": {head + "cases: [one]\n", []string{
			`4:9: cases[0]: is the text "one"; write keys and values: {name: a Pod that asks gets its site, namespace: shop, pod: ` +
				`{...}, ` +
				"expect: {allowed: true}}",
		}},
		"an empty case": {head + "cases:\n- {}\n", []string{
			"5:3: cases[0]: it has no name; write a sentence that says what is expected",
			"5:3: cases[0]: it has no Pod; write pod: {...}, or file: PATH to take it from a manifest",
			"5:3: cases[0]: it expects nothing; write what should become of the Pod: expect: {allowed: true}",
		}},
		"names that are unknown, with the ones that were meant": {
			head + "namespace: [{name: x}]\ncases:\n" + one + pod + "  expected: {allowed: true}\n" +
				"- name: two\n" + pod + "  expect: {container: [app], Denied: true, shade: red}\n", []string{
				"4:1: namespace: this field is unknown, did you mean namespaces?; there are apiVersion, kind, metadata, profiles, " +
					"configuration, " +
					"namespaces, cases",
				"6:3: cases[0]: it expects nothing; write what should become of the Pod: expect: {allowed: true}",
				"8:3: cases[0].expected: this field is unknown; there are name, namespace, pod, file, object, user, dryRun, " +
					"configuration, expect",
				"11:12: cases[1].expect.container: this field is unknown, did you mean containers?; there are allowed, denied, containers, " +
					"injected, skipped, outcomes, warnings, golden",
				"11:30: cases[1].expect.Denied: this field is unknown, did you mean denied?; there are allowed, denied, containers, " +
					"injected, " +
					"skipped, outcomes, warnings, golden",
				"11:44: cases[1].expect.shade: this field is unknown; there are allowed, denied, containers, injected, skipped, outcomes, " +
					"warnings, golden",
			},
		},
		"names that are there twice": {
			head + "namespaces: [{name: a}, {name: a}]\ncases:\n" + one + pod + expect + one + pod + expect, []string{
				"4:25: namespaces[1]: the namespace a is there twice; remove one of them",
				"9:3: cases[1].name: the case on line 6 has this name already; write what differs",
			},
		},
		"a name that is there twice in two documents": {
			head + "cases:\n" + one + pod + expect + "---\n" + head + "cases:\n" + one + pod + expect,
			[]string{"13:3: cases[0].name: the case on line 5 has this name already; write what differs"},
		},
		"values of other types": {
			head + "metadata: {name: 1}\nnamespaces:\n- {name: Shop}\n- {name: web, labels: {live: true}}\n- {labels: {}}\n- " +
				"web\ncases:\n" +
				"- name: [one]\n  namespace: 7\n  user: {groups: devs}\n  dryRun: \"yes\"\n  pod: app\n  expect: allowed\n", []string{
				`4:12: metadata.name: is the number 1; write text, in quotes if it is meant so: "1"`,
				`6:4: namespaces[0].name: "Shop" is not the name of a namespace: that has lower-case letters, digits and dashes`,
				`7:24: namespaces[1].labels.live: is the truth value true; write text, in quotes if it is meant so: "true"`,
				"8:3: namespaces[2]: it has no name; write one: {name: shop, labels: {team: web}}",
				`9:3: namespaces[3]: is the text "web"; write keys and values: {name: shop, labels: {team: web}}`,
				"11:3: cases[0].name: is a list; write text",
				"12:3: cases[0].namespace: is the number 7; write keys and values: {name: shop, labels: {team: web}}",
				"13:3: cases[0].user: it has no username; write one: {username: jane, groups: [developers]}",
				`13:10: cases[0].user.groups: is the text "devs"; write a list: [developers]`,
				`14:3: cases[0].dryRun: is the text "yes"; write true or false`,
				`15:3: cases[0].pod: is the text "app"; write keys and values: {metadata: {annotations: {...}}, spec: {containers: ` +
					`[{name: app}]}}`,
				`16:3: cases[0].expect: is the text "allowed"; write keys and values: {containers: [site (sidecar), app]} or {denied: ` +
					`{reasons: ` +
					"[ProfileNotAvailable]}}",
			},
		},
		"a Pod with a field that no Pod has": {
			head + "cases:\n- name: one\n  pod:\n    metadata: {annotation: {}}\n    spec:\n      containers:\n      - name: app\n    " +
				"    imag: x\n" + expect,
			[]string{
				"7:16: cases[0].pod.metadata.annotation: a Pod has no such field",
				"11:9: cases[0].pod.spec.containers[0].imag: a Pod has no such field",
			},
		},
		"a Pod with a value that no Pod has": {
			head + "cases:\n" + one + "  pod: {spec: {containers: {name: app}}}\n" + expect,
			[]string{"6:3: cases[0].pod: this is no valid Pod: cannot unmarshal object into Go struct field PodSpec.spec.containers " +
				"of type " +
				"[]v1.Container"},
		},
		"a Pod without containers": {head + "cases:\n" + one + "  pod: {spec: {}}\n" + expect, []string{
			"6:3: cases[0].pod: it has no spec.containers; a Pod has one at least: spec: {containers: [{name: app}]}",
		}},
		"a workload where a Pod should be": {
			head + "cases:\n" + one + "  pod: {kind: Deployment, spec: {}}\n" + expect,
			[]string{`6:9: cases[0].pod.kind: is the text "Deployment"; write a Pod here, and take the template of a workload by file`},
		},
		"two Pods in one case": {head + "cases:\n" + one + pod + "  file: apps.yaml\n" + expect, []string{
			"7:3: cases[0].file: pod says what the Pod is already; remove one of them",
		}},
		"files and objects that are not there": {
			head + "cases:\n- {name: a, file: none.yaml, expect: {allowed: true}}\n- {name: b, file: apps.yaml, expect: {allowed: " +
				"true}}\n" +
				"- {name: c, file: apps.yaml, object: Deployment/shopp, expect: {allowed: true}}\n" +
				"- {name: d, file: apps.yaml, object: shop, expect: {allowed: true}}\n" +
				"- {name: e, file: profiles/all.yaml, expect: {allowed: true}}\n- {name: f, file: /etc/apps.yaml, expect: {allowed: " +
				"true}}\n" +
				"- {name: g, pod: {spec: {containers: [{name: app}]}}, object: Pod/x, expect: {allowed: true}}\n", []string{
				"5:13: cases[0].file: it cannot be used: none.yaml: no such file or directory",
				"6:13: cases[1].file: there are several Pods and workloads in it; choose one by object: Deployment/shop, Job/once",
				"7:30: cases[2].object: there is no Deployment/shopp in the file, did you mean Deployment/shop?; there is " +
					"Deployment/shop, Job/once",
				`8:30: cases[3].object: is the text "shop"; write kind and name: Deployment/shop`,
				"9:13: cases[4].file: there is no Pod and no workload in it",
				`10:13: cases[5].file: "/etc/apps.yaml" is absolute; write the path from this file`,
				"11:55: cases[6].object: it chooses from a file; write file, or remove it",
			},
		},
		"namespaces of which nothing is said": {
			head + "namespaces: [{name: web}]\ncases:\n- {name: a, namespace: wbe, pod: {spec: {containers: [{name: app}]}}, expect: " +
				"{allowed: true}}\n" +
				"- {name: b, pod: {metadata: {namespace: live}, spec: {containers: [{name: app}]}}, expect: {allowed: true}}\n" +
				"- {name: c, file: apps.yaml, object: Deployment/shop, namespace: web, expect: {allowed: true}}\n" +
				"- {name: d, namespace: kube-system, pod: {spec: {containers: [{name: app}]}}, expect: {allowed: true}}\n" +
				"- {name: e, namespace: {name: new}, pod: {spec: {containers: [{name: app}]}}, expect: {allowed: true}}\n", []string{
				"6:13: cases[0].namespace: nothing is said of the namespace wbe; add it below namespaces: - name: wbe",
				"7:13: cases[1].pod: nothing is said of the namespace live; add it below namespaces: - name: live",
				"8:55: cases[2].namespace: the Pod names the namespace team itself; write that, or remove one of them",
			},
		},
		"expectations that cannot be": {
			head + "cases:\n" +
				"- {name: a, pod: {spec: {containers: [{name: app}]}}, expect: {}}\n" +
				"- {name: b, pod: {spec: {containers: [{name: app}]}}, expect: {allowed: false}}\n" +
				"- {name: c, pod: {spec: {containers: [{name: app}]}}, expect: {denied: false}}\n" +
				"- {name: d, pod: {spec: {containers: [{name: app}]}}, expect: {denied: {}}}\n" +
				"- {name: e, pod: {spec: {containers: [{name: app}]}}, expect: {denied: {reasons: []}}}\n" +
				"- {name: f, pod: {spec: {containers: [{name: app}]}}, expect: {denied: true, containers: [app]}}\n" +
				"- {name: g, pod: {spec: {containers: [{name: app}]}}, expect: {containers: [[app, init]]}}\n" +
				"- {name: h, pod: {spec: {containers: [{name: app}]}}, expect: {containers: [app (initial)]}}\n" +
				"- {name: i, pod: {spec: {containers: [{name: app}]}}, expect: {skipped: {}}}\n" +
				"- {name: j, pod: {spec: {containers: [{name: app}]}}, expect: {outcomes: {cache: Applied}}}\n" +
				"- {name: k, pod: {spec: {containers: [{name: app}]}}, expect: {outcomes: [{cache: Applied, site: Applied}]}}\n" +
				"- {name: l, pod: {spec: {containers: [{name: app}]}}, expect: {injected: [a, a]}}\n" +
				"- {name: m, pod: {spec: {containers: [{name: app}]}}, expect: {denied: {message: []}}}\n", []string{
				"5:55: cases[0].expect: it expects nothing; write {allowed: true} at least",
				"6:64: cases[1].expect.allowed: write denied: true, or denied: {reasons: [...], message: ...}, for a Pod that should be " +
					"refused",
				"7:64: cases[2].expect.denied: write allowed: true for a Pod that should be allowed",
				"8:64: cases[3].expect.denied: there is nothing in it; write true, or {reasons: [ProfileNotAvailable], message: not " +
					"available}",
				"9:73: cases[4].expect.denied.reasons: there is none; a Pod is refused for a reason: write it, or denied: true for " +
					"whatever reason",
				"10:78: cases[5].expect.containers: this is of a Pod that is allowed, and denied says that it is not; remove one of them",
				"11:77: cases[6].expect.containers[0]: is a list; write text",
				`12:64: cases[7].expect.containers: "app (initial)": write a name alone for a container, NAME (init) for an init ` +
					`container and NAME (sidecar) for a native sidecar`,
				"13:64: cases[8].expect.skipped: there is nothing in it; write profiles and why they are left out: {site-content: " +
					"ConditionNotMet}",
				"14:64: cases[9].expect.outcomes: has keys of its own; write a list: [site-content: Applied, page-cache: ConditionNotMet]",
				"15:75: cases[10].expect.outcomes[0]: it has 2 keys; write one profile and its reason: {site-content: Applied}",
				`16:78: cases[11].expect.injected[1]: "a" is there twice; remove one of them`,
				"17:73: cases[12].expect.denied.message: there is none; write a text that the message contains, or leave it out",
			},
		},
		"golden files that cannot be": {
			head + "cases:\n" +
				"- {name: a, pod: {spec: {containers: [{name: app}]}}, expect: {golden: app.yaml}}\n" +
				"- {name: b, pod: {spec: {containers: [{name: app}]}}, expect: {golden: ../app.golden.yaml}}\n" +
				"- {name: c, pod: {spec: {containers: [{name: app}]}}, expect: {golden: app.golden.yaml}}\n" +
				"- {name: d, pod: {spec: {containers: [{name: app}]}}, expect: {golden: ./app.golden.yaml}}\n" +
				"- {name: e, pod: {spec: {containers: [{name: app}]}}, expect: {golden: golden/.golden.yaml}}\n", []string{
				`5:64: cases[0].expect.golden: "app.yaml" does not end in .golden.yaml; write, for example, golden/shop.golden.yaml`,
				`6:64: cases[1].expect.golden: "../app.golden.yaml" leads out of this file's directory; write a path below it`,
				"8:64: cases[3].expect.golden: app.golden.yaml is the golden file of the case at a_test.yaml:7 too; give each its own",
				`9:64: cases[4].expect.golden: "golden/.golden.yaml" does not end in .golden.yaml; write, for example, ` +
					`golden/shop.golden.yaml`,
			},
		},
		"settings that cannot be": {
			head + "configuration:\n  podSecurity: {mode: Deni}\n  excludedNamespaces: kube-system\n  logLevel: debug\n  config: " +
				"x\ncases:\n" +
				one + pod + expect + "- name: two\n  configuration: {podSecurity: {Mode: Warn}}\n" + pod + expect, []string{
				`6:3: configuration.excludedNamespaces: is the text "kube-system"; write a list: [first, second]`,
				"7:3: configuration.logLevel: this setting is unknown, or no decision depends on it; docs/configuration.md lists those " +
					"for every command",
				"8:3: configuration.config: this setting is unknown; docs/configuration.md lists them",
				"14:33: cases[1].configuration.podSecurity.Mode: this setting is unknown, or no decision depends on it; " +
					"docs/configuration.md lists those for every command",
			},
		},
		"settings that package config refuses": {
			head + "configuration:\n  podSecurity: {mode: Deni, enforceVersion: new}\ncases:\n" + one + pod + expect, []string{
				`5:17: configuration.podSecurity.mode: "Deni" is none of Deny, Warn`,
				`5:29: configuration.podSecurity.enforceVersion: "new" is not a version of Pod Security: it must be "latest" or "v1.x", ` +
					`for example v1.33`,
			},
		},
		"a setting of a case that package config refuses": {
			head + "cases:\n" + one + "  configuration: {podSecurity: {mode: Soft}}\n" + pod + expect, []string{
				`6:33: cases[0].configuration.podSecurity.mode: "Soft" is none of Deny, Warn`,
			},
		},
		"profiles that are not there, or none": {
			"apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\nprofiles:\n- none\n- 7\n- {kind: Pod}\n- apps.yaml\n" +
				"- {apiVersion: pillion.dev/v1, kind: PatternProfile}\ncases:\n" + one + pod + expect, []string{
				"4:3: profiles[0]: none: no such file or directory",
				"5:3: profiles[1]: is the number 7; write a path, or a profile",
				"6:3: profiles[2]: this is no profile: write a path, or a profile with its apiVersion, kind, metadata and spec",
				`8:4: profiles[4].apiVersion: is the text "pillion.dev/v1"; write pillion.dev/v1alpha1`,
			},
		},
		"a profile that is in a file, too": {
			"apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\nprofiles:\n- profiles\n- apiVersion: pillion.dev/v1alpha1\n" +
				"  kind: ClusterPatternProfile\n  metadata: {name: cache}\n" +
				"  spec: {cacheAmbassador: {protocol: Redis, local: {memory: 64Mi}}}\ncases:\n" + one + pod + expect, []string{
				"5:3: profiles[1]: ClusterPatternProfile cache is among the others already; remove one of them",
			},
		},
		"profiles that are wrong, here and elsewhere": {
			"apiVersion: pillion.dev/v1alpha1\nkind: PatternTest\nprofiles:\n- broken.yaml\n- apiVersion: pillion.dev/v1alpha1\n" +
				"  kind: ClusterPatternProfile\n  metadata: {name: inline}\n  spec: {gitSync: {}}\ncases:\n" + one + pod + expect, []string{
				"8:10: ClusterPatternProfile inline: spec.gitSync.mountPath: Required value: set mountPath, or list it in overridable: then each Pod " +
					"gives it by an annotation",
				"8:10: ClusterPatternProfile inline: spec.gitSync.repo: Required value: set repo, or list it in overridable: then each Pod " +
					"gives it by an annotation",
				"broken.yaml:5:3: ClusterPatternProfile broken: spec.gitSync.mountPath: Required value: set mountPath, or list it in overridable: " +
					"then each Pod gives it by an annotation",
				`broken.yaml:5:13: ClusterPatternProfile broken: spec.gitSync.repo: Invalid value: "integer": repo in body must be of ` +
					`type string: "integer"`,
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inside(t, map[string]string{
				"profiles/all.yaml": theProfiles, "a_test.yaml": test.document,
				"broken.yaml": "apiVersion: pillion.dev/v1alpha1\nkind: ClusterPatternProfile\nmetadata: {name: broken}\nspec:\n  " +
					"gitSync: {repo: 7}\n",
				"apps.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop, namespace: team}\nspec: {template: {spec: " +
					"{containers: " +
					"[{name: app}]}}}\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {spec: {containers: " +
					"[{name: app}]}}}\n",
			})
			ran := run(t, cases.Options{}, "a_test.yaml")
			got := problemsIn(ran)
			for i := range got {
				if len(got[i]) > 12 && got[i][:12] == "a_test.yaml:" {
					got[i] = got[i][12:]
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if ran.OK() {
				t.Error("all is well")
			}
		})
	}
}
