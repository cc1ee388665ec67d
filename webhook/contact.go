package webhook

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// contact knows when the API server was last heard on what memory follows. A connection that is silently dead looks like one on
// which nothing happens, but for the bookmarks that the API server sends about once a minute.
type contact struct {
	kinds []string // the last segments of the paths
	heard []atomic.Int64
	now   func() time.Time
}

func newContact(kinds ...string) *contact {
	return &contact{kinds: kinds, heard: make([]atomic.Int64, len(kinds)), now: time.Now}
}

// oldest returns the oldest of the times when the kinds were heard of; none if one has not been yet.
func (c *contact) oldest() time.Time {
	oldest := c.now()
	for i := range c.heard {
		nanoseconds := c.heard[i].Load()
		if nanoseconds == 0 {
			return time.Time{}
		}
		if at := time.Unix(0, nanoseconds); at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// silent tells whether a kind has not been heard of for some time, and since when.
func (c *contact) silent(after time.Duration) (heard time.Time, silent bool) {
	heard = c.oldest()
	return heard, !heard.IsZero() && c.now().Sub(heard) > after
}

// follow logs once when the API server falls silent, and when it is heard again, until ctx ends.
func (c *contact) follow(ctx context.Context, after time.Duration, logger *slog.Logger) {
	ticker := time.NewTicker(min(time.Second, after))
	defer ticker.Stop()
	was := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		heard, silent := c.silent(after)
		switch {
		case silent && !was:
			logger.Warn("the API server is silent; requests are answered by what was known when it was last heard", "heard", heard)
		case !silent && was:
			logger.Info("the API server is heard again")
		}
		was = silent
	}
}

// wrap listens to what lists and watches of the kinds receive.
func (c *contact) wrap(transport http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := transport.RoundTrip(request)
		if err != nil || response.StatusCode != http.StatusOK || request.Method != http.MethodGet {
			return response, err
		}
		for i, kind := range c.kinds {
			if strings.HasSuffix(request.URL.Path, "/"+kind) {
				c.heard[i].Store(c.now().UnixNano()) // a watch that is taken up again may have nothing to tell for a minute
				response.Body = &heardBody{ReadCloser: response.Body, now: c.now, heard: &c.heard[i]}
			}
		}
		return response, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// heardBody notes when something was read.
type heardBody struct {
	io.ReadCloser

	now   func() time.Time
	heard *atomic.Int64
}

func (b *heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.heard.Store(b.now().UnixNano())
	}
	return n, err
}
