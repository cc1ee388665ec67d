package admission

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// reviewed returns how many reviews of Pods the webhook has answered.
func reviewed(t *testing.T) (sum int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+pillion.metrics+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(series, "pillion_admission_duration_seconds_count") && !strings.Contains(series, `endpoint="profiles"`) {
			count, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			sum += count
		}
	}
	return sum
}

func TestPodsThatNoProfileConcernsAreNeverSent(t *testing.T) {
	create(t, cache("sent"))
	createReady(t, matching(cache("sent-match"), "sent-match", v1alpha1.FailurePolicyFail))
	createReady(t, enforcing(matching(custom(t, "sent-enforce", sidecar), "sent-enforce", v1alpha1.FailurePolicyFail)))
	tenant := namespace(t, nil)
	inside := inNamespace(tenant, cache("sent-inside"))
	inside.Spec.Match, inside.Spec.FailurePolicy = &v1alpha1.PodMatch{}, v1alpha1.FailurePolicyFail
	createReady(t, inside)
	byLabel := matching(cache("sent-label"), "sent-label", v1alpha1.FailurePolicyFail)
	byLabel.Spec.Match.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	createReady(t, byLabel)

	plain := namespace(t, map[string]string{"team": "web"})
	asking := namespace(t, map[string]string{v1alpha1.InjectKey: "sent"})
	withLabel := namespace(t, map[string]string{"sent-label": ""})
	unconcerned := map[string]func() *corev1.Pod{
		"a Pod that asks for nothing":            func() *corev1.Pod { return pod(plain) },
		"a Pod that declines":                    func() *corev1.Pod { return pod(plain, v1alpha1.InjectKey, v1alpha1.None) },
		"a Pod that declines for its namespace":  func() *corev1.Pod { return pod(asking, v1alpha1.InjectKey, v1alpha1.None) },
		"a Pod that declines policy":             func() *corev1.Pod { return pod(tenant, v1alpha1.InjectKey, v1alpha1.None) },
		"a Pod without the label of a selection": func() *corev1.Pod { return pod(withLabel) },
		"a Pod of Pillion's own namespace":       func() *corev1.Pod { return pod(ownNamespace, v1alpha1.InjectKey, "sent") },
	}
	before := reviewed(t)
	for name, p := range unconcerned {
		if stored, warnings := admit(t, p()); len(added(stored)) > 0 || len(warnings) > 0 {
			t.Errorf("%s got %q, warnings %q", name, added(stored), warnings)
		}
	}
	if after := reviewed(t); after != before {
		t.Errorf("%d of them were sent", after-before)
	}
	admit(t, pod(plain, v1alpha1.InjectKey, "sent"))
	if after := reviewed(t); after != before+1 {
		t.Errorf("one Pod that asks was sent %d times", after-before)
	}

	if err := pillion.stopWebhook(); err != nil {
		t.Errorf("the webhook ended with: %v", err)
	}
	for name, p := range unconcerned {
		t.Run(name+" starts without the webhook", func(t *testing.T) { admit(t, p()) })
	}
	for _, in := range []string{tenant, asking, namespace(t, map[string]string{"sent-match": ""}), namespace(t, map[string]string{"sent-enforce": ""})} {
		if err := missing(refuse(t, pod(in)), "failed calling webhook"); err != nil {
			t.Error(err)
		}
	}
	if err := pillion.startWebhook(t.Context()); err != nil {
		t.Fatal(err)
	}
}
