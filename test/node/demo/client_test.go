package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnswersAreCountedAndTheBrokenOnesTold(t *testing.T) {
	type answer struct {
		status int
		body   string
	}
	tests := map[string]struct {
		answers []answer // each for some requests
		want    string
	}{
		"the old page, then the new one": {answers: []answer{{200, "old"}, {200, "new"}}},
		"half a page": {
			answers: []answer{{200, "old"}, {200, "ne"}, {200, "new"}}, want: `a page that nobody wrote: "ne"`,
		},
		"no page": {answers: []answer{{200, "old"}, {404, "new"}, {200, "new"}}, want: "status 404"},
		"the old page again": {
			answers: []answer{{200, "old"}, {200, "new"}, {200, "old"}, {200, "new"}}, want: "the old page after the new one",
		},
		"no answer": {answers: []answer{{200, "old"}, {}, {200, "new"}}, want: "EOF"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			const each = 20
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				now := tc.answers[min(int(requests.Add(1)-1)/each, len(tc.answers)-1)]
				if now.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(now.status)
				_, _ = w.Write([]byte(now.body))
			}))
			defer server.Close()
			a := ask(t.Context(), server.URL, "old", "new")
			defer a.stop()
			for deadline := time.Now().Add(time.Minute); int(requests.Load()) < each*len(tc.answers) || a.saw(changed, each) != nil; {
				if time.Now().After(deadline) {
					t.Fatalf("after %d requests: %s", requests.Load(), a)
				}
				time.Sleep(time.Millisecond)
			}
			a.stop()
			err := a.problem()
			switch {
			case tc.want == "" && (err != nil || a.counts[old] != each):
				t.Errorf("it says %v, with %s", err, a)
			// Go asks again by itself where a connection that it had kept is closed.
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || a.broken < each/2):
				t.Errorf("it says %v, with %s, want %q", err, a, tc.want)
			}
		})
	}
}
