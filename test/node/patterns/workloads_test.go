package patterns_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// namespaceAsks is a namespace's own request for all four profiles, which then have no match.
var namespaceAsks = map[string]string{"pillion.dev/inject": strings.Join(fourProfiles, ".")}

// podTemplate is of Pods with the label app=name that use all four patterns, and more arguments for the app.
func podTemplate(name string, args ...string) corev1.PodTemplateSpec {
	return installed.Deployment("", name, workload, append(slices.Clone(useAll), args...)...).Spec.Template
}

func TestJobsCompleteThoughSidecarsRunBesideTheirApp(t *testing.T) {
	t.Parallel()
	namespace, _ := createFour(t, "", namespaceAsks)
	spec := batchv1.JobSpec{BackoffLimit: new(int32(0)), Completions: new(int32(2)), Template: podTemplate("report")}
	spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.AwaitWoven(t, namespace, &spec.Template, fourProfiles...)

	cluster.Create(t, &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "nightly"},
		Spec: batchv1.CronJobSpec{
			Schedule: "* * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent, JobTemplate: batchv1.JobTemplateSpec{Spec: spec},
		},
	})
	cluster.Create(t, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "report"}, Spec: spec})
	checkJob(t, namespace, "Job report", func(job *batchv1.Job) bool { return job.Name == "report" })
	checkJob(t, namespace, "the Job of CronJob nightly", func(job *batchv1.Job) bool {
		owner := metav1.GetControllerOf(job)
		return owner != nil && owner.Kind == "CronJob" && owner.Name == "nightly"
	})
}

// checkJob waits for the first Job that is the one meant, and checks that it completed, with every Pod of it at the first try.
func checkJob(t *testing.T, namespace, what string, isMeant func(*batchv1.Job) bool) {
	t.Helper()
	var job *batchv1.Job
	cluster.Eventually(t, what+" to end", func(ctx context.Context) error {
		list := &batchv1.JobList{}
		if err := cluster.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
		found := slices.IndexFunc(list.Items, func(job batchv1.Job) bool { return isMeant(&job) })
		if found < 0 {
			return errors.New("it is not there yet")
		}
		job = &list.Items[found]
		if jobCondition(job, batchv1.JobComplete) || jobCondition(job, batchv1.JobFailed) {
			return nil
		}
		return fmt.Errorf("%+v", job.Status)
	})
	if !jobCondition(job, batchv1.JobComplete) || job.Status.Succeeded != *job.Spec.Completions || job.Status.Failed != 0 {
		t.Errorf("%s ended so: %+v", what, job.Status)
	}
	for _, pod := range listPods(t, namespace, map[string]string{batchv1.JobNameLabel: job.Name}) {
		checkFour(t, &pod)
		checkEnds(t, &pod)
	}
}

func jobCondition(job *batchv1.Job, kind batchv1.JobConditionType) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(condition batchv1.JobCondition) bool {
		return condition.Type == kind && condition.Status == corev1.ConditionTrue
	})
}

// checkEnds checks how the containers of a Pod of a Job ended: the sidecars after the app, by the signal that asks for it, to
// which git-sync answers with 143, and not by the one that kills.
func checkEnds(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if pod.Status.Phase != corev1.PodSucceeded {
		t.Errorf("Pod %s is %s, want it to have succeeded", pod.Name, pod.Status.Phase)
	}
	codes := map[string]int32{}
	for _, status := range statuses(pod) {
		if status.State.Terminated == nil || status.RestartCount > 0 {
			t.Errorf("container %s of Pod %s: %+v", status.Name, pod.Name, status)
			continue
		}
		codes[status.Name] = status.State.Terminated.ExitCode
	}
	for _, asked := range []string{"pillion-cache", "pillion-adapter"} {
		if codes[asked] == 143 {
			codes[asked] = 0
		}
	}
	want := map[string]int32{
		"pillion-repository": 143, "pillion-configuration": 0, "pillion-cache": 0, "pillion-adapter": 0, "app": 0,
	}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("exit codes in Pod %s (-want +got):\n%s", pod.Name, diff)
	}
	end := statusOf(pod, "app").State.Terminated
	for _, sidecar := range []string{"pillion-repository", "pillion-cache", "pillion-adapter"} {
		if ended := statusOf(pod, sidecar).State.Terminated; end != nil && ended != nil && ended.FinishedAt.Before(&end.FinishedAt) {
			t.Errorf("in Pod %s %s ended at %s, before the app did at %s", pod.Name, sidecar, ended.FinishedAt, end.FinishedAt)
		}
	}
}

