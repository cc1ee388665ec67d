package node

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// patience is how long each part of a node may take to be ready.
const patience = 3 * time.Minute

// socket is where containerd is.
const socket = "/run/containerd/containerd.sock"

// flexVolumes is where volume plugins would be. By default that is a directory of the machine, and made.
const flexVolumes = "/var/lib/kubelet/plugins-exec"

// frontProxy is who the API server is for servers of API groups of their own.
const frontProxy = "front-proxy-client"

// Options are what a Node may be started with beyond the defaults.
type Options struct {
	// Images are archives to import: see Import.
	Images []string

	// APIServerFlags are of kube-apiserver, by name without dashes. They replace the defaults.
	APIServerFlags map[string]string

	// WithoutCRDs leaves Pillion's CustomResourceDefinitions to the caller.
	WithoutCRDs bool
}

// Node is a running cluster of one node. Clients, users and helpers are the API server's.
type Node struct {
	*apiserver.Server

	// Kubeconfig is a file for programs in the namespaces, OutsideKubeconfig one for those outside, both of a cluster admin. They
	// are there until the node is gone.
	Kubeconfig, OutsideKubeconfig string

	// Took is how long the start took.
	Took time.Duration

	dir, config, logs string
	authority         *authority
	socket            net.Listener

	mu        sync.Mutex
	processes []*process
	stop      sync.Once
	stopped   error
}

// Start starts a node, and returns once it is Ready and takes Pods: the API server with Pillion's CustomResourceDefinitions, the
// controllers, the scheduler, the kubelet, Services and names. It must be called in what Isolate calls, and once. The end of that
// ends the node too; Stop ends it before.
func Start(ctx context.Context, options Options) (*Node, error) {
	role, dir, _ := strings.Cut(os.Getenv(variable), ":")
	if role != roleRun {
		return nil, errors.New("start a node: this process is not in namespaces of its own: call node.Start from what node.Isolate " +
			"calls, such as the tests of a package whose TestMain is os.Exit(node.Isolate(m.Run))")
	}
	n := &Node{dir: dir, config: filepath.Join(dir, dirConfig), logs: filepath.Join(dir, dirLogs)}
	if kept := os.Getenv(LogsVariable); kept != "" {
		n.logs = kept
	}
	if _, err := os.Stat(filepath.Join(n.config, "ca.crt")); err == nil {
		return nil, errors.New("start a node: there was one in these namespaces already, which are not clean any more: " +
			"start one for all tests")
	}
	began := time.Now()
	if err := n.start(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("start a node: %w", err), n.Stop())
	}
	n.Took = time.Since(began)
	return n, nil
}

func (n *Node) start(ctx context.Context, options Options) error {
	if err := errors.Join(os.MkdirAll(n.logs, 0o755), os.MkdirAll(filepath.Join(n.config, "cni"), 0o755)); err != nil {
		return err
	}
	var err error
	if n.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := n.writeFiles(); err != nil {
		return err
	}
	// The runtime knows nothing of the API server, so both start at once.
	parts, within := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.startRuntime(within, options.Images) })
	parts.Go(func() error { return n.startControlPlane(within, options) })
	if err := parts.Wait(); err != nil {
		return err
	}
	if err := n.startKubelet(); err != nil {
		return err
	}
	err = n.startProxy(ctx)
	if err == nil {
		err = n.awaitReady(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w\nthe kubelet said last:\n%s", err, end(filepath.Join(n.logs, "kubelet.log")))
	}
	return n.openToOutside()
}

//go:embed config
var configs embed.FS

