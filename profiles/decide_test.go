package profiles_test

import (
	"encoding/json"
	"fmt"
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

// Patterns for tests that do not care which.
const (
	gitSync   = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}`
	gitOther  = `gitSync: {repo: "https://git.example.com/other.git", mountPath: /srv/other}`
	memcached = `cacheAmbassador: {protocol: Memcached, local: {}}`
	redis     = `cacheAmbassador: {protocol: Redis, local: {}, envPrefix: REDIS}`
	statsd    = `prometheusAdapter: {statsd: {}}`
	templates = `templateProcessor: {templates: {gitSync: {profile: site}}, mountPath: /etc/app}`
)

func TestWhatCannotBeWovenIsRefusedOrLeftOutAsItsPolicySays(t *testing.T) {
	const broken = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, containers: [nosuch]}`
	tests := map[string]struct {
		profile, metadata string
		allowed           bool
		want              []string
		skipped           string
	}{
		"asked for: refused, whatever its policy": {
			profile:  broken + `, failurePolicy: Ignore, match: {}`,
			metadata: `{annotations: {pillion.dev/inject: site}}`,
			want:     []string{"site Annotation Rejected ContainerNotFound"},
		},
		"chosen with Ignore: left out, with a warning and a mark": {
			profile:  broken + `, match: {}`,
			metadata: `{}`,
			allowed:  true,
			want:     []string{"site Match Rejected ContainerNotFound"},
			skipped: `{"site":"ContainerNotFound: profile site is for container nosuch, which the Pod does not have; ` +
				`it has app"}`,
		},
		"chosen with Fail: refused": {
			profile:  broken + `, failurePolicy: Fail, match: {namespaceSelector: {matchLabels: {team: web}}}`,
			metadata: `{}`,
			want:     []string{"site Match Rejected ContainerNotFound"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := snapshotOf(t, cluster("site", test.profile))
			decision := profiles.Decide(snapshot, web(), podOf(t, test.metadata, appOnly))
			if decision.Allowed != test.allowed {
				t.Errorf("allowed is %t: %s", decision.Allowed, decision.Denial())
			}
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.skipped, decision.Pod().Annotations[v1alpha1.SkippedKey]); diff != "" {
				t.Error(diff)
			}
			if got := decision.Pod().Labels[v1alpha1.SkippedKey] == "true"; got != (test.skipped != "") {
				t.Errorf("the label that the controller finds skipped Pods by: %t", got)
			}
			if test.allowed != (len(decision.Warnings) == 1) {
				t.Errorf("warnings: %q", decision.Warnings)
			}
			if _, marked := decision.Pod().Labels[v1alpha1.InjectedKey]; marked {
				t.Error("a Pod into which nothing was woven is marked as injected")
			}
		})
	}
}

func TestWhatTellsThatAProfileWasLeftOutIsSeenByNoSelectorAndNoExpression(t *testing.T) {
	snapshot := snapshotOf(t,
		cluster("broken", `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, containers: [nosuch]}, match: {}`),
		cluster("plain", memcached+`, match: {podSelector: {matchExpressions: [{key: pillion.dev/skipped, operator: DoesNotExist}]},
		  conditions: [{name: bare, expression: "object.metadata.?labels.orValue({}).size() == 0 && `+
			`object.metadata.?annotations.orValue({}).size() == 0"}]}`),
		cluster("other", statsd+`, match: {podSelector: {matchLabels: {pillion.dev/skipped: "true"}}}`),
	)
	first := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
	want := []string{"broken Match Rejected ContainerNotFound", "plain Match Applied Applied"}
	if diff := cmp.Diff(want, outcomes(&first)); diff != "" {
		t.Error(diff)
	}
	left := podOf(t, `{labels: {pillion.dev/skipped: "true"}, annotations: {pillion.dev/skipped: "{}"}}`, appOnly)
	again := profiles.Decide(snapshot, web(), left)
	if diff := cmp.Diff(want, outcomes(&again)); diff != "" {
		t.Error(diff)
	}
	if again.Pod().Annotations[v1alpha1.SkippedKey] != "{}" {
		t.Error("an annotation that is there is replaced")
	}
}

