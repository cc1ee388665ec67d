package apiserver_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// childVariable tells this test binary, run by TestAServerEndsWithTheProcessThatStartedIt, that it is the process to end.
const childVariable = "PILLION_TEST_APISERVER_CHILD"

func TestAServiceAccountHasItsOwnIdentityAndNoPermissions(t *testing.T) {
	server := start(t)
	namespace, err := server.CreateNamespace(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := server.ServiceAccountConfig(t.Context(), namespace, "default")
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:"+namespace+":default") {
		t.Errorf("list Pods as a new ServiceAccount: %v, want a refusal that names it", err)
	}
}

func TestDefaultAdmissionPluginsWork(t *testing.T) {
	server := start(t)
	namespace, err := server.CreateNamespace(t.Context(), map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "app"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	if err := server.Client.Create(t.Context(), pod.DeepCopy()); err == nil || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("create a Pod without a security context: %v, want a refusal by PodSecurity", err)
	}
	if pod.Namespace, err = server.CreateNamespace(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := server.Client.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.Containers[0].VolumeMounts) == 0 {
		t.Error("no ServiceAccount token was mounted: the admission plugin ServiceAccount does not work")
	}
}

// TestAServerEndsWithTheProcessThatStartedIt starts a server in a process of its own and kills that: nothing may stay behind.
func TestAServerEndsWithTheProcessThatStartedIt(t *testing.T) {
	temporary := t.TempDir()
	if os.Getenv(childVariable) != "" {
		start(t)
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), childVariable+"=1", "TMPDIR="+temporary)
	output, err := child.CombinedOutput()
	if child.ProcessState == nil || child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process was to be killed, not to end with %v: %s", err, output)
	}
	err = apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		left, err := filepath.Glob(filepath.Join(temporary, "pillion-apiserver-*"))
		return len(left) == 0, err
	})
	if err != nil {
		t.Errorf("files of the server are still there: %v", err)
	}
	if left := processesNaming(t, temporary); len(left) > 0 {
		t.Errorf("processes of the server still run: %v", left)
	}
}

// processesNaming returns the command lines of the processes that have text in theirs.
func processesNaming(t *testing.T, text string) []string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "ps", "-eo", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func TestAMissingBinaryIsToldWithTheCommandThatMakesIt(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", t.TempDir())
	server, err := apiserver.Start(t.Context(), apiserver.Options{})
	if err == nil {
		t.Fatal("a server started without binaries", server.Stop())
	}
	if !strings.Contains(err.Error(), "run make controlplane") {
		t.Errorf("%v, want the command that makes the binary", err)
	}
}

func start(t *testing.T) *apiserver.Server {
	t.Helper()
	server, err := apiserver.Start(t.Context(), apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}
