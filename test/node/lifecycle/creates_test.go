package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// pace is how long a client rests between two creates by dry run. The tests share few CPUs with what they test.
const pace = 10 * time.Millisecond

// profile is what is woven here: a native sidecar. %s is who gets it besides those that ask.
const profile = `apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: %s}
spec:
  custom: {template: {initContainers: [{image: "localhost/waits:1", restartPolicy: Always}]}}
%s`

// chosenLabel is on Pods that get the profile chosen without asking, or are not created.
const chosenLabel = "chosen"

// useProfiles makes a namespace with two profiles: asked, which Pods ask for, and chosen, which those with chosenLabel get, and
// without which they are refused.
func useProfiles(t *testing.T) (namespace string) {
	t.Helper()
	namespace = cluster.CreateRestricted(t, nil)
	writeProfiles(t, namespace)
	return namespace
}

func writeProfiles(t *testing.T, namespace string) {
	t.Helper()
	cluster.Apply(t, namespace, fmt.Sprintf(profile, "asked", ""))
	cluster.Apply(t, namespace, fmt.Sprintf(profile, "chosen",
		"  failurePolicy: Fail\n  match: {podSelector: {matchLabels: {"+chosenLabel+": \"true\"}}}\n"))
	for _, name := range []string{"asked", "chosen"} {
		cluster.AwaitProfile(t, namespace, name)
	}
	for _, pod := range []*corev1.Pod{asking(namespace), choosable(namespace)} { // the API server takes up an entry a moment later
		cluster.Eventually(t, "a Pod that is woven", func(ctx context.Context) error {
			return wovenByDryRun(ctx, pod)
		})
	}
}

// wovenByDryRun returns why a Pod would not be woven.
func wovenByDryRun(ctx context.Context, pod *corev1.Pod) error {
	created, err := dryRun(ctx, pod)
	if err != nil {
		return err
	}
	if woven, err := isWoven(created); err != nil || !woven {
		return errors.Join(errors.New("nothing is woven into the Pod"), err)
	}
	return nil
}

// bare is a Pod that has nothing to do with Pillion.
func bare(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "bare-"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{installed.Container("app", waits)}, TerminationGracePeriodSeconds: new(int64(5)),
		},
	}
}

// asking is a Pod that asks for the profile asked.
func asking(namespace string) *corev1.Pod {
	pod := bare(namespace)
	pod.GenerateName, pod.Annotations = "asking-", map[string]string{v1alpha1.InjectKey: "asked"}
	return pod
}

// choosable is a Pod that the profile chosen is for.
func choosable(namespace string) *corev1.Pod {
	pod := bare(namespace)
	pod.GenerateName, pod.Labels = "choosable-", map[string]string{chosenLabel: "true"}
	return pod
}

// isWoven tells whether a Pod has what a profile adds, and the mark. One without the other is an error.
func isWoven(pod *corev1.Pod) (bool, error) {
	profiles, err := installed.Woven(pod)
	return len(profiles) > 0, err
}

func dryRun(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	return cluster.Clientset.CoreV1().Pods(pod.Namespace).Create(ctx, pod, options)
}

// creates are what clients do while something else happens, and what came of it.
type creates struct {
	group sync.WaitGroup

	mu      sync.Mutex
	clients []*tally
	stopped bool
}

// tally counts the creates of one client, or several of a kind.
type tally struct {
	what                    string
	attempts, woven, asis   int
	failures                []string
	firstFailed, lastFailed time.Time
}

// newCreates returns creates that end with the test at the latest.
func newCreates(t *testing.T) *creates {
	c := &creates{}
	t.Cleanup(c.stop)
	return c
}

// outcome is what became of one create. A nil Pod says that there is nothing to count.
type outcome struct {
	pod *corev1.Pod
	err error
}

