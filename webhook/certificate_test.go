package webhook

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/profiles"
)

func TestAPanicAboutACertificateLeavesTheLastGoodOneServing(t *testing.T) {
	f := startFront(t, memory(t), nil)
	cluster, err := newMemory(profiles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cluster.metrics, cluster.logger = f.metrics, f.options.Logger // and no cache, which it panics for
	now := time.Now()
	choice := cluster.chooseCertificate(t.Context(), f.options, &f.health.certificate, now)
	f.health.certificate.note(slog.New(slog.DiscardHandler), choice)
	if choice.Refused == nil || choice.Untrusted == nil || !choice.Recheck.After(now) {
		t.Errorf("nothing is said of it: %+v", choice)
	}
	for _, metric := range []string{"pillion_panics_total 1", "pillion_certificate_faulty 1", "pillion_certificate_trusted 0"} {
		if !f.has(metric) {
			t.Errorf("the metrics lack %s", metric)
		}
	}
	if !strings.Contains(f.log.String(), "certificate_test.go") {
		t.Errorf("the log does not tell where: %s", f.log)
	}
	recorder := httptest.NewRecorder()
	f.health.handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/readyz", http.NoBody))
	if recorder.Code != http.StatusOK || !bytes.Contains(recorder.Body.Bytes(), []byte("verifying it panicked")) {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
	if response := answered(t, f.client(t, false), f.address, strings.NewReader(plainReview)); response.StatusCode != http.StatusOK {
		t.Error(response.Status)
	}
}
