package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node"
)

// image is of testdata/app.
const image = "localhost/app:1"

// cluster is the node that all tests of this package use.
var cluster *node.Node

func TestMain(m *testing.M) {
	os.Exit(node.Isolate(func() int {
		code, err := run(m)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// run starts the node with the image of the tests' app, runs the tests, and stops it.
func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		return 0, err
	}
	app, archive := filepath.Join(dir, "app"), filepath.Join(dir, "app.tar")
	if err := node.BuildProgram(ctx, "./test/node/testdata/app", app); err != nil {
		return 0, err
	}
	err = node.WriteImage(archive, node.Image{
		Name: image, Files: map[string]string{"/bin/app": app}, Entrypoint: []string{"/bin/app"},
	})
	if err != nil {
		return 0, err
	}
	if cluster, err = node.Start(ctx, node.Options{Images: []string{archive}}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	fmt.Printf("the node was ready after %s\n", cluster.Took.Round(10*time.Millisecond))
	return m.Run(), nil
}

// namespace makes a namespace. When the test fails, what happened in it is told.
func namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	name, err := cluster.CreateNamespace(t.Context(), labels)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(cluster.Explain(context.Background(), name))
		}
	})
	return name
}

// await waits for a condition, which returns why it is not true yet.
func await(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	var last error
	ask := func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		return last == nil, nil
	}
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 2*time.Minute, true, ask)
	if err != nil {
		t.Fatalf("wait for %s: %s: %v", what, err, last)
	}
}

// ready waits for a Pod to be Ready, and returns it as it is then.
func ready(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	await(t, "Pod "+pod.Name, func(ctx context.Context) error {
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its phase is %s", pod.Status.Phase)
	})
	return pod
}

// create creates an object.
func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := cluster.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// container runs the app as Pod Security restricted wants it.
func container(name string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: image, Args: args, SecurityContext: &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}}
}

// pod is a Pod of one container.
func pod(namespace, name string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{container("app", args...)}},
	}
}

func TestTheNodeIsOfTheAPIServersVersionAndRunsContainerd(t *testing.T) {
	version, err := cluster.Clientset.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	found := &corev1.Node{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: node.Name}, found); err != nil {
		t.Fatal(err)
	}
	info := found.Status.NodeInfo
	if info.KubeletVersion != version.GitVersion || !strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://") {
		t.Errorf("the Node has kubelet %s and %s, want kubelet %s and containerd", info.KubeletVersion, info.ContainerRuntimeVersion,
			version.GitVersion)
	}
	if err := cluster.Err(); err != nil {
		t.Error(err)
	}
}

func TestInARestrictedNamespaceAPodRunsItsInitContainerThenItsSidecarThenItsApp(t *testing.T) {
	space := namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	refused := pod(space, "root", "wait")
	refused.Spec.Containers[0].SecurityContext = nil
	if err := cluster.Client.Create(t.Context(), refused); err == nil {
		t.Fatal("a Pod that may run as root was created in a restricted namespace")
	}

	work := corev1.VolumeMount{Name: "work", MountPath: "/work"}
	p := pod(space, "app", "show", "/work/greeting")
	p.Spec.Volumes = []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	sidecar := container("sidecar", "wait")
	sidecar.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	sidecar.StartupProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		Exec: &corev1.ExecAction{Command: []string{"/bin/app", "exists", "/work/greeting"}},
	}}
	first := container("first", "write", "/work/greeting", "hello from", "the init container")
	p.Spec.InitContainers = []corev1.Container{first, sidecar}
	for _, c := range []*corev1.Container{&p.Spec.InitContainers[0], &p.Spec.InitContainers[1], &p.Spec.Containers[0]} {
		c.VolumeMounts = []corev1.VolumeMount{work}
	}
	create(t, p)
	p = ready(t, p)

	before, beside, app := p.Status.InitContainerStatuses[0], p.Status.InitContainerStatuses[1], p.Status.ContainerStatuses[0]
	if before.State.Terminated == nil || before.State.Terminated.ExitCode != 0 {
		t.Errorf("the init container's state is %+v, want that it ended with 0", before.State)
	}
	if beside.State.Running == nil || beside.Started == nil || !*beside.Started {
		t.Errorf("the sidecar's status is %+v, want that it started and runs", beside)
	}
	if app.State.Running == nil {
		t.Errorf("the app's state is %+v, want that it runs", app.State)
	}
	log, err := cluster.Logs(t.Context(), space, "app", "app")
	if want := "hello from the init container\n"; err != nil || log != want {
		t.Errorf("the app wrote %q (%v), want %q", log, err, want)
	}
}

