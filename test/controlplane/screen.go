package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// How often a running step says that it is alive. A terminal shows one line that changes; a log gets a line each time,
// so it gets fewer.
const (
	terminalTick = time.Second
	logTick      = 15 * time.Second
)

// screen prints progress, one line at a time.
type screen struct {
	out      io.Writer
	terminal bool
	tick     time.Duration
}

func newScreen(file *os.File) *screen {
	s := &screen{out: file, tick: logTick}
	if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		s.terminal, s.tick = true, terminalTick
	}
	return s
}

// printf prints a line that stays.
func (s *screen) printf(format string, args ...any) {
	fmt.Fprintf(s.out, "controlplane: "+format+"\n", args...)
}

// clearLine moves to the line's start and clears it, so that a shorter text leaves nothing of a longer one.
const clearLine = "\r\x1b[K"

// watch prints what status says, with the seconds since, every tick until stop is called. stop returns how long it took.
func (s *screen) watch(status func() string) (stop func() time.Duration) {
	start := time.Now()
	done := make(chan struct{})
	var printing sync.WaitGroup
	printing.Go(func() {
		ticker := time.NewTicker(s.tick)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				if s.terminal {
					fmt.Fprint(s.out, clearLine)
				}
				return
			case <-ticker.C:
				line := fmt.Sprintf("controlplane: %s: %s", status(), seconds(time.Since(start)))
				if s.terminal {
					fmt.Fprint(s.out, clearLine+line)
				} else {
					fmt.Fprintln(s.out, line)
				}
			}
		}
	})
	return func() time.Duration {
		close(done)
		printing.Wait()
		return time.Since(start)
	}
}

// seconds shows a duration as people say it.
func seconds(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	if s < 60 {
		return fmt.Sprintf("%d s", s)
	}
	return fmt.Sprintf("%d min %02d s", s/60, s%60)
}
