package admission

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

func TestWhoGetsWhat(t *testing.T) {
	create(t, site("who-site"))
	create(t, cache("who-cache"))
	createReady(t, matching(clusterProfile("who-policy", v1alpha1.Pattern{CacheAmbassador: &v1alpha1.CacheAmbassador{
		Protocol: v1alpha1.CacheProtocolMemcached, EnvPrefix: "POLICY", Local: &v1alpha1.LocalCache{},
	}}), "who-policy", v1alpha1.FailurePolicyIgnore))
	plain := namespace(t, nil)
	labeled := namespace(t, map[string]string{v1alpha1.InjectKey: "who-site.who-cache"})
	declining := namespace(t, map[string]string{v1alpha1.InjectKey: v1alpha1.None})
	chosen := namespace(t, map[string]string{"who-policy": ""})
	chosenAndDeclining := namespace(t, map[string]string{"who-policy": "", v1alpha1.InjectKey: v1alpha1.None})
	shadowing := namespace(t, nil)
	create(t, inNamespace(shadowing, cache("who-site")))
	inside := namespace(t, nil)
	policy := inNamespace(inside, cache("inside"))
	policy.Spec.Match = &v1alpha1.PodMatch{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}
	createReady(t, policy)

	for _, test := range []struct {
		name string
		pod  *corev1.Pod
		edit func(*corev1.Pod)
		want []string
	}{
		{name: "a Pod that asks for nothing gets nothing", pod: pod(plain)},
		{
			name: "a Pod gets what its annotation asks for",
			pod:  pod(plain, v1alpha1.InjectKey, "who-site"), want: []string{"pillion-who-site"},
		},
		{
			name: "names may have spaces around them and come in any order",
			pod:  pod(plain, v1alpha1.InjectKey, " who-site , who-cache"), want: []string{"pillion-who-cache", "pillion-who-site"},
		},
		{
			name: "a Pod gets what the label of its namespace asks for",
			pod:  pod(labeled), want: []string{"pillion-who-cache", "pillion-who-site"},
		},
		{
			name: "the annotation replaces the label",
			pod:  pod(labeled, v1alpha1.InjectKey, "who-cache"), want: []string{"pillion-who-cache"},
		},
		{name: "a Pod may decline what its namespace asks for", pod: pod(labeled, v1alpha1.InjectKey, v1alpha1.None)},
		{name: "a namespace may decline", pod: pod(declining)},
		{
			name: "a Pod may ask where its namespace declines",
			pod:  pod(declining, v1alpha1.InjectKey, "who-site"), want: []string{"pillion-who-site"},
		},
		{name: "policy chooses a Pod that asks for nothing", pod: pod(chosen), want: []string{"pillion-who-policy"}},
		{
			name: "policy adds to what is asked for",
			pod:  pod(chosen, v1alpha1.InjectKey, "who-site"), want: []string{"pillion-who-policy", "pillion-who-site"},
		},
		{name: "a Pod may decline policy", pod: pod(chosen, v1alpha1.InjectKey, v1alpha1.None)},
		{name: "a namespace may decline policy", pod: pod(chosenAndDeclining)},
		{
			name: "policy within a namespace chooses by the Pod's labels",
			pod:  pod(inside), edit: func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} },
			want: []string{"pillion-inside"},
		},
		{name: "policy within a namespace leaves other Pods", pod: pod(inside)},
		{
			name: "a profile of the namespace shadows the cluster's",
			pod:  pod(shadowing, v1alpha1.InjectKey, "who-site"), want: []string{"pillion-who-site"},
		},
		{
			name: "a mirror Pod is never touched", pod: pod(plain, v1alpha1.InjectKey, "who-site", corev1.MirrorPodAnnotationKey, "x"),
			edit: func(p *corev1.Pod) { p.Spec.NodeName = "node"; p.Spec.AutomountServiceAccountToken = new(false) },
		},
		{name: "an excluded namespace is never touched", pod: pod(excludedNamespace, v1alpha1.InjectKey, "no-such-profile")},
		{name: "Pillion's own namespace is never touched", pod: pod(ownNamespace, v1alpha1.InjectKey, "no-such-profile")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.edit != nil {
				test.edit(test.pod)
			}
			if test.pod.Namespace == excludedNamespace {
				createDefaultServiceAccount(t, excludedNamespace)
			}
			stored, warnings := admit(t, test.pod)
			got := added(stored)
			slices.Sort(got)
			if diff := cmp.Diff(append([]string{}, test.want...), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if _, marked := stored.Annotations[v1alpha1.InjectedKey]; marked != (len(test.want) > 0) || len(warnings) > 0 {
				t.Errorf("annotations %v, warnings %q", stored.Annotations, warnings)
			}
			if test.want == nil && stored.Labels[v1alpha1.InjectedKey] != "" {
				t.Errorf("labels %v", stored.Labels)
			}
		})
	}
}

func createDefaultServiceAccount(t *testing.T, namespace string) {
	t.Helper()
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}})
}

