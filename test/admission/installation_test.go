package admission

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/defaults"
	"github.com/pillion-dev/pillion/controller"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/weave"
	"github.com/pillion-dev/pillion/webhook"
)

const (
	ownNamespace      = "pillion-system"
	caSecret          = "pillion-ca"
	certificateSecret = "pillion-webhook-tls"
	configurationName = "pillion"
	// excludedNamespace is one that Pillion never touches.
	excludedNamespace = "kube-system"
)

var (
	server  *apiserver.Server
	pillion *installed
)

func TestMain(m *testing.M) {
	os.Exit(apiserver.Run(withPillion{m}, apiserver.Options{}, func(s *apiserver.Server) { server = s }))
}

// withPillion runs the tests with Pillion installed.
type withPillion struct{ *testing.M }

func (tests withPillion) Run() int {
	var err error
	if pillion, err = install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := tests.M.Run()
	if err := pillion.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "Pillion ended with:", err)
		return 1
	}
	return code
}

// installed is a webhook and a controller, each with its own ServiceAccount.
type installed struct {
	address, health, metrics string
	profileOptions           profiles.Options
	log                      *fixture.Log

	stopWebhook, stopController func() error
}

// install applies deploy/, starts webhook and controller and waits until Pods are sent to the webhook.
func install(ctx context.Context) (*installed, error) {
	if err := server.InstallDeploy(ctx); err != nil {
		return nil, err
	}
	i := &installed{
		log: &fixture.Log{},
		profileOptions: profiles.Options{
			Images:             injectors.DefaultImages(""),
			ExcludedNamespaces: []string{excludedNamespace, ownNamespace},
			Weave:              weave.Options{LeadingContainers: []string{"istio-init", "istio-proxy"}},
		},
	}
	var err error
	if i.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if i.health, err = freeAddress(); err != nil {
		return nil, err
	}
	if i.metrics, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := i.startController(ctx); err != nil {
		return nil, err
	}
	if err := i.startWebhook(ctx); err != nil {
		return nil, err
	}
	if err := i.awaitEntries(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

func (i *installed) stop() error { return errors.Join(i.stopWebhook(), i.stopController()) }

func (i *installed) startController(ctx context.Context) error {
	config, err := server.ServiceAccountConfig(ctx, ownNamespace, "pillion-controller")
	if err != nil {
		return err
	}
	wanted, err := defaults.Profiles()
	if err != nil {
		return err
	}
	i.stopController = background(func(ctx context.Context) error {
		return controller.Run(ctx, config, controller.Options{
			DefaultProfiles: wanted,
			Namespace:       ownNamespace, CASecret: caSecret, CertificateSecret: certificateSecret,
			WebhookConfiguration: configurationName, WebhookURL: "https://" + i.address,
			ExcludedNamespaces: []string{excludedNamespace}, LeaderElection: true,
			RecheckUsers: 250 * time.Millisecond, CountsInterval: time.Second, CertificateSettle: 5 * time.Second, // or tests would wait
			Logger: logr.FromSlogHandler(slog.NewTextHandler(i.log, nil)),
		})
	})
	return nil
}

// startWebhook returns once the webhook is ready.
func (i *installed) startWebhook(ctx context.Context) error {
	config, err := server.ServiceAccountConfig(ctx, ownNamespace, "pillion-webhook")
	if err != nil {
		return err
	}
	options := i.options()
	options.MetricsAddress = i.metrics
	i.stopWebhook = i.runWebhook(config, options)
	return awaitReady(ctx, i.health)
}

// options are those of the installation's webhook. Its bounds of connections are tighter than the defaults, to be tested sooner.
func (i *installed) options() webhook.RunOptions {
	return webhook.RunOptions{
		ListenAddress: i.address, HealthAddress: i.health,
		Namespace: ownNamespace, CertificateSecret: certificateSecret, WebhookConfiguration: configurationName,
		ReadHeaderTimeout: time.Second, ReadTimeout: 3 * time.Second,
		Profiles: i.profileOptions,
		Logger:   slog.New(slog.NewTextHandler(i.log, nil)),
	}
}

func (i *installed) runWebhook(config *rest.Config, options webhook.RunOptions) func() error {
	return background(func(ctx context.Context) error { return webhook.Run(ctx, config, options) })
}

// awaitEntries waits until the API server has been told of the webhook.
func (i *installed) awaitEntries(ctx context.Context) error {
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		configuration, err := configuration(ctx)
		if err != nil {
			return false, err
		}
		return len(configuration.Webhooks) > 0, errors.New("the controller has not filled the webhook configuration")
	})
}

// client returns an HTTP client that trusts what the API server trusts.
func (i *installed) client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: i.tls(t), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func (i *installed) tls(t *testing.T) *tls.Config {
	t.Helper()
	configuration, err := configuration(t.Context())
	if err != nil || len(configuration.Webhooks) == 0 {
		t.Fatalf("no entries in the webhook configuration: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle) {
		t.Fatal("no certificate in the caBundle")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func configuration(ctx context.Context) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := server.Client.Get(ctx, client.ObjectKey{Name: configurationName}, configuration)
	return configuration, err
}

// awaitReady waits for /readyz.
func awaitReady(ctx context.Context, health string) error {
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		status, body, err := readyz(ctx, health)
		return status == http.StatusOK, errors.Join(err, errors.New(body))
	})
}

func readyz(ctx context.Context, health string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// background runs a function until what is returned is called, which gives its error.
func background(run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	group := errgroup.Group{}
	group.Go(func() error { return run(ctx) })
	return sync.OnceValue(func() error {
		cancel()
		return group.Wait()
	})
}

// freeAddress returns an address on loopback that nobody listened on a moment ago.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close() //nolint:errcheck // nobody connected
	return listener.Addr().String(), nil
}
