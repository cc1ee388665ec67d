// Package controller keeps what the cluster knows of Pillion: the status of profiles, the webhook configuration that is compiled
// from them, and the serving certificate.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	crcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/reconnect"
)

// LeaseName is the Lease in Options.Namespace that the leader among controllers holds.
const LeaseName = "pillion-controller"

// Options are the settings of the controller.
type Options struct {
	// Namespace is Pillion's own: of its Secrets, its Lease and its Service. Pods in it are never touched.
	Namespace string
	// CASecret and CertificateSecret name the Secrets that certs.Options speaks of.
	CASecret, CertificateSecret string
	// WebhookConfiguration names the MutatingWebhookConfiguration and the ValidatingWebhookConfiguration that are filled. They are
	// neither made nor deleted.
	WebhookConfiguration string

	// Service is where the API server reaches the webhook, unless WebhookURL is set. With both the certificate is for both.
	Service Service
	// WebhookURL is the webhook's base, https://HOST[:PORT][/PATH], for a webhook outside the cluster.
	WebhookURL string

	// ExcludedNamespaces are never touched; Namespace need not be among them.
	ExcludedNamespaces []string

	// LeaderElection lets several controllers run, of which one works.
	LeaderElection bool
	// LeaseDuration, RenewDeadline and RetryPeriod are client-go's of leader election; zero: 15, 10 and 2 seconds.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration

	// SelfCheckInterval is how often it is proved that Pods are woven, by a Pod that is not stored; zero: never. Decisions are the
	// options that the webhook decides with, but for the excluded namespaces.
	SelfCheckInterval time.Duration
	Decisions         profiles.Options

	// HealthAddress is where /healthz and /readyz are served, MetricsAddress where /metrics is, over HTTP. Empty: nowhere.
	HealthAddress, MetricsAddress string

	// CertificateMode says who issues the serving certificate; empty: CertificatesAuto. CertificateIssuer is the issuer of cert-manager,
	// KIND/NAME or KIND.GROUP/NAME; empty: one that is made.
	CertificateMode, CertificateIssuer string
	// CALifetime, CertificateLifetime and CertificateSettle are the defaults of package certs where they are zero.
	CALifetime, CertificateLifetime, CertificateSettle time.Duration

	// DefaultProfiles are made where they are not there, and kept at these specs for as long as nobody changes them. Empty: none are, and
	// those that are there stay.
	DefaultProfiles []v1alpha1.ClusterPatternProfile

	// RecheckUsers is how often it is looked who still asks for a profile that is deleted or broken; zero: every 30 seconds.
	// CountsInterval is how often the status of one profile is written for its numbers of Pods alone; zero: every 10 seconds.
	RecheckUsers, CountsInterval time.Duration

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

// assemble returns a manager with everything that keeps the cluster in order. It does not run yet.
func assemble(restConfig *rest.Config, options Options, lock resourcelock.Interface) (manager.Manager, error) {
	names, err := certs.Names(options.Namespace, options.Service.Name, options.WebhookURL)
	if err != nil {
		return nil, err
	}
	mgr, err := newManager(restConfig, options, lock)
	if err != nil {
		return nil, err
	}
	catalog, err := newCatalog(mgr.GetClient(), options.ExcludedNamespaces)
	if err != nil {
		return nil, err
	}
	defaults, err := prepareDefaults(mgr, catalog, options)
	if err != nil {
		return nil, err
	}
	bundle := newBundle()
	desired := &desired{
		reader:   mgr.GetClient(),
		catalog:  catalog,
		name:     options.WebhookConfiguration,
		target:   options.target(),
		excluded: options.ExcludedNamespaces,
		bundle:   bundle,
		secret:   options.Namespace + "/" + options.CertificateSecret,
		now:      options.Now,
	}
	if err := errors.Join(
		addCertificates(mgr, options, names, desired),
		addCatalog(mgr, catalog),
		addConfiguration(mgr, desired, mutatingKind(), bundle.changed.mutating, catalog.planChanged.mutating),
		addConfiguration(mgr, desired, validatingKind(), bundle.changed.validating, catalog.planChanged.validating),
		addProfiles(mgr, desired, defaults, options),
		addDefaults(mgr, defaults),
		addEvents(mgr, options),
		addMetrics(mgr, catalog),
		addSelfCheck(mgr, desired, options),
	); err != nil {
		return nil, err
	}
	return mgr, nil
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
	o.CertificateMode = cmp.Or(o.CertificateMode, CertificatesAuto)
	if slices.Contains([]string{CertManagerSecret, certManagerCASecret}, o.CASecret) ||
		slices.Contains([]string{CertManagerSecret, certManagerCASecret}, o.CertificateSecret) {
		missing = append(missing, fmt.Errorf("the Secrets %s and %s are cert-manager's: name the CA's and the serving certificate's otherwise",
			CertManagerSecret, certManagerCASecret))
	}
	o.Service.Port = cmp.Or(o.Service.Port, 443)
	o.RecheckUsers = cmp.Or(o.RecheckUsers, 30*time.Second)
	o.CountsInterval = cmp.Or(o.CountsInterval, 10*time.Second)
	o.LeaseDuration = cmp.Or(o.LeaseDuration, 15*time.Second)
	o.RenewDeadline = cmp.Or(o.RenewDeadline, 10*time.Second)
	o.RetryPeriod = cmp.Or(o.RetryPeriod, 2*time.Second)
	o.Decisions.ExcludedNamespaces = o.ExcludedNamespaces
	o.Decisions.Images.Pillion = cmp.Or(o.Decisions.Images.Pillion, injectors.DefaultImages("").Pillion)
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

// newManager returns a manager whose cache holds profiles, the metadata of namespaces and the two webhook configurations. It
// watches the latter by the field selector metadata.name, because permission to list and watch them is by name. Secrets are
// read from the API server.
func newManager(restConfig *rest.Config, options Options, lock resourcelock.Interface) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		v1alpha1.AddToScheme, admissionregistrationv1.AddToScheme, corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme,
		certmanagerv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	byName := fields.OneTermEqualSelector("metadata.name", options.WebhookConfiguration)
	mgr, err := manager.New(restConfig, manager.Options{
		Scheme:         scheme,
		MapperProvider: reconnect.Mapper,
		Logger:         options.Logger,
		Cache: cache.Options{
			ReaderFailOnMissingInformer: true,
			NewInformer:                 reconnect.NewInformer,
			DefaultTransform:            strip,
			ByObject: map[client.Object]cache.ByObject{
				&admissionregistrationv1.MutatingWebhookConfiguration{}:   {Field: byName},
				&admissionregistrationv1.ValidatingWebhookConfiguration{}: {Field: byName},
			},
		},
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		LeaderElection:                options.LeaderElection,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &options.LeaseDuration,
		RenewDeadline:                 &options.RenewDeadline,
		RetryPeriod:                   &options.RetryPeriod,

		LeaderElectionResourceLockInterface: lock,

		HealthProbeBindAddress: cmp.Or(options.HealthAddress, "0"),
		Metrics:                metricsserver.Options{BindAddress: cmp.Or(options.MetricsAddress, "0")},
		Controller:             config.Controller{SkipNameValidation: new(true)}, // several may run in one process
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the controller: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return nil, fmt.Errorf("prepare the health endpoints: %w", err)
	}
	return mgr, nil
}

// strip takes from what the cache holds all that nobody reads.
func strip(object any) (any, error) {
	if namespace, ok := object.(*metav1.PartialObjectMetadata); ok {
		namespace.Annotations, namespace.OwnerReferences, namespace.Finalizers = nil, nil, nil
	}
	return cache.TransformStripManagedFields()(object)
}

// retryFailed is how long at most is waited to do again what has failed: whatever the API server could not take for some time is done soon
// after it can.
const retryFailed = 5 * time.Second

// patience is how long is waited for what is watched to be there. The CustomResourceDefinitions may be installed after the controller.
const patience = 24 * time.Hour

// retrySoon bounds the time between attempts that fail, which grows to a quarter of an hour by default.
func retrySoon() crcontroller.Options {
	return crcontroller.Options{
		CacheSyncTimeout: patience,
		RateLimiter:      workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](50*time.Millisecond, retryFailed),
	}
}

// addCatalog keeps the catalog: when profiles change.
func addCatalog(mgr manager.Manager, catalog *catalog) error {
	return builder.ControllerManagedBy(mgr).Named("catalog").WithOptions(retrySoon()).
		WatchesRawSource(once()). // where there is no profile, that is to be known, too
		Watches(&v1alpha1.ClusterPatternProfile{}, toOne()).
		Watches(&v1alpha1.PatternProfile{}, toOne()).
		Complete(catalog)
}

// addConfiguration keeps a webhook configuration: when it or anything else that is told of changes.
func addConfiguration[E any](
	mgr manager.Manager, desired *desired, kind configurationKind[E], changes ...chan event.GenericEvent,
) error {
	controller := builder.ControllerManagedBy(mgr).Named(strings.ToLower(kind.kind)).WithOptions(retrySoon()).
		Watches(kind.empty(), toOne())
	if kind.kind == validatingKind().kind { // what checks follows what weaves
		controller.Watches(mutatingKind().empty(), toOne())
	}
	for _, changed := range changes {
		controller.WatchesRawSource(source.Channel(changed, toOne()))
	}
	return controller.Complete(&configurationReconciler[E]{client: mgr.GetClient(), desired: desired, kind: kind})
}

// addProfiles keeps the status of profiles: when they change, what they come to among others, the webhook configurations that
// match depends on, or the Pods that carry them.
func addProfiles(mgr manager.Manager, desired *desired, defaults *defaultProfiles, options Options) error {
	pods, err := metadata.NewForConfigAndClient(metadata.ConfigFor(mgr.GetConfig()), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("prepare to count Pods: %w", err)
	}
	counter := newPodCounter(pods, desired.catalog.tellCounts)
	r := &profileReconciler{
		client: mgr.GetClient(), catalog: desired.catalog, desired: desired, pods: counter,
		finder: &userFinder{
			live: mgr.GetAPIReader(), cached: mgr.GetClient(), pods: counter, excluded: options.ExcludedNamespaces,
			unsettled: desired.catalog.unsettled, recheck: options.RecheckUsers, now: options.Now,
		},
		now: options.Now, isRemade: defaults.isRemade, countsInterval: options.CountsInterval,
		counted: map[types.UID]time.Time{},
	}
	mutating, validating := mutatingKind().empty(), validatingKind().empty()
	cluster := handler.EnqueueRequestsFromMapFunc(r.clusterMatching)
	namespaced := handler.EnqueueRequestsFromMapFunc(r.namespacedMatching)
	told := &handler.EnqueueRequestForObject{}
	return errors.Join(
		mgr.Add(counter),
		builder.ControllerManagedBy(mgr).Named("cluster-profiles").WithOptions(retrySoon()).
			For(&v1alpha1.ClusterPatternProfile{}).
			Watches(mutating, cluster).
			Watches(validating, cluster).
			WatchesRawSource(source.Channel(desired.catalog.clusterChanged, told)).
			Complete(reconcile.Func(r.reconcileCluster)),
		builder.ControllerManagedBy(mgr).Named("profiles").WithOptions(retrySoon()).
			For(&v1alpha1.PatternProfile{}).
			Watches(mutating, namespaced).
			Watches(validating, namespaced).
			WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.deletedInside)).
			WatchesRawSource(source.Channel(desired.catalog.namespacedChanged, told)).
			Complete(reconcile.Func(r.reconcileNamespaced)),
	)
}

