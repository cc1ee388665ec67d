package weave_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/weave"
)

// light is a Fragment without containers.
func light() weave.Fragment {
	fragment := site()
	fragment.InitContainers, fragment.Ports = nil, nil
	fragment.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	fragment.HostAliases = []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"db", "queue"}}}
	return fragment
}

func TestAFragmentWithoutContainersIsPresentIfAllOfItIs(t *testing.T) {
	const spec = `{containers: [{name: app, env: [{name: SITE, value: mine}],
          volumeMounts: [{name: pillion-site, mountPath: /srv/site}]},
          {name: istio-proxy}], volumes: [{name: pillion-site}], imagePullSecrets: [{name: pull}],
          hostAliases: [{ip: 10.0.0.1, hostnames: [queue]}, {ip: 10.0.0.1, hostnames: [db]}]}`
	tests := map[string]struct {
		change func(*corev1.Pod, *weave.Fragment)
		want   bool
	}{
		"all of it": {func(*corev1.Pod, *weave.Fragment) {}, true},
		"a volume is not there": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.Volumes = nil
		}, false},
		"an annotation of another value": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Annotations["prometheus.io/port"] = "1"
		}, false},
		"a label is not there": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Labels = nil
		}, false},
		"a label without a value is not there": {func(pod *corev1.Pod, fragment *weave.Fragment) {
			pod.Labels, fragment.Labels = nil, map[string]string{"site": ""}
		}, false},
		"a pull secret is not there": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "other"}}
		}, false},
		"a host name has another address": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.HostAliases[1].IP = "10.0.0.2"
		}, false},
		"a variable is not there": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.Containers[0].Env = nil
		}, false},
		"another volume is mounted": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.Containers[0].VolumeMounts[0].Name = "data"
		}, false},
		"the volume is mounted elsewhere": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.Containers[0].VolumeMounts[0].MountPath = "/srv"
		}, false},
		"one more container of the app has none of it": {func(pod *corev1.Pod, _ *weave.Fragment) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "web"})
		}, false},
		"a container that is named is not there": {func(_ *corev1.Pod, fragment *weave.Fragment) {
			fragment.Additions = append(fragment.Additions, weave.Addition{Containers: []string{"web"}})
		}, false},
		"a Fragment that adds nothing": {func(_ *corev1.Pod, fragment *weave.Fragment) {
			*fragment = weave.Fragment{Additions: []weave.Addition{{}}, HostAliases: []corev1.HostAlias{{IP: "10.0.0.1"}}}
		}, false},
		"one label alone": {func(_ *corev1.Pod, fragment *weave.Fragment) {
			*fragment = weave.Fragment{Labels: map[string]string{"site": "on"}}
		}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := podWith(t, `{annotations: {prometheus.io/port: "9102"}, labels: {site: "on"}}`, spec), light()
			test.change(pod, &fragment)
			if got := weave.IsPresent(pod, &fragment, options()); got != test.want {
				t.Errorf("the Fragment is present: %t", got)
			}
		})
	}
}

func TestAFragmentIsPresentOnceItIsWoven(t *testing.T) {
	pod := podWith(t, `{}`, `{containers: [{name: app, env: [{name: SITE}]}, {name: web}],
          hostAliases: [{ip: 10.0.0.1, hostnames: [db]}]}`)
	fragment := light()
	if weave.IsPresent(pod, &fragment, options()) {
		t.Error("the Fragment is present before it is woven")
	}
	weaver := weave.NewWeaver(pod, options())
	if problems := weaver.Add(fragment); len(problems) > 0 {
		t.Fatal(problems)
	}
	woven, _ := weaver.Weave(nil, weave.Marks{})
	if !weave.IsPresent(woven, &fragment, options()) {
		t.Error("the Fragment is not present although it is woven")
	}
	if got := weave.Differences(woven, &fragment, options()); len(got) > 0 {
		t.Errorf("a woven Pod differs: %q", got)
	}
}

