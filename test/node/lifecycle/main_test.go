package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// waits is the image of a program that waits: the app of every Pod here, and what is woven into it.
const waits = "localhost/waits:1"

var (
	// cluster is the node, on which tests install Pillion.
	cluster *installed.Cluster

	// pristine is every object of the cluster before Pillion was ever there.
	pristine map[string]string

	// tools is a directory with the programs that the documentation calls.
	tools string
)

func TestMain(m *testing.M) {
	os.Exit(installed.Run(prepared{m}, installed.Options{
		Images: []string{"memcached"}, Programs: map[string]string{waits: "./test/node/lifecycle/testdata/waits"}, WithoutPillion: true,
	}, func(c *installed.Cluster) { cluster = c }))
}

// prepared runs the tests with what they share.
type prepared struct{ *testing.M }

func (tests prepared) Run() int {
	dir, err := os.MkdirTemp("", "pillion-lifecycle-")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // the tests have ended
		err = prepare(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return tests.M.Run()
}

func prepare(ctx context.Context, dir string) (err error) {
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		return err
	}
	tools = dir
	if pristine, err = inventory(ctx); err != nil {
		return err
	}
	return errors.Join(
		os.Symlink(kubectl, filepath.Join(dir, "kubectl")),
		os.Symlink(filepath.Join(cluster.Root, "bin", "tools", "helm"), filepath.Join(dir, "helm")),
		node.BuildProgram(ctx, "./cmd/pillion", filepath.Join(dir, "pillion")),
	)
}

// need installs Pillion where no test before has, or has left none.
func need(t *testing.T) {
	t.Helper()
	told(t)
	key := client.ObjectKey{Namespace: installed.Namespace, Name: "pillion-webhook"}
	err := cluster.Client.Get(t.Context(), key, &appsv1.Deployment{})
	switch {
	case apierrors.IsNotFound(err):
		err = cluster.Install(t.Context())
	case err == nil:
		err = cluster.AwaitPillion(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// told has a test that fails tell what happened in Pillion's namespace.
func told(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(cluster.Explain(context.Background(), installed.Namespace))
		}
	})
}

// documented runs the commands of a page that stand in a block of code below a heading, in the repository's folder.
func documented(t *testing.T, page, heading string, index int) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(cluster.Root, "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(content), "# "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n#")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if !found || len(blocks) <= index {
		t.Fatalf("docs/%s has no block %d below %q", page, index, heading)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", blocks[index][1])
	command.Dir = cluster.Root
	command.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig, "HELM_CACHE_HOME="+tools, "HELM_CONFIG_HOME="+tools,
		"HELM_DATA_HOME="+tools, "PATH="+tools+string(os.PathListSeparator)+os.Getenv("PATH"))
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s%s", heading, err, blocks[index][1], out)
	}
}

// pillions are the Pods of Pillion's own, those that end too.
func pillions(ctx context.Context) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	err := cluster.Client.List(ctx, list, client.InNamespace(installed.Namespace), client.HasLabels{"app.kubernetes.io/component"})
	return list.Items, err
}

// awaitNoPods waits until every process of Pillion's has ended.
func awaitNoPods(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, "the end of Pillion's Pods", func(ctx context.Context) error {
		pods, err := pillions(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("there are %d Pods", len(pods))
		}
		return err
	})
}

// awaitOthers waits until none of some Pods is there any more, and Pillion is complete.
func awaitOthers(t *testing.T, before []corev1.Pod) {
	t.Helper()
	old := map[string]bool{}
	for i := range before {
		old[string(before[i].UID)] = true
	}
	if err := cluster.AwaitPillion(t.Context()); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, "the end of the Pods of before", func(ctx context.Context) error {
		pods, err := pillions(ctx)
		for i := range pods {
			if old[string(pods[i].UID)] {
				err = errors.Join(err, fmt.Errorf("%s is there still", pods[i].Name))
			}
		}
		return err
	})
}

// currentPods are Pillion's Pods now.
func currentPods(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := pillions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// remove deletes an object at once, without a word to whoever runs it.
func remove(t *testing.T, object client.Object) {
	t.Helper()
	if err := client.IgnoreNotFound(cluster.Client.Delete(t.Context(), object, client.GracePeriodSeconds(0))); err != nil {
		t.Fatal(err)
	}
}

// awaitGone waits until an object is not there any more.
func awaitGone(t *testing.T, what string, object client.Object) {
	t.Helper()
	cluster.Eventually(t, "the end of "+what, func(ctx context.Context) error {
		switch err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(object), object); {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		default:
			return errors.New("it is there still")
		}
	})
}

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
