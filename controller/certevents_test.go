package controller

import (
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/pillion-dev/pillion/certs"
)

func TestCertificateMetricsAreWellFormedAndGoWithTheLeader(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := registerCertificates(registry)
	if err != nil {
		t.Fatal(err)
	}
	gather := func() (names []string) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		for _, family := range families {
			names = append(names, family.GetName())
		}
		return names
	}
	if names := gather(); len(names) > 0 {
		t.Errorf("before the first look there are %q", names)
	}
	m.observe(&certs.Result{Phase: certs.PhaseRetire}, time.Now())
	m.count(nil)
	if names := gather(); !slices.Contains(names, "pillion_certs_rotation_phase") || !slices.Contains(names, "pillion_certs_changes_total") {
		t.Errorf("there are %q", names)
	}
	again, err := registerCertificates(registry)
	if err != nil || again.phase != m.phase {
		t.Errorf("a second controller of the process has metrics of its own, or none: %v", err)
	}
	m.forget()
	if len(gather()) > 0 {
		t.Errorf("when it does not lead any more there are %q", gather())
	}
}

// A controller that ended before it told of a phase is made up for by the next, in the same words.
func TestThePhaseIsToldOnceBothByWhoBeganItAndWhoComesNext(t *testing.T) {
	now := time.Date(2026, time.November, 21, 9, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		since time.Time
		want  int
	}{
		"a phase of this hour": {since: now.Add(-time.Minute), want: 1},
		"one of which the Event would have gone by itself by now": {since: now.Add(-2 * time.Hour)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			teller := func() *certificateTeller {
				return newCertificateTeller(newAnnouncer(nil, func() time.Time { return now }, logr.Discard()), "pillion-system",
					"pillion-webhook-tls", func() time.Time { return now })
			}
			step := certs.Change{Phase: certs.PhaseSettle, Since: test.since, Reason: certs.ReasonCASettling, Message: "every caBundle"}
			recorded := certs.Result{Phase: step.Phase, Since: step.Since, Reason: step.Reason, Message: step.Message, Secret: "uid"}

			began := teller()
			done := recorded
			done.Changes = []certs.Change{step}
			began.tell(&done)
			next := teller()
			next.tell(&certs.Result{}) // an attempt that failed
			next.tell(&recorded)
			next.tell(&recorded)
			if len(next.waiting) != test.want {
				t.Fatalf("%d Events, want %d", len(next.waiting), test.want)
			}
			if test.want > 0 {
				if first, second := <-began.waiting, <-next.waiting; first != second {
					t.Errorf("%+v and then %+v", first, second)
				}
			}
		})
	}
}
