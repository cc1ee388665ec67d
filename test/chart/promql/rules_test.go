package promql

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"go.yaml.in/yaml/v3"
)

const files = "../../../charts/pillion/files/"

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// rules reads the chart's alerts, strictly.
func rules(t *testing.T) []rule {
	t.Helper()
	content, err := os.ReadFile(files + "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&document); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range document.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 15 {
		t.Fatalf("only %d alerts were found", len(all))
	}
	return all
}

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

func TestAlertsAreValid(t *testing.T) {
	for _, rule := range rules(t) {
		if _, err := newParser().ParseExpr(rule.Expr); err != nil {
			t.Errorf("%s: %v", rule.Alert, err)
		}
		if rule.For != "" {
			if _, err := model.ParseDuration(rule.For); err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
}

func TestTheDashboardsQueriesAreValid(t *testing.T) {
	content, err := os.ReadFile(files + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int                      `json:"id"`
			Title   string                   `json:"title"`
			Type    string                   `json:"type"`
			GridPos struct{ X, Y, W, H int } `json:"gridPos"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	found, ids := 0, map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] {
			t.Errorf("%s: the id %d is taken", panel.Title, panel.ID)
		}
		ids[panel.ID] = true
		if panel.GridPos.X+panel.GridPos.W > 24 {
			t.Errorf("%s: it does not fit", panel.Title)
		}
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("%s: it shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			found++
			if _, err := newParser().ParseExpr(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")); err != nil {
				t.Errorf("%s: %v", panel.Title, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d queries were found", found)
	}
}

// moment is when alerts are evaluated, in minutes from 1970. Series have a sample for each minute until then.
const moment = 3000

// now is the moment in seconds.
const now = moment * 60

// cases are, for each alert, series that it is for, and series that it is not. The times of metrics are seconds from 1970.
func cases() map[string]struct{ fires, silent []string } {
	type both = struct{ fires, silent []string }
	constant := func(metric string, value int) string { return fmt.Sprintf("%s %dx%d", metric, value, moment) }
	// counter rises by a number each minute.
	counter := func(metric string, by int) string { return fmt.Sprintf("%s 0+%dx%d", metric, by, moment) }
	certificate := func(left int) []string {
		return []string{
			constant(`pillion_certs_not_before_timestamp_seconds{certificate="serving"}`, now+left-7*86400),
			constant(`pillion_certs_not_after_timestamp_seconds{certificate="serving"}`, now+left),
		}
	}
	histogram := func(slow int) []string {
		return []string{
			counter(`pillion_admission_duration_seconds_bucket{le="0.1"}`, 100-slow),
			counter(`pillion_admission_duration_seconds_bucket{le="1"}`, 100),
			counter(`pillion_admission_duration_seconds_bucket{le="+Inf"}`, 100),
		}
	}
	phase := func(name string, since int) []string {
		return []string{
			constant("pillion_certs_rotation_phase_start_timestamp_seconds", now-since),
			constant(`pillion_certs_rotation_phase{phase="`+name+`"}`, 1), constant(`pillion_certs_rotation_phase{phase="Other"}`, 0),
		}
	}
	return map[string]both{
		"PillionWebhookAbsent": {nil, []string{constant("pillion_snapshot_profiles", 0)}},
		"PillionWebhookNotReady": {
			[]string{constant(`pillion_snapshot_last_contact_timestamp_seconds{pod="a"}`, 0)},
			[]string{
				constant(`pillion_snapshot_last_contact_timestamp_seconds{pod="a"}`, now),
				constant(`pillion_certificate_not_after_seconds{pod="a"}`, now),
			},
		},
		"PillionWebhookSingle": {
			[]string{constant(`pillion_snapshot_profiles{pod="a"}`, 4)},
			[]string{constant(`pillion_snapshot_profiles{pod="a"}`, 4), constant(`pillion_snapshot_profiles{pod="b"}`, 4)},
		},
		"PillionFaults": {
			[]string{counter(`pillion_admissions_total{result="fault",reason="Panic"}`, 1)},
			[]string{
				counter(`pillion_admissions_total{result="woven",reason="Applied"}`, 9),
				counter(`pillion_admissions_total{result="fault",reason="Panic"}`, 0),
			},
		},
		"PillionPanics": {[]string{counter("pillion_panics_total", 1)}, []string{counter("pillion_panics_total", 0)}},
		"PillionOverload": {
			[]string{counter(`pillion_requests_rejected_total{limit="bytes_in_flight"}`, 1)},
			[]string{counter(`pillion_requests_rejected_total{limit="not_ready"}`, 1)},
		},
		"PillionSlow": {histogram(5), histogram(0)},
		"PillionBehind": {
			[]string{constant("pillion_snapshot_last_contact_timestamp_seconds", now-400)},
			// Not yet heard at all is another alert's.
			[]string{
				constant(`pillion_snapshot_last_contact_timestamp_seconds{pod="a"}`, now-60),
				constant(`pillion_snapshot_last_contact_timestamp_seconds{pod="b"}`, 0),
			},
		},
		"PillionManyDenied": {
			[]string{counter(`pillion_admissions_total{result="denied",reason="ProfileNotAvailable"}`, 60)},
			[]string{counter(`pillion_admissions_total{result="denied",reason="ProfileNotAvailable"}`, 1)},
		},
		"PillionPolicyLeftOut": {
			[]string{counter(`pillion_profile_outcomes_total{namespace="",profile="site",result="Rejected",reason="PortCollision"}`, 1)},
			[]string{
				counter(`pillion_profile_outcomes_total{profile="(unknown)",result="Rejected",reason="ProfileNotAvailable"}`, 1),
				counter(`pillion_profile_outcomes_total{profile="site",result="Applied",reason="Applied"}`, 1),
			},
		},
		"PillionEnforcementFought": {
			[]string{counter(`pillion_admissions_total{result="denied",reason="NotInjected"}`, 1)},
			[]string{counter(`pillion_admissions_total{result="woven",reason="Applied"}`, 1)},
		},
		"PillionProfileNotReady": {
			[]string{constant(`pillion_profile_not_ready{namespace="shop",profile="site",reason="InvalidSpec"}`, 1)}, nil,
		},
		// A week's certificate is replaced when 2.33 days are left.
		"PillionCertificateExpiring": {certificate(86400), certificate(2 * 86400)},
		"PillionPresentedCertificateExpiring": {
			[]string{constant("pillion_certificate_not_after_seconds", now+3600)},
			[]string{
				constant(`pillion_certificate_not_after_seconds{pod="a"}`, now+2*86400),
				constant(`pillion_certificate_not_after_seconds{pod="b"}`, 0),
			},
		},
		"PillionCertificateFaulty": {
			[]string{constant("pillion_certificate_faulty", 1)},
			[]string{constant("pillion_certificate_faulty", 0)},
		},
		"PillionCertificateNotTrusted": {
			[]string{constant("pillion_certificate_trusted", 0)},
			[]string{constant("pillion_certificate_trusted", 1)},
		},
		"PillionHandshakesFail": {
			[]string{counter(`pillion_tls_handshake_errors_total{reason="untrusted"}`, 1)},
			[]string{counter(`pillion_tls_handshake_errors_total{reason="closed"}`, 1)},
		},
		"PillionClientCAFaulty": {[]string{constant("pillion_client_ca_faulty", 1)}, nil},
		"PillionCertificatesUnattended": {
			[]string{constant("pillion_certs_last_check_timestamp_seconds", now-3600)},
			[]string{
				constant(`pillion_certs_last_check_timestamp_seconds{pod="a"}`, now-3600),
				constant(`pillion_certs_last_check_timestamp_seconds{pod="b"}`, now-60),
			},
		},
		"PillionRotationStuck": {phase("Publish", 7200), phase("Retire", 7200)},
		"PillionCertificateLost": {
			[]string{counter(`pillion_certs_changes_total{reason="CALost"}`, 1)},
			[]string{counter(`pillion_certs_changes_total{reason="CertificateIssued"}`, 1)},
		},
		"PillionNoLeader": {nil, []string{constant("pillion_certs_last_check_timestamp_seconds", now)}},
		"PillionSelfCheckFailing": {
			[]string{constant("pillion_self_check_success", 0)},
			[]string{constant(`pillion_self_check_success{pod="a"}`, 0), constant(`pillion_self_check_success{pod="b"}`, 1)},
		},
		"PillionSelfCheckStale": {
			[]string{constant("pillion_self_check_last_success_timestamp_seconds", now-1200)},
			[]string{constant("pillion_self_check_last_success_timestamp_seconds", now-60)},
		},
	}
}

// TestAlertsFireForWhatTheyAreFor evaluates every alert, by Prometheus' engine, where it should fire and where it should not.
func TestAlertsFireForWhatTheyAreFor(t *testing.T) {
	tests := cases()
	all := rules(t)
	for name := range tests {
		if !slices.ContainsFunc(all, func(rule rule) bool { return rule.Alert == name }) {
			t.Errorf("there is no alert %s", name)
		}
	}
	for _, rule := range all {
		t.Run(rule.Alert, func(t *testing.T) {
			test, ok := tests[rule.Alert]
			if !ok {
				t.Fatal("there is no case for it")
			}
			check(t, &rule, test.fires, 1)
			check(t, &rule, test.silent, 0)
		})
	}
}

// check holds an alert to fire for one series, or none.
func check(t *testing.T, rule *rule, series []string, want int) {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n  "+strings.Join(series, "\n  ")+"\n")
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
	query, err := engine.NewInstantQuery(t.Context(), storage, nil, rule.Expr, time.Unix(now, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	result := query.Exec(t.Context())
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatal(err)
	}
	if len(vector) != want {
		t.Errorf("it fires %d times, and should %d times, with\n%s", len(vector), want, strings.Join(series, "\n"))
	}
	for _, sample := range vector {
		checkLabels(t, rule, sample)
	}
}

// checkLabels holds what the texts say of labels to be labels of the series that fires. The Pod's name comes from Prometheus.
func checkLabels(t *testing.T, rule *rule, sample promql.Sample) {
	t.Helper()
	for _, text := range rule.Annotations {
		for _, found := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
			if found[1] != "pod" && !sample.Metric.Has(found[1]) {
				t.Errorf("it has no label %s to tell of: %s", found[1], sample.Metric)
			}
		}
	}
}
