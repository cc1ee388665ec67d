package coldstart

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/installation"
)

// What an administrator excludes: what a node cannot do without, beside the defaults.
var excluded = []string{
	"kube-system", "kube-public", "kube-node-lease", "cert-manager", // the defaults
	"kube-flannel", "longhorn-system", "node-local-dns", // CNI, CSI, DNS
}

// TestAColdClusterComesUpByItself has everything enforced everywhere, and loses every Pod of Pillion. Whatever was lost besides, and in
// whichever order processes come back: what has to start first starts, nothing slips through, and nobody lends a hand.
func TestAColdClusterComesUpByItself(t *testing.T) {
	c := startCluster(t, installation.PartsOptions{Options: installation.Options{
		Env: append(slices.Clone(quick), "PILLION_EXCLUDED_NAMESPACES="+strings.Join(excluded, ",")),
	}})
	controller, webhook := c.Controllers[0], c.Webhook
	for _, name := range excluded {
		c.namespace(t, name, nil)
	}
	// Whoever may label these asks for nothing by it.
	c.namespace(t, installation.Namespace, map[string]string{v1alpha1.InjectKey: "everywhere"})
	c.namespace(t, "kube-flannel", map[string]string{v1alpha1.InjectKey: "everywhere"})
	c.namespace(t, "shop", nil)
	c.namespace(t, "asking", map[string]string{v1alpha1.InjectKey: "everywhere"})
	c.start(t, controller, webhook)
	c.awaitReady(t, controller, webhook)
	c.create(t, enforced("everywhere"))
	c.awaitCondition(t, types.NamespacedName{Name: "everywhere"}, v1alpha1.ConditionReady, metav1.ConditionTrue, "Ready")
	c.awaitWoven(t, "shop", "everywhere")

	shortLives := []string{"PILLION_CERTS_LEAF_LIFETIME=5s", "PILLION_CERTS_SETTLE=500ms"}
	for _, part := range []struct {
		name string
		// before runs before everything ends, damage while nothing runs.
		before, damage func(*testing.T)
		// admits says that the API server does not know any more whom to ask.
		admits bool
		order  []*installation.Process
	}{
		{name: "the webhook starts first", order: []*installation.Process{webhook, controller}},
		{name: "the controller starts first", order: []*installation.Process{controller, webhook}},
		{
			name:   "the serving certificate has expired",
			before: func(t *testing.T) { c.reissue(t, shortLives, "pillion-webhook-tls") },
			damage: func(t *testing.T) { c.awaitExpiry(t, "pillion-webhook-tls") },
			order:  []*installation.Process{webhook, controller},
		},
		{
			name: "the CA and what it signed have expired",
			before: func(t *testing.T) {
				c.reissue(t, append(shortLives, "PILLION_CERTS_CA_LIFETIME=12s"), "pillion-ca", "pillion-webhook-tls")
			},
			damage: func(t *testing.T) { c.awaitExpiry(t, "pillion-ca", "pillion-webhook-tls") },
			order:  []*installation.Process{webhook, controller},
		},
		{
			name: "the caBundles are lost", order: []*installation.Process{webhook, controller},
			damage: func(t *testing.T) {
				c.tamper(t, func(config *admissionregistrationv1.WebhookClientConfig) { config.CABundle = nil })
			},
		},
		{
			name: "the Secrets are lost", order: []*installation.Process{webhook, controller},
			damage: func(t *testing.T) { c.lose(t, "pillion-ca", "pillion-webhook-tls") },
		},
		{
			name: "the serving Secret is lost", order: []*installation.Process{controller, webhook},
			damage: func(t *testing.T) { c.lose(t, "pillion-webhook-tls") },
		},
		{
			name: "the entries are lost", admits: true, order: []*installation.Process{webhook, controller},
			damage: func(t *testing.T) { c.empty(t) },
		},
		{
			name: "the Lease is held by one that is gone", order: []*installation.Process{controller, webhook},
			damage: func(t *testing.T) {}, // it always is: a controller that is killed releases nothing
		},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			if part.before != nil {
				part.before(t)
			}
			c.kill(t, controller, webhook)
			if part.damage != nil {
				part.damage(t)
			}
			if !part.admits {
				c.cold(t)
			}
			start := time.Now()
			c.start(t, part.order...)
			attempts, took := c.awaitWoven(t, "shop", "everywhere")
			t.Logf("started %s: a Pod was woven at attempt %d, after %s", names(part.order), attempts, took.Round(time.Millisecond))
			c.awaitReady(t, part.order...)
			if _, took := c.awaitWoven(t, "asking", "everywhere"); took > 5*time.Second {
				t.Errorf("a Pod waited for %s once all were ready", took)
			}
			t.Logf("everything was ready after %s", time.Since(start).Round(time.Millisecond))
		})
		if !ok {
			return
		}
	}
	t.Run("what is excluded is let be, also if it is sent", c.sentAllTheSame)
	t.Run("what is excluded follows the configuration at a restart", c.otherExclusions)
}

