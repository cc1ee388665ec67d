package apiserver_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pillion-dev/pillion/test/apiserver"
)

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
