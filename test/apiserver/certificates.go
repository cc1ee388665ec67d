package apiserver

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Pair is a certificate and its private key, in PEM.
type Pair struct{ Certificate, Key []byte }

// Certificates are what an API server serves and signs with, where others have to trust it by names that it does not know itself.
type Certificates struct {
	// CA verifies Serving.
	CA []byte

	// Serving is what it answers with.
	Serving Pair

	// Tokens signs and verifies the tokens of ServiceAccounts.
	Tokens Pair
}

// write puts the certificates where an API server of envtest finds them; it makes its own where there are none.
func (c *Certificates) write(server *envtest.APIServer) error {
	for name, content := range map[string][]byte{
		"apiserver.crt": c.Serving.Certificate, "apiserver.key": c.Serving.Key,
		"sa-signer.crt": c.Tokens.Certificate, "sa-signer.key": c.Tokens.Key,
	} {
		if err := os.WriteFile(filepath.Join(server.CertDir, name), content, 0o600); err != nil {
			return fmt.Errorf("write the API server's certificates: %w", err)
		}
	}
	server.CA = c.CA
	return nil
}

// User returns the configuration of a user with a client certificate, who has the permissions that are bound to the name and the
// groups.
func (s *Server) User(name string, groups ...string) (*rest.Config, error) {
	user, err := s.environment.ControlPlane.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, fmt.Errorf("make user %s: %w", name, err)
	}
	return user.Config(), nil
}
