package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedBuffer is written by the ticking goroutine and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWatchTicksInALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lockedBuffer{}
		s := &screen{out: out, tick: logTick}
		stop := s.watch(func() string { return "etcd: compiling" })
		time.Sleep(65 * time.Second)
		if took := stop(); took != 65*time.Second {
			t.Errorf("took %s, want 65s", took)
		}
		want := "controlplane: etcd: compiling: 15 s\n" +
			"controlplane: etcd: compiling: 30 s\n" +
			"controlplane: etcd: compiling: 45 s\n" +
			"controlplane: etcd: compiling: 1 min 00 s\n"
		if got := out.String(); got != want {
			t.Errorf("got:\n%swant:\n%s", got, want)
		}
	})
}

func TestWatchLeavesNoLineOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lockedBuffer{}
		s := &screen{out: out, terminal: true, tick: terminalTick}
		stop := s.watch(func() string { return "etcd" })
		time.Sleep(1500 * time.Millisecond)
		stop()
		if got := out.String(); strings.Contains(got, "\n") || !strings.HasSuffix(got, clearLine) {
			t.Errorf("got %q, want one line that is cleared at the end", got)
		}
	})
}
