package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/discovery"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/reconnect"
)

// addCertificates keeps the certificate: from the start, when one of the Secrets or of the webhook configurations changes, and by time.
func addCertificates(mgr manager.Manager, options Options, names []string, desired *desired) error {
	issuer, err := addCertManager(mgr, options, names)
	if err != nil {
		return err
	}
	alarm, metrics, teller, err := certificateTellers(mgr, options)
	if err != nil {
		return err
	}
	controller := builder.ControllerManagedBy(mgr).Named("certificates").WithOptions(retrySoon()).
		WatchesRawSource(once()).WatchesRawSource(alarm.source()).
		Watches(mutatingKind().empty(), toOne()).
		Watches(validatingKind().empty(), toOne()).
		WatchesRawSource(source.Channel(issuer.changed, toOne()))
	for _, name := range []string{options.CASecret, options.CertificateSecret, CertManagerSecret} {
		secrets, err := secretCache(mgr, options.Namespace, name)
		if err != nil {
			return err
		}
		controller.WatchesRawSource(source.Kind[client.Object](secrets, &corev1.Secret{}, toOne()))
	}
	return controller.Complete(&certificateReconciler{
		client: mgr.GetClient(),
		options: certs.Options{
			Namespace:         options.Namespace,
			CASecret:          options.CASecret,
			CertificateSecret: options.CertificateSecret,
			Names:             names,
			CALifetime:        options.CALifetime,
			LeafLifetime:      options.CertificateLifetime,
			Settle:            options.CertificateSettle,
			Holds: func(ctx context.Context, bundle []byte) (bool, error) {
				issued, _ := issuer.issues()
				return allHold(ctx, mgr.GetAPIReader(), options.WebhookConfiguration, bundle, holdsFor(issued, options.Now()))
			},
			Trusted: func(ctx context.Context) ([]byte, error) {
				held, err := caBundles(ctx, mgr.GetAPIReader(), options.WebhookConfiguration)
				return bytes.Join(held, []byte("\n")), err
			},
		},
		bundle:      desired.bundle,
		certManager: issuer,
		alarm:       alarm,
		metrics:     metrics,
		teller:      teller,
		now:         options.Now,
	})
}

// certificateTellers returns what says when certificates are due, and what tells of them where the controller leads.
func certificateTellers(mgr manager.Manager, options Options) (*alarm, *certificateMetrics, *certificateTeller, error) {
	told, err := registerCertificates(metrics.Registry)
	if err != nil {
		return nil, nil, nil, err
	}
	events, err := eventsclient.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("prepare to write Events: %w", err)
	}
	teller := newCertificateTeller(newAnnouncer(events, options.Now, mgr.GetLogger().WithName("certificates")),
		options.Namespace, options.CertificateSecret, options.Now)
	forget := manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		told.forget()
		return nil
	})
	return newAlarm(options.Now), told, teller, errors.Join(mgr.Add(teller), mgr.Add(forget))
}

// addCertManager has cert-manager issue the serving certificate where that is wanted: from the start, when what it issues changes, and by
// time.
func addCertManager(mgr manager.Manager, options Options, names []string) (*certManager, error) {
	api, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("prepare to look for cert-manager: %w", err)
	}
	issuer := newCertManager(options, names, mgr.GetAPIReader(), mgr.GetClient(), func() (bool, error) { return servesCertManager(api) })
	issuer.filled = func(ctx context.Context) (bool, error) {
		return allFilled(ctx, mgr.GetAPIReader(), options.WebhookConfiguration)
	}
	controller := builder.ControllerManagedBy(mgr).Named("cert-manager").WatchesRawSource(once())
	for _, name := range []string{CertManagerSecret, certManagerCASecret} {
		secrets, err := secretCache(mgr, options.Namespace, name)
		if err != nil {
			return nil, err
		}
		controller.WatchesRawSource(source.Kind[client.Object](secrets, &corev1.Secret{}, toOne()))
	}
	return issuer, controller.Complete(issuer)
}

// secretCache returns a cache of one Secret. Each has its own, for a field selector selects one name, and permission to list and
// watch is by name.
func secretCache(mgr manager.Manager, namespace, name string) (cache.Cache, error) {
	secrets, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient:  mgr.GetHTTPClient(),
		Scheme:      mgr.GetScheme(),
		Mapper:      mgr.GetRESTMapper(),
		NewInformer: reconnect.NewInformer,
		ByObject: map[client.Object]cache.ByObject{&corev1.Secret{}: {
			Namespaces: map[string]cache.Config{
				namespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", name)},
			},
			Transform: cache.TransformStripManagedFields(),
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare to watch Secret %s/%s: %w", namespace, name, err)
	}
	if err := mgr.Add(secrets); err != nil {
		return nil, fmt.Errorf("prepare to watch Secret %s/%s: %w", namespace, name, err)
	}
	return secrets, nil
}
