package docs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

var (
	update = flag.Bool("update", false, "write what woven Pods look like into the documentation")

	server *apiserver.Server
	// binary is the path of pillion.
	binary string
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(apiserver.Run(installed{m}, apiserver.Options{}, func(s *apiserver.Server) { server = s }))
}

// installed runs the tests with Pillion installed: two processes, as in a cluster.
type installed struct{ *testing.M }

func (tests installed) Run() int {
	code, err := tests.run(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (tests installed) run(ctx context.Context) (code int, err error) {
	dir, err := os.MkdirTemp("", "pillion-docs-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if binary, err = installation.Build(ctx, dir); err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(dir, "pillion.log"))
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // nothing reads it any more
	pillion, err := installation.Start(ctx, server, installation.Options{Binary: binary, Log: log})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, pillion.Stop()) }()
	return tests.M.Run(), nil
}
