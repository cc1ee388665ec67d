package coldstart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// TestTheSelfCheckTellsOfAnOutage kills the webhook, with the binary's own configuration but for the interval.
func TestTheSelfCheckTellsOfAnOutage(t *testing.T) {
	var through *observed
	c := startClusterWith(t, func(server *apiserver.Server) installation.PartsOptions {
		through = observe(t, server)
		return installation.PartsOptions{
			ReachController: func(_ int, config *rest.Config) { through.reach(config) },
			Options:         installation.Options{Env: append(slices.Clone(quick), "PILLION_CONTROLLER_SELF_CHECK_INTERVAL=2s")},
		}
	})
	controller := c.Controllers[0]
	profile := types.NamespacedName{Namespace: "pillion-selfcheck", Name: "self-check"}
	c.start(t, controller, c.Webhook)
	c.awaitReady(t, controller, c.Webhook)
	c.awaitCondition(t, profile, "SelfCheck", metav1.ConditionTrue, "Woven")
	c.atRest(t, through)
	for range 2 {
		c.kill(t, c.Webhook)
		start := time.Now()
		is := c.awaitCondition(t, profile, "SelfCheck", metav1.ConditionFalse, "WebhookUnreachable")
		took := time.Since(start)
		t.Logf("%s after the webhook was killed: %s", took.Round(time.Millisecond), is.Message)
		if took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		c.awaitMetric(t, controller, "pillion_self_check_success", func(value float64) bool { return value == 0 })
		c.awaitMetric(t, controller, `pillion_self_check_failures_total{reason="WebhookUnreachable"}`,
			func(value float64) bool { return value >= 2 })
		c.awaitEvent(t, "Warning SelfCheckFailed WebhookUnreachable: ")

		c.start(t, c.Webhook)
		start = time.Now()
		c.awaitCondition(t, profile, "SelfCheck", metav1.ConditionTrue, "Woven")
		t.Logf("%s after the webhook was started it passes again", time.Since(start).Round(time.Millisecond))
		c.awaitMetric(t, controller, "pillion_self_check_success", func(value float64) bool { return value == 1 })
		c.awaitMetric(t, controller, "pillion_self_check_last_success_timestamp_seconds",
			func(value float64) bool { return time.Since(time.UnixMilli(int64(value*1000))) < time.Minute })
		c.awaitEvent(t, "Normal SelfCheckPassed ")
	}
	profiles := &v1alpha1.PatternProfileList{}
	if err := c.List(t.Context(), profiles); err != nil || len(profiles.Items) != 1 || profiles.Items[0].Generation != 1 {
		t.Errorf("%d PatternProfiles, %v", len(profiles.Items), err)
	}
}

// atRest waits for some self-checks in a row in which the controller does nothing else: each asks three times, the Lease is renewed, and
// watches go on.
func (c *cluster) atRest(t *testing.T, through *observed) {
	t.Helper()
	const (
		pod   = "POST /api/v1/namespaces/pillion-selfcheck/pods"
		lease = "PUT /apis/coordination.k8s.io/v1/namespaces/pillion-system/leases/pillion-controller"
	)
	reads := []string{
		"GET /api/v1/namespaces/pillion-selfcheck",
		"GET /apis/pillion.dev/v1alpha1/namespaces/pillion-selfcheck/patternprofiles/self-check",
	}
	counted, besides := map[string]int{}, map[string]int{}
	c.await(t, func(context.Context) (bool, error) {
		wrote, read := through.takeAll()
		for _, request := range slices.Concat(wrote, read) {
			counted[request]++
			if request != pod && request != lease && !slices.Contains(reads, request) {
				besides[request]++
				clear(counted)
			}
		}
		if counted[pod] < 4 {
			return false, fmt.Errorf("with nothing to do there are, beside self-checks, %v", besides)
		}
		for _, read := range reads {
			if n := counted[read]; n > counted[pod]+1 { // what the last write has caused may be among them
				err := fmt.Errorf("%s: %d times in %d self-checks", read, n, counted[pod])
				clear(counted)
				return false, err
			}
		}
		return true, nil
	})
	t.Logf("at rest: %v", counted)
}

func (c *cluster) awaitMetric(t *testing.T, of *installation.Process, name string, holds func(float64) bool) {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		value, err := of.Metric(ctx, name)
		return err == nil && holds(value), err
	})
}

// awaitEvent waits until the last Event of the self-check says something.
func (c *cluster) awaitEvent(t *testing.T, says string) {
	t.Helper()
	c.await(t, func(ctx context.Context) (bool, error) {
		list := &eventsv1.EventList{}
		if err := c.List(ctx, list, client.InNamespace("pillion-selfcheck")); err != nil || len(list.Items) == 0 {
			return false, errors.Join(err, errors.New("there is no Event"))
		}
		last := slices.MaxFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
		text := last.Type + " " + last.Reason + " " + last.Note
		return strings.HasPrefix(text, says), errors.New(text)
	})
}