func TestEveryProblemIsInOneAnswer(t *testing.T) {
	snapshot := snapshotOf(t,
		cluster("site", gitSync+`, overridable: [ref]`),
		cluster("cache", memcached),
		cluster("metrics", statsd),
	)
	pod := podOf(t, `{annotations: {pillion.dev/inject: "site, cache, nosuch, metrics, UPPER", site.pillion.dev/repo: x,
	  site.pillion.dev/ref: "a b", prometheus.io/port: "80"}}`,
		`{containers: [{name: app, ports: [{containerPort: 11211}, {containerPort: 9102}]}]}`)
	decision := profiles.Decide(snapshot, web(), pod)
	want := []string{
		" Annotation Rejected InvalidRequest",
		"nosuch Annotation Rejected ProfileNotAvailable",
		"site Annotation Rejected FieldNotOverridable",
		"cache Annotation Rejected PortCollision",
		"metrics Annotation Rejected MetadataCollision",
		"metrics Annotation Rejected PortCollision",
	}
	if diff := cmp.Diff(want, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(decision.Denial(), "Pillion refuses this Pod for 6 reasons: [1] ") {
		t.Errorf("denial: %s", decision.Denial())
	}
	for _, fact := range []string{"UPPER", "nosuch", "11211", "9102", "prometheus.io/port", "site.pillion.dev/repo"} {
		if !strings.Contains(decision.Denial(), fact) {
			t.Errorf("the denial does not name %s: %s", fact, decision.Denial())
		}
	}
	if diff := cmp.Diff([]string{"nosuch"}, decision.Unknown); diff != "" {
		t.Error(diff)
	}
}

func TestPodsThatAreNeverTouched(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync+`, match: {}`))
	tests := map[string]struct {
		namespace, metadata string
		want                []string
	}{
		"an ordinary one is touched":  {"web", `{}`, []string{"site Match Applied Applied"}},
		"of an excluded namespace":    {"kube-system", `{annotations: {pillion.dev/inject: site}}`, nil},
		"a mirror Pod":                {"web", `{annotations: {kubernetes.io/config.mirror: "", pillion.dev/inject: nosuch}}`, nil},
		"its own namespace is a hoax": {"web", `{namespace: kube-system}`, []string{"site Match Applied Applied"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podOf(t, test.metadata, appOnly)
			decision := profiles.Decide(snapshot, profiles.Namespace{Name: test.namespace, Labels: web().Labels}, pod)
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
			if !decision.Allowed || (len(test.want) == 0) != (len(decision.Patch) == 0) {
				t.Errorf("allowed %t, patch %v", decision.Allowed, decision.Patch)
			}
		})
	}
}

func TestWindowsPods(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync))
	for name, spec := range map[string]string{
		"by os":            `{containers: [{name: app}], os: {name: windows}}`,
		"by node selector": `{containers: [{name: app}], nodeSelector: {kubernetes.io/os: windows}}`,
	} {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshot, web(), podOf(t, asking("site"), spec))
			if diff := cmp.Diff([]string{"site Annotation Rejected WindowsNotSupported"}, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
		})
	}
	linux := profiles.Decide(snapshot, web(), podOf(t, asking("site"), `{containers: [{name: app}], os: {name: linux}}`))
	if !linux.Allowed {
		t.Errorf("a Linux Pod is refused: %s", linux.Denial())
	}
}

