// Command demo shows Pillion's main job on a real API server: Pods that ask by annotation, by their namespace's label, that policy
// chooses, and one that asks for something wrong; and what is told to whoever applies a workload or asks why. It ends cleanly, also
// on Ctrl-C. With KEEP=1 in the environment everything stays up until Ctrl-C, and a kubeconfig is printed.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
	"github.com/pillion-dev/pillion/test/terminal"
)

//go:embed manifests
var manifests embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Getenv("KEEP") != ""); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to clean up: run has done it
	}
}

// scene is one Pod and how it asks.
type scene struct{ title, manifest string }

func scenes() []scene {
	return []scene{
		{"A Pod asks by annotation, and overrides one field", "annotation.yaml"},
		{"A namespace's label asks for every Pod in it", "namespace-label.yaml"},
		{"Policy chooses a Pod that asks for nothing", "policy.yaml"},
		{"A Pod asks for something wrong", "wrong.yaml"},
	}
}

// run shows the demonstration. Whatever happens, what it started has ended when it returns.
func run(ctx context.Context, out io.Writer, keep bool) (err error) {
	step := terminal.Steps(out)
	dir, err := os.MkdirTemp("", "pillion-demo-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step("starting etcd and kube-apiserver on loopback")
	server, err := apiserver.Start(ctx, apiserver.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	step("building pillion")
	binary, err := installation.Build(ctx, dir)
	if err != nil {
		return err
	}
	step("starting controller and webhook, two processes with two ServiceAccounts")
	logFile, err := os.Create(filepath.Join(dir, "pillion.log"))
	if err != nil {
		return fmt.Errorf("make a log file: %w", err)
	}
	defer logFile.Close() //nolint:errcheck // nothing reads it any more
	pillion, err := installation.Start(ctx, server, installation.Options{Binary: binary, Log: logFile})
	if err != nil {
		return errors.Join(err, quote(logFile.Name()))
	}
	defer func() { err = errors.Join(err, pillion.Stop()) }()

	step("installing profiles and waiting until they are ready")
	if err := installProfiles(ctx, server, out); err != nil {
		return err
	}
	screen, err := newTerminal(out, server, binary, dir, workload)
	if err != nil {
		return err
	}
	for i, scene := range scenes() {
		screen.Heading(i+1, scene.title)
		if err := play(ctx, server, out, scene.manifest); err != nil {
			return fmt.Errorf("%s: %w", scene.manifest, err)
		}
	}
	screen.Heading(len(scenes())+1, "Whoever applies a workload is told at once, and may ask why")
	if err := ask(ctx, screen); err != nil {
		return err
	}
	if !keep {
		_, _ = fmt.Fprintf(out, "\nThat is all. 'make demo KEEP=1' stays up, for Pods of your own.\n")
		return nil
	}
	return stayUp(ctx, screen)
}

// installProfiles installs the profiles and returns once the controller says that they are ready.
func installProfiles(ctx context.Context, server *apiserver.Server, out io.Writer) error {
	objects, err := objectsOf("profiles.yaml")
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := server.Apply(ctx, object); err != nil {
			return err
		}
		if err := awaitReady(ctx, server, object.GetName()); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "      %s %s is ready\n", object.GetKind(), object.GetName())
	}
	return nil
}

func awaitReady(ctx context.Context, server *apiserver.Server, name string) error {
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		profile := &v1alpha1.ClusterPatternProfile{}
		if err := server.Client.Get(ctx, client.ObjectKey{Name: name}, profile); err != nil {
			return false, err
		}
		ready := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil {
			return false, fmt.Errorf("profile %s has no condition Ready yet", name)
		}
		return ready.Status == metav1.ConditionTrue, fmt.Errorf("profile %s: %s", name, ready.Message)
	})
}

// play creates what a manifest holds and tells what became of the Pod in it.
func play(ctx context.Context, server *apiserver.Server, out io.Writer, manifest string) error {
	objects, err := objectsOf(manifest)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if object.GetKind() != "Pod" {
			if err := server.Apply(ctx, object); err != nil {
				return err
			}
			describeRequest(out, object)
			continue
		}
		before := &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, before); err != nil {
			return fmt.Errorf("read the Pod: %w", err)
		}
		describeRequest(out, object)
		after := before.DeepCopy()
		if err := server.Client.Create(ctx, after); err != nil {
			describeDenial(out, before, err)
			continue
		}
		describePod(out, before, after)
	}
	return nil
}

func objectsOf(manifest string) ([]*unstructured.Unstructured, error) {
	file, err := manifests.Open("manifests/" + manifest)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	return apiserver.Read(file)
}

// workload asks for something wrong.
const workload = "deployment.yaml"

// ask applies the workload, and asks why its Pods are refused. A command that fails says so itself.
func ask(ctx context.Context, screen *terminal.Terminal) error {
	for _, command := range []string{
		"kubectl apply -f " + workload,
		"kubectl pillion explain deployment/store -n shop",
		"kubectl pillion profiles -n shop",
	} {
		if err := terminal.IgnoreFailure(screen.Run(ctx, command)); err != nil {
			return err
		}
	}
	return nil
}

// stayUp prints how to reach the API server and waits for Ctrl-C.
func stayUp(ctx context.Context, screen *terminal.Terminal) error {
	_, _ = fmt.Fprintf(screen.Out, "\nStaying up until Ctrl-C. In another terminal:\n\n  %s\n", exports(screen))
	_, _ = fmt.Fprintf(screen.Out, "  kubectl get pillion; kubectl get pods -A -l %s=true; kubectl pillion help\n", v1alpha1.InjectedKey)
	<-ctx.Done()
	_, _ = fmt.Fprintln(screen.Out, "\nending")
	return nil
}

// quote returns the end of a log as an error, so that a start that failed explains itself.
func quote(logFile string) error {
	content, err := os.ReadFile(logFile)
	if err != nil {
		return err
	}
	const most = 4000
	if len(content) > most {
		content = content[len(content)-most:]
	}
	return fmt.Errorf("the log ends:\n%s", content)
}
