package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

var selfCheckKey = types.NamespacedName{Namespace: SelfCheckNamespace, Name: SelfCheckProfile}

// checked is a controller that checks itself, and a webhook that fails as it is told.
type checked struct {
	client.Client
	server  *apiserver.Server
	webhook *failing
	metrics string
}

// TestTheSelfCheckOnARealAPIServer runs the controller with its own permissions. Each part begins and ends with a check that passes.
func TestTheSelfCheckOnARealAPIServer(t *testing.T) {
	server := fixture.Installed(t)
	c := &checked{Client: server.Client, server: server, webhook: startFailing(t, server.Client)}
	metrics := freeAddress(t)
	c.metrics = "http://" + metrics + "/metrics"
	stop := c.run(t, server, func(o *Options) { o.MetricsAddress, o.SelfCheckInterval = metrics, time.Second })
	for _, part := range []struct {
		name string
		run  func(*checked, *testing.T)
	}{
		{"passes, and says so once", (*checked).passes},
		{"the webhook answers with a fault", fails(ReasonWebhookFailed, "fault", failing500)},
		{"the webhook does not answer", fails(ReasonWebhookTimeout, "in time", failingHangs)},
		{"the API server does not trust the webhook", fails(ReasonWebhookNotTrusted, "certificate", failingTLS)},
		{"nobody listens", fails(ReasonWebhookUnreachable, "connect", failingClosed)},
		{"the webhook refuses the Pod", fails(ReasonRefused, "Pillion refuses the Pod", failingDenies)},
		{"the webhook adds nothing", fails(ReasonNotWoven, "as it was sent", failingNothing)},
		{"the webhook adds what an earlier profile said", fails(ReasonStaleProfile, "another revision", failingStale)},
		{"the webhook adds something else", fails(ReasonWovenOtherwise, "container pillion-self-check-sidecar", failingOther)},
		{"the webhook answers with another Pod's answer", fails(ReasonWovenOtherwise, "container app", failingReplay)},
		{"another webhook that cannot be called is not taken for Pillion", (*checked).others},
		{"the configuration is gone", (*checked).withoutConfiguration},
		{"the configuration does not select the Pod, and cannot be repaired", (*checked).tampered},
		{"the permission is gone", (*checked).withoutPermission},
		{"policy that cannot be woven there is told of", (*checked).policy},
		{"policy that can be woven there is let be", (*checked).otherProfiles},
		{"a profile that somebody changed or deleted is made again", (*checked).keeps},
		{"nothing but dry runs is let into the namespace", (*checked).nothingRuns},
		{"without the namespace nobody is asked, and it is made good without a hand once it is there", (*checked).withoutNamespace},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			c.await(t, metav1.ConditionTrue, ReasonWoven)
			part.run(c, t)
			c.await(t, metav1.ConditionTrue, ReasonWoven)
		}) {
			break
		}
	}
	if err := stop(); err != nil {
		t.Errorf("the controller ended with: %v", err)
	}
	families, err := crmetrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "pillion_self_check_") {
			t.Errorf("one that leads no longer tells of %s", family.GetName())
		}
	}
	t.Run("one that is switched off says so", func(t *testing.T) {
		stop := c.run(t, server, func(*Options) {})
		c.await(t, metav1.ConditionUnknown, ReasonSelfCheckOff)
		if err := stop(); err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
	})
	t.Run("what changes is checked at once, and not more than once in a second", func(t *testing.T) {
		stop := c.run(t, server, func(o *Options) { o.SelfCheckInterval = time.Hour })
		c.checksChanges(t)
		if err := stop(); err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
	})
	t.Run("an excluded namespace proves nothing", func(t *testing.T) {
		stop := c.run(t, server, func(o *Options) {
			o.SelfCheckInterval, o.ExcludedNamespaces = time.Second, []string{SelfCheckNamespace}
		})
		c.await(t, metav1.ConditionFalse, ReasonNamespaceExcluded)
		if err := stop(); err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
	})
}

// run runs the controller until the returned function is called, which gives Run's error.
func (c *checked) run(t *testing.T, server *apiserver.Server, edit func(*Options)) (stop func() error) {
	t.Helper()
	config, err := server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	options := Options{
		Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls", WebhookConfiguration: "pillion",
		WebhookURL: c.webhook.url, ExcludedNamespaces: []string{"kube-system"}, LeaderElection: true, Logger: testr.New(t),
	}
	edit(&options)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, config, options) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// fails is a part in which the webhook fails in a way.
