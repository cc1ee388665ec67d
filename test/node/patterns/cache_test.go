package patterns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/installed"
	cache "github.com/pillion-dev/pillion/test/node/patterns/testdata/cacheapp/client"
)

// The tests in cache*_test.go run one app, cacheapp, against every kind of cache that cacheAmbassador puts beside it.

// cacheApp is an app that connects to its cache before it does anything else, and ends with an error if it cannot.
const cacheApp = "localhost/cacheapp:1"

func init() { programs[cacheApp] = "./test/node/patterns/testdata/cacheapp" }

// cacheShop is what Deployments of the app are called, and cacheProfile what their profiles are.
const (
	cacheShop    = "shop"
	cacheProfile = "cache"
)

// cacheKind is a protocol, and how to run servers of it.
type cacheKind struct {
	protocol v1alpha1.CacheProtocol
	speaks   string // the app's word for it
	port     int
	image    string
	command  []string

	// headless are Services whose names lead to a Pod, and nowhere while there is none. Others have an address of their own.
	headless bool
}

func cacheKinds() []cacheKind {
	images := injectors.DefaultImages("")
	return []cacheKind{{
		protocol: v1alpha1.CacheProtocolMemcached, speaks: cache.Memcached, port: 11211, image: images.Memcached,
		command: []string{"memcached", "-l", "0.0.0.0", "-U", "0"},
	}, {
		protocol: v1alpha1.CacheProtocolRedis, speaks: cache.Redis, port: 6379, image: images.Redis, headless: true,
		command: []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"},
	}}
}

// forEachCacheKind runs a test for every protocol, beside others.
func forEachCacheKind(t *testing.T, test func(*testing.T, cacheKind)) {
	for _, kind := range cacheKinds() {
		t.Run(string(kind.protocol), func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// cacheNamespace makes a namespace whose profile gives all its Pods, but those with the label bare, a cache.
func cacheNamespace(t *testing.T, kind cacheKind, spec string) string {
	t.Helper()
	namespace := cluster.CreateRestricted(t, nil)
	cluster.Apply(t, namespace, cachePatternProfile(kind, spec))
	cluster.AwaitProfile(t, namespace, cacheProfile)
	return namespace
}

// cachePatternProfile is a profile with fields of cacheAmbassador, written as one line of YAML.
func cachePatternProfile(kind cacheKind, spec string) string {
	return fmt.Sprintf(`
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: %s}
spec:
  cacheAmbassador: {protocol: %s, %s}
  failurePolicy: Fail
  match:
    podSelector: {matchExpressions: [{key: bare, operator: DoesNotExist}]}
`, cacheProfile, kind.protocol, spec)
}

// cacheDeployment is the app, the same whatever is behind its cache.
func cacheDeployment(namespace string, kind cacheKind, replicas int32) *appsv1.Deployment {
	deployment := installed.Deployment(namespace, cacheShop, cacheApp, kind.speaks)
	deployment.Spec.Replicas = &replicas
	deployment.Spec.Template.Spec = cachePodSpec(kind.speaks)
	return deployment
}

func cachePodSpec(args ...string) corev1.PodSpec {
	container := installed.Container("app", cacheApp, args...)
	container.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/environment", Port: intstr.FromInt32(8080)},
	}, PeriodSeconds: 1, TimeoutSeconds: 30}
	return corev1.PodSpec{Containers: []corev1.Container{container}}
}

// cachePods waits until as many Pods of a Deployment are Ready, and returns them. None may have failed on the way.
func cachePods(t *testing.T, namespace, name string, replicas int) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	cluster.Eventually(t, fmt.Sprintf("%d Pods of %s", replicas, name), func(ctx context.Context) error {
		if err := cluster.Client.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{"app": name}); err != nil {
			return err
		}
		if len(list.Items) != replicas {
			return fmt.Errorf("there are %d Pods", len(list.Items))
		}
		for i := range list.Items {
			if err := installed.IsReady(&list.Items[i]); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range list.Items {
		checkNeverRestarted(t.Context(), t, &list.Items[i])
	}
	return list.Items
}

// askCacheApp asks the app of a Pod for something.
func askCacheApp(ctx context.Context, pod *corev1.Pod, path string, form url.Values) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+net.JoinHostPort(pod.Status.PodIP, "8080")+path,
		strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %s", path, response.Status, content)
	}
	return content, nil
}

