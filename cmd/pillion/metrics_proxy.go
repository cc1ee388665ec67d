package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/metricsproxy"
)

// metricsProxyCommand runs in Pods with a prometheusAdapter, beside exporters that must not be reached themselves.
func metricsProxyCommand() *cobra.Command {
	var listenAddress, path, upstream string
	command := &cobra.Command{
		Use:   "metrics-proxy",
		Short: "Serve one URL of an exporter on loopback, and nothing else of it",
		Long: "metrics-proxy runs in Pods: Pillion adds it beside exporters that would ask any target that a request names.\n" +
			"It serves GET and HEAD of one path from exactly one URL on loopback, and answers 404 to everything else.",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options := metricsproxy.Options{Path: path, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
			var err error
			if options.Upstream, err = metricsproxy.ParseUpstream(upstream); err != nil {
				return err
			}
			if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "{} ") || path == metricsproxy.ReadyPath {
				return fmt.Errorf("--path %q is no path such as /metrics", path)
			}
			ctx, stop := untilSignal(command)
			defer stop()
			listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listenAddress)
			if err != nil {
				return fmt.Errorf("listen for scrapes: %w", err)
			}
			return metricsproxy.Serve(ctx, listener, options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&listenAddress, "listen-address", ":7979", "address to listen on")
	flags.StringVar(&path, "path", "/metrics", "path to serve")
	flags.StringVar(&upstream, "upstream", "", "URL of the exporter on loopback, with its query")
	if err := command.MarkFlagRequired("upstream"); err != nil {
		panic(err)
	}
	return command
}
