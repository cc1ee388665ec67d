package apiserver

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// EtcdURL is where the server's etcd is.
func (s *Server) EtcdURL() *url.URL { return s.environment.ControlPlane.Etcd.URL }

// StartSecond starts another API server over an etcd that serves one already, as a control plane of several has. The etcd may be reached
// by another way than the first server's (see EtcdURL). It has users of its own; whoever has a token of the first is unknown to it. Call
// Stop before the first server's.
func StartSecond(etcd *url.URL, options Options) (*Server, error) {
	dir, err := os.MkdirTemp("", "pillion-apiserver-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the API server: %w", err)
	}
	s := &Server{dir: dir}
	if err := s.startSecond(etcd, options); err != nil {
		return nil, errors.Join(fmt.Errorf("start a second API server: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) startSecond(etcd *url.URL, options Options) error {
	output := options.Log
	tail := &tail{}
	if output == nil {
		output = tail
	}
	leash, err := newLeash(s.dir)
	if err != nil {
		return err
	}
	s.leash = leash
	path, err := binary("kube-apiserver")
	if err != nil {
		return err
	}
	if path, err = leash.wrap(path); err != nil {
		return err
	}
	s.environment = &envtest.Environment{UseExistingCluster: new(false)}
	plane := &s.environment.ControlPlane
	server := plane.GetAPIServer()
	server.Path, server.EtcdURL, server.CertDir = path, etcd, filepath.Join(s.dir, "certs")
	server.Out, server.Err, server.StartTimeout, server.StopTimeout = output, output, startTimeout, stopTimeout
	if err := configure(server, options); err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail)
	}
	user, err := plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, &rest.Config{})
	if err != nil {
		return fmt.Errorf("make a user: %w", err)
	}
	s.Config = user.Config()
	return s.connect()
}