func prepareDefaults(mgr manager.Manager, catalog *catalog, options Options) (*defaultProfiles, error) {
	events, err := eventsclient.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("prepare to write Events: %w", err)
	}
	logger := mgr.GetLogger().WithName("default-profiles")
	return newDefaultProfiles(options.DefaultProfiles, mgr.GetAPIReader(), mgr.GetClient(), newAnnouncer(events, options.Now, logger), logger,
		func(ctx context.Context, name string) {
			catalog.tell(ctx, clusterObject(&v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: name}}))
		})
}

// addDefaults keeps the default profiles: from when their kind is served, and when one changes or goes. It works where the controller
// leads.
func addDefaults(mgr manager.Manager, defaults *defaultProfiles) error {
	if len(defaults.wanted) == 0 {
		return nil
	}
	all := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		for _, request := range defaults.requests() {
			queue.Add(request)
		}
		return nil
	})
	return builder.ControllerManagedBy(mgr).Named("default-profiles").WithOptions(retrySoon()).
		WatchesRawSource(all).
		For(&v1alpha1.ClusterPatternProfile{}, builder.WithPredicates(
			predicate.NewPredicateFuncs(defaults.isWanted),
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}),
		)).
		Complete(defaults)
}

// addEvents tells by Events of what policy left out of Pods.
func addEvents(mgr manager.Manager, options Options) error {
	pods, err := metadata.NewForConfigAndClient(metadata.ConfigFor(mgr.GetConfig()), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("prepare to watch Pods: %w", err)
	}
	events, err := eventsclient.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("prepare to write Events: %w", err)
	}
	return mgr.Add(newSkipTeller(pods, events, options.ExcludedNamespaces, options.Now, mgr.GetLogger().WithName("events")))
}