func names(processes []*installation.Process) string {
	texts := make([]string, len(processes))
	for i, process := range processes {
		texts[i] = process.Name()
	}
	return strings.Join(texts, ", then ")
}

// attempt is a Pod that somebody creates while nothing of Pillion runs.
type attempt struct {
	namespace   string
	annotations map[string]string
	refused     bool
}

// cold creates Pods everywhere while nothing of Pillion runs.
func (c *cluster) cold(t *testing.T) {
	t.Helper()
	asks := map[string]string{v1alpha1.InjectKey: "everywhere"}
	attempts := []attempt{
		{namespace: "shop", refused: true},
		{namespace: "shop", annotations: asks, refused: true},
		{namespace: "shop", annotations: map[string]string{v1alpha1.InjectKey: v1alpha1.None}, refused: true}, // it is enforced
		{namespace: "asking", refused: true},
		{namespace: "default", refused: true},
		{namespace: installation.Namespace},
		{namespace: installation.Namespace, annotations: asks},
	}
	for _, name := range excluded {
		attempts = append(attempts, attempt{namespace: name}, attempt{namespace: name, annotations: asks})
	}
	created, refused := 0, 0
	for _, a := range attempts {
		pod := app(a.namespace, a.annotations)
		err := c.Create(t.Context(), pod)
		switch {
		case err == nil && a.refused:
			t.Errorf("a Pod of namespace %s is admitted: %+v", a.namespace, pod.Spec.InitContainers)
		case err != nil && !a.refused:
			t.Errorf("a Pod of namespace %s is refused: %v", a.namespace, err)
		case err != nil && (!strings.Contains(err.Error(), "failed calling webhook") || !strings.Contains(err.Error(), "."+v1alpha1.Group)):
			t.Errorf("a Pod of namespace %s is refused without saying by whom: %v", a.namespace, err)
		case err == nil && (len(pod.Spec.InitContainers) > 0 || pod.Labels[v1alpha1.InjectedKey] != ""):
			t.Errorf("a Pod of namespace %s was changed", a.namespace)
		}
		if err == nil {
			created++
		} else {
			refused++
		}
	}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", GenerateName: "web-"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}, Annotations: asks}, Spec: app("shop", nil).Spec,
			},
		},
	}
	if err := c.Create(t.Context(), deployment); err != nil {
		t.Errorf("a workload is refused: %v", err)
	}
	t.Logf("with nothing of Pillion running: %d attempts, %d Pods created, %d refused", len(attempts), created, refused)
}

// reissue has the controller run with other settings and make Secrets anew.
func (c *cluster) reissue(t *testing.T, env []string, secrets ...string) {
	t.Helper()
	controller := c.Controllers[0]
	before := controller.Set(env...)
	defer before()
	c.kill(t, controller)
	c.lose(t, secrets...)
	c.start(t, controller)
	for _, name := range secrets {
		c.await(t, func(ctx context.Context) (bool, error) {
			end, err := c.expiry(ctx, name)
			return err == nil && time.Until(end) < time.Minute, fmt.Errorf("%s expires at %s: %w", name, end, err)
		})
	}
	c.awaitWoven(t, "shop", "everywhere")
}

// awaitExpiry waits until certificates have expired. Their holders come back weeks later: no clock tells the difference.
func (c *cluster) awaitExpiry(t *testing.T, secrets ...string) {
	t.Helper()
	for _, name := range secrets {
		c.await(t, func(ctx context.Context) (bool, error) {
			end, err := c.expiry(ctx, name)
			return err == nil && time.Now().After(end), fmt.Errorf("%s expires at %s, %w", name, end, err)
		})
	}
}

// expiry returns when the certificate in a Secret expires.
func (c *cluster) expiry(ctx context.Context, name string) (time.Time, error) {
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: installation.Namespace, Name: name}, secret); err != nil {
		return time.Time{}, err
	}
	block, _ := pem.Decode(secret.Data[corev1.TLSCertKey])
	if block == nil {
		return time.Time{}, fmt.Errorf("Secret %s holds no certificate", name)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, err
	}
	return certificate.NotAfter, nil
}

func (c *cluster) lose(t *testing.T, secrets ...string) {
	t.Helper()
	for _, name := range secrets {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: installation.Namespace, Name: name}}
		if err := c.Delete(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cluster) configurations() (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration) {
	named := metav1.ObjectMeta{Name: installation.Configuration}
	return &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: named},
		&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: named}
}

