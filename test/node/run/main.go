// Command run starts a Kubernetes cluster of one node (see package node), prints a kubeconfig for it and keeps it running until
// Ctrl-C. Arguments are archives of images to import. Nothing is left of it at the end. With --check it only says what this
// machine lacks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/pillion-dev/pillion/test/node"
)

func main() {
	if slices.Equal(os.Args[1:], []string{"--check"}) {
		if err := node.Check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(node.Isolate(inside))
}

func inside() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, images []string) error {
	fmt.Println("starting a node")
	n, err := node.Start(ctx, node.Options{Images: images})
	if err != nil {
		return err
	}
	fmt.Printf("ready after %s\n\nexport KUBECONFIG=%s\n\nCtrl-C ends it\n", n.Took.Round(10*time.Millisecond), n.OutsideKubeconfig)
	err = n.Wait(ctx)
	fmt.Println("stopping the node")
	return errors.Join(err, n.Stop())
}
