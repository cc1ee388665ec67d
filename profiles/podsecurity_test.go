package profiles

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/weave"
)

// hardened returns a security context that the Pod Security Standard "restricted" allows; change sets what it differs by.
func hardened(change func(*corev1.SecurityContext)) *corev1.SecurityContext {
	security := &corev1.SecurityContext{
		RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if change != nil {
		change(security)
	}
	return security
}

func containerWith(name string, change func(*corev1.SecurityContext)) corev1.Container {
	return corev1.Container{Name: name, SecurityContext: hardened(change)}
}

func namespaceAt(level string) Namespace {
	return Namespace{Name: "web", Labels: map[string]string{api.EnforceLevelLabel: level}}
}

func TestOnlyWhatWeavingAddsIsAViolation(t *testing.T) {
	escalating := func(s *corev1.SecurityContext) { s.AllowPrivilegeEscalation = nil }
	asRoot := func(s *corev1.SecurityContext) { s.RunAsNonRoot, s.RunAsUser = new(false), new(int64(0)) }
	privileged := func(s *corev1.SecurityContext) { s.Privileged = new(true) }
	unsettled := func(s *corev1.SecurityContext) { s.RunAsNonRoot, s.SeccompProfile = nil, nil }
	fragmentOf := func(change func(*corev1.SecurityContext)) weave.Fragment {
		return weave.Fragment{Profile: "x", Containers: []corev1.Container{containerWith("pillion-x", change)}}
	}
	podOf := func(change func(*corev1.SecurityContext), spec func(*corev1.PodSpec)) *corev1.Pod {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{containerWith("app", change)}}}
		if spec != nil {
			spec(&pod.Spec)
		}
		return pod
	}
	const escalation = `allowPrivilegeEscalation != false (container "pillion-x" must set ` +
		`securityContext.allowPrivilegeEscalation=false)`
	hostPath := corev1.Volume{Name: "pillion-x-host", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: "/"},
	}}
	tests := map[string]struct {
		namespace Namespace
		user      string
		pod       *corev1.Pod
		fragment  weave.Fragment
		want      []string
	}{
		"what meets the standard": {
			namespace: namespaceAt("restricted"), pod: podOf(nil, nil), fragment: fragmentOf(nil),
		},
		"what does not, in the words of the check": {
			namespace: namespaceAt("restricted"), pod: podOf(nil, nil), fragment: fragmentOf(escalating), want: []string{escalation},
		},
		"what the Pod violates itself is the Pod's own": {
			namespace: namespaceAt("restricted"), pod: podOf(escalating, nil), fragment: fragmentOf(nil),
		},
		"what the Pod violates as well is told of what is added only": {
			namespace: namespaceAt("restricted"), pod: podOf(escalating, nil), fragment: fragmentOf(escalating),
			want: []string{escalation},
		},
		"a sidecar counts as a container does": {
			namespace: namespaceAt("restricted"), pod: podOf(nil, nil),
			fragment: weave.Fragment{InitContainers: []corev1.Container{containerWith("pillion-x", escalating)}},
			want:     []string{escalation},
		},
		"a volume": {
			namespace: namespaceAt("baseline"), pod: podOf(nil, nil), fragment: weave.Fragment{Volumes: []corev1.Volume{hostPath}},
			want: []string{`hostPath volumes (volume "pillion-x-host")`},
		},
		"a lower level asks for less": {
			namespace: namespaceAt("baseline"), pod: podOf(nil, nil), fragment: fragmentOf(escalating),
		},
		"nothing is enforced on the privileged": {
			namespace: namespaceAt("privileged"), pod: podOf(nil, nil), fragment: fragmentOf(privileged),
		},
		"the cluster's default, where the namespace has no label": {
			namespace: Namespace{Name: "web"}, pod: podOf(nil, nil), fragment: fragmentOf(privileged),
			want: []string{`privileged (container "pillion-x" must not set securityContext.privileged=true)`},
		},
		"a label that cannot be read is the strictest": {
			namespace: namespaceAt("strict"), pod: podOf(nil, nil), fragment: fragmentOf(escalating), want: []string{escalation},
		},
		"an older version of the standard has fewer checks": {
			namespace: Namespace{Name: "web", Labels: map[string]string{
				api.EnforceLevelLabel: "restricted", api.EnforceVersionLabel: "v1.7",
			}},
			pod: podOf(nil, nil), fragment: fragmentOf(escalating),
		},
		"an exempt namespace": {
			namespace: Namespace{Name: "infra", Labels: namespaceAt("restricted").Labels}, pod: podOf(nil, nil),
			fragment: fragmentOf(privileged),
		},
		"an exempt user": {
			namespace: namespaceAt("restricted"), user: "builder", pod: podOf(nil, nil), fragment: fragmentOf(privileged),
		},
		"an exempt runtime class": {
			namespace: namespaceAt("restricted"), fragment: fragmentOf(privileged),
			pod: podOf(nil, func(spec *corev1.PodSpec) { spec.RuntimeClassName = new("kata") }),
		},
		"settings of the Pod are not the profile's": {
			namespace: namespaceAt("restricted"), fragment: fragmentOf(nil),
			pod: podOf(nil, func(spec *corev1.PodSpec) {
				spec.HostNetwork = true
				spec.SecurityContext = &corev1.PodSecurityContext{
					RunAsUser: new(int64(0)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
				}
			}),
		},
		"what the Pod settles for all its containers": {
			namespace: namespaceAt("restricted"), fragment: fragmentOf(unsettled),
			pod: podOf(nil, func(spec *corev1.PodSpec) {
				spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: hardened(nil).SeccompProfile}
			}),
		},
		"what nobody settles": {
			namespace: namespaceAt("restricted"), fragment: fragmentOf(unsettled), pod: podOf(nil, nil),
			want: []string{
				`runAsNonRoot != true (pod or container "pillion-x" must set securityContext.runAsNonRoot=true)`,
				`seccompProfile (pod or container "pillion-x" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`,
			},
		},
		"root": {
			namespace: namespaceAt("restricted"), fragment: fragmentOf(asRoot), pod: podOf(nil, nil),
			want: []string{
				`runAsNonRoot != true (container "pillion-x" must not set securityContext.runAsNonRoot=false)`,
				`runAsUser=0 (container "pillion-x" must not set runAsUser=0)`,
			},
		},
		"root that is none outside the Pod": {
			namespace: namespaceAt("restricted"), fragment: fragmentOf(asRoot),
			pod: podOf(nil, func(spec *corev1.PodSpec) { spec.HostUsers = new(false) }),
		},
	}
	security := newPodSecurity(PodSecurity{
		Enforce: "baseline", ExemptUsernames: []string{"builder"}, ExemptNamespaces: []string{"infra"},
		ExemptRuntimeClasses: []string{"kata"},
	})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := test.pod.DeepCopy()
			got := security.violations(test.namespace, test.user, test.pod, &test.fragment)
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, test.pod); diff != "" {
				t.Errorf("the Pod was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// What is remembered of a Fragment without a Pod must hold for every Pod: the woven Pod has no violation that the Pod itself has
// not and that is not among those.
func TestAFragmentAloneShowsEverythingThatItCanAdd(t *testing.T) {
	security := newPodSecurity(PodSecurity{})
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.SampledFrom([]string{"baseline", "restricted"}).Draw(t, "level")
		version := rapid.SampledFrom([]string{"latest", "v1.0", "v1.8", "v1.19", "v1.22", "v1.25", "v1.34"}).Draw(t, "version")
		namespace := namespaceAt(level)
		namespace.Labels[api.EnforceVersionLabel] = version
		pod := &corev1.Pod{Spec: drawPodSpec(t)}
		fragment := &weave.Fragment{
			InitContainers: drawContainers(t, "pillion-init"), Containers: drawContainers(t, "pillion-x"), Volumes: drawVolumes(t, "pillion-x"),
		}
		at, applies := security.level(namespace, "", pod)
		if !applies {
			t.Fatalf("%s is not enforced", level)
		}
		alone := security.fragmentViolations(at, fragment)
		added := security.violations(namespace, "", pod, fragment)
		for _, violation := range added {
			if !slices.Contains(alone, violation) {
				t.Errorf("%s is not among %q", violation, alone)
			}
		}
		before, woven := evaluate(at, pod), evaluate(at, withFragment(pod, fragment))
		for i := range woven {
			isNew := !woven[i].Allowed && woven[i] != before[i]
			named := slices.ContainsFunc(added, func(violation string) bool {
				return strings.HasPrefix(violation, woven[i].ForbiddenReason)
			})
			if isNew && !named {
				t.Errorf("the woven Pod violates %s (%s), the Pod alone %s, and the Fragment alone %q", woven[i].ForbiddenReason,
					woven[i].ForbiddenDetail, before[i].ForbiddenDetail, alone)
			}
		}
	})
}

