package patterns_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/gitserver"
	"github.com/pillion-dev/pillion/test/node/installed"
)

const (
	// gitSyncFile is what apps read with their first instruction, of the repository gitSyncRepository.
	gitSyncFile       = "/srv/site/current/" + gitSyncPage
	gitSyncPage       = "greeting"
	gitSyncRepository = "site"
)

// startGit starts a git server that Pods reach, with one commit of files.
func startGit(t *testing.T, files map[string]string) *gitserver.Server {
	t.Helper()
	return startGitAt(t, t.TempDir(), node.Address+":0", files)
}

func startGitAt(t *testing.T, dir, address string, files map[string]string) *gitserver.Server {
	t.Helper()
	server, err := gitserver.Start(t.Context(), dir, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	createRepository(t, server, gitSyncRepository, files)
	return server
}

func createRepository(t *testing.T, server *gitserver.Server, repository string, files map[string]string) {
	t.Helper()
	if err := server.Create(repository); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Push(t.Context(), repository, files, "the first"); err != nil {
		t.Fatal(err)
	}
}

func pushFiles(t *testing.T, server *gitserver.Server, files map[string]string) {
	t.Helper()
	if _, err := server.Push(t.Context(), gitSyncRepository, files, "another"); err != nil {
		t.Fatal(err)
	}
}

// gitSyncContainer and gitSyncProfile are the names for a Deployment's name.
func gitSyncContainer(name string) string { return "pillion-" + gitSyncProfile(name) }
func gitSyncProfile(name string) string   { return name + "-files" }

// applyGitSync applies a PatternProfile for the Pods of a Deployment, whose fields of gitSync are YAML on a line.
func applyGitSync(t *testing.T, namespace, name, fields string) {
	t.Helper()
	cluster.Apply(t, namespace, fmt.Sprintf(`
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: %s}
spec:
  match: {podSelector: {matchLabels: {app: %s}}}
  gitSync: {mountPath: /srv/site, %s}
`, gitSyncProfile(name), name, fields))
	cluster.AwaitProfile(t, namespace, gitSyncProfile(name))
}

// createReader creates a Deployment of an app that reads gitSyncFile with its first instruction, and stays.
func createReader(t *testing.T, namespace, name, fields string) {
	t.Helper()
	applyGitSync(t, namespace, name, fields)
	deployment := installed.Deployment(namespace, name, workload, "-read", gitSyncFile, serving)
	cluster.AwaitWoven(t, namespace, &deployment.Spec.Template, gitSyncProfile(name))
	cluster.Create(t, deployment)
}

// readerStarted returns the Pod of a reader when it is Ready, and checks what it read with its first instruction.
func readerStarted(t *testing.T, namespace, name, want string) *corev1.Pod {
	t.Helper()
	pod := cluster.ReadyPod(t, namespace, name)
	checkWoven(t, pod, gitSyncProfile(name))
	reportAtStart(t, pod, "app").checkContents(t, map[string]string{gitSyncFile: want})
	return pod
}

// awaitRead waits until a reader that looks again reads this.
func awaitRead(t *testing.T, pod *corev1.Pod, want string) {
	t.Helper()
	cluster.Eventually(t, fmt.Sprintf("Pod %s to read %q", pod.Name, want), func(ctx context.Context) error {
		report, err := reportNow(ctx, pod)
		if err == nil && report.Files[gitSyncFile].Content != want {
			err = fmt.Errorf("it reads %q, with %q", report.Files[gitSyncFile].Content, report.Errors)
		}
		return err
	})
}

// checkAppWaits fails if the app of a Pod has been started.
func checkAppWaits(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	now := &corev1.Pod{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(pod), now); err != nil {
		t.Fatal(err)
	}
	app := statusOf(now, "app")
	if now.Status.Phase != corev1.PodPending || app.State.Waiting == nil || app.RestartCount > 0 {
		t.Errorf("Pod %s is %s and its app %+v, want neither to have started", now.Name, now.Status.Phase, app)
	}
}

// awaitWaiting waits until somebody waits for the git server's answer.
func awaitWaiting(t *testing.T, waiting func() int) {
	t.Helper()
	cluster.Eventually(t, "git-sync to wait for the server", func(context.Context) error {
		if waiting() == 0 {
			return errors.New("nobody waits")
		}
		return nil
	})
}

func hold(t *testing.T, server *gitserver.Server) (release func(), waiting func() int) {
	t.Helper()
	release, waiting, err := server.Hold(gitSyncRepository)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return release, waiting
}

func TestAnAppStartsAfterTheFirstSyncHoweverLateTheServerAnswers(t *testing.T) {
	t.Parallel()
	server := startGit(t, map[string]string{gitSyncPage: "hello"})
	namespace := cluster.CreateRestricted(t, nil)
	release, waiting := hold(t, server)
	createReader(t, namespace, "reader", "repo: '"+server.URL(gitSyncRepository)+"', ref: main")
	awaitWaiting(t, waiting)
	pod := cluster.PodThat(t, namespace, "reader", "is there", func(*corev1.Pod) error { return nil })

	// What waits for nothing has started by now although it is younger.
	cluster.Create(t, installed.Deployment(namespace, "bare", workload, serving))
	cluster.ReadyPod(t, namespace, "bare")
	checkAppWaits(t, pod)

	released := time.Now()
	release()
	ready := readerStarted(t, namespace, "reader", "hello")
	if ready.UID != pod.UID {
		t.Errorf("Pod %s came up, want %s", ready.Name, pod.Name)
	}
	running := statusOf(ready, "app").State.Running
	if running == nil || running.StartedAt.Time.Before(released.Truncate(time.Second)) { // a status knows whole seconds
		t.Errorf("the app started at %v; the server answered at %s", running, released)
	}
}

func TestAPodThatIsDeletedBeforeItsFirstSyncEndsSoonAfterThatHasTimedOut(t *testing.T) {
	t.Parallel()
	server := startGit(t, map[string]string{gitSyncPage: "hello"})
	namespace := cluster.CreateRestricted(t, nil)
	_, waiting := hold(t, server)
	applyGitSync(t, namespace, "reader", "repo: '"+server.URL(gitSyncRepository)+"', syncTimeout: 5s")
	deployment := installed.Deployment(namespace, "reader", workload, "-read", gitSyncFile, serving)
	// Whoever waits this out is told from who does not, on however busy a machine. The kubelet does wait for the sync (docs/limits.md).
	deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(3600))
	cluster.AwaitWoven(t, namespace, &deployment.Spec.Template, gitSyncProfile("reader"))
	cluster.Create(t, deployment)
	awaitWaiting(t, waiting)
	pod := cluster.PodThat(t, namespace, "reader", "is there", func(*corev1.Pod) error { return nil })
	checkAppWaits(t, pod)

	// Nothing takes its place.
	if _, err := cluster.Kubectl(t.Context(), "scale", "--namespace", namespace, "--replicas=0", "deployment/reader"); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, "the Pod to be deleted", func(ctx context.Context) error {
		now := &corev1.Pod{}
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
			return client.IgnoreNotFound(err)
		}
		if now.DeletionTimestamp == nil {
			return errors.New("it is not")
		}
		return nil
	})
	deleted := time.Now()
	cluster.Eventually(t, "the Pod to be gone", func(ctx context.Context) error {
		err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), &corev1.Pod{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
	took := time.Since(deleted).Round(10 * time.Millisecond)
	t.Logf("a Pod that was deleted while it waited for its first sync was gone after %s", took)
}

func TestOnceTheFilesStayAsTheyWereAtTheStart(t *testing.T) {
	t.Parallel()
	server := startGit(t, map[string]string{gitSyncPage: "old"})
	namespace := cluster.CreateRestricted(t, nil)
	repo := "repo: '" + server.URL(gitSyncRepository) + "'"
	createReader(t, namespace, "once", repo+", mode: Once")
	createReader(t, namespace, "follower", repo+", period: 1s")
	once, follower := readerStarted(t, namespace, "once", "old"), readerStarted(t, namespace, "follower", "old")
	if ended := statusOf(once, gitSyncContainer("once")).State.Terminated; ended == nil || ended.ExitCode != 0 {
		t.Errorf("git-sync is %+v, want it to have ended well", statusOf(once, gitSyncContainer("once")))
	}

	pushFiles(t, server, map[string]string{gitSyncPage: "new"})
	awaitRead(t, follower, "new")
	awaitRead(t, once, "old")

	// The next Pod has what is there when it starts.
	if err := cluster.Client.Delete(t.Context(), once); err != nil {
		t.Fatal(err)
	}
	next := readerStarted(t, namespace, "once", "new")
	if next.UID == once.UID || strings.Contains(next.Name, follower.Name) {
		t.Errorf("Pod %s is not another one", next.Name)
	}
}
