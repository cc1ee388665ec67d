package weave_test

import (
	"encoding/json"
	"fmt"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/weave"
)

// site is a Fragment with everything that can collide.
func site() weave.Fragment {
	return weave.Fragment{
		Profile: "site",
		InitContainers: []corev1.Container{{
			Name: "pillion-site", Image: "git-sync", Ports: []corev1.ContainerPort{{ContainerPort: 9102}},
		}},
		Volumes: []corev1.Volume{{
			Name:         "pillion-site",
			VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		}},
		Annotations: map[string]string{"prometheus.io/port": "9102"},
		Labels:      map[string]string{"site": "on"},
		Ports:       []weave.Port{{Container: "pillion-site", Port: 9125, Protocol: corev1.ProtocolUDP}},
		Additions: []weave.Addition{{
			Env:          []corev1.EnvVar{{Name: "SITE", Value: "/srv/site/current"}},
			VolumeMounts: []corev1.VolumeMount{{Name: "pillion-site", MountPath: "/srv/site"}},
		}},
	}
}

func TestCollisionsWithThePodNameBothSides(t *testing.T) {
	tests := map[string]struct {
		pod      string
		fragment func(*weave.Fragment)
		want     []weave.Problem
	}{
		"a Pod that has nothing of it": {
			pod: `{containers: [{name: app}]}`,
		},
		"a container of the name": {
			pod: `{containers: [{name: app}, {name: pillion-site}]}`,
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile site adds the container pillion-site, and " +
				"the Pod " +
				"has one of that name; rename one of them"}},
		},
		"an init container of the name": {
			pod: `{containers: [{name: app}], initContainers: [{name: pillion-site}]}`,
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile site adds the container pillion-site, and " +
				"the Pod " +
				"has one of that name; rename one of them"}},
		},
		"an ephemeral container of the name": {
			pod: `{containers: [{name: app}], ephemeralContainers: [{name: pillion-site}]}`,
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile site adds the container pillion-site, and " +
				"the Pod " +
				"has one of that name; rename one of them"}},
		},
		"a volume of the name": {
			pod: `{containers: [{name: app}], volumes: [{name: pillion-site}]}`,
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile site adds the volume pillion-site, and the Pod " +
				"has one of that name; rename one of them"}},
		},
		"the same mount path": {
			pod:  `{containers: [{name: app, volumeMounts: [{name: data, mountPath: /srv/site}]}]}`,
			want: []weave.Problem{hides("/srv/site", "volume data", "/srv/site")},
		},
		"the same mount path with a slash at its end": {
			pod:  `{containers: [{name: app, volumeMounts: [{name: data, mountPath: /srv/site/}]}]}`,
			want: []weave.Problem{hides("/srv/site", "volume data", "/srv/site/")},
		},
		"the same mount path without a slash at its start": {
			pod:  `{containers: [{name: app, volumeMounts: [{name: data, mountPath: srv/site}]}]}`,
			want: []weave.Problem{hides("/srv/site", "volume data", "srv/site")},
		},
		"a mount path above": {
			pod:  `{containers: [{name: app, volumeMounts: [{name: data, mountPath: /srv}]}]}`,
			want: []weave.Problem{hides("/srv/site", "volume data", "/srv")},
		},
		"a mount path of everything": {
			pod:  `{containers: [{name: app, volumeMounts: [{name: data, mountPath: /}]}]}`,
			want: []weave.Problem{hides("/srv/site", "volume data", "/")},
		},
		"a mount path below": {
			pod:  `{containers: [{name: app, volumeMounts: [{name: data, mountPath: /srv/site/assets}]}]}`,
			want: []weave.Problem{hides("/srv/site", "volume data", "/srv/site/assets")},
		},
		"a mount path that only begins alike": {
			pod: `{containers: [{name: app, volumeMounts: [{name: data, mountPath: /srv/site2}, {name: data, mountPath: /srv/sit}]}]}`,
		},
		"a block device in the way": {
			pod:  `{containers: [{name: app, volumeDevices: [{name: disk, devicePath: /srv/site/xvda}]}]}`,
			want: []weave.Problem{hides("/srv/site", "block device disk", "/srv/site/xvda")},
		},
		"a mount path of a mesh's container, which gains nothing": {
			pod: `{containers: [{name: app}, {name: istio-proxy, volumeMounts: [{name: data, mountPath: /srv/site}]}]}`,
		},
		"a declared port": {
			pod: `{containers: [{name: app, ports: [{containerPort: 9102}]}]}`,
			want: []weave.Problem{{Reason: weave.ReasonPortCollision, Message: "profile site listens on port 9102 in container " +
				"pillion-site, " +
				"and container app does too; give one of them another port"}},
		},
		"a declared port of a native sidecar": {
			pod: `{containers: [{name: app}], initContainers: [{name: log, restartPolicy: Always, ports: [{containerPort: 9102,
          protocol: TCP}]}]}`,
			want: []weave.Problem{{Reason: weave.ReasonPortCollision, Message: "profile site listens on port 9102 in container " +
				"pillion-site, " +
				"and container log does too; give one of them another port"}},
		},
		"a declared port of another protocol": {
			pod: `{containers: [{name: app, ports: [{containerPort: 9102, protocol: UDP}, {containerPort: 9125, protocol: TCP},
          {containerPort: 9125, protocol: SCTP}]}]}`,
		},
		"a declared port of the same other protocol": {
			pod: `{containers: [{name: app, ports: [{containerPort: 9125, protocol: UDP}]}]}`,
			want: []weave.Problem{{Reason: weave.ReasonPortCollision, Message: "profile site listens on port 9125 in container " +
				"pillion-site, " +
				"and container app does too; give one of them another port"}},
		},
		"an environment variable of the app, which wins": {
			pod: `{containers: [{name: app, env: [{name: SITE, value: mine}]}]}`,
		},
		"a container that is not there": {
			pod:      `{containers: [{name: app}, {name: web}, {name: istio-proxy}]}`,
			fragment: func(f *weave.Fragment) { f.Additions[0].Containers = []string{"api"} },
			want: []weave.Problem{{Reason: weave.ReasonContainerNotFound, Message: "profile site is for container api, which the " +
				"Pod does not " +
				"have; it has app, web"}},
		},
		"an injected container, which is not the app's to change": {
			pod:      `{containers: [{name: app}], initContainers: [{name: pillion-cache}]}`,
			fragment: func(f *weave.Fragment) { f.Additions[0].Containers = []string{"pillion-cache"} },
			want: []weave.Problem{{Reason: weave.ReasonContainerNotFound, Message: "profile site is for container pillion-cache, " +
				"which the Pod " +
				"does not have; it has app"}},
		},
		"several at once": {
			pod: `{containers: [{name: app, ports: [{containerPort: 9102}], volumeMounts: [{name: data, mountPath: /srv}]}],
          volumes: [{name: pillion-site}]}`,
			want: []weave.Problem{
				{Reason: weave.ReasonNameCollision, Message: "profile site adds the volume pillion-site, and the Pod has one of that name; " +
					"rename one of them"},
				{Reason: weave.ReasonPortCollision, Message: "profile site listens on port 9102 in container pillion-site, " +
					"and container app does too; give one of them another port"},
				hides("/srv/site", "volume data", "/srv"),
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fragment := site()
			if test.fragment != nil {
				test.fragment(&fragment)
			}
			weaver := weave.NewWeaver(podWith(t, `{}`, test.pod), options())
			if diff := cmp.Diff(test.want, weaver.Add(fragment)); diff != "" {
				t.Error(diff)
			}
			if _, patch := weaver.Weave(nil, weave.Marks{}); (len(patch) == 0) != (len(test.want) > 0) {
				t.Errorf("of a Fragment with problems %v came the patch %v", test.want, patch)
			}
		})
	}
}