// addMetrics tells of the profiles by metrics where the controller leads.
func addMetrics(mgr manager.Manager, catalog *catalog) error {
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		forget, err := registerProfiles(metrics.Registry, catalog)
		if err != nil {
			return err
		}
		defer forget()
		<-ctx.Done()
		return nil
	}))
}

// addSelfCheck proves the whole path: from the start, by time, and when what it depends on has changed. It works where the controller
// leads.
func addSelfCheck(mgr manager.Manager, desired *desired, options Options) error {
	events, err := eventsclient.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("prepare to write Events: %w", err)
	}
	told, err := registerSelfCheck(metrics.Registry)
	if err != nil {
		return err
	}
	forget := manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		told.forget()
		return nil
	})
	if err := mgr.Add(forget); err != nil {
		return fmt.Errorf("prepare the self-check: %w", err)
	}
	logger := mgr.GetLogger().WithName("self-check")
	check := &selfCheck{
		interval: options.SelfCheckInterval, client: mgr.GetClient(), live: mgr.GetAPIReader(),
		catalog: desired.catalog, desired: desired, decisions: options.Decisions, excluded: options.ExcludedNamespaces,
		namespace: options.Namespace, announcer: newAnnouncer(events, options.Now, logger), now: options.Now, logger: logger,
		metrics: told, settle: settleSelfCheck,
	}
	controller := builder.ControllerManagedBy(mgr).Named("self-check").WatchesRawSource(once())
	if check.interval == 0 {
		return controller.Complete(check)
	}
	secrets, err := secretCache(mgr, options.Namespace, options.CertificateSecret)
	if err != nil {
		return err
	}
	named := func(name string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			if o.GetName() != name || (o.GetNamespace() != "" && o.GetNamespace() != SelfCheckNamespace) {
				return nil
			}
			return []reconcile.Request{one()}
		})
	}
	return controller.
		Watches(mutatingKind().empty(), toOne()).
		Watches(validatingKind().empty(), toOne()).
		Watches(&v1alpha1.PatternProfile{}, named(SelfCheckProfile), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesMetadata(&corev1.Namespace{}, named(SelfCheckNamespace)).
		WatchesRawSource(source.Kind[client.Object](secrets, &corev1.Secret{}, toOne())).
		Complete(check)
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
