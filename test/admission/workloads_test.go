package admission

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// workload is a workload of a kind; change sets what its Pod template has.
func workload(kind, in string, change func(*corev1.PodTemplateSpec)) client.Object {
	labels := map[string]string{"app": "web"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod(in).Spec}
	if change != nil {
		change(&template)
	}
	meta := metav1.ObjectMeta{Namespace: in, GenerateName: "web-"}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	switch kind {
	case "Deployment":
		return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}
	case "StatefulSet":
		return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}}
	case "DaemonSet":
		return &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}
	case "ReplicaSet":
		return &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
	}
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if kind == "Job" {
		return &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: template}}
	}
	return &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{
		Schedule: "@daily", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}},
	}}
}

func asking(value string) func(*corev1.PodTemplateSpec) {
	return func(template *corev1.PodTemplateSpec) {
		template.Annotations = map[string]string{v1alpha1.InjectKey: value}
	}
}

// warned calls a function with a client, and returns what the API server warns of, each as often as it does.
func warned(t *testing.T, call func(client.Client) error) []string {
	t.Helper()
	recorder := &warnings{}
	config := rest.CopyConfig(server.Config)
	config.WarningHandler = recorder
	c, err := client.New(config, client.Options{Scheme: server.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	if err := call(c); err != nil {
		t.Errorf("a workload is refused: %v", err)
	}
	return recorder.messages
}

// written creates a workload, which nothing may keep from it, and returns the warnings.
func written(t *testing.T, object client.Object) []string {
	t.Helper()
	return warned(t, func(c client.Client) error { return c.Create(t.Context(), object) })
}

// sentWorkloads returns how many reviews of workloads the webhook has answered.
func sentWorkloads(t *testing.T) (sum int) {
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
		if strings.HasPrefix(series, "pillion_admission_duration_seconds_count") && strings.Contains(series, `endpoint="workloads"`) {
			count := 0
			if _, err := fmt.Sscan(value, &count); err != nil {
				t.Fatal(err)
			}
			sum += count
		}
	}
	return sum
}

func TestWhoAppliesAWorkloadIsWarned(t *testing.T) {
	create(t, cache("warned-cache"))
	in := namespace(t, nil)
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"} {
		t.Run(kind, func(t *testing.T) {
			object := workload(kind, in, asking("warned-cach"))
			got := written(t, object)
			want := []string{fmt.Sprintf("profile warned-cach is not available in namespace %s; did you mean warned-cache? "+
				"(ProfileNotAvailable): Pods of %s %s will be refused", in, kind, object.GetName())}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := written(t, workload(kind, in, asking("warned-cache"))); len(got) > 0 {
				t.Errorf("of one that is served it warns: %q", got)
			}
		})
	}
	misplaced := workload("Deployment", in, nil)
	misplaced.SetAnnotations(map[string]string{v1alpha1.InjectKey: "warned-cache"})
	got := written(t, misplaced)
	if len(got) != 1 || missing(got[0], "its own metadata.annotations", "move it to spec.template.metadata.annotations") != nil {
		t.Errorf("warnings %q", got)
	}
	labeled := namespace(t, map[string]string{v1alpha1.InjectKey: "warned-cach"})
	if got := written(t, workload("CronJob", labeled, nil)); len(got) != 1 || missing(got[0], "did you mean warned-cache?") != nil {
		t.Errorf("warnings where the namespace asks: %q", got)
	}
}

func TestAWorkloadThatPolicySelectsByItsTemplateIsWarnedOnce(t *testing.T) {
	const name = "warned-match"
	taken := func(template *corev1.PodTemplateSpec) {
		template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "templates", MountPath: "/srv/site"}}
	}
	byLabel := matching(site(name), name, v1alpha1.FailurePolicyIgnore)
	byLabel.Spec.Match.PodSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web", "shop"}},
		{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist},
	}}
	createReady(t, byLabel)
	other := matching(site(name+"-fail"), name+"-fail", v1alpha1.FailurePolicyFail)
	createReady(t, other)
	in := namespace(t, map[string]string{name: "", name + "-fail": ""})
	awaitWarning(t, in, taken)

	before := sentWorkloads(t)
	got := written(t, workload("Deployment", in, taken))
	if len(got) != 2 || missing(got[0], name+"-fail", "MountPathCollision", "Pods of Deployment web-") != nil ||
		missing(got[1], "Deployment web-", ": Pillion left out profile "+name, "MountPathCollision") != nil {
		t.Errorf("warnings %q", got)
	}
	if sent := sentWorkloads(t) - before; sent != 2 { // no selector says that a namespace has both labels
		t.Errorf("it was sent %d times", sent)
	}
	only := namespace(t, map[string]string{name: ""})
	before = sentWorkloads(t)
	if got := written(t, workload("Deployment", only, func(template *corev1.PodTemplateSpec) {
		taken(template)
		template.Labels["tier"] = "back"
	})); len(got) > 0 || sentWorkloads(t) != before {
		t.Errorf("of one that is not selected it warns: %q", got)
	}
}