func TestMetadataOfThePodCollides(t *testing.T) {
	pod := podWith(t, `{annotations: {prometheus.io/port: ""}, labels: {site: "off", other: x}}`, `{containers: [{name: app}]}`)
	want := []weave.Problem{
		{Reason: weave.ReasonMetadataCollision, Message: "profile site adds the annotation prometheus.io/port, and the Pod has " +
			"it already; remove it there, or let the profile not add it"},
		{Reason: weave.ReasonMetadataCollision, Message: "profile site adds the label site, and the Pod has it already; remove " +
			"it there, or let the profile not add it"},
	}
	if diff := cmp.Diff(want, weave.NewWeaver(pod, options()).Add(site())); diff != "" {
		t.Error(diff)
	}
}

func TestCollisionsAmongProfilesNameBothSides(t *testing.T) {
	tests := map[string]struct {
		second weave.Fragment
		want   []weave.Problem
	}{
		"nothing in common": {
			second: weave.Fragment{
				InitContainers: []corev1.Container{{Name: "pillion-other"}},
				Volumes:        []corev1.Volume{{Name: "pillion-other"}},
				Ports:          []weave.Port{{Container: "pillion-other", Port: 9125}},
				Additions: []weave.Addition{{
					Env:          []corev1.EnvVar{{Name: "OTHER"}},
					VolumeMounts: []corev1.VolumeMount{{Name: "pillion-other", MountPath: "/srv/other"}},
				}},
			},
		},
		"a container": {
			second: weave.Fragment{InitContainers: []corev1.Container{{Name: "pillion-site"}}},
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile other adds the container pillion-site, and " +
				"profile site " +
				"has one of that name; rename one of them"}},
		},
		"a volume": {
			second: weave.Fragment{Volumes: []corev1.Volume{{Name: "pillion-site"}}},
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile other adds the volume pillion-site, and " +
				"profile site " +
				"has one of that name; rename one of them"}},
		},
		"an annotation": {
			second: weave.Fragment{Annotations: map[string]string{"prometheus.io/port": "1"}},
			want: []weave.Problem{{Reason: weave.ReasonMetadataCollision, Message: "profile other adds the annotation " +
				"prometheus.io/port, and " +
				"profile site has it already; remove it there, or let the profile not add it"}},
		},
		"a label": {
			second: weave.Fragment{Labels: map[string]string{"site": "x"}},
			want: []weave.Problem{{Reason: weave.ReasonMetadataCollision, Message: "profile other adds the label site, and " +
				"profile site has it already; remove it there, or let the profile not add it"}},
		},
		"a declared port that the other one listens on": {
			second: weave.Fragment{Ports: []weave.Port{{Container: "pillion-other", Port: 9102}}},
			want: []weave.Problem{{Reason: weave.ReasonPortCollision, Message: "profile other listens on port 9102 in container " +
				"pillion-other, " +
				"and profile site does too; give one of them another port"}},
		},
		"a port on loopback that the other one declares": {
			second: weave.Fragment{InitContainers: []corev1.Container{{
				Name: "pillion-other", Ports: []corev1.ContainerPort{{ContainerPort: 9125, Protocol: corev1.ProtocolUDP}},
			}}},
			want: []weave.Problem{{Reason: weave.ReasonPortCollision, Message: "profile other listens on port 9125 in container " +
				"pillion-other, " +
				"and profile site does too; give one of them another port"}},
		},
		"an environment variable": {
			second: weave.Fragment{Additions: []weave.Addition{{Env: []corev1.EnvVar{{Name: "SITE"}}}}},
			want: []weave.Problem{{Reason: weave.ReasonEnvCollision, Message: "profile other sets SITE in container app, and so does " +
				"profile site; give one of them another name"}},
		},
		"an environment variable of a container that the other one leaves alone": {
			second: weave.Fragment{Additions: []weave.Addition{{Containers: []string{"setup"}, Env: []corev1.EnvVar{{Name: "SITE"}}}}},
		},
		"a nested mount path": {
			second: weave.Fragment{Additions: []weave.Addition{{VolumeMounts: []corev1.VolumeMount{{
				Name:      "x",
				MountPath: "/srv/site/x",
			}}}}},
			want: []weave.Problem{{Reason: weave.ReasonMountPathCollision, Message: "profile other mounts /srv/site/x into " +
				"container app, where " +
				"volume pillion-site of profile site is mounted at /srv/site: one would hide the other; choose another path"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app}], initContainers: [{name: setup}]}`), options())
			if problems := weaver.Add(site()); len(problems) > 0 {
				t.Fatal(problems)
			}
			test.second.Profile = "other"
			if diff := cmp.Diff(test.want, weaver.Add(test.second)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARefusedFragmentLeavesNothingBehind(t *testing.T) {
	weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app}]}`), options())
	broken := site()
	broken.Additions = append(broken.Additions, weave.Addition{Containers: []string{"nosuch"}})
	if problems := weaver.Add(broken); len(problems) != 1 {
		t.Fatalf("want one problem, got %v", problems)
	}
	if problems := weaver.Add(site()); len(problems) > 0 {
		t.Errorf("what was refused is still in the way: %v", problems)
	}
}

