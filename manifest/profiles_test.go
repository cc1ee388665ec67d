package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/profiles"
)

func TestLoadProfiles(t *testing.T) {
	const cluster = "apiVersion: pillion.dev/v1alpha1\nkind: ClusterPatternProfile\nmetadata: {name: NAME}\n" +
		"spec: {cacheAmbassador: {protocol: Memcached, local: {}}}\n"
	named := func(name string) string { return strings.Replace(cluster, "NAME", name, 1) }
	namespaced := func(name string) string { return strings.Replace(named(name), "Cluster", "", 1) }
	tests := map[string]struct {
		files          map[string]string
		want           []string
		wantNamespaces Namespaces
		wantErr        []string
	}{
		"profiles of both kinds, those without a namespace in the one given": {
			files: map[string]string{
				"a.yaml": named("a") + "---\n" + namespaced("b") + "---\n" +
					strings.Replace(namespaced("b"), "{name: b}", "{name: b, namespace: other}", 1),
			},
			want: []string{"ClusterPatternProfile a", "PatternProfile web/b", "PatternProfile other/b"},
		},
		"JSON, and a List": {
			files: map[string]string{
				"a.json": `{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "pillion.dev/v1alpha1", "kind": "PatternProfile",` +
					`"metadata": {"name": "a"}, "spec": {"cacheAmbassador": {"protocol": "Memcached", "local": {}}}}]}`,
			},
			want: []string{"PatternProfile web/a"},
		},
		"objects of other kinds are ignored, but for what Namespaces say of themselves": {
			files: map[string]string{
				"a.yaml":             named("a"),
				"kustomization.yaml": "resources: [a.yaml]\n",
				"ns.yaml": "{apiVersion: v1, kind: Namespace, metadata: {name: web, labels: {team: x}, annotations: {owner: jane}}}\n---\n" +
					"{apiVersion: v1, kind: Namespace, metadata: {name: bare}}\n---\n{apiVersion: v1, kind: Namespace}\n",
			},
			want: []string{"ClusterPatternProfile a"},
			wantNamespaces: Namespaces{
				"web": {
					Name: "web", Labels: map[string]string{"team": "x", "kubernetes.io/metadata.name": "web"},
					Annotations: map[string]string{"owner": "jane"},
				},
				"bare": {Name: "bare", Labels: map[string]string{"kubernetes.io/metadata.name": "bare"}},
			},
		},
		"everything that is wrong": {
			files: map[string]string{
				"a.yaml": strings.Replace(named("a"), "Memcached", "X", 1) + "---\na: [\n---\n" + named("b"),
				"b.yaml": "\n" + named("b"),
			},
			wantErr: []string{
				`a.yaml:4:26: ClusterPatternProfile a: spec.cacheAmbassador.protocol: Unsupported value: "X"`,
				"a.yaml:6: this is not YAML that Kubernetes reads: did not find expected node content",
				"b.yaml:2:1: ClusterPatternProfile b is in a.yaml on line 8 already; remove one of them",
			},
		},
		"no profile at all": {
			files:   map[string]string{"a.yaml": "kind: A\n"},
			wantErr: []string{"there is no PatternProfile or ClusterPatternProfile in ."},
		},
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			t.Chdir(dir)
			loaded, namespaces, err := LoadProfiles(compiler, []string{"."}, "web")
			var messages []string
			if err != nil {
				messages = strings.Split(err.Error(), "\n")
			}
			if len(messages) != len(test.wantErr) {
				t.Fatalf("errors:\n%s", strings.Join(messages, "\n"))
			}
			for i, want := range test.wantErr {
				if !strings.HasPrefix(messages[i], want) {
					t.Errorf("error %q, want %q", messages[i], want)
				}
			}
			if err != nil {
				return
			}
			var got []string
			for _, profile := range loaded {
				got = append(got, profile.Scope())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("profiles (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantNamespaces, namespaces); test.wantNamespaces != nil && diff != "" {
				t.Errorf("namespaces (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamespacesGet(t *testing.T) {
	namespaces := Namespaces{}
	got := namespaces.Get("new")
	want := profiles.Namespace{Name: "new", Labels: map[string]string{"kubernetes.io/metadata.name": "new"}}
	if diff := cmp.Diff(want, got); diff != "" || len(namespaces) != 0 {
		t.Errorf("namespace (-want +got):\n%s; known now: %v", diff, namespaces)
	}
}
