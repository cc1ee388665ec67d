// Command demo shows Pillion at work on a real node: installed by its chart, a page that is served from a git repository changes
// after a push, and all four patterns work in one Pod. Nothing is left of it at the end, also on Ctrl-C. With KEEP=1 in the
// environment everything stays up until Ctrl-C, and a kubeconfig is printed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/gitserver"
	"github.com/pillion-dev/pillion/test/node/installed"
	"github.com/pillion-dev/pillion/test/terminal"
)

// repository is the one that the manifests name, at gitPort of the node.
const (
	repository = "handbook"
	gitPort    = "3000"
)

// manifests is where the manifests are, as commands name them.
const manifests = "test/node/demo/"

func main() { os.Exit(node.Isolate(inside)) }

// inside runs in the namespaces of the node.
func inside() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Stdout, os.Getenv("KEEP") != ""); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// demo is the demonstration while it runs.
type demo struct {
	*terminal.Terminal
	cluster *installed.Cluster
	git     *gitserver.Server
	plugin  errgroup.Group // builds Pillion as a plugin of kubectl, which is not needed at once

	// author is where who writes the pages types, in a clone of the repository.
	author *terminal.Terminal
}

// run shows the demonstration. Whatever happens, what it started has ended when it returns.
func run(ctx context.Context, out io.Writer, keep bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	step := terminal.Steps(out)
	dir, err := os.MkdirTemp("", "pillion-demo-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step("starting a node: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet, kube-proxy, CoreDNS")
	d := &demo{}
	defer func() {
		cancel()
		_ = d.plugin.Wait() // what it begins to write it ends
		if d.cluster != nil {
			step("ending everything")
			err = errors.Join(err, d.cluster.Stop())
		}
	}()
	if err := d.start(ctx, out, dir); err != nil {
		return err
	}
	step(fmt.Sprintf("the node is Ready; that took %.1f s", d.cluster.Took.Seconds()))

	acts := []act{
		{"Install Pillion by its chart", d.install},
		{"Who runs a namespace says what its Pods get; the Deployment knows nothing of it", d.serve},
		{"A push changes the page, before the eyes of a client that asks without pause", d.push},
		{"The same Deployment in a namespace that asks for all four patterns", d.together},
	}
	if !keep {
		acts = append(acts, act{"Pillion goes, and what it wove runs on", d.uninstall})
	}
	for i, act := range acts {
		d.Heading(i+1, act.title)
		if err := act.play(ctx); err != nil {
			return fmt.Errorf("%s: %w", act.title, err)
		}
	}
	if keep {
		return d.stayUp(ctx)
	}
	_, _ = fmt.Fprintf(out, "\nThat is all. 'make demo NODE=1 KEEP=1' stays up, for Pods of your own.\n")
	return nil
}

// act is a part of the demonstration.
type act struct {
	title string
	play  func(context.Context) error
}

// images are what the demonstration runs, beside Pillion: archives of make test-images.
var images = []string{"git-sync", "gomplate", "memcached", "nginx", "nginx-exporter"}

// start starts the node, and makes the terminals and the repository with its first page.
func (d *demo) start(ctx context.Context, out io.Writer, dir string) error {
	root, err := apiserver.Root()
	if err != nil {
		return err
	}
	// kubectl runs the program of this name for "kubectl pillion". It stays, to be linked again only when Pillion has changed.
	plugins := filepath.Join(root, "bin", "plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	d.plugin.Go(func() error {
		return node.BuildProgram(ctx, "./cmd/pillion", filepath.Join(plugins, "kubectl-pillion"))
	})
	d.cluster, err = installed.Start(ctx, installed.Options{Images: images, WithoutPillion: true})
	if err != nil {
		return err
	}
	kubectl, err := apiserver.Kubectl()
	if err != nil {
		return err
	}
	helm := filepath.Join(dir, "helm")
	d.Terminal = &terminal.Terminal{
		Out: out, Dir: root, Path: []string{plugins, filepath.Dir(kubectl), filepath.Join(root, "bin", "tools")},
		Env: []string{
			"KUBECONFIG=" + d.cluster.Kubeconfig,
			"HELM_CACHE_HOME=" + helm, "HELM_CONFIG_HOME=" + helm, "HELM_DATA_HOME=" + helm,
		},
	}
	return d.startRepository(ctx, dir)
}

// startRepository serves a repository with the first page.
func (d *demo) startRepository(ctx context.Context, dir string) (err error) {
	d.git, err = gitserver.Start(ctx, filepath.Join(dir, "git"), net.JoinHostPort(node.Address, gitPort))
	if err != nil {
		return err
	}
	if err := d.git.Create(repository); err != nil {
		return err
	}
	if _, err := d.git.Push(ctx, repository, map[string]string{index: page("first")}, "First edition"); err != nil {
		return err
	}
	if err := d.git.TakePushes(ctx, repository); err != nil {
		return err
	}
	clone := filepath.Join(dir, repository)
	d.author = &terminal.Terminal{Out: d.Out, Dir: clone, Env: []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Author", "GIT_AUTHOR_EMAIL=author@example.com",
		"GIT_COMMITTER_NAME=Author", "GIT_COMMITTER_EMAIL=author@example.com",
	}}
	if err := os.Mkdir(clone, 0o755); err != nil {
		return err
	}
	_, err = d.author.Quietly(ctx, "git clone --quiet "+d.git.URL(repository)+" .")
	return err
}

// stayUp says how to use what runs, and returns on Ctrl-C.
func (d *demo) stayUp(ctx context.Context) error {
	_, _ = fmt.Fprintf(d.Out, `
Staying up until Ctrl-C. In another terminal:

  export KUBECONFIG=%s
  export PATH=%s:$PATH
  kubectl get pods -A; kubectl pillion profiles; kubectl pillion help
  kubectl get --raw /api/v1/namespaces/handbook/services/web/proxy/       # the page, as it is now
  git clone %s                                                            # change %s, commit, push
`, d.cluster.OutsideKubeconfig, strings.Join(d.Path, string(os.PathListSeparator)), d.git.Path(repository), index)
	err := d.cluster.Wait(ctx)
	_, _ = fmt.Fprintln(d.Out)
	return err
}