// heldFragment is a Fragment with everything that is compared, in YAML as a Pod's spec.
const heldFragment = `
initContainers:
- name: pillion-x-first
  image: first:1
- name: pillion-x
  image: sync:1
  restartPolicy: Always
  command: [/sync]
  args: [--one, --two]
  env: [{name: A, value: a}, {name: EMPTY}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
  ports: [{containerPort: 9102}]
  resources: {limits: {memory: 64Mi}}
  securityContext: {runAsNonRoot: true, capabilities: {drop: [ALL]}}
  startupProbe: {httpGet: {port: 9102}}
  volumeMounts: [{name: pillion-x, mountPath: /data}]
containers:
- name: pillion-x-late
  image: late:1
volumes:
- name: pillion-x
  emptyDir: {sizeLimit: 1Gi}
- name: pillion-x-config
  downwardAPI: {items: [{path: config, fieldRef: {fieldPath: "metadata.annotations['c']"}}]}
`

// heldPod is what the API server makes of a Pod with it, edited by webhooks that may do so.
const heldPod = `
initContainers:
- name: pillion-x-first
  image: first:1
  terminationMessagePath: /dev/termination-log
- name: injected-by-others
- name: pillion-x
  image: sync:1
  imagePullPolicy: Always
  restartPolicy: Always
  command: [/sync]
  args: [--one, --two]
  env:
  - {name: A, value: a}
  - {name: EMPTY}
  - {name: NODE, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: spec.nodeName}}}
  ports: [{containerPort: 9102, protocol: TCP}]
  resources: {limits: {memory: 128Mi, cpu: 1}}
  securityContext: {runAsNonRoot: true, capabilities: {drop: [ALL]}}
  startupProbe:
    {httpGet: {port: 9102, path: /, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}
  terminationMessagePath: /dev/termination-log
  terminationMessagePolicy: File
  volumeMounts:
  - {name: pillion-x, mountPath: /data}
  - {name: kube-api-access, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
- name: setup
containers:
- name: app
  env: [{name: SITE, value: mine}]
  volumeMounts: [{name: pillion-x, mountPath: /srv/site}]
- name: pillion-x-late
  image: late:1
  securityContext: {}
volumes:
- name: pillion-x
  emptyDir: {sizeLimit: "1073741824"}
- name: pillion-x-config
  downwardAPI: {defaultMode: 420, items: [{path: config, fieldRef: {apiVersion: v1, fieldPath: "metadata.annotations['c']"}}]}
imagePullSecrets: [{name: pull}]
hostAliases: [{ip: 10.0.0.1, hostnames: [db]}]
`

func held(t *testing.T) weave.Fragment {
	t.Helper()
	spec := corev1.PodSpec{}
	if err := yaml.UnmarshalStrict([]byte(heldFragment), &spec); err != nil {
		t.Fatal(err)
	}
	return weave.Fragment{
		Profile:        "x",
		InitContainers: spec.InitContainers,
		Containers:     spec.Containers,
		Volumes:        spec.Volumes,
		Annotations:    map[string]string{"c": "config"},
		Labels:         map[string]string{"x": "on"},
		Additions: []weave.Addition{{
			Env:          []corev1.EnvVar{{Name: "SITE", Value: "/srv/site"}},
			VolumeMounts: []corev1.VolumeMount{{Name: "pillion-x", MountPath: "/srv/site"}},
		}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		HostAliases:      []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"db"}}},
	}
}

