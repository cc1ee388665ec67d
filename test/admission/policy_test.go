package admission

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// createPodAs creates a Pod as another user, who may do everything.
func createPodAs(t *testing.T, user string, p *corev1.Pod) (*corev1.Pod, []string, error) {
	t.Helper()
	recorder := &warnings{}
	config := rest.CopyConfig(server.Config)
	config.WarningHandler = recorder
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters", "robots"}}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := clientset.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
	return stored, recorder.messages, err
}

func TestConditionsChooseByUserNamespaceAndPod(t *testing.T) {
	t.Parallel()
	profile := matching(custom(t, "conditioned", sidecar), "conditioned", v1alpha1.FailurePolicyFail)
	profile.Spec.Match.Conditions = []v1alpha1.MatchCondition{
		{Name: "by-alice", Expression: "request.userInfo.username == 'alice' && 'robots' in request.userInfo.groups"},
		{Name: "gold", Expression: "namespaceObject.metadata.?labels[?'tier'].orValue('') == 'gold'"},
		{Name: "two-containers", Expression: "object.spec.containers.size() == 2 && request.operation == 'CREATE'"},
	}
	createReady(t, profile)
	gold := namespace(t, map[string]string{"conditioned": "", "tier": "gold"})
	plain := namespace(t, map[string]string{"conditioned": ""})
	lone := pod(gold)
	lone.Spec.Containers = lone.Spec.Containers[:1]
	for _, test := range []struct {
		name, user string
		pod        *corev1.Pod
		want       []string
	}{
		{name: "all of them are true", user: "alice", pod: pod(gold), want: []string{"pillion-conditioned"}},
		{name: "another user creates the Pod", user: "bob", pod: pod(gold), want: []string{}},
		{name: "the namespace has no such label", user: "alice", pod: pod(plain), want: []string{}},
		{name: "the Pod has one container", user: "alice", pod: lone, want: []string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stored, warnings, err := createPodAs(t, test.user, test.pod)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, added(stored)); diff != "" || len(warnings) > 0 {
				t.Errorf("warnings %q (-want +got):\n%s", warnings, diff)
			}
		})
	}
}

func TestAConditionThatCannotBeEvaluatedIsDecidedByTheFailurePolicy(t *testing.T) {
	t.Parallel()
	for _, policy := range []v1alpha1.FailurePolicy{v1alpha1.FailurePolicyIgnore, v1alpha1.FailurePolicyFail} {
		name := "erring-" + map[v1alpha1.FailurePolicy]string{"Ignore": "ignore", "Fail": "fail"}[policy]
		profile := matching(custom(t, name, sidecar), name, policy)
		profile.Spec.Match.Conditions = []v1alpha1.MatchCondition{
			{Name: "of-a-team", Expression: "object.metadata.labels.team == 'web'"},
		}
		createReady(t, profile)
	}
	ignoring := namespace(t, map[string]string{"erring-ignore": ""})
	failing := namespace(t, map[string]string{"erring-fail": ""})
	says := []string{"condition of-a-team", "object.metadata.labels", "ConditionFailed"}

	stored, warnings := admit(t, pod(ignoring))
	if err := missing(stored.Annotations[v1alpha1.SkippedKey], append(says, "erring-ignore")...); err != nil || len(added(stored)) > 0 {
		t.Errorf("added %q: %v", added(stored), err)
	}
	if len(warnings) != 1 || missing(warnings[0], append(says, "erring-ignore")...) != nil {
		t.Errorf("warnings %q", warnings)
	}
	if err := missing(refuse(t, pod(failing)), append(says, "erring-fail")...); err != nil {
		t.Error(err)
	}
	for _, in := range []string{ignoring, failing} {
		p := pod(in)
		p.Labels = map[string]string{"team": "web"}
		if stored, _ := admit(t, p); len(added(stored)) != 1 {
			t.Errorf("a Pod of which the condition is true got %q", added(stored))
		}
	}
}

func TestProfilesStartInTheOrderThatTheyAskFor(t *testing.T) {
	t.Parallel()
	first, second := custom(t, "order-b", sidecar), custom(t, "order-a", sidecar)
	second.Spec.After = []string{"order-b"}
	for _, profile := range []*v1alpha1.ClusterPatternProfile{first, second, custom(t, "order-c", sidecar)} {
		createReady(t, profile)
	}
	in := namespace(t, nil)
	p := pod(in, v1alpha1.InjectKey, "order-a, order-b, order-c")
	p.Spec.InitContainers = []corev1.Container{container("setup")}
	stored, _ := admit(t, p)
	want := []string{"pillion-order-b", "pillion-order-a", "pillion-order-c", "setup"}
	var got []string
	for i := range stored.Spec.InitContainers {
		got = append(got, stored.Spec.InitContainers[i].Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	asking := namespace(t, map[string]string{v1alpha1.InjectKey: "order-c"}) // or nobody would miss what was good
	change(t, "order-c", func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec.After = []string{"order-nobody"} })
	message := awaitCondition(t, "order-c", v1alpha1.ConditionAccepted, metav1.ConditionFalse, "InvalidSpec")
	if err := missing(message, "spec.after[0]", "order-nobody"); err != nil {
		t.Error(err)
	}
	awaitCondition(t, "order-c", v1alpha1.ConditionReady, metav1.ConditionFalse, "ServingLastGood")
	_, warnings := admit(t, pod(asking))
	if len(warnings) != 1 || missing(warnings[0], "order-c", "last good revision", "order-nobody") != nil {
		t.Errorf("warnings %q", warnings)
	}
	create(t, custom(t, "order-nobody", sidecar))
	awaitCondition(t, "order-c", v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	if _, warnings := admit(t, pod(asking)); len(warnings) > 0 {
		t.Errorf("what it waited for is there: warnings %q", warnings)
	}
}
