package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pillion-dev/pillion/profiles"
)

// failing is a Cluster of which the API server does not answer.
type failing struct {
	*informed

	err   error
	panic any
}

func (f *failing) Live(context.Context, string, []string, bool) (profiles.Namespace, []*profiles.Profile, error) {
	if f.panic != nil {
		panic(f.panic)
	}
	return profiles.Namespace{}, nil, f.err
}

func TestFaultsSayWhatIsWrongAndQuoteNothing(t *testing.T) {
	const canary = "canary"
	review := func(resource, object string) string {
		return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
			"resource":%s,"namespace":"web","object":%s}}`, resource, object)
	}
	const pods = `{"version":"v1","resource":"pods"}`
	asks := review(pods, `{"metadata":{"annotations":{"pillion.dev/inject":"`+canary+`"}},"spec":{"containers":[{"name":"app"}]}}`)
	tests := map[string]struct {
		path, body string
		live       failing
		wantStatus int
		wantLog    string
	}{
		"what is no JSON": {body: canary, wantStatus: http.StatusBadRequest, wantLog: "not JSON, or not all of it, at byte 0"},
		"a bad time": {
			body: review(pods, `{"metadata":{"creationTimestamp":"`+canary+`"}}`), wantStatus: http.StatusBadRequest,
			wantLog: "a value that its type cannot hold",
		},
		"a bad number": {
			body: review(pods, `{"spec":{"priority":"`+canary+`"}}`), wantStatus: http.StatusBadRequest,
			wantLog: "a value that its type cannot hold",
		},
		"a number that is too large": {
			body: review(pods, `{"spec":{"priority":98765432109876543210}}`), wantStatus: http.StatusBadRequest,
			wantLog: "a value that its type cannot hold",
		},
		"what is no profile": {
			path: profiles.PathProfiles, wantStatus: http.StatusBadRequest, wantLog: "not a profile",
			body: review(`{"group":"pillion.dev","version":"v1alpha1","resource":"patternprofiles"}`, `"`+canary+`"`),
		},
		"a namespace that is gone": {
			body: asks, live: failing{err: fmt.Errorf("get: %w", apierrors.NewNotFound(schema.GroupResource{Resource: canary}, canary))},
			wantStatus: http.StatusServiceUnavailable, wantLog: "the API server answered NotFound",
		},
		"an API server that cannot be reached": {
			body: asks, live: failing{err: &url.Error{Op: "Get", URL: "https://example.com/" + canary, Err: errors.New("connection refused")}},
			wantStatus: http.StatusServiceUnavailable, wantLog: "connection refused",
		},
		"an API server that is slow": {
			body: asks, live: failing{err: &url.Error{Op: "Get", URL: "https://example.com/" + canary, Err: context.DeadlineExceeded}},
			wantStatus: http.StatusServiceUnavailable, wantLog: "did not answer in time",
		},
		"an API server that answers nonsense": {
			body: asks, live: failing{err: errors.New("cannot decode " + canary)},
			wantStatus: http.StatusServiceUnavailable, wantLog: "could not be asked",
		},
		"a panic with a value":  {body: asks, live: failing{panic: canary}, wantStatus: http.StatusInternalServerError, wantLog: "string"},
		"a panic with an error": {body: asks, live: failing{panic: errors.New(canary)}, wantStatus: http.StatusInternalServerError, wantLog: "*errors.errorString"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			logged := &bytes.Buffer{}
			test.live.informed = counting(t).informed
			handler := NewHandler(&test.live, Options{
				Logger:   slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
				Compiler: test.live.compiler,
			})
			if test.path == "" {
				test.path = profiles.PathPods
			}
			request := httptest.NewRequest(http.MethodPost, test.path, strings.NewReader(test.body))
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			if recorder.Code != test.wantStatus || !strings.Contains(logged.String(), test.wantLog) {
				t.Errorf("HTTP %d, want %d; the log does not say %q:\n%s", recorder.Code, test.wantStatus, test.wantLog, logged)
			}
			for _, text := range []string{logged.String(), recorder.Body.String()} {
				if strings.Contains(text, canary) || strings.Contains(text, "98765") {
					t.Errorf("it quotes what was sent: %s", text)
				}
			}
		})
	}
}