// cacheAppSays is askCacheApp for answers of a type.
func cacheAppSays[T any](t *testing.T, pod *corev1.Pod, path string, form url.Values) (answer T) {
	t.Helper()
	content, err := askCacheApp(t.Context(), pod, path, form)
	if err == nil {
		err = json.Unmarshal(content, &answer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// onKeys has the app of a Pod set, get or use keys.
func onKeys(t *testing.T, pod *corev1.Pod, path, generation string, keys []string) cache.Outcome {
	t.Helper()
	return cacheAppSays[cache.Outcome](t, pod, path, url.Values{"key": keys, "generation": {generation}})
}

func cacheKeys(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return keys
}

// checkAllFound fails unless each key was found, with a value of the generation.
func checkAllFound(t *testing.T, outcome cache.Outcome, generation string, keys []string) {
	t.Helper()
	if outcome.Failures > 0 || len(outcome.Missed) > 0 {
		t.Fatalf("requests failed: %v; keys missed: %v", outcome.Failed, slices.Sorted(maps.Keys(outcome.Missed)))
	}
	for _, key := range keys {
		if got := outcome.Found[key]; got != generation {
			t.Fatalf("key %s has generation %q, want %q", key, got, generation)
		}
	}
}

// cacheServers are real servers, each a Deployment with a Service, in a namespace without a profile.
type cacheServers struct {
	kind      cacheKind
	namespace string
	names     []string
}

func startCacheServers(t *testing.T, kind cacheKind, n int) *cacheServers {
	t.Helper()
	s := &cacheServers{kind: kind, namespace: cluster.CreateRestricted(t, nil)}
	for i := range n {
		name := fmt.Sprintf("%s-%d", kind.speaks, i)
		s.names = append(s.names, name)
		deployment := installed.Deployment(s.namespace, name, kind.image)
		deployment.Spec.Template.Spec.Containers[0].Command = kind.command
		cluster.Create(t, deployment)
		service := &corev1.Service{Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: int32(kind.port)}},
		}}
		service.Namespace, service.Name = s.namespace, name
		if kind.headless {
			service.Spec.ClusterIP = corev1.ClusterIPNone
		}
		cluster.Create(t, service)
	}
	for i := range n {
		s.await(t, i)
	}
	return s
}

// address is what a profile calls a server.
func (s *cacheServers) address(i int) string {
	return fmt.Sprintf("%s.%s.svc:%d", s.names[i], s.namespace, s.kind.port)
}

// proxy are fields of cacheAmbassador: a proxy to the servers in an order, with more fields.
func (s *cacheServers) proxy(order []int, more string) string {
	var list []string
	for _, i := range order {
		list = append(list, fmt.Sprintf("{address: %q, name: %s}", s.address(i), s.names[i]))
	}
	return fmt.Sprintf("proxy: {servers: [%s]%s}", strings.Join(list, ", "), more)
}

// await waits until a server answers by its name, as whoever asks the cluster's DNS finds it.
func (s *cacheServers) await(t *testing.T, i int) {
	t.Helper()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(node.Address, "53"))
	}}
	cluster.Eventually(t, "server "+s.names[i], func(ctx context.Context) error {
		addresses, err := resolver.LookupHost(ctx, fmt.Sprintf("%s.%s.svc.cluster.local.", s.names[i], s.namespace))
		if err != nil {
			return err
		}
		server, err := cache.Dial(s.kind.speaks, net.JoinHostPort(addresses[0], fmt.Sprint(s.kind.port)))
		if err != nil {
			return err
		}
		_, err = server.Stats()
		return errors.Join(err, server.Close())
	})
}

// dial connects to a server itself, past every proxy.
func (s *cacheServers) dial(ctx context.Context, i int) (*cache.Client, error) {
	list := &corev1.PodList{}
	if err := cluster.Client.List(ctx, list, client.InNamespace(s.namespace), client.MatchingLabels{"app": s.names[i]}); err != nil {
		return nil, err
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("server %s has %d Pods", s.names[i], len(list.Items))
	}
	return cache.Dial(s.kind.speaks, net.JoinHostPort(list.Items[0].Status.PodIP, fmt.Sprint(s.kind.port)))
}

// stats are what every server tells of itself.
func (s *cacheServers) stats(t *testing.T) []cache.Stats {
	t.Helper()
	all := make([]cache.Stats, len(s.names))
	for i := range s.names {
		server, err := s.dial(t.Context(), i)
		if err == nil {
			all[i], err = server.Stats()
			err = errors.Join(err, server.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// holds returns which of the keys a server has.
func (s *cacheServers) holds(ctx context.Context, i int, keys []string) (held []string, err error) {
	server, err := s.dial(ctx, i)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	for _, key := range keys {
		_, found, err := server.Get(key)
		if err != nil {
			return nil, err
		}
		if found {
			held = append(held, key)
		}
	}
	return held, nil
}

// pod is the only one of a server.
func (s *cacheServers) pod(t *testing.T, i int) *corev1.Pod {
	t.Helper()
	return cluster.ReadyPod(t, s.namespace, s.names[i])
}

// scale starts or stops a server. It returns when one that is started answers.
func (s *cacheServers) scale(t *testing.T, i, replicas int) {
	t.Helper()
	if _, err := cluster.Kubectl(t.Context(), "scale", "deployment", s.names[i], "--namespace", s.namespace,
		fmt.Sprintf("--replicas=%d", replicas)); err != nil {
		t.Fatal(err)
	}
	if replicas > 0 {
		s.await(t, i)
	}
}

// hasNoPod tells whether the last Pod of a server has gone.
func (s *cacheServers) hasNoPod(ctx context.Context, i int) bool {
	list := &corev1.PodList{}
	err := cluster.Client.List(ctx, list, client.InNamespace(s.namespace), client.MatchingLabels{"app": s.names[i]})
	return err == nil && len(list.Items) == 0
}