func TestLargePodsAreRefusedInShortTimeNamingTheLimit(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync), cluster("metrics", statsd))
	thousand := podOf(t, asking("site,metrics"), appOnly)
	for i := range 1000 {
		thousand.Spec.Containers = append(thousand.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i)})
	}
	annotated := podOf(t, asking("site"), appOnly)
	annotated.Annotations["large"] = strings.Repeat("x", 256<<10)
	overridden := podOf(t, asking("site"), appOnly)
	for i := range 8000 {
		overridden.Annotations[fmt.Sprintf("p%d.pillion.dev/ref", i)] = "x"
	}
	tests := map[string]struct {
		pod     *corev1.Pod
		allowed bool
		says    string
	}{
		"1,000 containers":       {thousand, false, "at most 250"},
		"256 KiB of annotations": {annotated, false, "at most 262144"},
		"8,000 overrides":        {overridden, true, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			decision := profiles.Decide(snapshot, web(), test.pod)
			if elapsed := time.Since(start); elapsed > 2*time.Second {
				t.Errorf("it took %s", elapsed)
			}
			if decision.Allowed != test.allowed || !strings.Contains(decision.Denial(), test.says) {
				t.Errorf("allowed is %t, denial: %s", decision.Allowed, decision.Denial())
			}
			if len(decision.Patch) > 0 != test.allowed {
				t.Errorf("it has %d operations", len(decision.Patch))
			}
		})
	}
}

func TestConfigurationThatDoesNotFitTheAnnotationsIsRefused(t *testing.T) {
	snapshot := snapshotOf(t, cluster("metrics", statsd))
	pod := podOf(t, asking("metrics"), appOnly)
	pod.Annotations["large"] = strings.Repeat("x", 256<<10-100)
	decision := profiles.Decide(snapshot, web(), pod)
	if decision.Allowed || !strings.Contains(decision.Denial(), "PodTooLarge") {
		t.Errorf("allowed is %t, denial: %q", decision.Allowed, decision.Denial())
	}
	if len(decision.Patch) > 0 || len(decision.Pod().Spec.InitContainers) > 0 {
		t.Error("a refused Pod is woven")
	}
}

func TestPolicyThatDoesNotFitTheAnnotationsIsLeftOut(t *testing.T) {
	snapshot := snapshotOf(t, cluster("metrics", statsd+`, match: {}`))
	pod := podOf(t, `{annotations: {a: b}}`, appOnly)
	pod.Annotations["large"] = strings.Repeat("x", 256<<10-100)
	decision := profiles.Decide(snapshot, web(), pod)
	if !decision.Allowed || len(decision.Patch) > 0 {
		t.Errorf("allowed is %t with %d operations: %s", decision.Allowed, len(decision.Patch), decision.Denial())
	}
	if diff := cmp.Diff([]string{"metrics Match Rejected PodTooLarge"}, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestAPodThatHasTheContainersIsLeftAlone(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync+`, overridable: [ref]`))
	revision := snapshotRevision(t, "site", gitSync)
	const unrecorded = "profile site was not woven: the Pod has a container of its name, pillion-site, and no record of where that is " +
		"from; rename the container if it is the app's own"
	tests := map[string]struct {
		injected, spec string
		override       string
		want           []string
		warning        string
	}{
		"at the same revision": {
			injected: `{"site":{"kind":"GitSync","revision":"` + revision + `","containers":["pillion-site"]}}`,
			spec:     `{containers: [{name: app}], initContainers: [{name: pillion-site}]}`,
			want:     []string{"site Annotation Skipped AlreadyInjected"},
		},
		"at another revision: with a warning": {
			injected: `{"site":{"kind":"GitSync","revision":"0123456789","containers":["pillion-site"]}}`,
			spec:     `{containers: [{name: app}], initContainers: [{name: pillion-site}]}`,
			want:     []string{"site Annotation Skipped AlreadyInjected"},
			warning: "profile site is at revision " + revision + ", but this Pod has its containers at revision 0123456789; " +
				"remove them from its manifest, with their volumes and mounts, to get the current ones",
		},
		"with an override that is wrong by now": {
			injected: `{}`,
			spec:     `{containers: [{name: app}], initContainers: [{name: pillion-site}]}`,
			override: "-v2",
			want:     []string{"site Annotation Skipped AlreadyInjected"},
			warning:  unrecorded,
		},
		"as a regular container": {
			injected: `{}`,
			spec:     `{containers: [{name: app}, {name: pillion-site}]}`,
			want:     []string{"site Annotation Skipped AlreadyInjected"},
			warning:  unrecorded,
		},
		"with an annotation that is no JSON": {
			injected: `forged`,
			spec:     `{containers: [{name: app}], initContainers: [{name: pillion-site}]}`,
			want:     []string{"site Annotation Skipped AlreadyInjected"},
			warning:  unrecorded,
		},
		"but not because an annotation says so": {
			injected: `{"site":{"kind":"GitSync","revision":"` + revision + `","containers":["pillion-site"]}}`,
			spec:     appOnly,
			want:     []string{"site Annotation Applied Applied"},
		},
		"nor because a volume has the name, which collides": {
			injected: `{}`,
			spec:     `{containers: [{name: app}], volumes: [{name: pillion-site}]}`,
			want:     []string{"site Annotation Rejected NameCollision"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podOf(t, asking("site"), test.spec)
			pod.Annotations[v1alpha1.InjectedKey] = test.injected
			if test.override != "" {
				pod.Annotations["site.pillion.dev/ref"] = test.override
			}
			decision := profiles.Decide(snapshot, web(), pod)
			if diff := cmp.Diff(test.want, outcomes(&decision)); diff != "" {
				t.Error(diff)
			}
			if woven := len(decision.Patch) > 0; woven != strings.Contains(test.want[0], "Applied") {
				t.Errorf("patch: %v", decision.Patch)
			}
			if diff := cmp.Diff(test.warning, strings.Join(decision.Warnings, "; ")); diff != "" {
				t.Error(diff)
			}
			if decision.Pod().Annotations[v1alpha1.InjectedKey] != test.injected {
				t.Error("an annotation that was there is changed")
			}
		})
	}
}

