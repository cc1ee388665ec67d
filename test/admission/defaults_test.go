package admission

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/defaults"
	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// woven is what a Pod has for annotations alone, as far as it follows from them.
type woven struct {
	containers []string          // images by container, without tags
	arguments  []string          // some of those of the added containers
	env        map[string]string // of the app
	mounts     map[string]string // of the app: paths by volume
	metadata   map[string]string // annotations of the Pod
}

// TestAnnotationsAloneAreEnough has Pods ask for the default profiles, which the controller made, where the API server is strict.
func TestAnnotationsAloneAreEnough(t *testing.T) {
	awaitDefaults(t)
	tests := map[string]struct {
		annotations []string
		want        woven
	}{
		"a git repository": {
			[]string{"pillion.dev/inject", "git-sync", "git-sync.pillion.dev/repo", "https://git.example.com/web/site.git"},
			woven{
				containers: []string{"pillion-git-sync registry.k8s.io/git-sync/git-sync"},
				arguments:  []string{"--repo=https://git.example.com/web/site.git", "--ref=HEAD", "--link=/git/current"},
				mounts:     map[string]string{"pillion-git-sync": "/srv/git"},
			},
		},
		"a private one, at a tag, once": {
			[]string{
				"pillion.dev/inject", "git-sync", "git-sync.pillion.dev/repo", "git@git.example.com:web/site.git", "git-sync.pillion.dev/ref", "v2.1",
				"git-sync.pillion.dev/credentials.ssh.secretName", "deploy-key", "git-sync.pillion.dev/mode", "Once",
				"git-sync.pillion.dev/mountPath", "/var/www",
			},
			woven{
				containers: []string{"pillion-git-sync registry.k8s.io/git-sync/git-sync"},
				arguments:  []string{"--repo=git@git.example.com:web/site.git", "--ref=v2.1", "--one-time", "--ssh-key-file=/etc/git-secret/ssh"},
				mounts:     map[string]string{"pillion-git-sync": "/var/www"},
			},
		},
		"metrics by StatsD": {
			[]string{"pillion.dev/inject", "prometheus-adapter"},
			woven{
				containers: []string{"pillion-prometheus-adapter quay.io/prometheus/statsd-exporter"},
				arguments:  []string{"--web.listen-address=:9102"},
				env:        map[string]string{"STATSD_HOST": "127.0.0.1", "STATSD_PORT": "9125"},
				metadata:   map[string]string{"prometheus.io/port": "9102", "prometheus.io/scrape": "true"},
			},
		},
		"metrics of a server": {
			[]string{"pillion.dev/inject", "prometheus-adapter", "prometheus-adapter.pillion.dev/server.type", "Redis"},
			woven{
				containers: []string{"pillion-prometheus-adapter docker.io/oliver006/redis_exporter"},
				metadata:   map[string]string{"prometheus.io/port": "9121"},
			},
		},
		"metrics from JSON": {
			[]string{
				"pillion.dev/inject", "prometheus-adapter",
				"prometheus-adapter.pillion.dev/json", `{"url": "http://localhost:8080/status", "metrics": [{"name": "app_queue", "path": "{.queue}"}]}`,
			},
			woven{
				containers: []string{"pillion-prometheus-adapter", "quay.io/prometheuscommunity/json-exporter"},
				metadata:   map[string]string{"prometheus.io/port": "7979"},
			},
		},
		"metrics from logs": {
			[]string{
				"pillion.dev/inject", "prometheus-adapter",
				"prometheus-adapter.pillion.dev/logs", `{"directory": "/var/log/app", "programs": [{"name": "lines", "program": "counter lines\n/$/ {\n  lines++\n}\n"}]}`,
			},
			woven{mounts: map[string]string{"pillion-prometheus-adapter-logs": "/var/log/app"}, metadata: map[string]string{"prometheus.io/port": "3903"}},
		},
		"a cache": {
			[]string{"pillion.dev/inject", "cache-ambassador"},
			woven{
				containers: []string{"pillion-cache-ambassador docker.io/library/memcached"},
				env:        map[string]string{"CACHE_HOST": "127.0.0.1", "CACHE_PORT": "11211", "CACHE_ADDRESS": "127.0.0.1:11211"},
			},
		},
		"a larger one of another protocol": {
			[]string{
				"pillion.dev/inject", "cache-ambassador", "cache-ambassador.pillion.dev/protocol", "Redis",
				"cache-ambassador.pillion.dev/local.memory", "128Mi", "cache-ambassador.pillion.dev/envPrefix", "REDIS",
			},
			woven{
				containers: []string{"pillion-cache-ambassador docker.io/library/redis"},
				env:        map[string]string{"REDIS_ADDRESS": "127.0.0.1:6379"},
			},
		},
		"shared servers behind the same address": {
			[]string{
				"pillion.dev/inject", "cache-ambassador",
				"cache-ambassador.pillion.dev/proxy", `{"servers": [{"address": "memcached-0.memcached.caches.svc:11211"}]}`,
			},
			woven{
				containers: []string{"pillion-cache-ambassador", "twemproxy"},
				env:        map[string]string{"CACHE_ADDRESS": "127.0.0.1:11211"},
			},
		},
		"rendered files": {
			[]string{
				"pillion.dev/inject", "template-processor", "template-processor.pillion.dev/templates.configMap.name", "app-templates",
				"template-processor.pillion.dev/parameters", `[{"name": "app", "configMap": {"name": "app-parameters", "key": "app.yaml"}}]`,
			},
			woven{
				containers: []string{"pillion-template-processor docker.io/hairyhenderson/gomplate"},
				mounts:     map[string]string{"pillion-template-processor": "/srv/config"},
			},
		},
		"rendered files from the git repository": {
			[]string{
				"pillion.dev/inject", "git-sync,template-processor", "git-sync.pillion.dev/repo", "https://git.example.com/config.git",
				"template-processor.pillion.dev/templates.gitSync.profile", "git-sync",
			},
			woven{mounts: map[string]string{"pillion-template-processor": "/srv/config", "pillion-git-sync": "/srv/git"}},
		},
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	all := defaultObjects(t, compiler)
	restricted := namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stored, warnings := admit(t, pod(restricted, test.annotations...))
			if len(warnings) > 0 {
				t.Errorf("warnings %q", warnings)
			}
			checkWoven(t, stored, &test.want)
			checkInjected(t, stored)
			decision := profiles.Decide(profiles.NewSnapshot(pillion.profileOptions, all), profiles.Namespace{Name: restricted}, stored)
			if !decision.Allowed || len(decision.Patch) > 0 {
				t.Errorf("weaving again patches %v: %s", decision.Patch, decision.Denial())
			}
			mayBeCreatedAgain(t, stored)
		})
	}
}

