package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// fault is why a request was not decided: an HTTP status and a sentence. The sentence is logged, here and by the API server, so it
// holds no text of the request but names of objects: errors of decoding and of the API server are told in our own words.
type fault struct {
	status int
	err    error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func faultf(status int, format string, args ...any) error {
	return &fault{status: status, err: fmt.Errorf(format, args...)}
}

// statusOf returns the HTTP status of what kept a request from being decided.
func statusOf(err error) int {
	known := &fault{}
	if errors.As(err, &known) {
		return known.status
	}
	return http.StatusInternalServerError
}

// reasonOfFault returns a word for an HTTP status, of a fixed set: BadRequest, ServiceUnavailable and the like.
func reasonOfFault(status int) string { return strings.ReplaceAll(http.StatusText(status), " ", "") }

// decodeProblem says why JSON could not be decoded. The error itself may quote what was written, as that of a time does.
func decodeProblem(err error) string {
	if syntax := (*jsontext.SyntacticError)(nil); errors.As(err, &syntax) {
		return fmt.Sprintf("it is not JSON, or not all of it, at byte %d", syntax.ByteOffset)
	}
	if isSyntax, offset := kjson.SyntaxErrorOffset(err); isSyntax {
		return fmt.Sprintf("it is not JSON, or not all of it, at byte %d", offset)
	}
	return "a field has a value that its type cannot hold"
}

// readProblem says why the API server could not be asked. The error itself may name what a Pod asks for: its URL does.
func readProblem(err error) string {
	unreachable := &url.Error{}
	switch reason := apierrors.ReasonForError(err); {
	case errors.Is(err, context.DeadlineExceeded):
		return "the API server did not answer in time"
	case reason != metav1.StatusReasonUnknown:
		return "the API server answered " + string(reason)
	case errors.As(err, &unreachable):
		return "the API server cannot be reached: " + unreachable.Err.Error()
	default:
		return "the API server could not be asked"
	}
}

// fail answers that the request was not decided. What may pass is answered so that the API server tries once more.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	level := slog.LevelWarn
	if status == http.StatusTooManyRequests {
		level = slog.LevelDebug // thousands a second, where they come; they are counted
	}
	h.options.Logger.Log(r.Context(), level, "request not decided", "path", r.URL.Path, "status", status, "error", err.Error())
	writeFault(w, status, err.Error())
}

// writeFault sends a fault, whole.
func writeFault(w http.ResponseWriter, status int, text string) {
	text += "\n"
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1") // another replica may know, or have room
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(text))) // so that the answer has an end before the request has
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// recover answers a panic with 500: it hurts one request. observe counts it.
func (h *handler) recover(w http.ResponseWriter, r *http.Request, observe func()) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares this panic value so
		panic(cause)
	}
	tellPanic(w, r, cause, h.options.Logger, h.options.Metrics)
	observe()
}

// tellPanic counts, logs and answers a panic in a request.
func tellPanic(w http.ResponseWriter, r *http.Request, cause any, logger *slog.Logger, metrics *Metrics) {
	metrics.panicked()
	logger.Error("panic in a request", "path", r.URL.Path, "cause", causeOf(cause), "stack", string(debug.Stack()))
	http.Error(w, "internal error", http.StatusInternalServerError)
}

// guarded returns a handler in which a panic hurts one request.
func guarded(handler http.Handler, logger *slog.Logger, metrics *Metrics) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch cause := recover(); cause {
			case nil:
			case http.ErrAbortHandler:
				panic(cause)
			default:
				tellPanic(w, r, cause, logger, metrics)
			}
		}()
		handler.ServeHTTP(w, r)
	})
}

// causeOf tells of a panic. What others panic with may quote what they choked on; the runtime's errors name types and indices.
func causeOf(cause any) string {
	if err, ok := cause.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", cause)
}
