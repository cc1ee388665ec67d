package webhook

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connections bounds how many connections a server has. One more than that takes the place of one that does nothing, so that whoever
// opens many and says little keeps nobody out.
type connections struct {
	most     int
	rejected func() // called for one that had to go

	mu  sync.Mutex
	all map[*connection]struct{}
}

// unusedFor is how long a connection on which no request has come yet is left alone: a handshake takes some time.
const unusedFor = 250 * time.Millisecond

// connection is one of a server. What it does is noted without a lock: it changes twice with each request.
type connection struct {
	net.Conn

	owner *connections
	state atomic.Int32 // of http.ConnState
	since atomic.Int64 // of the state, in nanoseconds since 1970
}

func newConnections(most int, rejected func()) *connections {
	return &connections{most: most, rejected: rejected, all: map[*connection]struct{}{}}
}

// open returns how many connections there are.
func (c *connections) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// limit returns a listener whose connections are bounded.
func (c *connections) limit(listener net.Listener) net.Listener { return &limited{listener, c} }

type limited struct {
	net.Listener

	connections *connections
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		next := &connection{Conn: accepted, owner: l.connections}
		next.note(http.StateNew)
		if l.connections.admit(next) {
			return next, nil
		}
		_ = accepted.Close() // it has come in vain either way
	}
}

// admit takes a connection in. Where there are too many another one goes: the oldest that has brought no request, else the one
// that has been idle for longest. Where all are busy, the new one is refused.
func (c *connections) admit(next *connection) bool {
	c.mu.Lock()
	var leaving *connection
	isFull := len(c.all) >= c.most
	if isFull {
		leaving = c.leastUseful()
	}
	if leaving != nil {
		delete(c.all, leaving)
	}
	admitted := !isFull || leaving != nil
	if admitted {
		c.all[next] = struct{}{}
	}
	c.mu.Unlock()
	if isFull {
		c.rejected()
	}
	if leaving != nil {
		_ = leaving.Conn.Close() // its server sees that, and ends it
	}
	return admitted
}

func (c *connections) leastUseful() *connection {
	before := time.Now().Add(-unusedFor).UnixNano()
	var unused, idle *connection
	older := func(than, candidate *connection) *connection {
		if than == nil || candidate.since.Load() < than.since.Load() {
			return candidate
		}
		return than
	}
	for candidate := range c.all {
		switch http.ConnState(candidate.state.Load()) {
		case http.StateNew:
			if candidate.since.Load() < before {
				unused = older(unused, candidate)
			}
		case http.StateIdle:
			idle = older(idle, candidate)
		}
	}
	if unused != nil {
		return unused
	}
	return idle
}

func (c *connection) note(state http.ConnState) {
	c.state.Store(int32(state)) //nolint:gosec // there are five states
	c.since.Store(time.Now().UnixNano())
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.all, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// noteState is for http.Server.ConnState.
func noteState(conn net.Conn, state http.ConnState) {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	if known, ok := conn.(*connection); ok {
		known.note(state)
	}
}
