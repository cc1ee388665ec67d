// Package installed starts a real node (see package node) with Pillion on it as its chart installs it, and has what tests of it
// ask again and again. It wants the images of `make test-images` and the helm of `make bin/tools/helm`.
//
//	func TestMain(m *testing.M) { os.Exit(installed.Run(m, options, func(c *installed.Cluster) { cluster = c })) }
package installed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/node"
)

// Namespace is where the chart is installed.
const Namespace = "pillion-system"

// restrictedLabel makes a namespace refuse Pods that Pod Security restricted refuses.
const restrictedLabel = "pod-security.kubernetes.io/enforce"

// Options say what is on the node.
type Options struct {
	// Images are some of bin/images/test, by their names without .tar; Pillion's own is there always. Nil: all of them.
	Images []string

	// Programs are images to build of programs of this module, by the image's name: {"localhost/app:1": "./test/node/app"}.
	// Each has the program as /bin/app and its entrypoint, and nothing else.
	Programs map[string]string

	// Values are arguments of helm install, beside the defaults: {"--set", "webhook.replicas=1"}.
	Values []string

	// WithoutPillion leaves installing to the caller.
	WithoutPillion bool
}

// Cluster is a node with Pillion on it.
type Cluster struct {
	*node.Node

	// Root is the repository.
	Root string

	// dir is for files of the Cluster, which are gone when it is.
	dir string
}

// Run starts a Cluster in namespaces of its own, gives it to use, runs the tests, stops everything and returns the exit code.
func Run(m interface{ Run() int }, options Options, use func(*Cluster)) int {
	return node.Isolate(func() int {
		code, err := run(m, options, use)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return max(code, 1)
		}
		return code
	})
}

func run(m interface{ Run() int }, options Options, use func(*Cluster)) (code int, err error) {
	c, err := Start(context.Background(), options)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	fmt.Printf("the node was ready after %s\n", c.Took.Round(10*time.Millisecond))
	use(c)
	return m.Run(), nil
}

// Start starts a Cluster. Like node.Start it must be called in what node.Isolate calls, and once.
func Start(ctx context.Context, options Options) (c *Cluster, err error) {
	c = &Cluster{}
	if c.Root, err = apiserver.Root(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.helm()); err != nil {
		return nil, fmt.Errorf("%w; build it by: make bin/tools/helm", err)
	}
	archives, err := c.archives(options.Images)
	if err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "pillion-installed-"); err != nil {
		return nil, err
	}
	unfinished := c // what is returned beside an error is nil
	defer func() {
		if err != nil {
			err = errors.Join(err, unfinished.Stop())
		}
	}()
	programs, err := c.build(ctx, options.Programs)
	if err != nil {
		return nil, err
	}
	c.Node, err = node.Start(ctx, node.Options{Images: append(archives, programs...), WithoutCRDs: true})
	if err != nil {
		return nil, err
	}
	if options.WithoutPillion {
		return c, nil
	}
	if err := c.Install(ctx, options.Values...); err != nil {
		return nil, err
	}
	return c, nil
}

// Stop ends the node, and removes what the Cluster wrote. Calling it again has no effect.
func (c *Cluster) Stop() (err error) {
	if c.Node != nil {
		err = c.Node.Stop()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// archives are the files of images of bin/images/test.
func (c *Cluster) archives(names []string) ([]string, error) {
	dir := filepath.Join(c.Root, "bin", "images", "test")
	all, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there are no images in %s; build them by: make test-images", dir)
	}
	if names == nil {
		return all, nil
	}
	archives := []string{filepath.Join(dir, "pillion.tar")}
	for _, name := range names {
		archives = append(archives, filepath.Join(dir, name+".tar"))
	}
	for _, archive := range archives {
		if _, err := os.Stat(archive); err != nil {
			return nil, fmt.Errorf("%w; build it by: make test-images", err)
		}
	}
	return archives, nil
}

// build makes images of programs, and returns their archives.
func (c *Cluster) build(ctx context.Context, programs map[string]string) ([]string, error) {
	var archives []string
	var builds errgroup.Group
	for name, pkg := range programs {
		base := filepath.Join(c.dir, strings.NewReplacer("/", "-", ":", "-").Replace(name))
		archives = append(archives, base+".tar")
		builds.Go(func() error {
			if err := node.BuildProgram(ctx, pkg, base); err != nil {
				return err
			}
			return node.WriteImage(base+".tar", node.Image{
				Name: name, Files: map[string]string{"/bin/app": base}, Entrypoint: []string{"/bin/app"},
			})
		})
	}
	return archives, builds.Wait()
}

// Install installs the chart as docs/install.md says, into a namespace that enforces Pod Security restricted, and returns when
// Pillion decides of Pods.
func (c *Cluster) Install(ctx context.Context, values ...string) error {
	args := append([]string{"install", "pillion", c.Chart(), "--create-namespace"}, values...)
	if _, err := c.Helm(ctx, args...); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "label", "namespace", Namespace, restrictedLabel+"=restricted"); err != nil {
		return err
	}
	return c.AwaitPillion(ctx)
}

// Chart is the directory of the chart.
func (c *Cluster) Chart() string { return filepath.Join(c.Root, "charts", "pillion") }

func (c *Cluster) helm() string { return filepath.Join(c.Root, "bin", "tools", "helm") }

// Helm runs helm as a cluster admin in Pillion's namespace, and returns what it wrote.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, c.helm(), append(args, "--namespace", Namespace)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig,
		"HELM_CACHE_HOME="+filepath.Join(c.dir, "helm"), "HELM_CONFIG_HOME="+filepath.Join(c.dir, "helm"),
		"HELM_DATA_HOME="+filepath.Join(c.dir, "helm"))
	var said, complained bytes.Buffer
	command.Stdout, command.Stderr = &said, &complained
	if err := command.Run(); err != nil {
		return said.String(), fmt.Errorf("helm %s: %w\n%s%s", strings.Join(args, " "), err, &said, &complained)
	}
	return said.String(), nil
}