func TestAForgedMarkIsKeptAndTheTrueOneStandsBeside(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync))
	pod := podOf(t, `{labels: {pillion.dev/injected: "no"}, annotations: {pillion.dev/inject: site, pillion.dev/injected: x,
          pillion.dev/injected.2: y}}`,
		appOnly)
	decision := profiles.Decide(snapshot, web(), pod)
	got := map[string]v1alpha1.Injected{}
	if err := json.Unmarshal([]byte(decision.Pod().Annotations[v1alpha1.InjectedKey+".3"]), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]v1alpha1.Injected{"site": {
		Kind: v1alpha1.KindGitSync, Revision: snapshotRevision(t, "site", gitSync), Containers: []string{"pillion-site"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if decision.Pod().Labels[v1alpha1.InjectedKey] != "no" {
		t.Error("a label that was there is changed")
	}
}

// A Pod can carry several marks that contradict each other.
func TestOfSeveralMarksTheLastCounts(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync+`, overridable: [ref]`))
	pod := podOf(t, `{annotations: {pillion.dev/inject: site, pillion.dev/injected: '{"site": {"revision": "first"}}',
	  pillion.dev/injected.2: '{"site": {"revision": "second"}}', site.pillion.dev/ref: v2}}`,
		`{containers: [{name: app}], initContainers: [{name: pillion-site}]}`)
	for range 20 {
		decision := profiles.Decide(snapshot, web(), pod)
		if len(decision.Warnings) != 1 || !strings.Contains(decision.Warnings[0], "at revision second;") {
			t.Fatalf("warnings: %q", decision.Warnings)
		}
	}
}

// A profile that was left out beside another one must stay out: the ports of the other one on loopback, and whose a variable is,
// do not show in the Pod.
func TestWhatWasLeftOutStaysOut(t *testing.T) {
	snapshot := snapshotOf(t, cluster("a", memcached+`, match: {}`), cluster("b", memcached+`, match: {}`),
		cluster("c", `cacheAmbassador: {protocol: Memcached, local: {}, port: 11311}, match: {}`))
	first := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
	want := []string{"a Match Applied Applied", "b Match Rejected PortCollision"}
	for range 3 {
		want = append(want, "b Match Rejected EnvCollision")
	}
	for range 3 {
		want = append(want, "c Match Rejected EnvCollision")
	}
	if diff := cmp.Diff(want, outcomes(&first)); diff != "" {
		t.Fatal(diff)
	}
	second := profiles.Decide(snapshot, web(), first.Pod())
	if diff := cmp.Diff([]string{"a Match Skipped AlreadyInjected"}, outcomes(&second)); diff != "" {
		t.Error(diff)
	}
	if len(second.Patch) > 0 {
		t.Errorf("patch: %v", second.Patch)
	}
}

