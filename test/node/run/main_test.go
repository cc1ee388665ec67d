//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pillion-dev/pillion/test/node/outside"
)

// program is what is tested.
var program string

func TestMain(m *testing.M) { os.Exit(outside.Main(m, func(path string) { program = path })) }

// runPod runs a Pod from outside, which proves that the kubeconfig is good there.
func runPod(t *testing.T, kubeconfig string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods := clients.CoreV1().Pods(metav1.NamespaceDefault)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pause"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "pause", Image: "localhost/pause:1"}}},
	}
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	outside.Await(t, "the Pod to run", func(ctx context.Context) error {
		found, err := pods.Get(ctx, "pause", metav1.GetOptions{})
		if err == nil && found.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("its status is %+v", found.Status)
		}
		return err
	})
}

func TestNothingIsLeftOfANodeThatWasKilledOrToldToEnd(t *testing.T) {
	temporary := outside.Directory(t)

	killed := outside.Start(t, program, temporary)
	runPod(t, killed.AwaitLine(t, "export KUBECONFIG="))
	dir := killed.NodeDirectory(t)
	if found := killed.Processes(t); len(found) < 12 {
		t.Fatalf("only %d processes are in the node's namespaces: %q", len(found), found)
	}
	if len(outside.Cgroups(t, filepath.Base(dir))) == 0 {
		t.Fatal("the node has no cgroups")
	}
	if err := killed.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := killed.AwaitEnd(t); err == nil {
		t.Error("the node that was killed ended well")
	}
	killed.CheckEnded(t)

	// Nobody could remove these. The next node does.
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the directory of the node that was killed: %s", err)
	}
	told := outside.Start(t, program, temporary)
	runPod(t, told.AwaitLine(t, "export KUBECONFIG="))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the node that was killed is still there: %v", err)
	}
	if left := outside.Cgroups(t, filepath.Base(dir)); len(left) > 0 {
		t.Errorf("cgroups of the node that was killed are still there: %q", left)
	}
	name := filepath.Base(told.NodeDirectory(t))
	if err := told.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := told.AwaitEnd(t); err != nil {
		t.Errorf("the node that was told to end says %v, want exit code 0", err)
	}
	if said := told.Output(); !strings.Contains(said, "stopping the node") {
		t.Errorf("the node that was told to end wrote %q", said)
	}
	told.CheckNothingIsLeft(t, name)
}
