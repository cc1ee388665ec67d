package webhook

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// health is what the process knows of itself, and tells at /readyz.
type health struct {
	synced, draining atomic.Bool

	certificate certificate
	contact     *contact
	silentAfter time.Duration
}

// gate lets requests pass once they can be decided about. While the process drains every answer asks the client to close its
// connection; over HTTP/2 the server then sends GOAWAY.
func (h *health) gate(next http.Handler, logger *slog.Logger, metrics *Metrics) http.Handler {
	return guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		if !h.synced.Load() {
			metrics.rejected(limitNotReady)
			unread := answersBefore(w, r)
			writeFault(w, http.StatusServiceUnavailable, notSynced)
			if unread {
				discard(w, r)
			}
			return
		}
		next.ServeHTTP(w, r)
	}), logger, metrics)
}

const notSynced = "not ready: profiles and namespaces have not been read yet"

// handler serves /healthz and /readyz. A pair in the Secret that cannot serve, and an API server that is silent, do not make
// the process unready: it answers all the same, and the text says so.
func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		now := time.Now()
		switch {
		case h.draining.Load():
			http.Error(w, "not ready: shutting down", http.StatusServiceUnavailable)
		case !h.synced.Load():
			http.Error(w, notSynced, http.StatusServiceUnavailable)
		case !h.certificate.isGood(now):
			lines := append([]string{"not ready: there is no certificate that the API server would accept"}, h.concerns()...)
			http.Error(w, strings.Join(lines, "\n"), http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte(strings.Join(append([]string{"ok"}, h.concerns()...), "\n") + "\n"))
		}
	})
	return mux
}

// concerns returns what is wrong though the process is ready.
func (h *health) concerns() []string {
	var concerns []string
	if problem := h.certificate.status(); problem != "" {
		concerns = append(concerns, problem)
	}
	if heard, silent := h.contact.silent(h.silentAfter); silent {
		concerns = append(concerns, fmt.Sprintf("the API server was last heard %s ago: answers are by what was known then",
			h.contact.now().Sub(heard).Round(time.Second)))
	}
	return concerns
}
