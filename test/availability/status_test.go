package availability

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// replicaPod is the Pod of a replica: its name.
const replicaPod = `
apiVersion: v1
kind: Pod
metadata:
  namespace: pillion-system
  name: %s
  labels: {app.kubernetes.io/name: pillion, app.kubernetes.io/component: webhook}
spec:
  nodeName: node
  serviceAccountName: pillion-webhook
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - {name: webhook, image: pillion, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
`

// TestEachReplicaIsAskedWhatItPresents runs the command as those on call do. The API server's proxy, by which it asks, dials no address
// of loopback, so that it can be tried only where replicas have addresses of their own.
func TestEachReplicaIsAskedWhatItPresents(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{})
	for i, replica := range c.Replicas {
		name := fmt.Sprintf("pillion-webhook-%d", i)
		objects, err := apiserver.Read(strings.NewReader(fmt.Sprintf(replicaPod, name)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.server.Apply(t.Context(), objects[0]); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{}
		if err := c.server.Client.Get(t.Context(), types.NamespacedName{Namespace: installation.Namespace, Name: name}, pod); err != nil {
			t.Fatal(err)
		}
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: replica.IP, PodIPs: []corev1.PodIP{{IP: replica.IP}}}
		if err := c.server.Client.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := apiserver.WriteKubeconfig(c.server.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	for i, state := range c.status(t, kubeconfig) {
		if state.Unknown != "" || state.Current == nil || !*state.Current || state.Trusted == nil || !*state.Trusted || state.NotAfter == nil {
			t.Errorf("replica %d says %+v", i, state)
		}
	}

	if err := c.Replicas[0].Kill(); err != nil {
		t.Fatal(err)
	}
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		all := c.status(t, kubeconfig)
		return all[0].Unknown == "the API server does not reach its metrics" && all[1].Unknown == "", fmt.Errorf("replicas: %+v", all)
	})
	if err != nil {
		t.Error(err)
	}
}

// replicaStatus is what is shown of a replica, as it is documented.
type replicaStatus struct {
	Pod              string
	NotAfter         *time.Time
	Current, Trusted *bool
	Unknown          string
}

// status returns what pillion certs status shows of the replicas, and checks that nothing else is wrong.
func (c *cluster) status(t *testing.T, kubeconfig string) []replicaStatus {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Getenv(binaryVariable), "certs", "status", "--kubeconfig", kubeconfig, "--output", "json")
	command.Env = append(os.Environ(), "PILLION_WEBHOOK_METRICS_ADDRESS=:8083")
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	report := struct {
		Healthy  bool
		Problems []string
		Replicas []replicaStatus
	}{}
	if err := json.Unmarshal(output, &report); err != nil {
		t.Fatal(err)
	}
	if !report.Healthy || len(report.Replicas) != len(c.Replicas) {
		t.Fatalf("%d replicas are shown; problems: %q", len(report.Replicas), report.Problems)
	}
	return report.Replicas
}
