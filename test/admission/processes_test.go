package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/defaults"
	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

// processes are the webhook and the controller as the binary that people install, beside an API server of their own.
type processes struct {
	*installation.Installation

	server *apiserver.Server
	log    *fixture.Log
}

// TestTheProcessesOfPillion is also where the bounds of what an installation may have are reached: other tests share theirs.
func TestTheProcessesOfPillion(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	t.Run("a Pod is woven, and metrics tell of it", p.weave)
	t.Run("a Pod starts though as many selections as there may be call a webhook that hangs", p.hang)
	t.Run("more selections than there may be share one", p.widen)
	t.Run("more selections that may refuse a Pod than there may be are not accepted", p.refuseSelections)
	t.Run("a tenant cannot outgrow cluster policy", p.outgrow)
	t.Run("Pod Security may be left to the API server", p.warnOfPodSecurity)
}

func startProcesses(t *testing.T) *processes {
	t.Helper()
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fresh := fixture.APIServer(t, apiserver.Options{})
	p := &processes{server: fresh, log: &fixture.Log{}}
	p.Installation, err = installation.Start(t.Context(), fresh, installation.Options{
		Binary: binary, Log: p.log,
		Env: []string{"PILLION_POD_SECURITY_MODE=Warn", "PILLION_CONTROLLER_SELF_CHECK_INTERVAL=none"}, // its profile would be counted
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log.Take())
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("%v\n%s", err, p.log.Take())
		}
	})
	return p
}

func (p *processes) weave(t *testing.T) {
	p.create(t, cache("process"))
	in := p.namespace(t, map[string]string{v1alpha1.InjectKey: "process"})
	stored, _ := p.admit(t, pod(in))
	if len(added(stored)) != 1 {
		t.Errorf("added %q", added(stored))
	}
	byDefault, err := defaults.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	if err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		profiles, err := p.Metric(ctx, "pillion_snapshot_profiles")
		return profiles == float64(1+len(byDefault)), errors.Join(err, fmt.Errorf("the metrics tell of %v profiles", profiles))
	}); err != nil {
		t.Error(err)
	}
}

