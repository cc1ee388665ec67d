package availability

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// convergence is how long after the API server serves again everything may take to know what has changed since.
const convergence = 10 * time.Second

// outage is something that happens to the API server. happen calls during while it lasts, and returns when the API server
// serves again.
type outage struct {
	name   string
	times  int
	lasts  time.Duration
	happen func(s *apiserver.Server, ctx context.Context, during func()) error
	// ends: the API server that is there again is another, and all connections are new.
	ends bool
	// speaks: the API server is there all the time, and says so.
	speaks bool
}

func TestAnOutageOfTheAPIServerIsSurvived(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{Controllers: 2, WebhookEnv: []string{noDrain}})
	o := newOutages(t, c)
	restarts := c.keepControllers(t)
	for _, outage := range []outage{
		{name: "the API server restarts", times: either(1, 10), happen: (*apiserver.Server).RestartAPIServer, ends: true},
		{
			name: "the API server is gone for longer", times: 1, lasts: either(15*time.Second, 90*time.Second),
			happen: (*apiserver.Server).RestartAPIServer, ends: true,
		},
		{name: "etcd restarts", times: either(1, 5), lasts: either(2*time.Second, 30*time.Second), happen: (*apiserver.Server).RestartEtcd, speaks: true},
		{name: "the API server hangs", times: 1, lasts: either(5*time.Second, 70*time.Second), happen: (*apiserver.Server).HangAPIServer},
	} {
		t.Run(outage.name, func(t *testing.T) {
			for range outage.times {
				o.survive(t, outage)
			}
			t.Logf("controllers that ended and were started again: %d", restarts.Swap(0))
		})
	}
}

// keepControllers starts controllers again that have ended, as a kubelet would, and counts how often it did. One that cannot
// renew its Lease ends.
func (c *cluster) keepControllers(t *testing.T) *atomic.Int64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	restarts := &atomic.Int64{}
	var keeping sync.WaitGroup
	t.Cleanup(func() { cancel(); keeping.Wait() })
	for _, controller := range c.Controllers {
		keeping.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-controller.Ended():
				}
				restarts.Add(1)
				if err := controller.Start(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return restarts
}

// outages is what a cluster is tried with: a profile that changes after each of them, and a namespace whose label does.
type outages struct {
	*cluster
	roots     *x509.CertPool
	profile   *v1alpha1.ClusterPatternProfile
	namespace *corev1.Namespace
	round     int
}

// The profiles that the namespace asks for, one after the other.
var asked = [2]string{"even", "odd"}

func newOutages(t *testing.T, c *cluster) *outages {
	t.Helper()
	o := &outages{cluster: c, roots: c.trusted(t), profile: aCache("changing")}
	create := func(object client.Object) {
		if err := c.server.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	create(o.profile)
	for _, name := range asked {
		create(aCache(name))
	}
	o.namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "changing", Labels: map[string]string{v1alpha1.InjectKey: asked[0]}}}
	create(o.namespace)
	for _, replica := range c.Replicas {
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) { return o.knows(ctx, replica) })
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// survive has an outage happen under traffic. While it lasts the replicas go on answering; after it all that changes is seen
// in time, and at no time is there a wrong decision.
func (o *outages) survive(t *testing.T, outage outage) {
	t.Helper()
	traffic, stop := o.startTraffic(t, flow{creators: 3, rate: 50})
	defer stop()
	traffic.awaitCreates(t, 50)
	began := time.Now()
	err := outage.happen(o.server, t.Context(), func() {
		o.answersStill(t, began, outage.speaks)
		time.Sleep(outage.lasts - time.Since(began))
		o.answersStill(t, began, outage.speaks)
	})
	if err != nil {
		t.Fatal(err)
	}
	restored := time.Now()
	o.awaitWrites(t)
	served := time.Now()
	t.Logf("the API server could write again after %s", served.Sub(restored).Round(time.Millisecond))
	o.converge(t, served)
	if outage.ends { // or the contact is as old as the last bookmark
		o.tellOfContact(t, began.Add(time.Second), served)
	}
	converged := time.Now()
	traffic.awaitCreates(t, 50)
	o.createsAreFresh(t)
	stop()
	t.Logf("gone for %s", served.Sub(began).Round(time.Millisecond))
	traffic.report(t, func(failed failure) bool {
		return failed.ended.After(began) && failed.began.Before(converged) && !isDecision(failed)
	})
}

