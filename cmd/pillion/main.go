// Command pillion is the admission webhook, the controller beside it, and what people run on manifests without a cluster.
package main

import (
	"context"
	"fmt"
	"os"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	if err := rootCommand().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "pillion:", err)
		os.Exit(1)
	}
}