func (p *processes) create(t *testing.T, object client.Object) {
	t.Helper()
	if err := p.server.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func (p *processes) createReady(t *testing.T, object client.Object) {
	t.Helper()
	p.create(t, object)
	awaitConditionOf(t, p.server.Client, client.ObjectKeyFromObject(object), v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
}

func (p *processes) namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	in, err := p.server.CreateNamespace(t.Context(), labels)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// admit creates a Pod, and tells how long that took.
func (p *processes) admit(t *testing.T, app *corev1.Pod) (*corev1.Pod, time.Duration) {
	t.Helper()
	start := time.Now()
	stored, err := p.server.Clientset.CoreV1().Pods(app.Namespace).Create(t.Context(), app, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("after %s: %v\n%s", time.Since(start), err, p.log.Take())
	}
	return stored, time.Since(start)
}

// whileFrozen runs a function while the webhook's process does not run: connections to it are made, and nothing answers.
func (p *processes) whileFrozen(t *testing.T, run func()) {
	t.Helper()
	if err := syscall.Kill(p.Webhook.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(p.Webhook.Pid(), syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	run()
}

// creationTimeout is how long the API server takes over a Pod's creation at most.
const creationTimeout = 34 * time.Second

// hang reaches the bounds of what may be ignored: ten selections, two that enforce, and that of PatternProfiles.
func (p *processes) hang(t *testing.T) {
	ten := map[string]string{}
	for i := range 10 {
		key := fmt.Sprintf("hang-%d", i)
		ten[key] = ""
		p.create(t, matching(custom(t, key, sidecar), key, v1alpha1.FailurePolicyIgnore))
	}
	for i := range 10 {
		key := client.ObjectKey{Name: fmt.Sprintf("hang-%d", i)}
		awaitConditionOf(t, p.server.Client, key, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	}
	inTen := p.namespace(t, ten)
	if stored, _ := p.admit(t, pod(inTen)); len(added(stored)) != 10 || len(p.selections(t)) != 10 {
		t.Fatalf("added %q by the entries %q", added(stored), p.selections(t))
	}

	all := maps.Clone(ten)
	for i := range 2 {
		key := fmt.Sprintf("enforce-%d", i)
		all[key] = ""
		p.createReady(t, enforcing(matching(custom(t, key, sidecar), key, v1alpha1.FailurePolicyIgnore)))
	}
	inAll := p.namespace(t, all)
	inside := inNamespace(inAll, custom(t, "inside", sidecar))
	inside.Spec.Match = &v1alpha1.PodMatch{}
	p.createReady(t, inside)
	// Entries that enforce are called again once another webhook has changed the Pod.
	webhookAfterPillion(t, p.server, inAll, admissionregistrationv1.NeverReinvocationPolicy, labeled("late", "yes"))
	awaitOther(t, p.server, pod(inAll), func(made *corev1.Pod, err error) bool { return err == nil && made.Labels["late"] == "yes" })

	p.whileFrozen(t, func() {
		t.Run("ten", func(t *testing.T) {
			t.Run("that do not enforce", func(t *testing.T) { t.Parallel(); p.startsBetween(t, inTen, 15*time.Second, 25*time.Second) })
			t.Run("and all others", func(t *testing.T) { t.Parallel(); p.startsBetween(t, inAll, 25*time.Second, creationTimeout) })
		})
	})
	if stored, _ := p.admit(t, pod(inAll)); len(added(stored)) != 13 {
		t.Errorf("the webhook answers again, and adds %q", added(stored))
	}
}

// startsBetween creates a Pod while the webhook hangs: it takes some time, and not too much.
func (p *processes) startsBetween(t *testing.T, in string, least, most time.Duration) {
	t.Helper()
	stored, took := p.admit(t, pod(in))
	t.Logf("it took %s", took)
	if took < least || took > most || len(added(stored)) > 0 {
		t.Errorf("it took %s, and %q was added by nobody", took, added(stored))
	}
}

// selections returns the names of the entries that match has brought about.
func (p *processes) selections(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, entry := range p.entries(t) {
		if strings.HasPrefix(entry.Name, "match-") {
			names = append(names, entry.Name)
		}
	}
	return names
}

func (p *processes) entries(t *testing.T) []admissionregistrationv1.MutatingWebhook {
	t.Helper()
	found := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := p.server.Client.Get(t.Context(), client.ObjectKey{Name: configurationName}, found); err != nil {
		t.Fatal(err)
	}
	return found.Webhooks
}

// widen comes after hang: there is one selection too few of each kind to be widened.
func (p *processes) widen(t *testing.T) {
	in := p.namespace(t, map[string]string{"enforce-2": "", "hang-10": ""})
	p.createReady(t, enforcing(matching(custom(t, "enforce-2", sidecar), "enforce-2", v1alpha1.FailurePolicyIgnore)))
	p.createReady(t, matching(custom(t, "hang-10", sidecar), "hang-10", v1alpha1.FailurePolicyIgnore))
	if got := p.selections(t); len(got) != 3 {
		t.Errorf("one entry that enforces, one that does not and one of PatternProfiles are wanted: %q", got)
	}
	stored, _ := p.admit(t, pod(in))
	if diff := cmp.Diff([]string{"pillion-enforce-2", "pillion-hang-10"}, added(stored)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if stored, _ := p.admit(t, pod(p.namespace(t, nil))); len(added(stored)) > 0 {
		t.Errorf("a Pod that none of them chooses got %q", added(stored))
	}
}

func (p *processes) refuseSelections(t *testing.T) {
	before := len(p.selections(t))
	const last = 10
	for i := range last {
		key := fmt.Sprintf("fail-%02d", i)
		p.createReady(t, matching(custom(t, key, sidecar), key, v1alpha1.FailurePolicyFail))
	}
	key := fmt.Sprintf("fail-%02d", last)
	p.create(t, matching(custom(t, key, sidecar), key, v1alpha1.FailurePolicyFail))
	message := awaitConditionOf(t, p.server.Client, client.ObjectKey{Name: key},
		v1alpha1.ConditionAccepted, metav1.ConditionFalse, "TooManySelections")
	if err := missing(message, "10", "failurePolicy Ignore"); err != nil {
		t.Error(err)
	}
	if got := len(p.selections(t)); got != before+last {
		t.Errorf("%d entries have become %d", before, got)
	}
	in := p.namespace(t, map[string]string{key: "", "fail-00": ""})
	for name, app := range map[string]*corev1.Pod{"chosen": pod(in), "asking": pod(in, v1alpha1.InjectKey, "process")} {
		stored, _ := p.admit(t, app)
		if got := added(stored); slices.Contains(got, "pillion-"+key) || !slices.Contains(got, "pillion-fail-00") {
			t.Errorf("a Pod that is %s got %q", name, got)
		}
	}
	stored, _ := p.admit(t, pod(in, v1alpha1.InjectKey, key)) // by name everybody may have it
	if got := added(stored); !slices.Contains(got, "pillion-"+key) {
		t.Errorf("a Pod that asks for it got %q", got)
	}
}

func (p *processes) outgrow(t *testing.T) {
	isInside := func(entry admissionregistrationv1.MutatingWebhook) bool {
		return slices.ContainsFunc(entry.NamespaceSelector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return r.Key == corev1.LabelMetadataName && r.Operator == metav1.LabelSelectorOpIn
		})
	}
	cluster := func() []admissionregistrationv1.MutatingWebhook { return slices.DeleteFunc(p.entries(t), isInside) }
	before := cluster()
	in := p.namespace(t, map[string]string{"enforce-0": ""})
	for i := range 50 {
		profile := inNamespace(in, custom(t, fmt.Sprintf("tenant-%d", i), sidecar))
		profile.Spec.Match = &v1alpha1.PodMatch{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"n": fmt.Sprint(i)}}}
		if i%2 == 0 {
			profile.Spec.FailurePolicy = v1alpha1.FailurePolicyFail
		}
		p.create(t, profile)
	}
	for i := range 50 {
		key := client.ObjectKey{Namespace: in, Name: fmt.Sprintf("tenant-%d", i)}
		awaitConditionOf(t, p.server.Client, key, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	}
	if diff := cmp.Diff(before, cluster()); diff != "" {
		t.Errorf("a tenant's profiles have changed the cluster's entries (-before +after):\n%s", diff)
	}
	if all := p.entries(t); len(all) != len(before)+2 {
		t.Errorf("%d entries of the cluster, and %d in all: one for each failure policy is wanted", len(before), len(all))
	}
	app := pod(in)
	app.Labels = map[string]string{"n": "7"}
	stored, _ := p.admit(t, app)
	if diff := cmp.Diff([]string{"pillion-enforce-0", "pillion-tenant-7"}, added(stored)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func (p *processes) warnOfPodSecurity(t *testing.T) {
	p.create(t, custom(t, "privileged", privileged))
	in := p.namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		app := pod(in, v1alpha1.InjectKey, "privileged")
		_, err := p.server.Clientset.CoreV1().Pods(in).Create(ctx, app, metav1.CreateOptions{})
		return err != nil, errors.New("the Pod is admitted")
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.server.Clientset.CoreV1().Pods(in).Create(t.Context(), pod(in, v1alpha1.InjectKey, "privileged"), metav1.CreateOptions{})
	if err == nil || strings.Contains(err.Error(), "Pillion refuses") {
		t.Fatalf("it is not the API server that refuses it: %v", err)
	}
	if err := missing(err.Error(), `violates PodSecurity "restricted:latest"`, "pillion-privileged"); err != nil {
		t.Error(err)
	}
}
