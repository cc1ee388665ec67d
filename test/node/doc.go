// Package node runs a real Kubernetes cluster of one node for tests: etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, kubelet, kube-proxy, CoreDNS, and containerd with runc, in namespaces of their own. It wants Linux, root and
// some Debian packages, and says which.
//
//	func TestMain(m *testing.M) { os.Exit(node.Isolate(m.Run)) }
//
//	func TestSomething(t *testing.T) {
//		n, err := node.Start(t.Context(), node.Options{Images: []string{"app.tar"}})
//		...
//	}
package node

import "net"

// What the node is called and where it is. All of the addresses are of a network of its own, that reaches nothing else.
const (
	// Name is the Node's.
	Name = "node"

	// Address is the Node's.
	Address = "10.89.0.1"

	// PodNetwork and ServiceNetwork are where Pods and Services get their addresses.
	PodNetwork     = "10.244.0.0/24"
	ServiceNetwork = "10.96.0.0/16"

	// serviceOfAPIServer is the address of the Service kubernetes, the first of ServiceNetwork.
	serviceOfAPIServer = "10.96.0.1"

	// clusterDomain is what the names of Services end in.
	clusterDomain = "cluster.local"
)

// addressOfAPIServer is where the API server listens. The port can be a fixed one: the network has no other servers.
var addressOfAPIServer = net.JoinHostPort(Address, "6443")

// variable tells a process that it is in the namespaces, and which it is there.
const variable = "TEST_NODE"

// forwardVariable tells the processes in the namespaces the address outside that leads to the API server.
const forwardVariable = "TEST_NODE_FORWARD"

// LogsVariable names, in the environment, a directory that the logs of every process of the node are written to, and stay in.
const LogsVariable = "TEST_NODE_LOGS"

// The directories of a node in its temporary one.
const (
	dirTmp    = "tmp"     // for temporary files
	dirConfig = "config"  // what the processes are told
	dirLogs   = "logs"    // what they say
	dirLib    = "lib"     // the node's /var/lib
	dirVarLog = "var-log" // the node's /var/log
)

// What a process is in the namespaces: the first one, or the one that calls what Isolate was given.
const (
	roleInit = "init"
	roleRun  = "run"
)
