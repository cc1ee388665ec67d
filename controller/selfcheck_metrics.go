package controller

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// selfCheckMetrics tell of the self-check of the controller that leads. Before its first check there are none, or a standby would look as
// if it failed, and none after its last, or one that leads no longer would say that all is well.
type selfCheckMetrics struct {
	success, lastSuccess *prometheus.GaugeVec
	duration             *prometheus.HistogramVec
	failures             *prometheus.CounterVec
}

// registerSelfCheck registers the metrics, or returns those that are registered already: several controllers may run in one process.
func registerSelfCheck(registerer prometheus.Registerer) (*selfCheckMetrics, error) {
	m := &selfCheckMetrics{}
	var errs [4]error
	m.success, errs[0] = registered(registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "pillion_self_check_success", Help: "1 if the last self-check passed, 0 if it failed.",
	}, nil))
	m.lastSuccess, errs[1] = registered(registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "pillion_self_check_last_success_timestamp_seconds", Help: "When a self-check passed last.",
	}, nil))
	m.duration, errs[2] = registered(registerer, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "pillion_self_check_duration_seconds",
		Help:    "Time that the API server took over the Pod of a self-check, by whatever it answered.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, nil))
	m.failures, errs[3] = registered(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pillion_self_check_failures_total", Help: "Self-checks that failed, by reason.",
	}, []string{"reason"}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("register the metrics of the self-check: %w", err)
	}
	return m, nil
}

// registered registers a collector, or returns the one that is there.
func registered[C prometheus.Collector](registerer prometheus.Registerer, collector C) (C, error) {
	err := registerer.Register(collector)
	there := prometheus.AlreadyRegisteredError{}
	if errors.As(err, &there) {
		if shared, ok := there.ExistingCollector.(C); ok {
			return shared, nil
		}
	}
	return collector, err
}

// observe counts a check.
func (m *selfCheckMetrics) observe(result *checkResult, now time.Time) {
	for _, reason := range selfCheckFailures() { // so that the first failure is an increase
		m.failures.WithLabelValues(reason)
	}
	if result.asked {
		m.duration.WithLabelValues().Observe(result.took.Seconds())
	}
	if !result.ok {
		m.success.WithLabelValues().Set(0)
		m.failures.WithLabelValues(result.reason).Inc()
		return
	}
	m.success.WithLabelValues().Set(1)
	m.lastSuccess.WithLabelValues().Set(float64(now.UnixMilli()) / 1000)
}

// forget removes what was told: the controller leads no longer.
func (m *selfCheckMetrics) forget() {
	m.success.Reset()
	m.lastSuccess.Reset()
	m.duration.Reset()
	m.failures.Reset()
}
