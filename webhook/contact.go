package webhook

import (
	"io"
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

// wrap listens to what lists and watches of the kinds receive.
func (c *contact) wrap(transport http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := transport.RoundTrip(request)
		if err != nil || response.StatusCode != http.StatusOK || request.Method != http.MethodGet {
			return response, err
		}
		for i, kind := range c.kinds {
			if strings.HasSuffix(request.URL.Path, "/"+kind) {
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
