package patterns_test

import (
	"os"
	"testing"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// cluster is the node with Pillion that all tests of this package use. Tests make namespaces of their own, and may run beside
// others.
var cluster *installed.Cluster

// programs are what the tests run in Pods: packages by the names of their images. Each file of tests adds its own, in an init.
var programs = map[string]string{}

func TestMain(m *testing.M) {
	os.Exit(installed.Run(m, installed.Options{Programs: programs}, func(c *installed.Cluster) { cluster = c }))
}
