// Package reconnect finds an API server again soon after it was gone. What watches would else wait for as long as it was
// gone, up to a minute: client-go backs off for every watch by itself, and tells nobody how.
package reconnect

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// firstPause and longestPause are how long is waited between tries to watch, and as much as half of that longer, so that
	// not all who watch come at once. An API server that says by Retry-After when it wants to be asked again is waited for,
	// as long as it is bearable.
	firstPause, longestPause, longestRetryAfter = 100 * time.Millisecond, 2 * time.Second, 5 * time.Second

	// A connection on which nothing comes for idle is asked by a ping, and closed if pong passes without an answer. It may be
	// to a machine that is gone without a word. The defaults of client-go are 30 and 15 seconds.
	idle, pong = 5 * time.Second, 5 * time.Second
)

// Soon makes whoever watches by a configuration try again soon, for as long as the API server is gone, overloaded or not
// ready, and notice soon that a connection is dead. It is to be called before any client is made of the configuration: the
// variables of client-go that bound pings hold for the process, and stay as they are if somebody has set them.
func Soon(config *rest.Config, logger *slog.Logger) {
	for name, value := range map[string]time.Duration{"HTTP2_READ_IDLE_TIMEOUT_SECONDS": idle, "HTTP2_PING_TIMEOUT_SECONDS": pong} {
		if _, isSet := os.LookupEnv(name); !isSet {
			_ = os.Setenv(name, strconv.Itoa(int(value/time.Second))) // it fails for no such name
		}
	}
	gone := &atomic.Bool{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &transport{next: next, logger: logger, gone: gone, pause: firstPause}
	})
}

// transport tries requests that watch again until they are answered. The reflector that asks sees an answer that comes late,
// and does not back off. Everything else passes as it is: it has somebody who waits for it.
type transport struct {
	next   http.RoundTripper
	logger *slog.Logger
	gone   *atomic.Bool // it has been logged
	pause  time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method != http.MethodGet || request.URL.Query().Get("watch") != "true" {
		return t.next.RoundTrip(request)
	}
	for pause := t.pause; ; pause = min(2*pause, longestPause) {
		response, err := t.next.RoundTrip(request)
		if request.Context().Err() != nil || err == nil && !isTemporary(response.StatusCode) {
			t.reached(err, response)
			return response, err
		}
		after := jittered(pause)
		if err == nil {
			after = max(after, retryAfter(response))
			_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
			_ = response.Body.Close()                                         // it was only read
		}
		t.missed(err, response)
		if err := sleep(request.Context(), after); err != nil {
			return nil, err
		}
	}
}

// WrappedRoundTripper lets client-go see what is wrapped.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// isTemporary tells whether an answer says that the API server cannot answer now. Whoever may not watch, or asks for what is
// no more, learns it at once.
func isTemporary(status int) bool {
	return status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// missed logs once that the API server is gone.
func (t *transport) missed(err error, response *http.Response) {
	if t.gone.Swap(true) {
		return
	}
	if err != nil {
		t.logger.Warn("the API server cannot be reached; trying again until it can", "error", err.Error())
		return
	}
	t.logger.Warn("the API server lets nobody watch; trying again until it does", "status", response.StatusCode)
}

// reached logs once that the API server is there again.
func (t *transport) reached(err error, response *http.Response) {
	if err == nil && response.StatusCode == http.StatusOK && t.gone.Swap(false) {
		t.logger.Info("the API server is reached again")
	}
}

func retryAfter(response *http.Response) time.Duration {
	seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestRetryAfter)
}

func jittered(pause time.Duration) time.Duration {
	return pause + rand.N(pause/2+1) //nolint:gosec // it is no secret
}

func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
