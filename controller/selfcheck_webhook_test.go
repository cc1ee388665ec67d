package controller

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/profiles"
)

// failure is how a webhook fails.
type failure int

const (
	failingNot failure = iota
	failing500
	failingHangs
	failingTLS
	failingClosed
	failingDenies
	failingNothing
	failingStale
	failingOther
	failingReplay
)

// failing is a webhook that decides as Pillion does, and fails as it is told.
type failing struct {
	url, address string
	client       client.Client
	compiler     *profiles.Compiler

	mu     sync.Mutex
	how    failure
	calls  int
	server *http.Server
	resume chan struct{} // closed when nothing hangs any more
	last   []byte        // the last patch
}

func startFailing(t *testing.T, c client.Client) *failing {
	t.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{address: freeAddress(t), client: c, compiler: compiler, resume: make(chan struct{})}
	f.url = "https://" + f.address
	f.listen()
	t.Cleanup(func() { _ = f.server.Close() })
	return f
}

func (f *failing) listen() {
	f.server = &http.Server{
		Handler: f, ErrorLog: log.New(discard{}, "", 0), ReadHeaderTimeout: time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: f.certificate},
	}
	server, listener := f.server, net.Listener(nil)
	for listener == nil {
		listener, _ = net.Listen("tcp", f.address) // the one before may not be gone yet
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// certificate is the one in the Secret, or one that nobody trusts.
func (f *failing) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	name := "pillion-webhook-tls"
	if f.state() == failingTLS {
		name = "pillion-ca"
	}
	secret := &corev1.Secret{}
	if err := f.client.Get(ctx, types.NamespacedName{Namespace: "pillion-system", Name: name}, secret); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(secret.Data[certs.CertificateKey], secret.Data[certs.PrivateKeyKey])
	return &pair, err
}

func (f *failing) state() failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.how
}

func (f *failing) called() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// set says how to fail from now on. Connections are made anew.
func (f *failing) set(how failure) {
	f.mu.Lock()
	before := f.how
	f.how = how
	if before == failingHangs {
		close(f.resume)
		f.resume = make(chan struct{})
	}
	f.mu.Unlock()
	_ = f.server.Close()
	if how != failingClosed {
		f.listen()
	}
}

func (f *failing) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	review := admissionv1.AdmissionReview{}
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(response, "no review", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	if strings.HasPrefix(request.URL.Path, "/inject/") { // and not of a profile or a workload that is written
		f.calls++
	}
	how, resume := f.how, f.resume
	f.mu.Unlock()
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	switch {
	case strings.HasPrefix(request.URL.Path, "/inject/") && how == failing500:
		http.Error(response, "out of order", http.StatusInternalServerError)
		return
	case strings.HasPrefix(request.URL.Path, "/inject/") && how == failingHangs:
		select {
		case <-resume:
		case <-request.Context().Done():
		}
	case strings.HasPrefix(request.URL.Path, "/inject/") && how == failingDenies:
		answer.Allowed, answer.Result = false, &metav1.Status{Message: "Pillion refuses this Pod: it does not like it (Reason)"}
	case strings.HasPrefix(request.URL.Path, "/inject/") && how != failingNothing:
		if err := f.decide(request.Context(), review.Request, answer, how); err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	review.Response, review.Request = answer, nil
	response.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(response).Encode(review)
}

// decide decides as Pillion does, by profiles that it reads.
func (f *failing) decide(
	ctx context.Context, request *admissionv1.AdmissionRequest, answer *admissionv1.AdmissionResponse, how failure,
) error {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(request.Object.Raw, pod); err != nil {
		return err
	}
	namespace := &corev1.Namespace{}
	namespaced, cluster := &v1alpha1.PatternProfileList{}, &v1alpha1.ClusterPatternProfileList{}
	err := errors.Join(f.client.Get(ctx, types.NamespacedName{Name: request.Namespace}, namespace),
		f.client.List(ctx, namespaced), f.client.List(ctx, cluster))
	if err != nil {
		return err
	}
	var all []*profiles.Profile
	for i := range namespaced.Items {
		profile := &namespaced.Items[i]
		if how == failingStale {
			profile.Spec.Custom.Template.Raw = []byte(strings.ReplaceAll(string(profile.Spec.Custom.Template.Raw), "version", "help"))
		}
		all = append(all, f.compiler.Namespaced(profile))
	}
	for i := range cluster.Items {
		all = append(all, f.compiler.Cluster(&cluster.Items[i]))
	}
	in := profiles.Namespace{Name: namespace.Name, Labels: namespace.Labels, Annotations: namespace.Annotations}
	decision := profiles.Decide(profiles.NewSnapshot(profiles.Options{}, all), in, pod)
	if answer.Allowed = decision.Allowed; !answer.Allowed {
		answer.Result = &metav1.Status{Message: decision.Denial()}
		return nil
	}
	patch, err := json.Marshal(decision.Patch)
	if err != nil {
		return err
	}
	if how == failingOther { // of the same revision
		patch = []byte(strings.ReplaceAll(string(patch), `"version"`, `"help"`))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if how == failingReplay && f.last != nil {
		patch = f.last
	}
	f.last = patch
	answer.PatchType, answer.Patch = new(admissionv1.PatchTypeJSONPatch), patch
	return nil
}