func fails(reason, says string, how failure) func(*checked, *testing.T) {
	return func(c *checked, t *testing.T) {
		before, eventsBefore := c.failures(t, reason), c.events(t, SelfCheckNamespace)
		c.webhook.set(how)
		message := c.await(t, metav1.ConditionFalse, reason)
		t.Log(message)
		if !strings.Contains(message, says) {
			t.Errorf("the message does not say %q: %s", says, message)
		}
		if after := c.failures(t, reason); after < before+tellFrom {
			t.Errorf("failures for %s: %v, and %v before", reason, after, before)
		}
		c.awaitMetric(t, "pillion_self_check_success 0")
		c.webhook.set(failingNot)
		c.await(t, metav1.ConditionTrue, ReasonWoven)
		c.awaitMetric(t, "pillion_self_check_success 1")
		events := c.events(t, SelfCheckNamespace)[len(eventsBefore):]
		if len(events) != 2 || !strings.HasPrefix(events[0], "Warning SelfCheckFailed "+reason+": ") ||
			!strings.HasPrefix(events[1], "Normal SelfCheckPassed ") {
			t.Errorf("Events %q", events)
		}
	}
}

// await waits until the condition has a status and a reason, and returns its message.
func (c *checked) await(t *testing.T, status metav1.ConditionStatus, reason string) (message string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		profile := &v1alpha1.PatternProfile{}
		if err := c.Get(ctx, selfCheckKey, profile); err != nil {
			return false, err
		}
		condition := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionSelfCheck)
		if condition == nil || condition.Status != status || condition.Reason != reason {
			return false, fmt.Errorf("the condition is %+v, %s %s is awaited", condition, status, reason)
		}
		message = condition.Message
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func (c *checked) awaitMetric(t *testing.T, want string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		_, body, err := scraped(ctx, c.metrics)
		return slices.Contains(strings.Split(body, "\n"), want), err
	})
	if err != nil {
		t.Errorf("no metric %s: %v", want, err)
	}
}

// failures returns how many checks failed for a reason.
func (c *checked) failures(t *testing.T, reason string) (n float64) {
	t.Helper()
	_, body, err := scraped(t.Context(), c.metrics)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, fmt.Sprintf("pillion_self_check_failures_total{reason=%q} ", reason)); ok {
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// events returns what Events of the self-check in a namespace say, in their order.
func (c *checked) events(t *testing.T, namespace string) (says []string) {
	t.Helper()
	list := &eventsv1.EventList{}
	if err := c.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	for i := range list.Items {
		if e := &list.Items[i]; e.Action == "SelfCheck" {
			says = append(says, fmt.Sprintf("%s %s %s", e.Type, e.Reason, e.Note))
		}
	}
	return says
}

func (c *checked) passes(t *testing.T) {
	c.awaitMetric(t, "pillion_self_check_success 1")
	profile := &v1alpha1.PatternProfile{}
	if err := c.Get(t.Context(), selfCheckKey, profile); err != nil {
		t.Fatal(err)
	}
	before, calls := profile.DeepCopy(), c.webhook.called()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		return c.webhook.called() >= calls+3, errors.New("there are no further checks")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), selfCheckKey, profile); err != nil {
		t.Fatal(err)
	}
	ready := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionReady)
	if profile.ResourceVersion != before.ResourceVersion || profile.Generation != 1 || ready == nil || ready.Status != metav1.ConditionTrue {
		t.Errorf("generation %d, resource version %s after %s, conditions %+v", profile.Generation, profile.ResourceVersion,
			before.ResourceVersion, profile.Status.Conditions)
	}
	pods := &corev1.PodList{}
	if err := c.List(t.Context(), pods); err != nil || len(pods.Items) > 0 {
		t.Errorf("%d Pods were stored, %v", len(pods.Items), err)
	}
	if len(profile.Finalizers) > 0 {
		t.Errorf("whoever uninstalls Pillion would wait for %q", profile.Finalizers)
	}
	if events := c.events(t, SelfCheckNamespace); len(events) != 1 {
		t.Errorf("Events %q", events)
	}
	_, body, err := scraped(t.Context(), c.metrics)
	if err != nil || !strings.Contains(body, `pillion_profiles{ready="True",reason="Ready",scope="namespace"} 0`) {
		t.Errorf("the profile of the self-check is counted: %v", err)
	}
}

func (c *checked) others(t *testing.T) {
	other := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "other"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:         "other.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/")},
			Rules:        podRules(), SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}},
	}
	if err := c.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if message := c.await(t, metav1.ConditionFalse, ReasonRefused); !strings.Contains(message, "none of Pillion's") {
		t.Error(message)
	}
	if err := c.Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
}

