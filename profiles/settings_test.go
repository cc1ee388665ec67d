package profiles_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/pillion-dev/pillion/profiles"
)

func TestWhereSettingsComeFrom(t *testing.T) {
	const parameters = `custom: {parameters: [{name: level, default: info}, {name: port, type: integer, default: 8080}, {name: idle}],
    template: {app: [{env: [{name: LEVEL, value: "${params.level}:${params.port}"}]}]}}, overridable: [level, port]`
	const resources = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, resources: {limits: {memory: 64Mi}}},
    overridable: [resources, ref]`
	taken := func(port int) string {
		return fmt.Sprintf(`{containers: [{name: app, ports: [{containerPort: %d}]}]}`, port)
	}
	tests := map[string]struct {
		profile        string
		namespace, pod string // annotations in YAML
		spec           string
		want           map[string]string // by path: value and source, and the annotation
	}{
		"defaults, the profile, the namespace and the Pod": {
			profile: openGitSync, namespace: `site.pillion.dev/ref: prod, site.pillion.dev/period: 1m`, pod: `site.pillion.dev/ref: v2`,
			want: map[string]string{
				"depth": "1 default", "repo": `"https://git.example.com/site.git" profile`, "mountPath": `"/srv/site" profile`,
				"ref": `"v2" annotation site.pillion.dev/ref`, "period": `"1m" namespace site.pillion.dev/period`,
				"env": `[{"name":"A","value":"a"}] profile`,
			},
		},
		"a value that is the default is the default": {
			profile: gitSync + `, overridable: [depth]`, pod: `site.pillion.dev/depth: "1"`,
			want: map[string]string{"depth": "1 annotation site.pillion.dev/depth", "readOnly": "true default"},
		},
		"a default that is written in another way": {
			profile: strings.Replace(gitSync, "{", `{syncTimeout: 2m0s, sizeLimit: 1024Mi, period: 31s, `, 1),
			want:    map[string]string{"syncTimeout": `"2m0s" default`, "sizeLimit": `"1Gi" default`, "period": `"31s" profile`},
		},
		"one field of an object": {
			profile: resources, pod: `site.pillion.dev/resources.limits.memory: 128Mi`,
			want: map[string]string{"resources.limits.memory": `"128Mi" annotation site.pillion.dev/resources.limits.memory`},
		},
		"a whole object": {
			profile: resources, pod: `site.pillion.dev/resources: '{"limits": {"cpu": "1"}}'`,
			want: map[string]string{"resources.limits.cpu": `"1" annotation site.pillion.dev/resources`, "resources.limits.memory": ""},
		},
		"a default inside an object that stands in for what the namespace says": {
			profile:   `cacheAmbassador: {protocol: Memcached, proxy: {servers: [{address: "cache.example.com:11211"}]}}, overridable: [proxy.ejection]`,
			namespace: `site.pillion.dev/proxy.ejection.enabled: "false"`, pod: `site.pillion.dev/proxy.ejection: '{"failureLimit": 3}'`,
			want: map[string]string{
				"proxy.ejection.enabled":      "true default",
				"proxy.ejection.failureLimit": "3 annotation site.pillion.dev/proxy.ejection",
			},
		},
		"parameters": {
			profile: parameters, namespace: `site.pillion.dev/port: "9090"`,
			want: map[string]string{"level": `"info" default`, "port": "9090 namespace site.pillion.dev/port", "idle": ""},
		},
		"a port that was picked though it follows from another field": {
			profile: memcached + `, onPortConflict: Pick`, spec: taken(11211), want: map[string]string{"port": "11212 picked"},
		},
		"a parameter that was picked": {
			profile: `onPortConflict: Pick, custom: {parameters: [{name: port, type: integer, default: 8080}], template: {initContainers: [{image: proxy,
        restartPolicy: Always, ports: [{containerPort: "${params.port}"}]}]}}`, spec: taken(8080),
			want: map[string]string{"port": "8081 picked"},
		},
		"a port that is free is not picked": {
			profile: statsd + `, onPortConflict: Pick`, spec: taken(9102), want: map[string]string{"metricsPort": "9103 picked", "statsd.port": "9125 default"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			namespace.Annotations = podOf(t, `{annotations: {`+test.namespace+`}}`, "{}").Annotations
			spec := test.spec
			if spec == "" {
				spec = appOnly
			}
			pod := podOf(t, `{annotations: {pillion.dev/inject: site, `+test.pod+`}}`, spec)
			told := profiles.Request{Namespace: namespace, Pod: pod}.Explain(snapshotOf(t, cluster("site", test.profile)))
			if !told.Allowed {
				t.Fatal(told.Denial)
			}
			got := map[string]string{}
			for _, setting := range told.Profiles[0].Settings {
				text := fmt.Sprintf("%s %s", setting.Value, setting.Source)
				if setting.From != "" {
					text += " " + setting.From
				}
				got[setting.Path] = text
			}
			for path, want := range test.want {
				if diff := cmp.Diff(want, got[path]); diff != "" {
					t.Errorf("%s: %s\nof %q", path, diff, got)
				}
			}
		})
	}
}

func TestWhatAPodCarries(t *testing.T) {
	before := snapshotOf(t, cluster("site", gitSync), cluster("cache", memcached), cluster("old", redis+`, match: {}`))
	pod := podOf(t, asking("site, cache"), appOnly)
	decision := profiles.Decide(before, web(), pod)
	woven := decision.Pod()
	after := snapshotOf(t, cluster("site", gitSync), cluster("cache", `cacheAmbassador: {protocol: Memcached, local: {memory: 128Mi}}`))

	without := after.Without(web(), woven)
	if len(without.Spec.InitContainers) > 0 || len(without.Spec.Volumes) > 0 || len(without.Labels) > 0 || len(without.Annotations) != 1 {
		t.Errorf("something is left: %s", encode(t, without))
	}
	if same := before.Without(web(), woven); !equality.Semantic.DeepEqual(pod, same) {
		t.Errorf("a Pod without what it carries is another:\n%s", cmp.Diff(pod, same))
	}
	told := profiles.Request{Namespace: web(), Pod: without}.Explain(after)
	states := map[string]profiles.CarriedState{}
	for _, carried := range told.Compare(profiles.CarriedBy(woven)) {
		states[carried.Profile] = carried.State
	}
	want := map[string]profiles.CarriedState{
		"site": profiles.CarriedCurrent, "cache": profiles.CarriedOutdated, "old": profiles.CarriedNoMore,
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
	woven.Spec.InitContainers = nil
	if carried := profiles.CarriedBy(woven); len(carried) != 3 || len(carried[0].Missing) != 1 {
		t.Errorf("a container that is missing is not told: %+v", carried)
	}
}
