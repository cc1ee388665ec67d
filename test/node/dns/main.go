// Command coredns is CoreDNS with the plugins that a node for tests needs: it answers for the Services and Pods of the cluster,
// and for nothing else.
package main

import (
	"github.com/coredns/coredns/coremain"
	// Plugins register themselves.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() { coremain.Run() }
