package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// clientCAEvery is how often the file of clientCA is looked at. It is read, and not watched: so a file that is replaced, a symbolic
// link on the way to it that is, as Kubernetes does in a mounted Secret or ConfigMap, and one that is written in place are alike.
const clientCAEvery = time.Second

// clientCA holds whom the clients' certificates have to be of: those of a file, and the last good ones where it is broken.
type clientCA struct {
	path  string
	names []string // of clients; none: all that have a certificate of the CA
	base  *tls.Config

	content []byte
	config  atomic.Pointer[tls.Config]
	fault   atomic.Pointer[string] // nil: the file is well
}

// newClientCA reads the file. base is what else a server does; it is not changed.
func newClientCA(path string, names []string, base *tls.Config) (*clientCA, error) {
	c := &clientCA{path: path, names: names, base: base}
	if err := c.read(); err != nil {
		return nil, fmt.Errorf("webhook.clientCA: %w", err)
	}
	return c, nil
}

// follow reads the file again and again until ctx ends.
func (c *clientCA) follow(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(clientCAEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		before := c.config.Load()
		err := c.read()
		noteChange(&c.fault, err, func(problem string) {
			if problem == "" {
				logger.Info("the file of webhook.clientCA is well again", "file", c.path)
				return
			}
			logger.Warn("the file of webhook.clientCA cannot be used; clients are verified by what it held before", "error", problem)
		})
		if c.config.Load() != before {
			logger.Info("clients are verified by what the file of webhook.clientCA holds now", "file", c.path)
		}
	}
}

// read takes what the file holds, if it is well and another than before.
func (c *clientCA) read() error {
	content, err := os.ReadFile(c.path)
	if err != nil {
		return fmt.Errorf("read the file of CA certificates: %w", err)
	}
	if c.config.Load() != nil && bytes.Equal(content, c.content) {
		return nil
	}
	pool, err := readCertificates(content)
	if err != nil {
		return fmt.Errorf("%s %w", c.path, err)
	}
	config := c.base.Clone()
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	if len(c.names) > 0 {
		config.VerifyConnection = c.verifyName
	}
	c.content = content
	c.config.Store(config)
	return nil
}

// forClient is for tls.Config.GetConfigForClient.
func (c *clientCA) forClient(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config.Load(), nil }

// verifyName is for tls.Config.VerifyConnection: the chain has been verified.
func (c *clientCA) verifyName(state tls.ConnectionState) error {
	leaf := state.PeerCertificates[0]
	if slices.Contains(c.names, leaf.Subject.CommonName) || slices.ContainsFunc(leaf.DNSNames, func(name string) bool {
		return slices.Contains(c.names, name)
	}) {
		return nil
	}
	return &clientNameError{append([]string{leaf.Subject.CommonName}, leaf.DNSNames...)}
}

// clientNameError says that a client is not one of those that may call.
type clientNameError struct{ names []string }

func (e *clientNameError) Error() string {
	return fmt.Sprintf("the client's certificate is for %q, which webhook.clientNames does not list", strings.Join(e.names, ", "))
}

// readCertificates reads PEM of certificates and of nothing else: a file that is half-written is not taken for a shorter list.
func readCertificates(content []byte) (*x509.CertPool, error) {
	pool, found, begun := x509.NewCertPool(), 0, bytes.Count(content, []byte("-----BEGIN"))
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		content = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s: it has to hold certificates of CAs in PEM, and nothing else", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate that cannot be read, number %d", found+1)
		}
		pool.AddCert(certificate)
		found++
	}
	switch {
	case begun == 0:
		return nil, errors.New("holds no certificate in PEM")
	case found != begun:
		return nil, fmt.Errorf("is broken or cut off: %d certificates begin in it, and %d can be read", begun, found)
	}
	return pool, nil
}
