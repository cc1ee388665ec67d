package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// cluster answers as an API server that has some objects, by their paths, and knows no kinds but Kubernetes' own.
func cluster(t *testing.T, objects map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answers := map[string]string{
			"/api":  `{"kind": "APIVersions", "versions": ["v1"]}`,
			"/apis": `{"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}]}`,
			"/apis/apps/v1": `{"kind": "APIResourceList", "groupVersion": "apps/v1",
				"resources": [{"name": "deployments", "kind": "Deployment", "namespaced": true, "verbs": ["get"]}]}`,
			"/api/v1": `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [
				{"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["get"]},
				{"name": "namespaces", "kind": "Namespace", "verbs": ["get"]}]}`,
		}
		answer, ok := answers[r.URL.Path]
		if !ok {
			answer, ok = objects[r.URL.Path]
		}
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}`
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": server.URL}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "namespace": "web"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(config)
}

func TestExplainInAClusterWithoutPillion(t *testing.T) {
	config := cluster(t, map[string]string{
		"/apis/apps/v1/namespaces/web/deployments/shop": `{"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "shop", "namespace": "web"},
			"spec": {"template": {"spec": {"containers": [{"name": "app"}]}}}}`,
		"/api/v1/namespaces/web": `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "web"}}`,
	})
	tests := map[string]struct{ args, stderr string }{
		"a workload": {"deploy/shop", "error: Deployment shop: Pillion is not installed in this cluster: it does not know PatternProfiles and " +
			"ClusterPatternProfiles; give profiles as files by --profiles, or see deploy/ for how to install it\n"},
		"a workload that is not there": {
			"deploy/shoe", "error: there is no Deployment shoe in namespace web; name another namespace by --namespace\n",
		},
		"a file":            {"-f in.yaml", "Pod p: Pillion is not installed in this cluster"},
		"another namespace": {"deploy/shop -n other", "error: there is no Deployment shop in namespace other"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			out, stderr, err := run(t, map[string]string{
				"config": config, "in.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: app}]}\n",
			}, "", append([]string{"explain", "--kubeconfig", "config"}, strings.Fields(test.args)...)...)
			if message(err) != "what the error above is about is not explained" || out != "" || !strings.Contains(stderr, test.stderr) {
				t.Errorf("got %v, %q, %q", err, out, stderr)
			}
		})
	}
	t.Run("no cluster at all", func(t *testing.T) {
		_, _, err := run(t, nil, "", "explain", "deploy/shop", "--kubeconfig", "config")
		if !strings.Contains(message(err), "or give profiles as files by --profiles, which needs no cluster") {
			t.Error(err)
		}
	})
}