// awaitWarning returns once the API server has heard of all entries: workloads are sent by the last.
func awaitWarning(t *testing.T, in string, change func(*corev1.PodTemplateSpec)) {
	t.Helper()
	var got []string
	for range 200 {
		before := sentWorkloads(t)
		got = warned(t, func(c client.Client) error {
			return c.Create(t.Context(), workload("Deployment", in, change), client.DryRunAll)
		})
		if len(got) > 1 && sentWorkloads(t) == before+2 {
			return
		}
	}
	t.Fatalf("warnings %q", got)
}

func TestOnlyWorkloadsThatAreToldOfAreSent(t *testing.T) {
	create(t, cache("unsent"))
	in := namespace(t, map[string]string{"team": "web"})
	plain, asked := workload("Deployment", in, nil), workload("Deployment", in, asking("unsent-nosuch"))
	if got := written(t, asked); len(got) != 1 {
		t.Fatalf("warnings %q", got)
	}
	owned := workload("ReplicaSet", in, asking("unsent-nosuch"))
	owned.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: "apps/v1", Kind: "Deployment", Name: asked.GetName(), UID: asked.GetUID(), Controller: new(true),
	}})
	job := workload("Job", in, asking("unsent-nosuch"))
	job.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly", UID: "1", Controller: new(true),
	}})
	patch := func(content map[string]any) func(client.Client) error {
		return func(c client.Client) error {
			encoded, err := json.Marshal(content)
			if err != nil {
				return err
			}
			return c.Patch(t.Context(), asked.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, encoded))
		}
	}
	unsent := []struct {
		name string
		call func(client.Client) error
	}{
		{"one that asks for nothing", func(c client.Client) error { return c.Create(t.Context(), plain) }},
		{"one that declines", func(c client.Client) error { return c.Create(t.Context(), workload("Job", in, asking(v1alpha1.None))) }},
		{"one in an excluded namespace", func(c client.Client) error {
			return c.Create(t.Context(), workload("Deployment", excludedNamespace, asking("unsent-nosuch")))
		}},
		{"a ReplicaSet of a Deployment", func(c client.Client) error { return c.Create(t.Context(), owned) }},
		{"a Job of a CronJob", func(c client.Client) error { return c.Create(t.Context(), job) }},
		{"its scaling", func(c client.Client) error {
			return c.SubResource("scale").Update(t.Context(), asked.DeepCopyObject().(client.Object),
				client.WithSubResourceBody(&autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 3}}))
		}},
		{"its status", func(c client.Client) error {
			d := &appsv1.Deployment{}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(asked), d); err != nil {
				return err
			}
			d.Status.ObservedGeneration = d.Generation
			return c.Status().Update(t.Context(), d)
		}},
		{"its finalizers", patch(map[string]any{"metadata": map[string]any{"finalizers": []string{"example.com/kept"}}})},
		{"nothing new", patch(map[string]any{"spec": map[string]any{"replicas": 3}})},
		{"its last finalizer", patch(map[string]any{"metadata": map[string]any{"finalizers": []string{}}})},
	}
	before := sentWorkloads(t)
	for _, test := range unsent {
		if got := warned(t, test.call); len(got) > 0 {
			t.Errorf("%s: warnings %q", test.name, got)
		}
		if after := sentWorkloads(t); after != before {
			t.Errorf("%s is sent", test.name)
			before = after
		}
	}
	if got := warned(t, patch(map[string]any{"spec": map[string]any{"minReadySeconds": 1}})); len(got) != 1 || sentWorkloads(t) != before+1 {
		t.Errorf("a change of its spec: warnings %q, sent %d times", got, sentWorkloads(t)-before)
	}
}

