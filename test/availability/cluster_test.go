package availability

import (
	"io"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

// keptLog is how much is kept of what the processes of a test log.
const keptLog = 32 << 10

// askedProfile is what Pods of the traffic ask for.
const askedProfile = "cache"

// cluster is an API server with Pillion behind a Service, and a namespace for Pods.
type cluster struct {
	*installation.Service
	server    *apiserver.Server
	namespace string
}

// newCluster starts a cluster for one test, which shows what the processes logged if it fails.
func newCluster(t *testing.T, options installation.ServiceOptions) *cluster {
	t.Helper()
	server := fixture.APIServer(t, apiserver.Options{Flags: installation.ServerFlags()})
	log := &fixture.Log{Keep: keptLog}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of what the processes logged:\n%s", log)
		}
	})
	options.Binary, options.Log = os.Getenv(binaryVariable), tee(log, options.Log)
	service, err := installation.StartService(t.Context(), server, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{Service: service, server: server}
	if c.namespace, err = server.CreateNamespace(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: askedProfile}}
	profile.Spec.CacheAmbassador = &v1alpha1.CacheAmbassador{Protocol: v1alpha1.CacheProtocolMemcached, Local: &v1alpha1.LocalCache{}}
	if err := server.Client.Create(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	return c
}

func tee(log *fixture.Log, other io.Writer) io.Writer {
	if other == nil {
		return log
	}
	return io.MultiWriter(log, other)
}
