package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// certified is a cluster with certificates and webhook configurations as the controller leaves them, and a user who may read all.
type certified struct {
	*apiserver.Server
	admin, stranger string
	options         certs.Options
}

func TestCertsStatus(t *testing.T) {
	server := fixture.Installed(t)
	dir := t.TempDir()
	c := &certified{
		Server: server, admin: filepath.Join(dir, "admin"), stranger: filepath.Join(dir, "stranger"),
		options: certs.Options{
			Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls",
			Names: []string{"pillion-webhook.pillion-system.svc"},
		},
	}
	webhook, err := server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-webhook") // may not read the CA's
	if err != nil {
		t.Fatal(err)
	}
	for path, config := range map[string]*rest.Config{c.admin: server.Config, c.stranger: webhook} {
		if err := apiserver.WriteKubeconfig(config, path); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, c *certified)
		// problems are in the problems, in order; none: all is well. unreadable are in what is not shown.
		problems, unreadable []string
		stranger             bool
	}{
		{name: "all is well", unreadable: []string{"there are no Pods with the labels"}},
		{
			name: "a caBundle is blank", damage: func(t *testing.T, c *certified) {
				c.tamper(t, func(config *admissionregistrationv1.WebhookClientConfig) { config.CABundle = nil })
			},
			problems: []string{
				"the serving certificate is not trusted by entry pods.pillion.dev of MutatingWebhookConfiguration pillion: the CA bundle holds no certificate",
				"the caBundle of entry pods.pillion.dev of MutatingWebhookConfiguration pillion is not what is recorded",
			},
		},
		{
			name: "a caBundle has a CA too many", damage: func(t *testing.T, c *certified) {
				rogue, err := certs.NewCA(c.options.Names, time.Hour, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				c.tamper(t, func(config *admissionregistrationv1.WebhookClientConfig) {
					config.CABundle = append(config.CABundle, rogue.Certificate...)
				})
			},
			problems: []string{"the caBundle of entry pods.pillion.dev of MutatingWebhookConfiguration pillion is not what is recorded"},
		},
		{
			name: "the serving certificate has expired", damage: func(t *testing.T, c *certified) {
				c.make(t, time.Now().Add(-8*24*time.Hour))
			},
			problems: []string{
				"the serving certificate expired at ",
				"the serving certificate is not trusted by entry pods.pillion.dev of MutatingWebhookConfiguration pillion, " +
					"entry profiles.pillion.dev of ValidatingWebhookConfiguration pillion: the certificate expired at ",
			},
		},
		{
			name: "the controller has not renewed what was due", damage: func(t *testing.T, c *certified) {
				c.make(t, time.Now().Add(-5*24*time.Hour))
			},
			problems: []string{"the serving certificate was due to be renewed at "},
		},
		{
			name: "a Secret is missing", damage: func(t *testing.T, c *certified) { c.remove(t, "pillion-webhook-tls") },
			problems: []string{"Secret pillion-system/pillion-webhook-tls does not exist: the controller makes it within seconds; see whether it runs"},
		},
		{
			name: "both Secrets are missing", damage: func(t *testing.T, c *certified) { c.remove(t, "pillion-webhook-tls"); c.remove(t, "pillion-ca") },
			problems: []string{
				"pillion-webhook-tls does not exist", "Secret pillion-system/pillion-ca does not exist",
				"if Pillion is installed in another, name that with --namespace",
			},
		},
		{
			name: "a key is another's", damage: func(t *testing.T, c *certified) {
				ca, serving := c.secret(t, "pillion-ca"), c.secret(t, "pillion-webhook-tls")
				serving.Data[certs.PrivateKeyKey] = ca.Data[certs.PrivateKeyKey]
				if err := c.Client.Update(t.Context(), serving); err != nil {
					t.Fatal(err)
				}
			},
			problems: []string{"the serving certificate: the certificate and its private key are unusable or do not belong together"},
		},
		{
			name: "what is to be trusted beside the serving certificate is another", damage: func(t *testing.T, c *certified) {
				serving := c.secret(t, "pillion-webhook-tls")
				serving.Data[certs.CABundleKey] = []byte("x")
				if err := c.Client.Update(t.Context(), serving); err != nil {
					t.Fatal(err)
				}
			},
			problems: []string{"ca.crt beside the serving certificate does not hold the CAs that are recorded; the controller makes it anew"},
		},
		{
			name: "there are no entries", damage: func(t *testing.T, c *certified) {
				mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
				c.get(t, mutating)
				mutating.Webhooks = nil
				if err := c.Client.Update(t.Context(), mutating); err != nil {
					t.Fatal(err)
				}
			},
			problems: []string{"MutatingWebhookConfiguration pillion has no entries"},
		},
		{
			name: "who may not read the CA's Secret is told the rest", stranger: true,
			unreadable: []string{
				"you may not read Secret pillion-system/pillion-ca (permission: get secrets)",
				"you may not list Pods in namespace pillion-system",
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c.make(t, time.Now())
			if test.damage != nil {
				test.damage(t, c)
			}
			kubeconfig := c.admin
			if test.stranger {
				kubeconfig = c.stranger
			}
			report := statusOf(t, kubeconfig, len(test.problems) > 0)
			expectEach(t, "problems", report.Problems, test.problems)
			if test.unreadable != nil {
				expectEach(t, "what is not shown", report.Unreadable, test.unreadable)
			}
		})
	}
	t.Run("the text says the same", func(t *testing.T) {
		c.make(t, time.Now())
		stdout, _, err := run(t, nil, "", "certs", "status", "--kubeconfig", c.admin)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"in order, as far as could be read", "Mode: builtin", "Phase: Stable since ", "  CACreated: made a CA", "  Next: the next CA is made at ",
			"serving", "CN=pillion-webhook", "pillion-webhook.pillion-system.svc", "pods.pillion.dev", "Note: what the replicas",
		} {
			if !strings.Contains(stdout, want) {
				t.Errorf("the text lacks %q:\n%s", want, stdout)
			}
		}
	})
	t.Run("replicas tell what they present", func(t *testing.T) {
		c.make(t, time.Now().Add(-time.Hour))
		c.replicas(t)
	})
}

