package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestWhyAPodOfTheSelfCheckWasNotCreated has the API server's words beyond those that the test with a real one hears.
func TestWhyAPodOfTheSelfCheckWasNotCreated(t *testing.T) {
	call := func(webhook, why string) error {
		return apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: failed to call webhook: %s", webhook, why))
	}
	post := `Post "https://pillion-webhook.pillion-system.svc:443/inject/pods?timeout=5s": `
	pods := corev1.Resource("pods")
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"a Service without endpoints": {
			call("pods.pillion.dev", post+`no endpoints available for service "pillion-webhook"`), ReasonWebhookUnreachable,
		},
		"no Service": {call("pods.pillion.dev", post+`service "pillion-webhook" not found`), ReasonWebhookUnreachable},
		"a connection that is cut": {
			call("pods.pillion.dev", post+"read tcp 10.0.0.1:34567->10.0.0.2:9443: read: connection reset by peer"), ReasonWebhookUnreachable,
		},
		"an address that nobody answers at": {call("pods.pillion.dev", post+"dial tcp 10.0.0.2:9443: i/o timeout"), ReasonWebhookTimeout},
		"a handshake that nobody answers":   {call("pods.pillion.dev", post+"net/http: TLS handshake timeout"), ReasonWebhookTimeout},
		"a connection that nobody answers on": {
			call("pods.pillion.dev", post+"read tcp 10.0.0.1:34567->10.0.0.2:9443: read: connection timed out"), ReasonWebhookTimeout,
		},
		"a connection that is given up": {call("pods.pillion.dev", post+"http2: client connection lost"), ReasonWebhookUnreachable},
		"a replica that ends": {
			call("pods.pillion.dev", post+"http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=\"\""),
			ReasonWebhookUnreachable,
		},
		"a fault": {call("pods.pillion.dev", "an error on the server (\"\") has prevented the request from succeeding"), ReasonWebhookFailed},
		"a certificate that has expired": {
			call("pods.pillion.dev", post+"tls: failed to verify certificate: x509: certificate has expired or is not yet valid"),
			ReasonWebhookNotTrusted,
		},
		"a handshake that ends": {call("pods.pillion.dev", post+"remote error: tls: internal error"), ReasonWebhookNotTrusted},
		"an answer that is none": {
			call("pods.pillion.dev", "received invalid webhook response: expected response.uid=\"a\", got \"\""), ReasonWebhookFailed,
		},
		"the fault of an entry of another's": {call("pods.example.com", post+"connection refused"), ReasonRefused},
		"one whose name only ends as Pillion's": {
			call("pods.notpillion.dev", post+"connection refused"), ReasonRefused,
		},
		"a quota": {
			apierrors.NewForbidden(pods, "", errors.New("exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0")), ReasonRefused,
		},
		"a webhook that takes no dry runs": {
			apierrors.NewBadRequest(`admission webhook "a.example.com" does not support dry run`), ReasonRefused,
		},
		"no permission": {
			apierrors.NewForbidden(pods, "", errors.New(`User "a" cannot create resource "pods" in API group "" in the namespace "b"`)),
			ReasonNotPermitted,
		},
		"an API server that is busy":         {apierrors.NewTooManyRequests("later", 1), ReasonAPIServerFailed},
		"an API server that does not answer": {context.DeadlineExceeded, ReasonAPIServerFailed},
		"an API server without etcd":         {apierrors.NewInternalError(errors.New("etcdserver: request timed out")), ReasonAPIServerFailed},
	} {
		got := ofCreation(test.err, "a Pod")
		if got.ok || got.reason != test.want || !strings.Contains(got.message, "says: ") {
			t.Errorf("%s: %s, want %s: %s", name, got.reason, test.want, got.message)
		}
	}
}

func TestWhatTheAPIServerSaysIsToldInOneLineAndNotAtAnyLength(t *testing.T) {
	got := ofCreation(errors.New("a\x1b[31m\n"+strings.Repeat("long ", 1000)), "a Pod")
	if len(got.message) > 1000 || strings.ContainsAny(got.message, "\n\x1b") {
		t.Errorf("%d bytes: %q", len(got.message), got.message)
	}
}
