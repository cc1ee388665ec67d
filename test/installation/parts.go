package installation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// PartsOptions are the settings of Parts.
type PartsOptions struct {
	Options

	// Controllers is how many there are; one where it is zero.
	Controllers int
	// ReachController edits how a controller, counted from 0, reaches the API server. Nil: directly.
	ReachController func(n int, config *rest.Config)
}

// Parts is a Pillion on loopback whose processes are started one by one, in any order. They keep their addresses and identities.
type Parts struct {
	WebhookURL string

	Webhook     *Process
	Controllers []*Process

	place
}

// NewParts installs what deploy/ holds and starts nothing. Call Stop at the end.
func NewParts(ctx context.Context, server *apiserver.Server, options PartsOptions) (*Parts, error) {
	dir, err := os.MkdirTemp("", "pillion-installation-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the installation: %w", err)
	}
	p := &Parts{place: place{dir, server}}
	if err := p.prepare(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("install Pillion: %w", err), p.Stop())
	}
	return p, nil
}

func (p *Parts) prepare(ctx context.Context, options PartsOptions) error {
	if err := p.server.InstallDeploy(ctx); err != nil {
		return err
	}
	controllers := max(options.Controllers, 1)
	addresses, err := freeAddresses(3 + 2*controllers)
	if err != nil {
		return err
	}
	p.WebhookURL = "https://" + addresses[0]
	p.Webhook, err = p.part(ctx, options, "webhook", "webhook", nil, addresses[1], addresses[2], []string{
		"PILLION_WEBHOOK_LISTEN_ADDRESS=" + addresses[0],
		"PILLION_WEBHOOK_HEALTH_ADDRESS=" + addresses[1],
		"PILLION_WEBHOOK_METRICS_ADDRESS=" + addresses[2],
		"PILLION_WEBHOOK_DRAIN_DELAY=0s", // no endpoints have to move on
	})
	if err != nil {
		return err
	}
	for n := range controllers {
		reach := func(config *rest.Config) {
			if options.ReachController != nil {
				options.ReachController(n, config)
			}
		}
		health, metrics := addresses[3+2*n], addresses[4+2*n]
		controller, err := p.part(ctx, options, "controller", fmt.Sprintf("controller-%d", n), reach, health, metrics, []string{
			"PILLION_CONTROLLER_HEALTH_ADDRESS=" + health,
			"PILLION_CONTROLLER_METRICS_ADDRESS=" + metrics,
			"PILLION_CONTROLLER_WEBHOOK_URL=" + p.WebhookURL,
		})
		if err != nil {
			return err
		}
		p.Controllers = append(p.Controllers, controller)
	}
	return nil
}

// part returns a process that is not started, with the token of the ServiceAccount that is named after its subcommand.
func (p *Parts) part(
	ctx context.Context, options PartsOptions, subcommand, name string, reach func(*rest.Config), health, metrics string, env []string,
) (*Process, error) {
	config, err := p.server.ServiceAccountConfig(ctx, Namespace, "pillion-"+subcommand)
	if err != nil {
		return nil, err
	}
	if reach != nil {
		reach(config)
	}
	kubeconfig := filepath.Join(p.dir, name+".kubeconfig")
	if err := apiserver.WriteKubeconfig(config, kubeconfig); err != nil {
		return nil, err
	}
	return &Process{
		name: subcommand, binary: options.Binary, log: options.Log,
		healthURL: "http://" + health, MetricsURL: "http://" + metrics + "/metrics",
		env: slices.Concat([]string{"PILLION_NAMESPACE=" + Namespace, "PILLION_KUBECONFIG=" + kubeconfig}, env, options.Env),
	}, nil
}

// AwaitEntries returns once the webhook configuration has entries.
func (p *Parts) AwaitEntries(ctx context.Context) error { return p.awaitEntries(ctx) }

// Stop ends all processes, the webhook last, and removes their files.
func (p *Parts) Stop() error {
	var errs []error
	for _, process := range append(slices.Clone(p.Controllers), p.Webhook) {
		if process != nil {
			errs = append(errs, process.Stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}

// Set sets variables, as NAME=VALUE, for the next start. They replace those that were set before, until what is returned is called.
func (p *Process) Set(env ...string) (restore func()) {
	before := p.env
	p.env = slices.Concat(p.env, env)
	return func() { p.env = before }
}

// Name is that of the subcommand.
func (p *Process) Name() string { return p.name }

// Ended is closed once the process that was started last has ended; Result is how it did.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Result returns what the process ended with: nil is success. Call it when Ended is closed.
func (p *Process) Result() error { return p.result }
