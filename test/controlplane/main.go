// Command controlplane puts the programs of a Kubernetes control plane, all of one pinned version, into a folder, for
// the tests and the demo that talk to a real API server.
//
// It downloads what setup-envtest publishes where that can be had, which takes seconds, and else builds the same
// programs from their Go modules, which takes minutes once and needs nothing but Go and a module proxy.
//
// The pins are the go.mod files in kubernetes/ and etcd/, two modules of their own because neither may choose the
// other's dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Where a program may come from.
const (
	sourceAuto     = "auto"
	sourceDownload = "download"
	sourceBuild    = "build"
)

// exitInterrupted is what a shell reports for a program that SIGINT ended; make stops at it, as it should.
const exitInterrupted = 130

// options is what the command line says.
type options struct {
	dest         string
	modules      string
	source       string
	index        string
	indexTimeout time.Duration
	components   []component
}

func main() {
	// A second Ctrl-C must end us at once, so the handler goes as soon as the first one has ended the work.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)

	err := run(ctx, os.Args[1:], newScreen(os.Stdout))
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "controlplane: interrupted; what was finished before is kept")
		os.Exit(exitInterrupted)
	default:
		fmt.Fprintf(os.Stderr, "controlplane: %v\n", err)
		os.Exit(1)
	}
}

// run brings every wanted component that is missing from the destination.
func run(ctx context.Context, args []string, out *screen) error {
	opts, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	pins, err := readPins(opts.modules)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(opts.dest, 0o755); err != nil {
		return fmt.Errorf("make the destination: %w", err)
	}

	// Two makes at once would otherwise build everything twice.
	unlock, err := lockFolder(ctx, opts.dest, func() { out.printf("another run is filling %s: waiting for it", opts.dest) })
	if err != nil {
		return err
	}
	defer unlock()
	removeLeftovers(opts.dest)

	inv, err := readInventory(opts.dest)
	if err != nil {
		return err
	}
	missing := inv.missing(opts.components, pins, opts.source)
	if len(missing) == 0 {
		out.printf("%s: ready in %s", inv.describe(opts.components), opts.dest)
		return nil
	}
	out.printf("%s wanted in %s (pinned: Kubernetes %s, etcd %s)",
		names(missing), opts.dest, pins.kubernetes.version, pins.etcd.version)

	if opts.source != sourceBuild {
		missing, err = fetchPrebuilt(ctx, opts, pins, inv, missing, out)
		if err != nil {
			return err
		}
	}
	if opts.source == sourceDownload && len(missing) > 0 {
		return fmt.Errorf("%s cannot be downloaded; --source=auto builds what cannot", names(missing))
	}
	for i, c := range missing {
		step := fmt.Sprintf("[%d/%d]", i+1, len(missing))
		if err := buildComponent(ctx, opts, pins, inv, c, step, out); err != nil {
			return err
		}
	}
	out.printf("%s: ready in %s", inv.describe(opts.components), opts.dest)
	return nil
}

// parseOptions reads the command line; usage and complaints go to out.
func parseOptions(args []string, out io.Writer) (options, error) {
	opts := options{}
	flags := flag.NewFlagSet("controlplane", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&opts.dest, "dest", filepath.Join("..", "..", "bin", "k8s"), "folder to put the programs in")
	flags.StringVar(&opts.modules, "modules", ".", "folder that holds the pinned modules, kubernetes/ and etcd/")
	flags.StringVar(&opts.source, "source", sourceAuto,
		"where from: download (setup-envtest's archives), build (Go modules), or auto, the first that works")
	flags.StringVar(&opts.index, "index", "", "address of a mirror's list of downloads (default: setup-envtest's own)")
	flags.DurationVar(&opts.indexTimeout, "index-timeout", 10*time.Second,
		"how long to wait for the list of downloads before building instead")
	flags.Usage = func() {
		fmt.Fprintf(out, "usage: controlplane [flags] [component ...]\n\ncomponents: %s, or all (default: %s)\n\n",
			names(allComponents()), names(defaultComponents()))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if !slices.Contains([]string{sourceAuto, sourceDownload, sourceBuild}, opts.source) {
		return options{}, fmt.Errorf("--source=%s: want auto, download or build", opts.source)
	}
	var err error
	opts.components, err = selectComponents(flags.Args())
	return opts, err
}

// selectComponents turns names into components: none means the default ones, "all" every one. The order given does not
// matter, and is not kept: the first ones of the table leave the most for the others in the build cache.
func selectComponents(wanted []string) ([]component, error) {
	if len(wanted) == 0 {
		return defaultComponents(), nil
	}
	if slices.Contains(wanted, "all") {
		return allComponents(), nil
	}
	var selected []component
	for _, c := range allComponents() {
		if slices.Contains(wanted, c.name) {
			selected = append(selected, c)
			wanted = slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return name == c.name })
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("unknown component %s: want some of %s, or all",
			strings.Join(wanted, ", "), names(allComponents()))
	}
	return selected, nil
}