// writeFiles writes the configurations of the programs, and the certificates that do not come from the API server.
func (n *Node) writeFiles() error {
	values := map[string]string{
		"Name": Name, "Address": Address, "PodNetwork": PodNetwork, "ClusterDomain": clusterDomain,
		"Dir": n.config, "Socket": socket,
		"PauseImage": pauseImage, "PluginDir": here().pluginDir(), "CgroupRoot": cgroupPath(filepath.Base(n.dir)),
		"Snapshotter": snapshotter("/var/lib"), "FlexVolumes": flexVolumes,
	}
	templates, err := template.New("").Option("missingkey=error").ParseFS(configs, "config/*")
	if err != nil {
		return err
	}
	for _, t := range templates.Templates() {
		path := filepath.Join(n.config, t.Name())
		if strings.HasSuffix(path, ".conflist") {
			path = filepath.Join(n.config, "cni", t.Name())
		}
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(t.Execute(file, values), file.Close()); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if err := write(n.config, "ca", n.authority.pair); err != nil {
		return err
	}
	for name, groups := range map[string][]string{
		"kubelet": nil, "kube-apiserver-kubelet-client": {"system:masters"}, frontProxy: nil,
	} {
		pair, err := n.authority.issue(name, groups, Name, Address)
		if err != nil {
			return err
		}
		if err := write(n.config, name, pair); err != nil {
			return err
		}
	}
	return nil
}

// startControlPlane starts the API server, and then what needs it and no kubelet.
func (n *Node) startControlPlane(ctx context.Context, options Options) error {
	if err := n.startAPIServer(ctx, options); err != nil {
		return err
	}
	if err := n.ApplyFile(ctx, filepath.Join(n.config, "coredns-rbac.yaml")); err != nil {
		return err
	}
	for name, args := range map[string][]string{
		"kube-controller-manager": {
			"--leader-elect=false", "--use-service-account-credentials", "--bind-address=127.0.0.1",
			"--root-ca-file=" + filepath.Join(n.config, "ca.crt"),
			"--service-account-private-key-file=" + filepath.Join(n.config, "tokens.key"),
			"--cluster-signing-cert-file=" + filepath.Join(n.config, "ca.crt"),
			"--cluster-signing-key-file=" + filepath.Join(n.config, "ca.key"),
			"--service-cluster-ip-range=" + ServiceNetwork,
			"--flex-volume-plugin-dir=" + flexVolumes, "--kube-api-qps=500", "--kube-api-burst=500",
		},
		"kube-scheduler": {"--leader-elect=false", "--bind-address=127.0.0.1", "--kube-api-qps=500", "--kube-api-burst=500"},
	} {
		kubeconfig, err := n.kubeconfigOf(name, "system:"+name)
		if err != nil {
			return err
		}
		if err := n.runBuilt(name, append(args, "--kubeconfig="+kubeconfig,
			"--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig)...); err != nil {
			return err
		}
	}
	return n.runConfigured("coredns", "-conf="+filepath.Join(n.config, "Corefile"))
}

// startProxy starts kube-proxy once the kubelet has made the Node. Before, it would look for the Node for half a minute, then do
// without its address, and end when that appears: on a busy machine, where importing images takes longer.
func (n *Node) startProxy(ctx context.Context) error {
	err := n.await(ctx, "the kubelet to make the Node", func(ctx context.Context) error {
		_, err := n.Clientset.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return n.runConfigured("kube-proxy", "--config="+filepath.Join(n.config, "kube-proxy.yaml"))
}

// runConfigured runs a program whose file of configuration names its kubeconfig.
func (n *Node) runConfigured(name string, args ...string) error {
	if _, err := n.kubeconfigOf(name, "system:"+name); err != nil {
		return err
	}
	return n.runBuilt(name, args...)
}

func (n *Node) startAPIServer(ctx context.Context, options Options) error {
	serving, err := n.authority.issue("kube-apiserver", nil, Address, serviceOfAPIServer, "127.0.0.1", "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+clusterDomain)
	if err != nil {
		return err
	}
	tokens, err := n.authority.issue("tokens", nil)
	if err != nil {
		return err
	}
	if err := write(n.config, "tokens", tokens); err != nil {
		return err
	}
	flags := map[string]string{
		"advertise-address": Address, "endpoint-reconciler-type": "lease",
		"service-cluster-ip-range":        ServiceNetwork,
		"service-account-issuer":          "https://kubernetes.default.svc." + clusterDomain,
		"kubelet-preferred-address-types": string(corev1.NodeInternalIP),
		"kubelet-certificate-authority":   filepath.Join(n.config, "ca.crt"),
		"kubelet-client-certificate":      filepath.Join(n.config, "kube-apiserver-kubelet-client.crt"),
		"kubelet-client-key":              filepath.Join(n.config, "kube-apiserver-kubelet-client.key"),
		// Servers of API groups of their own know by these who asks.
		"requestheader-client-ca-file":       filepath.Join(n.config, "ca.crt"),
		"requestheader-allowed-names":        frontProxy,
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"proxy-client-cert-file":             filepath.Join(n.config, frontProxy+".crt"),
		"proxy-client-key-file":              filepath.Join(n.config, frontProxy+".key"),
	}
	for name, value := range options.APIServerFlags {
		flags[name] = value
	}
	log, err := os.Create(filepath.Join(n.logs, "kube-apiserver.log"))
	if err != nil {
		return err
	}
	n.Server, err = apiserver.Start(ctx, apiserver.Options{
		Address: addressOfAPIServer, Flags: flags, WithoutCRDs: options.WithoutCRDs, Log: log,
		Certificates: &apiserver.Certificates{CA: n.authority.pair.Certificate, Serving: serving, Tokens: tokens},
	})
	if err != nil {
		return fmt.Errorf("%w\nit said last:\n%s", err, end(log.Name()))
	}
	n.Kubeconfig = filepath.Join(n.config, "admin.kubeconfig")
	return apiserver.WriteKubeconfig(n.Config, n.Kubeconfig)
}

// kubeconfigOf writes a kubeconfig of a user, for the program of that name, and returns its path.
func (n *Node) kubeconfigOf(program, user string, groups ...string) (string, error) {
	config, err := n.User(user, groups...)
	if err != nil {
		return "", err
	}
	path := filepath.Join(n.config, program+".kubeconfig")
	return path, apiserver.WriteKubeconfig(config, path)
}

// runBuilt runs a program that make node builds.
func (n *Node) runBuilt(name string, args ...string) error {
	path, err := apiserver.Program(name)
	if err != nil {
		return err
	}
	return n.run(name, path, args...)
}

func (n *Node) startKubelet() error {
	kubeconfig, err := n.kubeconfigOf("kubelet", "system:node:"+Name, "system:nodes")
	if err != nil {
		return err
	}
	return n.runBuilt("kubelet", "--config="+filepath.Join(n.config, "kubelet.yaml"), "--kubeconfig="+kubeconfig,
		"--hostname-override="+Name, "--node-ip="+Address)
}

// awaitReady waits until Pods are taken and Services answer.
func (n *Node) awaitReady(ctx context.Context) error {
	for _, part := range []struct {
		what  string
		ready func(context.Context) error
	}{
		{"the Node to be Ready", n.nodeReady},
		{"the controllers", n.controllersReady},
		{"kube-proxy", func(ctx context.Context) error { return healthy(ctx, "http://127.0.0.1:10256/healthz") }},
		{"CoreDNS", func(ctx context.Context) error { return healthy(ctx, "http://127.0.0.1:8181/ready") }},
	} {
		if err := n.await(ctx, part.what, part.ready); err != nil {
			return err
		}
	}
	return nil
}

// nodeReady says why no Pod is scheduled to the Node yet.
func (n *Node) nodeReady(ctx context.Context) error {
	node, err := n.Clientset.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, taint := range node.Spec.Taints {
		return fmt.Errorf("the Node has the taint %s", taint.ToString())
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the Node's conditions are %+v", node.Status.Conditions)
}

// controllersReady waits for what one of the last controllers to start makes, and every Pod mounts.
func (n *Node) controllersReady(ctx context.Context) error {
	_, err := n.Clientset.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return err
}

func healthy(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, response.Status, body)
	}
	return nil
}

// openToOutside lets clients outside of the namespaces reach the API server.
func (n *Node) openToOutside() error {
	listener, err := net.Listen("unix", socketPath(n.dir))
	if err != nil {
		return fmt.Errorf("listen for clients outside of the node: %w", err)
	}
	n.socket = listener
	go forward(listener, func() (net.Conn, error) { return net.Dial("tcp", addressOfAPIServer) })
	config := rest.CopyConfig(n.Config)
	config.Host = "https://" + os.Getenv(forwardVariable)
	n.OutsideKubeconfig = filepath.Join(n.dir, "kubeconfig")
	return apiserver.WriteKubeconfig(config, n.OutsideKubeconfig)
}

// Stop ends the node, its containers too. Calling it again has no effect. Directories and cgroups are removed when what Isolate
// called has returned.
func (n *Node) Stop() error {
	n.stop.Do(func() {
		errs := []error{n.kill(), endAll(filepath.Base(n.dir))}
		if n.socket != nil {
			errs = append(errs, n.socket.Close())
		}
		if n.Server != nil {
			errs = append(errs, n.Server.Stop())
		}
		n.stopped = errors.Join(errs...)
	})
	return n.stopped
}
