package main

import (
	"encoding/pem"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func writeFile(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// serveHTTPS serves the repositories of a folder as git's own server does, to those who know the password.
func serveHTTPS(t *testing.T, s *server, user, password string) (url, ca string) {
	t.Helper()
	backend := &cgi.Handler{
		Path: filepath.Join(s.git(s.home, "--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Dir(s.bare), "GIT_HTTP_EXPORT_ALL=1", "HOME=" + s.home},
	}
	if _, err := os.Stat(backend.Path); err != nil {
		t.Fatalf("git's own server is not here; it is part of git: %v", err)
	}
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	return web.URL + "/" + filepath.Base(s.bare), writeFile(t, "ca.crt", string(certificate), 0o644)
}

func TestHTTPSWithAPassword(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "secret"})
	url, ca := serveHTTPS(t, s, "user", "it's a $ecret")
	right := writeFile(t, "password", "it's a $ecret\n", 0o444)
	wrong := writeFile(t, "password", "guess", 0o444)

	tests := map[string]struct {
		args, environment []string
		status            int
		want              string
	}{
		"the user by a flag": {args: []string{"--username=user", "--password-file=" + right}},
		"the user by the environment, as from a Secret": {
			args: []string{"--password-file=" + right}, environment: []string{"GITSYNC_USERNAME=user"},
		},
		"a wrong password": {
			args: []string{"--username=user", "--password-file=" + wrong}, status: 1, want: "Authentication failed",
		},
		"none": {status: 1, want: "could not read Username"},
		"a HOME that cannot be written to": {
			args: []string{"--username=user", "--password-file=" + right}, environment: []string{"HOME=/nosuch"},
			status: 1, want: "a password wants a HOME that can be written to",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			of := *s
			of.t, of.volume = t, t.TempDir()
			p := of.start(append([]string{"GIT_SSL_CAINFO=" + ca}, test.environment...), of.args(onceArgs, append(test.args, "--repo="+url)...)...)
			if status := p.wait(); status != test.status || !strings.Contains(p.output(), test.want) {
				t.Errorf("it ended with %d; want %d and %q:\n%s", status, test.status, test.want, p.output())
			}
			if strings.Contains(p.output(), "ecret") {
				t.Errorf("the log shows the password:\n%s", p.output())
			}
			if test.status == 0 && !of.has("page", "secret")() {
				t.Error("the files are not there")
			}
		})
	}
}

// A program in place of ssh tells how it was called, and runs here what it should have run there.
func TestSSHIsCalledWithTheKeyAndTheKnownHosts(t *testing.T) {
	s := newServer(t)
	s.push(map[string]string{"page": "by ssh"})
	bin, calls := t.TempDir(), filepath.Join(t.TempDir(), "calls")
	script := "#!/bin/sh\necho \"$*\" >>'" + calls + "'\nfor last; do :; done\nexec sh -c \"$last\"\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	key, hosts := writeFile(t, "ssh", "key", 0o444), writeFile(t, "known_hosts", "hosts", 0o444)

	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"known hosts": {
			args: []string{"--ssh-known-hosts-file=" + hosts},
			want: "-i " + key + " -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + hosts + " ",
		},
		"any host": {
			args: []string{"--ssh-known-hosts=false"},
			want: "-i " + key + " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			of := *s
			of.t, of.volume = t, t.TempDir()
			args := of.args(onceArgs, append(test.args, "--ssh-key-file="+key, "--repo=ssh://git@git.example.com"+s.bare)...)
			p := of.start([]string{"PATH=" + bin + ":" + os.Getenv("PATH")}, args...)
			if status := p.wait(); status != 0 || !of.has("page", "by ssh")() {
				t.Fatalf("it ended with %d and has not the page:\n%s", status, p.output())
			}
			called, err := os.ReadFile(calls)
			if err != nil || !strings.Contains(string(called), test.want) || !strings.Contains(string(called), "git@git.example.com") {
				t.Errorf("ssh was called with %q (%v); want %q", called, err, test.want)
			}
		})
	}
}

func TestTheWebhookIsToldUntilItAnswers(t *testing.T) {
	s := newServer(t)
	first := s.push(map[string]string{"page": "1"})
	var mu sync.Mutex
	var calls []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Gitsync-Hash"))
		if len(calls) > 1 { // the app is not up yet at the first
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer web.Close()
	called := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(calls) >= n
		}
	}
	p := s.start(nil, s.args(continuousArgs, "--webhook-url="+web.URL+"/-/reload?a=b", "--webhook-method=PUT", "--webhook-success-status=204",
		"--webhook-timeout=30s", "--webhook-backoff=10ms")...)
	p.await("a failed call and one that succeeds", called(2))
	second := s.push(map[string]string{"page": "2"})
	p.await("the call for the push", called(3))

	mu.Lock()
	defer mu.Unlock()
	for i, hash := range []string{first, first, second} {
		if want := "PUT /-/reload?a=b " + hash; calls[i] != want {
			t.Errorf("call %d is %q; want %q", i, calls[i], want)
		}
	}
	if !strings.Contains(p.output(), "answered 200, not 204") {
		t.Errorf("the log does not say why the first call failed:\n%s", p.output())
	}
}
