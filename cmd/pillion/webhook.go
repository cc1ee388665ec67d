package main

import (
	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/webhook"
)

func webhookCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "webhook",
		Short: "Answer the API server's admission reviews",
		Long: `webhook answers the API server's admission reviews of Pods until it gets SIGTERM or SIGINT; then it finishes what it has
begun.

It is ready once it knows all profiles and namespaces and its certificate, which the controller makes, verifies. It reads, and
writes nothing. Any number of them may run.

Every flag is also a key of the file that --config names, and an environment variable: --log-level is logLevel and
PILLION_LOG_LEVEL. Flags come before variables, variables before the file.`,
		Example: `  # In a cluster
  pillion webhook --config /etc/pillion/config.yaml

  # On your own machine
  pillion webhook --kubeconfig ~/.kube/config --log-format text --log-level debug`,
		Args: cobra.NoArgs,
		RunE: runWebhook,
	}
	config.AddFlags(command.Flags(), config.Cluster, config.Logging, config.Decisions, config.WebhookServer)
	return command
}

func runWebhook(command *cobra.Command, _ []string) error {
	ctx, stop := untilSignal(command)
	defer stop()
	p, err := startProcess(command)
	if err != nil {
		return err
	}
	limitGarbage()
	return webhook.Run(ctx, p.restConfig, p.webhookOptions())
}

func (p *process) webhookOptions() webhook.RunOptions {
	server := p.settings.Webhook
	return webhook.RunOptions{
		ListenAddress:        server.ListenAddress,
		HealthAddress:        server.HealthAddress,
		MetricsAddress:       server.MetricsAddress,
		Namespace:            p.settings.Namespace,
		CertificateSecret:    server.CertificateSecret,
		WebhookConfiguration: p.settings.WebhookConfiguration,
		ReadHeaderTimeout:    server.ReadHeaderTimeout,
		ReadTimeout:          server.ReadTimeout,
		WriteTimeout:         server.WriteTimeout,
		IdleTimeout:          server.IdleTimeout,
		DrainDelay:           server.DrainDelay,
		ShutdownTimeout:      server.ShutdownTimeout,
		Handler:              webhook.Options{MaxBodyBytes: server.MaxBodyBytes, LiveReadTimeout: server.LiveReadTimeout},
		Profiles:             decisionOptions(p.settings),
		Logger:               p.logger,
	}
}