// listPods are the Pods with these labels that are not being deleted, by name.
func listPods(t *testing.T, namespace string, labels map[string]string) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	err := cluster.Client.List(t.Context(), list, client.InNamespace(namespace), client.MatchingLabels(labels))
	if err != nil {
		t.Fatal(err)
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

// awaitRollouts waits until workloads, such as statefulset/shop, run as they are written, and returns their Pods by name.
func awaitRollouts(t *testing.T, namespace string, labels map[string]string, workloads ...string) []corev1.Pod {
	t.Helper()
	for _, workload := range workloads {
		args := []string{"rollout", "status", "--namespace", namespace, "--timeout=3m", workload}
		if said, err := cluster.Kubectl(t.Context(), args...); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	return listPods(t, namespace, labels)
}

func TestAStatefulSetStartsAndIsReplacedInOrderWithAllFour(t *testing.T) {
	t.Parallel()
	namespace, _ := createFour(t, allMatch, nil)
	labels := map[string]string{"app": "shop"}
	template := podTemplate("shop", serving)
	cluster.AwaitWoven(t, namespace, &template, fourProfiles...)
	cluster.Apply(t, namespace, "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\n"+
		"spec: {clusterIP: None, selector: {app: shop}, ports: [{port: 8080}]}\n")
	cluster.Create(t, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(2)), ServiceName: "shop", Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template,
		},
	})
	first := checkReplicas(t, awaitRollouts(t, namespace, labels, "statefulset/shop"))
	checkCameAfter(t, &first[1], &first[0])

	restart(t, namespace, "statefulset/shop")
	second := checkReplicas(t, awaitRollouts(t, namespace, labels, "statefulset/shop"))
	checkCameAfter(t, &second[0], &second[1])
	for i := range second {
		if second[i].UID == first[i].UID {
			t.Errorf("Pod %s was not replaced", first[i].Name)
		}
	}
}

// checkReplicas checks both Pods of a StatefulSet shop: that each knows its name and has all four.
func checkReplicas(t *testing.T, pods []corev1.Pod) []corev1.Pod {
	t.Helper()
	if len(pods) != 2 {
		t.Fatalf("there are %d Pods, want 2", len(pods))
	}
	for i := range pods {
		if want := fmt.Sprintf("shop-%d", i); pods[i].Name != want {
			t.Errorf("there is Pod %s, want %s", pods[i].Name, want)
		}
		checkFour(t, &pods[i])
		awaitSeries(t, &pods[i], "shop_orders", map[string]float64{"shop_orders": 50})
	}
	return pods
}

// checkCameAfter checks that a Pod was created when another one was Ready.
func checkCameAfter(t *testing.T, pod, earlier *corev1.Pod) {
	t.Helper()
	for _, condition := range earlier.Status.Conditions {
		if condition.Type != corev1.PodReady {
			continue
		}
		if condition.Status != corev1.ConditionTrue || pod.CreationTimestamp.Before(&condition.LastTransitionTime) {
			t.Errorf("Pod %s was created at %s, before %s was Ready: %+v", pod.Name, pod.CreationTimestamp, earlier.Name, condition)
		}
		return
	}
	t.Errorf("Pod %s does not say whether it is Ready", earlier.Name)
}

func TestADaemonSetHasAllFourOnItsNode(t *testing.T) {
	t.Parallel()
	namespace, _ := createFour(t, allMatch, nil)
	labels := map[string]string{"app": "agent"}
	template := podTemplate("agent", serving)
	cluster.AwaitWoven(t, namespace, &template, fourProfiles...)
	cluster.Create(t, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	})
	first := awaitRollouts(t, namespace, labels, "daemonset/agent")
	restart(t, namespace, "daemonset/agent")
	second := awaitRollouts(t, namespace, labels, "daemonset/agent")
	if len(first) != 1 || len(second) != 1 || first[0].UID == second[0].UID {
		t.Fatalf("there was %+v, and after a restart %+v: want one Pod, and another one", first, second)
	}
	checkFour(t, &second[0])
	awaitSeries(t, &second[0], "shop_orders", map[string]float64{"shop_orders": 50})
}
