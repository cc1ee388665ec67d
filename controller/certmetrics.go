package controller

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pillion-dev/pillion/certs"
)

// certificateMetrics tell of the certificates of the controller that leads. Before it has looked at them there are none.
type certificateMetrics struct {
	notBefore, notAfter, renewal, phase, phaseStart, lastCheck *prometheus.GaugeVec
	changes                                                    *prometheus.CounterVec
}

// registerCertificates registers the metrics, or returns those that are registered already: several controllers may run in one process.
func registerCertificates(registerer prometheus.Registerer) (*certificateMetrics, error) {
	m := &certificateMetrics{}
	var errs []error
	gauge := func(into **prometheus.GaugeVec, name, help string, labels ...string) {
		var err error
		*into, err = registered(registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
		errs = append(errs, err)
	}
	gauge(&m.notBefore, "pillion_certs_not_before_timestamp_seconds", "When each certificate in the Secrets becomes valid.", "certificate")
	gauge(&m.notAfter, "pillion_certs_not_after_timestamp_seconds", "When each certificate in the Secrets expires.", "certificate")
	gauge(&m.renewal, "pillion_certs_renewal_timestamp_seconds",
		"When each certificate in the Secrets is due to be replaced, of those that the controller replaces.", "certificate")
	gauge(&m.phase, "pillion_certs_rotation_phase", "1 for the phase that the replacement of the CA is in, 0 for the others.", "phase")
	gauge(&m.phaseStart, "pillion_certs_rotation_phase_start_timestamp_seconds", "When that phase began.")
	gauge(&m.lastCheck, "pillion_certs_last_check_timestamp_seconds", "When the certificates were last found or made to be in order.")
	var err error
	m.changes, err = registered(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pillion_certs_changes_total", Help: "What was done to the certificates, by reason.",
	}, []string{"reason"}))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("register the metrics of certificates: %w", err)
	}
	return m, nil
}

// observe tells what was found.
func (m *certificateMetrics) observe(result *certs.Result, now time.Time) {
	seconds := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	told := map[certs.Role]certs.Certificate{}
	for _, one := range result.Certificates {
		before, isThere := told[one.Role]
		if !isThere || before.Certificate.NotAfter.Before(one.Certificate.NotAfter) { // of several previous CAs the last to expire
			told[one.Role] = one
		}
	}
	for _, role := range certs.Roles() {
		label := string(role)
		one, isThere := told[role]
		if !isThere {
			m.notBefore.DeleteLabelValues(label)
			m.notAfter.DeleteLabelValues(label)
		} else {
			m.notBefore.WithLabelValues(label).Set(seconds(one.Certificate.NotBefore))
			m.notAfter.WithLabelValues(label).Set(seconds(one.Certificate.NotAfter))
		}
		if one.RenewAt.IsZero() {
			m.renewal.DeleteLabelValues(label)
		} else {
			m.renewal.WithLabelValues(label).Set(seconds(one.RenewAt))
		}
	}
	for _, phase := range certs.Phases() {
		value := 0.0
		if phase == result.Phase {
			value = 1
		}
		m.phase.WithLabelValues(string(phase)).Set(value)
	}
	m.phaseStart.WithLabelValues().Set(seconds(result.Since))
	m.lastCheck.WithLabelValues().Set(seconds(now))
}

// count counts what was done.
func (m *certificateMetrics) count(changes []certs.Change) {
	for _, reason := range certs.Reasons() { // so that the first of a kind is an increase
		m.changes.WithLabelValues(string(reason))
	}
	for _, change := range changes {
		m.changes.WithLabelValues(string(change.Reason)).Inc()
	}
}

// forget removes what was told: the controller leads no longer.
func (m *certificateMetrics) forget() {
	for _, gauge := range []*prometheus.GaugeVec{m.notBefore, m.notAfter, m.renewal, m.phase, m.phaseStart, m.lastCheck} {
		gauge.Reset()
	}
	m.changes.Reset()
}
