package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// tmpfsMagic is the type of filesystems in memory, of linux/magic.h.
const tmpfsMagic = 0x01021994

// filesystem tells the type of the one that a path is in, and whether it is mounted read-only.
func filesystem(path string) (name string, readOnly bool, err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return "", false, fmt.Errorf("statfs %s: %w", path, err)
	}
	name = fmt.Sprintf("%#x", stat.Type)
	if stat.Type == tmpfsMagic {
		name = "tmpfs"
	}
	return name, stat.Flags&syscall.MS_RDONLY != 0, nil
}

// storeAndGet stores a value in a memcached and returns what it then has.
func storeAndGet(address, key, value string) (string, error) {
	connection, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer connection.Close() //nolint:errcheck // everything is read
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(connection, "set %s 0 0 %d\r\n%s\r\nget %s\r\n", key, len(value), value, key); err != nil {
		return "", err
	}
	answers := bufio.NewReader(connection)
	for _, want := range []string{"STORED", fmt.Sprintf("VALUE %s 0 %d", key, len(value))} {
		line, err := answers.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(line) != want {
			return "", fmt.Errorf("the cache answers %q, not %q", line, want)
		}
	}
	line, err := answers.ReadString('\n')
	return strings.TrimSpace(line), err
}

// raise sends StatsD lines, and returns where to. The kernel tells if nothing listens there, at the earliest with the second one.
func raise(host, port, counter string, lines int) (string, error) {
	address := net.JoinHostPort(host, port)
	connection, err := net.Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer connection.Close() //nolint:errcheck // nothing is read
	for range lines {
		if _, err := fmt.Fprintf(connection, "%s:1|c", counter); err != nil {
			return "", err
		}
	}
	return address, nil
}
