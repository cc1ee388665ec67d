package admission

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/webhook"
)

// cable is what connections to the API server go through, until it is cut.
type cable struct {
	mu    sync.Mutex
	isCut bool
	open  []net.Conn
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		return nil, errors.New("the cable is cut")
	}
	connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		c.open = append(c.open, connection)
	}
	return connection, err
}

func (c *cable) cut(isCut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = isCut
	if isCut {
		for _, connection := range c.open {
			_ = connection.Close()
		}
		c.open = nil
	}
}

// stir changes an object of every kind that the webhook follows, so that the API server has something to say of each.
func stir(t *testing.T, in string) {
	t.Helper()
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/stirred":"%d"}}}`, time.Now().UnixNano()))
	namespaced, clusterWide := cache("silence-stirred"), cache("silence")
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: in}}, clusterWide, inNamespace(in, namespaced),
	} {
		if err := server.Client.Patch(t.Context(), object, patch); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutAPIServerTheWebhookAnswersByWhatItKnows(t *testing.T) {
	create(t, cache("silence"))
	config, err := server.ServiceAccountConfig(t.Context(), ownNamespace, "pillion-webhook")
	if err != nil {
		t.Fatal(err)
	}
	link := &cable{}
	config.Dial = link.dial
	options := pillion.options()
	options.ListenAddress, options.HealthAddress = mustFreeAddress(t), mustFreeAddress(t)
	options.SilentAfter = 2 * time.Second
	stop := pillion.runWebhook(config, options)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
	})
	awaitStatus(t, options.HealthAddress, http.StatusOK, "ok")
	h := &hostile{
		client: pillion.client(t), tls: pillion.tls(t), url: "https://" + options.ListenAddress + webhook.PathPods, namespace: namespace(t, nil),
	}
	create(t, inNamespace(h.namespace, cache("silence-stirred")))
	known := h.request(t, pod("", v1alpha1.InjectKey, "silence"))
	unknown := encode(t, h.request(t, pod("", v1alpha1.InjectKey, "silence-nosuch")))
	if answer := h.review(t, known); len(answer.Patch) == 0 {
		t.Fatalf("it is not woven before: %+v", answer)
	}
	if status, answer := h.send(t, http.MethodPost, jsonType, strings.NewReader(string(unknown))); status != http.StatusOK {
		t.Fatalf("an unknown name is answered %d before: %s", status, answer)
	}
	pillion.log.Take()

	link.cut(true)
	awaitStatus(t, options.HealthAddress, http.StatusOK, "the API server was last heard")
	awaitLog(t, "the API server is silent", "silence")
	for range 3 {
		if answer := h.review(t, known); len(answer.Patch) == 0 {
			t.Errorf("it is not woven: %+v", answer)
		}
		start := time.Now()
		status, answer := h.send(t, http.MethodPost, jsonType, strings.NewReader(string(unknown)))
		if took := time.Since(start); status != http.StatusServiceUnavailable || took > 2*time.Second {
			t.Errorf("an unknown name is answered %d after %s, a denial nobody can know: %s", status, took, answer)
		}
		unknown = []byte(strings.ReplaceAll(string(unknown), "silence-nosuch", "silence-nosuch2")) // no name is remembered
	}

	link.cut(false)
	err = apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		stir(t, h.namespace)
		return strings.Contains(pillion.log.Take(), "the API server is heard again"), errors.New("the log does not say that it is heard again")
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := h.send(t, http.MethodPost, jsonType, strings.NewReader(string(unknown))); status != http.StatusOK {
		t.Errorf("an unknown name is answered %d after: %s", status, answer)
	}
}
