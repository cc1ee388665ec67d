// Package installation runs Pillion beside an API server as an installation would: the webhook and the controller as processes of
// their own, each with its own identity, on loopback. Tests, benchmarks and the demonstration share it.
package installation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// Namespace is the namespace that deploy/ installs Pillion into, Configuration the name of its webhook configuration.
const (
	Namespace     = "pillion-system"
	Configuration = "pillion"
)

// stopTimeout is how long a process may take to end before it is killed.
const stopTimeout = 15 * time.Second

// Options are the settings of an Installation.
type Options struct {
	// Binary is the path of the pillion binary (see Build).
	Binary string
	// Env are further PILLION_… variables of both processes, as NAME=VALUE.
	Env []string
	// Log gets what both processes log. Nil: nobody does.
	Log io.Writer
	// Reach changes how a process, named by its subcommand, reaches the API server. Nil: directly.
	Reach func(subcommand string, config *rest.Config)
}

// Installation is a running Pillion.
type Installation struct {
	// WebhookURL is where admission reviews are answered, without a path; MetricsURL is where the webhook's metrics are.
	WebhookURL, MetricsURL string

	Controller *Process
	Webhook    *Process

	place
}

// place is where an installation is: an API server, and a directory for its processes' files.
type place struct {
	dir    string
	server *apiserver.Server
}

// Build builds the pillion binary into a directory and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := apiserver.Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "pillion")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/pillion")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pillion: %w\n%s", err, output)
	}
	return binary, nil
}

// Start installs what deploy/ holds, starts both processes, and returns once they are ready and the API server has been told of
// the webhook. Call Stop at the end.
func Start(ctx context.Context, server *apiserver.Server, options Options) (*Installation, error) {
	dir, err := os.MkdirTemp("", "pillion-installation-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the installation: %w", err)
	}
	i := &Installation{place: place{dir, server}}
	if err := i.start(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("install Pillion: %w", err), i.Stop())
	}
	return i, nil
}

func (i *Installation) start(ctx context.Context, options Options) error {
	if err := i.server.InstallDeploy(ctx); err != nil {
		return err
	}
	addresses, err := freeAddresses(4)
	if err != nil {
		return err
	}
	webhook, webhookHealth, webhookMetrics, controllerHealth := addresses[0], addresses[1], addresses[2], addresses[3]
	i.WebhookURL, i.MetricsURL = "https://"+webhook, "http://"+webhookMetrics+"/metrics"
	common := append([]string{"PILLION_NAMESPACE=" + Namespace}, options.Env...)
	i.Controller, err = i.process(ctx, options, "controller", controllerHealth, append(common,
		"PILLION_CONTROLLER_HEALTH_ADDRESS="+controllerHealth,
		"PILLION_CONTROLLER_METRICS_ADDRESS=none",
		"PILLION_CONTROLLER_WEBHOOK_URL="+i.WebhookURL,
	))
	if err != nil {
		return err
	}
	i.Webhook, err = i.process(ctx, options, "webhook", webhookHealth, append(common,
		"PILLION_WEBHOOK_LISTEN_ADDRESS="+webhook,
		"PILLION_WEBHOOK_HEALTH_ADDRESS="+webhookHealth,
		"PILLION_WEBHOOK_METRICS_ADDRESS="+webhookMetrics,
		"PILLION_WEBHOOK_DRAIN_DELAY=0s", // no endpoints have to move on
	))
	if err != nil {
		return err
	}
	for _, process := range []*Process{i.Controller, i.Webhook} {
		if err := process.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return i.awaitEntries(ctx)
}

// Metric returns what a metric of the webhook is now: its name, with its labels as the process writes them.
func (i *Installation) Metric(ctx context.Context, name string) (float64, error) {
	return metric(ctx, i.MetricsURL, name)
}

func metric(ctx context.Context, url, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("read the metrics: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("there is no metric %s", name), lines.Err())
}

// awaitEntries returns once the webhook configuration has entries.
func (p *place) awaitEntries(ctx context.Context) error {
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
		if err := p.server.Client.Get(ctx, client.ObjectKey{Name: Configuration}, configuration); err != nil {
			return false, err
		}
		if len(configuration.Webhooks) == 0 {
			return false, errors.New("the controller has not filled the webhook configuration")
		}
		return true, nil
	})
}

