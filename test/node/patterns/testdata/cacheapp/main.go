// Command cacheapp is an app with a cache, which it finds in its environment and connects to before it does anything else.
//
//	cacheapp memcached|redis|none [DRAIN]
//
// On port 8080 it does what tests ask it for. Once it is told to end it goes on with its work for as long as DRAIN says.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pillion-dev/pillion/test/node/patterns/testdata/cacheapp/client"
)

// terminationLog is where a container leaves its last words.
const terminationLog = "/dev/termination-log"

func main() {
	app, err := connect() // before anything else, and once
	if err == nil {
		err = app.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// app has the only connection, as simple apps do.
type app struct {
	sync.Mutex
	cache *client.Client
	total client.Outcome // of what it did while it drained
}

func connect() (a *app, err error) {
	a = &app{}
	if len(os.Args) < 2 {
		return nil, fmt.Errorf("usage: cacheapp %s|%s|none [DRAIN]", client.Memcached, client.Redis)
	}
	if os.Args[1] != "none" {
		a.cache, err = client.Dial(os.Args[1], os.Getenv("CACHE_ADDRESS"))
	}
	return a, err
}

func (a *app) run() error {
	var drain time.Duration
	if len(os.Args) > 2 {
		var err error
		if drain, err = time.ParseDuration(os.Args[2]); err != nil {
			return err
		}
	}
	http.HandleFunc("/environment", func(w http.ResponseWriter, _ *http.Request) { answer(w, os.Environ()) })
	http.HandleFunc("/set", a.onEach(func(o *client.Outcome, form url.Values, key string) {
		o.Set(a.cache, key, form.Get("generation"), form.Get("padding"))
	}))
	http.HandleFunc("/get", a.onEach(func(o *client.Outcome, _ url.Values, key string) { o.Get(a.cache, key) }))
	http.HandleFunc("/use", a.onEach(func(o *client.Outcome, form url.Values, key string) {
		o.Get(a.cache, key)
		if _, missed := o.Missed[key]; missed {
			o.Set(a.cache, key, form.Get("generation"), form.Get("padding"))
		}
	}))
	http.HandleFunc("/stats", a.tellStats)
	http.HandleFunc("/read", readAll)
	http.HandleFunc("/drain", a.drainOnRequest)

	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(":8080", nil) }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	select {
	case err := <-failed:
		return err
	case <-signals:
	}
	if drain == 0 {
		return nil
	}
	a.drain(drain, "signal")
	words, err := json.Marshal(a.total)
	if err != nil {
		return err
	}
	return os.WriteFile(terminationLog, words, 0)
}

func answer(w http.ResponseWriter, content any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(content) // who asked has gone
}

// onEach does something with each key of a form, one after the other.
func (a *app) onEach(do func(o *client.Outcome, form url.Values, key string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.Lock()
		defer a.Unlock()
		var outcome client.Outcome
		for _, key := range r.Form["key"] {
			do(&outcome, r.Form, key)
		}
		answer(w, outcome)
	}
}

func (a *app) tellStats(w http.ResponseWriter, _ *http.Request) {
	a.Lock()
	defer a.Unlock()
	stats, err := a.cache.Stats()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	answer(w, stats)
}

// readAll answers with what is read from a port of the Pod's loopback.
func readAll(w http.ResponseWriter, r *http.Request) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", r.FormValue("port")), 10*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer conn.Close() //nolint:errcheck // it was only read
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	content, err := io.ReadAll(conn)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_, _ = w.Write(content)
}

// drainOnRequest is for a preStop hook.
func (a *app) drainOnRequest(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.drain(d, "hook")
	answer(w, a.total)
}

// drain uses the cache for a while: it stores a key, and reads it again, again and again.
func (a *app) drain(d time.Duration, why string) {
	a.Lock()
	defer a.Unlock()
	end := time.Now().Add(d)
	for i := 0; time.Now().Before(end); i++ {
		key := fmt.Sprintf("%s-%s-%d", cmp.Or(strings.TrimSpace(os.Getenv("HOSTNAME")), "pod"), why, i%5)
		a.total.Set(a.cache, key, why, "")
		a.total.Get(a.cache, key)
		time.Sleep(20 * time.Millisecond)
	}
}
