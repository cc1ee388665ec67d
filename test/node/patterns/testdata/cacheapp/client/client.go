// Package client speaks to caches as apps do: one connection, one request at a time, and another connection only after one broke.
package client

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"time"
)

// patience is how long an answer may take that ought to come.
const patience = 30 * time.Second

// The protocols.
const (
	Memcached = "memcached"
	Redis     = "redis"
)

// Stats is what a server tells of itself.
type Stats struct{ Items, Hits, Evictions int }

// RefusedError is an answer that says why there is no other. The connection goes on.
type RefusedError string

func (e RefusedError) Error() string { return string(e) }

// dialect is how a protocol writes requests and reads answers.
type dialect interface {
	set(key, value string) string
	stored(r *bufio.Reader) error
	get(key string) string
	value(r *bufio.Reader) (value string, found bool, err error)
	stats() string
	told(r *bufio.Reader) (Stats, error)
}

// Client is a client of one cache.
type Client struct {
	address string
	dialect dialect
	conn    net.Conn
	reader  *bufio.Reader
}

// Dial connects to a cache, once.
func Dial(protocol, address string) (*Client, error) {
	c := &Client{address: address}
	switch protocol {
	case Memcached:
		c.dialect = memcached{}
	case Redis:
		c.dialect = redis{}
	default:
		return nil, fmt.Errorf("the protocol %q is neither %s nor %s", protocol, Memcached, Redis)
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) connect() (err error) {
	if c.conn, err = net.DialTimeout("tcp", c.address, patience); err == nil {
		c.reader = bufio.NewReader(c.conn)
	}
	return err
}

// Set stores a value.
func (c *Client) Set(key, value string) error {
	return c.ask(c.dialect.set(key, value), func() error { return c.dialect.stored(c.reader) })
}

// Get returns a value, if there is one.
func (c *Client) Get(key string) (value string, found bool, err error) {
	err = c.ask(c.dialect.get(key), func() (err error) {
		value, found, err = c.dialect.value(c.reader)
		return err
	})
	return value, found, err
}

// Stats returns what the server tells of itself. A proxy does not pass this on.
func (c *Client) Stats() (stats Stats, err error) {
	err = c.ask(c.dialect.stats(), func() (err error) {
		stats, err = c.dialect.told(c.reader)
		return err
	})
	return stats, err
}

// Close ends the connection.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// ask sends a request and reads its answer. What breaks the connection is an error; the next request makes another.
func (c *Client) ask(request string, answer func() error) (err error) {
	if c.conn == nil {
		if err := c.connect(); err != nil {
			return err
		}
	}
	defer func() {
		if refused := RefusedError(""); err != nil && !errors.As(err, &refused) {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte(request)); err != nil {
		return err
	}
	return answer()
}
