package availability

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/test/installation"
	"github.com/pillion-dev/pillion/test/network"
)

// soak asks for the long form: hours.
var soak = flag.Bool("soak", false, "run the long form of every test")

// binaryVariable tells where the binary is that was built before there was no network.
const binaryVariable = "TEST_BINARY"

func TestMain(m *testing.M) {
	flag.Parse()
	if address := os.Getenv(crowdVariable); address != "" {
		os.Exit(beCrowd(address))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(binaryVariable) == "" {
		dir, err := os.MkdirTemp("", "pillion-availability-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a directory for what is temporary
		binary, err := installation.Build(context.Background(), dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := os.Setenv(binaryVariable, binary); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return network.Isolate(m.Run)
}

// either returns what belongs to the form that was asked for.
func either[T int | time.Duration](short, long T) T {
	if *soak {
		return long
	}
	return short
}
