package gitserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// SSHUser is who logs in over ssh, by a key.
const SSHUser = "git"

// sshServer answers git over ssh.
type sshServer struct {
	server   *Server
	listener net.Listener
	host     ssh.Signer

	mu          sync.Mutex
	authorized  map[string]bool
	connections map[net.Conn]bool
}

// ServeSSH serves the same repositories over ssh, at an address of its own, to who has a key that Authorize knows.
func (s *Server) ServeSSH(ctx context.Context, listenAddress string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	host, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listenAddress)
	if err != nil {
		return err
	}
	s.ssh = &sshServer{
		server: s, listener: listener, host: host, authorized: map[string]bool{}, connections: map[net.Conn]bool{},
	}
	go s.ssh.accept()
	return nil
}

// Authorize makes a key that may read everything over ssh, as a Secret holds it.
func (s *Server) Authorize() (privateKey string, err error) {
	privateKey, public, err := NewKey()
	if err != nil {
		return "", err
	}
	s.ssh.mu.Lock()
	defer s.ssh.mu.Unlock()
	s.ssh.authorized[string(public.Marshal())] = true
	return privateKey, nil
}

// NewKey makes a key that nobody knows yet.
func NewKey() (privateKey string, public ssh.PublicKey, err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return "", nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return "", nil, err
	}
	return string(pem.EncodeToMemory(block)), signer.PublicKey(), nil
}

// SSHURL is a repository's, over ssh.
func (s *Server) SSHURL(repo string) string {
	return "ssh://" + SSHUser + "@" + s.ssh.listener.Addr().String() + "/" + repo + ".git"
}

// KnownHosts is the line of a known_hosts file for this server.
func (s *Server) KnownHosts() string { return s.KnownHostsWith(s.ssh.host.PublicKey()) }

// KnownHostsWith is the line that gives this server another key.
func (s *Server) KnownHostsWith(key ssh.PublicKey) string {
	host, port, _ := net.SplitHostPort(s.ssh.listener.Addr().String())
	return fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(key))
}

func (s *sshServer) stop() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for connection := range s.connections {
		_ = connection.Close() // whoever serves it may have closed it
	}
	return err
}

func (s *sshServer) accept() {
	config := &ssh.ServerConfig{PublicKeyCallback: s.knows}
	config.AddHostKey(s.host)
	for {
		connection, err := s.listener.Accept()
		if err != nil {
			return // by stop
		}
		go s.serve(connection, config)
	}
}

func (s *sshServer) knows(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if meta.User() != SSHUser || !s.authorized[string(key.Marshal())] {
		return nil, errors.New("nobody who may read")
	}
	return nil, nil
}

// serve answers one connection, and ends with it what it asked for.
func (s *sshServer) serve(connection net.Conn, config *ssh.ServerConfig) {
	s.mu.Lock()
	s.connections[connection] = true
	s.mu.Unlock()
	defer func() {
		_ = connection.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.connections, connection)
	}()
	_, channels, requests, err := ssh.NewServerConn(connection, config)
	if err != nil {
		return // the client was told
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go ssh.DiscardRequests(requests)
	for request := range channels {
		if request.ChannelType() != "session" {
			_ = request.Reject(ssh.UnknownChannelType, "there are sessions and nothing else")
			continue
		}
		channel, asked, err := request.Accept()
		if err != nil {
			return
		}
		go s.session(ctx, channel, asked)
	}
}

// session runs the one command that it is asked for.
func (s *sshServer) session(ctx context.Context, channel ssh.Channel, asked <-chan *ssh.Request) {
	defer func() { _ = channel.Close() }() // the client may have closed it
	for request := range asked {
		var command struct{ Line string }
		if request.Type != "exec" || ssh.Unmarshal(request.Payload, &command) != nil {
			_ = request.Reply(false, nil)
			continue
		}
		_ = request.Reply(true, nil)
		go ssh.DiscardRequests(asked)
		var status struct{ Code uint32 }
		if err := s.upload(ctx, channel, command.Line); err != nil {
			fmt.Fprintln(channel.Stderr(), err)
			status.Code = 128
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
		return
	}
}

// upload runs git-upload-pack, the command by which git reads.
func (s *sshServer) upload(ctx context.Context, channel ssh.Channel, line string) error {
	argument, ok := strings.CutPrefix(line, "git-upload-pack ")
	if !ok {
		return fmt.Errorf("repositories can be read here, and nothing else: not %q", line)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(path.Clean(strings.Trim(argument, "'")), "/"), ".git")
	repository, err := s.server.repository(name)
	if err != nil {
		return err
	}
	if err := repository.wait(ctx); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "git", "upload-pack", s.server.bare(name))
	command.Env, command.Stdout, command.Stderr = s.server.environment(), channel, channel.Stderr()
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	go func() { // a client may close its end only when it has the status
		_, _ = io.Copy(input, channel)
		_ = input.Close()
	}()
	return command.Wait()
}
