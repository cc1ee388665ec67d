package patterns_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/gitserver"
)

// privateGit is a git server whose repository nobody reads without a login: it knows one key, and one user's password.
type privateGit struct {
	*gitserver.Server
	key string
}

const gitUser, gitPassword = "reader", "correct horse"

func startPrivateGit(t *testing.T, files map[string]string) privateGit {
	t.Helper()
	server := startGit(t, files)
	if err := errors.Join(
		server.ServeSSH(t.Context(), node.Address+":0"), server.ServeTLS(t.Context(), node.Address+":0"),
		server.Protect(gitSyncRepository, gitUser, gitPassword),
	); err != nil {
		t.Fatal(err)
	}
	key, err := server.Authorize()
	if err != nil {
		t.Fatal(err)
	}
	return privateGit{server, key}
}

// overSSH are fields of gitSync for the repository over ssh, with a Secret.
func (s privateGit) overSSH(secret string) string {
	return fmt.Sprintf("repo: '%s', credentials: {ssh: {secretName: %s}}", s.SSHURL(gitSyncRepository), secret)
}

// overHTTPS are those for HTTPS. The server's certificate is no authority's, and it is believed unseen: what is asked here is
// who the client is.
func (s privateGit) overHTTPS(credentials string) string {
	return fmt.Sprintf("repo: '%s', credentials: {%s}, env: [{name: GIT_SSL_NO_VERIFY, value: 'true'}]",
		s.TLSURL(gitSyncRepository), credentials)
}

// gitSecret is a Secret of keys and values.
func gitSecret(name string, values ...string) string {
	var secret strings.Builder
	fmt.Fprintf(&secret, "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n", name)
	for i := 0; i < len(values); i += 2 {
		fmt.Fprintf(&secret, "  %s: %q\n", values[i], values[i+1])
	}
	return secret.String()
}

func (s privateGit) sshSecret(name string) string {
	return gitSecret(name, "ssh-privatekey", s.key, "known_hosts", s.KnownHosts())
}

func TestPrivateRepositoriesAreReadByAUserThatIsNotRoot(t *testing.T) {
	t.Parallel()
	server := startPrivateGit(t, map[string]string{gitSyncPage: "not for everybody"})
	namespace := cluster.CreateRestricted(t, nil)
	cluster.Apply(t, namespace, server.sshSecret("ssh")+
		gitSecret("basic", "username", gitUser, "password", gitPassword)+gitSecret("token", "token", gitPassword))
	logins := map[string]string{
		"ssh":   server.overSSH("ssh"),
		"basic": server.overHTTPS("basic: {secretName: basic}"),
		"token": server.overHTTPS("token: {secretName: token, username: " + gitUser + "}"),
	}
	for name, fields := range logins {
		createReader(t, namespace, name, fields+", period: 1s")
	}
	pods := map[string]*corev1.Pod{}
	for name := range logins {
		pod := readerStarted(t, namespace, name, "not for everybody")
		pods[name] = pod
		said, err := cluster.Exec(t.Context(), namespace, pod.Name, gitSyncContainer(name), "id", "-u")
		if uid := strings.TrimSpace(said); err != nil || uid == "0" || pod.Spec.SecurityContext.FSGroup != nil {
			t.Errorf("%s: git-sync runs as %q (%v) and the Pod's files are of group %v; want neither root nor a group", name, uid, err,
				pod.Spec.SecurityContext.FSGroup)
		}
	}
	pushFiles(t, server.Server, map[string]string{gitSyncPage: "still not"})
	for _, pod := range pods {
		awaitRead(t, pod, "still not")
	}
}

// obstacle is what keeps a Pod from its first sync until it is removed.
type obstacle struct {
	fields, secrets string
	says            []string
	remove          func(t *testing.T, namespace string)
}

