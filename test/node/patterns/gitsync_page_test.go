package patterns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/gitserver"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// The pages of a site: one that takes many packets, for which the server reads its file for a while, and one that takes one.
const (
	largePage, largeSize = "large.html", 2 << 20
	smallPage, smallSize = "small.html", 200
)

// sitePage is a page of a revision, of which no part is like a part of another.
func sitePage(revision, size int) string {
	var page strings.Builder
	fmt.Fprintf(&page, "revision %d\n", revision)
	random := rand.New(rand.NewPCG(uint64(revision), uint64(size))) //nolint:gosec // the same each time, and no secret
	for page.Len() < size {
		fmt.Fprintf(&page, "%016x%016x%016x%016x\n", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
	}
	fmt.Fprintf(&page, "the end of revision %d\n", revision)
	return page.String()
}

// sitePages are the files of a revision.
func sitePages(revision int) map[string]string {
	return map[string]string{largePage: sitePage(revision, largeSize), smallPage: sitePage(revision, smallSize)}
}

// siteConfiguration is of the web server.
const siteConfiguration = `
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data:
  default.conf: |
    server {
        listen 8080;
        access_log off;
        location / { root /srv/site/current; }
    }
`

// createSite creates a web server that serves what is in /srv/site/current, and returns its Pod when it is Ready.
func createSite(t *testing.T, namespace string, server *gitserver.Server) *corev1.Pod {
	t.Helper()
	cluster.Apply(t, namespace, siteConfiguration)
	applyGitSync(t, namespace, "web", "repo: '"+server.URL(gitSyncRepository)+"', ref: main, period: 1s")
	return runWoven(t, siteDeployment(namespace), gitSyncProfile("web"))
}

// siteDeployment is an nginx as its documentation says, with a configuration of its own.
func siteDeployment(namespace string) *appsv1.Deployment {
	deployment := installed.Deployment(namespace, "web", "docker.io/nginxinc/nginx-unprivileged:1.29")
	spec := &deployment.Spec.Template.Spec
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "configuration", MountPath: "/etc/nginx/conf.d"}, {Name: "tmp", MountPath: "/tmp"},
	}
	spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}},
		PeriodSeconds: 1,
	}
	spec.Volumes = []corev1.Volume{
		{Name: "configuration", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "web"},
		}}},
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	return deployment
}

// visitors ask for pages without pause, and look at each that they get.
type visitors struct {
	pages map[string]map[int]string // by file and revision
	done  sync.WaitGroup
	stop  context.CancelFunc

	mu       sync.Mutex
	counts   map[string]map[int]int // of whole pages, by visitor and revision
	problems []string
}

// visit sends visitors to a Pod: of each page one over a connection that it keeps, and one over a new one each time.
func visit(t *testing.T, pod *corev1.Pod, revisions int) *visitors {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	v := &visitors{pages: map[string]map[int]string{}, stop: cancel, counts: map[string]map[int]int{}}
	for revision := 1; revision <= revisions; revision++ {
		for file, page := range sitePages(revision) {
			if v.pages[file] == nil {
				v.pages[file] = map[int]string{}
			}
			v.pages[file][revision] = page
		}
	}
	for file := range v.pages {
		for _, isNew := range []bool{false, true} {
			name := fmt.Sprintf("%s, new connections: %t", file, isNew)
			v.counts[name] = map[int]int{}
			asking := &http.Client{Transport: &http.Transport{DisableKeepAlives: isNew}, Timeout: time.Minute}
			v.done.Go(func() { v.visit(ctx, asking, name, "http://"+pod.Status.PodIP+":8080/", file) })
		}
	}
	t.Cleanup(v.end)
	return v
}

// visit is what one visitor does.
func (v *visitors) visit(ctx context.Context, asking *http.Client, name, url, file string) {
	defer asking.CloseIdleConnections()
	for last := 0; ctx.Err() == nil; {
		revision, err := v.look(ctx, asking, url+file, file)
		if err == nil && revision < last {
			err = fmt.Errorf("revision %d after %d", revision, last)
		}
		if ctx.Err() != nil {
			return // whatever it was, it was cut off here
		}
		v.mu.Lock()
		if err != nil {
			v.problems = append(v.problems, fmt.Sprintf("%s %s: %s", time.Now().Format(time.TimeOnly), name, err))
		} else {
			last = revision
			v.counts[name][revision]++
		}
		v.mu.Unlock()
	}
}

// look asks for a page, and returns the revision that it is of, whole.
func (v *visitors) look(ctx context.Context, asking *http.Client, url, file string) (revision int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := asking.Do(request)
	if err != nil {
		return 0, err
	}
	content, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return 0, err
	}
	page := string(content)
	if _, err := fmt.Sscanf(page, "revision %d\n", &revision); err != nil || response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d and %d bytes, of which the first are %.60q", response.StatusCode, len(page), page)
	}
	if page != v.pages[file][revision] {
		return 0, fmt.Errorf("%d bytes that begin as revision %d and are not it", len(page), revision)
	}
	return revision, nil
}

// awaitRevision waits until every visitor has got a page of a revision.
func (v *visitors) awaitRevision(t *testing.T, revision int) {
	t.Helper()
	cluster.Eventually(t, fmt.Sprintf("all visitors to see revision %d", revision), func(context.Context) error {
		return v.each(func(counts map[int]int) bool { return counts[revision] > 0 })
	})
}

// awaitMore waits until every visitor has got this many pages more.
func (v *visitors) awaitMore(t *testing.T, pages int) {
	t.Helper()
	before := map[string]int{}
	v.mu.Lock()
	for name, counts := range v.counts {
		before[name] = sum(counts)
	}
	v.mu.Unlock()
	cluster.Eventually(t, fmt.Sprintf("all visitors to see %d pages more", pages), func(context.Context) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		for name, counts := range v.counts {
			if sum(counts) < before[name]+pages {
				return fmt.Errorf("%s: %d", name, sum(counts)-before[name])
			}
		}
		return nil
	})
}

