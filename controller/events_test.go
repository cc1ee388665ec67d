package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

const collides = `{"site":"PortCollision: port 80 is taken"}`

func encodeJSON(t *testing.T, value any) string {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

// TestEventsOnARealAPIServer tells with the controller's own permissions. Each part has a namespace of its own.
func TestEventsOnARealAPIServer(t *testing.T) {
	server := fixture.Installed(t)
	config, err := server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Client: server.Client, server: server, config: config}
	stop := w.start(t, time.Now)
	for _, part := range []struct {
		name string
		run  func(*watched, *testing.T)
	}{
		{"100 replicas of a Deployment, of two ReplicaSets, are one Event on the Deployment", (*watched).deployment},
		{"Pods of Jobs are told of on the CronJob", (*watched).cronJob},
		{"other owners and Pods without one are told of on themselves", (*watched).others},
		{"an owner that does not exist is not told of", (*watched).forgedOwner},
		{"garbage in the annotation does no harm", (*watched).garbage},
		{"two profiles, and two reasons, are two Events", (*watched).several},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(w, t) })
	}
	t.Run("a restart does not repeat what was told", func(t *testing.T) { w.restart(t, stop) })
}

// watched is what the parts share.
type watched struct {
	client.Client
	server *apiserver.Server
	config *rest.Config
}

// start runs a skipTeller until what is returned is called.
func (w *watched) start(t *testing.T, now func() time.Time) (stop func()) {
	t.Helper()
	teller := tellerFor(t, w.config, logr.Discard())
	teller.now = now
	return runTeller(t, teller)
}

// tellerFor returns a skipTeller that waits for less.
func tellerFor(t *testing.T, config *rest.Config, logger logr.Logger) *skipTeller {
	t.Helper()
	pods, err := metadata.NewForConfig(metadata.ConfigFor(config))
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventsclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	teller := newSkipTeller(pods, events, nil, time.Now, logger)
	teller.gather, teller.between = 100*time.Millisecond, 100*time.Millisecond
	return teller
}

func runTeller(t *testing.T, teller *skipTeller) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- teller.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (w *watched) namespace(t *testing.T) string {
	t.Helper()
	name, err := w.server.CreateNamespace(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func (w *watched) create(t *testing.T, object client.Object) {
	t.Helper()
	if err := w.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// pod creates a Pod that something was left out of, as its owner would.
func (w *watched) pod(t *testing.T, namespace, skipped string, owner *metav1.OwnerReference) *corev1.Pod {
	t.Helper()
	pod := podIn(namespace)
	pod.Labels = map[string]string{v1alpha1.SkippedKey: "true"}
	pod.Annotations = map[string]string{v1alpha1.SkippedKey: skipped}
	if owner != nil {
		pod.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	w.create(t, pod)
	return pod
}

// toldEvent is an Event as the tests compare it.
type toldEvent struct {
	On, Note string
	Count    int32
}

func (w *watched) events(ctx context.Context, namespace string) ([]toldEvent, error) {
	list := &corev1.EventList{} // as kubectl describe reads them
	if err := w.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	all := make([]toldEvent, 0, len(list.Items))
	for i := range list.Items {
		event := &list.Items[i]
		one := toldEvent{On: event.InvolvedObject.Kind + "/" + event.InvolvedObject.Name, Note: event.Message, Count: 1}
		if event.Series != nil {
			one.Count = event.Series.Count
		}
		if event.Reason != ReasonProfileSkipped || event.Type != corev1.EventTypeWarning || event.InvolvedObject.UID == "" {
			return nil, fmt.Errorf("an Event %+v", event)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b toldEvent) int { return strings.Compare(a.On+a.Note, b.On+b.Note) })
	return all, nil
}

// await waits until a namespace has these Events.
func (w *watched) await(t *testing.T, namespace string, want ...toldEvent) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		got, err := w.events(ctx, namespace)
		diff := cmp.Diff(want, got)
		return err == nil && diff == "", errors.Join(err, errors.New(diff))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func note(pod *corev1.Pod, profile, why string) string {
	return fmt.Sprintf("Pillion left profile %s out of Pod %s: %s", profile, pod.Name, why)
}

// controlledBy returns a reference to what controls.
func controlledBy(object client.Object, apiVersion, kind string) *metav1.OwnerReference {
	return &metav1.OwnerReference{
		APIVersion: apiVersion, Kind: kind, Name: object.GetName(), UID: object.GetUID(), Controller: new(true),
	}
}

func replicaSetOf(deployment *appsv1.Deployment, name string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: deployment.Namespace, Name: name,
			OwnerReferences: []metav1.OwnerReference{*controlledBy(deployment, "apps/v1", "Deployment")},
		},
		Spec: appsv1.ReplicaSetSpec{Selector: deployment.Spec.Selector, Template: deployment.Spec.Template},
	}
}

func (w *watched) deployment(t *testing.T) {
	in := w.namespace(t)
	deployment := deploymentIn(in, "shop", "nothing")
	w.create(t, deployment)
	old, current := replicaSetOf(deployment, "shop-1"), replicaSetOf(deployment, "shop-2")
	w.create(t, old)
	w.create(t, current)
	first := w.pod(t, in, collides, controlledBy(old, "apps/v1", "ReplicaSet"))
	text := note(first, "site", "PortCollision: port 80 is taken")
	w.await(t, in, toldEvent{On: "Deployment/shop", Note: text, Count: 1})
	for range 49 {
		w.pod(t, in, collides, controlledBy(old, "apps/v1", "ReplicaSet"))
	}
	for range 50 {
		w.pod(t, in, collides, controlledBy(current, "apps/v1", "ReplicaSet"))
	}
	w.await(t, in, toldEvent{On: "Deployment/shop", Note: text, Count: 100})
	if described := w.describe(t, in, "deployment/shop"); !regexp.MustCompile(
		`Warning +ProfileSkipped +\S+ \(x100 over \S+\) +pillion-controller +` + regexp.QuoteMeta(text),
	).MatchString(described) {
		t.Errorf("kubectl describe:\n%s", described)
	}
}

// describe returns what people see of an object.
func (w *watched) describe(t *testing.T, namespace, object string) string {
	t.Helper()
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := apiserver.WriteKubeconfig(w.server.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	described, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", kubeconfig, "-n", namespace, "describe", object).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, described)
	}
	return string(described)
}

func (w *watched) cronJob(t *testing.T) {
	in := w.namespace(t)
	template := corev1.PodTemplateSpec{Spec: podIn(in).Spec}
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	nightly := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "nightly"},
		Spec: batchv1.CronJobSpec{
			Schedule: "0 3 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}},
		},
	}
	w.create(t, nightly)
	once := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "once"}, Spec: batchv1.JobSpec{Template: template}}
	w.create(t, once)
	tonight := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: in, Name: "nightly-1", OwnerReferences: []metav1.OwnerReference{*controlledBy(nightly, "batch/v1", "CronJob")},
		},
		Spec: batchv1.JobSpec{Template: template},
	}
	w.create(t, tonight)
	nightlyPod := w.pod(t, in, collides, controlledBy(tonight, "batch/v1", "Job"))
	oncePod := w.pod(t, in, collides, controlledBy(once, "batch/v1", "Job"))
	w.await(t, in,
		toldEvent{On: "CronJob/nightly", Note: note(nightlyPod, "site", "PortCollision: port 80 is taken"), Count: 1},
		toldEvent{On: "Job/once", Note: note(oncePod, "site", "PortCollision: port 80 is taken"), Count: 1},
	)
}

