package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// deployment is one whose Pods ask for a profile, with its ReplicaSet, as a controller would have made it.
func deployment(t *testing.T, namespace, profile string) (*appsv1.Deployment, *appsv1.ReplicaSet) {
	t.Helper()
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{"app": "shop"}, Annotations: map[string]string{v1alpha1.InjectKey: profile},
		},
		Spec: pod(namespace).Spec,
	}
	selector := &metav1.LabelSelector{MatchLabels: template.Labels}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop"},
		Spec:       appsv1.DeploymentSpec{Selector: selector, Template: template},
	}
	create(t, d)
	r := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "shop-1",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template},
	}
	create(t, r)
	return d, r
}

// podOf is a Pod as a ReplicaSet creates it.
func podOf(r *appsv1.ReplicaSet) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.Namespace, GenerateName: r.Name + "-",
			Labels: r.Spec.Template.Labels, Annotations: r.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: *r.Spec.Template.Spec.DeepCopy(),
	}
}

// TestWhatIsBrokenWhileTheWebhookIsDownServesOn stores, while nobody can refuse it, what cannot be used.
func TestWhatIsBrokenWhileTheWebhookIsDownServesOn(t *testing.T) {
	in := namespace(t, nil)
	for _, name := range []string{"broken-in-use", "broken-circle-a", "broken-circle-b"} {
		createReady(t, custom(t, name, sidecar))
	}
	_, shop := deployment(t, in, "broken-in-use")
	before, _ := admit(t, podOf(shop))
	circle := namespace(t, map[string]string{v1alpha1.InjectKey: "broken-circle-a.broken-circle-b"})

	if err := pillion.stopWebhook(); err != nil {
		t.Errorf("the webhook ended with: %v", err)
	}
	change(t, "broken-in-use", func(profile *v1alpha1.ClusterPatternProfile) {
		profile.Spec = custom(t, "broken-in-use", threeMistakes).Spec
	})
	change(t, "broken-circle-a", func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec.After = []string{"broken-circle-b"} })
	change(t, "broken-circle-b", func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec.After = []string{"broken-circle-a"} })
	create(t, custom(t, "never-good", threeMistakes))
	if err := pillion.startWebhook(t.Context()); err != nil { // and knows nothing of what was
		t.Fatal(err)
	}

	t.Run("the conditions say what the webhook would have said", func(t *testing.T) {
		for _, name := range []string{"never-good", "broken-in-use"} {
			message := awaitCondition(t, name, v1alpha1.ConditionAccepted, metav1.ConditionFalse, "InvalidSpec")
			if err := missing(message, threeFields()...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		awaitCondition(t, "never-good", v1alpha1.ConditionReady, metav1.ConditionFalse, "NotAccepted")
		message := refuse(t, pod(in, v1alpha1.InjectKey, "never-good"))
		if err := missing(message, append(threeFields(), "never-good", "ProfileNotReady")...); err != nil {
			t.Error(err)
		}
	})
	t.Run("a circle is told on both and Pods are woven from what was good", func(t *testing.T) {
		for _, name := range []string{"broken-circle-a", "broken-circle-b"} {
			message := awaitCondition(t, name, v1alpha1.ConditionAccepted, metav1.ConditionFalse, "InvalidSpec")
			if err := missing(message, "spec.after[0]", "broken-circle-a after broken-circle-b"); err != nil && name == "broken-circle-a" {
				t.Error(err)
			}
			awaitCondition(t, name, v1alpha1.ConditionReady, metav1.ConditionFalse, "ServingLastGood")
		}
		stored, warnings := admit(t, pod(circle))
		if len(added(stored)) != 2 || len(warnings) != 2 {
			t.Errorf("added %q, warnings %q", added(stored), warnings)
		}
	})
	t.Run("Pods of the workload get the revision that they had", func(t *testing.T) {
		message := awaitCondition(t, "broken-in-use", v1alpha1.ConditionReady, metav1.ConditionFalse, "ServingLastGood")
		if err := missing(message, "generation 1", v1alpha1.ReleaseKey); err != nil {
			t.Error(err)
		}
		message = awaitCondition(t, "broken-in-use", v1alpha1.ConditionInUse, metav1.ConditionTrue, "AskedFor")
		if err := missing(message, "Deployment "+in+"/shop"); err != nil {
			t.Error(err)
		}
		stored, warnings := admit(t, podOf(shop))
		if stored.Annotations[v1alpha1.InjectedKey] != before.Annotations[v1alpha1.InjectedKey] {
			t.Errorf("it was woven from %s, and before from %s",
				stored.Annotations[v1alpha1.InjectedKey], before.Annotations[v1alpha1.InjectedKey])
		}
		if len(warnings) != 1 || missing(warnings[0], "broken-in-use", "last good revision", "spec.custom") != nil {
			t.Errorf("warnings %q", warnings)
		}
	})
	t.Run("until an administrator says otherwise", func(t *testing.T) {
		change(t, "broken-in-use", func(profile *v1alpha1.ClusterPatternProfile) {
			profile.Annotations = map[string]string{v1alpha1.ReleaseKey: "true"}
		})
		awaitCondition(t, "broken-in-use", v1alpha1.ConditionReady, metav1.ConditionFalse, "NotAccepted")
		err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
			_, _, err := createPod(t, podOf(shop))
			return err != nil && missing(err.Error(), "broken-in-use", "ProfileNotReady") == nil, err
		})
		if err != nil {
			t.Errorf("Pods are woven on: %v", err)
		}
	})
}

