package webhook

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pillion-dev/pillion/profiles"
)

// The results of a request, as metrics tell them apart.
const (
	resultUntouched = "untouched"
	resultWoven     = "woven"
	resultDenied    = "denied"
	resultFault     = "fault"
)

// Metrics are what the webhook counts. Labels are of fixed sets: nothing that a user writes becomes one.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
}

// NewMetrics returns metrics in a registry of their own. snapshot gives the profiles that are counted.
func NewMetrics(snapshot func() *profiles.Snapshot) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pillion_admission_duration_seconds",
			Help:    "Time from an admission review's last byte to its answer, by result.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .1, .5, 1},
		}, []string{"result"}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_snapshot_profiles", Help: "Profiles in memory.",
		}, func() float64 { return float64(snapshot().Len()) }),
	)
	return m
}

// observe counts a request. It does nothing on nil Metrics.
func (m *Metrics) observe(result string, since time.Time) {
	if m != nil {
		m.requests.WithLabelValues(result).Observe(time.Since(since).Seconds())
	}
}

// handler serves the metrics.
func (m *Metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
