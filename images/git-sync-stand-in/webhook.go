package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"
)

// webhookSettings say whom to tell of a new revision, and how.
type webhookSettings struct {
	url, method string
	status      int // -1: any answer will do
	timeout     time.Duration
	backoff     time.Duration
}

// webhook tells somebody of new revisions, beside the syncs. Only the newest counts.
type webhook struct {
	webhookSettings
	logger *log.Logger
	newest chan string
}

// newWebhook returns nil if nobody is to be told.
func newWebhook(s webhookSettings, logger *log.Logger) *webhook {
	if s.url == "" {
		return nil
	}
	return &webhook{webhookSettings: s, logger: logger, newest: make(chan string, 1)}
}

// send hands over a revision, in place of one that is still waiting.
func (w *webhook) send(hash string) {
	if w == nil {
		return
	}
	select {
	case <-w.newest:
	default:
	}
	w.newest <- hash
}

// start begins to tell of what is sent, until stop.
func (w *webhook) start(ctx context.Context) (stop func()) {
	if w == nil {
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case hash := <-w.newest:
				w.tell(ctx, hash)
			}
		}
	}()
	return stop
}

// tell calls until it succeeds or there is a newer revision.
func (w *webhook) tell(ctx context.Context, hash string) {
	for {
		err := w.call(ctx, hash)
		if err == nil {
			return
		}
		w.logger.Printf("webhook failed, will retry: %v", err)
		select {
		case <-ctx.Done():
			return
		case hash = <-w.newest:
		case <-time.After(w.backoff):
		}
	}
}

func (w *webhook) call(ctx context.Context, hash string) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, w.method, w.url, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Gitsync-Hash", hash)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // nothing of it is read
	if w.status != -1 && response.StatusCode != w.status {
		return fmt.Errorf("%s %s answered %d, not %d", w.method, w.url, response.StatusCode, w.status)
	}
	return nil
}
