package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// keptLog is how much of a process's last output is told when something goes wrong, in bytes.
const keptLog = 6000

// process is one of the programs of a node.
type process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// run starts a program. Its output goes to a file of its name.
func (n *Node) run(name, path string, args ...string) error {
	log, err := os.Create(filepath.Join(n.logs, name+".log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() //nolint:errcheck // the process has one of its own
	p := &process{name: name, log: log.Name(), ended: make(chan struct{})}
	p.cmd = exec.Command(path, args...) //nolint:noctx // Stop ends it
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = log, log, apart()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // what it says is in the process's state
		close(p.ended)
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.processes = append(n.processes, p)
	return nil
}

// Err says which of the node's programs ended by itself, if one did.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.processes {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended (%s); it said last:\n%s", p.name, p.cmd.ProcessState, end(p.log))
		default:
		}
	}
	return nil
}

// Wait returns when the context ends, or with an error as soon as one of the node's programs has ended by itself.
func (n *Node) Wait(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := n.Err(); err != nil {
				return err
			}
		}
	}
}

// end returns the end of a file.
func end(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	if excess := len(content) - keptLog; excess > 0 {
		content = content[excess:]
	}
	return bytes.TrimSpace(content)
}

// kill ends the programs at once: nothing of what they know is needed any more.
func (n *Node) kill() error {
	n.mu.Lock()
	processes := n.processes
	n.processes = nil
	n.mu.Unlock()
	var errs []error
	for _, p := range processes {
		errs = append(errs, p.kill())
	}
	return errors.Join(errs...)
}

// kill ends a program at once.
func (p *process) kill() error {
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// await calls condition until it says no reason why not yet, and gives up with that reason when ctx ends, after a while, or as
// soon as one of the node's programs has ended.
func (n *Node) await(ctx context.Context, what string, condition func(context.Context) error) error {
	var last, ended error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		if last != nil {
			ended = n.Err()
		}
		return last == nil, ended
	})
	switch {
	case err == nil:
		return nil
	case ended != nil:
		return fmt.Errorf("wait for %s: %w", what, ended)
	default:
		return fmt.Errorf("wait for %s: %w", what, errors.Join(err, last))
	}
}
