package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// searchPath is where Debian and others have what only root runs, and root's PATH may lack.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// machine is what decides whether a node can be started.
type machine struct {
	user int

	// search is where programs may be, besides PATH. plugins are where the CNI plugins may be: Debian's place and everybody
	// else's.
	search  string
	plugins []string

	// packages have to be installed.
	packages []debian

	// root is the directory of the module.
	root string
}

// here is this machine.
func here() machine {
	root, _ := apiserver.Root() // whoever lacks it is told by who looks for the programs in it
	return machine{
		user: os.Geteuid(), search: searchPath, plugins: []string{"/usr/lib/cni", "/opt/cni/bin"}, packages: packages, root: root,
	}
}

// hidden are the directories of the machine that the node has its own of.
var hidden = []string{"/run", "/var/lib", "/var/log"}

// debian is a package of Debian's, and what of it is needed: programs, or files by their absolute paths.
type debian struct {
	name  string
	holds []string
}

// packages are those of the programs that a node runs and that are not built here.
var packages = []debian{
	{"containerd", []string{"containerd", "containerd-shim-runc-v2", "ctr"}},
	{"runc", []string{"runc"}},
	{"containernetworking-plugins", nil}, // see plugins
	{"iptables", []string{"iptables", "iptables-save", "iptables-restore"}},
	{"iproute2", []string{"ip"}},
	{"mount", []string{"mount", "umount"}},
}

// packagesOfTests are those that the images of make test-images are made with, and that tests and the demonstration use.
var packagesOfTests = []debian{
	{"apt", []string{"apt-get"}},
	{"dpkg", []string{"dpkg-deb"}},
	{"debian-archive-keyring", []string{"/usr/share/keyrings/debian-archive-keyring.gpg"}},
	{"git", []string{"git"}},
	{"curl", []string{"curl"}},
}

// plugins are the CNI plugins that link Pods to the node.
var plugins = []string{"ptp", "host-local", "portmap", "loopback"}

// built are the programs that make node builds.
var built = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns", "kubectl",
}

// Check says, all at once, what this machine lacks for a node and for the tests on it, and what to do about it. Of what make node
// builds it says nothing.
func Check() error {
	m := here()
	m.packages = slices.Concat(packages, packagesOfTests)
	return failure(m.problems())
}

// check says the same for a node alone, with what make node builds.
func check() error { return failure(append(here().problems(), unbuilt()...)) }

func failure(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return errors.New("a node for tests cannot be started here:\n- " + strings.Join(problems, "\n- "))
}

func (m machine) problems() []string {
	var problems []string
	if m.user != 0 {
		problems = append(problems,
			"this is not root, who alone may make the namespaces and cgroups of a node: run it as root, or with sudo -E")
	}
	if names, missing := m.missingPackages(); len(names) > 0 {
		problems = append(problems, fmt.Sprintf("there is no %s: apt-get install --no-install-recommends %s",
			strings.Join(missing, ", "), strings.Join(names, " ")))
	}
	for _, dir := range hidden {
		if m.root == dir || strings.HasPrefix(m.root, dir+"/") {
			problems = append(problems, fmt.Sprintf("%s is in %s, of which a node has its own: move the repository", m.root, dir))
		}
	}
	return problems
}

// unbuilt says what make node has not built yet.
func unbuilt() []string {
	var names []string
	for _, name := range built {
		if _, err := apiserver.Program(name); err != nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("KUBEBUILDER_ASSETS or bin/k8s has no %s: run make node", strings.Join(names, ", "))}
}

// missingPackages returns the packages to install, and what of theirs is not there.
func (m machine) missingPackages() (names, missing []string) {
	for _, p := range m.packages {
		var lacks []string
		for _, held := range p.holds {
			if !m.has(held) {
				lacks = append(lacks, held)
			}
		}
		if p.holds == nil && m.pluginDir() == "" {
			lacks = []string{"CNI plugin " + strings.Join(plugins, ", ")}
		}
		if len(lacks) > 0 {
			names, missing = append(names, p.name), append(missing, lacks...)
		}
	}
	return names, missing
}

// has tells whether there is a program, or a file by its absolute path.
func (m machine) has(what string) bool {
	if filepath.IsAbs(what) {
		_, err := os.Stat(what)
		return err == nil
	}
	_, err := m.find(what)
	return err == nil
}

// find looks for a program in PATH, and then where root's programs are.
func (m machine) find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range filepath.SplitList(m.search) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s", program)
}

// pluginDir returns where all the CNI plugins are, or nothing.
func (m machine) pluginDir() string {
	for _, dir := range m.plugins {
		missing := slices.ContainsFunc(plugins, func(plugin string) bool {
			_, err := exec.LookPath(filepath.Join(dir, plugin))
			return err != nil
		})
		if !missing {
			return dir
		}
	}
	return ""
}
