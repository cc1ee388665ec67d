package patterns_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/gitserver"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// What the app finds of the repository and of what is rendered from it.
const (
	pageFile     = "/srv/repository/current/pages/index.html"
	renderedFile = "/etc/app/app.conf"
)

// together are profiles of all four patterns. By their names alone they would start in the opposite order. Each has a hole for
// its match.
const together = `
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: repository}
spec:%[1]s
  gitSync: {repo: "%[2]s", ref: main, period: 1s, mountPath: /srv/repository}
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: configuration}
spec:%[1]s
  templateProcessor:
    templates: {gitSync: {profile: repository, path: templates}}
    parameters:
    - name: app
      configMap: {name: app-parameters, key: app.yaml}
    mountPath: /etc/app
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: cache}
spec:%[1]s
  cacheAmbassador: {protocol: Memcached, local: {memory: 8Mi}}
  after: [configuration]
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: adapter}
spec:%[1]s
  prometheusAdapter: {statsd: {}}
  after: [cache]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app-parameters}
data: {app.yaml: 'greeting: hello'}
`

// allMatch chooses all Pods of the namespace.
const allMatch = "\n  failurePolicy: Fail\n  match: {podSelector: {}}"

// fourProfiles are those of together, in the order in which they have to start.
var fourProfiles = []string{"repository", "configuration", "cache", "adapter"}

// firstPage and firstFile are what the app finds.
const (
	firstPage = "the first page"
	firstFile = "hello of the first template"
)

// useAll are arguments for an app that uses all four.
var useAll = []string{"-read", pageFile, "-read", renderedFile, "-cache", "visits", "-count", "shop.orders", "-lines", "50"}

// createFour makes a namespace with a git repository and profiles of all four patterns, which are chosen as match and the labels say.
func createFour(t *testing.T, match string, labels map[string]string) (namespace string, server *gitserver.Server) {
	t.Helper()
	server, err := gitserver.Start(context.WithoutCancel(t.Context()), t.TempDir(), node.Address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Create("app"); err != nil {
		t.Fatal(err)
	}
	push(t, server, firstPage, "of the first template")
	namespace = cluster.CreateRestricted(t, labels)
	cluster.Apply(t, namespace, fmt.Sprintf(together, match, server.URL("app")))
	for _, profile := range fourProfiles {
		cluster.AwaitProfile(t, namespace, profile)
	}
	return namespace, server
}

func push(t *testing.T, server *gitserver.Server, page, template string) {
	t.Helper()
	_, err := server.Push(t.Context(), "app", map[string]string{
		"pages/index.html": page + "\n", "templates/app.conf.tmpl": "{{ .app.greeting }} " + template + "\n",
	}, page)
	if err != nil {
		t.Fatal(err)
	}
}

// checkFour checks that all four worked for an app with useAll at its first instructions.
func checkFour(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	checkWoven(t, pod, fourProfiles...)
	var order []string
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		order = append(order, container.Name)
	}
	want := []string{"pillion-repository", "pillion-configuration", "pillion-cache", "pillion-adapter", "app"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("containers of Pod %s (-want +got):\n%s", pod.Name, diff)
	}
	checkStarts(t, pod)
	report := reportAtStart(t, pod, "app")
	report.checkContents(t, map[string]string{pageFile: firstPage, renderedFile: firstFile})
	if report.Cached != pod.Name {
		t.Errorf("the cache gave %q back to Pod %s, want what it stored, its name", report.Cached, pod.Name)
	}
	if report.Counted != "127.0.0.1:9125" {
		t.Errorf("the app of Pod %s sent its StatsD lines to %q", pod.Name, report.Counted)
	}
}

// checkStarts checks by the status that each container was started after those ahead of it, and that a plain init container
// had ended before. Times there are whole seconds.
func checkStarts(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	var last metav1.Time
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		state := statusOf(pod, container.Name).State
		var started metav1.Time
		switch {
		case state.Running != nil:
			started = state.Running.StartedAt
		case state.Terminated != nil:
			started = state.Terminated.StartedAt
		}
		if started.IsZero() || started.Before(&last) {
			t.Errorf("container %s of Pod %s was started at %s, want it to be so, and not before %s: %+v", container.Name, pod.Name,
				started, last, state)
		}
		last = started
		if container.Name == "pillion-configuration" && state.Terminated != nil {
			last = state.Terminated.FinishedAt
		}
	}
}

func TestAllFourPatternsWorkInOnePodInOrder(t *testing.T) {
	t.Parallel()
	namespace, server := createFour(t, allMatch, nil)
	deployment := installed.Deployment(namespace, "shop", workload, append(slices.Clone(useAll), serving)...)
	cluster.AwaitWoven(t, namespace, &deployment.Spec.Template, fourProfiles...)
	runtime := watchRuntime(t)

	// While the git server keeps git-sync waiting nothing else starts.
	release, waiting, err := server.Hold("app")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	cluster.Create(t, deployment)
	cluster.Eventually(t, "git-sync to ask for the repository", func(context.Context) error {
		if waiting() == 0 {
			return errors.New("nobody waits")
		}
		return nil
	})
	held := cluster.PodThat(t, namespace, "shop", "waits for git-sync", func(pod *corev1.Pod) error {
		if len(statuses(pod)) < 5 {
			return errors.New("there is no status yet")
		}
		return nil
	})
	for _, status := range statuses(held)[1:] {
		if status.State.Waiting == nil {
			t.Errorf("before the first sync container %s is %+v", status.Name, status.State)
		}
	}
	release()

	pod := cluster.ReadyPod(t, namespace, "shop")
	if pod.UID != held.UID {
		t.Errorf("Pod %s is Ready, want %s to be", pod.Name, held.Name)
	}
	checkFour(t, pod)
	runtime.checkOrder(t, pod)
	awaitSeries(t, pod, "shop_orders", map[string]float64{"shop_orders": 50})

	// A commit reaches the page, and not the file that was rendered.
	push(t, server, "the second page", "of the second template")
	cluster.Eventually(t, "the second page", func(ctx context.Context) error {
		now, err := reportNow(ctx, pod)
		if err != nil {
			return err
		}
		if page := now.Files[pageFile].Content; page != "the second page" {
			return fmt.Errorf("the page is %q", page)
		}
		now.checkContents(t, map[string]string{pageFile: "the second page", renderedFile: firstFile})
		return nil
	})
	restart(t, namespace, "deployment/shop")
	if err := cluster.AwaitRollout(t.Context(), namespace, "shop"); err != nil {
		t.Fatal(err)
	}
	next := reportAtStart(t, cluster.ReadyPod(t, namespace, "shop"), "app")
	next.checkContents(t, map[string]string{pageFile: "the second page", renderedFile: "hello of the second template"})
}