func TestAWorkloadIsNotWarnedOfAProfileThatIsAsNew(t *testing.T) {
	for i := range inOneBreath {
		name := fmt.Sprintf("warned-breath-%d", i)
		in := namespace(t, nil)
		if i%2 == 0 {
			create(t, cache(name))
		} else {
			create(t, inNamespace(in, cache(name)))
		}
		if got := written(t, workload("Deployment", in, asking(name))); len(got) > 0 {
			t.Errorf("warnings %q", got)
		}
	}
}

func TestAWorkloadIsAdmittedWithoutTheWebhook(t *testing.T) {
	in := namespace(t, nil)
	asked := workload("Deployment", in, asking("stopped-nosuch"))
	if got := written(t, asked); len(got) != 1 {
		t.Errorf("warnings %q", got)
	}
	if err := pillion.stopWebhook(); err != nil {
		t.Errorf("the webhook ended with: %v", err)
	}
	if got := written(t, workload("Deployment", in, asking("stopped-nosuch"))); len(got) > 0 {
		t.Errorf("warnings %q", got)
	}
	if err := pillion.startWebhook(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		got := written(t, workload("Deployment", in, asking("stopped-nosuch")))
		return len(got) == 1, fmt.Errorf("warnings %q", got)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestKubectlApplyTellsEachWorkload applies files as people do. kubectl shows a warning once, whatever it was about.
func TestKubectlApplyTellsEachWorkload(t *testing.T) {
	create(t, cache("kubectl-cache"))
	in, dir := namespace(t, nil), t.TempDir()
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := apiserver.WriteKubeconfig(server.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	deployment := func(name, asks string) string {
		return fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: %[1]s}\nspec:\n  selector: {matchLabels: {app: %[1]s}}\n"+
			"  template:\n    metadata: {labels: {app: %[1]s}, annotations: {pillion.dev/inject: %[2]s}}\n"+
			"    spec: {containers: [{name: app, image: registry.example.com/app}]}\n", name, asks)
	}
	profile := func(name string) string {
		return fmt.Sprintf("apiVersion: pillion.dev/v1alpha1\nkind: PatternProfile\nmetadata: {name: %s}\n"+
			"spec: {cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}}\n", name)
	}
	refused := func(name, asks, instead string) string {
		return fmt.Sprintf("Warning: profile %s is not available in namespace %s%s (ProfileNotAvailable): Pods of Deployment %s will be refused",
			asks, in, instead, name)
	}
	const meant = "; did you mean kubectl-cache?"
	for _, test := range []struct {
		name  string
		flags []string
		files []string // in the order of their names
		want  []string
	}{
		{
			"two that want the same", nil,
			[]string{deployment("a", "kubectl-cach"), deployment("b", "kubectl-cach")},
			[]string{refused("a", "kubectl-cach", meant), refused("b", "kubectl-cach", meant)},
		},
		{"the same again", nil, []string{deployment("a", "kubectl-cach"), deployment("b", "kubectl-cach")}, nil},
		{"a change", nil, []string{deployment("a", "kubectl-cac")}, []string{refused("a", "kubectl-cac", meant)}},
		{
			"on the server's side",
			[]string{"--server-side"},
			[]string{deployment("c", "kubectl-cach")},
			[]string{refused("c", "kubectl-cach", meant)},
		},
		{
			"a dry run",
			[]string{"--dry-run=server"},
			[]string{deployment("d", "kubectl-cach")},
			[]string{refused("d", "kubectl-cach", meant)},
		},
		{"a profile and then who asks for it", nil, []string{profile("first"), deployment("e", "first")}, nil},
		{"who asks for a profile and then the profile", nil, []string{deployment("f", "last"), profile("last")}, []string{refused("f", "last", "")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for i, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{"--kubeconfig", kubeconfig, "apply", "-n", in, "-f", dir}, test.flags...)
			output, err := exec.CommandContext(t.Context(), kubectl, args...).CombinedOutput()
			if err != nil {
				t.Errorf("kubectl apply: %v", err)
			}
			var got []string
			for line := range strings.Lines(string(output)) {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, "Warning: ") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, output)
			}
		})
	}
}
