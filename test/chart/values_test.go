package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// template renders the chart with further arguments.
func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"template", release, chartDir(), "--namespace", namespace, "--skip-tests"}, args...)
	return run(t.Context(), helmBinary(), args...)
}

func TestWrongValuesAreRefused(t *testing.T) {
	tests := map[string]struct {
		values string
		says   []string
	}{
		"a value that there is none of": {
			values: "webhok: {replicas: 3}", says: []string{"additional properties 'webhok' not allowed"},
		},
		"a value of a component that there is none of": {
			values: "webhook: {replica: 3}", says: []string{"/webhook", "additional properties 'replica' not allowed"},
		},
		"a key of the configuration that there is none of": {
			values: "config: {webhook: {maxBodyByte: 5}}",
			says:   []string{"/config/webhook", "additional properties 'maxBodyByte' not allowed"},
		},
		"a number of the configuration in quotes": {
			values: `config: {webhook: {maxBodyBytes: "5000000"}}`,
			says:   []string{"/config/webhook/maxBodyBytes", "got string, want integer"},
		},
		"a duration without its unit": {
			values: `config: {webhook: {drainDelay: "5"}}`, says: []string{"/config/webhook/drainDelay", "does not match pattern"},
		},
		"a duration that is a number": {
			values: `config: {webhook: {drainDelay: 5}}`, says: []string{"/config/webhook/drainDelay", "got number, want string"},
		},
		"a word that is none of those": {
			values: `config: {certs: {mode: certmanager}}`,
			says:   []string{"/config/certs/mode", "'auto', 'builtin', 'cert-manager'"},
		},
		"an empty list item": {
			values: `config: {excludedNamespaces: [""]}`, says: []string{"/config/excludedNamespaces/0", "minLength"},
		},
		"no replica": {
			values: "webhook: {replicas: 0}", says: []string{"/webhook/replicas", "minimum: got 0, want 1"},
		},
		"a registry with its protocol": {
			values: "registry: https://registry.example.com", says: []string{"/registry"},
		},
		"a tag with the repository": {
			values: "image: {tag: pillion:v1}", says: []string{"/image/tag", "does not match pattern"},
		},
		"a digest without its algorithm": {
			values: "image: {digest: abcdef}", says: []string{"/image/digest", "does not match pattern"},
		},
		"a range that is an address": {
			values: "networkPolicy: {apiServer: {cidrs: [10.0.0.1]}}", says: []string{"/networkPolicy/apiServer/cidrs/0"},
		},
		"the limit of memory that the chart sets, by a variable": {
			values: "webhook: {env: [{name: GOMEMLIMIT, value: 1GiB}]}", says: []string{"/webhook/env/0/name"},
		},
		"another namespace than the release's": {
			values: "config: {namespace: other}", says: []string{"config.namespace is the namespace of the release: leave it out"},
		},
		"a webhook elsewhere": {
			values: `config: {controller: {webhookURL: "https://127.0.0.1:9443"}}`,
			says:   []string{"config.controller.webhookURL is for a webhook outside of the cluster"},
		},
		"two controllers that both work": {
			values: "config: {controller: {leaderElection: false}}", says: []string{"set controller.replicas to 1"},
		},
		"a self-check where nothing is looked at": {
			values: "config: {excludedNamespaces: [pillion-selfcheck]}",
			says:   []string{"config.excludedNamespaces has pillion-selfcheck", "take it off the list"},
		},
		"a file of CAs that no volume holds": {
			values: "config: {webhook: {clientCA: /etc/ca/ca.crt}}", says: []string{"/etc/ca/ca.crt, which no mount", "volumeMounts: ["},
		},
		"less time to end than the drain takes": {
			values: "webhook: {terminationGracePeriodSeconds: 15}", says: []string{"is 15, and the drain takes up to 15 s"},
		},
		"less time to end than a longer drain takes": {
			values: "webhook: {terminationGracePeriodSeconds: 60}\nconfig: {webhook: {drainDelay: 1m}}", says: []string{"up to 70 s"},
		},
		"memory in a form that nobody can multiply": {
			values: "webhook: {resources: {limits: {memory: 134217728000m}}}",
			says:   []string{"by which GOMEMLIMIT cannot be set", "128Mi"},
		},
		"less memory than what may be in flight": {
			values: "webhook: {resources: {limits: {memory: 64Mi}}}", says: []string{"raise it to 116Mi at least"},
		},
		"a ServiceMonitor without metrics": {
			values: "serviceMonitor: {enabled: true}\nconfig: {webhook: {metricsAddress: none}}", says: []string{"has nothing to read"},
		},
		"several at once": {
			values: "config: {namespace: other, kubeconfig: /root/.kube/config}",
			says:   []string{"config.namespace is", "config.kubeconfig is"},
		},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		test := tests[name]
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, []byte(test.values), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := template(t, "--values", file)
			if err == nil {
				t.Fatalf("it renders:\n%.500s", out)
			}
			for _, says := range test.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("it does not say %q:\n%v", says, err)
				}
			}
		})
	}
}