func (w *watched) others(t *testing.T) {
	in := w.namespace(t)
	bare := w.pod(t, in, collides, nil)
	owned := w.pod(t, in, collides, &metav1.OwnerReference{
		APIVersion: "example.com/v1", Kind: "Game", Name: "chess", UID: "1234", Controller: new(true),
	})
	w.await(t, in,
		toldEvent{On: "Game/chess", Note: note(owned, "site", "PortCollision: port 80 is taken"), Count: 1},
		toldEvent{On: "Pod/" + bare.Name, Note: note(bare, "site", "PortCollision: port 80 is taken"), Count: 1},
	)
}

func (w *watched) forgedOwner(t *testing.T) {
	in := w.namespace(t)
	deployment := deploymentIn(in, "shop", "nothing")
	w.create(t, deployment)
	set := replicaSetOf(deployment, "shop-1")
	w.create(t, set)
	gone, other := controlledBy(set, "apps/v1", "ReplicaSet"), controlledBy(set, "apps/v1", "ReplicaSet")
	gone.Name, other.UID = "nobodys", "forged"
	var want []toldEvent
	for _, owner := range []*metav1.OwnerReference{gone, other} {
		pod := w.pod(t, in, collides, owner)
		want = append(want, toldEvent{On: "Pod/" + pod.Name, Note: note(pod, "site", "PortCollision: port 80 is taken"), Count: 1})
	}
	slices.SortFunc(want, func(a, b toldEvent) int { return strings.Compare(a.On, b.On) })
	w.await(t, in, want...)
}

func (w *watched) garbage(t *testing.T) {
	in := w.namespace(t)
	for _, annotation := range []string{
		"", "}{", `[]`, `null`, `{"site":7}`, strings.Repeat("[", 100_000), `{"../x":"R: m"}`, "\x00\u202e",
	} {
		w.pod(t, in, annotation, nil)
	}
	honest := w.pod(t, in, `{"site":"R: \u001b[31m`+strings.Repeat("x", 5000)+`"}`, nil)
	text := note(honest, "site", "R: [31m")
	w.await(t, in, toldEvent{On: "Pod/" + honest.Name, Note: text + strings.Repeat("x", 1024-len(text)-len("…")) + "…", Count: 1})
}

func (w *watched) several(t *testing.T) {
	in := w.namespace(t)
	pod := w.pod(t, in, `{"cache":"PortCollision: a","site":"PortCollision: b"}`, nil)
	w.await(t, in,
		toldEvent{On: "Pod/" + pod.Name, Note: note(pod, "cache", "PortCollision: a"), Count: 1},
		toldEvent{On: "Pod/" + pod.Name, Note: note(pod, "site", "PortCollision: b"), Count: 1},
	)
}

