//go:build unix

package apiserver_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
)

func TestWhatIsStoredOutlivesARestart(t *testing.T) {
	server, err := apiserver.Start(t.Context(), apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	stored := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kept"}}
	if err := server.Client.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := server.RestartAPIServer(t.Context(), func() {
			if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(stored), stored); err == nil {
				t.Error("somebody answers while the API server is gone")
			}
			if err := server.RestartEtcd(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(stored), stored); err != nil {
			t.Errorf("what was stored: %v", err)
		}
	}
}
