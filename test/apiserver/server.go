package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/crds"
	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// How long each of the processes may take to start and to stop.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// keptLog is how much of the processes' last output is kept to explain a failed start, in bytes.
const keptLog = 4096

// Options are what a Server may be started with beyond the defaults.
type Options struct {
	// Flags are of kube-apiserver, by name without dashes. They replace the defaults.
	Flags map[string]string

	// Address is the host and port to listen at. Empty: a free port of loopback.
	Address string

	// Certificates are what the server serves with. Nil: it makes its own, for localhost and the host that it listens at.
	Certificates *Certificates

	// WithoutCRDs leaves Pillion's CustomResourceDefinitions to the caller.
	WithoutCRDs bool

	// Log gets the output of etcd and kube-apiserver. Nil: the last lines are told if the start fails, the rest is lost.
	Log io.Writer
}

// Server is a running API server.
type Server struct {
	// Config is of a cluster admin, with no limit on the rate of requests.
	Config *rest.Config

	// Client and Clientset are Config's. Client knows Kubernetes' types, Pillion's and CustomResourceDefinitions.
	Client    client.Client
	Clientset *kubernetes.Clientset

	environment *envtest.Environment
	leash       *leash
	dir         string
	stop        sync.Once
	stopped     error
}

// Start starts etcd and an API server with Pillion's CustomResourceDefinitions, and returns once it serves them. It has the
// authorizers Node and RBAC and Kubernetes' default admission plugins, PodSecurity, ServiceAccount and LimitRanger among them.
// Call Stop at the end, after everything that watches has ended, or the API server waits for it; should this process end without,
// so do the others.
func Start(ctx context.Context, options Options) (*Server, error) {
	log.SetLogger(logr.Discard()) // or controller-runtime complains that none is set
	dir, err := os.MkdirTemp("", "pillion-apiserver-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the API server: %w", err)
	}
	s := &Server{dir: dir}
	if err := s.start(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("start an API server: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, options Options) error {
	output := options.Log
	tail := &tail{}
	if output == nil {
		output = tail
	}
	environment, err := s.prepare(options, output)
	if err != nil {
		return err
	}
	s.environment = environment
	if s.Config, err = environment.Start(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail)
	}
	if err := s.connect(); err != nil {
		return err
	}
	return s.createDefaultServiceAccount(ctx, "default")
}

// connect makes the clients.
func (s *Server) connect() error {
	s.Config.QPS = -1
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	var err error
	if s.Client, err = client.New(s.Config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if s.Clientset, err = kubernetes.NewForConfig(s.Config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return nil
}

// prepare returns the environment to start.
func (s *Server) prepare(options Options, output io.Writer) (*envtest.Environment, error) {
	leash, err := newLeash(s.dir)
	if err != nil {
		return nil, err
	}
	s.leash = leash
	paths := map[string]string{}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		path, err := binary(name)
		if err != nil {
			return nil, err
		}
		if paths[name], err = leash.wrap(path); err != nil {
			return nil, err
		}
	}
	environment := &envtest.Environment{
		UseExistingCluster:       new(false), // whatever the environment says
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  stopTimeout,
	}
	if !options.WithoutCRDs {
		if environment.CRDs, err = CRDs(); err != nil {
			return nil, err
		}
	}
	etcd := &environment.ControlPlane
	etcd.Etcd = &envtest.Etcd{
		Path: paths["etcd"], DataDir: filepath.Join(s.dir, "etcd-data"), Out: output, Err: output,
	}
	etcd.Etcd.Configure().Set("unsafe-no-fsync", "true")

	server := environment.ControlPlane.GetAPIServer()
	server.Path, server.CertDir, server.Out, server.Err = paths["kube-apiserver"], filepath.Join(s.dir, "certs"), output, output
	return environment, configure(server, options)
}

// configure sets the address and the flags of an API server, and makes the directory for its certificates.
func configure(server *envtest.APIServer, options Options) error {
	if err := os.Mkdir(server.CertDir, 0o700); err != nil {
		return fmt.Errorf("make a directory for the API server: %w", err)
	}
	if options.Address != "" {
		host, port, err := net.SplitHostPort(options.Address)
		if err != nil {
			return fmt.Errorf("the address of the API server: %w", err)
		}
		server.Address, server.Port = host, port
	}
	if options.Certificates != nil {
		if err := options.Certificates.write(server); err != nil {
			return err
		}
	}
	flags := server.Configure().
		Set("authorization-mode", "Node", "RBAC").
		Set("advertise-address", "127.0.0.1").
		Set("endpoint-reconciler-type", "none"). // it refuses a loopback address
		Disable("disable-admission-plugins")     // envtest disables ServiceAccount
	for name, value := range options.Flags {
		flags.Set(name, value)
	}
	return nil
}

// Stop ends the API server, then etcd, and removes their files. Calling it again has no effect.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		var errs []error
		if s.environment != nil {
			errs = append(errs, s.environment.Stop())
		}
		if s.leash != nil {
			errs = append(errs, s.leash.close())
		}
		s.stopped = errors.Join(append(errs, os.RemoveAll(s.dir))...)
	})
	return s.stopped
}

// Run starts a server, gives it to use, runs the tests of a package and stops it. It returns the exit code for os.Exit:
//
//	func TestMain(m *testing.M) {
//		os.Exit(apiserver.Run(m, apiserver.Options{}, func(s *apiserver.Server) { server = s }))
//	}
func Run(m interface{ Run() int }, options Options, use func(*Server)) (code int) {
	s, err := Start(context.Background(), options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
			code = 1
		}
	}()
	use(s)
	return m.Run()
}

// CRDs returns Pillion's CustomResourceDefinitions.
func CRDs() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	var definitions []*apiextensionsv1.CustomResourceDefinition
	for _, document := range [][]byte{crds.PatternProfiles, crds.ClusterPatternProfiles} {
		definition := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(document, definition); err != nil {
			return nil, fmt.Errorf("decode a CustomResourceDefinition of api/crds: %w", err)
		}
		definitions = append(definitions, definition)
	}
	return definitions, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if excess := len(t.kept) - keptLog; excess > 0 {
		t.kept = append(t.kept[:0], t.kept[excess:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}
