package client

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// memcached is its text protocol.
type memcached struct{}

func (memcached) set(key, value string) string {
	return fmt.Sprintf("set %s 0 0 %d\r\n%s\r\n", key, len(value), value)
}

func (memcached) stored(r *bufio.Reader) error {
	line, err := readLine(r)
	if err == nil && line != "STORED" {
		err = RefusedError(line)
	}
	return err
}

func (memcached) get(key string) string { return "get " + key + "\r\n" }

func (memcached) value(r *bufio.Reader) (value string, found bool, err error) {
	line, err := readLine(r)
	if err != nil || line == "END" {
		return "", false, err
	}
	words := strings.Fields(line) // VALUE key flags length
	if len(words) != 4 || words[0] != "VALUE" {
		return "", false, RefusedError(line)
	}
	if value, err = readBlock(r, words[3]); err != nil {
		return "", false, err
	}
	if line, err = readLine(r); err == nil && line != "END" {
		err = fmt.Errorf("after a value there is %q", line)
	}
	return value, err == nil, err
}

func (memcached) stats() string { return "stats\r\n" }

func (memcached) told(r *bufio.Reader) (stats Stats, err error) {
	for {
		line, err := readLine(r)
		if err != nil || line == "END" {
			return stats, err
		}
		words := strings.Fields(line) // STAT name value
		if len(words) < 2 || words[0] != "STAT" {
			return stats, RefusedError(line)
		}
		if err := stats.count(words[1], words[len(words)-1], "curr_items", "get_hits", "evictions"); err != nil {
			return stats, err
		}
	}
}

// count takes a figure, if it is one of the three names.
func (s *Stats) count(name, figure, items, hits, evictions string) (err error) {
	switch name {
	case items:
		s.Items, err = strconv.Atoi(figure)
	case hits:
		s.Hits, err = strconv.Atoi(figure)
	case evictions:
		s.Evictions, err = strconv.Atoi(figure)
	}
	return err
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// readBlock reads so many bytes and the end of the line after them.
func readBlock(r *bufio.Reader, length string) (string, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 {
		return "", fmt.Errorf("%q is no length", length)
	}
	block := make([]byte, n+len("\r\n"))
	if _, err := io.ReadFull(r, block); err != nil {
		return "", err
	}
	return string(block[:n]), nil
}
