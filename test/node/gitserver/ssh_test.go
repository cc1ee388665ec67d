package gitserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOverSSHAKeyIsWantedAndTheServerKnown(t *testing.T) {
	s := start(t, t.TempDir())
	if err := s.ServeSSH(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "site")
	want := push(t, s, Branch, map[string]string{"a": "1"})
	right, err := s.Authorize()
	if err != nil {
		t.Fatal(err)
	}
	wrong, other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	asRoot := strings.Replace(s.SSHURL("site"), "git@", "root@", 1)
	for name, test := range map[string]struct{ url, key, hosts, want string }{
		"all is right":      {url: s.SSHURL("site"), key: right, hosts: s.KnownHosts()},
		"another key":       {url: s.SSHURL("site"), key: wrong, hosts: s.KnownHosts(), want: "Permission denied (publickey)"},
		"another server":    {url: s.SSHURL("site"), key: right, hosts: s.KnownHostsWith(other), want: "Host key verification failed"},
		"another user":      {url: asRoot, key: right, hosts: s.KnownHosts(), want: "Permission denied"},
		"no such directory": {url: s.SSHURL("nosuch"), key: right, hosts: s.KnownHosts(), want: "there is no repository nosuch"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			key, hosts := filepath.Join(dir, "key"), filepath.Join(dir, "known_hosts")
			for path, content := range map[string]string{key: test.key, hosts: test.hosts} {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			command := "GIT_SSH_COMMAND=ssh -F none -i " + key + " -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes" +
				" -o UserKnownHostsFile=" + hosts
			files, commit, err := fetch(t, test.url, Branch, command)
			if test.want != "" {
				if err == nil || !strings.Contains(commit, test.want) {
					t.Errorf("%v: %s; want %q", err, commit, test.want)
				}
				return
			}
			if err != nil || commit != want || files["a"] != "1" {
				t.Errorf("%s with %v (%v); want %s", commit, files, err, want)
			}
		})
	}
}