func drawPodSpec(t *rapid.T) corev1.PodSpec {
	spec := corev1.PodSpec{Containers: drawContainers(t, "app"), Volumes: drawVolumes(t, "app"), HostNetwork: rapid.Bool().Draw(t, "network")}
	spec.HostUsers = rapid.SampledFrom([]*bool{nil, new(false), new(true)}).Draw(t, "hostUsers")
	if rapid.Bool().Draw(t, "a security context of the Pod") {
		drawn := drawSecurity(t)
		spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsNonRoot: drawn.RunAsNonRoot, RunAsUser: drawn.RunAsUser, SeccompProfile: drawn.SeccompProfile,
			AppArmorProfile: drawn.AppArmorProfile, SELinuxOptions: drawn.SELinuxOptions,
		}
	}
	return spec
}

func drawContainers(t *rapid.T, name string) []corev1.Container {
	containers := make([]corev1.Container, rapid.IntRange(0, 2).Draw(t, "number of "+name))
	for i := range containers {
		containers[i].Name = fmt.Sprintf("%s-%d", name, i)
		if !rapid.Bool().Draw(t, "no security context") {
			containers[i].SecurityContext = drawSecurity(t)
		}
		containers[i].Ports = []corev1.ContainerPort{{HostPort: rapid.SampledFrom([]int32{0, 80}).Draw(t, "hostPort")}}
		containers[i].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Host: rapid.SampledFrom([]string{"", "10.0.0.1"}).Draw(t, "probe's host")},
		}}
	}
	return containers
}

