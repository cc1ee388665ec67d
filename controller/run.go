// Package controller keeps what the cluster knows of Pillion: the status of profiles, the webhook configuration that is compiled
// from them, and the serving certificate.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/profiles"
)

// LeaseName is the Lease in Options.Namespace that the leader among controllers holds.
const LeaseName = "pillion-controller"

// Options are the settings of the controller.
type Options struct {
	// Namespace is Pillion's own: of its Secrets, its Lease and its Service. Pods in it are never touched.
	Namespace string
	// CASecret and CertificateSecret name the Secrets that certs.Options speaks of.
	CASecret, CertificateSecret string
	// WebhookConfiguration names the MutatingWebhookConfiguration that is filled. It is neither made nor deleted.
	WebhookConfiguration string

	// Service is where the API server reaches the webhook, unless WebhookURL is set. With both the certificate is for both.
	Service Service
	// WebhookURL is the webhook's base, https://HOST[:PORT][/PATH], for a webhook outside the cluster.
	WebhookURL string

	// ExcludedNamespaces are never touched; Namespace need not be among them.
	ExcludedNamespaces []string

	// LeaderElection lets several controllers run, of which one works.
	LeaderElection bool
	// HealthAddress is where /healthz and /readyz are served, MetricsAddress where /metrics is, over HTTP. Empty: nowhere.
	HealthAddress, MetricsAddress string

	// CALifetime and CertificateLifetime are the defaults of package certs where they are zero.
	CALifetime, CertificateLifetime time.Duration

	// Now is the wall clock; nil: time.Now.
	Now func() time.Time

	Logger logr.Logger
}

// Service names the webhook's Service in Options.Namespace.
type Service struct {
	Name string
	// Port is 443 where it is zero.
	Port int32
}

// Run keeps the cluster in order until the context ends, or leadership is lost, which is an error: whoever calls Run should end
// the process then.
func Run(ctx context.Context, restConfig *rest.Config, options Options) error {
	if err := options.complete(); err != nil {
		return err
	}
	names, err := certs.Names(options.Namespace, options.Service.Name, options.WebhookURL)
	if err != nil {
		return err
	}
	mgr, err := newManager(restConfig, options)
	if err != nil {
		return err
	}
	bundle := newBundle()
	desired := &desired{
		reader:   mgr.GetClient(),
		name:     options.WebhookConfiguration,
		target:   options.target(),
		excluded: options.ExcludedNamespaces,
		bundle:   bundle,
	}
	if err := errors.Join(
		addCertificates(mgr, options, names, bundle),
		addConfiguration(mgr, desired),
		addProfiles(mgr, desired, options.Now),
	); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// complete sets defaults and checks that nothing is missing.
func (o *Options) complete() error {
	var missing []error
	for name, value := range map[string]string{
		"Namespace": o.Namespace, "CASecret": o.CASecret, "CertificateSecret": o.CertificateSecret,
		"WebhookConfiguration": o.WebhookConfiguration,
	} {
		if value == "" {
			missing = append(missing, fmt.Errorf("the controller's option %s is empty", name))
		}
	}
	if o.CASecret == o.CertificateSecret && o.CASecret != "" {
		missing = append(missing, fmt.Errorf("the CA and the serving certificate want Secrets of their own, not both %s", o.CASecret))
	}
	slices.SortFunc(missing, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	o.ExcludedNamespaces = append(slices.Clone(o.ExcludedNamespaces), o.Namespace)
	slices.Sort(o.ExcludedNamespaces)
	o.ExcludedNamespaces = slices.Compact(o.ExcludedNamespaces)
	o.Service.Port = cmp.Or(o.Service.Port, 443)
	if o.Now == nil {
		o.Now = time.Now
	}
	return errors.Join(missing...)
}

func (o *Options) target() target {
	return target{
		url: o.WebhookURL,
		service: admissionregistrationv1.ServiceReference{
			Namespace: o.Namespace, Name: o.Service.Name, Port: &o.Service.Port,
		},
	}
}

// newManager returns a manager whose cache holds profiles and the one webhook configuration. It watches the latter by the field
// selector metadata.name, because permission to list and watch it is by name. Secrets are read from the API server.
func newManager(restConfig *rest.Config, options Options) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		v1alpha1.AddToScheme, admissionregistrationv1.AddToScheme, corev1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	byName := fields.OneTermEqualSelector("metadata.name", options.WebhookConfiguration)
	mgr, err := manager.New(restConfig, manager.Options{
		Scheme: scheme,
		Logger: options.Logger,
		Cache: cache.Options{
			ReaderFailOnMissingInformer: true,
			DefaultTransform:            cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&admissionregistrationv1.MutatingWebhookConfiguration{}: {Field: byName},
			},
		},
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		LeaderElection:                options.LeaderElection,
		LeaderElectionID:              LeaseName,
		LeaderElectionNamespace:       options.Namespace,
		LeaderElectionReleaseOnCancel: true,
		HealthProbeBindAddress:        cmp.Or(options.HealthAddress, "0"),
		Metrics:                       metricsserver.Options{BindAddress: cmp.Or(options.MetricsAddress, "0")},
		Controller:                    config.Controller{SkipNameValidation: new(true)}, // several may run in one process
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the controller: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return nil, fmt.Errorf("prepare the health endpoints: %w", err)
	}
	return mgr, nil
}

// addCertificates keeps the certificate: from the start, when one of the Secrets changes, and by time.
func addCertificates(mgr manager.Manager, options Options, names []string, bundle *bundle) error {
	controller := builder.ControllerManagedBy(mgr).Named("certificates").WatchesRawSource(once())
	for _, name := range []string{options.CASecret, options.CertificateSecret} {
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
		},
		bundle: bundle,
		now:    options.Now,
	})
}