func heldIn(t *testing.T) *corev1.Pod {
	t.Helper()
	pod := podWith(t, `{annotations: {c: config}, labels: {x: "on"}}`, `{}`)
	if err := yaml.UnmarshalStrict([]byte(heldPod), &pod.Spec); err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestDifferencesOfThePodAroundContainers(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.PodSpec)
		want   []string
	}{
		"what the API server and other webhooks set": {func(*corev1.PodSpec) {}, nil},
		"a container is missing": {func(spec *corev1.PodSpec) {
			spec.InitContainers = spec.InitContainers[2:]
		}, []string{"container pillion-x-first, which profile x adds, is missing"}},
		"an init container of the Pod's own comes first": {func(spec *corev1.PodSpec) {
			spec.InitContainers[0], spec.InitContainers[1] = spec.InitContainers[1], spec.InitContainers[0]
		}, precedes("injected-by-others")},
		"a mesh and another profile come first": {func(spec *corev1.PodSpec) {
			spec.InitContainers = append([]corev1.Container{{Name: "istio-init"}, {Name: "pillion-other"}}, spec.InitContainers...)
		}, nil},
		"all init containers are missing": {func(spec *corev1.PodSpec) {
			spec.InitContainers = spec.InitContainers[3:]
		}, []string{
			"container pillion-x-first, which profile x adds, is missing",
			"container pillion-x, which profile x adds, is missing",
		}},
		"an ephemeral container is none of ours": {func(spec *corev1.PodSpec) {
			spec.Containers = spec.Containers[:1]
			spec.EphemeralContainers = []corev1.EphemeralContainer{
				{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "pillion-x-late", Image: "late:1"}},
			}
		}, []string{"container pillion-x-late, which profile x adds, is missing"}},
		"a container is in the wrong list": {func(spec *corev1.PodSpec) {
			spec.InitContainers = append(spec.InitContainers, spec.Containers[1])
			spec.Containers = spec.Containers[:1]
		}, []string{"container pillion-x-late has to be a regular container, as profile x says"}},
		"the order is another": {func(spec *corev1.PodSpec) {
			spec.InitContainers[0], spec.InitContainers[2] = spec.InitContainers[2], spec.InitContainers[0]
		}, []string{"container pillion-x starts before container pillion-x-first, and profile x has it start after it"}},
		"a volume is missing": {func(spec *corev1.PodSpec) {
			spec.Volumes = spec.Volumes[:1]
		}, []string{"volume pillion-x-config, which profile x adds, is missing"}},
		"a volume has another source": {func(spec *corev1.PodSpec) {
			spec.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
		}, []string{
			`volume pillion-x is without emptyDir, which profile x sets to {"sizeLimit":"1Gi"}`,
			`volume pillion-x has hostPath set to {"path":"/"}, which profile x does not set`,
		}},
		"a volume has another item": {func(spec *corev1.PodSpec) {
			spec.Volumes[1].DownwardAPI.Items[0].Path = "other"
		}, []string{`volume pillion-x-config has downwardAPI.items[0].path set to "other", and profile x says "config"`}},
		"the app lacks what it gains": {func(spec *corev1.PodSpec) {
			spec.Containers[0].Env, spec.Containers[0].VolumeMounts = nil, nil
		}, []string{
			"container app is without SITE in its environment, which profile x sets",
			"container app is without volume pillion-x at /srv/site, which profile x mounts",
		}},
		"secrets and hosts are missing": {func(spec *corev1.PodSpec) {
			spec.ImagePullSecrets, spec.HostAliases = nil, nil
		}, []string{
			"image pull secret pull, which profile x adds, is missing",
			"host alias db for 10.0.0.1, which profile x adds, is missing",
		}},
		"a host name has another address, too": {func(spec *corev1.PodSpec) {
			spec.HostAliases = append([]corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"other", "db"}}}, spec.HostAliases...)
		}, []string{"host alias db has the address 127.0.0.1, and profile x gives it no other than 10.0.0.1"}},
		"a host name has an address of the other family, too": {func(spec *corev1.PodSpec) {
			spec.HostAliases = append(spec.HostAliases, corev1.HostAlias{IP: "::1", Hostnames: []string{"db"}})
		}, []string{"host alias db has the address ::1, and profile x gives it no other than 10.0.0.1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			test.change(&pod.Spec)
			if diff := cmp.Diff(test.want, weave.Differences(pod, &fragment, options())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDifferencesOfMetadata(t *testing.T) {
	pod, fragment := heldIn(t), held(t)
	pod.Annotations["c"], pod.Labels = "<other>", nil
	want := []string{
		`annotation c is "<other>", and profile x says "config"`,
		"label x, which profile x adds, is missing",
	}
	if diff := cmp.Diff(want, weave.Differences(pod, &fragment, options())); diff != "" {
		t.Error(diff)
	}
}

func TestDifferencesOfAContainer(t *testing.T) {
	sets := func(field, value string) string {
		return "container pillion-x has " + field + " set to " + value + ", which profile x does not set"
	}
	says := func(field, value, want string) string {
		return "container pillion-x has " + field + " set to " + value + ", and profile x says " + want
	}
	tests := map[string]struct {
		change func(*corev1.Container)
		want   string
	}{
		"another image":   {func(c *corev1.Container) { c.Image = "evil" }, says("image", `"evil"`, `"sync:1"`)},
		"another command": {func(c *corev1.Container) { c.Command[0] = "/bin/true" }, says("command[0]", `"/bin/true"`, `"/sync"`)},
		"one more argument": {
			func(c *corev1.Container) { c.Args = append(c.Args, "--three") },
			says("args", `["--one","--two","--three"]`, `["--one","--two"]`),
		},
		"arguments in another order": {
			func(c *corev1.Container) { c.Args = []string{"--one", "--one"} }, says("args[1]", `"--one"`, `"--two"`),
		},
		"no native sidecar": {
			func(c *corev1.Container) { c.RestartPolicy = nil },
			`container pillion-x is without restartPolicy, which profile x sets to "Always"`,
		},
		"another value of a variable": {func(c *corev1.Container) { c.Env[0].Value = "b" }, says("env[A].value", `"b"`, `"a"`)},
		"a value for an empty variable": {
			func(c *corev1.Container) { c.Env[1].Value = "b" }, sets("env[EMPTY].value", `"b"`),
		},
		"a variable once more": {
			func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "A", Value: "b"}) },
			says("env[A]", `[{"name":"A","value":"a"},{"name":"A","value":"b"}]`, `[{"name":"A","value":"a"}]`),
		},
		"a variable is missing": {
			func(c *corev1.Container) { c.Env = c.Env[1:] },
			`container pillion-x is without env[A], which profile x sets to {"name":"A","value":"a"}`,
		},
		"a variable that the profile does not set": {
			func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "PATH", Value: "/x"}) },
			sets("env[PATH]", `{"name":"PATH","value":"/x"}`),
		},
		"variables in another order": {
			func(c *corev1.Container) { c.Env[0], c.Env[2] = c.Env[2], c.Env[0] },
			"container pillion-x has env[NODE] before env[A], and profile x has it after it",
		},
		"variables from elsewhere": {
			func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{Prefix: "P"}} }, sets("envFrom", `[{"prefix":"P"}]`),
		},
		"another mount at the path": {
			func(c *corev1.Container) { c.VolumeMounts[0].Name = "data" }, says("volumeMounts[/data].name", `"data"`, `"pillion-x"`),
		},
		"a part of the volume": {
			func(c *corev1.Container) { c.VolumeMounts[0].SubPath = "x" }, sets("volumeMounts[/data].subPath", `"x"`),
		},
		"a mount that propagates": {
			func(c *corev1.Container) {
				c.VolumeMounts[0].MountPropagation = new(corev1.MountPropagationHostToContainer)
			},
			sets("volumeMounts[/data].mountPropagation", `"HostToContainer"`),
		},
		"one more mount": {
			func(c *corev1.Container) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/sync"})
			},
			sets("volumeMounts[/sync]", `{"mountPath":"/sync","name":"data"}`),
		},
		"a port of the node": {func(c *corev1.Container) { c.Ports[0].HostPort = 9102 }, sets("ports[9102/TCP].hostPort", "9102")},
		"privileged":         {privilege, sets("securityContext.privileged", "true")},
		"root":               {becomeRoot, sets("securityContext.runAsUser", "0")},
		"a capability":       {addCapability, sets("securityContext.capabilities.add", `["SYS_ADMIN"]`)},
		"a security setting is gone": {
			dropNonRoot, "container pillion-x is without securityContext.runAsNonRoot, which profile x sets to true",
		},
		"a terminal":              {func(c *corev1.Container) { c.TTY = true }, sets("tty", "true")},
		"a working directory":     {func(c *corev1.Container) { c.WorkingDir = "/x" }, sets("workingDir", `"/x"`)},
		"a probe that fails":      {addProbe, sets("livenessProbe", `{"exec":{"command":["false"]}}`)},
		"a probe that waits":      {delayProbe, sets("startupProbe.initialDelaySeconds", "3600")},
		"a probe of another port": {moveProbe, says("startupProbe.httpGet.port", "1", "9102")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			test.change(&pod.Spec.InitContainers[2])
			if diff := cmp.Diff([]string{test.want}, weave.Differences(pod, &fragment, options())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSecuritySettingsWhereTheProfileHasNone(t *testing.T) {
	pod, fragment := heldIn(t), held(t)
	pod.Spec.Containers[1].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
	want := []string{"container pillion-x-late has securityContext.privileged set to true, which profile x does not set"}
	if diff := cmp.Diff(want, weave.Differences(pod, &fragment, options())); diff != "" {
		t.Error(diff)
	}
}

func TestUnderHostNetworkEveryPortIsTheNodes(t *testing.T) {
	pod, fragment := heldIn(t), held(t)
	pod.Spec.HostNetwork = true
	pod.Spec.InitContainers[2].Ports[0].HostPort = 9102
	if got := weave.Differences(pod, &fragment, options()); len(got) > 0 {
		t.Errorf("what the API server sets is a difference: %q", got)
	}
}

func TestAVariableThatTheProfileSetsTwice(t *testing.T) {
	pod, fragment := heldIn(t), held(t)
	for _, env := range []*[]corev1.EnvVar{&pod.Spec.InitContainers[2].Env, &fragment.InitContainers[1].Env} {
		*env = append(*env, corev1.EnvVar{Name: "A", Value: "b"})
	}
	if got := weave.Differences(pod, &fragment, options()); len(got) > 0 {
		t.Errorf("what the profile says is a difference: %q", got)
	}
}

func precedes(name string) []string {
	return []string{"container " + name + " starts before container pillion-x-first, and profile x lets none of the Pod's own do so"}
}

func TestWhoMayPrecedeIsTheCallersToSay(t *testing.T) {
	settings := options()
	settings.MayPrecede = func(name string) bool { return name == "pillion-enforced" }
	tests := map[string]struct {
		ahead string
		want  []string
	}{
		"one that may":           {"pillion-enforced", nil},
		"one that leads others":  {"istio-init", precedes("istio-init")},
		"one of a reserved name": {"pillion-own", precedes("pillion-own")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, fragment := heldIn(t), held(t)
			pod.Spec.InitContainers = append([]corev1.Container{{Name: test.ahead}}, pod.Spec.InitContainers...)
			if diff := cmp.Diff(test.want, weave.Differences(pod, &fragment, settings)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func addCapability(c *corev1.Container) {
	c.SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_ADMIN"}
}

func privilege(c *corev1.Container) { c.SecurityContext.Privileged = new(true) }

func becomeRoot(c *corev1.Container) { c.SecurityContext.RunAsUser = new(int64(0)) }

func dropNonRoot(c *corev1.Container) { c.SecurityContext.RunAsNonRoot = nil }

func addProbe(c *corev1.Container) {
	c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}}
}

func delayProbe(c *corev1.Container) { c.StartupProbe.InitialDelaySeconds = 3600 }

func moveProbe(c *corev1.Container) { c.StartupProbe.HTTPGet.Port.IntVal = 1 }

// A container that another webhook put there after the Pod was woven gained nothing, and need not have.
func TestContainersThatCameLaterNeedNotHaveWhatTheAppGained(t *testing.T) {
	fragment := weave.Fragment{Profile: "x", Additions: []weave.Addition{{Env: []corev1.EnvVar{{Name: "A"}, {Name: "B"}}}}}
	gained := func(name string, variables ...string) corev1.Container {
		container := corev1.Container{Name: name}
		for _, variable := range variables {
			container.Env = append(container.Env, corev1.EnvVar{Name: variable})
		}
		return container
	}
	tests := map[string]struct {
		containers  []corev1.Container
		differences int
	}{
		"the app has it, the other nothing": {[]corev1.Container{gained("app", "A", "B"), gained("late")}, 0},
		"the app has it, the other some":    {[]corev1.Container{gained("app", "A", "B"), gained("late", "A")}, 1},
		"none has it":                       {[]corev1.Container{gained("app"), gained("late")}, 4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: test.containers}}
			if found := weave.Differences(pod, &fragment, weave.Options{}); len(found) != test.differences {
				t.Errorf("%d differences, want %d: %q", len(found), test.differences, found)
			}
		})
	}
}