func TestSelectorsDoNotSeePillionsOwnLabel(t *testing.T) {
	const whenInjected = `, match: {podSelector: {matchExpressions: [{key: pillion.dev/injected, operator: Exists}]}}`
	snapshot := snapshotOf(t, cluster("site", gitSync), cluster("cache", memcached+whenInjected))
	decision := profiles.Decide(snapshot, web(), podOf(t, `{labels: {pillion.dev/injected: "true"},
          annotations: {pillion.dev/inject: site}}`, appOnly))
	if diff := cmp.Diff([]string{"site Annotation Applied Applied"}, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestAskedForComesBeforePolicy(t *testing.T) {
	snapshot := snapshotOf(t, cluster("a", memcached+`, match: {}`), cluster("z", memcached))
	decision := profiles.Decide(snapshot, web(), podOf(t, asking("z"), appOnly))
	if !decision.Allowed {
		t.Fatal(decision.Denial())
	}
	want := []string{
		"a Match Rejected PortCollision", "a Match Rejected EnvCollision", "a Match Rejected EnvCollision",
		"a Match Rejected EnvCollision",
		"z Annotation Applied Applied",
	}
	if diff := cmp.Diff(want, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestProfilesStartAfterThoseTheyReadFrom(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync), cluster("a-conf", templates), cluster("b-cache", redis))
	decision := profiles.Decide(snapshot, web(), podOf(t, asking("b-cache,a-conf,site"),
		`{containers: [{name: app}], initContainers: [{name: istio-init}, {name: setup}]}`))
	want := []string{"istio-init", "pillion-site", "pillion-a-conf", "pillion-b-cache", "setup"}
	if diff := cmp.Diff(want, initNames(decision.Pod())); diff != "" {
		t.Errorf("%s\n%s", diff, decision.Denial())
	}
}

func TestASourceThatIsRefusedTakesItsReadersWithIt(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync+`, match: {}`), cluster("conf", templates+`, match: {}`), cluster("cache",
		redis+`, match: {}`))
	decision := profiles.Decide(snapshot, web(), podOf(t, `{}`, `{containers: [{name: app, volumeMounts: [{name: x,
          mountPath: /srv}]}]}`))
	want := []string{
		"site Match Rejected MountPathCollision", "conf Match Rejected SourceNotApplied", "cache Match Applied Applied",
	}
	if diff := cmp.Diff(want, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"pillion-cache"}, initNames(decision.Pod())); diff != "" {
		t.Error(diff)
	}
}

func TestTheAppsVariableWinsAndPeopleAreTold(t *testing.T) {
	snapshot := snapshotOf(t, cluster("cache", memcached))
	decision := profiles.Decide(snapshot, web(), podOf(t, asking("cache"), `{containers: [{name: app, env: [{name: CACHE_PORT,
          value: "1"}]}]}`))
	want := []corev1.EnvVar{
		{Name: "CACHE_PORT", Value: "1"}, {Name: "CACHE_HOST", Value: "127.0.0.1"}, {Name: "CACHE_ADDRESS", Value: "127.0.0.1:11211"},
	}
	if diff := cmp.Diff(want, decision.Pod().Spec.Containers[0].Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"profile cache: the app keeps its own value of app: CACHE_PORT"}, decision.Warnings); diff != "" {
		t.Error(diff)
	}
}

