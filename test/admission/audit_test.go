package admission

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

// auditPolicy has no bodies in the log, as most clusters do.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  resources: [{group: "", resources: [pods]}]
- level: None
`

// telling is an installation that logs all that it can, beside an API server that writes an audit log.
type telling struct {
	processes

	auditLog  string
	serverLog *fixture.Log
	canaries  canaries
}

// TestWhatPillionTellsAfterwards looks at one installation as whoever runs it does, when something has happened.
func TestWhatPillionTellsAfterwards(t *testing.T) {
	t.Parallel()
	told := startTelling(t)
	t.Run("the audit log says what became of a Pod", told.audits)
	t.Run("the metrics count what became of Pods", told.counts)
	t.Run("no log holds a value", told.logsNoValues)
}

func startTelling(t *testing.T) *telling {
	t.Helper()
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	policy, told := filepath.Join(dir, "policy.yaml"), &telling{auditLog: filepath.Join(dir, "audit.log"), serverLog: &fixture.Log{}}
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := fixture.APIServer(t, apiserver.Options{Log: told.serverLog, Flags: map[string]string{
		"audit-policy-file": policy, "audit-log-path": told.auditLog, "audit-log-mode": "blocking",
	}})
	told.server, told.log = fresh, &fixture.Log{}
	told.create(t, told.brokenProfile(t)) // before there is a webhook that refuses it
	told.Installation, err = installation.Start(t.Context(), fresh, installation.Options{
		Binary: binary, Log: told.log,
		Env: []string{"PILLION_LOG_LEVEL=debug", "PILLION_CONTROLLER_SELF_CHECK_INTERVAL=none"}, // its answers would be counted
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, told.log.Take())
	}
	t.Cleanup(func() {
		if err := told.Stop(); err != nil {
			t.Errorf("%v\n%s", err, told.log.Take())
		}
	})
	return told
}

// audited returns the audit annotations of Pillion on the creation of a Pod with a name, by the kinds of their entries.
func (a *telling) audited(t *testing.T, in, name string) map[string]string {
	t.Helper()
	file, err := os.Open(a.auditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		event := auditv1.Event{}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		ref := event.ObjectRef
		if event.Verb != "create" || ref == nil || ref.Resource != "pods" || ref.Namespace != in || ref.Name != name {
			continue
		}
		told := map[string]string{}
		for key, value := range event.Annotations {
			if entry, isOurs := strings.CutSuffix(key, "/outcome"); isOurs {
				kind, _, _ := strings.Cut(strings.SplitN(entry, ".", 2)[0], "-")
				told[kind] = value
			}
		}
		return told
	}
	t.Fatalf("the audit log has no creation of Pod %s/%s: %v", in, name, lines.Err())
	return nil
}

// outcome is what the audit log has of one profile.
func outcome(profile, in, revision, result, reason string) string {
	told := map[string]string{"profile": profile, "namespace": in, "revision": revision, "result": result, "reason": reason}
	parts := []string{}
	for _, key := range []string{"profile", "namespace", "revision", "result", "reason"} {
		if told[key] != "" {
			parts = append(parts, fmt.Sprintf("%q:%q", key, told[key]))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// outcomes is what the audit log has of a Pod.
func outcomes(told ...string) string { return `{"profiles":[` + strings.Join(told, ",") + `]}` }

func (a *telling) revision(t *testing.T, key types.NamespacedName) string {
	t.Helper()
	awaitConditionOf(t, a.server.Client, key, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	status, err := statusOf(t.Context(), a.server.Client, key)
	if err != nil {
		t.Fatal(err)
	}
	return status.Revision
}

func named(name string, p *corev1.Pod) *corev1.Pod {
	p.Name, p.GenerateName = name, ""
	return p
}

func (a *telling) audits(t *testing.T) {
	a.createReady(t, cache("audit-cache"))
	a.createReady(t, enforcing(matching(custom(t, "audit-enforced", sidecar), "audit-enforced", v1alpha1.FailurePolicyFail)))
	late := enforcing(matching(custom(t, "audit-late", sidecar), "audit-late", v1alpha1.FailurePolicyFail))
	late.Spec.Match.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"late": "yes"}}
	a.createReady(t, late)
	cacheRevision := a.revision(t, types.NamespacedName{Name: "audit-cache"})
	enforcedRevision := a.revision(t, types.NamespacedName{Name: "audit-enforced"})
	plain := a.namespace(t, nil)
	own := inNamespace(plain, custom(t, "audit-own", sidecar))
	a.createReady(t, own)
	ownRevision := a.revision(t, types.NamespacedName{Namespace: plain, Name: "audit-own"})

	t.Run("of a Pod that asks", func(t *testing.T) {
		a.admit(t, named("asks", pod(plain, v1alpha1.InjectKey, "audit-cache,audit-own")))
		want := map[string]string{"pods": outcomes(
			outcome("audit-cache", "", cacheRevision, "Applied", "Applied"), outcome("audit-own", plain, ownRevision, "Applied", "Applied"))}
		if diff := cmp.Diff(want, a.audited(t, plain, "asks")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("of a Pod that is refused", func(t *testing.T) {
		p := named("refused", pod(plain, v1alpha1.InjectKey, "audit-cache,audit-nosuch"))
		if _, err := a.server.Clientset.CoreV1().Pods(plain).Create(t.Context(), p, metav1.CreateOptions{}); err == nil {
			t.Fatal("it is admitted")
		}
		want := map[string]string{"pods": outcomes(outcome("audit-nosuch", "", "", "Rejected", "ProfileNotAvailable"))}
		if diff := cmp.Diff(want, a.audited(t, plain, "refused")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("the same however often an entry is called, and of the Pod in the end", func(t *testing.T) {
		in := a.namespace(t, map[string]string{"audit-enforced": ""})
		webhookAfterPillion(t, a.server, in, admissionregistrationv1.NeverReinvocationPolicy, labeled("late", "yes"))
		awaitOther(t, a.server, pod(in), func(made *corev1.Pod, err error) bool { return err == nil && made.Labels["late"] == "yes" })
		a.serverLog.Take()
		before := a.counted(t, "pillion_admissions_total", `reason="AlreadyInjected"`)
		a.admit(t, named("reinvoked", pod(in, v1alpha1.InjectKey, "audit-cache")))
		if again := a.counted(t, "pillion_admissions_total", `reason="AlreadyInjected"`); again != before+2 {
			t.Fatalf("the Pod came woven %v times; once by the other entry and once again is wanted", again-before)
		}
		all := outcomes(
			outcome("audit-cache", "", cacheRevision, "Applied", "Applied"), outcome("audit-enforced", "", enforcedRevision, "Applied", "Applied"))
		want := map[string]string{
			"pods": all, "match": all, "verify": outcomes(outcome("audit-enforced", "", enforcedRevision, "Skipped", "Enforced")),
		}
		if diff := cmp.Diff(want, a.audited(t, in, "reinvoked")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if log := a.serverLog.Take(); strings.Contains(log, "admission audit annotation") {
			t.Errorf("the API server drops what was told before otherwise:\n%s", log)
		}
	})
	t.Run("of a Pod that lacks what is enforced in the end", func(t *testing.T) {
		in := a.namespace(t, map[string]string{"audit-late": ""})
		webhookAfterPillion(t, a.server, in, admissionregistrationv1.NeverReinvocationPolicy, labeled("late", "yes"))
		awaitOther(t, a.server, pod(in), func(_ *corev1.Pod, err error) bool { return err != nil })
		if _, err := a.server.Clientset.CoreV1().Pods(in).Create(t.Context(), named("denied", pod(in)), metav1.CreateOptions{}); err == nil {
			t.Fatal("it is admitted")
		}
		revision := a.revision(t, types.NamespacedName{Name: "audit-late"})
		want := map[string]string{"verify": outcomes(outcome("audit-late", "", revision, "Rejected", "NotInjected"))}
		if diff := cmp.Diff(want, a.audited(t, in, "denied")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