func TestWhatThePodHasFromAnEarlierWeavingIsInTheWay(t *testing.T) {
	weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app}]}`), options())
	weaver.Occupy(site())
	weaver.PlaceBehind(site())
	want := []weave.Problem{
		{Reason: weave.ReasonPortCollision, Message: "profile other listens on port 9125 in container pillion-other, and " +
			"profile site does too; " +
			"give one of them another port"},
		{Reason: weave.ReasonEnvCollision, Message: "profile other sets SITE in container app, and so does profile site; give " +
			"one of them another name"},
	}
	got := weaver.Add(weave.Fragment{
		Profile:   "other",
		Ports:     []weave.Port{{Container: "pillion-other", Port: 9125, Protocol: corev1.ProtocolUDP}},
		Additions: []weave.Addition{{Env: []corev1.EnvVar{{Name: "SITE"}}}},
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, patch := weaver.Weave(nil, weave.Marks{}); len(patch) > 0 {
		t.Errorf("what is there is woven again: %v", patch)
	}
}

func TestOperations(t *testing.T) {
	tests := map[string]struct {
		metadata, spec string
		want           []string
	}{
		"lists and maps that are absent are made once, with all that they get": {
			metadata: `{}`, spec: `{containers: [{name: app}]}`,
			want: []string{
				`add /metadata/annotations {"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes":"pillion-site",` +
					`"mark/~":"m","prometheus.io/port":"9102"}`,
				`add /metadata/labels {"site":"on"}`,
				`add /spec/volumes [{"name":"pillion-site","emptyDir":{}},{"name":"pillion-more"}]`,
				`add /spec/containers/0/env [{"name":"SITE","value":"/srv/site/current"},{"name":"MORE"}]`,
				`add /spec/containers/0/volumeMounts [{"name":"pillion-site","mountPath":"/srv/site"}]`,
				`add /spec/initContainers ["pillion-site","pillion-more"]`,
			},
		},
		"lists and maps that are empty stay and are added to": {
			metadata: `{annotations: {}, labels: {}}`,
			spec:     `{containers: [{name: app, env: [], volumeMounts: []}], volumes: [], initContainers: []}`,
			want: []string{
				`add /metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict-local-volumes "pillion-site"`,
				`add /metadata/annotations/mark~1~0 "m"`,
				`add /metadata/annotations/prometheus.io~1port "9102"`,
				`add /metadata/labels/site "on"`,
				`add /spec/volumes/0 {"name":"pillion-site","emptyDir":{}}`,
				`add /spec/volumes/1 {"name":"pillion-more"}`,
				`add /spec/containers/0/env/0 {"name":"SITE","value":"/srv/site/current"}`,
				`add /spec/containers/0/env/1 {"name":"MORE"}`,
				`add /spec/containers/0/volumeMounts/0 {"name":"pillion-site","mountPath":"/srv/site"}`,
				`add /spec/initContainers/0 "pillion-site"`,
				`add /spec/initContainers/1 "pillion-more"`,
			},
		},
		"what is there keeps its place and value": {
			metadata: `{annotations: {mark/~: mine, cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: data}, labels: {a: b}}`,
			spec: `{containers: [{name: istio-proxy}, {name: app, env: [{name: FIRST}, {name: SITE, value: mine}],
			  volumeMounts: [{name: data, mountPath: /data}]}],
			  volumes: [{name: data}], initContainers: [{name: istio-init}, {name: setup}]}`,
			want: []string{
				`add /metadata/annotations/prometheus.io~1port "9102"`,
				`add /metadata/labels/site "on"`,
				`add /spec/volumes/1 {"name":"pillion-site","emptyDir":{}}`,
				`add /spec/volumes/2 {"name":"pillion-more"}`,
				`add /spec/containers/1/env/2 {"name":"MORE"}`,
				`add /spec/containers/1/volumeMounts/1 {"name":"pillion-site","mountPath":"/srv/site"}`,
				`add /spec/initContainers/1 "pillion-site"`,
				`add /spec/initContainers/2 "pillion-more"`,
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			weaver := weave.NewWeaver(podWith(t, test.metadata, test.spec), options())
			more := weave.Fragment{
				Profile:        "more",
				InitContainers: []corev1.Container{{Name: "pillion-more"}},
				Volumes:        []corev1.Volume{{Name: "pillion-more"}},
				Additions:      []weave.Addition{{Env: []corev1.EnvVar{{Name: "MORE"}}}},
			}
			for _, fragment := range []weave.Fragment{more, site()} {
				if problems := weaver.Add(fragment); len(problems) > 0 {
					t.Fatal(problems)
				}
			}
			_, patch := weaver.Weave([]string{"site", "more"}, weave.Marks{Annotations: map[string]string{"mark/~": "m"}})
			var got []string
			for _, operation := range patch {
				value := operation.Value
				switch containers := value.(type) {
				case []any:
					var names []string
					for i := range containers {
						if container, ok := containers[i].(corev1.Container); ok {
							names = append(names, container.Name)
						}
					}
					if len(names) > 0 {
						value = names
					}
				case corev1.Container:
					value = containers.Name
				}
				got = append(got, fmt.Sprintf("%s %s %s", operation.Operation, operation.Path, encode(t, value)))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlaceOfInitContainers(t *testing.T) {
	tests := map[string]struct {
		initContainers string
		present        string // of an earlier weaving
		want           []string
	}{
		"no list":              {`null`, "", []string{"pillion-a", "pillion-b"}},
		"an empty list":        {`[]`, "", []string{"pillion-a", "pillion-b"}},
		"before the app's own": {`[{name: setup}]`, "", []string{"pillion-a", "pillion-b", "setup"}},
		"behind a leading mesh": {`[{name: istio-init}, {name: istio-proxy}, {name: setup}]`, "", []string{
			"istio-init",
			"istio-proxy", "pillion-a", "pillion-b", "setup",
		}},
		"behind a mesh alone": {`[{name: istio-init}]`, "", []string{"istio-init", "pillion-a", "pillion-b"}},
		"not behind a late mesh": {
			`[{name: setup}, {name: istio-init}]`, "", []string{"pillion-a", "pillion-b", "setup", "istio-init"},
		},
		"behind an earlier weaving's": {
			`[{name: istio-init}, {name: pillion-0}, {name: setup}]`, "pillion-0",
			[]string{"istio-init", "pillion-0", "pillion-a", "pillion-b", "setup"},
		},
		"before one whose name only looks like Pillion's": {
			`[{name: istio-init}, {name: pillion-0}, {name: setup}]`, "",
			[]string{"istio-init", "pillion-a", "pillion-b", "pillion-0", "setup"},
		},
		"between an earlier weaving's and one whose name only looks like it": {
			`[{name: pillion-0}, {name: pillion-1}]`, "pillion-0", []string{"pillion-0", "pillion-a", "pillion-b", "pillion-1"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podWith(t, `{}`, `{containers: [{name: app}], initContainers: `+test.initContainers+`}`)
			weaver := weave.NewWeaver(pod, options())
			weaver.PlaceBehind(weave.Fragment{Profile: "0", InitContainers: []corev1.Container{{Name: test.present}}})
			for _, profile := range []string{"b", "a"} {
				fragment := weave.Fragment{Profile: profile, InitContainers: []corev1.Container{{Name: "pillion-" + profile}}}
				if problems := weaver.Add(fragment); len(problems) > 0 {
					t.Fatal(problems)
				}
			}
			woven, patch := weaver.Weave([]string{"a", "b"}, weave.Marks{})
			if diff := cmp.Diff(woven, patched(t, pod, encode(t, patch))); diff != "" {
				t.Errorf("the patch makes another Pod:\n%s", diff)
			}
			var got []string
			for i := range woven.Spec.InitContainers {
				got = append(got, woven.Spec.InitContainers[i].Name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAdditionsReachTheRightContainers(t *testing.T) {
	const spec = `{containers: [{name: app}, {name: istio-proxy}, {name: web}, {name: pillion-late}],
          initContainers: [{name: setup}]}`
	tests := map[string]struct {
		containers []string
		isOurs     func(name string) bool
		want       []string
	}{
		"every regular container of the app by default": {nil, nil, []string{"app", "web"}},
		"only those that are named":                     {[]string{"web"}, nil, []string{"web"}},
		"an init container that is named":               {[]string{"setup", "app"}, nil, []string{"setup", "app"}},
		"a mesh's container that is named":              {[]string{"istio-proxy"}, nil, []string{"istio-proxy"}},
		"one whose name only looks like Pillion's": {
			nil, func(name string) bool { return name == "pillion-other" }, []string{"app", "web", "pillion-late"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			settings := options()
			settings.IsOurs = test.isOurs
			weaver := weave.NewWeaver(podWith(t, `{}`, spec), settings)
			fragment := weave.Fragment{Profile: "x", Additions: []weave.Addition{{
				Containers: test.containers,
				Env:        []corev1.EnvVar{{Name: "X"}},
			}}}
			if problems := weaver.Add(fragment); len(problems) > 0 {
				t.Fatal(problems)
			}
			woven, _ := weaver.Weave(nil, weave.Marks{})
			if got := weave.Differences(woven, &fragment, settings); len(got) > 0 || !weave.IsPresent(woven, &fragment, settings) {
				t.Errorf("the woven Pod has it not all: %q", got)
			}
			var got []string
			for _, containers := range [][]corev1.Container{woven.Spec.InitContainers, woven.Spec.Containers} {
				for i := range containers {
					if len(containers[i].Env) > 0 {
						got = append(got, containers[i].Name)
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheAppKeepsItsVariables(t *testing.T) {
	weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app, env: [{name: SITE, value: ""}]}, {name: web}]}`),
		options())
	if problems := weaver.Add(site()); len(problems) > 0 {
		t.Fatal(problems)
	}
	if diff := cmp.Diff([]string{"app: SITE"}, weaver.KeptEnv("site")); diff != "" {
		t.Error(diff)
	}
	if kept := weaver.KeptEnv("other"); len(kept) > 0 {
		t.Errorf("another profile is told of %v", kept)
	}
	woven, _ := weaver.Weave(nil, weave.Marks{})
	if diff := cmp.Diff([]corev1.EnvVar{{Name: "SITE"}}, woven.Spec.Containers[0].Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]corev1.EnvVar{{Name: "SITE", Value: "/srv/site/current"}}, woven.Spec.Containers[1].Env); diff != "" {
		t.Error(diff)
	}
}

