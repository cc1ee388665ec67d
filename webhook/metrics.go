package webhook

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/profiles"
)

// The endpoints, as metrics tell them apart.
const (
	endpointMutate   = "mutate"
	endpointVerify   = "verify"
	endpointProfiles = "profiles"
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
	registry         *prometheus.Registry
	requests         *prometheus.HistogramVec
	certificateFault prometheus.Gauge
}

// NewMetrics returns metrics in a registry of their own. snapshot gives the profiles that are counted, serving the certificate.
func NewMetrics(snapshot func() *profiles.Snapshot, serving *certs.Serving) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pillion_admission_duration_seconds",
			Help:    "Time from an admission review's last byte to its answer, by endpoint (mutate, verify or profiles) and result.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .1, .5, 1},
		}, []string{"endpoint", "result"}),
		certificateFault: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pillion_certificate_faulty",
			Help: "1 if the pair in the Secret would not verify for the API server, so that an earlier one, or none, is presented.",
		}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_snapshot_profiles", Help: "Profiles in memory.",
		}, func() float64 { return float64(snapshot().Len()) }),
		m.certificateFault,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_certificate_not_after_seconds",
			Help: "When the certificate that is presented expires, in seconds since 1970; 0 if there is none.",
		}, func() float64 {
			if leaf := serving.Leaf(); leaf != nil {
				return float64(leaf.NotAfter.Unix())
			}
			return 0
		}),
	)
	return m
}

// certificateChecked notes whether the pair in the Secret verifies. It does nothing on nil Metrics.
func (m *Metrics) certificateChecked(err error) {
	switch {
	case m == nil:
	case err != nil:
		m.certificateFault.Set(1)
	default:
		m.certificateFault.Set(0)
	}
}

// observe counts a request. It does nothing on nil Metrics.
func (m *Metrics) observe(endpoint, result string, since time.Time) {
	if m != nil {
		m.requests.WithLabelValues(endpoint, result).Observe(time.Since(since).Seconds())
	}
}

// handler serves the metrics.
func (m *Metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
