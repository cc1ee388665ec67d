package patterns_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// turnedLabel is one of namespaces, by which the cluster's policy of these tests gives Pods a cache.
const turnedLabel = "workloads-turned"

func TestALabelOfANamespaceTurnsAllItsNewPods(t *testing.T) {
	t.Parallel()
	cluster.Apply(t, "", `
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: turned-cache}
spec:
  match: {namespaceSelector: {matchLabels: {`+turnedLabel+`: "on"}}}
  cacheAmbassador: {protocol: Memcached, local: {memory: 8Mi}}
`)
	cluster.AwaitProfile(t, "", "turned-cache")
	namespace := cluster.CreateRestricted(t, nil)
	template := installed.Deployment("", "shop", workload, "-cache=visits", serving).Spec.Template
	cluster.AwaitWoven(t, namespace, &template)
	createThree(t, namespace, template)
	bare := awaitThree(t, namespace)
	checkAllBare(t, bare)

	label(t, namespace, turnedLabel+"=on")
	cluster.AwaitWoven(t, namespace, &template, "turned-cache")
	checkUntouched(t, bare)
	old := listPods(t, namespace, map[string]string{workloadLabel: "shop"})[0]
	for _, item := range explain(t, namespace, "pod/"+old.Name, "deployment/shop") {
		if item.Verdict != "Woven" || item.containers("turned-cache") == nil || len(item.Carries) > 0 {
			t.Errorf("explain says of a Pod that is older than the label, and of its Deployment: %+v", item)
		}
	}

	restart(t, namespace, allKinds)
	turned := awaitThree(t, namespace)
	checkAllNew(t, bare, turned)
	for i := range turned {
		checkCached(t, &turned[i])
	}
	checkExplained(t, &listPods(t, namespace, map[string]string{workloadLabel: "shop"})[0])

	label(t, namespace, turnedLabel+"-")
	cluster.AwaitWoven(t, namespace, &template)
	checkUntouched(t, turned)
	restart(t, namespace, allKinds)
	again := awaitThree(t, namespace)
	checkAllNew(t, turned, again)
	checkAllBare(t, again)

	// A namespace that has the label from the first can be used at once.
	fresh := cluster.CreateRestricted(t, map[string]string{turnedLabel: "on"})
	cluster.Create(t, installed.Deployment(fresh, "shop", workload, "-cache=visits", serving))
	checkCached(t, cluster.ReadyPod(t, fresh, "shop"))
}

// allKinds are those of threeWorkloads, as kubectl takes them.
const allKinds = "deployment,statefulset,daemonset"

// threeWorkloads are of three kinds, with four Pods together.
var threeWorkloads = []string{"deployment/shop", "statefulset/shop-store", "daemonset/shop-agent"}

// workloadLabel is one of their Pods, or each would take the others' for its own.
const workloadLabel = "workload"

func createThree(t *testing.T, namespace string, template corev1.PodTemplateSpec) {
	t.Helper()
	of := func(name string) (metav1.ObjectMeta, *metav1.LabelSelector, corev1.PodTemplateSpec) {
		pods := *template.DeepCopy()
		pods.Labels[workloadLabel] = name
		return metav1.ObjectMeta{Namespace: namespace, Name: name},
			&metav1.LabelSelector{MatchLabels: map[string]string{workloadLabel: name}}, pods
	}
	meta, selector, pods := of("shop")
	cluster.Create(t, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(2)), Selector: selector, Template: pods,
	}})
	meta, selector, pods = of("shop-store")
	cluster.Create(t, &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		ServiceName: "shop-store", Selector: selector, Template: pods,
	}})
	meta, selector, pods = of("shop-agent")
	cluster.Create(t, &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pods}})
}

func awaitThree(t *testing.T, namespace string) []corev1.Pod {
	t.Helper()
	pods := awaitRollouts(t, namespace, nil, threeWorkloads...)
	if len(pods) != 4 {
		t.Fatalf("there are %d Pods, want 4", len(pods))
	}
	return pods
}

func label(t *testing.T, namespace, change string) {
	t.Helper()
	if _, err := cluster.Kubectl(t.Context(), "label", "namespace", namespace, change); err != nil {
		t.Fatal(err)
	}
}

// checkAllBare checks that Pods have nothing of any profile, and that their apps miss it.
func checkAllBare(t *testing.T, pods []corev1.Pod) {
	t.Helper()
	for i := range pods {
		checkWoven(t, &pods[i])
		if len(pods[i].Spec.InitContainers) > 0 || len(pods[i].Spec.Containers) > 1 {
			t.Errorf("Pod %s has more than its app: %+v", pods[i].Name, pods[i].Spec)
		}
		if report := reportAtStart(t, &pods[i], "app"); len(report.Errors) != 1 || !strings.HasPrefix(report.Errors[0], "cache: dial") {
			t.Errorf("the app of Pod %s tells %+v, want it to find no cache", pods[i].Name, report)
		}
	}
}

