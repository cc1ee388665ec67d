package gitserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// ServeTLS serves the same over HTTPS, at an address of its own, with a certificate that it signs itself.
func (s *Server) ServeTLS(ctx context.Context, listenAddress string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listenAddress)
	if err != nil {
		return err
	}
	certificate, err := selfSigned(listener.Addr())
	if err != nil {
		return err
	}
	s.secure, s.certificate = listener, certificate.Certificate[0]
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	go func() { _ = s.web.Serve(secured) }() // it returns when Stop closes the listener
	return nil
}

// TLSURL is a repository's, over HTTPS.
func (s *Server) TLSURL(repo string) string {
	return "https://" + s.secure.Addr().String() + "/" + repo + ".git"
}

// Certificate is the server's own, in PEM.
func (s *Server) Certificate() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate}))
}

// selfSigned makes a certificate for an address.
func selfSigned(address net.Addr) (tls.Certificate, error) {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return tls.Certificate{}, fmt.Errorf("%s is no address of TCP", address)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), IPAddresses: []net.IP{tcp.IP},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