// addConfiguration keeps the webhook configuration: when it, the spec of a profile or the CA bundle changes.
func addConfiguration(mgr manager.Manager, desired *desired) error {
	specs := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	return builder.ControllerManagedBy(mgr).Named("webhook-configuration").
		Watches(&admissionregistrationv1.MutatingWebhookConfiguration{}, toOne()).
		Watches(&v1alpha1.ClusterPatternProfile{}, toOne(), specs).
		Watches(&v1alpha1.PatternProfile{}, toOne(), specs).
		WatchesRawSource(source.Channel(desired.bundle.changed, toOne())).
		Complete(&configurationReconciler{client: mgr.GetClient(), desired: desired})
}

// addProfiles keeps the status of profiles: when they change, or the webhook configuration that match depends on.
func addProfiles(mgr manager.Manager, desired *desired, now func() time.Time) error {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	r := &profileReconciler{client: mgr.GetClient(), compiler: compiler, desired: desired, now: now}
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	return errors.Join(
		builder.ControllerManagedBy(mgr).Named("cluster-profiles").
			For(&v1alpha1.ClusterPatternProfile{}).
			Watches(configuration, handler.EnqueueRequestsFromMapFunc(r.clusterMatching)).
			Complete(reconcile.Func(r.reconcileCluster)),
		builder.ControllerManagedBy(mgr).Named("profiles").
			For(&v1alpha1.PatternProfile{}).
			Watches(configuration, handler.EnqueueRequestsFromMapFunc(r.namespacedMatching)).
			Complete(reconcile.Func(r.reconcileNamespaced)),
	)
}

// secretCache returns a cache of one Secret. Each has its own, for a field selector selects one name, and permission to list and
// watch is by name.
func secretCache(mgr manager.Manager, namespace, name string) (cache.Cache, error) {
	secrets, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(),
		Scheme:     mgr.GetScheme(),
		Mapper:     mgr.GetRESTMapper(),
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

// one is the only request of controllers that keep one thing.
func one() reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: "one"}}
}

func toOne() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{one()}
	})
}

// once makes one request at the start.
func once() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(one())
		return nil
	})
}
