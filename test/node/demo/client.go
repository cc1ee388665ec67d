package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// Which page an answer was.
const (
	old = iota
	changed
)

// asker asks for a page without pause, which is to change once, and counts what it gets.
type asker struct {
	first, second string
	cancel        context.CancelFunc
	ended         chan struct{}

	mu      sync.Mutex
	counts  [2]int
	broken  int
	example string // what was first wrong
}

// ask begins to ask for a page. It ends by stop.
func ask(ctx context.Context, url, first, second string) *asker {
	a := &asker{first: first, second: second, ended: make(chan struct{})}
	ctx, a.cancel = context.WithCancel(ctx)
	go func() {
		defer close(a.ended)
		for {
			status, body, err := installed.Get(ctx, url)
			if ctx.Err() != nil {
				return // what was cut off by us says nothing
			}
			a.count(status, body, err)
		}
	}()
	return a
}

// stop returns when the last answer has been counted. Calling it again has no effect.
func (a *asker) stop() {
	a.cancel()
	<-a.ended
}

func (a *asker) count(status int, body string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wrong := ""
	switch {
	case err != nil:
		wrong = err.Error()
	case status != http.StatusOK:
		wrong = fmt.Sprintf("status %d", status)
	case body == a.second:
		a.counts[changed]++
	case body != a.first:
		wrong = fmt.Sprintf("a page that nobody wrote: %q", body)
	case a.counts[changed] > 0:
		wrong = "the old page after the new one"
	default:
		a.counts[old]++
	}
	if wrong == "" {
		return
	}
	if a.broken == 0 {
		a.example = wrong
	}
	a.broken++
}

// saw returns why it is too early to go on: one of the pages has not come that many times.
func (a *asker) saw(which, times int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts[which] < times {
		return fmt.Errorf("it came %d times, with %d broken answers: %s", a.counts[which], a.broken, a.example)
	}
	return nil
}

// problem returns what was wrong with the answers, if anything was.
func (a *asker) problem() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken == 0 {
		return nil
	}
	return fmt.Errorf("%d answers were broken, the first one: %s", a.broken, a.example)
}

// String counts the answers.
func (a *asker) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%d old, %d new, %d broken", a.counts[old], a.counts[changed], a.broken)
}
