// Command app is what the benchmark runs in Pods. It tells when its first instruction ran, and whether what it was promised was
// there then: files that can be read, and addresses where somebody listens. Then it waits for SIGTERM, at which it ends.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// started is set before main is called.
var started = time.Now()

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)

	var broken []string
	check := func(name, usage string, holds func(string) error) {
		flag.Func(name, usage, func(value string) error {
			if err := holds(value); err != nil {
				broken = append(broken, err.Error())
			}
			return nil
		})
	}
	check("file", "a file that has to be there", readable)
	check("tcp", "an address where somebody has to listen", listensOnTCP)
	check("udp", "an address where somebody has to listen", listensOnUDP)
	report := flag.String("report", "", "the URL to report to")
	flag.Parse()

	body, err := json.Marshal(map[string]any{"started": started, "broken": broken})
	if err != nil {
		return err
	}
	response, err := http.Post(*report, "application/json", bytes.NewReader(body)) //nolint:noctx // the Pod ends if it hangs
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	<-signals
	return nil
}

func readable(path string) error {
	content, err := os.ReadFile(path)
	if err == nil && len(content) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return err
}

func listensOnTCP(address string) error {
	connection, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}

// listensOnUDP sends a metric. Where nobody listens the kernel says so in answer to it.
func listensOnUDP(address string) error {
	connection, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // it is only for this
	if _, err := connection.Write([]byte("started:1|c\n")); err != nil {
		return err
	}
	if err := connection.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := connection.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
