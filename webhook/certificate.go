package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
)

// recheckEvery is how often the certificate is checked although nothing has changed: it may have become valid, or expired.
const recheckEvery = 30 * time.Second

// followCertificate keeps serving at the pair in the Secret until ctx ends. A pair that would not verify for the API server is
// not taken: the last good one stays.
func (c *informed) followCertificate(ctx context.Context, options RunOptions, serving *certs.Serving) {
	ticker := time.NewTicker(recheckEvery)
	defer ticker.Stop()
	previous := "not checked yet"
	for {
		err := c.updateCertificate(ctx, options, serving)
		options.Handler.Metrics.certificateChecked(err)
		previous = logChange(options.Logger, previous, err)
		select {
		case <-ctx.Done():
			return
		case <-c.certificateChanged:
		case <-ticker.C:
		}
	}
}

// updateCertificate takes the pair of the Secret if it verifies by what the webhook configuration tells the API server: the
// caBundles and names of its entries, or the Secret's own CA as long as there are none.
func (c *informed) updateCertificate(ctx context.Context, options RunOptions, serving *certs.Serving) error {
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: options.Namespace, Name: options.CertificateSecret}
	if err := c.cache.Get(ctx, name, secret); err != nil {
		return fmt.Errorf("get the Secret of the certificate: %w", err)
	}
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := c.cache.Get(ctx, client.ObjectKey{Name: options.WebhookConfiguration}, configuration); err != nil {
		return fmt.Errorf("get the MutatingWebhookConfiguration: %w", err)
	}
	bundle, names, err := expected(configuration)
	if err != nil {
		return err
	}
	if len(bundle) == 0 {
		bundle = secret.Data[certs.CABundleKey]
	}
	certificate, key := secret.Data[certs.CertificateKey], secret.Data[certs.PrivateKeyKey]
	if err := serving.Update(certificate, key, bundle, names, time.Now()); err != nil {
		return fmt.Errorf("the pair in Secret %s/%s cannot serve: %w", options.Namespace, options.CertificateSecret, err)
	}
	return nil
}

// expected returns what the API server will verify the certificate by.
func expected(configuration *admissionregistrationv1.MutatingWebhookConfiguration) (bundle []byte, names []string, err error) {
	var errs []error
	for i := range configuration.Webhooks {
		clientConfig := &configuration.Webhooks[i].ClientConfig
		bundle = clientConfig.CABundle // the controller gives every entry the same
		var namespace, service, url string
		if clientConfig.Service != nil {
			namespace, service = clientConfig.Service.Namespace, clientConfig.Service.Name
		}
		if clientConfig.URL != nil {
			url = *clientConfig.URL
		}
		wanted, err := certs.Names(namespace, service, url)
		errs = append(errs, err)
		names = append(names, wanted...)
	}
	slices.Sort(names)
	return bundle, slices.Compact(names), errors.Join(errs...)
}

// logChange logs a fault when it appears or changes, and its end; it returns what was logged.
func logChange(logger *slog.Logger, previous string, err error) string {
	current := ""
	if err != nil {
		current = err.Error()
	}
	switch current {
	case previous:
	case "":
		logger.Info("the certificate verifies")
	default:
		logger.Warn("the certificate does not verify; the last good one, if there was one, keeps serving", "error", current)
	}
	return current
}
