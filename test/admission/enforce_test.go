package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// enforcedImage is that of the container which an enforcing profile adds.
const enforcedImage = "registry.example.com/agent:1"

func pemOf(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}

// TestNothingGetsRoundAProfileThatEnforces tries everything that whoever may create Pods, namespaces, profiles of a namespace and
// webhooks could try.
func TestNothingGetsRoundAProfileThatEnforces(t *testing.T) {
	for _, policy := range []v1alpha1.FailurePolicy{v1alpha1.FailurePolicyIgnore, v1alpha1.FailurePolicyFail} {
		t.Run(string(policy), func(t *testing.T) {
			e := enforcement{profile: "enforced-" + strings.ToLower(string(policy))}
			createReady(t, enforcing(matching(custom(t, e.profile, sidecar+`
    app:
    - volumeMounts: [{name: marks, mountPath: /var/marks}]
    volumes: [{name: marks, emptyDir: {}}]
`), e.profile, policy)))
			t.Run("by the Pod or its namespace", e.byPods)
			t.Run("by profiles of the namespace", e.byTenants)
			t.Run("by webhooks behind Pillion's", e.byWebhooks)
		})
	}
}

type enforcement struct{ profile string }

// namespace is one whose Pods the profile chooses.
func (e enforcement) namespace(t *testing.T, labels ...string) string {
	t.Helper()
	all := map[string]string{e.profile: ""}
	for i := 0; i+1 < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	return namespace(t, all)
}

// holds creates a Pod that has to get the container, or to be refused for the reason, by a message that names the profile.
func (e enforcement) holds(t *testing.T, p *corev1.Pod, refused string) {
	t.Helper()
	if refused != "" {
		if err := missing(refuse(t, p), "Pillion refuses this Pod", "rofile "+e.profile, refused); err != nil {
			t.Error(err)
		}
		return
	}
	stored, _ := admit(t, p)
	if got := containerOf(t, stored, "pillion-"+e.profile).Image; got != enforcedImage {
		t.Errorf("the container has image %s", got)
	}
}

func (e enforcement) byPods(t *testing.T) {
	in := e.namespace(t)
	woven, _ := admit(t, pod(in))
	for _, test := range []struct {
		name    string
		pod     *corev1.Pod
		edit    func(*corev1.Pod)
		refused string
	}{
		{name: "an annotation that declines", pod: pod(in, v1alpha1.InjectKey, v1alpha1.None)},
		{name: "a namespace that declines", pod: pod(e.namespace(t, v1alpha1.InjectKey, v1alpha1.None))},
		{
			name: "a forged mark", pod: pod(in, v1alpha1.InjectedKey, woven.Annotations[v1alpha1.InjectedKey]),
			edit: func(p *corev1.Pod) { p.Labels = map[string]string{v1alpha1.InjectedKey: "true"} },
		},
		{
			name: "a forged container", pod: pod(in, v1alpha1.InjectedKey, woven.Annotations[v1alpha1.InjectedKey]),
			edit: func(p *corev1.Pod) {
				p.Labels = map[string]string{v1alpha1.InjectedKey: "true"}
				forged := container("pillion-" + e.profile)
				forged.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
				p.Spec.InitContainers = []corev1.Container{forged}
			},
			refused: "InjectionChanged",
		},
		{
			name: "its container as one that is no sidecar", pod: pod(in),
			edit: func(p *corev1.Pod) {
				moved := woven.Spec.InitContainers[0].DeepCopy()
				moved.RestartPolicy = nil
				p.Spec.Containers, p.Spec.Volumes = append(p.Spec.Containers, *moved), woven.Spec.Volumes
			},
			refused: "InjectionChanged",
		},
		{
			name: "the container with another command", pod: pod(in, v1alpha1.InjectedKey, woven.Annotations[v1alpha1.InjectedKey]),
			edit: func(p *corev1.Pod) {
				p.Labels, p.Spec = woven.Labels, *woven.Spec.DeepCopy()
				p.Spec.InitContainers[0].Command = []string{"sleep", "infinity"}
			},
			refused: "InjectionChanged",
		},
		{
			name: "a Pod that the profile does not fit", pod: pod(in),
			edit: func(p *corev1.Pod) {
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "templates", MountPath: "/var/marks"}}
			},
			refused: "MountPathCollision",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.edit != nil {
				test.edit(test.pod)
			}
			e.holds(t, test.pod, test.refused)
		})
	}
	t.Run("a Pod that has all of it already is admitted as it is", func(t *testing.T) {
		mayBeCreatedAgain(t, woven)
	})
}