func TestAPodOverridesWhatTheProfileLets(t *testing.T) {
	profile := site("override-site")
	profile.Spec.Overridable = []string{"ref", "resources.limits"}
	create(t, profile)
	stored, _ := admit(t, pod(namespace(t, nil), v1alpha1.InjectKey, "override-site",
		v1alpha1.OverrideKey("override-site", "ref"), "v2.1",
		v1alpha1.OverrideKey("override-site", "resources.limits.memory"), "512Mi"))
	if len(stored.Spec.InitContainers) != 1 {
		t.Fatalf("init containers %v", stored.Spec.InitContainers)
	}
	injected := stored.Spec.InitContainers[0]
	memory := injected.Resources.Limits[corev1.ResourceMemory]
	if !slices.Contains(injected.Args, "--ref=v2.1") || memory.String() != "512Mi" {
		t.Errorf("args %q, limits %v", injected.Args, injected.Resources.Limits)
	}
	if cpu := injected.Resources.Limits[corev1.ResourceCPU]; cpu.IsZero() {
		t.Error("the override of the memory took the CPU's limit away")
	}
}

func TestADenialHasEveryProblem(t *testing.T) {
	profile := site("denied-site")
	profile.Spec.Overridable = []string{"period"}
	create(t, profile)
	other := site("denied-elsewhere")
	other.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "another"}}
	create(t, other)
	p := pod(namespace(t, nil), v1alpha1.InjectKey, "denied-site, denied-elsewhere, no-such-profile, Not_A_Name",
		v1alpha1.OverrideKey("denied-site", "ref"), "v2.1", v1alpha1.OverrideKey("denied-site", "period"), "-3s")
	message := refuse(t, p)
	if err := missing(message,
		"profile denied-elsewhere is not available", "profile no-such-profile is not available", `"Not_A_Name"`,
		"does not let Pods change ref", "ProfileNotAvailable", "InvalidRequest", "FieldNotOverridable",
	); err != nil {
		t.Error(err)
	}
	delete(p.Annotations, v1alpha1.OverrideKey("denied-site", "ref"))
	if err := missing(refuse(t, p), "-3s", "InvalidOverride"); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeWovenIsDecidedByTheFailurePolicy(t *testing.T) {
	createReady(t, matching(site("policy-ignore"), "policy-ignore", v1alpha1.FailurePolicyIgnore))
	createReady(t, matching(site("policy-fail"), "policy-fail", v1alpha1.FailurePolicyFail))
	taken := func(namespace string, annotations ...string) *corev1.Pod {
		p := pod(namespace, annotations...)
		for i := range p.Spec.Containers {
			p.Spec.Containers[i].VolumeMounts = []corev1.VolumeMount{{Name: "templates", MountPath: "/srv/site"}}
		}
		return p
	}
	ignored := namespace(t, map[string]string{"policy-ignore": ""})
	stored, warnings := admit(t, taken(ignored))
	if len(added(stored)) > 0 || missing(stored.Annotations[v1alpha1.SkippedKey], "policy-ignore", "MountPathCollision") != nil {
		t.Errorf("added %q, annotations %v", added(stored), stored.Annotations)
	}
	if len(warnings) == 0 || missing(warnings[0], "policy-ignore", "/srv/site", "MountPathCollision") != nil {
		t.Errorf("warnings %q", warnings)
	}
	message := refuse(t, taken(namespace(t, map[string]string{"policy-fail": ""})))
	if err := missing(message, "policy-fail", "/srv/site", "MountPathCollision"); err != nil {
		t.Error(err)
	}
	if err := missing(refuse(t, taken(ignored, v1alpha1.InjectKey, "policy-ignore")), "MountPathCollision"); err != nil {
		t.Errorf("asked for by name: %v", err)
	}
}

// TestNothingOfTheUsersIsChanged compares a woven Pod with the same Pod in a namespace of its own.
func TestNothingOfTheUsersIsChanged(t *testing.T) {
	create(t, cache("additive"))
	in := namespace(t, nil)
	before, _ := admit(t, pod(in))
	after, _ := admit(t, pod(in, v1alpha1.InjectKey, "additive"))
	for i := range before.Spec.Containers {
		was, is := &before.Spec.Containers[i], &after.Spec.Containers[i]
		is.Env = slices.DeleteFunc(is.Env, func(e corev1.EnvVar) bool {
			return slices.Contains([]string{"CACHE_HOST", "CACHE_PORT", "CACHE_ADDRESS"}, e.Name)
		})
		for _, c := range []*corev1.Container{was, is} {
			if len(c.Env) == 0 {
				c.Env = nil
			}
			c.VolumeMounts[len(c.VolumeMounts)-1].Name = "token" // of the ServiceAccount, with a random name
		}
		if diff := cmp.Diff(was, is); diff != "" {
			t.Errorf("%s (-before +after):\n%s", field.NewPath("spec", "containers").Index(i), diff)
		}
	}
}

func TestANamespaceSetsParametersForItsPods(t *testing.T) {
	profile := site("inherit-site")
	profile.Spec.Overridable = []string{"ref"}
	create(t, profile)
	prod := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "inherit-", Annotations: map[string]string{"inherit-site.pillion.dev/ref": "prod"},
	}}
	create(t, prod)
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: prod.Name, Name: "default"}})
	for want, annotations := range map[string][]string{
		"--ref=prod": {v1alpha1.InjectKey, "inherit-site"},
		"--ref=v2":   {v1alpha1.InjectKey, "inherit-site", "inherit-site.pillion.dev/ref", "v2"},
	} {
		stored, warnings := admit(t, pod(prod.Name, annotations...))
		if arguments := containerOf(t, stored, "pillion-inherit-site").Args; !slices.Contains(arguments, want) || len(warnings) > 0 {
			t.Errorf("want %s in %q and no warning, got %q", want, arguments, warnings)
		}
	}
}