// isDecision tells whether what failed is an answer of Pillion's: a Pod was refused, or let pass as it was. Everything else
// says that there was none.
func isDecision(failed failure) bool {
	return strings.Contains(failed.text, "denied the request") || strings.Contains(failed.text, notWoven)
}

// answersStill asks each replica, as an API server would that can still be reached: what is known is woven, what is not known
// is a fault, and the metrics tell how old the memory is.
func (o *outages) answersStill(t *testing.T, began time.Time, speaks bool) {
	t.Helper()
	for _, replica := range o.Replicas {
		if answer, err := o.ask(t.Context(), replica, profiles.PathPods, o.cluster.namespace, askedProfile); err != nil {
			t.Errorf("a Pod that asks for a known profile: %v", err)
		} else if !answer.Allowed || !strings.Contains(string(answer.Patch), "pillion-"+askedProfile) {
			t.Errorf("a Pod that asks for a known profile is not woven: %+v", answer)
		}
		fault := &statusError{}
		if answer, err := o.ask(t.Context(), replica, profiles.PathPods, o.cluster.namespace, fmt.Sprintf("unknown-%d", time.Now().UnixNano())); err == nil {
			t.Errorf("a Pod that asks for a profile that nobody knows is decided about: %+v", answer)
		} else if !errors.As(err, &fault) || fault.code != http.StatusServiceUnavailable {
			t.Errorf("a Pod that asks for a profile that nobody knows: %v", err)
		}
		contact, err := replica.Metric(t.Context(), "pillion_snapshot_last_contact_timestamp_seconds")
		if err != nil {
			t.Error(err)
		} else if at := time.Unix(0, int64(contact*float64(time.Second))); at.After(began.Add(time.Second)) && !speaks || at.Before(began.Add(-2*time.Minute)) {
			t.Errorf("the last contact is told to be at %s, the outage began at %s", at, began)
		}
	}
}

// converge changes what is known and returns once everybody has seen it, which must not take long from when the API server
// served.
func (o *outages) converge(t *testing.T, served time.Time) {
	t.Helper()
	o.round++
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // how long it takes is measured, not bounded here
	defer cancel()
	ready := make(chan error, 1)
	var readyAfter time.Duration
	go func() { // the controller, too
		policy := aCache(fmt.Sprintf("policy-%d", o.round))
		policy.Spec.Match = &v1alpha1.ClusterMatch{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{policy.Name: ""}}}
		policy.Spec.FailurePolicy = v1alpha1.FailurePolicyFail
		err := o.createReady(ctx, policy)
		readyAfter = time.Since(served)
		if err == nil {
			err = o.createWoven(ctx, namespaceOf(map[string]string{policy.Name: ""}), "", policy.Name)
		}
		ready <- errors.Join(err, o.server.Client.Delete(ctx, policy))
	}()
	o.change(ctx, t)
	for i, replica := range o.Replicas {
		err := awaitLong(ctx, func(ctx context.Context) (bool, error) { return o.knows(ctx, replica) })
		if err != nil {
			t.Fatalf("replica %d: %v", i+1, err)
		}
		o.within(t, fmt.Sprintf("replica %d knows the profile and the namespace that were changed", i+1), time.Since(served))
	}
	if err := <-ready; err != nil {
		t.Fatalf("the controller: %v", err)
	}
	o.within(t, "the controller has made a new match ready", readyAfter)
}

// tellOfContact returns once the replicas tell that all which they follow was heard of after a time.
func (o *outages) tellOfContact(t *testing.T, after, served time.Time) {
	t.Helper()
	for i, replica := range o.Replicas {
		err := awaitLong(t.Context(), func(ctx context.Context) (bool, error) {
			contact, err := replica.Metric(ctx, "pillion_snapshot_last_contact_timestamp_seconds")
			return contact > float64(after.UnixMilli())/1000, errors.Join(err, fmt.Errorf("the last contact is told to be at %f", contact))
		})
		if err != nil {
			t.Fatal(err)
		}
		o.within(t, fmt.Sprintf("replica %d has heard of all that it follows", i+1), time.Since(served))
	}
}

func (o *outages) within(t *testing.T, what string, took time.Duration) {
	t.Helper()
	t.Logf("%s after %s", what, took.Round(time.Millisecond))
	if took > convergence {
		t.Errorf("%s only after %s", what, took.Round(time.Millisecond))
	}
}

