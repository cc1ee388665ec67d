package main

import (
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/api/defaults"
	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/controller"
)

func controllerCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "controller",
		Short: "Keep the webhook's configuration and certificate and the profiles' status",
		Long: `controller compiles the profiles into the webhook's configurations, tells in each profile's status whether it can be
used and how many Pods carry it, keeps the last good spec of profiles that are broken and profiles that are deleted for those
who ask for them, and makes and rotates the webhook's certificate, until it gets SIGTERM or SIGINT.

Pods are admitted without it; only changes of profiles and certificates wait. Several may run, of which one works.

Every flag is also a key of the file that --config names, and an environment variable: --log-level is logLevel and
PILLION_LOG_LEVEL. Flags come before variables, variables before the file.`,
		Example: `  # In a cluster
  pillion controller --config /etc/pillion/config.yaml

  # On your own machine, for a webhook there
  pillion controller --kubeconfig ~/.kube/config --controller-webhook-url https://127.0.0.1:9443`,
		Args: cobra.NoArgs,
		RunE: runController,
	}
	config.AddFlags(command.Flags(), config.Cluster, config.Logging, config.Decisions, config.ControllerManager)
	return command
}

func runController(command *cobra.Command, _ []string) error {
	ctx, stop := untilSignal(command)
	defer stop()
	p, err := startProcess(command)
	if err != nil {
		return err
	}
	options, err := p.controllerOptions()
	if err != nil {
		return err
	}
	limitGarbage() // most is left when all Pods are listed, once; after that there is little to do
	return controller.Run(ctx, p.restConfig, options)
}

func (p *process) controllerOptions() (controller.Options, error) {
	options := controller.Options{
		Namespace:            p.settings.Namespace,
		CASecret:             p.settings.Certs.CASecret,
		CertificateSecret:    p.settings.Webhook.CertificateSecret,
		WebhookConfiguration: p.settings.WebhookConfiguration,
		Service: controller.Service{
			Name: p.settings.Controller.Service.Name,
			Port: p.settings.Controller.Service.Port,
		},
		WebhookURL:          p.settings.Controller.WebhookURL,
		ExcludedNamespaces:  p.settings.ExcludedNamespaces,
		LeaderElection:      p.settings.Controller.LeaderElection,
		LeaseDuration:       p.settings.Controller.LeaseDuration,
		RenewDeadline:       p.settings.Controller.RenewDeadline,
		RetryPeriod:         p.settings.Controller.RetryPeriod,
		SelfCheckInterval:   p.settings.Controller.SelfCheckInterval,
		Decisions:           decisionOptions(p.settings),
		HealthAddress:       p.settings.Controller.HealthAddress,
		MetricsAddress:      p.settings.Controller.MetricsAddress,
		CertificateMode:     p.settings.Certs.Mode,
		CertificateIssuer:   p.settings.Certs.Issuer,
		CALifetime:          p.settings.Certs.CALifetime,
		CertificateLifetime: p.settings.Certs.LeafLifetime,
		CertificateSettle:   p.settings.Certs.Settle,
		Logger:              logr.FromSlogHandler(p.logger.Handler()),
	}
	if !p.settings.Controller.DefaultProfiles {
		return options, nil
	}
	var err error
	options.DefaultProfiles, err = defaults.Profiles()
	return options, err
}