func drawSecurity(t *rapid.T) *corev1.SecurityContext {
	flag := func(label string) *bool { return rapid.SampledFrom([]*bool{nil, new(false), new(true)}).Draw(t, label) }
	capabilities := func(label string) []corev1.Capability {
		return rapid.SampledFrom([][]corev1.Capability{nil, {"ALL"}, {"NET_ADMIN"}, {"NET_BIND_SERVICE"}}).Draw(t, label)
	}
	security := &corev1.SecurityContext{
		Privileged: flag("privileged"), RunAsNonRoot: flag("runAsNonRoot"), AllowPrivilegeEscalation: flag("escalation"),
		RunAsUser:    rapid.SampledFrom([]*int64{nil, new(int64(0)), new(int64(1))}).Draw(t, "runAsUser"),
		Capabilities: &corev1.Capabilities{Add: capabilities("add"), Drop: capabilities("drop")},
		ProcMount:    rapid.SampledFrom([]*corev1.ProcMountType{nil, new(corev1.UnmaskedProcMount)}).Draw(t, "procMount"),
	}
	if seccomp := rapid.SampledFrom([]string{"", "RuntimeDefault", "Unconfined"}).Draw(t, "seccomp"); seccomp != "" {
		security.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileType(seccomp)}
	}
	if armor := rapid.SampledFrom([]string{"", "RuntimeDefault", "Unconfined"}).Draw(t, "AppArmor"); armor != "" {
		security.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileType(armor)}
	}
	if linux := rapid.SampledFrom([]string{"", "container_t", "spc_t"}).Draw(t, "SELinux"); linux != "" {
		security.SELinuxOptions = &corev1.SELinuxOptions{Type: linux}
	}
	return security
}

