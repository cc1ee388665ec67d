package profiles_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pillion-dev/pillion/profiles"
)

func TestWhatIsAvailableInANamespace(t *testing.T) {
	const git = `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}`
	const forWeb = `namespaceSelector: {matchLabels: {team: web}}`
	mine := map[string]string{"team": "web"}
	tests := map[string]struct {
		sources   []source
		namespace profiles.Namespace
		want      []string // name, scope, whether it may be asked for, and who is chosen
	}{
		"profiles of the cluster, and the namespace's own": {
			sources:   []source{cluster("site", git), namespaced("web", "own", git), namespaced("other", "theirs", git)},
			namespace: web(), want: []string{"own web asked", "site  asked"},
		},
		"not what the namespace may not use": {
			sources:   []source{cluster("site", git+`, allowedNamespaces: {matchLabels: {team: db}}`)},
			namespace: web(),
		},
		"what its labels admit it to": {
			sources:   []source{cluster("site", git+`, allowedNamespaces: {matchLabels: {team: web}}`)},
			namespace: web(), want: []string{"site  asked"},
		},
		"its own in place of the cluster's": {
			sources:   []source{cluster("site", git), namespaced("web", "site", git)},
			namespace: web(), want: []string{"site web asked"},
		},
		"both where the cluster's chooses Pods": {
			sources:   []source{cluster("site", git+`, match: {}`), namespaced("web", "site", git)},
			namespace: web(), want: []string{"site  chosen", "site web asked"},
		},
		"who is chosen, and by what": {
			sources: []source{cluster("site", git+`, match: {`+forWeb+`, podSelector: {matchLabels: {app: x}},
    conditions: [{name: not-batch, expression: "true"}], enforce: true}`)},
			namespace: web(), want: []string{"site  asked chosen app=x not-batch enforced"},
		},
		"what chooses Pods there though they may not ask": {
			sources:   []source{cluster("site", git+`, allowedNamespaces: {matchLabels: {team: db}}, match: {`+forWeb+`}`)},
			namespace: web(), want: []string{"site  chosen"},
		},
		"not what chooses Pods elsewhere and may not be asked for": {
			sources: []source{cluster("site", git+`, allowedNamespaces: {matchLabels: {team: db}},
    match: {namespaceSelector: {matchLabels: {team: db}}}`)},
			namespace: web(),
		},
		"nothing where no Pod is touched": {
			sources:   []source{cluster("site", git+`, match: {}`)},
			namespace: profiles.Namespace{Name: "kube-system", Labels: mine},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, available := range snapshotOf(t, test.sources...).Available(test.namespace) {
				words := []string{available.Name, available.Namespace}
				if available.MayAsk {
					words = append(words, "asked")
				}
				if chosen := available.Chosen; chosen != nil {
					words = append(words, "chosen")
					words = append(words, slices.DeleteFunc([]string{chosen.Pods}, func(s string) bool { return s == "" })...)
					words = append(words, chosen.Conditions...)
					if chosen.Enforced {
						words = append(words, "enforced")
					}
				}
				got = append(got, strings.Join(words, " "))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParameters(t *testing.T) {
	const custom = `custom: {parameters: [
      {name: level, description: "how much is told", enum: [info, debug], default: info},
      {name: team, required: true, pattern: "^[a-z]+$", minLength: 2, maxLength: 20},
      {name: port, type: integer, default: 8080, minimum: 1024, maximum: 65535},
      {name: space, type: quantity, maximum: 4Gi}, {name: fixed, default: x}],
    template: {annotations: {x: "${params.level}"}}}, overridable: [space, level, team, port]`
	tests := map[string]struct {
		spec        string
		annotations map[string]string // of the namespace
		want        []profiles.Parameter
	}{
		"a text, with what it is held to": {
			spec: `gitSync: {repo: "https://git.example.com/site.git", ref: main, mountPath: /srv/site}, overridable: [ref]`,
			want: []profiles.Parameter{{
				Name: "ref", Type: "string", Value: new("main"), Default: new("HEAD"), MinLength: 1, MaxLength: 255,
			}},
		},
		"numbers, choices, times and amounts": {
			spec: `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site, submodules: "Off"},
  overridable: [depth, submodules, period, sizeLimit, readOnly, sparseCheckout]`,
			want: []profiles.Parameter{
				{Name: "depth", Type: "integer", Value: new("1"), Default: new("1"), Minimum: "0", Maximum: "1000000"},
				{
					Name: "submodules", Type: "string", Value: new("Off"), Default: new("Recursive"),
					Enum: []string{"Recursive", "Shallow", "Off"},
				},
				{Name: "period", Type: "duration", Value: new("30s"), Default: new("30s"), MaxLength: 32},
				{Name: "sizeLimit", Type: "quantity", Value: new("1Gi"), Default: new("1Gi")},
				{Name: "readOnly", Type: "boolean", Value: new("true"), Default: new("true")},
				{Name: "sparseCheckout", Type: "array"},
			},
		},
		"the fields of an object, each once": {
			spec: `cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}, resources: {limits: {memory: 1Gi}}},
  overridable: [resources.limits, resources.limits.memory]`,
			want: []profiles.Parameter{
				{Name: "resources.limits", Type: "object", Value: new(`{"memory":"1Gi"}`), Fields: true},
				{Name: "resources.limits.cpu", Type: "quantity"},
				{Name: "resources.limits.ephemeral-storage", Type: "quantity"},
				{Name: "resources.limits.memory", Type: "quantity", Value: new("1Gi")},
			},
		},
		"what the namespace says": {
			spec:        `gitSync: {repo: "https://git.example.com/site.git", ref: main, mountPath: /srv/site}, overridable: [ref, depth]`,
			annotations: map[string]string{"p.pillion.dev/ref": "prod"},
			want: []profiles.Parameter{
				{
					Name: "ref", Type: "string", Value: new("prod"), Namespace: true, Default: new("HEAD"), MinLength: 1,
					MaxLength: 255,
				},
				{Name: "depth", Type: "integer", Value: new("1"), Default: new("1"), Minimum: "0", Maximum: "1000000"},
			},
		},
		"not what the namespace says where it is not valid": {
			spec:        `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}, overridable: [depth]`,
			annotations: map[string]string{"p.pillion.dev/depth": "deep"},
			want: []profiles.Parameter{
				{Name: "depth", Type: "integer", Value: new("1"), Default: new("1"), Minimum: "0", Maximum: "1000000"},
			},
		},
		"those of a custom pattern, as they are declared": {
			spec: custom, annotations: map[string]string{"p.pillion.dev/level": "debug", "p.pillion.dev/port": "80"},
			want: []profiles.Parameter{
				{
					Name: "level", Type: "string", Description: "how much is told", Value: new("debug"), Namespace: true,
					Default: new("info"), Enum: []string{"info", "debug"},
				},
				{Name: "team", Type: "string", Required: true, Pattern: "^[a-z]+$", MinLength: 2, MaxLength: 20},
				{
					Name: "port", Type: "integer", Value: new("8080"), Default: new("8080"), Minimum: "1024",
					Maximum: "65535",
				},
				{Name: "space", Type: "quantity", Maximum: "4Gi"},
			},
		},
		"none where none may be changed": {
			spec: `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}`,
		},
		"none of a profile that cannot be used": {
			spec: `gitSync: {mountPath: /srv/site}, overridable: [ref]`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := web()
			namespace.Annotations = test.annotations
			profile := compile(t, cluster("p", test.spec))
			got := profile.Parameters(namespace)
			ignored := cmpopts.IgnoreFields(profiles.Parameter{}, "Description", "Pattern", "Rules", "Annotation") // of the API
			if strings.HasPrefix(test.spec, "custom") {
				ignored = cmpopts.IgnoreFields(profiles.Parameter{}, "Annotation")
			}
			if diff := cmp.Diff(test.want, got, ignored); diff != "" {
				t.Error(diff)
			}
			for _, parameter := range got {
				if want := "p.pillion.dev/" + parameter.Name; parameter.Annotation != want {
					t.Errorf("%s is set by %s, want %s", parameter.Name, parameter.Annotation, want)
				}
				if !strings.HasPrefix(test.spec, "custom") && parameter.Description == "" {
					t.Errorf("%s has no description, which the API has", parameter.Name)
				}
			}
		})
	}
}

func TestRulesOfAFieldAreTold(t *testing.T) {
	profile := compile(t, cluster("p", `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site},
  overridable: [period, resources]`))
	rules := map[string][]string{}
	for _, parameter := range profile.Parameters(web()) {
		rules[parameter.Name] = parameter.Rules
	}
	if want := []string{"must be from 1s to 24h, for example 30s"}; !slices.Equal(rules["period"], want) {
		t.Errorf("%q, want %q", rules["period"], want)
	}
	if !slices.ContainsFunc(rules["resources"], func(rule string) bool { return strings.HasPrefix(rule, "requests.cpu must be") }) {
		t.Errorf("a rule of a field within does not name it: %q", rules["resources"])
	}
}