// expectEach checks that texts contain others, each its own.
func expectEach(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
		return
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s: %q does not contain %q", what, got[i], want[i])
		}
	}
}

// statusOf returns what the command reports, and checks that it says no private key.
func statusOf(t *testing.T, kubeconfig string, fails bool) *certsReport {
	t.Helper()
	stdout, stderr, err := run(t, nil, "", "certs", "status", "--kubeconfig", kubeconfig, "-o", "json")
	if (err != nil) != fails {
		t.Fatalf("ends with %v, want an error: %v; %s", err, fails, stderr)
	}
	if strings.Contains(stdout, "PRIVATE") {
		t.Error("a private key is printed")
	}
	report := &certsReport{}
	if err := json.Unmarshal([]byte(stdout), report); err != nil {
		t.Fatal(err, stdout)
	}
	if report.Healthy != (len(report.Problems) == 0) {
		t.Errorf("healthy: %v, with problems %q", report.Healthy, report.Problems)
	}
	return report
}

// make makes everything anew, as it would have been made at a time.
func (c *certified) make(t *testing.T, at time.Time) {
	t.Helper()
	for _, name := range []string{"pillion-ca", "pillion-webhook-tls"} {
		c.remove(t, name)
	}
	result, err := certs.Ensure(t.Context(), c.Client, c.options, at)
	if err != nil {
		t.Fatal(err)
	}
	config := admissionregistrationv1.WebhookClientConfig{
		Service:  &admissionregistrationv1.ServiceReference{Namespace: "pillion-system", Name: "pillion-webhook"},
		CABundle: result.CABundle,
	}
	none := new(admissionregistrationv1.SideEffectClassNone)
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	c.get(t, mutating)
	mutating.Webhooks = []admissionregistrationv1.MutatingWebhook{{
		Name: "pods.pillion.dev", ClientConfig: config, SideEffects: none, AdmissionReviewVersions: []string{"v1"},
	}}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	c.get(t, validating)
	validating.Webhooks = []admissionregistrationv1.ValidatingWebhook{{
		Name: "profiles.pillion.dev", ClientConfig: config, SideEffects: none, AdmissionReviewVersions: []string{"v1"},
	}}
	for _, configuration := range []client.Object{mutating, validating} {
		if err := c.Client.Update(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *certified) get(t *testing.T, into client.Object) {
	t.Helper()
	if err := c.Client.Get(t.Context(), client.ObjectKey{Name: "pillion"}, into); err != nil {
		t.Fatal(err)
	}
}

func (c *certified) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "pillion-system", Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

func (c *certified) remove(t *testing.T, name string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: name}}
	if err := client.IgnoreNotFound(c.Client.Delete(t.Context(), secret)); err != nil {
		t.Fatal(err)
	}
}

func (c *certified) tamper(t *testing.T, with func(*admissionregistrationv1.WebhookClientConfig)) {
	t.Helper()
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	c.get(t, mutating)
	with(&mutating.Webhooks[0].ClientConfig)
	if err := c.Client.Update(t.Context(), mutating); err != nil {
		t.Fatal(err)
	}
}

