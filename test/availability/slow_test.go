package availability

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// How many connections of each kind a crowd has. Bodies that are slow are in flight: they are fewer than may be.
const (
	slowHeaders     = 500
	idleConnections = 500
	slowBodies      = fewRequests / 2
)

// most is by how much others' p99 may grow while the crowd is there.
const mostSlower = 2.0

// slowConnections opens a crowd of connections that say little, in rounds with and without, and measures what others see.
func slowConnections(t *testing.T, replica *installation.Replica, roots *atomic.Pointer[x509.CertPool], asking *review) {
	const rate, workers = 200, 16
	d := newDirect(t, replica, roots, protocols{http1: 4, http2: 1})
	if _, err := d.send(t.Context(), asking); err != nil {
		t.Fatal(err)
	}
	before, err := takeVitals(t.Context(), replica.Process)
	if err != nil {
		t.Fatal(err)
	}
	var alone, crowded []float64 // p99 of each round, in milliseconds
	var closed, opened int64
	for round := range either(1, 9) {
		measure := func(what string) float64 {
			measured, end := context.WithTimeout(t.Context(), either(2*time.Second, 10*time.Second))
			defer end()
			answers := d.run(measured, rate, workers, []*review{asking})
			answers.report(t, fmt.Sprintf("round %d, %s", round+1, what))
			return float64(answers.quantile(.99)) / float64(time.Millisecond)
		}
		alone = append(alone, measure("alone"))
		crowd := gather(t, replica)
		crowded = append(crowded, measure("in the crowd"))
		crowd.disperse(t)
		closed, opened = closed+crowd.closed, opened+crowd.opened
	}
	ratio := median(crowded) / median(alone)
	t.Logf("%d connections were opened, of which the replica closed %d for being slow", opened, closed)
	t.Logf("others' p99: %.2f ms alone, %.2f ms in the crowd (medians of %d rounds), ratio %.2f", median(alone), median(crowded), len(alone), ratio)
	if *soak && ratio > mostSlower {
		t.Errorf("others' p99 is %.2f times what it is without the crowd, and may be %.1f", ratio, mostSlower)
	}
	d.leave()
	allowed := vitals{mostResident, before.goroutines + 20, before.descriptors + 20}
	t.Logf("before %s; after %s", before, awaitVitals(t, replica.Process, allowed))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// crowd is many connections that say little, in a process of their own: it is the replica's time that is measured, and those who attack it
// have other machines than this one. So they get what CPU nobody else wants.
type crowd struct {
	command        *exec.Cmd
	leave          io.Closer // it goes when this is closed
	said           *bufio.Reader
	opened, closed int64 // connections, and how many of the slow ones the replica closed
}

// gather opens a crowd and returns once it is complete. A connection that the replica closes is opened again.
func gather(t *testing.T, replica *installation.Replica) *crowd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{command: exec.CommandContext(t.Context(), "nice", "-n", "19", self)}
	c.command.Env = append(os.Environ(), crowdVariable+"="+replica.Address)
	c.command.Stderr = os.Stderr
	if c.leave, err = c.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	said, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.said = bufio.NewReader(said)
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := c.said.ReadString('\n'); err != nil || line != crowdIsThere {
		t.Errorf("a crowd of connections says %q: %v", line, err)
	}
	return c
}

// disperse lets the crowd go, and checks that the replica ends what is slow.
func (c *crowd) disperse(t *testing.T) {
	t.Helper()
	_ = c.leave.Close()
	if _, err := fmt.Fscanf(c.said, crowdHasGone, &c.opened, &c.closed); err != nil {
		t.Errorf("a crowd that was to go says %v", err)
	}
	if err := c.command.Wait(); err != nil {
		t.Errorf("the replica has not ended all connections that are slow: %v", err)
	}
}

// crowdVariable has this program be a crowd at that address. It says when it is there and when it has gone.
const (
	crowdVariable = "TEST_CROWD"
	crowdIsThere  = "there\n"
	crowdHasGone  = "gone: %d opened, %d closed\n"
)

