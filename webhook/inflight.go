package webhook

import (
	"io"
	"net/http"
	"sync/atomic"
)

// The limits, as metrics tell which of them refused a request.
const (
	limitRequests    = "requests_in_flight"
	limitBytes       = "bytes_in_flight"
	limitConnections = "connections"
	limitStreams     = "streams"
	limitNotReady    = "not_ready"
)

// inFlight is what is being answered, and how much may be. It has no lock: every request passes here.
type inFlight struct {
	mostRequests, mostBytes int64
	requests, bytes         atomic.Int64
}

// allowance is what a request has taken of the limits. It is given back at its end.
type allowance struct {
	of    *inFlight
	bytes int64
}

// enter counts a request, unless there are too many.
func (f *inFlight) enter() (allowance, bool) {
	if f.requests.Add(1) > f.mostRequests {
		f.requests.Add(-1)
		return allowance{}, false
	}
	return allowance{of: f}, true
}

// take tells whether a request may hold so many bytes more.
func (a *allowance) take(bytes int64) bool {
	if a.of.bytes.Add(bytes) > a.of.mostBytes {
		a.of.bytes.Add(-bytes)
		return false
	}
	a.bytes += bytes
	return true
}

func (a *allowance) leave() {
	a.of.bytes.Add(-a.bytes)
	a.of.requests.Add(-1)
}

// tooMany is the fault of a request for which there is no room. The API server asks again a second later, maybe another replica.
func (h *handler) tooMany(limit string, most int64, what string) error {
	h.options.Metrics.rejected(limit)
	return faultf(http.StatusTooManyRequests, "more than %d %s in flight: try again in a second", most, what)
}

// answersBefore lets the answer to an HTTP/1.1 request be sent before its body has been read: discard has to follow. HTTP/2 does so
// by itself.
func answersBefore(w http.ResponseWriter, r *http.Request) bool {
	return r.ProtoMajor == 1 && http.NewResponseController(w).EnableFullDuplex() == nil
}

// mostDiscarded is how much of a body is read for nothing.
const mostDiscarded = 64 << 20

// discard sends the answer, and reads what the client is still sending. Were the connection closed on it, the answer could be lost: the
// client may see no more than a broken connection, and the API server would not ask again.
func discard(w http.ResponseWriter, r *http.Request) {
	if http.NewResponseController(w).Flush() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, mostDiscarded))
	}
}
