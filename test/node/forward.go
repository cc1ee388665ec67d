package node

import (
	"io"
	"net"
	"path/filepath"
	"sync"
)

// socketPath is where the API server is reached from outside of the namespaces.
func socketPath(dir string) string { return filepath.Join(dir, "api.sock") }

// forward passes each connection on to one of dial's, until the listener is closed.
func forward(listener net.Listener, dial func() (net.Conn, error)) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close() //nolint:errcheck // there is nobody to tell
			to, err := dial()
			if err != nil {
				return // as a port does where nothing listens: the client sees the end of the connection
			}
			defer to.Close() //nolint:errcheck // there is nobody to tell
			var both sync.WaitGroup
			both.Go(func() { transfer(to, from) })
			both.Go(func() { transfer(from, to) })
			both.Wait()
		}()
	}
}

// transfer passes on what one side says until it is done, and tells the other side so, which may go on.
func transfer(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
