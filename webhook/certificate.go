package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
)

// clockCheck is how long a change of the wall clock may go unnoticed: a timer does not run while the machine is suspended, and does
// not know of a clock that was set.
const clockCheck = time.Second

// certificateRetry is how soon it is tried again to verify what made it panic. Each time is logged, with the stack.
const certificateRetry = time.Minute

// certificate is the serving certificate, and what is wrong with it.
type certificate struct {
	certs.Serving

	refused, untrusted atomic.Pointer[string] // nil: nothing
}

// status says in a line what is wrong with the certificate that is presented, or would be; empty: nothing.
func (c *certificate) status() string {
	switch refused, untrusted := c.refused.Load(), c.untrusted.Load(); {
	case refused != nil:
		return "the pair in the Secret is not taken: " + *refused
	case untrusted != nil:
		return "the certificate that is presented does not verify: " + *untrusted
	default:
		return ""
	}
}

// isGood tells whether something is presented that is in date.
func (c *certificate) isGood(now time.Time) bool {
	leaf := c.Leaf()
	return leaf != nil && !now.After(leaf.NotAfter)
}

// followCertificate keeps serving at the pair in the Secret until ctx ends. A pair that would not verify for the API server is
// not taken: the last good one stays.
func (c *informed) followCertificate(ctx context.Context, options RunOptions, serving *certificate) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due time.Time // by the wall clock; zero: at once
	for {
		if now := time.Now().Round(0); !now.Before(due) {
			choice := c.chooseCertificate(ctx, options, serving, now)
			serving.note(options.Logger, choice)
			if due = choice.Recheck; due.IsZero() {
				due = now.Add(24 * time.Hour)
			}
		}
		timer.Reset(max(0, min(clockCheck, time.Until(due))))
		select {
		case <-ctx.Done():
			return
		case <-c.certificateChanged:
			due = time.Time{}
		case <-timer.C:
		}
	}
}

// chooseCertificate takes the pair of the Secret if it verifies by what the webhook configurations tell the API server. What makes
// verifying panic would end every replica, and again when it starts: it is not taken, and no more.
func (c *informed) chooseCertificate(
	ctx context.Context, options RunOptions, serving *certificate, now time.Time,
) (choice certs.Choice) {
	defer c.guard("choose the certificate", func() {
		err := errors.New("verifying it panicked")
		choice = certs.Choice{Refused: err, Untrusted: err, Recheck: now.Add(certificateRetry)}
	})
	callers, err := c.callers(ctx, options.WebhookConfiguration)
	notStarted := (*cache.ErrCacheNotStarted)(nil)
	switch {
	case errors.As(err, &notStarted): // it is about to be
		return certs.Choice{Recheck: now.Add(clockCheck / 50)}
	case err != nil:
		return certs.Choice{Refused: err, Untrusted: errors.New("it is not known what it has to verify by"), Recheck: now.Add(clockCheck)}
	}
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: options.Namespace, Name: options.CertificateSecret}
	if err = c.cache.Get(ctx, name, secret); err != nil {
		secret = &corev1.Secret{} // nothing is offered; what is presented is looked at all the same
	}
	pair := certs.Pair{Certificate: secret.Data[certs.CertificateKey], Key: secret.Data[certs.PrivateKeyKey]}
	before := serving.Leaf()
	choice = serving.Choose(pair, secret.Data[certs.CABundleKey], callers, now)
	if leaf := serving.Leaf(); leaf != before {
		options.Logger.Info("presenting another certificate", "serial", leaf.SerialNumber.Text(16), "notAfter", leaf.NotAfter)
	}
	switch {
	case err != nil:
		choice.Refused = fmt.Errorf("get the Secret of the certificate: %w", err)
	case choice.Refused != nil:
		choice.Refused = fmt.Errorf("the pair in Secret %s cannot serve: %w", name, choice.Refused)
	}
	return choice
}

// callers returns what the entries of both webhook configurations tell the API server to verify the certificate by.
func (c *informed) callers(ctx context.Context, configuration string) ([]certs.Caller, error) {
	key := client.ObjectKey{Name: configuration}
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := c.cache.Get(ctx, key, mutating); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get the MutatingWebhookConfiguration: %w", err)
	} else if apierrors.IsNotFound(err) {
		mutating = &admissionregistrationv1.MutatingWebhookConfiguration{}
	}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := c.cache.Get(ctx, key, validating); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get the ValidatingWebhookConfiguration: %w", err)
	} else if apierrors.IsNotFound(err) {
		validating = &admissionregistrationv1.ValidatingWebhookConfiguration{}
	}
	var callers []certs.Caller
	for i := range mutating.Webhooks {
		callers = appendCaller(callers, mutating.Webhooks[i].Name, &mutating.Webhooks[i].ClientConfig)
	}
	for i := range validating.Webhooks {
		callers = appendCaller(callers, validating.Webhooks[i].Name, &validating.Webhooks[i].ClientConfig)
	}
	return callers, nil
}

// appendCaller leaves out an entry that does not say where it calls: no certificate would do for it.
func appendCaller(
	callers []certs.Caller, entry string, clientConfig *admissionregistrationv1.WebhookClientConfig,
) []certs.Caller {
	var namespace, service, url string
	if clientConfig.Service != nil {
		namespace, service = clientConfig.Service.Namespace, clientConfig.Service.Name
	}
	if clientConfig.URL != nil {
		url = *clientConfig.URL
	}
	names, err := certs.Names(namespace, service, url)
	if err != nil {
		return callers
	}
	return append(callers, certs.Caller{Entry: entry, CABundle: clientConfig.CABundle, Names: names})
}

// note remembers what is wrong with the certificate, and logs it when it appears or changes, and its end.
func (c *certificate) note(logger *slog.Logger, choice certs.Choice) {
	noteChange(&c.refused, choice.Refused, func(problem string) {
		if problem == "" {
			logger.Info("the certificate verifies")
			return
		}
		logger.Warn("the certificate does not verify; the last good one, if there was one, keeps serving", "error", problem)
	})
	noteChange(&c.untrusted, choice.Untrusted, func(problem string) {
		if problem == "" {
			logger.Info("what is presented verifies by every caBundle")
			return
		}
		logger.Warn("what is presented does not verify by every caBundle", "error", problem)
	})
}

// noteChange stores a problem, nil for none, and tells of it if it is another than before, in one line.
func noteChange(stored *atomic.Pointer[string], problem error, tell func(problem string)) {
	var current *string
	text := ""
	if problem != nil {
		text = inHeader(problem.Error())
		current = &text
	}
	before := stored.Swap(current)
	if before == nil && current != nil || before != nil && (current == nil || *before != text) {
		tell(text)
	}
}
