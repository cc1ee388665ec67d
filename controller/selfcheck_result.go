package controller

import (
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// The reasons of the condition SelfCheck, beside ReasonNamespaceExcluded.
const (
	// ReasonWoven: the Pod came back as the profiles say.
	ReasonWoven = "Woven"
	// ReasonNotWoven: the Pod came back as it was sent.
	ReasonNotWoven = "NotWoven"
	// ReasonWovenOtherwise: the Pod came back with something else than the profile adds.
	ReasonWovenOtherwise = "WovenOtherwise"
	// ReasonStaleProfile: the Pod came back with another revision of the profile than the current one.
	ReasonStaleProfile = "StaleProfile"
	// ReasonRefused: the Pod was refused, by Pillion or by somebody else.
	ReasonRefused = "Refused"
	// ReasonWebhookNotTrusted: the API server does not trust the certificate that the webhook presents.
	ReasonWebhookNotTrusted = "WebhookNotTrusted"
	// ReasonWebhookTimeout: the webhook did not answer in time.
	ReasonWebhookTimeout = "WebhookTimeout"
	// ReasonWebhookUnreachable: the API server cannot connect to the webhook.
	ReasonWebhookUnreachable = "WebhookUnreachable"
	// ReasonWebhookFailed: the webhook answered with a fault, or with what the API server cannot use.
	ReasonWebhookFailed = "WebhookFailed"
	// ReasonAPIServerFailed: the API server did not answer, or not about the Pod.
	ReasonAPIServerFailed = "APIServerFailed"
	// ReasonNotPermitted: the controller may not do what the self-check needs.
	ReasonNotPermitted = "NotPermitted"
	// ReasonNamespaceNotFound: the namespace of the self-check does not exist. There is no condition then, only metric and Event.
	ReasonNamespaceNotFound = "NamespaceNotFound"
	// ReasonSelfCheckOff: nothing is checked.
	ReasonSelfCheckOff = "SelfCheckOff"

	// ReasonSelfCheckPassed and ReasonSelfCheckFailed are the reasons of Events; the note has that of the condition.
	ReasonSelfCheckPassed = "SelfCheckPassed"
	ReasonSelfCheckFailed = "SelfCheckFailed"
)

// selfCheckFailures are the reasons of self-checks that fail, which bounds a metric's label.
func selfCheckFailures() []string {
	return []string{
		ReasonNotWoven, ReasonWovenOtherwise, ReasonStaleProfile, ReasonRefused, ReasonWebhookNotTrusted, ReasonWebhookTimeout,
		ReasonWebhookUnreachable, ReasonWebhookFailed, ReasonAPIServerFailed, ReasonNotPermitted, ReasonNamespaceNotFound,
		ReasonNamespaceExcluded,
	}
}

// checkResult is what came of a self-check.
type checkResult struct {
	verdict

	// asked says that the API server was asked for the Pod, and took is how long that took.
	asked bool
	took  time.Duration
}

// maxQuoted bounds how much of the API server's words is repeated, in bytes.
const maxQuoted = 600

// ofCreation says what it means that the API server did not create something. It tells of calls of webhooks, and of what others
// refuse, in words alone; those that are looked for have been the same in every version that Pillion supports, and where they should
// not be found the result is a wider reason.
func ofCreation(err error, what string) verdict {
	says := shorten(printable(err.Error()), maxQuoted)
	failed := func(reason, means string) verdict {
		return verdict{reason: reason, message: fmt.Sprintf("%s The API server, asked to create %s, says: %s", means, what, says)}
	}
	ours, byWebhook := calledWebhook(err)
	switch {
	case byWebhook && !ours:
		return failed(ReasonRefused, "Another webhook cannot be called, which is none of Pillion's: exempt namespace "+SelfCheckNamespace+
			" from it, or mend it.")
	case byWebhook:
		return ofCall(err, failed)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot create resource"):
		return failed(ReasonNotPermitted, "The controller may not do what the self-check needs: install Pillion's manifests again, which "+
			"have a Role and a RoleBinding for it in namespace "+SelfCheckNamespace+".")
	case isRefusal(err) && strings.Contains(err.Error(), "denied the request: Pillion refuses"):
		return failed(ReasonRefused, "Pillion refuses the Pod of the self-check: a profile that chooses Pods of namespace "+
			SelfCheckNamespace+" cannot be woven into it, or the namespace has annotations that the profile does not take.")
	case isRefusal(err):
		return failed(ReasonRefused, "Something other than Pillion refuses the Pod of the self-check: exempt namespace "+
			SelfCheckNamespace+" from it.")
	default:
		return failed(ReasonAPIServerFailed, "The API server did not answer about it; whether Pods are woven is not known.")
	}
}

// calledWebhook tells whether a webhook could not be called, and whether it is one of Pillion's.
func calledWebhook(err error) (ours, byWebhook bool) {
	_, name, byWebhook := strings.Cut(err.Error(), `failed calling webhook "`)
	if !byWebhook {
		return false, false
	}
	name, _, _ = strings.Cut(name, `"`)
	return strings.HasSuffix(name, "."+v1alpha1.Group), true
}

// isRefusal tells whether the API server decided against an object, which is not that it failed.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsConflict(err) ||
		strings.Contains(err.Error(), "denied the request")
}

// ofCall says why the API server could not call the webhook.
func ofCall(err error, failed func(reason, means string) verdict) verdict {
	says := err.Error()
	contains := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(says, part) {
				return true
			}
		}
		return false
	}
	switch {
	case contains("x509:", "tls:"):
		return failed(ReasonWebhookNotTrusted, "The API server does not trust the webhook's certificate: kubectl pillion certs status "+
			"tells which of them is wrong. The controller repairs caBundles and renews certificates by itself.")
	case contains("deadline exceeded", "i/o timeout", "Client.Timeout", "handshake timeout", "timeout awaiting", "timed out"):
		return failed(ReasonWebhookTimeout, "The webhook does not answer in time: look whether its Pods have enough CPU, and whether a "+
			"NetworkPolicy drops what the API server sends.")
	case contains("dial ", "connection refused", "connection reset", "connection lost", "closed the connection", "broken pipe",
		"no endpoints available", "no such host", "not found", "EOF"):
		return failed(ReasonWebhookUnreachable, "The API server cannot connect to the webhook: look whether its Pods run and are ready, and "+
			"whether the Service has them.")
	default:
		return failed(ReasonWebhookFailed, "The webhook answers with a fault: its log says why.")
	}
}
