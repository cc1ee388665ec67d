package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// shop counts orders.
type shop struct {
	statsd io.Writer

	// logs is the directory of the log file, log the file. Nil: there is none.
	logs string
	log  *os.File

	mu    sync.Mutex
	state state
}

// state is the JSON document.
type state struct {
	Open    bool    `json:"open"`
	Version string  `json:"version"`
	Queue   queue   `json:"queue"`
	Orders  []order `json:"orders"`

	// Changed is when an order came last, in milliseconds.
	Changed string `json:"changed"`
}

type queue struct {
	Length int `json:"length"`
}

type order struct {
	Item    string  `json:"item"`
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
}

func newShop(statsd io.Writer, logs string) *shop {
	s := &shop{statsd: statsd, logs: logs, state: state{Open: true, Version: "3.2", Changed: "1700000000000"}}
	if err := s.openLog(); err != nil {
		fmt.Fprintf(os.Stderr, "nothing is logged: %v\n", err)
	}
	return s
}

func (s *shop) openLog() (err error) {
	s.log, err = os.OpenFile(filepath.Join(s.logs, "shop.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return err
}

// business is what the shop's customers reach.
func (s *shop) business() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", s.order)
	mux.HandleFunc("POST /queue", s.wait)
	mux.HandleFunc("POST /statsd", s.send)
	mux.HandleFunc("POST /rotate", s.rotate)
	return mux
}

// status is what the shop's own machine reaches: the document for those who say that they want numbers, and a page for nobody.
func (s *shop) status() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-View") != "numbers" {
			http.Error(w, "say which view", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.state)
	})
	mux.HandleFunc("GET /private", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(state{Queue: queue{Length: 666}})
	})
	return mux
}

// order takes ?count= orders of an ?item=, each of which took ?seconds=.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	item := r.FormValue("item")
	count, err := strconv.Atoi(r.FormValue("count"))
	seconds, invalid := strconv.ParseFloat(r.FormValue("seconds"), 64)
	if err != nil || invalid != nil || item == "" {
		http.Error(w, "say ?item=, ?count= and ?seconds=", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sold := s.sold(item)
	for range count {
		sold.Count++
		sold.Seconds += seconds
		s.tell(fmt.Sprintf("shop.%s.orders:1|c\nshop.%s.order.seconds:%g|ms", item, item, seconds*1000))
		s.write(fmt.Sprintf("ORDER %s %.3f", item, seconds))
	}
	s.state.Changed = strconv.FormatInt(time.Now().UnixMilli(), 10)
}

// wait sets the queue's ?length=.
func (s *shop) wait(w http.ResponseWriter, r *http.Request) {
	length, err := strconv.Atoi(r.FormValue("length"))
	if err != nil {
		http.Error(w, "say ?length=", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Queue.Length = length
	s.tell(fmt.Sprintf("shop.queue.length:%d|g", length))
	s.write(fmt.Sprintf("QUEUE %d", length))
}

// send sends StatsD lines of the caller's.
func (s *shop) send(w http.ResponseWriter, r *http.Request) {
	lines, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.tell(string(lines))
}

// rotate renames the log file and begins another, as logrotate has it.
func (s *shop) rotate(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		http.Error(w, "nothing is logged", http.StatusConflict)
		return
	}
	name := s.log.Name()
	err := s.log.Close()
	if err == nil {
		err = os.Rename(name, name+".1")
	}
	if err == nil {
		err = s.openLog()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// sold is the entry of an item.
func (s *shop) sold(item string) *order {
	for i := range s.state.Orders {
		if s.state.Orders[i].Item == item {
			return &s.state.Orders[i]
		}
	}
	s.state.Orders = append(s.state.Orders, order{Item: item})
	return &s.state.Orders[len(s.state.Orders)-1]
}

// tell sends StatsD lines in one packet. An app does not fail for its metrics: what is lost is told, and lost.
func (s *shop) tell(lines string) {
	if _, err := io.WriteString(s.statsd, lines); err != nil {
		fmt.Fprintf(os.Stderr, "lost: %v\n", err)
	}
}

func (s *shop) write(line string) {
	if s.log == nil {
		return
	}
	if _, err := fmt.Fprintln(s.log, line); err != nil {
		fmt.Fprintf(os.Stderr, "lost: %v\n", err)
	}
}