func TestWeavingNothingGivesNoOperation(t *testing.T) {
	pod := podWith(t, `{}`, `{containers: [{name: app}], volumes: []}`)
	woven, patch := weave.NewWeaver(pod, options()).Weave(nil, weave.Marks{Annotations: map[string]string{}})
	if len(patch) > 0 {
		t.Errorf("nothing makes %v", patch)
	}
	if diff := cmp.Diff(pod, woven); diff != "" {
		t.Error(diff)
	}
}

func TestRegularContainersComeLastInTheOrderOfProfiles(t *testing.T) {
	pod := podWith(t, `{}`, `{containers: [{name: app}, {name: pillion-0}], initContainers: [{name: setup}]}`)
	weaver := weave.NewWeaver(pod, options())
	for _, profile := range []string{"b", "a"} {
		fragment, err := weave.Fragment{
			Profile:        profile,
			InitContainers: []corev1.Container{{Name: "pillion-" + profile + "-init"}},
			Containers:     []corev1.Container{{Name: "pillion-" + profile, Image: "<" + profile + ">"}},
			Additions:      []weave.Addition{{Env: []corev1.EnvVar{{Name: profile}}}},
		}.WithJSON()
		if err != nil {
			t.Fatal(err)
		}
		if problems := weaver.Add(fragment); len(problems) > 0 {
			t.Fatal(problems)
		}
	}
	woven, patch := weaver.Weave([]string{"a", "b"}, weave.Marks{})
	document, err := weave.Encode(patch)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(woven, patched(t, pod, document)); diff != "" {
		t.Errorf("the patch makes another Pod:\n%s", diff)
	}
	var got []string
	for i := range woven.Spec.Containers {
		got = append(got, woven.Spec.Containers[i].Name)
	}
	if diff := cmp.Diff([]string{"app", "pillion-0", "pillion-a", "pillion-b"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRegularContainersCollideAsInitContainersDo(t *testing.T) {
	weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app, ports: [{containerPort: 80, hostPort: 8080}]},
          {name: pillion-x}]}`), options())
	ports := []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 81, HostPort: 8080}}
	want := []weave.Problem{
		{Reason: weave.ReasonNameCollision, Message: "profile x adds the container pillion-x, and the Pod has one of that name; " +
			"rename one of them"},
		{Reason: weave.ReasonPortCollision, Message: "profile x listens on port 80 in container pillion-x, and container app does " +
			"too; give one of them another port"},
		{Reason: weave.ReasonPortCollision, Message: "profile x maps port 8080 of the node to container pillion-x, and container app " +
			"has it already; give one of them another hostPort"},
	}
	got := weaver.Add(weave.Fragment{Profile: "x", Containers: []corev1.Container{{Name: "pillion-x", Ports: ports}}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTakenKnowsThePodsPortsAndThoseOfFragments(t *testing.T) {
	weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app, ports: [{containerPort: 80, hostPort: 8080}]}]}`),
		options())
	fragment := site()
	fragment.Containers = []corev1.Container{{Name: "pillion-site-web", Ports: []corev1.ContainerPort{{ContainerPort: 81}}}}
	if problems := weaver.Add(fragment); len(problems) > 0 {
		t.Fatal(problems)
	}
	tests := []struct {
		port     int32
		protocol corev1.Protocol
		want     bool
	}{
		{80, "", true},
		{80, corev1.ProtocolUDP, false},
		{81, corev1.ProtocolTCP, true},
		{9102, corev1.ProtocolTCP, true},
		{9125, corev1.ProtocolUDP, true},
		{9125, corev1.ProtocolTCP, false},
		{8080, corev1.ProtocolTCP, false}, // the node's, not the Pod's
	}
	for _, test := range tests {
		if got := weaver.Taken(test.port, test.protocol); got != test.want {
			t.Errorf("port %d %s is taken: %t", test.port, test.protocol, got)
		}
	}
}

