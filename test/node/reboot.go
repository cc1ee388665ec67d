package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Reboot ends the kubelet and every container at once, without a word to any of them, and starts the kubelet again: what a
// machine that loses power does to the Pods on it. The control plane stays. during, if it is not nil, is called while nothing
// runs. Reboot returns when the kubelet works again; its Pods start after that.
func (n *Node) Reboot(ctx context.Context, during func()) error {
	if err := n.killOne("kubelet"); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	if err := endAll(filepath.Base(n.dir)); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	if during != nil {
		during()
	}
	if err := n.startKubelet(); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return n.await(ctx, "the kubelet", func(ctx context.Context) error { return healthy(ctx, "http://127.0.0.1:10248/healthz") })
}

// killOne kills one of the node's programs, which is not missed then.
func (n *Node) killOne(name string) error {
	n.mu.Lock()
	i := slices.IndexFunc(n.processes, func(p *process) bool { return p.name == name })
	if i < 0 {
		n.mu.Unlock()
		return errors.New("no " + name + " runs")
	}
	p := n.processes[i]
	n.processes = slices.Delete(n.processes, i, i+1)
	n.mu.Unlock()
	return p.kill()
}
