package reconnect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// roundTripper answers requests, the nth of them by answer(n).
type roundTripper struct {
	asked  int
	answer func(n int) (*http.Response, error)
}

func (r *roundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	r.asked++
	return r.answer(r.asked)
}

func status(code int, headers ...string) *http.Response {
	response := httptest.NewRecorder()
	for i := 0; i+1 < len(headers); i += 2 {
		response.Header().Set(headers[i], headers[i+1])
	}
	response.WriteHeader(code)
	return response.Result()
}

var errRefused = &url.Error{Op: "Get", URL: "https://10.0.0.1", Err: syscall.ECONNREFUSED}

func TestOnlyWatchesAreTriedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		method, query string
		first         func() (*http.Response, error)
		again         bool
	}{
		"a watch that cannot connect":        {first: func() (*http.Response, error) { return nil, errRefused }, again: true},
		"a watch that loses its connection":  {first: func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, again: true},
		"a watch answered 500":               {first: func() (*http.Response, error) { return status(500), nil }, again: true},
		"a watch answered 503":               {first: func() (*http.Response, error) { return status(503), nil }, again: true},
		"a watch answered 429":               {first: func() (*http.Response, error) { return status(429, "Retry-After", "1"), nil }, again: true},
		"a watch that is forbidden":          {first: func() (*http.Response, error) { return status(403), nil }},
		"a watch whose token has expired":    {first: func() (*http.Response, error) { return status(401), nil }},
		"a watch of what is too old":         {first: func() (*http.Response, error) { return status(410), nil }},
		"a watch that is answered":           {first: func() (*http.Response, error) { return status(200), nil }},
		"a list, for which somebody waits":   {query: "limit=500", first: func() (*http.Response, error) { return nil, errRefused }},
		"a write, which may have been done":  {method: http.MethodPost, first: func() (*http.Response, error) { return nil, errRefused }},
		"a read that is answered 503":        {query: "timeout=1s", first: func() (*http.Response, error) { return status(503), nil }},
		"a watch that is switched off by it": {query: "watch=false", first: func() (*http.Response, error) { return nil, errRefused }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := &roundTripper{answer: func(n int) (*http.Response, error) {
					if n == 1 {
						return test.first()
					}
					return status(200), nil
				}}
				transport := newTransport(next, &bytes.Buffer{})
				query, method := test.query, test.method
				if query == "" {
					query = "watch=true&resourceVersion=7"
				}
				if method == "" {
					method = http.MethodGet
				}
				request := httptest.NewRequestWithContext(t.Context(), method, "https://10.0.0.1/api/v1/namespaces?"+query, http.NoBody)
				response, err := transport.RoundTrip(request)
				if err == nil {
					_ = response.Body.Close()
				}
				if again := next.asked == 2; again != test.again {
					t.Errorf("asked %d times; the answer: %v, %v", next.asked, response, err)
				}
			})
		})
	}
}

func TestAnAPIServerThatComesBackAfterAnHourIsFoundWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(time.Hour)
		next := &roundTripper{answer: func(int) (*http.Response, error) {
			if time.Now().Before(back) {
				return nil, errRefused
			}
			return status(200), nil
		}}
		log := &bytes.Buffer{}
		response, err := newTransport(next, log).RoundTrip(watchRequest(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if late := time.Since(back); late > longestPause*3/2 {
			t.Errorf("it was found %s after it came back", late)
		}
		if next.asked > 3600 {
			t.Errorf("it was asked %d times in an hour", next.asked)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 {
			t.Errorf("an hour is worth two lines, one when it began and one when it ended:\n%s", log)
		}
	})
}

func TestAnAPIServerThatSaysWhenIsAskedThen(t *testing.T) {
	for _, test := range []struct {
		says     string
		atLeast  time.Duration
		lessThan time.Duration
	}{
		{says: "3", atLeast: 3 * time.Second, lessThan: 3*time.Second + 1},
		{says: "600", atLeast: longestRetryAfter, lessThan: longestRetryAfter + 1},
		{says: "-5", atLeast: firstPause, lessThan: 2 * firstPause},
		{says: "Wed, 21 Oct 2026 07:28:00 GMT", atLeast: firstPause, lessThan: 2 * firstPause},
	} {
		t.Run(fmt.Sprintf("Retry-After %s", test.says), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := &roundTripper{answer: func(n int) (*http.Response, error) {
					if n == 1 {
						return status(429, "Retry-After", test.says), nil
					}
					return status(200), nil
				}}
				began := time.Now()
				response, err := newTransport(next, &bytes.Buffer{}).RoundTrip(watchRequest(t.Context()))
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				if took := time.Since(began); took < test.atLeast || took >= test.lessThan {
					t.Errorf("it was asked again after %s", took)
				}
			})
		})
	}
}

func TestAWatchThatNobodyWantsAnyMoreEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		next := &roundTripper{answer: func(int) (*http.Response, error) { return nil, errRefused }}
		began := time.Now()
		response, err := newTransport(next, &bytes.Buffer{}).RoundTrip(watchRequest(ctx))
		if err == nil {
			_ = response.Body.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("it ended after %s with %v", time.Since(began), err)
		}
	})
}

func TestKindsThatAreWatchedFromTheStartNeedNoAPIServer(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "not now", http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	mapper, err := Mapper(&rest.Config{Host: server.URL}, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[schema.GroupVersionKind]string{
		{Version: "v1", Kind: "Secret"}:    "namespace secrets",
		{Version: "v1", Kind: "Namespace"}: "root namespaces",
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"}:   "root mutatingwebhookconfigurations",
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"}: "root validatingwebhookconfigurations",
		{Group: "pillion.dev", Version: "v1alpha1", Kind: "ClusterPatternProfile"}:                     "root clusterpatternprofiles",
		{Group: "pillion.dev", Version: "v1alpha1", Kind: "PatternProfile"}:                            "namespace patternprofiles",
	} {
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(want, string(mapping.Scope.Name())+" "+mapping.Resource.Resource); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
	}
	if asked.Load() > 0 {
		t.Errorf("the API server was asked %d times", asked.Load())
	}
	if _, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"}, "v1"); err == nil || asked.Load() == 0 {
		t.Errorf("of other kinds the API server was asked %d times: %v", asked.Load(), err)
	}
}

func watchRequest(ctx context.Context) *http.Request {
	return httptest.NewRequestWithContext(ctx, http.MethodGet, "https://10.0.0.1/api/v1/namespaces?watch=true", http.NoBody)
}

func newTransport(next http.RoundTripper, log io.Writer) *transport {
	return &transport{next: next, logger: slog.New(slog.NewTextHandler(log, nil)), gone: &atomic.Bool{}, pause: firstPause}
}

func TestADeadConnectionIsNoticedSoonUnlessSomebodySaysWhen(t *testing.T) {
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "77")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "") // it is unset below, and afterwards as it was
	if err := os.Unsetenv("HTTP2_PING_TIMEOUT_SECONDS"); err != nil {
		t.Fatal(err)
	}
	Soon(&rest.Config{}, slog.New(slog.DiscardHandler))
	got := os.Getenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS") + " " + os.Getenv("HTTP2_PING_TIMEOUT_SECONDS")
	if diff := cmp.Diff("77 5", got); diff != "" {
		t.Errorf("the seconds (-want +got):\n%s", diff)
	}
}
