package admission

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// TestTheProcessesOfPillion runs the webhook and the controller as the binary that people install, beside an API server of their
// own.
func TestTheProcessesOfPillion(t *testing.T) {
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := apiserver.Start(t.Context(), apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fresh.Stop(); err != nil {
			t.Error(err)
		}
	})
	log := &buffer{}
	running, err := installation.Start(t.Context(), fresh, installation.Options{Binary: binary, Log: log})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.take())
	}
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Errorf("%v\n%s", err, log.take())
		}
	})
	if err := fresh.Client.Create(t.Context(), cache("process")); err != nil {
		t.Fatal(err)
	}
	in, err := fresh.CreateNamespace(t.Context(), map[string]string{v1alpha1.InjectKey: "process"})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := fresh.Clientset.CoreV1().Pods(in).Create(t.Context(), pod(in), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.take())
	}
	if len(added(stored)) != 1 {
		t.Errorf("added %q", added(stored))
	}
	if profiles, err := running.Metric(t.Context(), "pillion_snapshot_profiles"); err != nil || profiles != 1 {
		t.Errorf("the metrics tell of %v profiles, %v", profiles, err)
	}
}