func (e enforcement) byTenants(t *testing.T) {
	t.Run("a profile of the same name does not stand in for it", func(t *testing.T) {
		in := e.namespace(t)
		create(t, inNamespace(in, cache(e.profile)))
		e.holds(t, pod(in), "")
		e.holds(t, pod(in, v1alpha1.InjectKey, e.profile), "NameCollision")
	})
	t.Run("a profile of the same name that chooses Pods does not either", func(t *testing.T) {
		in := e.namespace(t)
		shadow := inNamespace(in, cache(e.profile))
		shadow.Spec.Match = &v1alpha1.PodMatch{}
		createReady(t, shadow)
		e.holds(t, pod(in), "")
	})
	t.Run("a profile of its mount path gives way", func(t *testing.T) {
		in := e.namespace(t)
		rival := inNamespace(in, custom(t, "a-rival", `
custom:
  template:
    volumes: [{name: marks, emptyDir: {}}]
    app: [{volumeMounts: [{name: marks, mountPath: /var/marks}]}]
`))
		rival.Spec.Match = &v1alpha1.PodMatch{}
		createReady(t, rival)
		e.holds(t, pod(in), "")
		message := refuse(t, pod(in, v1alpha1.InjectKey, "a-rival"))
		if err := missing(message, "a-rival", e.profile, "/var/marks", "MountPathCollision"); err != nil {
			t.Error(err)
		}
	})
}

func (e enforcement) byWebhooks(t *testing.T) {
	t.Run("what one strips off is woven again", func(t *testing.T) {
		in := e.namespace(t)
		webhookAfterPillion(t, server, in, admissionregistrationv1.NeverReinvocationPolicy, func(p *corev1.Pod) []map[string]any {
			return append(stripped(p), labeled("late", "yes")(p)...)
		})
		awaitOther(t, server, pod(in), func(p *corev1.Pod, _ error) bool { return p.Labels["late"] == "yes" })
		e.holds(t, pod(in), "")
	})
	isRefused := func(_ *corev1.Pod, err error) bool { return err != nil }
	t.Run("a Pod from which one strips it every time is refused", func(t *testing.T) {
		in := e.namespace(t)
		webhookAfterPillion(t, server, in, admissionregistrationv1.IfNeededReinvocationPolicy, stripped)
		awaitOther(t, server, pod(in), isRefused)
		e.holds(t, pod(in), "NotInjected")
	})
	t.Run("a Pod from which one strips the container alone is refused", func(t *testing.T) {
		in := e.namespace(t)
		webhookAfterPillion(t, server, in, admissionregistrationv1.NeverReinvocationPolicy, func(p *corev1.Pod) []map[string]any {
			return []map[string]any{{"op": "replace", "path": "/spec/initContainers", "value": []any{}}}
		})
		awaitOther(t, server, pod(in), isRefused)
		e.holds(t, pod(in), "pillion-"+e.profile)
	})
	t.Run("a Pod in which one changes the container's image is refused", func(t *testing.T) {
		in := e.namespace(t)
		webhookAfterPillion(t, server, in, admissionregistrationv1.IfNeededReinvocationPolicy, func(p *corev1.Pod) []map[string]any {
			return []map[string]any{{"op": "replace", "path": "/spec/initContainers/0/image", "value": "registry.example.com/other:1"}}
		})
		awaitOther(t, server, pod(in), isRefused)
		e.holds(t, pod(in), "InjectionChanged")
	})
	t.Run("a Pod that one moves into scope is refused", func(t *testing.T) {
		scoped := enforcement{e.profile + "-scoped"}
		profile := enforcing(matching(custom(t, scoped.profile, sidecar), scoped.profile, v1alpha1.FailurePolicyFail))
		profile.Spec.Match.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"late": "yes"}}
		createReady(t, profile)
		in := scoped.namespace(t)
		outside, _ := admit(t, pod(in))
		if len(added(outside)) > 0 {
			t.Errorf("added %q to a Pod out of scope", added(outside))
		}
		webhookAfterPillion(t, server, in, admissionregistrationv1.NeverReinvocationPolicy, labeled("late", "yes"))
		awaitOther(t, server, pod(in), isRefused)
		scoped.holds(t, pod(in), "NotInjected")
	})
}

