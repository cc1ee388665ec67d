// Package gitserver serves git repositories to tests and the demo as git's own server does: git-http-backend answers over
// HTTP, and git-upload-pack over ssh. It can be made to keep its callers waiting, and to ask them for a password or a key.
//
//	server, err := gitserver.Start(ctx, dir, node.Address+":0")
//	err = server.Create("site")
//	commit, err := server.Push(ctx, "site", map[string]string{"index.html": "Hello"}, "the first page")
//	url := server.URL("site")
package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Branch is the one that Push pushes to, and HEAD of every repository.
const Branch = "main"

// Server serves the repositories of a directory, to read. Its methods may be called at the same time.
type Server struct {
	dir string

	listener net.Listener
	web      *http.Server
	backend  *cgi.Handler

	// secure and certificate are ServeTLS's, ssh is ServeSSH's.
	secure      net.Listener
	certificate []byte
	ssh         *sshServer

	mu           sync.Mutex
	repositories map[string]*repository
}

// repository is what the server knows of one.
type repository struct {
	// pushing is held by whoever works in the clone.
	pushing sync.Mutex

	// mu is for what follows.
	mu    sync.Mutex
	login *login
	gate  *gate
}

// login is what HTTP wants of readers.
type login struct{ user, password string }

// Start serves the repositories of a directory, which Create adds to, at an address such as 10.89.0.1:0. A directory that an
// earlier Server left is served as it is. The server ends with the context, or by Stop.
func Start(ctx context.Context, dir, listenAddress string) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, repositories: map[string]*repository{}}
	if err := s.find(); err != nil {
		return nil, err
	}
	commands, err := s.git(ctx, dir, "--exec-path")
	if err != nil {
		return nil, err
	}
	s.backend = &cgi.Handler{
		Path: filepath.Join(commands, "git-http-backend"),
		Env:  append(s.environment(), "GIT_PROJECT_ROOT="+s.served(), "GIT_HTTP_EXPORT_ALL=1"),
		// It complains of clients that left, as those do who are killed. What git itself has to say goes to stderr.
		Logger: log.New(io.Discard, "", 0),
	}
	if _, err := os.Stat(s.backend.Path); err != nil {
		return nil, fmt.Errorf("git's server is part of git: %w", err)
	}
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", listenAddress); err != nil {
		return nil, err
	}
	s.web = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.web.Serve(s.listener) }() // it returns when Stop closes the listener
	context.AfterFunc(ctx, func() { _ = s.Stop() })
	return s, nil
}

// find takes up the repositories that are there.
func (s *Server) find() error {
	if err := os.MkdirAll(s.served(), 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.served())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		s.repositories[strings.TrimSuffix(entry.Name(), ".git")] = &repository{}
	}
	return nil
}

// Stop ends the server at once, and what it was about to answer. The repositories stay, for another Start.
func (s *Server) Stop() error {
	err := s.web.Close()
	if s.ssh != nil {
		err = errors.Join(err, s.ssh.stop())
	}
	return err
}

// Address is where the server listens for HTTP: a host and a port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// URL is a repository's, over HTTP.
func (s *Server) URL(repo string) string { return "http://" + s.Address() + "/" + repo + ".git" }

// served has the bare repositories, NAME.git, and clones those that are pushed from.
func (s *Server) served() string { return filepath.Join(s.dir, "served") }
func (s *Server) clones() string { return filepath.Join(s.dir, "clones") }

func (s *Server) bare(repo string) string { return filepath.Join(s.served(), repo+".git") }

// name is what a repository may be called.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// Create makes an empty repository.
func (s *Server) Create(repo string) error {
	if !name.MatchString(repo) {
		return fmt.Errorf("a repository's name is of lower case letters, digits and dashes: not %q", repo)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.repositories[repo] != nil {
		return fmt.Errorf("there is a repository %s already", repo)
	}
	_, err := s.git(context.Background(), s.dir, "init", "--quiet", "--bare", "--initial-branch="+Branch, s.bare(repo))
	if err != nil {
		return err
	}
	s.repositories[repo] = &repository{}
	return nil
}

func (s *Server) repository(repo string) (*repository, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.repositories[repo]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("there is no repository %s", repo)
}

// Protect lets a repository be read over HTTP only by who knows a user's password.
func (s *Server) Protect(repo, user, password string) error {
	r, err := s.repository(repo)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.login = &login{user, password}
	return nil
}

// admits tells whether a request comes from who may read the repository over HTTP.
func (r *repository) admits(request *http.Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	user, password, _ := request.BasicAuth()
	return r.login == nil || *r.login == login{user, password}
}

// serve answers over HTTP.
func (s *Server) serve(w http.ResponseWriter, request *http.Request) {
	first, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
	r, err := s.repository(strings.TrimSuffix(first, ".git"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if !r.admits(request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "wrong user or password", http.StatusUnauthorized)
		return
	}
	if r.wait(request.Context()) == nil {
		s.backend.ServeHTTP(w, request)
	}
}