// checkCached checks that the app of a Pod had a cache of its own at its first instruction.
func checkCached(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	checkWoven(t, pod, "turned-cache")
	report := reportAtStart(t, pod, "app")
	report.checkContents(t, map[string]string{})
	if report.Cached != pod.Name {
		t.Errorf("the cache gave %q back to Pod %s, want its name", report.Cached, pod.Name)
	}
}

// checkUntouched checks that Pods run on as they were.
func checkUntouched(t *testing.T, pods []corev1.Pod) {
	t.Helper()
	for i := range pods {
		now := &corev1.Pod{}
		if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(&pods[i]), now); err != nil {
			t.Fatal(err)
		}
		if now.UID != pods[i].UID || now.DeletionTimestamp != nil || statusOf(now, "app").RestartCount > 0 {
			t.Errorf("Pod %s does not run on: %+v", pods[i].Name, now)
		}
		if diff := cmp.Diff(pods[i].Spec, now.Spec); diff != "" {
			t.Errorf("Pod %s was changed (-before +after):\n%s", pods[i].Name, diff)
		}
	}
}

// checkAllNew checks that no Pod is one of those that were there before.
func checkAllNew(t *testing.T, before, after []corev1.Pod) {
	t.Helper()
	old := map[types.UID]bool{}
	for i := range before {
		old[before[i].UID] = true
	}
	for i := range after {
		if old[after[i].UID] {
			t.Errorf("Pod %s was not replaced", after[i].Name)
		}
	}
}

// explanation is what this test reads of what `kubectl pillion explain -o json` says.
type explanation struct {
	Kind     string `json:"kind"`
	Verdict  string `json:"verdict"`
	Profiles []struct {
		Profile    string   `json:"profile"`
		Result     string   `json:"result"`
		Considered bool     `json:"considered"`
		Revision   string   `json:"revision"`
		Containers []string `json:"containers"`
	} `json:"profiles"`
	Carries []struct {
		Profile    string   `json:"profile"`
		State      string   `json:"state"`
		Revision   string   `json:"revision"`
		Containers []string `json:"containers"`
	} `json:"carries"`
	DryRun *struct {
		Agrees *bool `json:"agrees"`
	} `json:"dryRun"`
}

// containers are those that a Pod that is created now gets of a profile.
func (e explanation) containers(profile string) []string {
	for _, one := range e.Profiles {
		if one.Profile == profile && one.Considered && one.Result == "Applied" {
			return one.Containers
		}
	}
	return nil
}

// explain runs the plugin as kubectl does, with a dry run.
func explain(t *testing.T, namespace string, what ...string) []explanation {
	t.Helper()
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary, err := installation.Build(t.Context(), dir)
	if err == nil {
		err = os.Rename(binary, dir+"/kubectl-pillion")
	}
	if err != nil {
		t.Fatal(err)
	}
	args := slices.Concat([]string{"pillion", "explain", "--namespace", namespace, "--dry-run", "--output", "json"}, what)
	command := exec.CommandContext(t.Context(), kubectl, args...) //nolint:gosec // the kubectl of the tests
	command.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "KUBECONFIG="+cluster.Kubeconfig)
	var said, complained bytes.Buffer
	command.Stdout, command.Stderr = &said, &complained
	if err := command.Run(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, &said, &complained)
	}
	var list struct {
		Items []explanation `json:"items"`
	}
	if err := json.Unmarshal(said.Bytes(), &list); err != nil {
		t.Fatalf("%v: %s", err, &said)
	}
	if len(list.Items) != len(what) {
		t.Fatalf("%q are explained by %d items: %s", what, len(list.Items), &said)
	}
	for _, item := range list.Items {
		if item.DryRun == nil || item.DryRun.Agrees == nil || !*item.DryRun.Agrees {
			t.Errorf("a dry run does not agree with what explain says: %s", &said)
		}
	}
	return list.Items
}

// checkExplained checks that what explain says of a Pod of Deployment shop, and of that, is what the Pod has.
func checkExplained(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	var running []string
	for _, status := range pod.Status.InitContainerStatuses {
		if status.State.Running != nil {
			running = append(running, status.Name)
		}
	}
	revision := revisionOf(t, pod, "turned-cache")
	items := explain(t, pod.Namespace, "pod/"+pod.Name, "deployment/shop")
	if carries := items[0].Carries; len(carries) != 1 || carries[0].Profile != "turned-cache" || carries[0].State != "Current" ||
		carries[0].Revision != revision || !slices.Equal(carries[0].Containers, running) {
		t.Errorf("explain says that Pod %s carries %+v, and it runs %q of revision %s", pod.Name, carries, running, revision)
	}
	if got := items[1].containers("turned-cache"); !slices.Equal(got, running) || items[1].Verdict != "Woven" {
		t.Errorf("explain says of Deployment shop %+v, and its Pod runs %q", items[1], running)
	}
}