// tamper edits how every entry is called.
func (c *cluster) tamper(t *testing.T, edit func(*admissionregistrationv1.WebhookClientConfig)) {
	t.Helper()
	mutating, validating := c.configurations()
	c.change(t, mutating, func() {
		for i := range mutating.Webhooks {
			edit(&mutating.Webhooks[i].ClientConfig)
		}
	})
	c.change(t, validating, func() {
		for i := range validating.Webhooks {
			edit(&validating.Webhooks[i].ClientConfig)
		}
	})
}

// empty takes all entries out of both configurations.
func (c *cluster) empty(t *testing.T) {
	t.Helper()
	mutating, validating := c.configurations()
	c.change(t, mutating, func() { mutating.Webhooks = nil })
	c.change(t, validating, func() { validating.Webhooks = nil })
}

// sentAllTheSame has every entry select every namespace, while nobody repairs them.
func (c *cluster) sentAllTheSame(t *testing.T) {
	c.untouched(t)
	if err := c.Controllers[0].Stop(); err != nil {
		t.Fatal(err)
	}
	mutating, validating := c.configurations()
	c.change(t, mutating, func() {
		for i := range mutating.Webhooks {
			mutating.Webhooks[i].NamespaceSelector = nil
		}
	})
	c.change(t, validating, func() {
		for i := range validating.Webhooks {
			validating.Webhooks[i].NamespaceSelector = nil
		}
	})
	sent := func() (n float64) {
		for _, endpoint := range []string{"mutate", "verify"} {
			of, _ := c.Webhook.Metric(t.Context(), `pillion_admission_duration_seconds_count{endpoint="`+endpoint+`",result="untouched"}`)
			n += of
		}
		return n
	}
	before := sent()
	c.await(t, func(context.Context) (bool, error) { // until the API server knows
		c.untouched(t)
		return sent() >= before+20, fmt.Errorf("%v reviews were sent", sent()-before)
	})
	c.start(t, c.Controllers[0])
	c.await(t, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(mutating), mutating)
		selector := mutating.Webhooks[0].NamespaceSelector
		return selector != nil && len(selector.MatchExpressions) > 0, err
	})
}

// untouched creates Pods in all excluded namespaces, by dry run. None is woven or refused.
func (c *cluster) untouched(t *testing.T) {
	t.Helper()
	for _, name := range append(slices.Clone(excluded), installation.Namespace) {
		for _, asks := range []string{"everywhere", "no-such-profile", v1alpha1.None} {
			pod := app(name, map[string]string{v1alpha1.InjectKey: asks})
			if err := c.Create(t.Context(), pod, client.DryRunAll); err != nil || len(pod.Spec.InitContainers) > 0 {
				t.Fatalf("a Pod of namespace %s that asks for %s: %d init containers, %v", name, asks, len(pod.Spec.InitContainers), err)
			}
		}
	}
}

// otherExclusions restarts both processes with another list.
func (c *cluster) otherExclusions(t *testing.T) {
	controller, webhook := c.Controllers[0], c.Webhook
	other := append(slices.DeleteFunc(slices.Clone(excluded), func(name string) bool { return name == "longhorn-system" }), "shop")
	for _, process := range []*installation.Process{webhook, controller} {
		if err := process.Stop(); err != nil {
			t.Fatal(err)
		}
		process.Set("PILLION_EXCLUDED_NAMESPACES=" + strings.Join(other, ","))
	}
	c.start(t, webhook, controller)
	c.awaitReady(t, webhook, controller)
	attempts, took := c.awaitWoven(t, "longhorn-system", "everywhere")
	t.Logf("a Pod of a namespace that is excluded no more was woven at attempt %d, after %s", attempts, took.Round(time.Millisecond))
	pod := app("shop", map[string]string{v1alpha1.InjectKey: "everywhere"})
	if err := c.Create(t.Context(), pod, client.DryRunAll); err != nil || isWoven(pod, "everywhere") {
		t.Errorf("a Pod of a namespace that is excluded now: woven %v, %v", isWoven(pod, "everywhere"), err)
	}
	c.kill(t, controller, webhook)
	if err := c.Create(t.Context(), app("shop", nil)); err != nil {
		t.Errorf("a Pod of a namespace that is excluded now, with nothing of Pillion running: %v", err)
	}
	if err := c.Create(t.Context(), app("longhorn-system", nil)); err == nil {
		t.Error("a Pod of a namespace that is excluded no more was created with nothing of Pillion running")
	}
}
