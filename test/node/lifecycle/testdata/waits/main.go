// Command waits runs until it is told to end. It is an app, or a sidecar, of which nothing matters but that it is there.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	<-told
}
