// Command adaptershop is an app without Prometheus metrics. It tells what it does in three ways, as apps do: a JSON document on
// loopback, StatsD lines if its environment names a server, and a log file if its directory can be written to. It takes orders at
// port 8080.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

// The places of the app.
const (
	shopAddress   = ":8080"
	statusAddress = "127.0.0.1:8081"
	logDirectory  = "/var/log/shop"
)

// greetings is how often the app says by UDP, and by TCP, that it has started: before anything else, and without a second try.
const greetings = 100

func main() {
	statsd, err := dialStatsD()
	if err == nil {
		switch {
		case len(os.Args) == 3 && os.Args[1] == "fetch":
			err = fetch(os.Args[2])
		case len(os.Args) == 2 && os.Args[1] == "sockets":
			err = sockets()
		default:
			err = serve(statsd)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dialStatsD greets the StatsD server of the environment, if there is one and this is the app itself.
func dialStatsD() (io.Writer, error) {
	if os.Getenv("STATSD_HOST") == "" || len(os.Args) > 1 {
		return io.Discard, nil
	}
	address := net.JoinHostPort(os.Getenv("STATSD_HOST"), os.Getenv("STATSD_PORT"))
	udp, err := net.Dial("udp", address)
	if err != nil {
		return nil, err
	}
	for range greetings {
		if _, err := io.WriteString(udp, "shop.started.udp:1|c"); err != nil {
			return nil, fmt.Errorf("a line is lost: %w", err)
		}
	}
	tcp, err := net.Dial("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("lines are lost: %w", err)
	}
	if _, err := io.WriteString(tcp, strings.Repeat("shop.started.tcp:1|c\n", greetings)); err != nil {
		return nil, fmt.Errorf("lines are lost: %w", err)
	}
	return udp, tcp.Close()
}

// serve takes orders.
func serve(statsd io.Writer) error {
	s := newShop(statsd, logDirectory)
	ended := make(chan error)
	go func() { ended <- http.ListenAndServe(statusAddress, s.status()) }()
	go func() { ended <- http.ListenAndServe(shopAddress, s.business()) }()
	return <-ended
}

// fetch writes what a URL answers, as seen from within the Pod.
func fetch(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// sockets writes the Pod's sockets, as the kernel lists them.
func sockets() error {
	for _, protocol := range []string{"tcp", "tcp6", "udp", "udp6"} {
		content, err := os.ReadFile("/proc/net/" + protocol)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(content)) {
			fmt.Print(protocol, " ", line)
		}
	}
	return nil
}