func TestAProfileThatEnforcesIsReadyOnceBothEntriesStandAndNeitherOutlivesIt(t *testing.T) {
	const name = "both-entries"
	profile := enforcing(matching(custom(t, name, sidecar), name, v1alpha1.FailurePolicyIgnore))
	createReady(t, profile)
	awaitEntries := func(want int) error {
		return apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			mutating, validating, err := entriesFor(ctx, server.Client, name)
			if err != nil {
				return false, err
			}
			return len(mutating) == want && len(validating) == want,
				fmt.Errorf("%d of each are wanted: entries %q and %q", want, mutating, validating)
		})
	}
	mutating, validating, err := entriesFor(t.Context(), server.Client, name)
	if err != nil || len(mutating) != 1 || len(validating) != 1 {
		t.Fatalf("it is ready with the entries %q and %q: %v", mutating, validating, err)
	}

	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: configurationName}}
	if err := server.Client.Delete(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	message := awaitCondition(t, name, v1alpha1.ConditionReady, metav1.ConditionFalse, "WebhookConfigurationNotFound")
	if err := missing(message, "ValidatingWebhookConfiguration"); err != nil {
		t.Error(err)
	}
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := apiserver.ReadFile(filepath.Join(root, "deploy", "webhookconfiguration.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if object.GetKind() == "ValidatingWebhookConfiguration" {
			if err := server.Apply(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		}
	}
	awaitCondition(t, name, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	if err := awaitEntries(1); err != nil {
		t.Error(err)
	}

	twin := profile.DeepCopy()
	twin.ObjectMeta = metav1.ObjectMeta{Name: name + "-twin"}
	createReady(t, twin)
	if again, _, err := entriesFor(t.Context(), server.Client, name); err != nil || cmp.Diff(mutating, again) != "" {
		t.Errorf("two profiles with one match have the entries %q, one has %q: %v", again, mutating, err)
	}
	if err := server.Client.Delete(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	if again, _, err := entriesFor(t.Context(), server.Client, name); err != nil || len(again) != 1 {
		t.Errorf("with one of two profiles its entry went: %q, %v", again, err)
	}
	if err := server.Client.Delete(t.Context(), twin); err != nil {
		t.Fatal(err)
	}
	if err := awaitEntries(0); err != nil {
		t.Errorf("entries outlive their last profile: %v", err)
	}
}

// What is a fault may be let pass by failurePolicy Ignore, and whoever makes Pods can make them large. The API server writes each < as six
// bytes.
func TestAPodThatIsTooLargeToBeReadIsNotAdmittedWithoutWhatIsEnforced(t *testing.T) {
	t.Parallel()
	const name = "large-ignore"
	createReady(t, enforcing(matching(custom(t, name, sidecar), name, v1alpha1.FailurePolicyIgnore)))
	p := pod(namespace(t, map[string]string{name: ""}))
	for i := range 13 {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: strings.Repeat("<", 100<<10)})
	}
	if err := missing(refuse(t, p), "Pillion refuses this Pod", "larger than", "make the Pod's manifest smaller"); err != nil {
		t.Error(err)
	}
	if stored, _ := admit(t, pod(p.Namespace)); len(added(stored)) != 1 {
		t.Errorf("afterwards a Pod got %q", added(stored))
	}
}

// A tenant's expressions are evaluated for the tenant's Pods, by the webhook of all.
func TestATenantsExpressionsKeepNothingFromBeingEnforced(t *testing.T) {
	t.Parallel()
	const name = "costly-enforced"
	createReady(t, enforcing(matching(custom(t, name, sidecar), name, v1alpha1.FailurePolicyIgnore)))
	in := namespace(t, map[string]string{name: ""})
	for i := range 20 {
		profile := inNamespace(in, cache(fmt.Sprintf("costly-%d", i)))
		profile.Spec.Match = &v1alpha1.PodMatch{}
		for j := range 16 {
			profile.Spec.Match.Conditions = append(profile.Spec.Match.Conditions, v1alpha1.MatchCondition{
				Name: fmt.Sprintf("c%d", j), Expression: "object == object",
			})
		}
		create(t, profile)
	}
	awaitReadyProfile(t, types.NamespacedName{Namespace: in, Name: "costly-19"})
	group := sync.WaitGroup{}
	for range 8 {
		group.Go(func() {
			p := pod(in)
			for i := range 180 {
				c := container(fmt.Sprintf("c-%d", i))
				for j := range 10 {
					c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("E%d", j), Value: "v"})
				}
				p.Spec.Containers = append(p.Spec.Containers, c)
			}
			stored, err := createAgain(t.Context(), p, 5)
			if err != nil {
				t.Error(err)
			} else if !slices.Contains(added(stored), "pillion-"+name) {
				t.Errorf("added %q", added(stored))
			}
		})
	}
	group.Wait()
}

// createAgain creates a Pod, and again if it was refused for what was not woven in time: where the policy is Ignore, weaving has two
// seconds, which is little on a machine that does much else.
func createAgain(ctx context.Context, p *corev1.Pod, tries int) (*corev1.Pod, error) {
	for {
		stored, err := server.Clientset.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		tries--
		if err == nil || tries == 0 || !strings.Contains(err.Error(), string(profiles.ReasonNotInjected)) {
			return stored, err
		}
	}
}
