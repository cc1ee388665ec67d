package chart

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/test/apiserver"
)

const (
	release   = "pillion"
	namespace = "pillion-system"
	selfCheck = "pillion-selfcheck"
)

var (
	// server is the API server of all tests, without Pillion's CustomResourceDefinitions: the chart brings them.
	server *apiserver.Server
	// objects reads and writes objects of any kind.
	objects dynamic.Interface
	// root is the repository, kubeconfig a cluster admin's.
	root, kubeconfig string
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(apiserver.Run(prepared{m}, apiserver.Options{WithoutCRDs: true}, func(s *apiserver.Server) { server = s }))
}

// prepared runs the tests with what they share.
type prepared struct{ *testing.M }

func (tests prepared) Run() int {
	dir, err := os.MkdirTemp("", "pillion-chart-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the tests have ended
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return tests.M.Run()
}

func prepare(dir string) (err error) {
	if root, err = apiserver.Root(); err != nil {
		return err
	}
	quiet := rest.CopyConfig(server.Config)
	quiet.WarningHandler = rest.NoWarnings{} // of kinds that are listed for being there
	if objects, err = dynamic.NewForConfig(quiet); err != nil {
		return err
	}
	if _, err := os.Stat(helmBinary()); err != nil {
		return fmt.Errorf("%w; build it by: make bin/tools/helm", err)
	}
	for _, variable := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		if err := os.Setenv(variable, filepath.Join(dir, strings.ToLower(variable))); err != nil {
			return err
		}
	}
	kubeconfig = filepath.Join(dir, "kubeconfig")
	return apiserver.WriteKubeconfig(server.Config, kubeconfig)
}

func helmBinary() string { return filepath.Join(root, "bin", "tools", "helm") }

func chartDir() string { return filepath.Join(root, "charts", "pillion") }

// run runs a program with the cluster admin's kubeconfig.
func run(ctx context.Context, program string, args ...string) (stdout string, err error) {
	command := exec.CommandContext(ctx, program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), strings.Join(args, " "), err, &out, &errs)
	}
	return out.String(), nil
}

// helm runs helm, in Pillion's namespace.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t.Context(), helmBinary(), append(slices.Clone(args), "--namespace", namespace)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// valueSets are the files of values that the chart is tried with, by their names.
func valueSets(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir(), "ci", "*-values.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("only %d sets of values were found: %v", len(files), err)
	}
	sets := map[string]string{}
	for _, file := range files {
		sets[strings.TrimSuffix(filepath.Base(file), "-values.yaml")] = file
	}
	return sets
}
