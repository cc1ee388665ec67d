package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// pauseImage holds the namespaces of Pods.
const pauseImage = "localhost/pause:1"

// startRuntime starts containerd and gives it images: what holds a Pod's namespaces, and those that were asked for.
func (n *Node) startRuntime(ctx context.Context, images []string) error {
	path, err := here().find("containerd")
	if err != nil {
		return err
	}
	if err := n.run("containerd", path, "--config="+filepath.Join(n.config, "containerd.toml")); err != nil {
		return err
	}
	archive := filepath.Join(n.dir, dirTmp, "pause.tar")
	both, within := errgroup.WithContext(ctx)
	both.Go(func() error { return n.writePause(within, archive) })
	both.Go(func() error { return n.await(within, "containerd", n.runtimeAnswers) })
	if err := both.Wait(); err != nil {
		return err
	}
	return n.Import(ctx, append([]string{archive}, images...)...)
}

// runtimeAnswers says why containerd cannot be asked yet.
func (n *Node) runtimeAnswers(ctx context.Context) error {
	connection, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	if err := connection.Close(); err != nil {
		return err
	}
	_, err = n.ctr(ctx, "plugins", "ls", "id==cri")
	return err
}

// writePause builds the program that holds a Pod's namespaces, and writes its image.
func (n *Node) writePause(ctx context.Context, archive string) error {
	program := filepath.Join(n.dir, dirTmp, "pause")
	if err := BuildProgram(ctx, "./test/node/pause", program); err != nil {
		return err
	}
	return WriteImage(archive, Image{
		Name: pauseImage, Files: map[string]string{"/pause": program}, Entrypoint: []string{"/pause"}, User: "65535:65535",
	})
}

// BuildProgram builds a static program of this module for an image.
func BuildProgram(ctx context.Context, pkg, path string) error {
	root, err := apiserver.Root()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, pkg)
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off", "GOFLAGS=")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}

// unpacked finds the names of images in what ctr says of an import.
var unpacked = regexp.MustCompile(`(?m)^unpacking (\S+) \(`)

// Import gives containerd the images of archives, of the docker or the OCI format. When it returns Pods may run them, by the
// names in the archives; their imagePullPolicy must be IfNotPresent, as it is by default for a tag that is not latest, or Never.
func (n *Node) Import(ctx context.Context, archives ...string) error {
	var names []string
	for _, archive := range archives {
		said, err := n.ctr(ctx, "images", "import", archive)
		if err != nil {
			return fmt.Errorf("import %s: %w", archive, err)
		}
		found := unpacked.FindAllStringSubmatch(said, -1)
		if len(found) == 0 {
			return fmt.Errorf("import %s: there is no image with a name in it; ctr said: %s", archive, said)
		}
		for _, match := range found {
			names = append(names, match[1])
		}
	}
	return n.awaitImages(ctx, names)
}

// Tag gives an image that was imported one more name, which Pods may use when it returns.
func (n *Node) Tag(ctx context.Context, image, name string) error {
	if _, err := n.ctr(ctx, "images", "tag", image, name); err != nil {
		return fmt.Errorf("tag image %s: %w", image, err)
	}
	return n.awaitImages(ctx, []string{name})
}

// awaitImages waits until Pods may use images. What the kubelet asks hears of them a moment later, and labels them then.
func (n *Node) awaitImages(ctx context.Context, names []string) error {
	return n.await(ctx, "imported images", func(ctx context.Context) error {
		said, err := n.ctr(ctx, "images", "ls", "-q", `labels."io.cri-containerd.image"==managed`)
		if err != nil {
			return err
		}
		known := strings.Fields(said)
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(known, name) })
		if len(missing) > 0 {
			return fmt.Errorf("the kubelet does not see %s yet", strings.Join(missing, ", "))
		}
		return nil
	})
}

// ctr runs containerd's own client in the kubelet's part of it.
func (n *Node) ctr(ctx context.Context, args ...string) (string, error) {
	path, err := here().find("ctr")
	if err != nil {
		return "", err
	}
	return output(exec.CommandContext(ctx, path, append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...))
}

// output runs a command and returns what it wrote, or what it complained of as an error.
func output(command *exec.Cmd) (string, error) {
	content, err := command.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(failed.Stderr)))
	}
	return string(content), err
}
