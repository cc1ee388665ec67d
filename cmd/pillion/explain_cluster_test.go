package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
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
		answer, ok := objects[r.URL.Path]
		if !ok {
			answer, ok = answers[r.URL.Path]
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
		"another namespace": {"deploy/shop -n other", "error: there is no namespace other; name another one by --namespace\n"},
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

// pillionIn are the paths of a cluster with Pillion, whose webhook configuration excludes namespace shared alone.
func pillionIn(more map[string]string) map[string]string {
	objects := map[string]string{
		"/apis/pillion.dev/v1alpha1": `{"kind": "APIResourceList", "groupVersion": "pillion.dev/v1alpha1", "resources": [
			{"name": "patternprofiles", "kind": "PatternProfile", "namespaced": true, "verbs": ["list"]},
			{"name": "clusterpatternprofiles", "kind": "ClusterPatternProfile", "verbs": ["list"]}]}`,
		"/apis/admissionregistration.k8s.io/v1": `{"kind": "APIResourceList", "groupVersion": "admissionregistration.k8s.io/v1", "resources": [
			{"name": "mutatingwebhookconfigurations", "kind": "MutatingWebhookConfiguration", "verbs": ["get"]}]}`,
		"/apis/apps/v1": `{"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [
			{"name": "replicasets", "kind": "ReplicaSet", "namespaced": true, "verbs": ["get"]},
			{"name": "deployments", "kind": "Deployment", "namespaced": true, "verbs": ["get"]}]}`,
		"/apis/pillion.dev/v1alpha1/clusterpatternprofiles": `{"kind": "ClusterPatternProfileList", "apiVersion": "pillion.dev/v1alpha1", "items": [
			{"metadata": {"name": "site", "creationTimestamp": "2026-03-02T10:00:00Z"},
				"spec": {"gitSync": {"repo": "https://git.example.com/site.git", "mountPath": "/srv/site"}, "match": {"podSelector": {"matchLabels": {"app": "shop"}}}}}]}`,
		"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pillion": `{"kind": "MutatingWebhookConfiguration",
			"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "pillion"}, "webhooks": [{"name": "pods.pillion.dev",
			"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["shared"]}]}}]}`,
	}
	for _, namespace := range []string{"web", "shared", "kube-public"} {
		objects["/apis/pillion.dev/v1alpha1/namespaces/"+namespace+"/patternprofiles"] = `{"kind": "PatternProfileList", "apiVersion": "pillion.dev/v1alpha1", "items": []}`
		objects["/api/v1/namespaces/"+namespace] = `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "` + namespace + `"}}`
	}
	maps.Copy(objects, more)
	return objects
}

const shopInCluster = `{"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "shop", "namespace": "web", "uid": "d", "annotations": {"pillion.dev/inject": "cache"}},
	"spec": {"template": {"metadata": {"labels": {"app": "shop"}, "annotations": {"site.pillion.dev/ref": "v2"}}, "spec": {"containers": [{"name": "app"}]}}}}`

func replicaSetOf(owner string) string {
	return `{"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": {"name": "shop-1", "namespace": "web", "uid": "r", "annotations": {"pillion.dev/inject": "cache"},
		"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "` + owner + `", "controller": true}]},
		"spec": {"template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "app"}]}}}}`
}

func podCreated(at, metadata string) string {
	return `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "shop-1-x", "namespace": "web", "creationTimestamp": "` + at + `",
		"labels": {"app": "shop"}` + metadata + `}, "spec": {"containers": [{"name": "app"}]}}`
}

const (
	ofReplicaSet = `, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-1", "uid": "r", "controller": true}]`
	podPath      = "/api/v1/namespaces/web/pods/shop-1-x"
	setPath      = "/apis/apps/v1/namespaces/web/replicasets/shop-1"
	shopPath     = "/apis/apps/v1/namespaces/web/deployments/shop"
	webhooksPath = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pillion"
)

func TestWhyAPodOfTheClusterHasNoSidecar(t *testing.T) {
	before, after := "2026-03-02T09:00:00Z", "2026-03-02T11:00:00Z"
	const misplaced = "warning: Deployment shop: its own metadata.annotations have pillion.dev/inject, which is read from Pods only; " +
		"move it to spec.template.metadata.annotations\n"
	tests := map[string]struct {
		objects map[string]string
		args    string
		want    []string
		without []string
	}{
		"it was created before the profile": {
			objects: map[string]string{podPath: podCreated(before, "")},
			want: []string{
				"The Pod carries nothing of Pillion's. Created today it would get site.\nThe Pod was created before ClusterPatternProfile site. " +
					"A Pod that runs stays as it is; delete it, and create it anew.\n",
				"Profiles of such a Pod created today, in the order in which they start\n",
			},
		},
		"it is newer than the profile": {
			objects: map[string]string{podPath: podCreated(after, "")},
			want:    []string{"What brings that may be newer than the Pod: its match, a label or an annotation. Or the API server did not reach Pillion then."},
		},
		"its Deployment's own annotation asks, which its ReplicaSet has too, and the template is another by now": {
			objects: map[string]string{podPath: podCreated(after, ofReplicaSet), setPath: replicaSetOf("d"), shopPath: shopInCluster},
			want: []string{
				misplaced, "the template of Deployment shop differs from this Pod in site.pillion.dev/ref: the Pod is of another revision of it, or was " +
					"changed; what becomes of new Pods is told by: pillion explain deployment/shop -n web\n",
				"to create it anew: kubectl rollout restart deployment/shop -n web\n",
			},
		},
		"of a ReplicaSet the Deployment is told, which is where people mend it": {
			objects: map[string]string{setPath: replicaSetOf("d"), shopPath: shopInCluster}, args: "rs/shop-1",
			want: []string{misplaced}, without: []string{"warning: its own"},
		},
		"another Deployment of the same name is not its own": {
			objects: map[string]string{setPath: replicaSetOf("other"), shopPath: shopInCluster}, args: "rs/shop-1",
			want: []string{"warning: its own"}, without: []string{misplaced},
		},
		"an owner that is not there": {
			objects: map[string]string{podPath: podCreated(before, ofReplicaSet)},
			want:    []string{"what controls it creates it anew after: kubectl delete pod/shop-1-x -n web\n"},
		},
		"its annotation is misspelled": {
			objects: map[string]string{podPath: podCreated(before, `, "annotations": {"pillion.dev/injcet": "site", "pilion.dev/inject": "site"}`)},
			want: []string{
				"warning: nothing reads the annotation pillion.dev/injcet; did you mean pillion.dev/inject?\n",
				"warning: nothing reads the annotation pilion.dev/inject; did you mean pillion.dev/inject?\n",
			},
		},
		"the cluster's configuration excludes its namespace": {
			args: "-f in.yaml -n shared", want: []string{"Nothing is added: namespace shared is one that Pillion never touches"},
			without: []string{"--excluded-namespaces"},
		},
		"the cluster's configuration does not exclude what is excluded by default": {
			args: "-f in.yaml -n kube-public", want: []string{"The Pod gets site."},
		},
		"what the user says of excluded namespaces is what is meant": {
			args: "-f in.yaml --excluded-namespaces web",
			want: []string{"Nothing is added: namespace web is one", "is what this command is told by --excluded-namespaces, or takes by default"},
		},
		"the webhook configuration has no entries": {
			objects: map[string]string{webhooksPath: `{"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "pillion"}}`},
			args:    "-f in.yaml",
			want:    []string{"warning: MutatingWebhookConfiguration pillion has no entry for Pods that ask, so that they get nothing: Pillion's controller writes it"},
		},
		"there is no webhook configuration": {
			objects: map[string]string{webhooksPath: ""}, args: "-f in.yaml",
			want: []string{"warning: the cluster has no MutatingWebhookConfiguration pillion, by which the API server calls Pillion"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			objects := pillionIn(test.objects)
			maps.DeleteFunc(objects, func(_, object string) bool { return object == "" })
			args := append([]string{"explain", "--kubeconfig", "config", "--diff=false"}, strings.Fields(cmp.Or(test.args, "pod/shop-1-x"))...)
			out, stderr, err := run(t, map[string]string{
				"config":  cluster(t, objects),
				"in.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: shop}}\nspec: {containers: [{name: app}]}\n",
			}, "", args...)
			if err != nil || stderr != "" {
				t.Fatal(err, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in\n%s", want, out)
				}
			}
			for _, none := range test.without {
				if strings.Contains(out, none) {
					t.Errorf("want no %q in\n%s", none, out)
				}
			}
		})
	}
}