// replicas reads what Pods answer that are not there: a proxy before the API server answers in place of its own.
func (c *certified) replicas(t *testing.T) {
	t.Helper()
	text, port := "", "8083"
	transport, err := rest.TransportFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(c.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(server)
	through.Transport = transport
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/namespaces/pillion-system/pods/pillion-webhook-a:"+port+"/proxy/metrics" {
			fmt.Fprint(w, text)
			return
		}
		through.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	kubeconfig := filepath.Join(t.TempDir(), "through")
	if err := apiserver.WriteKubeconfig(&rest.Config{Host: proxy.URL}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	for name, phase := range map[string]corev1.PodPhase{"pillion-webhook-a": corev1.PodRunning, "pillion-webhook-b": corev1.PodPending} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "pillion-system", Name: name,
				Labels: map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "webhook"},
			},
			Spec: corev1.PodSpec{
				ServiceAccountName: "pillion-webhook", NodeName: "node",
				SecurityContext: &corev1.PodSecurityContext{
					RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				},
				Containers: []corev1.Container{{
					Name: "webhook", Image: "pillion",
					SecurityContext: &corev1.SecurityContext{
						AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
					},
				}},
			},
		}
		if err := c.Client.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		pod.Status = corev1.PodStatus{Phase: phase}
		if err := c.Client.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PILLION_WEBHOOK_METRICS_ADDRESS", ":"+port)
	until := notAfterOf(t, c)
	for name, test := range map[string]struct {
		text     string
		want     shownReplica
		problems []string
	}{
		"in order": {
			text: fmt.Sprintf("# HELP x y\npillion_certificate_trusted 1\npillion_certificate_faulty 0\n"+
				"pillion_certificate_not_after_seconds %d\npillion_tls_handshake_errors_total{reason=\"eof\"} 3\n", until.Unix()),
			want: shownReplica{
				NotAfter: &until, Current: new(true), Trusted: new(true), Faulty: new(false), HandshakeErrors: map[string]int64{"eof": 3},
			},
		},
		"an old one that is not trusted": {
			text: fmt.Sprintf("pillion_certificate_trusted 0\npillion_certificate_faulty 1\n"+
				"pillion_certificate_not_after_seconds %d\n", until.Unix()-60),
			want: shownReplica{
				NotAfter: new(until.Add(-time.Minute)), Current: new(false), Trusted: new(false), Faulty: new(true),
			},
			problems: []string{"what Pod pillion-webhook-a presents does not verify by every caBundle that it sees"},
		},
		"an old one that serves on": {
			text: fmt.Sprintf("pillion_certificate_trusted 1\npillion_certificate_faulty 0\n"+
				"pillion_certificate_not_after_seconds %d\n", until.Unix()-60),
			want: shownReplica{
				NotAfter: new(until.Add(-time.Minute)), Current: new(false), Trusted: new(true), Faulty: new(false),
			},
			problems: []string{"Pod pillion-webhook-a presents another certificate than the one in the Secret, which expires at "},
		},
		"somebody else": {text: "up 1\n", want: shownReplica{Unknown: "its metrics do not tell: it is not a webhook of this release"}},
	} {
		t.Run(name, func(t *testing.T) {
			text = test.text
			report := statusOf(t, kubeconfig, len(test.problems) > 0)
			test.want.Pod = "pillion-webhook-a"
			want := []shownReplica{test.want, {Pod: "pillion-webhook-b", Unknown: "it is Pending"}}
			if diff := cmp.Diff(want, report.Replicas); diff != "" {
				t.Errorf("replicas (-want +got):\n%s", diff)
			}
			expectEach(t, "problems", report.Problems, test.problems)
		})
	}
}

func notAfterOf(t *testing.T, c *certified) time.Time {
	t.Helper()
	state := certs.Inspect(c.secret(t, "pillion-ca").Data, c.secret(t, "pillion-webhook-tls").Data, time.Minute)
	i := slices.IndexFunc(state.Certificates, func(one certs.Certificate) bool { return one.Role == certs.RoleServing })
	return state.Certificates[i].Certificate.NotAfter.UTC()
}

func TestCertsStatusWithoutAnyPermissionSaysSo(t *testing.T) {
	forbidding := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/api" || r.URL.Path == "/apis" || strings.Count(r.URL.Path, "/") < 4 && !strings.Contains(r.URL.Path, "webhookconfigurations") {
			answers := map[string]string{
				"/api":    `{"kind": "APIVersions", "versions": ["v1"]}`,
				"/apis":   `{"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": "admissionregistration.k8s.io", "versions": [{"groupVersion": "admissionregistration.k8s.io/v1", "version": "v1"}]}]}`,
				"/api/v1": `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [{"name": "secrets", "kind": "Secret", "namespaced": true, "verbs": ["get"]}, {"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["get"]}]}`,
				"/apis/admissionregistration.k8s.io/v1": `{"kind": "APIResourceList", "groupVersion": "admissionregistration.k8s.io/v1", "resources": [
					{"name": "mutatingwebhookconfigurations", "kind": "MutatingWebhookConfiguration", "verbs": ["get"]},
					{"name": "validatingwebhookconfigurations", "kind": "ValidatingWebhookConfiguration", "verbs": ["get"]}]}`,
			}
			fmt.Fprint(w, answers[r.URL.Path])
			return
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"}`)
	}))
	defer forbidding.Close()
	_, _, err := run(t, nil, "", "certs", "status", "--server", forbidding.URL)
	if !strings.Contains(message(err), "you may read nothing of what tells about certificates") {
		t.Error(err)
	}
}
