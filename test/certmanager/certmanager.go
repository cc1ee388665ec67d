// Package certmanager runs cert-manager's own controllers, from its module, against an API server: what Pillion does with cert-manager
// is tested with the real one. It is a module of its own, for cert-manager's dependencies are many.
//
// What a program that can be imported does not have is its webhook, which validates its objects; the schema of its CRDs does that in
// part. Its main packages are modules of their own; what they do is done here: controllers are made, and their informers started.
package certmanager

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cert-manager/cert-manager/pkg/api"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	requestsca "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	requestsselfsigned "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"         // makes itself known to the issuers' controllers
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned" // as well
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/pillion-dev/pillion/test/apiserver"
)

const module = "github.com/cert-manager/cert-manager"

// Namespace is where cert-manager keeps what belongs to ClusterIssuers.
const Namespace = "cert-manager"

// names are the controllers that issue certificates by self-signed and CA issuers.
func names() []string {
	return []string{
		issuers.ControllerName, clusterissuers.ControllerName,
		trigger.ControllerName, keymanager.ControllerName, requestmanager.ControllerName, issuing.ControllerName,
		readiness.ControllerName, revisionmanager.ControllerName,
		approver.ControllerName, requestsselfsigned.CRControllerName, requestsca.CRControllerName,
	}
}

// InstallCRDs installs cert-manager's CustomResourceDefinitions, as its module has them, and its namespace.
func InstallCRDs(ctx context.Context, server *apiserver.Server) error {
	if _, err := server.Clientset.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: Namespace},
	}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", Namespace, err)
	}
	definitions, err := definitions(ctx)
	if err != nil {
		return err
	}
	for _, file := range definitions {
		if err := server.ApplyFile(ctx, file); err != nil {
			return err
		}
	}
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		list, err := server.Clientset.Discovery().ServerResourcesForGroupVersion("cert-manager.io/v1")
		if err != nil {
			return false, err
		}
		return len(list.APIResources) >= 8, fmt.Errorf("cert-manager.io/v1 has %d resources", len(list.APIResources))
	})
}

// RemoveCRDs removes them, with all objects.
func RemoveCRDs(ctx context.Context, server *apiserver.Server) error {
	for _, name := range []string{
		"certificaterequests.cert-manager.io", "certificates.cert-manager.io", "clusterissuers.cert-manager.io", "issuers.cert-manager.io",
		"challenges.acme.cert-manager.io", "orders.acme.cert-manager.io",
	} {
		crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := client.IgnoreNotFound(server.Client.Delete(ctx, crd)); err != nil {
			return fmt.Errorf("remove CRD %s: %w", name, err)
		}
	}
	return apiserver.Await(ctx, func(context.Context) (bool, error) {
		_, err := server.Clientset.Discovery().ServerResourcesForGroupVersion("cert-manager.io/v1")
		return apierrors.IsNotFound(err), errors.New("the API is still there")
	})
}

// definitions returns the files of the module that hold the definitions.
func definitions(ctx context.Context) ([]string, error) {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	command.Env = append(os.Environ(), "GOWORK=off")
	root, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("find module %s: %w", module, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "deploy", "crds", "*.yaml"))
	if err == nil && len(files) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, fmt.Errorf("find cert-manager's CRDs: %w", err)
	}
	return files, nil
}

// Running are cert-manager's controllers at work.
type Running struct {
	stop    context.CancelFunc
	group   sync.WaitGroup
	mu      sync.Mutex
	stopped []error
}

// Parts says which of cert-manager's programs run.
type Parts struct {
	// WithoutInjector leaves out the cainjector, as some installations do, WithoutControllers all else.
	WithoutInjector, WithoutControllers bool
}

// LogTo has everything that cert-manager logs in this process written to w.
func LogTo(w io.Writer) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	err := errors.Join(flags.Set("logtostderr", "false"), flags.Set("stderrthreshold", "FATAL"))
	klog.SetOutput(w)
	return err
}

// Start runs cert-manager's controller and cainjector until Stop.
func Start(ctx context.Context, server *apiserver.Server, dir string, parts Parts) (*Running, error) {
	ctx, stop := context.WithCancel(ctx)
	r := &Running{stop: stop}
	var err error
	if !parts.WithoutControllers {
		err = r.controllers(ctx, server, dir)
	}
	if err == nil && !parts.WithoutInjector {
		err = r.injector(ctx, server)
	}
	if err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// Stop ends them, and returns what went wrong.
func (r *Running) Stop() error {
	r.stop()
	r.group.Wait()
	return errors.Join(r.stopped...)
}

func (r *Running) run(name string, do func() error) {
	r.group.Go(func() {
		if err := do(); err != nil && !errors.Is(err, context.Canceled) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.stopped = append(r.stopped, fmt.Errorf("%s: %w", name, err))
		}
	})
}

// controllers does what cmd/controller does.
func (r *Running) controllers(ctx context.Context, server *apiserver.Server, dir string) error {
	kubeconfig := filepath.Join(dir, "cert-manager.kubeconfig")
	if err := apiserver.WriteKubeconfig(server.Config, kubeconfig); err != nil {
		return err
	}
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:       kubeconfig,
		KubernetesAPIQPS: 1000, KubernetesAPIBurst: 1000,
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: Namespace},
		CertificateOptions: controller.CertificateOptions{
			CertificateRequestMinimumBackoffDuration: time.Second, CertificateRequestMaximumBackoffDuration: time.Second,
		},
	})
	if err != nil {
		return fmt.Errorf("prepare cert-manager's controllers: %w", err)
	}
	shared, err := factory.Build()
	if err != nil {
		return fmt.Errorf("prepare cert-manager's controllers: %w", err)
	}
	for _, name := range names() {
		construct, ok := controller.Known()[name]
		if !ok {
			return fmt.Errorf("cert-manager has no controller %s", name)
		}
		made, err := construct(factory)
		if err != nil {
			return fmt.Errorf("make cert-manager's controller %s: %w", name, err)
		}
		r.run(name, func() error { return made.Run(2, ctx) })
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	return nil
}

// injector does what cmd/cainjector does.
func (r *Running) injector(ctx context.Context, server *apiserver.Server) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, api.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	mgr, err := manager.New(rest.AddUserAgent(rest.CopyConfig(server.Config), "cainjector"), manager.Options{
		Scheme:     scheme,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Controller: config.Controller{SkipNameValidation: new(true)}, // it may run several times
	})
	if err != nil {
		return fmt.Errorf("prepare the cainjector: %w", err)
	}
	if err := cainjector.RegisterAllInjectors(ctx, mgr, cainjector.SetupOptions{
		EnableCertificatesDataSource: true,
		EnabledReconcilersFor: map[string]bool{
			cainjector.MutatingWebhookConfigurationName: true, cainjector.ValidatingWebhookConfigurationName: true,
		},
	}); err != nil {
		return fmt.Errorf("prepare the cainjector: %w", err)
	}
	r.run("cainjector", func() error { return mgr.Start(ctx) })
	return nil
}
