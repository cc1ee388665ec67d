// Command git-sync-stand-in stands for git-sync v4.7 in the tests on a real node, where git-sync itself cannot be had. It is
// no replacement: it takes exactly the flags that Pillion's gitSync pattern gives git-sync, in the form in which it gives
// them, and refuses all else, so that a test with it fails where what Pillion emits has changed. What it does with them it
// does by real git, and in the way that Pillion relies on: see docs/patterns/git-sync.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if answer, asked := answerGit(os.Args); asked {
		fmt.Println(answer)
		return
	}
	// git-sync dies of its signals, even as PID 1. The status of such an end is 128 and the signal's number.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		received := (<-signals).(syscall.Signal)
		os.Exit(128 + int(received))
	}()

	logger := log.New(os.Stderr, "git-sync-stand-in: ", log.LstdFlags|log.LUTC)
	s, err := parse(os.Args[1:], os.Environ())
	if err == nil {
		err = run(context.Background(), s, logger)
	}
	if err != nil {
		logger.Print(err)
		os.Exit(1)
	}
}

// run syncs once, or again and again until too many failures follow each other.
func run(ctx context.Context, s settings, logger *log.Logger) error {
	repository, err := newRepository(s)
	if err != nil {
		return err
	}
	hook := newWebhook(s.webhook, logger)
	defer hook.start(ctx)()

	for failures, isFirst := 0, true; ; {
		published, err := syncOnce(ctx, repository, s)
		switch {
		case err != nil:
			failures++
			tell(s.errorFile, err, logger)
			if limit := s.failureLimit(); limit >= 0 && failures >= limit {
				return fmt.Errorf("too many failures, aborting after %d: %w", failures, err)
			}
			logger.Printf("error syncing repo, will retry (failure %d): %v", failures, err)
		default:
			tell(s.errorFile, nil, logger)
			if published.isNew || isFirst {
				logger.Printf("updated successfully to %s", published.hash)
				hook.send(published.hash)
			}
			failures, isFirst = 0, false
			if s.oneTime {
				return nil
			}
		}
		wait := s.period
		if isFirst {
			wait = s.initPeriod
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// syncOnce is one sync, within the time that it may take.
func syncOnce(ctx context.Context, r *repository, s settings) (published, error) {
	ctx, cancel := context.WithTimeout(ctx, s.syncTimeout)
	defer cancel()
	p, err := r.sync(ctx)
	if err != nil && ctx.Err() != nil {
		return p, fmt.Errorf("no sync within --sync-timeout=%s: %w", s.syncTimeout, err)
	}
	return p, err
}

// tell writes the file of the last failure, as JSON like git-sync's and whole at every moment, or removes it where there is none.
func tell(file string, failure error, logger *log.Logger) {
	if file == "" {
		return
	}
	if failure == nil {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			logger.Printf("can't delete the error-file: %v", err)
		}
		return
	}
	content, err := json.Marshal(map[string]string{"Msg": "error syncing repo, will retry", "Err": failure.Error()})
	if err == nil {
		err = os.WriteFile(file+".new", content, 0o644) //nolint:gosec // git-sync's own has this mode
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		logger.Printf("can't write the error-file: %v", err)
	}
}