func TestPullSecretsAndHostAliasesJoinThoseOfThePod(t *testing.T) {
	tests := map[string]struct {
		spec string
		want []string
	}{
		"lists that are absent are made once": {
			spec: `{containers: [{name: app}]}`,
			want: []string{
				`add /spec/imagePullSecrets [{"name":"a"},{"name":"b"}]`,
				`add /spec/hostAliases [{"ip":"10.0.0.1","hostnames":["db","queue","cache"]},{"ip":"fd00::1","hostnames":["db6"]}]`,
			},
		},
		"what is there is added to": {
			spec: `{containers: [{name: app}], imagePullSecrets: [{name: b}, {name: mine}],
			  hostAliases: [{ip: 10.0.0.9, hostnames: [x]}, {ip: 10.0.0.1, hostnames: [queue]}, {ip: "fd00::1"},
			  {ip: 10.0.0.1, hostnames: [db]}]}`,
			want: []string{
				`add /spec/imagePullSecrets/2 {"name":"a"}`,
				`add /spec/hostAliases/2/hostnames ["db6"]`,
				`add /spec/hostAliases/1/hostnames/1 "cache"`,
			},
		},
		"an address without names gains a list of them": {
			spec: `{containers: [{name: app}], imagePullSecrets: [{name: a}, {name: b}], hostAliases: [{ip: 10.0.0.1}]}`,
			want: []string{
				`add /spec/hostAliases/0/hostnames ["db","queue","cache"]`,
				`add /spec/hostAliases/1 {"ip":"fd00::1","hostnames":["db6"]}`,
			},
		},
		"what is all there stays": {
			spec: `{containers: [{name: app}], imagePullSecrets: [{name: a}, {name: b}],
			  hostAliases: [{ip: 10.0.0.1, hostnames: [cache, db, queue]}, {ip: "fd00::1", hostnames: [db6]}]}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podWith(t, `{}`, test.spec)
			before := pod.DeepCopy()
			weaver := weave.NewWeaver(pod, options())
			first := weave.Fragment{
				Profile:          "first",
				ImagePullSecrets: []corev1.LocalObjectReference{{Name: "a"}, {Name: "b"}},
				HostAliases: []corev1.HostAlias{
					{IP: "10.0.0.1", Hostnames: []string{"db", "queue"}}, {IP: "fd00::1", Hostnames: []string{"db6"}},
				},
			}
			second := weave.Fragment{
				Profile:          "second",
				ImagePullSecrets: []corev1.LocalObjectReference{{Name: "b"}},
				HostAliases:      []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"db", "cache"}}, {IP: "10.0.0.7"}},
			}
			for _, fragment := range []weave.Fragment{first, second} {
				if problems := weaver.Add(fragment); len(problems) > 0 {
					t.Fatal(problems)
				}
			}
			woven, patch := weaver.Weave([]string{"first", "second"}, weave.Marks{})
			var got []string
			for _, operation := range patch {
				got = append(got, fmt.Sprintf("%s %s %s", operation.Operation, operation.Path, encode(t, operation.Value)))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(woven, patched(t, pod, encode(t, patch))); len(patch) > 0 && diff != "" {
				t.Errorf("the patch makes another Pod:\n%s", diff)
			}
			if diff := cmp.Diff(before, pod); diff != "" {
				t.Errorf("the Pod that was woven is changed:\n%s", diff)
			}
		})
	}
}

func TestAHostNameHasOneAddress(t *testing.T) {
	weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app}], hostAliases: [{ip: 10.0.0.1, hostnames: [db]}]}`),
		options())
	first := weave.Fragment{Profile: "first", HostAliases: []corev1.HostAlias{{IP: "10.0.0.2", Hostnames: []string{"queue"}}}}
	if problems := weaver.Add(first); len(problems) > 0 {
		t.Fatal(problems)
	}
	want := []weave.Problem{
		{Reason: weave.ReasonHostAliasCollision, Message: "profile second gives the host db the address 10.0.0.3, and the Pod gives " +
			"it 10.0.0.1; let both give it one address, or rename one of them"},
		{Reason: weave.ReasonHostAliasCollision, Message: "profile second gives the host queue the address 10.0.0.3, and profile " +
			"first gives it 10.0.0.2; let both give it one address, or rename one of them"},
	}
	got := weaver.Add(weave.Fragment{Profile: "second", HostAliases: []corev1.HostAlias{
		{IP: "10.0.0.3", Hostnames: []string{"db", "queue", "other"}}, {IP: "10.0.0.1", Hostnames: []string{"db"}},
	}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAHostNameHasNoOtherAddressBesideTheSame(t *testing.T) {
	tests := map[string]struct {
		addresses []string // that the Fragment gives db
		pod       string
		other     string // that is in its way
	}{
		"the same address": {[]string{"10.0.0.1"}, `[{ip: 10.0.0.1, hostnames: [other, db]}]`, ""},
		"the same addresses in another order": {
			[]string{"10.0.0.1", "fd00::1"}, `[{ip: "fd00::1", hostnames: [db]}, {ip: 10.0.0.1, hostnames: [db]}]`, "",
		},
		"another address of another name": {[]string{"10.0.0.1"}, `[{ip: 127.0.0.1, hostnames: [other]}]`, ""},
		"another address ahead of the same": {
			[]string{"10.0.0.1"}, `[{ip: 127.0.0.1, hostnames: [db]}, {ip: 10.0.0.1, hostnames: [db]}]`, "127.0.0.1",
		},
		"another address behind the same": {
			[]string{"10.0.0.1"}, `[{ip: 10.0.0.1, hostnames: [db]}, {ip: 127.0.0.1, hostnames: [other, db]}]`, "127.0.0.1",
		},
		"an address of the other family beside the same": {
			[]string{"10.0.0.1"}, `[{ip: 10.0.0.1, hostnames: [db]}, {ip: "::1", hostnames: [db]}]`, "::1",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fragment := weave.Fragment{Profile: "x"}
			for _, address := range test.addresses {
				fragment.HostAliases = append(fragment.HostAliases, corev1.HostAlias{IP: address, Hostnames: []string{"db"}})
			}
			var want []weave.Problem
			if test.other != "" {
				want = []weave.Problem{{Reason: weave.ReasonHostAliasCollision, Message: "profile x gives the host db the address " +
					"10.0.0.1, and the Pod gives it " + test.other + "; let both give it one address, or rename one of them"}}
			}
			weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app}], hostAliases: `+test.pod+`}`), options())
			if diff := cmp.Diff(want, weaver.Add(fragment)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatAFragmentAddsTwiceIsReportedOnce(t *testing.T) {
	mounts := func(volume, path string) []corev1.VolumeMount {
		return []corev1.VolumeMount{{Name: volume, MountPath: path}}
	}
	tests := map[string]struct {
		fragment weave.Fragment
		want     []weave.Problem
	}{
		"containers of one name in both lists": {
			fragment: weave.Fragment{
				InitContainers: []corev1.Container{{Name: "pillion-x"}, {Name: "pillion-x"}},
				Containers:     []corev1.Container{{Name: "pillion-x"}, {Name: "pillion-x-y"}},
			},
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile x adds more than one container pillion-x; " +
				"rename all but one of them"}},
		},
		"volumes of one name": {
			fragment: weave.Fragment{Volumes: []corev1.Volume{{Name: "pillion-x"}, {Name: "pillion-x"}}},
			want: []weave.Problem{{Reason: weave.ReasonNameCollision, Message: "profile x adds more than one volume pillion-x; " +
				"rename all but one of them"}},
		},
		"a mount in another one of another Addition": {
			fragment: weave.Fragment{Additions: []weave.Addition{
				{VolumeMounts: mounts("a", "/srv/site/assets")},
				{Containers: []string{"app"}, VolumeMounts: mounts("b", "/srv/site/")},
				{VolumeMounts: mounts("c", "/srv/site2")},
				{VolumeMounts: mounts("d", "/srv/si")},
			}},
			want: []weave.Problem{{Reason: weave.ReasonMountPathCollision, Message: "profile x mounts volume b at /srv/site/ and volume " +
				"a at /srv/site/assets into container app: one would hide the other; choose another path for one of them"}},
		},
		"two mounts of one path in one Addition": {
			fragment: weave.Fragment{Additions: []weave.Addition{{
				Containers:   []string{"app"},
				VolumeMounts: append(mounts("a", "/srv"), mounts("b", "/srv")...),
			}}},
			want: []weave.Problem{{Reason: weave.ReasonMountPathCollision, Message: "profile x mounts volume a at /srv and volume b at " +
				"/srv into container app: one would hide the other; choose another path for one of them"}},
		},
		"one variable in two Additions": {
			fragment: weave.Fragment{Additions: []weave.Addition{
				{Env: []corev1.EnvVar{{Name: "A"}, {Name: "B"}}}, {Containers: []string{"app"}, Env: []corev1.EnvVar{{Name: "A"}}},
			}},
			want: []weave.Problem{{Reason: weave.ReasonEnvCollision, Message: "profile x sets A in container app more than once; " +
				"remove all but one of them"}},
		},
		"one Addition that names a container twice": {
			fragment: weave.Fragment{Additions: []weave.Addition{{
				Containers: []string{"app", "app"}, Env: []corev1.EnvVar{{Name: "A"}}, VolumeMounts: mounts("a", "/srv"),
			}}},
		},
		"one path and variable in different containers": {
			fragment: weave.Fragment{Additions: []weave.Addition{
				{Containers: []string{"app"}, Env: []corev1.EnvVar{{Name: "A"}}, VolumeMounts: mounts("a", "/srv")},
				{Containers: []string{"web"}, Env: []corev1.EnvVar{{Name: "A"}}, VolumeMounts: mounts("a", "/srv")},
			}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.fragment.Profile = "x"
			weaver := weave.NewWeaver(podWith(t, `{}`, `{containers: [{name: app}, {name: web}]}`), options())
			if diff := cmp.Diff(test.want, weaver.Add(test.fragment)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func hides(path, what, where string) weave.Problem {
	return weave.Problem{Reason: weave.ReasonMountPathCollision, Message: fmt.Sprintf(
		"profile site mounts %s into container app, where %s is mounted at %s: one would hide the other; choose another path",
		path, what, where)}
}

func options() weave.Options {
	return weave.Options{LeadingContainers: []string{"istio-init", "istio-proxy"}}
}

// podWith returns a Pod from its metadata and spec in YAML, decoded as a request's is.
func podWith(t *testing.T, metadata, spec string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte("metadata: "+metadata+"\nspec: "+spec+"\n"), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// patched applies a patch to a Pod's JSON. Lists of the Pod that are empty are absent there.
func patched(t *testing.T, pod *corev1.Pod, patch []byte) *corev1.Pod {
	t.Helper()
	raw := map[string]any{}
	if err := json.Unmarshal(encode(t, pod), &raw); err != nil {
		t.Fatal(err)
	}
	if pod.Spec.InitContainers != nil && len(pod.Spec.InitContainers) == 0 {
		raw["spec"].(map[string]any)["initContainers"] = []any{}
	}
	decoded, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	after, err := decoded.Apply(encode(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	result := &corev1.Pod{}
	if err := json.Unmarshal(after, result); err != nil {
		t.Fatal(err)
	}
	return result
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