// beCrowd is a crowd until its standard input ends. It returns the exit code.
func beCrowd(address string) int {
	ctx, leave := context.WithCancel(context.Background())
	m := &members{address: address, dialing: make(chan struct{}, 4)}
	post := "POST " + profiles.PathPods + " HTTP/1.1\r\nHost: webhook\r\n"
	for range slowHeaders {
		m.staying.Go(func() { m.stay(ctx, func(connection net.Conn) error { return say(connection, post, "X-Slow: 1\r\n") }) })
	}
	for range slowBodies {
		m.staying.Go(func() {
			m.stay(ctx, func(connection net.Conn) error {
				return say(connection, post+"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", " ")
			})
		})
	}
	for range idleConnections {
		m.staying.Go(func() { m.stay(ctx, func(connection net.Conn) error { return idle(ctx, connection) }) })
	}
	told, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := apiserver.Await(told, func(context.Context) (bool, error) {
		n := m.settled.Load()
		return n >= slowHeaders+slowBodies+idleConnections, fmt.Errorf("%d connections have come", n)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "a crowd of connections:", err)
		leave()
		return 1
	}
	fmt.Print(crowdIsThere)
	_, _ = io.Copy(io.Discard, os.Stdin)
	leave()
	gone := make(chan struct{})
	go func() { m.staying.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(time.Minute):
		fmt.Fprintln(os.Stderr, "a minute later there are still slow connections that the replica has not ended")
		return 1
	}
	fmt.Printf(crowdHasGone, m.opened.Load(), m.closed.Load())
	return 0
}

// members are the connections of a crowd.
type members struct {
	address string
	staying sync.WaitGroup // those that are slow are left for the replica to end
	opened  atomic.Int64   // connections
	settled atomic.Int64   // of those that were opened first: the ones that are as they are to be
	closed  atomic.Int64   // slow ones that the replica closed
	dialing chan struct{}  // holds as many as dial at a time: more would wait for each other until the replica gives them up
}

// errLeft says that a connection was closed by its client.
var errLeft = errors.New("left")

// stay opens a connection and keeps it in use, again and again until ctx ends.
func (m *members) stay(ctx context.Context, use func(net.Conn) error) {
	for hasCome := false; ctx.Err() == nil; {
		connection, err := m.dial(ctx)
		if err != nil {
			continue // the replica has enough to do; whoever is of the crowd tries again
		}
		m.opened.Add(1)
		if !hasCome {
			hasCome = true
			m.settled.Add(1)
		}
		err = use(connection)
		_ = connection.Close() // nothing more is said
		if !errors.Is(err, errLeft) {
			m.closed.Add(1)
		}
	}
}

func (m *members) dial(ctx context.Context) (net.Conn, error) {
	m.dialing <- struct{}{}
	defer func() { <-m.dialing }()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it sends nothing that is secret
	return dialer.DialContext(ctx, "tcp", m.address)
}

// say says something, and a little more each second until the connection is closed, which is what it returns.
func say(connection net.Conn, beginning, more string) error {
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, connection)
		ended <- errors.Join(errors.New("closed"), err)
	}()
	_, _ = io.WriteString(connection, beginning) // if it fails, so does reading
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
			_, _ = io.WriteString(connection, more)
		}
	}
}

// idle sends one request, and then no more until ctx ends.
func idle(ctx context.Context, connection net.Conn) error {
	leaving := context.AfterFunc(ctx, func() { _ = connection.Close() })
	defer leaving()
	reader := bufio.NewReader(connection)
	if _, err := io.WriteString(connection, "GET "+profiles.PathPods+" HTTP/1.1\r\nHost: webhook\r\n\r\n"); err != nil {
		return left(ctx, err)
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return left(ctx, err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	_, err = io.Copy(io.Discard, reader)
	return left(ctx, errors.Join(errors.New("closed"), err))
}

func left(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errLeft
	}
	return err
}
