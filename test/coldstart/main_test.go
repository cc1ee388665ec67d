package coldstart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

// binary is that of pillion.
var binary string

func TestMain(m *testing.M) {
	os.Exit(withBinary(m))
}

func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pillion-coldstart-")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // the machine's temporary directory is cleaned up by others, too
		binary, err = installation.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// quick are settings by which a lease passes on soon.
var quick = []string{
	"PILLION_CONTROLLER_LEASE_DURATION=3s", "PILLION_CONTROLLER_RENEW_DEADLINE=2s", "PILLION_CONTROLLER_RETRY_PERIOD=500ms",
}

// cluster is an API server, and a Pillion whose processes are started and ended by the test.
type cluster struct {
	client.Client
	server *apiserver.Server
	*installation.Parts
	log *fixture.Log
}

func startCluster(t *testing.T, options installation.PartsOptions) *cluster {
	t.Helper()
	return startClusterWith(t, func(*apiserver.Server) installation.PartsOptions { return options })
}

func startClusterWith(t *testing.T, options func(*apiserver.Server) installation.PartsOptions) *cluster {
	t.Helper()
	server := fixture.APIServer(t, apiserver.Options{})
	var err error
	c := &cluster{Client: server.Client, server: server, log: &fixture.Log{}}
	with := options(server)
	with.Binary, with.Log = binary, c.log
	if c.Parts, err = installation.NewParts(t.Context(), server, with); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.state() + c.log.String())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// state says which processes have ended, and how.
func (c *cluster) state() string {
	var says strings.Builder
	for _, process := range append(slices.Clone(c.Controllers), c.Webhook) {
		select {
		case <-process.Ended():
			fmt.Fprintf(&says, "a %s ended: %v\n", process.Name(), process.Result())
		default:
		}
	}
	return says.String()
}

// start starts processes one right after the other.
func (c *cluster) start(t *testing.T, processes ...*installation.Process) {
	t.Helper()
	for _, process := range processes {
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitReady starts nothing and waits until the processes are ready and the API server has been told of the webhook.
func (c *cluster) awaitReady(t *testing.T, processes ...*installation.Process) {
	t.Helper()
	for _, process := range processes {
		if err := process.AwaitReady(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, c.log)
		}
	}
	if err := c.AwaitEntries(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, c.log)
	}
}

// kill ends processes at once.
func (c *cluster) kill(t *testing.T, processes ...*installation.Process) {
	t.Helper()
	for _, process := range processes {
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cluster) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// namespace creates a namespace with a ServiceAccount, as the controller manager would; one that is there gets its labels and the
// ServiceAccount.
func (c *cluster) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}}
	for _, object := range []client.Object{namespace, account} {
		if err := c.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	c.change(t, namespace, func() {
		for key, value := range labels {
			namespace.Labels[key] = value
		}
	})
}

// change edits an object, again if somebody else writes it meanwhile.
func (c *cluster) change(t *testing.T, object client.Object, edit func()) {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return false, err
		}
		edit()
		err := c.Update(ctx, object)
		return err == nil, err
	})
}

func (c *cluster) await(t *testing.T, condition func(context.Context) (bool, error)) {
	t.Helper()
	if err := apiserver.Await(t.Context(), condition); err != nil {
		t.Fatalf("%v\n%s", err, c.log)
	}
}

// awaitCondition waits until a condition of a profile has a status and one of the reasons.
func (c *cluster) awaitCondition(
	t *testing.T, key types.NamespacedName, kind string, status metav1.ConditionStatus, reasons ...string,
) (is metav1.Condition) {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		var conditions []metav1.Condition
		if key.Namespace == "" {
			profile := &v1alpha1.ClusterPatternProfile{}
			if err := c.Get(ctx, key, profile); err != nil {
				return false, err
			}
			conditions = profile.Status.Conditions
		} else {
			profile := &v1alpha1.PatternProfile{}
			if err := c.Get(ctx, key, profile); err != nil {
				return false, err
			}
			conditions = profile.Status.Conditions
		}
		found := meta.FindStatusCondition(conditions, kind)
		if found == nil || found.Status != status {
			return false, fmt.Errorf("%s: the condition %s is %+v", key, kind, found)
		}
		for _, reason := range reasons {
			if found.Reason == reason {
				is = *found
				return true, nil
			}
		}
		return false, fmt.Errorf("%s: the condition %s is %+v", key, kind, found)
	})
	return is
}

// app is a Pod that Pod Security "restricted" admits.
func app(namespace string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "app-", Annotations: annotations},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "app", Image: "registry.example.com/app:1",
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// enforced is a profile that everybody gets, in every namespace, or no Pod at all.
func enforced(name string) *v1alpha1.ClusterPatternProfile {
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: name}}
	profile.Spec.FailurePolicy = v1alpha1.FailurePolicyFail
	profile.Spec.Match = &v1alpha1.ClusterMatch{
		Enforce: true,
		NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpExists,
		}}},
	}
	profile.Spec.Custom = &v1alpha1.Custom{}
	profile.Spec.Custom.Template.Raw = []byte(
		`{"initContainers": [{"image": "registry.example.com/agent:1", "restartPolicy": "Always"}]}`)
	return profile
}

// isWoven tells whether a Pod has the container of a profile.
func isWoven(pod *corev1.Pod, profile string) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == v1alpha1.ReservedName(profile, "") {
			return true
		}
	}
	return false
}

// awaitWoven waits until a Pod of a namespace is woven, and tells how long that took. One that is admitted without is an error.
func (c *cluster) awaitWoven(t *testing.T, namespace, profile string) (attempts int, took time.Duration) {
	t.Helper()
	start := time.Now()
	c.await(t, func(ctx context.Context) (bool, error) {
		attempts++
		pod := app(namespace, nil)
		if err := c.Create(ctx, pod, client.DryRunAll); err != nil {
			return false, err
		}
		if !isWoven(pod, profile) {
			return false, errors.New("the Pod is admitted, and not woven")
		}
		return true, nil
	})
	return attempts, time.Since(start)
}