// awaitDefaults waits until the controller has made the default profiles.
func awaitDefaults(t *testing.T) {
	t.Helper()
	wanted, err := defaults.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	for i := range wanted {
		awaitReadyProfile(t, types.NamespacedName{Name: wanted[i].Name})
	}
}

func defaultObjects(t *testing.T, compiler *profiles.Compiler) []*profiles.Profile {
	t.Helper()
	wanted, err := defaults.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*profiles.Profile, len(wanted))
	for i := range wanted {
		all[i] = compiler.Cluster(&wanted[i])
	}
	return all
}

func checkWoven(t *testing.T, stored *corev1.Pod, want *woven) {
	t.Helper()
	var containers, arguments []string
	for i := range stored.Spec.InitContainers {
		if c := &stored.Spec.InitContainers[i]; v1alpha1.IsReservedName(c.Name) {
			containers = append(containers, c.Name+" "+c.Image)
			arguments = slices.Concat(arguments, c.Command, c.Args)
		}
	}
	for _, container := range want.containers {
		if !slices.ContainsFunc(containers, func(c string) bool { return strings.Contains(c, container) }) {
			t.Errorf("no added container is %s: %q", container, containers)
		}
	}
	for _, argument := range want.arguments {
		if !slices.Contains(arguments, argument) {
			t.Errorf("no argument of added containers is %s: %q", argument, arguments)
		}
	}
	for i := range stored.Spec.Containers { // the app's, each
		app := &stored.Spec.Containers[i]
		env, mounts := map[string]string{}, map[string]string{}
		for _, variable := range app.Env {
			env[variable.Name] = variable.Value
		}
		for _, mount := range app.VolumeMounts {
			mounts[mount.Name] = mount.MountPath
		}
		within(t, app.Name+"'s environment", want.env, env)
		within(t, app.Name+"'s mounts", want.mounts, mounts)
	}
	within(t, "the annotations", want.metadata, stored.Annotations)
}

