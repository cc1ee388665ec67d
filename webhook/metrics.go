package webhook

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pillion-dev/pillion/profiles"
)

// The endpoints, as metrics tell them apart.
const (
	endpointMutate    = "mutate"
	endpointVerify    = "verify"
	endpointProfiles  = "profiles"
	endpointWorkloads = "workloads"
)

// The results of a request, as metrics tell them apart.
const (
	resultUntouched = "untouched"
	resultWarned    = "warned"
	resultWoven     = "woven"
	resultDenied    = "denied"
	resultFault     = "fault"
)

// What stands for a reason where no outcome has one.
const (
	// causeNoProfile says that no profile was considered for the Pod.
	causeNoProfile = "NoProfile"
	// causePanic says that answering panicked.
	causePanic = "Panic"
	// causeCanceled says that the API server had gone before there was an answer.
	causeCanceled = "RequestCanceled"
)

// Metrics are what the webhook counts. Labels are of fixed sets, or name profiles that exist: nothing that a user writes into a Pod
// becomes one.
type Metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.HistogramVec
	admissions *prometheus.CounterVec
	outcomes   *outcomeCounts
	handshakes *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	panics     prometheus.Counter
	inFlight   atomic.Pointer[inFlight]
}

// NewMetrics returns metrics in a registry of their own. snapshot gives the profiles that are counted, serving the certificate.
func NewMetrics(snapshot func() *profiles.Snapshot, serving *certificate) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pillion_admission_duration_seconds",
			Help: "Time from an admission review's last byte to its answer, by endpoint and result; dry runs are in it. " +
				"The result woven says that the answer has a patch, warned that whoever writes a workload is warned.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .1, .5, 1},
		}, []string{"endpoint", "result"}),
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pillion_admissions_total",
			Help: "Answers about Pods that are created, without dry runs, by result (woven, untouched, denied or fault) and reason: that of " +
				"the first outcome that explains the result, or of the fault. A Pod may be sent more than once.",
		}, []string{"result", "reason"}),
		outcomes: newOutcomeCounts(snapshot),
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pillion_tls_handshake_errors_total",
			Help: "TLS handshakes that failed, by reason: untrusted (the client did not accept the certificate), no_certificate (there is none " +
				"yet), client_certificate (the client's is missing or not accepted), protocol, timeout, closed or other.",
		}, []string{"reason"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pillion_requests_rejected_total",
			Help: "Requests that were refused before they were looked at, by limit: requests_in_flight or bytes_in_flight (HTTP 429), not_ready " +
				"(HTTP 503), and connections that were closed for others, or not taken.",
		}, []string{"limit"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pillion_panics_total", Help: "Panics. Each hurts one request; where there was none, what was known before goes on serving.",
		}),
	}
	for _, reason := range handshakeReasons() { // so that the first one is an increase
		m.handshakes.WithLabelValues(reason)
	}
	for _, limit := range []string{limitRequests, limitBytes, limitConnections, limitStreams, limitNotReady} {
		m.refusals.WithLabelValues(limit)
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.admissions, m.outcomes, m.handshakes, m.refusals, m.panics,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_snapshot_profiles", Help: "Profiles in memory.",
		}, func() float64 { return float64(snapshot().Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_requests_in_flight", Help: "Requests that are being read or answered.",
		}, func() float64 {
			if flying := m.inFlight.Load(); flying != nil {
				return float64(flying.requests.Load())
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_request_bytes_in_flight", Help: "Bytes of the bodies of these requests.",
		}, func() float64 {
			if flying := m.inFlight.Load(); flying != nil {
				return float64(flying.bytes.Load())
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_certificate_faulty",
			Help: "1 if the pair in the Secret would not verify for the API server, so that an earlier one, or none, is presented.",
		}, func() float64 { return oneIf(serving.refused.Load() != nil) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_certificate_trusted",
			Help: "1 if the certificate that is presented verifies by the caBundle of every entry of the webhook configurations.",
		}, func() float64 { return oneIf(serving.isGood(time.Now()) && serving.untrusted.Load() == nil) }),
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

// tellAge adds when memory last changed, and when the API server was last heard on what memory follows.
func (m *Metrics) tellAge(changed, heard func() time.Time) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_snapshot_last_change_timestamp_seconds",
			Help: "When the profiles in memory last changed, in seconds since 1970. It grows old where nobody changes profiles.",
		}, func() float64 { return seconds(changed()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pillion_snapshot_last_contact_timestamp_seconds",
			Help: "When the API server last sent anything on each of the watches of profiles and namespaces: the oldest of these times, " +
				"in seconds since 1970; 0 before all were heard. The API server sends a bookmark about once a minute where nothing changes.",
		}, func() float64 { return seconds(heard()) }),
	)
}

// seconds returns seconds since 1970, 0 for no time at all.
func seconds(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixMilli()) / 1000
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// tellConnections adds how many connections are open.
func (m *Metrics) tellConnections(open func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pillion_tls_connections", Help: "Connections that are open where admission reviews are answered.",
	}, func() float64 { return float64(open()) }))
}

// tellClientCA adds whether the file of webhook.clientCA is well.
func (m *Metrics) tellClientCA(clients *clientCA) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pillion_client_ca_faulty",
		Help: "1 if the file of webhook.clientCA cannot be used, so that clients are verified by what it held before.",
	}, func() float64 { return oneIf(clients.fault.Load() != nil) }))
}

// tellInFlight says what is being answered. It does nothing on nil Metrics.
func (m *Metrics) tellInFlight(flying *inFlight) {
	if m != nil {
		m.inFlight.Store(flying)
	}
}

// handshakeFailed counts a handshake. It does nothing on nil Metrics.
func (m *Metrics) handshakeFailed(reason string) {
	if m != nil {
		m.handshakes.WithLabelValues(reason).Inc()
	}
}

// rejected counts what a limit refused. It does nothing on nil Metrics.
func (m *Metrics) rejected(limit string) {
	if m != nil {
		m.refusals.WithLabelValues(limit).Inc()
	}
}

// panicked counts a panic. It does nothing on nil Metrics.
func (m *Metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}

// observe notes how long a request took. It does nothing on nil Metrics.
func (m *Metrics) observe(endpoint, result string, since time.Time) {
	if m != nil {
		m.requests.WithLabelValues(endpoint, result).Observe(time.Since(since).Seconds())
	}
}

// admitted counts an answer about a Pod. It does nothing on nil Metrics.
func (m *Metrics) admitted(result, reason string) {
	if m != nil {
		m.admissions.WithLabelValues(result, reason).Inc()
	}
}

// decided counts a decision about a Pod, and what it says of each profile. It does nothing on nil Metrics.
func (m *Metrics) decided(decision *profiles.Decision, all []told) {
	if m == nil {
		return
	}
	m.admitted(resultAndReason(decision))
	m.outcomes.count(all)
}

// resultAndReason returns what became of a Pod, and why: the reason of the first outcome that explains it. A Pod into which nothing
// was woven is untouched, though its annotations may say what was left out.
func resultAndReason(decision *profiles.Decision) (result, reason string) {
	if denying := decision.Denying(); len(denying) > 0 {
		return resultDenied, string(denying[0].Reason)
	}
	left := causeNoProfile
	for i := range decision.Outcomes {
		outcome := &decision.Outcomes[i]
		if outcome.Result == profiles.Applied {
			return resultWoven, string(outcome.Reason)
		}
		if left == causeNoProfile || outcome.Result == profiles.Rejected {
			left = string(outcome.Reason)
		}
	}
	return resultUntouched, left
}

// handler serves the metrics.
func (m *Metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