func (c *checked) withoutConfiguration(t *testing.T) {
	for _, configuration := range configurations() {
		if err := c.Delete(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
	}
	if message := c.await(t, metav1.ConditionFalse, ReasonNotWoven); !strings.Contains(message, "does not exist") {
		t.Error(message)
	}
	for _, configuration := range configurations() {
		if err := c.Create(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
	}
}

// change edits an object, again if somebody else writes it meanwhile.
func (c *checked) change(t *testing.T, object client.Object, edit func()) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return false, err
		}
		edit()
		err := c.Update(ctx, object)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *checked) tampered(t *testing.T) {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "pillion-controller"}}
	var rules []rbacv1.PolicyRule
	c.change(t, role, func() {
		rules = slices.Clone(role.Rules)
		for i := range role.Rules {
			if slices.Contains(role.Rules[i].APIGroups, admissionregistrationv1.GroupName) {
				role.Rules[i].Verbs = []string{"get", "list", "watch"}
			}
		}
	})
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "pillion"}}
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) { // until the authorizer knows
		c.change(t, configuration, func() {
			for i := range configuration.Webhooks {
				configuration.Webhooks[i].ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "Pod"}}
			}
		})
		profile := &v1alpha1.PatternProfile{}
		err := c.Get(ctx, selfCheckKey, profile)
		condition := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionSelfCheck)
		return condition != nil && condition.Reason == ReasonNotWoven, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if message := c.await(t, metav1.ConditionFalse, ReasonNotWoven); !strings.Contains(message, "Entry "+podsEntry) {
		t.Error(message)
	}
	c.change(t, role, func() { role.Rules = rules })
}

func (c *checked) withoutPermission(t *testing.T) {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: SelfCheckNamespace, Name: "pillion-controller"}}
	var rules []rbacv1.PolicyRule
	c.change(t, role, func() { rules, role.Rules = role.Rules, nil })
	if message := c.await(t, metav1.ConditionFalse, ReasonNotPermitted); !strings.Contains(message, "RoleBinding") {
		t.Error(message)
	}
	c.change(t, role, func() { role.Rules = rules })
}

// customProfile chooses all Pods of the self-check's namespace.
func customProfile(name, template string) *v1alpha1.ClusterPatternProfile {
	profile := clusterProfile(name, v1alpha1.FailurePolicyFail, corev1.LabelMetadataName+"="+SelfCheckNamespace, "")
	profile.Spec.Custom = &v1alpha1.Custom{}
	profile.Spec.Custom.Template.Raw = []byte(template)
	return &profile
}

func (c *checked) policy(t *testing.T) {
	profile := customProfile("collides", `{"app": [{"containers": ["nosuch"], "env": [{"name": "A", "value": "b"}]}]}`)
	if err := c.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	c.await(t, metav1.ConditionFalse, ReasonRefused)
	if err := c.Delete(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
}

func (c *checked) otherProfiles(t *testing.T) {
	profile := customProfile("beside", `{"initContainers": [{"image": "registry.example.com/agent:1", "restartPolicy": "Always"}]}`)
	if err := c.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	calls := c.webhook.called()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		return c.webhook.called() >= calls+4, errors.New("there are no further checks")
	})
	if err != nil {
		t.Fatal(err)
	}
	c.awaitMetric(t, "pillion_self_check_success 1")
	c.await(t, metav1.ConditionTrue, ReasonWoven)
	if err := c.Delete(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
}

func (c *checked) keeps(t *testing.T) {
	profile := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: SelfCheckNamespace, Name: SelfCheckProfile}}
	c.change(t, profile, func() {
		profile.Spec.Overridable = nil
		profile.Spec.Match = &v1alpha1.PodMatch{}
	})
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, selfCheckKey, profile)
		return profile.Spec.Match == nil && len(profile.Spec.Overridable) == 1, err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := profile.UID
	if err := c.Delete(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, selfCheckKey, profile)
		return err == nil && profile.UID != before, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *checked) nothingRuns(t *testing.T) {
	pod := selfCheckPod("registry.example.com/pillion:1", "abc")
	err := c.Create(t.Context(), pod)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "nothing runs in namespace pillion-selfcheck") {
		t.Errorf("a Pod in the namespace: %v", err)
	}
}

func (c *checked) withoutNamespace(t *testing.T) {
	before := len(c.events(t, "pillion-system"))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SelfCheckNamespace}}
	if err := c.Delete(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	var says []string
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		says = c.events(t, "pillion-system")[before:]
		return len(says) > 0, errors.New("no Event")
	})
	if err != nil || !strings.Contains(says[0], "SelfCheckFailed NamespaceNotFound: Namespace pillion-selfcheck is being deleted") {
		t.Fatalf("%q, %v", says, err)
	}
	// What the controller manager does where one runs.
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		if err := c.DeleteAllOf(ctx, &v1alpha1.PatternProfile{}, client.InNamespace(SelfCheckNamespace)); err != nil {
			return false, err
		}
		list := &v1alpha1.PatternProfileList{}
		err := c.List(ctx, list, client.InNamespace(SelfCheckNamespace))
		return len(list.Items) == 0, errors.Join(err, errors.New("the profile is still there"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatal(err)
	}
	namespace.Spec.Finalizers = nil
	if _, err := c.server.Clientset.CoreV1().Namespaces().Finalize(t.Context(), namespace, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitMetric(t, "pillion_self_check_success 0")
	if calls := c.webhook.called(); calls == 0 {
		t.Error("the webhook was never called")
	}
	if err := c.server.InstallDeploy(t.Context()); err != nil {
		t.Fatal(err)
	}
}