func drawVolumes(t *rapid.T, name string) []corev1.Volume {
	volumes := make([]corev1.Volume, rapid.IntRange(0, 2).Draw(t, "number of volumes of "+name))
	for i := range volumes {
		volumes[i].Name = fmt.Sprintf("%s-%d", name, i)
		volumes[i].VolumeSource = rapid.SampledFrom([]corev1.VolumeSource{
			{EmptyDir: &corev1.EmptyDirVolumeSource{}}, {HostPath: &corev1.HostPathVolumeSource{}}, {NFS: &corev1.NFSVolumeSource{}},
		}).Draw(t, "volume")
	}
	return volumes
}

func TestRestrictedViolations(t *testing.T) {
	const custom = `custom: {parameters: [%s], template: {containers: [{image: "example.com/a", securityContext: %s, args: ["%s"]}]}}`
	tests := map[string]struct {
		spec      string
		want      []string
		wantKnown bool
	}{
		"every built-in pattern meets the standard": {
			spec: `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}`, wantKnown: true,
		},
		"a custom pattern that asks for nothing else does too": {spec: fmt.Sprintf(custom, "", "{}", "a"), wantKnown: true},
		"a custom pattern that asks for more": {
			spec: fmt.Sprintf(custom, "", "{allowPrivilegeEscalation: true}", "a"), wantKnown: true,
			want: []string{`allowPrivilegeEscalation != false (container "pillion-x" must set ` +
				`securityContext.allowPrivilegeEscalation=false)`},
		},
		"what takes a parameter that Pods give is not known": {
			spec: fmt.Sprintf(custom, "{name: a, type: string, required: true}", "{}", "${params.a}") + "\n  overridable: [a]",
		},
		"what takes an annotation of the Pod is not known": {
			spec: fmt.Sprintf(custom, "", "{}", `${pod.metadata.annotations['a']}`),
		},
		"what reads the Pod is not known, whatever an ordinary one gets": {
			spec: fmt.Sprintf(custom, "", "{runAsUser: \"${'debug' in pod.metadata.?labels.orValue({}) ? 0 : 1000}\"}", "a"),
		},
		"nor what reads the namespace": {
			spec: fmt.Sprintf(custom, "", "{}", "${namespace.metadata.name}"),
		},
		"a violation that an ordinary Pod shows is one, whatever others get": {
			spec:      fmt.Sprintf(custom, "", "{allowPrivilegeEscalation: \"${!('strict' in pod.metadata.?labels.orValue({}))}\"}", "a"),
			wantKnown: true,
			want: []string{`allowPrivilegeEscalation != false (container "pillion-x" must set ` +
				`securityContext.allowPrivilegeEscalation=false)`},
		},
		"what reads only parameters with defaults is known": {
			spec:      fmt.Sprintf(custom, "{name: a, type: boolean, default: true}", `{runAsNonRoot: "${params.a}"}`, "${profile.name}"),
			wantKnown: true,
		},
		"a profile that cannot be used is not known": {spec: "gitSync: {}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			profile := compiledFrom(t, test.spec)
			got, known := RestrictedViolations(profile)
			if diff := cmp.Diff(test.want, got); diff != "" || known != test.wantKnown {
				t.Errorf("known: %t, want %t (problems %v); (-want +got):\n%s", known, test.wantKnown, profile.Problems, diff)
			}
		})
	}
	if _, known := RestrictedViolations(nil); known {
		t.Error("no profile at all is known")
	}
}

// compiledFrom compiles a ClusterPatternProfile called x, which may have problems.
func compiledFrom(t *testing.T, spec string) *Profile {
	t.Helper()
	compiler, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	object := map[string]any{}
	document := "apiVersion: pillion.dev/v1alpha1\nkind: ClusterPatternProfile\nmetadata: {name: x}\nspec:\n  " + spec
	if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
		t.Fatal(err)
	}
	profile, _ := compiler.Object(object)
	return profile
}
