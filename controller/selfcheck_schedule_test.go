package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// quiet waits until what came before has been checked, and returns how often the webhook was called.
func (c *checked) quiet(t *testing.T) (calls int) {
	t.Helper()
	since := time.Now()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		if now := c.webhook.called(); now != calls {
			calls, since = now, time.Now()
		}
		return time.Since(since) > 2*betweenSelfChecks, errors.New("there is always a check")
	})
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

// checksChanges is for a controller that would not check again of itself.
func (c *checked) checksChanges(t *testing.T) {
	c.await(t, metav1.ConditionTrue, ReasonWoven) // it was Unknown before the controller came to lead
	for name, change := range map[string]func(){
		"the serving certificate": func() {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: "pillion-webhook-tls"}}
			if err := c.Delete(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
		},
		"the profile": func() {
			profile := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: SelfCheckNamespace, Name: SelfCheckProfile}}
			c.change(t, profile, func() { profile.Spec.Overridable = nil })
		},
		"the namespace": func() {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SelfCheckNamespace}}
			c.change(t, namespace, func() { namespace.Labels["touched"] = "yes" })
		},
	} {
		calls := c.quiet(t)
		change()
		err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
			return c.webhook.called() > calls, errors.New("there was no check")
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.withoutConfiguration(t)
	c.await(t, metav1.ConditionTrue, ReasonWoven)

	calls, start := c.quiet(t), time.Now()
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "pillion"}}
	for i := range 100 {
		c.change(t, configuration, func() { metav1.SetMetaDataAnnotation(&configuration.ObjectMeta, "changed", fmt.Sprint(i)) })
	}
	if n, took := c.webhook.called()-calls, time.Since(start); float64(n) > 2+took.Seconds() {
		t.Errorf("100 changes in %s were checked %d times", took, n)
	}
}