// What a naive injector does to a Pod as a whole.
func TestWhatIsNotPillionsStaysAsItIs(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync), cluster("cache", memcached), cluster("metrics", statsd), cluster("conf",
		templates))
	for name, spec := range map[string]string{
		"a Pod with nothing set": appOnly,
		"a Pod with everything set": `{containers: [{name: app}], securityContext: {runAsUser: 1000, runAsNonRoot: true, fsGroup: 2000},
		  imagePullSecrets: [{name: registry}], serviceAccountName: app, terminationGracePeriodSeconds: 5,
		  shareProcessNamespace: true}`,
	} {
		t.Run(name, func(t *testing.T) {
			pod := podOf(t,
				`{annotations: {pillion.dev/inject: "site,cache,metrics,conf", kubectl.kubernetes.io/default-container: app}}`, spec)
			decision := profiles.Decide(snapshot, web(), pod)
			if !decision.Allowed || len(decision.Pod().Spec.InitContainers) != 4 {
				t.Fatalf("want four init containers, got %v: %s", initNames(decision.Pod()), decision.Denial())
			}
			rest := decision.Pod().Spec.DeepCopy()
			rest.InitContainers, rest.Volumes, rest.Containers = nil, nil, nil
			want := pod.Spec.DeepCopy()
			want.Containers = nil
			if diff := cmp.Diff(want, rest); diff != "" {
				t.Errorf("the Pod's own settings changed:\n%s", diff)
			}
			if got := decision.Pod().Annotations["kubectl.kubernetes.io/default-container"]; got != "app" {
				t.Errorf("default-container is %q", got)
			}
			if diff := cmp.Diff([]string{"app"}, containerNames(decision.Pod())); diff != "" {
				t.Errorf("the regular containers changed:\n%s", diff)
			}
		})
	}
}

func TestWhatIsInjectedIsHardened(t *testing.T) {
	const guaranteed = `{containers: [{name: app, resources: {limits: {cpu: "1", memory: 1Gi}}}]}`
	snapshot := snapshotOf(t, cluster("site", gitSync), cluster("cache", memcached), cluster("metrics", statsd), cluster("conf",
		templates))
	for name, spec := range map[string]string{"a Burstable Pod": appOnly, "a Guaranteed Pod": guaranteed} {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshot, web(), podOf(t, asking("site,cache,metrics,conf"), spec))
			if len(decision.Pod().Spec.InitContainers) != 4 {
				t.Fatal(decision.Denial())
			}
			limited := map[string]bool{}
			for _, volume := range decision.Pod().Spec.Volumes {
				limited[volume.Name] = volume.EmptyDir == nil || volume.EmptyDir.SizeLimit != nil
			}
			for _, container := range decision.Pod().Spec.InitContainers {
				if c := container.SecurityContext; c == nil || !*c.RunAsNonRoot || !*c.ReadOnlyRootFilesystem ||
					*c.AllowPrivilegeEscalation ||
					!slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
					c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
					t.Errorf("%s is not restricted: %v", container.Name, c)
				}
				tokenHidden := false
				for _, mount := range container.VolumeMounts {
					tokenHidden = tokenHidden || mount.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount"
					if !limited[mount.Name] {
						t.Errorf("volume %s of %s has no size limit", mount.Name, container.Name)
					}
					if mount.SubPath != "" {
						t.Errorf("%s mounts a subPath, which does not follow the switch to a new commit", container.Name)
					}
				}
				if !tokenHidden {
					t.Errorf("%s would get the service account's token", container.Name)
				}
				for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
					request, limit := container.Resources.Requests[resource], container.Resources.Limits[resource]
					if request.IsZero() || limit.IsZero() {
						t.Errorf("%s has no request or no limit of %s", container.Name, resource)
					}
					if name == "a Guaranteed Pod" && request.Cmp(limit) != 0 {
						t.Errorf("%s takes the Pod's Guaranteed class: requests %s, limits %s of %s", container.Name, request.String(),
							limit.String(), resource)
					}
				}
				if probe := container.StartupProbe; probe != nil && probe.HTTPGet != nil && probe.HTTPGet.Host != "" {
					t.Errorf("%s has a probe with a host, which Pod Security refuses", container.Name)
				}
			}
		})
	}
}