func (w *watched) restart(t *testing.T, stop func()) {
	in := w.namespace(t)
	owner := &metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Game", Name: "chess", UID: "1234", Controller: new(true)}
	first := w.pod(t, in, collides, owner)
	w.pod(t, in, collides, owner)
	text := note(first, "site", "PortCollision: port 80 is taken")
	w.await(t, in, toldEvent{On: "Game/chess", Note: text, Count: 2})
	stop()

	if err := w.Delete(t.Context(), first, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	teller := tellerFor(t, w.config, logr.Discard())
	stop = runTeller(t, teller)
	awaitList(t, teller)
	last := w.pod(t, in, collides, owner)
	w.await(t, in, toldEvent{On: "Game/chess", Note: text, Count: 3})
	stop()

	for missed := last; !last.CreationTimestamp.Before(&missed.CreationTimestamp); { // its time is in seconds
		missed = w.pod(t, in, collides, owner)
	}
	stop = w.start(t, time.Now)
	w.await(t, in, toldEvent{On: "Game/chess", Note: text, Count: 4})
	stop()

	if err := w.DeleteAllOf(t.Context(), &eventsv1.Event{}, client.InNamespace(in)); err != nil {
		t.Fatal(err)
	}
	teller = tellerFor(t, w.config, logr.Discard())
	teller.now = func() time.Time { return last.CreationTimestamp.Add(eventLife + time.Minute) }
	runTeller(t, teller)
	awaitList(t, teller)
	teller.mu.Lock()
	defer teller.mu.Unlock()
	if len(teller.queued) > 0 {
		t.Errorf("%d Events about old Pods wait", len(teller.queued))
	}
}

// awaitList waits until the Pods have been listed.
func awaitList(t *testing.T, teller *skipTeller) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		teller.mu.Lock()
		defer teller.mu.Unlock()
		return teller.listed > 0, errors.New("the Pods have not been listed")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnEventThatIsRefusedIsForgottenAndLoggedWithoutWhatItSays lets an API server refuse Events, in words that repeat them.
func TestAnEventThatIsRefusedIsForgottenAndLoggedWithoutWhatItSays(t *testing.T) {
	const canary = "CANARY-5d1c"
	tests := map[string]struct {
		code  int
		tries int
	}{
		"as invalid":       {code: http.StatusUnprocessableEntity, tries: 1},
		"as not permitted": {code: http.StatusForbidden, tries: 1},
		"for a moment":     {code: http.StatusInternalServerError, tries: 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := &refusing{code: test.code, canary: canary}
			var mu sync.Mutex
			var logged strings.Builder
			teller := tellerFor(t, server.start(t), funcr.New(func(prefix, args string) {
				mu.Lock()
				defer mu.Unlock()
				logged.WriteString(prefix + args)
			}, funcr.Options{}))
			go func() {
				for teller.writeNext(t.Context()) {
				}
			}()
			t.Cleanup(teller.queue.ShutDown)
			teller.see(skippedMeta("web", "a", `{"site":"InvalidOverride: `+canary+`"}`, time.Now()), 0)
			err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
				teller.mu.Lock()
				defer teller.mu.Unlock()
				if test.tries > 1 {
					return server.requests() >= test.tries, errors.New("it is not tried again")
				}
				return teller.unwritten == 1 && len(teller.queued) == 0 && teller.waitingInAll == 0 && len(teller.waiting) == 0,
					fmt.Errorf("unwritten %d, queued %d", teller.unwritten, len(teller.queued))
			})
			if err != nil {
				t.Fatal(err)
			}
			if test.tries == 1 && server.requests() != 1 {
				t.Errorf("it was tried %d times", server.requests())
			}
			teller.logUnwritten()
			mu.Lock()
			defer mu.Unlock()
			if text := logged.String(); strings.Contains(text, canary) || (test.tries == 1) != strings.Contains(text, "were not written") {
				t.Errorf("logged: %s", text)
			}
		})
	}
}

// refusing answers every request with an error that repeats a text.
type refusing struct {
	code   int
	canary string

	mu     sync.Mutex
	number int
}

func (r *refusing) start(t *testing.T) *rest.Config {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, QPS: -1}
}

func (r *refusing) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.number
}

func (r *refusing) ServeHTTP(response http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	r.number++
	r.mu.Unlock()
	reason := map[int]metav1.StatusReason{
		http.StatusUnprocessableEntity: metav1.StatusReasonInvalid, http.StatusForbidden: metav1.StatusReasonForbidden,
		http.StatusInternalServerError: metav1.StatusReasonInternalError,
	}[r.code]
	response.Header().Set("Content-Type", "application/json")
	response.WriteHeader(r.code)
	_ = json.NewEncoder(response).Encode(metav1.Status{ // the client sees what is missing
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: reason, Code: int32(r.code),
		Message: "note: Invalid value: " + r.canary,
	})
}