// keep has a client call create again and again. What is counted is told under one name.
func (c *creates) keep(t *testing.T, what string, create func(context.Context) outcome) *tally {
	t.Helper()
	counted := &tally{what: what}
	c.mu.Lock()
	c.clients = append(c.clients, counted)
	c.mu.Unlock()
	ctx := context.WithoutCancel(t.Context()) // one that has begun may end, so that it is not taken for a failure
	c.group.Go(func() {
		for c.count(counted, time.Now(), create(ctx)) {
			time.Sleep(pace)
		}
	})
	return counted
}

// keepDry has a client create Pods by dry run.
func (c *creates) keepDry(t *testing.T, what string, pod func() *corev1.Pod) *tally {
	t.Helper()
	return c.keep(t, what, func(ctx context.Context) outcome {
		created, err := dryRun(ctx, pod())
		return outcome{created, err}
	})
}

// keepReal has a client create Pods that run: each is awaited until it is Ready, and deleted.
func (c *creates) keepReal(t *testing.T, what string, pod func() *corev1.Pod) *tally {
	t.Helper()
	return c.keep(t, what, func(ctx context.Context) outcome {
		pods := cluster.Clientset.CoreV1().Pods(pod().Namespace)
		created, err := pods.Create(ctx, pod(), metav1.CreateOptions{})
		if err != nil {
			return outcome{nil, err}
		}
		err = cluster.Await(ctx, "Pod "+created.Name, func(ctx context.Context) error {
			now, err := pods.Get(ctx, created.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			return installed.IsReady(now)
		})
		if err == nil {
			err = pods.Delete(ctx, created.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))})
		}
		return outcome{created, err}
	})
}

// count counts a create, and tells whether to go on.
func (c *creates) count(counted *tally, began time.Time, result outcome) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	counted.attempts++
	woven, err := false, result.err
	if err == nil {
		woven, err = isWoven(result.pod)
	}
	switch {
	case err != nil:
		if counted.firstFailed.IsZero() {
			counted.firstFailed = began
		}
		counted.lastFailed = time.Now()
		counted.failures = append(counted.failures, err.Error())
	case woven:
		counted.woven++
	default:
		counted.asis++
	}
	return !c.stopped
}

// awaitMore waits until every client has made some more creates.
func (c *creates) awaitMore(t *testing.T, more int) {
	t.Helper()
	c.mu.Lock()
	want := map[*tally]int{}
	for _, counted := range c.clients {
		want[counted] = counted.attempts + more
	}
	c.mu.Unlock()
	cluster.Eventually(t, "more creates", func(context.Context) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for counted, attempts := range want {
			if counted.attempts < attempts {
				return fmt.Errorf("%s: %d of %d", counted.what, counted.attempts, attempts)
			}
		}
		return nil
	})
}

// stop ends the clients.
func (c *creates) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.group.Wait()
}

// noneFailed checks that all creates of a client went through. It prints how many there were.
func (counted *tally) noneFailed(t *testing.T) {
	t.Helper()
	counted.print(t)
	if len(counted.failures) > 0 {
		t.Errorf("%s: %d of %d creates failed, the first of them: %s", counted.what, len(counted.failures), counted.attempts,
			counted.failures[0])
	}
	if counted.attempts == 0 {
		t.Errorf("%s: nothing was created", counted.what)
	}
}

// allWoven checks that all went through, and that none was created without its profile.
func (counted *tally) allWoven(t *testing.T) {
	t.Helper()
	counted.noneFailed(t)
	counted.noneWithout(t)
}

// noneWithout checks that no Pod was created without its profile.
func (counted *tally) noneWithout(t *testing.T) {
	t.Helper()
	if counted.asis > 0 {
		t.Errorf("%s: %d Pods were created without the profile", counted.what, counted.asis)
	}
}

func (counted *tally) print(t *testing.T) {
	t.Helper()
	t.Logf("%s: %d creates, %d woven, %d as they were, %d failed", counted.what, counted.attempts, counted.woven, counted.asis,
		len(counted.failures))
}
