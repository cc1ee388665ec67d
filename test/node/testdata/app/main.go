// Command app is what the tests of the node run in Pods.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do")
	}
	switch rest := args[1:]; args[0] {
	case "echo": // WORDS
		fmt.Println(strings.Join(rest, " "))
		return nil
	case "write": // FILE WORDS
		return os.WriteFile(rest[0], []byte(strings.Join(rest[1:], " ")), 0o644)
	case "show": // FILE: then wait for the end
		content, err := os.ReadFile(rest[0])
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", content)
		return wait()
	case "wait":
		return wait()
	case "exists": // FILE
		_, err := os.Stat(rest[0])
		return err
	case "serve": // ADDRESS: answers with the host's name
		go func() { _ = wait(); os.Exit(0) }()
		return http.ListenAndServe(rest[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			name, _ := os.Hostname()
			fmt.Fprintf(w, "this is %s\n", name)
		}))
	case "get": // URL
		return get(http.DefaultTransport, rest[0], "")
	case "api": // PATH, of the API server, as the Pod's ServiceAccount
		return api(rest[0])
	default:
		return fmt.Errorf("what is %s", args[0])
	}
}

func wait() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	return nil
}

func api(path string) error {
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	ca, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		return err
	}
	token, err := os.ReadFile(dir + "token")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, host := range []string{os.Getenv("KUBERNETES_SERVICE_HOST"), "kubernetes.default.svc"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
		if err := get(transport, "https://"+host+path, string(token)); err != nil {
			return err
		}
	}
	return nil
}

func get(transport http.RoundTripper, url, token string) error {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
