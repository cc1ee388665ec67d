// Command workload is an app that depends on patterns and knows nothing of them. With its first instructions it does once what its
// flags say, and never tries again: a file that is not there yet, or a cache that does not listen yet, is in its report for good.
// The report is the first line that it writes. Then it ends, or with -serve answers / with the report and /now with a new one.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// patience bounds how long it waits for a cache that listens and does not answer.
const patience = 30 * time.Second

// file is what there is to see of one. Filesystem is the type of the one that it is in.
type file struct {
	Content    string `json:"content"`
	Mode       string `json:"mode"`
	Filesystem string `json:"filesystem"`
	ReadOnly   bool   `json:"readOnly"`
}

type report struct {
	Pod   string          `json:"pod"`
	Files map[string]file `json:"files,omitempty"`
	// Cached is what the cache gave back.
	Cached string `json:"cached,omitempty"`
	// Counted is the address that StatsD lines were sent to.
	Counted string   `json:"counted,omitempty"`
	Errors  []string `json:"errors,omitempty"`
}

// job is what the flags say.
type job struct {
	read            []string
	cache, count    string
	lines           int
	serve, identity string
}

func main() {
	j := parse()
	r := j.do()
	line, err := json.Marshal(r)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(line))
	switch {
	case j.serve != "":
		fmt.Fprintln(os.Stderr, j.answer(line))
		os.Exit(1)
	case len(r.Errors) > 0:
		os.Exit(1)
	}
}

func parse() job {
	var j job
	flag.Func("read", "a file to read; may be repeated", func(path string) error {
		j.read = append(j.read, path)
		return nil
	})
	flag.StringVar(&j.cache, "cache", "", "a key to store in the memcached at CACHE_ADDRESS, and to read back")
	flag.StringVar(&j.count, "count", "", "a counter of StatsD to raise at STATSD_HOST and STATSD_PORT")
	flag.IntVar(&j.lines, "lines", 1, "how often to raise it")
	flag.StringVar(&j.serve, "serve", "", "where to serve the report")
	flag.Parse()
	j.identity, _ = os.Hostname()
	return j
}

// do does everything, whatever fails.
func (j job) do() report {
	r := report{Pod: j.identity, Files: map[string]file{}}
	failed := func(what string, err error) {
		if err != nil {
			r.Errors = append(r.Errors, what+": "+err.Error())
		}
	}
	for _, path := range j.read {
		found, err := look(path)
		failed("read", err)
		r.Files[path] = found
	}
	if j.cache != "" {
		cached, err := storeAndGet(os.Getenv("CACHE_ADDRESS"), j.cache, j.identity)
		failed("cache", err)
		r.Cached = cached
	}
	if j.count != "" {
		address, err := raise(os.Getenv("STATSD_HOST"), os.Getenv("STATSD_PORT"), j.count, j.lines)
		failed("count", err)
		r.Counted = address
	}
	return r
}

func (j job) answer(atStart []byte) error {
	http.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(atStart) })
	http.HandleFunc("/now", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(j.do()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	server := &http.Server{Addr: j.serve, ReadHeaderTimeout: patience}
	return server.ListenAndServe()
}

// look reads a file, and what it is in.
func look(path string) (file, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return file{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return file{}, err
	}
	system, readOnly, err := filesystem(path)
	return file{
		Content: strings.TrimSuffix(string(content), "\n"), Mode: fmt.Sprintf("%04o", info.Mode().Perm()), Filesystem: system,
		ReadOnly: readOnly,
	}, err
}
