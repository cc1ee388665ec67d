package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/controller"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// awaitSkipped waits until a namespace has one Event about a skipped profile on each of some objects, KIND/NAME, of so many Pods,
// and none else. It returns their notes.
func awaitSkipped(t *testing.T, namespace string, want map[string]int32) (notes map[string]string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		list := &corev1.EventList{}
		if err := server.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return false, err
		}
		notes = map[string]string{}
		var differs []error
		for i := range list.Items {
			event, number := &list.Items[i], int32(1)
			if event.Reason != controller.ReasonProfileSkipped {
				continue
			}
			if event.Series != nil {
				number = event.Series.Count
			}
			on := event.InvolvedObject.Kind + "/" + event.InvolvedObject.Name
			if _, twice := notes[on]; twice || want[on] != number {
				differs = append(differs, fmt.Errorf("%s of %d Pods", on, number))
			}
			notes[on] = event.Message
		}
		if len(notes) != len(want) {
			differs = append(differs, fmt.Errorf("there are %v", notes))
		}
		return len(differs) == 0, errors.Join(differs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return notes
}

// controlled returns a Pod that an object made.
func controlled(p *corev1.Pod, by client.Object, apiVersion, kind string) *corev1.Pod {
	p.GenerateName = by.GetName() + "-"
	p.OwnerReferences = ownedBy(by, apiVersion, kind)
	return p
}

func ownedBy(by client.Object, apiVersion, kind string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: by.GetName(), UID: by.GetUID(), Controller: new(true)}}
}

// TestAnEventTellsOfWhatPolicyLeftOut lets Pods be created as their controllers do, who are not here.
func TestAnEventTellsOfWhatPolicyLeftOut(t *testing.T) {
	t.Parallel()
	profile := matching(custom(t, "event-erring", sidecar), "event-erring", v1alpha1.FailurePolicyIgnore)
	profile.Spec.Match.Conditions = []v1alpha1.MatchCondition{{Name: "of-a-team", Expression: "object.metadata.labels.team == 'web'"}}
	createReady(t, profile)
	createReady(t, matching(custom(t, "event-plain", sidecar), "event-plain", v1alpha1.FailurePolicyIgnore))
	in := namespace(t, map[string]string{"event-erring": "", "event-plain": ""})

	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "shop"}}, Spec: pod(in).Spec}
	selector := &metav1.LabelSelector{MatchLabels: template.Labels}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "shop"}, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template},
	}
	create(t, deployment)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "shop-1", OwnerReferences: ownedBy(deployment, "apps/v1", "Deployment")},
		Spec:       appsv1.ReplicaSetSpec{Selector: selector, Template: template},
	}
	create(t, set)
	template.Labels = nil
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	nightly := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "nightly"},
		Spec:       batchv1.CronJobSpec{Schedule: "0 3 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}},
	}
	create(t, nightly)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "nightly-1", OwnerReferences: ownedBy(nightly, "batch/v1", "CronJob")},
		Spec:       batchv1.JobSpec{Template: template},
	}
	create(t, job)

	clientset := kubernetes.NewForConfigOrDie(server.Config)
	dry := controlled(pod(in), set, "apps/v1", "ReplicaSet")
	tried, err := clientset.CoreV1().Pods(in).Create(t.Context(), dry, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || tried.Labels[v1alpha1.SkippedKey] != "true" {
		t.Fatalf("the dry run, which none of the Events is of: %v, labels %v", err, tried.Labels)
	}
	names := map[string][]string{}
	for range 10 {
		stored, _ := admit(t, controlled(pod(in), set, "apps/v1", "ReplicaSet"))
		names["Deployment/shop"] = append(names["Deployment/shop"], stored.Name)
		if stored.Labels[v1alpha1.SkippedKey] != "true" || len(added(stored)) != 1 {
			t.Errorf("labels %v, added %q", stored.Labels, added(stored))
		}
	}
	ends := controlled(pod(in), job, "batch/v1", "Job")
	ends.Spec.RestartPolicy = corev1.RestartPolicyNever
	stored, _ := admit(t, ends)
	names["CronJob/nightly"] = []string{stored.Name}
	bare, _ := admit(t, pod(in))
	names["Pod/"+bare.Name] = []string{bare.Name}
	team := pod(in)
	team.Labels = map[string]string{"team": "web"}
	if fine, _ := admit(t, team); fine.Labels[v1alpha1.SkippedKey] != "" || len(added(fine)) != 2 {
		t.Errorf("a Pod that nothing is left out of: labels %v, added %q", fine.Labels, added(fine))
	}

	notes := awaitSkipped(t, in, map[string]int32{"Deployment/shop": 10, "CronJob/nightly": 1, "Pod/" + bare.Name: 1})
	for on, says := range notes {
		if err := missing(says, "event-erring", "ConditionFailed", "condition of-a-team", "object.metadata.labels"); err != nil {
			t.Errorf("%s: %v", on, err)
		}
		if !slices.ContainsFunc(names[on], func(name string) bool { return strings.Contains(says, "Pod "+name+":") }) {
			t.Errorf("%s names none of the Pods %q: %s", on, names[on], says)
		}
	}
}

// TestNoEventTellsOfWhatIsRefused: whoever makes the Pods is told, and says so itself.
func TestNoEventTellsOfWhatIsRefused(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]v1alpha1.FailurePolicy{
		"event-fail": v1alpha1.FailurePolicyFail, "event-ignore": v1alpha1.FailurePolicyIgnore,
	} {
		profile := matching(custom(t, name, sidecar), name, policy)
		profile.Spec.Match.Conditions = []v1alpha1.MatchCondition{{Name: "errs", Expression: "object.metadata.labels.team == 'web'"}}
		createReady(t, profile)
	}
	in := namespace(t, map[string]string{"event-fail": "", "event-ignore": ""})
	refuse(t, pod(in))
	other := namespace(t, map[string]string{"event-ignore": ""})
	told, _ := admit(t, pod(other))
	awaitSkipped(t, other, map[string]int32{"Pod/" + told.Name: 1})
	awaitSkipped(t, in, map[string]int32{})
}
