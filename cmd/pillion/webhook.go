package main

import (
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/webhook"
)

func webhookCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "webhook",
		Short: "Answer the API server's admission reviews",
		Long: `webhook answers the API server's admission reviews of Pods until it gets SIGTERM or SIGINT; then it finishes what it has
begun. A second signal ends it at once.

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
	options := p.webhookOptions()
	warnOfMemory(p.logger, debug.SetMemoryLimit(-1), options.Handler.MaxBytesInFlight)
	return webhook.Run(ctx, p.restConfig, options)
}

// warnOfMemory tells of a GOMEMLIMIT that what may be in flight would not fit in: a body and what is made of it take about twice its
// bytes, beside some 48 MiB that the process has anyway. It would spend its time on collecting garbage rather than refuse requests.
func warnOfMemory(logger *slog.Logger, limit, inFlight int64) {
	const anyway = 48 << 20
	if needed := anyway + 2*inFlight; limit < needed {
		logger.Warn("GOMEMLIMIT is less than what may be in flight takes: raise it, or lower webhook.maxBytesInFlight",
			"GOMEMLIMIT", limit, "needed", needed, "maxBytesInFlight", inFlight)
	}
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
		ClientCA:             server.ClientCA,
		ClientNames:          server.ClientNames,
		MaxConnections:       int(server.MaxConnections),
		ReadHeaderTimeout:    server.ReadHeaderTimeout,
		ReadTimeout:          server.ReadTimeout,
		WriteTimeout:         server.WriteTimeout,
		IdleTimeout:          server.IdleTimeout,
		DrainDelay:           server.DrainDelay,
		ShutdownTimeout:      server.ShutdownTimeout,
		Handler: webhook.Options{
			MaxBodyBytes: server.MaxBodyBytes, LiveReadTimeout: server.LiveReadTimeout,
			MaxRequestsInFlight: server.MaxRequestsInFlight, MaxBytesInFlight: server.MaxBytesInFlight,
		},
		Profiles: decisionOptions(p.settings),
		Logger:   p.logger,
	}
}
