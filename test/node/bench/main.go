// Command bench measures what Pillion costs the start and the end of Pods on a real node: from the POST of a Pod to the first
// instruction of its app, and from its DELETE until it is gone; bare, asked about for nothing, with each pattern, and with all of
// them. Lanes are interleaved in one run, so that a machine that speeds up or slows down does so for all of them, and each start
// and end comes at a random moment of the second in which the kubelet looks at its containers. Then it says how much memory
// Pillion takes there, and how large its image is. It wants what the tests on a real node want: see make bench-node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// options are what the flags say.
type options struct {
	rounds  int
	only    *regexp.Regexp
	pods    string
	json    string
	check   bool
	verbose bool
}

func main() {
	o := options{only: regexp.MustCompile("")}
	flag.IntVar(&o.rounds, "rounds", 12, "Pods of each lane")
	flag.Func("only", "regular expression of lanes; bare is measured always", func(expression string) (err error) {
		o.only, err = regexp.Compile(expression)
		return err
	})
	flag.StringVar(&o.pods, "pods", "", "file of Pods of your own to measure beside, whose container app is replaced")
	flag.StringVar(&o.json, "json", "", "file to write all figures to, - for standard output in place of the tables")
	flag.BoolVar(&o.check, "check", false, "exit with 1 if a target is missed")
	flag.BoolVar(&o.verbose, "verbose", false, "print what happened in each Pod, and when")
	flag.Parse()
	if o.rounds < 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: at least one round, and flags alone")
		os.Exit(2)
	}
	os.Exit(node.Isolate(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		met, err := run(ctx, &o)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		if o.check && !met {
			return 1
		}
		return 0
	}))
}

// run measures, prints, and tells whether the targets are met.
func run(ctx context.Context, o *options) (met bool, err error) {
	if _, err := chosen(o, nil); err != nil { // before a node is started for nothing
		return false, err
	}
	cluster, err := installed.Start(ctx, installed.Options{Programs: map[string]string{appImage: "./test/node/bench/app"}})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	b, err := prepare(ctx, cluster, o)
	if err != nil {
		return false, err
	}
	defer b.close()
	lanes, err := chosen(o, b.values)
	if err != nil {
		return false, err
	}
	results, err := b.rounds(ctx, lanes)
	if err != nil {
		return false, err
	}
	sizes, err := b.sizes(ctx)
	if err != nil {
		return false, err
	}
	report := newReport(o.rounds, results, sizes)
	return report.met(), report.write(o)
}