// process starts a subcommand of pillion with the token of the ServiceAccount that is named after it.
func (p *place) process(
	ctx context.Context, options Options, subcommand, healthAddress string, env []string,
) (*Process, error) {
	config, err := p.server.ServiceAccountConfig(ctx, Namespace, "pillion-"+subcommand)
	if err != nil {
		return nil, err
	}
	if options.Reach != nil {
		options.Reach(subcommand, config)
	}
	kubeconfig := filepath.Join(p.dir, subcommand+".kubeconfig")
	if err := apiserver.WriteKubeconfig(config, kubeconfig); err != nil {
		return nil, err
	}
	started := &Process{
		name: subcommand, binary: options.Binary, healthURL: "http://" + healthAddress, log: options.Log,
		env: append(env, "PILLION_KUBECONFIG="+kubeconfig),
	}
	err = started.Start()
	return started, err
}

// Stop ends both processes, the webhook last, and removes their files.
func (i *Installation) Stop() error {
	var errs []error
	for _, process := range []*Process{i.Controller, i.Webhook} {
		if process != nil {
			errs = append(errs, process.Stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(i.dir))...)
}

// freeAddresses returns addresses on loopback that nobody listened on a moment ago.
func freeAddresses(n int) ([]string, error) {
	var listeners []net.Listener // all open at once, or one address would be given twice
	defer func() {
		for _, listener := range listeners {
			_ = listener.Close() // nobody connected
		}
	}()
	addresses := make([]string, n)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		listeners = append(listeners, listener)
		addresses[i] = listener.Addr().String()
	}
	return addresses, nil
}

// Process is one process of Pillion. It is not safe for concurrent use.
type Process struct {
	// MetricsURL is where its metrics are, as far as it is known.
	MetricsURL string

	name, binary, healthURL string
	env                     []string
	log                     io.Writer

	command *exec.Cmd
	ended   chan struct{}
	result  error
}

// Start starts the process, also again after it ended.
func (p *Process) Start() error {
	command := exec.Command(p.binary, p.name) //nolint:noctx // Stop ends it
	command.Env = append(os.Environ(), p.env...)
	command.Stdout, command.Stderr = p.log, p.log
	// A process group of its own, or Ctrl-C at the terminal would reach it before whoever stops it in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.command, p.ended = command, ended
	go func() {
		p.result = command.Wait()
		close(ended)
	}()
	return nil
}

// AwaitReady returns once the process says that it is ready, and with an error if it ends before.
func (p *Process) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := p.ended // it may be another, started again, by the time that nobody waits here any more
	go func() {
		select {
		case <-ended:
			cancel(fmt.Errorf("it ended: %w", p.result))
		case <-ctx.Done():
		}
	}()
	err := apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		ready, err := p.Ready(ctx)
		return ready, err
	})
	if err != nil {
		return fmt.Errorf("wait until the %s is ready: %w", p.name, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// Ready asks the process whether it is ready; the error says why not.
func (p *Process) Ready(ctx context.Context) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.healthURL+"/readyz", http.NoBody)
	if err != nil {
		return false, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s", response.Status, body)
	}
	return true, nil
}

// Metric returns what a metric of the process is now: its name, with its labels as the process writes them.
func (p *Process) Metric(ctx context.Context, name string) (float64, error) {
	return metric(ctx, p.MetricsURL, name)
}

// Pid returns the process's id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Stop asks the process to end, waits until it has, and kills it if it takes too long, which is an error. It has no effect on a
// process that has ended.
func (p *Process) Stop() error {
	if p.command == nil {
		return nil
	}
	_ = p.command.Process.Signal(syscall.SIGTERM) // it fails only if the process has ended
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("the %s did not end within %s of SIGTERM", p.name, stopTimeout), p.Kill())
	}
}

// Kill ends the process at once.
func (p *Process) Kill() error {
	err := p.command.Process.Kill()
	<-p.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