func TestAServiceAnswersByAddressAndByName(t *testing.T) {
	space := namespace(t, nil)
	labels := map[string]string{"app": "web"}
	web := pod(space, "", "serve", ":8080")
	web.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)},
	}}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: web.Spec},
		},
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	create(t, deployment)
	create(t, service)
	create(t, pod(space, "client", "wait"))
	ready(t, pod(space, "client"))
	await(t, "the Deployment to be available", func(ctx context.Context) error {
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(deployment), deployment); err != nil {
			return err
		}
		if deployment.Status.AvailableReplicas != 1 {
			return fmt.Errorf("its status is %+v", deployment.Status)
		}
		return nil
	})
	pods := &corev1.PodList{}
	if err := cluster.Client.List(t.Context(), pods, client.InNamespace(space), client.MatchingLabels(labels)); err != nil {
		t.Fatal(err)
	}
	server := pods.Items[0].Name

	// One after the other: what was set up by the first is not waited for again.
	for _, tc := range []struct{ name, from, host string }{
		{"by its address", "client", service.Spec.ClusterIP},
		{"by its name", "client", "web"},
		{"by its whole name", "client", "web." + space + ".svc.cluster.local"},
		{"to the Pod behind it", server, "web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			await(t, "an answer", func(ctx context.Context) error {
				said, err := cluster.Exec(ctx, space, tc.from, "app", "/bin/app", "get", "http://"+tc.host)
				if err != nil {
					return err
				}
				if want := "this is " + server + "\n"; said != want {
					return fmt.Errorf("it says %q, want %q", said, want)
				}
				return nil
			})
		})
	}
	t.Run("to the node, where the API server calls webhooks from", func(t *testing.T) {
		await(t, "an answer", func(ctx context.Context) error {
			url := "http://" + net.JoinHostPort(service.Spec.ClusterIP, "80")
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			return response.Body.Close()
		})
	})
}

func TestAPodReachesTheAPIServerAsItsServiceAccount(t *testing.T) {
	space := namespace(t, nil)
	create(t, pod(space, "client", "wait"))
	ready(t, pod(space, "client"))
	said, err := cluster.Exec(t.Context(), space, "client", "app", "/bin/app", "api", "/version")
	if err != nil || strings.Count(said, "gitVersion") != 2 {
		t.Errorf("the API server says %q (%v), want its version, by address and by name", said, err)
	}
}

func TestACommandInAContainerSaysWhatItSaysAndFailsAsItFails(t *testing.T) {
	space := namespace(t, nil)
	create(t, pod(space, "app", "wait"))
	ready(t, pod(space, "app"))
	said, err := cluster.Exec(t.Context(), space, "app", "app", "/bin/app", "echo", "two", "words")
	if err != nil || said != "two words\n" {
		t.Errorf("it says %q (%v), want two words", said, err)
	}
	_, err = cluster.Exec(t.Context(), space, "app", "app", "/bin/app", "exists", "/nothing")
	if err == nil || !strings.Contains(err.Error(), "stat /nothing: no such file or directory") {
		t.Errorf("the error is %v, want what the command said", err)
	}
}

func TestAnImageInTheFormatOfOCIIsImportedToo(t *testing.T) {
	const other = "localhost/other:1"
	archive := filepath.Join(t.TempDir(), "other.tar")
	for _, args := range [][]string{
		{"tag", image, other}, {"export", "--skip-manifest-json", archive, other}, {"rm", "--sync", other},
	} {
		command := exec.CommandContext(t.Context(), "ctr", append([]string{"--namespace", "k8s.io", "images"}, args...)...)
		if said, err := command.CombinedOutput(); err != nil {
			t.Fatalf("ctr images %s: %s\n%s", args, err, said)
		}
	}
	if err := cluster.Import(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	space := namespace(t, nil)
	p := pod(space, "app", "wait")
	p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = other, corev1.PullNever
	create(t, p)
	ready(t, p)
}

func TestAnArchiveThatIsNoneIsRefused(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "empty.tar")
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Import(t.Context(), archive); err == nil || !strings.Contains(err.Error(), archive) {
		t.Errorf("the error is %v, want one that names the archive", err)
	}
}

func TestAPodThatFailsIsExplained(t *testing.T) {
	space := namespace(t, nil)
	p := pod(space, "broken", "nonsense")
	create(t, p)
	await(t, "the end of the app", func(ctx context.Context) error {
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if statuses := p.Status.ContainerStatuses; len(statuses) == 0 || statuses[0].RestartCount == 0 {
			return errors.New("it was not started again yet")
		}
		return nil
	})
	explained := cluster.Explain(t.Context(), space)
	for _, want := range []string{
		"Pod broken: ", "container app: ", "ended with 3: Error", "| what is nonsense", "Pod/broken Scheduled",
	} {
		if !strings.Contains(explained, want) {
			t.Errorf("the explanation has no %q:\n%s", want, explained)
		}
	}
}

func TestASecondNodeInTheSameNamespacesIsRefused(t *testing.T) {
	_, err := node.Start(t.Context(), node.Options{})
	if err == nil || !strings.Contains(err.Error(), "start one for all tests") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}