// awaitWrites returns once the API server can write what is to be changed. Where etcd was gone it tries to reach it ever more seldom, and so
// finds it late.
func (o *outages) awaitWrites(t *testing.T) {
	t.Helper()
	for _, object := range []client.Object{o.profile.DeepCopy(), o.namespace.DeepCopy()} {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"test":"%d"}}}`, time.Now().UnixNano())
		err := awaitLong(t.Context(), func(ctx context.Context) (bool, error) {
			err := o.server.Client.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch))
			return err == nil, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// change changes the profile and the namespace. An API server that has just begun to serve may refuse that for a moment.
func (o *outages) change(ctx context.Context, t *testing.T) {
	t.Helper()
	profile, namespace := o.profile.DeepCopy(), o.namespace.DeepCopy()
	profile.Spec.CacheAmbassador.EnvPrefix = o.prefix()
	namespace.Labels[v1alpha1.InjectKey] = asked[o.round%2]
	for _, change := range [][2]client.Object{{profile, o.profile}, {namespace, o.namespace}} {
		err := awaitLong(ctx, func(ctx context.Context) (bool, error) {
			changed := change[0].DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy; what is answered is written into it
			err := o.server.Client.Patch(ctx, changed, client.MergeFrom(change[1]))
			return err == nil, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	o.profile, o.namespace = profile, namespace
}

// prefix is what shows in Pods which revision of the profile they got.
func (o *outages) prefix() string {
	if o.round == 0 {
		return "CACHE"
	}
	return fmt.Sprintf("ROUND%d", o.round)
}

// knows tells whether a replica decides by the profile and the namespace as they are now: from memory, which knows both by
// name and asks for nothing.
func (o *outages) knows(ctx context.Context, replica *installation.Replica) (bool, error) {
	byProfile, err := o.ask(ctx, replica, profiles.PathPods, o.cluster.namespace, o.profile.Name)
	if err != nil {
		return false, err
	}
	byNamespace, err := o.ask(ctx, replica, profiles.PathNamespaces, o.namespace.Name, "")
	if err != nil {
		return false, err
	}
	return strings.Contains(string(byProfile.Patch), `"`+o.prefix()+`_HOST"`) &&
		strings.Contains(string(byNamespace.Patch), `"pillion-`+asked[o.round%2]+`"`), errors.New("it decides by what was before")
}

// createsAreFresh creates Pods. Each has to get what the profile says now.
func (o *outages) createsAreFresh(t *testing.T) {
	t.Helper()
	for range 20 {
		pod := appPod(o.cluster.namespace, o.profile.Name)
		if err := o.server.Client.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Error(err)
		} else if !hasVariable(pod, o.prefix()+"_HOST") {
			t.Errorf("a Pod got an earlier revision of the profile, without %s_HOST", o.prefix())
		}
	}
}

func hasVariable(pod *corev1.Pod, name string) bool {
	for _, variable := range pod.Spec.Containers[0].Env {
		if variable.Name == name {
			return true
		}
	}
	return false
}

// awaitLong waits for as long as the context lasts.
func awaitLong(ctx context.Context, condition func(context.Context) (bool, error)) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		done, err := condition(attempt)
		cancel()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// trusted returns what the webhook configuration tells API servers to trust.
func (c *cluster) trusted(t *testing.T) *x509.CertPool {
	t.Helper()
	configuration, err := c.server.Clientset.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(
		t.Context(), installation.Configuration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle) {
		t.Fatal("the webhook configuration has no CA bundle")
	}
	return roots
}

// statusError is an answer that is no decision.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.code, e.body) }

var uids atomic.Int64

// ask sends a replica a review of a Pod, as the API server would: over TLS, to its Service's name.
func (o *outages) ask(
	ctx context.Context, replica *installation.Replica, path, namespace, asks string,
) (*admissionv1.AdmissionResponse, error) {
	encoded, err := json.Marshal(appPod(namespace, asks))
	if err != nil {
		return nil, err
	}
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:       types.UID(strconv.FormatInt(uids.Add(1), 10)),
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: namespace, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: encoded}, DryRun: new(true),
		},
	}
	body, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+replica.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: trusting(o.roots)}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if body, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, &statusError{response.StatusCode, string(body)}
	}
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, err
	}
	return review.Response, nil
}
