package gitserver

import (
	"context"
	"sync"
)

// gate keeps callers of a repository waiting.
type gate struct {
	open chan struct{}

	mu      sync.Mutex
	waiting int
}

// Hold keeps whoever reads a repository from now on waiting, over HTTP and ssh, until the returned function is called. The
// other one says how many wait.
func (s *Server) Hold(repo string) (release func(), waiting func() int, err error) {
	r, err := s.repository(repo)
	if err != nil {
		return nil, nil, err
	}
	g := &gate{open: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = g
	return sync.OnceFunc(func() { close(g.open) }), g.count, nil
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

func (g *gate) add(callers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting += callers
}

// wait returns when the repository may be read, or an error when nobody waits for it any more.
func (r *repository) wait(ctx context.Context) error {
	r.mu.Lock()
	g := r.gate
	r.mu.Unlock()
	if g == nil {
		return nil
	}
	g.add(1)
	defer g.add(-1)
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