func TestAProfileThatIsDeletedStaysForThoseWhoAsk(t *testing.T) {
	t.Parallel()
	in := namespace(t, nil)
	cluster, inside := custom(t, "deleted-in-use", sidecar), inNamespace(in, custom(t, "deleted-inside", sidecar))
	chosen := namespace(t, map[string]string{"deleted-in-use": ""})
	matching(cluster, "deleted-in-use", v1alpha1.FailurePolicyFail)
	createReady(t, cluster)
	createReady(t, inside)
	for _, profile := range []client.Object{cluster, inside} {
		t.Run(profile.GetName(), func(t *testing.T) {
			key := client.ObjectKeyFromObject(profile)
			users, shop := deployment(t, namespaceFor(t, profile), profile.GetName())
			if err := server.Client.Delete(t.Context(), profile); err != nil {
				t.Fatal(err)
			}
			message := awaitConditionOf(t, server.Client, key, v1alpha1.ConditionInUse, metav1.ConditionTrue, "AskedFor")
			if err := missing(message, "Deployment "+users.Namespace+"/shop"); err != nil {
				t.Error(err)
			}
			awaitConditionOf(t, server.Client, key, v1alpha1.ConditionReady, metav1.ConditionFalse, "Terminating")
			stored, _ := admit(t, podOf(shop))
			containerOf(t, stored, "pillion-"+profile.GetName())

			if err := server.Client.Delete(t.Context(), users); err != nil {
				t.Fatal(err)
			}
			if err := server.Client.Delete(t.Context(), shop); err != nil { // as the garbage collector would
				t.Fatal(err)
			}
			awaitUser(t, profile, "1 still ask for the profile: ReplicaSet "+users.Namespace+"/shop-1.") // by its Pod that still runs
			end(t, stored, corev1.PodSucceeded)
			awaitGone(t, profile)
			err := apiserver.Await(t.Context(), func(context.Context) (bool, error) { // the webhook hears of it a moment later
				_, _, err := createPod(t, podOf(shop))
				return err != nil && missing(err.Error(), profile.GetName(), "ProfileNotAvailable") == nil, err
			})
			if err != nil {
				t.Errorf("Pods are woven on: %v", err)
			}
		})
	}
	if stored, _ := admit(t, pod(chosen)); len(added(stored)) > 0 {
		t.Errorf("the match of what is deleted chose a Pod, which got %q", added(stored))
	}
}

// awaitUser waits until the profile's condition InUse says who asks.
func awaitUser(t *testing.T, profile client.Object, want string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		status, err := statusOf(ctx, server.Client, client.ObjectKeyFromObject(profile))
		if err != nil {
			return false, err
		}
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionInUse)
		return condition != nil && condition.Message == want, fmt.Errorf("InUse is %+v", condition)
	})
	if err != nil {
		t.Fatalf("%s: %v", profile.GetName(), err)
	}
}

// end lets a Pod end, as the kubelet would tell.
func end(t *testing.T, p *corev1.Pod, phase corev1.PodPhase) {
	t.Helper()
	p.Status.Phase = phase
	if err := server.Client.Status().Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func TestPodsThatHaveEndedAreNotCounted(t *testing.T) {
	t.Parallel()
	profile := site("in-use-by-the-ended")
	createReady(t, profile)
	in := namespace(t, nil)
	var pods []*corev1.Pod
	for range 3 {
		stored, _ := admit(t, pod(in, v1alpha1.InjectKey, profile.Name))
		pods = append(pods, stored)
	}
	await := func(want int32) {
		t.Helper()
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			status, err := statusOf(ctx, server.Client, client.ObjectKeyFromObject(profile))
			if err != nil {
				return false, err
			}
			return status.Pods != nil && *status.Pods == v1alpha1.PodCounts{Current: want}, fmt.Errorf("%+v, want %d", status.Pods, want)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	await(3)
	end(t, pods[0], corev1.PodSucceeded)
	await(2)
	end(t, pods[1], corev1.PodFailed)
	await(1)
}

// namespaceFor is one whose Pods may ask for a profile.
func namespaceFor(t *testing.T, profile client.Object) string {
	t.Helper()
	if profile.GetNamespace() != "" {
		return profile.GetNamespace()
	}
	return namespace(t, nil)
}

func awaitGone(t *testing.T, object client.Object) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		err := server.Client.Get(ctx, client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err), errors.Join(err, fmt.Errorf("it has the finalizers %q", object.GetFinalizers()))
	})
	if err != nil {
		t.Fatalf("%s stays: %v", object.GetName(), err)
	}
}

