package client

import (
	"bufio"
	"fmt"
	"strings"
)

// redis is RESP 2, as far as it is needed here.
type redis struct{}

func command(words ...string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(word), word)
	}
	return text.String()
}

func (redis) set(key, value string) string { return command("SET", key, value) }

func (redis) stored(r *bufio.Reader) error {
	line, err := readLine(r)
	if err == nil && line != "+OK" {
		err = RefusedError(line)
	}
	return err
}

func (redis) get(key string) string { return command("GET", key) }

func (redis) value(r *bufio.Reader) (value string, found bool, err error) {
	line, err := readLine(r)
	if err != nil || line == "$-1" {
		return "", false, err
	}
	length, isBulk := strings.CutPrefix(line, "$")
	if !isBulk {
		return "", false, RefusedError(line)
	}
	value, err = readBlock(r, length)
	return value, err == nil, err
}

func (redis) stats() string { return command("INFO") }

func (d redis) told(r *bufio.Reader) (stats Stats, err error) {
	text, _, err := d.value(r)
	if err != nil {
		return stats, err
	}
	for line := range strings.Lines(text) {
		name, figure, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "db0" { // keys=3,expires=0
			figure, _, _ = strings.Cut(strings.TrimPrefix(figure, "keys="), ",")
		}
		if err := stats.count(name, figure, "db0", "keyspace_hits", "evicted_keys"); err != nil {
			return stats, err
		}
	}
	return stats, nil
}
