package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsMissingIsSaidAtOnceWithWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	programs := t.TempDir()
	for _, name := range []string{
		"containerd", "containerd-shim-runc-v2", "iptables", "iptables-save", "iptables-restore", "ip", "mount", "umount",
	} {
		if err := os.WriteFile(filepath.Join(programs, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		machine machine
		want    []string
	}{
		"who is not root is told to be": {
			machine: machine{user: 1000, search: searchPath, plugins: here().plugins, packages: packages},
			want: []string{
				"this is not root, who alone may make the namespaces and cgroups of a node: run it as root, or with sudo -E",
			},
		},
		"packages are named together, by their names": {
			machine: machine{search: programs, packages: packages},
			want: []string{"there is no ctr, runc, CNI plugin ptp, host-local, portmap, loopback: " +
				"apt-get install --no-install-recommends containerd runc containernetworking-plugins"},
		},
		"what make test-images takes counts where it is asked for": {
			machine: machine{search: programs, packages: []debian{
				{"mount", []string{"mount"}},
				{"apt", []string{"apt-get"}},
				{"debian-archive-keyring", []string{programs + "/ip", programs + "/nosuch"}},
			}},
			want: []string{"there is no apt-get, " + programs +
				"/nosuch: apt-get install --no-install-recommends apt debian-archive-keyring"},
		},
		"a repository that the node could not see is told to move": {
			machine: machine{search: searchPath, plugins: here().plugins, packages: packages, root: "/var/lib/ci/pillion"},
			want:    []string{"/var/lib/ci/pillion is in /var/lib, of which a node has its own: move the repository"},
		},
		"a machine with all of it has no problem": {machine: here()},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := tc.machine.problems()
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestWhatIsNotBuiltIsSaid(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", t.TempDir())
	want := "KUBEBUILDER_ASSETS or bin/k8s has no etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, " +
		"kube-proxy, coredns, kubectl: run make node"
	if got := strings.Join(unbuilt(), "\n"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