// within compares those values of a map that are wanted.
func within(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	for key, value := range want {
		if diff := cmp.Diff(value, got[key]); diff != "" {
			t.Errorf("%s, %s (-want +got): %s%v", what, key, diff, got)
		}
	}
}

func TestWhatAnnotationsHaveToSayIsToldByTheAPIServer(t *testing.T) {
	awaitDefaults(t)
	tests := map[string]struct {
		annotations, says []string
	}{
		"no repository": {[]string{"pillion.dev/inject", "git-sync"}, []string{
			"profile git-sync leaves repo to Pods, and neither this Pod nor its namespace gives it: write the annotation " +
				"git-sync.pillion.dev/repo, for example git-sync.pillion.dev/repo: https://git.example.com/web/site.git (ParameterRequired)",
		}},
		"no templates": {[]string{"pillion.dev/inject", "template-processor"}, []string{
			"write the annotation template-processor.pillion.dev/templates.configMap.name, for example " +
				"template-processor.pillion.dev/templates.configMap.name: app-templates",
		}},
		"neither, told at once": {[]string{"pillion.dev/inject", "git-sync, template-processor"}, []string{
			"git-sync.pillion.dev/repo", "template-processor.pillion.dev/templates.configMap.name",
		}},
		"an image, which is not for Pods to say": {[]string{"pillion.dev/inject", "cache-ambassador", "cache-ambassador.pillion.dev/image", "evil"}, []string{
			"annotation cache-ambassador.pillion.dev/image: profile cache-ambassador does not let Pods change image",
		}},
		"a variable, which is not for Pods to say": {[]string{
			"pillion.dev/inject", "git-sync", "git-sync.pillion.dev/repo", "https://a/b", "git-sync.pillion.dev/env", `[{"name": "GIT_SSH_COMMAND", "value": "sh"}]`,
		}, []string{"does not let Pods change env"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := missing(refuse(t, pod(namespace(t, nil), test.annotations...)), test.says...); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestANamespaceGivesWhatDefaultProfilesLeave has Pods say nothing: their namespace asks, and says what is to be said.
func TestANamespaceGivesWhatDefaultProfilesLeave(t *testing.T) {
	awaitDefaults(t)
	team := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "team-", Labels: map[string]string{v1alpha1.InjectKey: "git-sync.cache-ambassador"},
		Annotations: map[string]string{v1alpha1.OverrideKey("git-sync", "repo"): "https://git.example.com/team/site.git"},
	}}
	create(t, team)
	createDefaultServiceAccount(t, team.Name)
	stored, warnings := admit(t, pod(team.Name))
	if arguments := containerOf(t, stored, "pillion-git-sync").Args; !slices.Contains(arguments, "--repo=https://git.example.com/team/site.git") {
		t.Errorf("the repository is not the namespace's: %q", arguments)
	}
	if len(added(stored)) != 2 || len(warnings) > 0 {
		t.Errorf("added %q, warnings %q", added(stored), warnings)
	}
}
