package chart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
)

// processes are webhook and controller of an installation, with the configuration and the identities that the chart gives them.
// There is no node: they run here, and only where they listen is other than in a cluster.
type processes struct {
	binary, dir, webhookAddress string
	log                         *fixture.Log
	webhook, controller         *process
}

type process struct {
	name, health string
	args, env    []string
	command      *exec.Cmd
	ended        chan error
}

// build builds pillion once for all tests.
func build(t *testing.T) string {
	t.Helper()
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// startProcesses starts both, and returns once they are ready.
func startProcesses(t *testing.T, binary string) *processes {
	t.Helper()
	p := &processes{binary: binary, dir: t.TempDir(), log: &fixture.Log{}}
	t.Cleanup(func() {
		if t.Failed() {
			log := p.log.String()
			t.Logf("the end of Pillion's log:\n%s", log[max(0, len(log)-4000):])
		}
	})
	file := p.configuration(t)
	p.webhookAddress = freeAddress(t)
	controllerHealth, webhookHealth := freeAddress(t), freeAddress(t)
	p.controller = p.prepare(t, "controller", file, controllerHealth,
		"PILLION_CONTROLLER_HEALTH_ADDRESS="+controllerHealth, "PILLION_CONTROLLER_METRICS_ADDRESS=none",
		"PILLION_CONTROLLER_WEBHOOK_URL=https://"+p.webhookAddress)
	p.webhook = p.prepare(t, "webhook", file, webhookHealth,
		"PILLION_WEBHOOK_HEALTH_ADDRESS="+webhookHealth, "PILLION_WEBHOOK_METRICS_ADDRESS=none",
		"PILLION_WEBHOOK_LISTEN_ADDRESS="+p.webhookAddress, "PILLION_WEBHOOK_DRAIN_DELAY=0s")
	for _, one := range []*process{p.controller, p.webhook} {
		one.start(t, p)
	}
	for _, one := range []*process{p.controller, p.webhook} {
		one.awaitReady(t)
	}
	return p
}

// configuration writes the file that the chart's ConfigMap is mounted as.
func (p *processes) configuration(t *testing.T) string {
	t.Helper()
	return writeConfigMap(t, p.dir, "pillion", "config.yaml")
}

func writeConfigMap(t *testing.T, dir, name, key string) string {
	t.Helper()
	object := &corev1.ConfigMap{}
	if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, object); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, key)
	if err := os.WriteFile(file, []byte(object.Data[key]), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// identity writes the kubeconfig of a ServiceAccount.
func (p *processes) identity(t *testing.T, name string) string {
	t.Helper()
	config, err := server.ServiceAccountConfig(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.dir, name+".kubeconfig")
	if err := apiserver.WriteKubeconfig(config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func (p *processes) prepare(t *testing.T, name, file, health string, env ...string) *process {
	t.Helper()
	return &process{
		name: name, health: health, args: []string{name, "--config=" + file},
		env: append(env, "PILLION_KUBECONFIG="+p.identity(t, "pillion-"+name)),
	}
}

func (p *process) start(t *testing.T, of *processes) {
	t.Helper()
	command := exec.Command(of.binary, p.args...) //nolint:noctx // stop ends it
	command.Env = append(os.Environ(), p.env...)
	command.Stdout, command.Stderr = of.log, of.log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	p.command, p.ended = command, ended
	t.Cleanup(func() { p.stop(t) })
}

// stop ends the process in order. It does nothing if it has ended.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.command == nil {
		return
	}
	_ = p.command.Process.Signal(syscall.SIGTERM) // it fails only if the process has ended
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("the %s ended with %v", p.name, err)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("the %s does not end", p.name)
		_ = p.command.Process.Kill()
		if err := <-p.ended; err == nil {
			t.Errorf("the %s ended well when it was killed", p.name)
		}
	}
	p.command = nil
}

func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.health+"/readyz", http.NoBody)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close() //nolint:errcheck // only its status matters
		return response.StatusCode == http.StatusOK, errors.New(response.Status)
	})
	if err != nil {
		t.Fatalf("wait until the %s is ready: %v", p.name, err)
	}
}

// freeAddress returns an address on loopback that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nobody connected
	return listener.Addr().String()
}

// command runs a command of pillion as a ServiceAccount, as a Pod of it would.
func (p *processes) command(t *testing.T, account string, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), p.binary, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+p.identity(t, account))
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("pillion %v: %w\n%s", args, err, out)
	}
	return string(out), nil
}