func TestWhatKeepsAPodFromItsFirstSyncIsInItsStatusUntilItIsMended(t *testing.T) {
	t.Parallel()
	const want = "here at last"
	server := startGit(t, map[string]string{gitSyncPage: "main"})
	private := startPrivateGit(t, map[string]string{gitSyncPage: want})
	wrong, other, err := gitserver.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	away, awayDir := freeAddress(t), t.TempDir()
	apply := func(documents string) func(*testing.T, string) {
		return func(t *testing.T, namespace string) { cluster.Apply(t, namespace, documents) }
	}
	pushTo := func(branch string) func(*testing.T, string) {
		return func(t *testing.T, _ string) {
			if _, err := server.PushTo(t.Context(), gitSyncRepository, branch, map[string]string{gitSyncPage: want}, branch); err != nil {
				t.Fatal(err)
			}
		}
	}
	obstacles := map[string]obstacle{
		"wrong-ref": {
			fields: "repo: '" + server.URL(gitSyncRepository) + "', ref: v2",
			says:   []string{"couldn't find remote ref v2"},
			remove: pushTo("v2"),
		},
		"wrong-ref-once": {
			fields: "repo: '" + server.URL(gitSyncRepository) + "', ref: v3, mode: Once",
			says:   []string{"couldn't find remote ref v3"},
			remove: pushTo("v3"),
		},
		"no-repository": {
			fields: "repo: '" + server.URL("late") + "'",
			says:   []string{server.URL("late"), "not found"},
			remove: func(t *testing.T, _ string) {
				createRepository(t, server, "late", map[string]string{gitSyncPage: want})
			},
		},
		"no-server": {
			fields: "repo: 'http://" + away + "/" + gitSyncRepository + ".git'",
			says:   []string{"Failed to connect to " + node.Address},
			remove: func(t *testing.T, _ string) {
				startGitAt(t, awayDir, away, map[string]string{gitSyncPage: want})
			},
		},
		"another-host-key": {
			fields:  private.overSSH("another-host-key"),
			secrets: gitSecret("another-host-key", "ssh-privatekey", private.key, "known_hosts", private.KnownHostsWith(other)),
			says:    []string{"Host key verification failed"},
			remove:  apply(private.sshSecret("another-host-key")),
		},
		"no-known-hosts": {
			fields:  private.overSSH("no-known-hosts"),
			secrets: gitSecret("no-known-hosts", "ssh-privatekey", private.key),
			says:    []string{"No ED25519 host key is known", "Host key verification failed"},
			remove:  apply(private.sshSecret("no-known-hosts")),
		},
		"unknown-key": {
			fields:  private.overSSH("unknown-key"),
			secrets: gitSecret("unknown-key", "ssh-privatekey", wrong, "known_hosts", private.KnownHosts()),
			says:    []string{"Permission denied (publickey)"},
			remove:  apply(private.sshSecret("unknown-key")),
		},
		"no-secret": {
			fields: private.overSSH("no-secret"),
			says:   []string{"Host key verification failed"},
			remove: apply(private.sshSecret("no-secret")),
		},
		"no-key": {
			fields:  private.overSSH("no-key"),
			secrets: gitSecret("no-key", "known_hosts", private.KnownHosts()),
			says:    []string{"/etc/git-secret/ssh", "No such file", "Permission denied (publickey)"},
			remove:  apply(private.sshSecret("no-key")),
		},
		"no-password": {
			fields:  private.overHTTPS("basic: {secretName: no-password}"),
			secrets: gitSecret("no-password", "username", gitUser),
			says:    []string{"/etc/git-secret/password", "no such file"},
			remove:  apply(gitSecret("no-password", "username", gitUser, "password", gitPassword)),
		},
		"wrong-password": {
			fields:  private.overHTTPS("basic: {secretName: wrong-password}"),
			secrets: gitSecret("wrong-password", "username", gitUser, "password", "guess"),
			says:    []string{"Authentication failed"},
			remove:  apply(gitSecret("wrong-password", "username", gitUser, "password", gitPassword)),
		},
	}

	namespace := cluster.CreateRestricted(t, nil)
	created := map[string]time.Time{}
	for name, o := range obstacles {
		if o.secrets != "" {
			cluster.Apply(t, namespace, o.secrets)
		}
		createReader(t, namespace, name, o.fields)
		created[name] = time.Now()
	}
	pods := map[string]*corev1.Pod{}
	for name, o := range obstacles {
		pods[name] = cluster.PodThat(t, namespace, name, "tells why it waits", func(pod *corev1.Pod) error {
			if endOf(pod, gitSyncContainer(name)) == "" {
				return errors.New("nothing has failed yet")
			}
			return nil
		})
		awaitMessage(t, pods[name], gitSyncContainer(name), o.says...)
		told := endedAt(pods[name], gitSyncContainer(name)).Sub(created[name]).Round(time.Second)
		t.Logf("%s: git-sync ended, and the status told why, %s after the Deployment was created", name, told)
		checkAppWaits(t, pods[name])
	}
	checkDescribed(t, pods["wrong-ref"], obstacles["wrong-ref"].says...)

	for _, o := range obstacles {
		o.remove(t, namespace)
	}
	for name, pod := range pods {
		if ready := readerStarted(t, namespace, name, want); ready.UID != pod.UID {
			t.Errorf("%s: Pod %s came up, want %s to do so by itself", name, ready.Name, pod.Name)
		}
	}
}

// endedAt is when the container that a status tells of ended last.
func endedAt(pod *corev1.Pod, container string) time.Time {
	status := statusOf(pod, container)
	for _, ended := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
		if ended != nil {
			return ended.FinishedAt.Time
		}
	}
	return time.Time{}
}

// checkDescribed looks whether kubectl describe tells something of a Pod.
func checkDescribed(t *testing.T, pod *corev1.Pod, parts ...string) {
	t.Helper()
	said, err := cluster.Kubectl(t.Context(), "describe", "pod", "--namespace", pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("kubectl describe does not say %q:\n%s", part, said)
		}
	}
}

// freeAddress is one of the node where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", node.Address+":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}
