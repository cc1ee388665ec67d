package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/reconnect"
)

// process is what the commands that run in a cluster share.
type process struct {
	settings   config.Config
	logger     *slog.Logger
	restConfig *rest.Config
}

// startProcess reads the configuration, logs to stderr, and finds the API server.
func startProcess(command *cobra.Command) (*process, error) {
	settings, err := config.Load(command.Flags(), os.Environ())
	if err != nil {
		return nil, err
	}
	logger, err := newLogger(command.ErrOrStderr(), settings)
	if err != nil {
		return nil, err
	}
	runtime.MemProfileRate = 0 // nothing serves what would be remembered, which takes a megabyte
	// The libraries that talk to the API server log to loggers of their own.
	klog.SetSlogLogger(logger)
	log.SetLogger(logr.FromSlogHandler(logger.Handler()))
	restConfig, err := connect(settings.Kubeconfig)
	if err != nil {
		return nil, err
	}
	restConfig.QPS = -1 // the API server itself says when it is asked too much, and a Pod waits for what is asked
	restConfig.UserAgent = "pillion-" + command.Name() + "/" + thisBuild().Version
	reconnect.Soon(restConfig, logger)
	return &process{settings: settings, logger: logger, restConfig: restConfig}, nil
}

// untilSignal returns the context of a command that runs until it gets SIGINT or SIGTERM, and then finishes what it has begun; a
// second signal ends the process at once. The other commands end at once, even where they wait for stdin: they leave the signals
// alone.
func untilSignal(command *cobra.Command) (ctx context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(command.Context())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	finished := make(chan struct{})
	go func() {
		for _, act := range []func(){cancel, endAtOnce} {
			select {
			case <-signals:
				act()
			case <-finished:
				return
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(finished)
		cancel()
	})
}

// endAtOnce is called on a second signal. Its default action would do nothing to the first process of a container.
func endAtOnce() {
	fmt.Fprintln(os.Stderr, "pillion: a second signal: ending at once, though not all that was begun is finished")
	os.Exit(1)
}

func newLogger(out io.Writer, settings config.Config) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(settings.LogLevel)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if settings.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(out, options)), nil
	}
	return slog.New(slog.NewJSONHandler(out, options)), nil
}

// connect returns how to reach the API server: by a kubeconfig file, or as the Pod's ServiceAccount.
func connect(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		restConfig, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reach the API server as this Pod's ServiceAccount: %w; outside a cluster name a file with "+
				"--kubeconfig", err)
		}
		return restConfig, nil
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reach the API server by kubeconfig %s: %w", kubeconfig, err)
	}
	return restConfig, nil
}

// limitGarbage makes the collector run before the heap has grown by a quarter: what a request or a reconciliation leaves behind is
// little, and memory is what a webhook and its controller are asked about. GOGC in the environment decides otherwise.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
}