func TestADeletedProfileGoesWhenAnAdministratorReleasesIt(t *testing.T) {
	t.Parallel()
	profile := custom(t, "released", sidecar)
	createReady(t, profile)
	in := namespace(t, map[string]string{v1alpha1.InjectKey: "released"})
	if err := server.Client.Delete(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	message := awaitCondition(t, "released", v1alpha1.ConditionInUse, metav1.ConditionTrue, "AskedFor")
	if err := missing(message, "Namespace "+in); err != nil {
		t.Error(err)
	}
	if stored, _ := admit(t, pod(in)); len(added(stored)) != 1 {
		t.Errorf("added %q", added(stored))
	}
	change(t, "released", func(profile *v1alpha1.ClusterPatternProfile) {
		profile.Annotations = map[string]string{v1alpha1.ReleaseKey: "true"}
	})
	awaitGone(t, profile)
}

// TestPodsAreWovenWhollyWhileTheirProfileComesAndGoes changes, breaks and deletes a profile while Pods ask for it.
func TestPodsAreWovenWhollyWhileTheirProfileComesAndGoes(t *testing.T) {
	t.Parallel()
	const name, rounds = "restless", 8
	in := namespace(t, nil)
	revision := func(n int) *v1alpha1.ClusterPatternProfile {
		return custom(t, name, strings.ReplaceAll(`
custom:
  template:
    initContainers:
    - {name: first, image: "registry.example.com/agent:REVISION", restartPolicy: Always, volumeMounts: [{name: shared, mountPath: /shared}]}
    - {name: second, image: "registry.example.com/agent:REVISION", restartPolicy: Always, volumeMounts: [{name: shared, mountPath: /shared}]}
    volumes: [{name: shared, emptyDir: {}}]
    labels: {example.com/agent: "REVISION"}
    app: [{env: [{name: AGENT, value: "REVISION"}], volumeMounts: [{name: shared, mountPath: /shared}]}]
`, "REVISION", fmt.Sprint(n)))
	}
	done := make(chan struct{})
	group := sync.WaitGroup{}
	woven, refused := make([]int, 3), make([]int, 3)
	for i := range woven {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				stored, err := server.Clientset.CoreV1().Pods(in).Create(t.Context(), pod(in, v1alpha1.InjectKey, name), metav1.CreateOptions{})
				switch {
				case err == nil:
					woven[i]++
					if err := wholly(stored, name); err != nil {
						t.Error(err)
					}
				case missing(err.Error(), "Pillion refuses this Pod", name, "ProfileNotAvailable") == nil:
					refused[i]++
				default:
					t.Errorf("refused by other words: %v", err)
				}
			}
		})
	}
	for round := range rounds {
		create(t, revision(3*round))
		awaitReadyProfile(t, types.NamespacedName{Name: name})
		change(t, name, func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec = revision(3*round + 1).Spec })
		change(t, name, func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec.After = []string{"restless-nobody"} })
		change(t, name, func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec = revision(3*round + 2).Spec })
		if err := server.Client.Delete(t.Context(), revision(0)); err != nil {
			t.Fatal(err)
		}
		awaitGone(t, revision(0))
	}
	close(done)
	group.Wait()
	sum := func(n []int) int { return n[0] + n[1] + n[2] }
	t.Logf("%d Pods were woven and %d refused", sum(woven), sum(refused))
	if sum(woven) < rounds {
		t.Errorf("only %d Pods were woven", sum(woven))
	}
}

// wholly tells what of one revision of the profile a Pod lacks.
func wholly(p *corev1.Pod, profile string) error {
	revision := p.Labels["example.com/agent"]
	if want := []string{"pillion-" + profile + "-first", "pillion-" + profile + "-second"}; !slices.Equal(want, added(p)) {
		return fmt.Errorf("it has the containers %q and the label %q", added(p), revision)
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Image != "registry.example.com/agent:"+revision {
			return fmt.Errorf("image %s and label %q are of two revisions", p.Spec.InitContainers[i].Image, revision)
		}
	}
	for i := range p.Spec.Containers {
		mounted := slices.ContainsFunc(p.Spec.Containers[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/shared" })
		if envOf(&p.Spec.Containers[i], "AGENT") != revision || !mounted {
			return fmt.Errorf("container %s has %v, mounted: %t", p.Spec.Containers[i].Name, p.Spec.Containers[i].Env, mounted)
		}
	}
	return nil
}