func TestLonelyResourcesKeepTheOtherDefaults(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site},
          overridable: [resources]`))
	decision := profiles.Decide(snapshot, web(),
		podOf(t, `{annotations: {pillion.dev/inject: site, site.pillion.dev/resources.limits.cpu: "2"}}`, appOnly))
	if !decision.Allowed {
		t.Fatal(decision.Denial())
	}
	resources := decision.Pod().Spec.InitContainers[0].Resources
	got := fmt.Sprint(resources.Requests.Cpu(), resources.Limits.Cpu(), resources.Requests.Memory(), resources.Limits.Memory())
	if diff := cmp.Diff("10m 2 32Mi 256Mi", got); diff != "" {
		t.Error(diff)
	}
}

func TestHostNetworkPodsOpenNoPortOfTheNode(t *testing.T) {
	snapshot := snapshotOf(t, cluster("metrics", statsd), cluster("cache", memcached), cluster("site", gitSync))
	decision := profiles.Decide(snapshot, web(), podOf(t, asking("metrics,cache,site"), `{containers: [{name: app}],
          hostNetwork: true}`))
	want := []string{
		"site Annotation Applied Applied", "cache Annotation Rejected HostNetwork",
		"metrics Annotation Rejected HostNetwork",
	}
	if diff := cmp.Diff(want, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestAProfileThatIsNotValidIsNotWoven(t *testing.T) {
	tests := map[string]struct {
		spec, metadata string
		allowed        bool
	}{
		"asked for: refused":             {`gitSync: {repo: "x", mountPath: /srv/site}`, asking("site"), false},
		"not asked for: nobody is told":  {`gitSync: {repo: "x", mountPath: /srv/site}, match: {}`, `{}`, true},
		"with a field that is not known": {gitSync + `, nosuch: 1`, asking("site"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(snapshotOf(t, cluster("site", test.spec)), web(), podOf(t, test.metadata, appOnly))
			if decision.Allowed != test.allowed || len(decision.Patch) > 0 {
				t.Errorf("allowed is %t, patch %v", decision.Allowed, decision.Patch)
			}
			if !test.allowed {
				if diff := cmp.Diff([]string{"site Annotation Rejected ProfileNotReady"}, outcomes(&decision)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestAPodThatWasWovenOutlivesItsProfilesHealth(t *testing.T) {
	woven := profiles.Decide(snapshotOf(t, cluster("site", gitSync)), web(), podOf(t, asking("site"), appOnly))
	broken := snapshotOf(t, cluster("site", gitSync+`, nosuch: 1`))
	decision := profiles.Decide(broken, web(), woven.Pod())
	if !decision.Allowed || len(decision.Patch) > 0 {
		t.Errorf("allowed is %t, patch %v: %s", decision.Allowed, decision.Patch, decision.Denial())
	}
	if diff := cmp.Diff([]string{"site Annotation Skipped AlreadyInjected"}, outcomes(&decision)); diff != "" {
		t.Error(diff)
	}
}

func TestDecisionsShareOneSnapshot(t *testing.T) {
	snapshot := snapshotOf(t, cluster("site", gitSync+`, overridable: [ref], match: {}`), cluster("cache", memcached+`, match: {}`))
	want := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
	done := make(chan string)
	for range 8 {
		go func() {
			decision := profiles.Decide(snapshot, web(), podOf(t, `{}`, appOnly))
			done <- cmp.Diff(want.Pod(), decision.Pod())
		}()
	}
	for range 8 {
		if diff := <-done; diff != "" {
			t.Error(diff)
		}
	}
}

const appOnly = `{containers: [{name: app}]}`

// source is a profile in YAML.
type source struct{ namespace, name, spec string }

func cluster(name, spec string) source { return source{name: name, spec: spec} }

func namespaced(namespace, name, spec string) source {
	return source{namespace: namespace, name: name, spec: spec}
}

// web is the namespace of the Pods in these tests.
func web() profiles.Namespace {
	return profiles.Namespace{Name: "web", Labels: map[string]string{"team": "web", "kubernetes.io/metadata.name": "web"}}
}

func asking(profiles string) string { return `{annotations: {pillion.dev/inject: "` + profiles + `"}}` }

func compile(t testing.TB, from source) *profiles.Profile {
	t.Helper()
	kind := "ClusterPatternProfile"
	if from.namespace != "" {
		kind = "PatternProfile"
	}
	return compileObject(t, fmt.Sprintf("{apiVersion: pillion.dev/v1alpha1, kind: %s, metadata: {name: %s, namespace: %q}, spec: {%s}}",
		kind, from.name, from.namespace, from.spec))
}

// compileObject compiles a profile from the whole of its YAML.
func compileObject(t testing.TB, document string) *profiles.Profile {
	t.Helper()
	compiler, err := newCompiler()
	if err != nil {
		t.Fatal(err)
	}
	object := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	profile, _ := compiler.Object(object)
	return profile
}

func snapshotOf(t testing.TB, sources ...source) *profiles.Snapshot {
	t.Helper()
	compiled := make([]*profiles.Profile, len(sources))
	for i, from := range sources {
		compiled[i] = compile(t, from)
	}
	return profiles.NewSnapshot(options(), compiled)
}

func snapshotRevision(t *testing.T, name, spec string) string {
	t.Helper()
	return compile(t, cluster(name, spec)).Revision
}

// podOf returns a Pod from its metadata and spec in YAML, decoded as a request's is.
func podOf(t *testing.T, metadata, spec string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte("metadata: "+metadata+"\nspec: "+spec+"\n"), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// outcomes says what became of each profile, without the words.
func outcomes(decision *profiles.Decision) []string {
	var short []string
	for i := range decision.Outcomes {
		o := &decision.Outcomes[i]
		name := o.Profile
		if o.Namespace != "" {
			name = o.Namespace + "/" + name
		}
		short = append(short, fmt.Sprintf("%s %s %s %s", name, o.Source, o.Result, o.Reason))
	}
	return short
}

func initNames(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.InitContainers {
		names = append(names, pod.Spec.InitContainers[i].Name)
	}
	return names
}

func containerNames(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	return names
}

// messageOf returns the message of the only outcome with a reason.
func messageOf(t *testing.T, decision *profiles.Decision, reason weave.Reason) string {
	t.Helper()
	var messages []string
	for i := range decision.Outcomes {
		if decision.Outcomes[i].Reason == reason {
			messages = append(messages, decision.Outcomes[i].Message)
		}
	}
	if len(messages) != 1 {
		t.Fatalf("want one outcome with the reason %s, got %q", reason, messages)
	}
	return messages[0]
}

func TestPatternsStartInTheirOrderUnlessAfterSaysOtherwise(t *testing.T) {
	const conf = `templateProcessor: {templates: {configMap: {name: conf}}, mountPath: /etc/app}`
	all := func(cacheHas string) *profiles.Snapshot {
		return snapshotOf(t, cluster("d-site", gitSync), cluster("e-site", gitOther), cluster("c-conf", conf),
			cluster("b-cache", redis+cacheHas), cluster("a-metrics", statsd))
	}
	tests := map[string]struct {
		cacheHas string
		want     []string
	}{
		"files, what is made of them, and what the app talks to": {
			"", []string{"pillion-d-site", "pillion-e-site", "pillion-c-conf", "pillion-b-cache", "pillion-a-metrics"},
		},
		"a profile says otherwise": {
			", after: [a-metrics]", []string{"pillion-d-site", "pillion-e-site", "pillion-c-conf", "pillion-a-metrics", "pillion-b-cache"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			decision := profiles.Decide(all(test.cacheHas), web(),
				podOf(t, asking("a-metrics,b-cache,c-conf,d-site,e-site"), `{containers: [{name: app}]}`))
			if diff := cmp.Diff(test.want, initNames(decision.Pod())); diff != "" {
				t.Errorf("%s\n%s", diff, decision.Denial())
			}
		})
	}
}