// each returns which visitors a condition does not hold for.
func (v *visitors) each(condition func(map[int]int) bool) (err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, counts := range v.counts {
		if !condition(counts) {
			err = errors.Join(err, fmt.Errorf("%s: %v; %d problems", name, counts, len(v.problems)))
		}
	}
	return err
}

func sum(counts map[int]int) (all int) {
	for _, count := range counts {
		all += count
	}
	return all
}

func (v *visitors) end() {
	v.stop()
	v.done.Wait()
}

// report ends the visits, fails the test if anything but whole pages was got, and prints how many of each revision.
func (v *visitors) report(t *testing.T) {
	t.Helper()
	v.end()
	all := 0
	for _, name := range slices.Sorted(maps.Keys(v.counts)) {
		t.Logf("%s: %d whole pages, by revision %v", name, sum(v.counts[name]), v.counts[name])
		all += sum(v.counts[name])
	}
	t.Logf("of %d requests %d got anything but a whole page", all+len(v.problems), len(v.problems))
	for _, problem := range v.problems[:min(len(v.problems), 20)] {
		t.Error(problem)
	}
}

func TestAPageChangesAfterAPushAndIsWholeAtEveryRequest(t *testing.T) {
	t.Parallel()
	const revisions = 8
	server := startGit(t, sitePages(1))
	namespace := cluster.CreateRestricted(t, nil)
	pod := createSite(t, namespace, server)
	v := visit(t, pod, revisions)
	v.awaitRevision(t, 1)
	var took []time.Duration
	for revision := 2; revision <= revisions; revision++ {
		pushFiles(t, server, sitePages(revision))
		pushed := time.Now()
		v.awaitRevision(t, revision)
		took = append(took, time.Since(pushed).Round(10*time.Millisecond))
	}
	v.report(t)
	t.Logf("all visitors saw a push after %v, with a period of 1 s", took)
	now := cluster.ReadyPod(t, namespace, "web")
	if now.UID != pod.UID || statusOf(now, "app").RestartCount > 0 || statusOf(now, gitSyncContainer("web")).RestartCount > 0 {
		t.Errorf("the Pod is another one or was restarted: %+v", statuses(now))
	}
}

// refuser listens where a git server was, and sends everybody away.
type refuser struct {
	listener net.Listener

	mu    sync.Mutex
	count int
}

func refuse(t *testing.T, address string) *refuser {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &refuser{listener: listener}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // by stop
			}
			_ = connection.Close()
			r.mu.Lock()
			r.count++
			r.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return r
}

// await waits until this many have been sent away.
func (r *refuser) await(t *testing.T, callers int) {
	t.Helper()
	cluster.Eventually(t, fmt.Sprintf("git-sync to be sent away %d times", callers), func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.count < callers {
			return fmt.Errorf("%d times so far", r.count)
		}
		return nil
	})
}

// readiness notes when a Pod was not Ready.
func readiness(t *testing.T, pod *corev1.Pod) (changes func() []string) {
	t.Helper()
	watch, err := cluster.Clientset.CoreV1().Pods(pod.Namespace).Watch(t.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=" + pod.Name, ResourceVersion: pod.ResourceVersion,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watch.Stop)
	var mu sync.Mutex
	var noted []string
	go func() {
		last := true
		for event := range watch.ResultChan() {
			now, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			if is := installed.IsReady(now) == nil; is != last {
				mu.Lock()
				noted = append(noted, fmt.Sprintf("%s Ready: %t", time.Now().Format("15:04:05.0"), is))
				mu.Unlock()
				last = is
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(noted)
	}
}

func TestAnAppServesOnWhileGitSyncIsStartedAgainWithoutItsServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startGitAt(t, dir, node.Address+":0", sitePages(1))
	namespace := cluster.CreateRestricted(t, nil)
	pod := createSite(t, namespace, server)
	changes := readiness(t, pod)
	v := visit(t, pod, 2)
	v.awaitRevision(t, 1)

	address := server.Address()
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	away := refuse(t, address)
	away.await(t, 2) // and so no git is in the middle of a fetch, which git-sync would begin with an empty directory after
	signalContainer(t, pod, gitSyncContainer("web"), unix.SIGKILL)
	cluster.PodThat(t, namespace, "web", "is Ready with git-sync started again", func(now *corev1.Pod) error {
		if status := statusOf(now, gitSyncContainer("web")); status.RestartCount == 0 || status.State.Running == nil {
			return fmt.Errorf("git-sync is %+v", status)
		}
		return installed.IsReady(now)
	})
	away.await(t, 10)
	v.awaitMore(t, 10)
	t.Logf("while the server was away: %v", changes())

	if err := away.listener.Close(); err != nil {
		t.Fatal(err)
	}
	server, err := gitserver.Start(t.Context(), dir, address)
	if err != nil {
		t.Fatal(err)
	}
	pushFiles(t, server, sitePages(2))
	v.awaitRevision(t, 2)
	v.report(t)
	now := cluster.ReadyPod(t, namespace, "web")
	if now.UID != pod.UID || statusOf(now, "app").RestartCount > 0 {
		t.Errorf("the Pod is another one or its app was restarted: %+v", statuses(now))
	}
	// Ten tries did not end it, or the Pod would have been not Ready while the kubelet waits to start it again.
	if again := statusOf(now, gitSyncContainer("web")).RestartCount; again != 1 {
		t.Errorf("git-sync was started %d times again, want once", again)
	}
}
