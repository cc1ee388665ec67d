package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

const (
	// maxNotReady is how many profiles that are not ready the metrics name.
	maxNotReady = 100
	// collectTimeout bounds how long a scrape waits for the cache.
	collectTimeout = time.Second

	// reasonPending is told of a profile whose status has not been written yet, reasonOther where somebody else wrote it.
	reasonPending, reasonOther = "Pending", "Other"
)

// readyReasons are the reasons of the condition Ready, which bounds a metric's label.
func readyReasons() []string {
	return []string{
		ReasonReady, ReasonNotAccepted, ReasonServingLastGood, ReasonTerminating, ReasonNamespaceExcluded,
		ReasonWebhookConfigurationNotFound, ReasonWebhookConfigurationPending,
	}
}

// profileCollector tells how many profiles are ready and which are not, from their statuses as they are when it is asked. Nothing of it
// is kept. Several controllers may run in one process, and the registry is the process's: they share a collector, which tells of the
// profiles of all of them together.
type profileCollector struct {
	profiles, notReady *prometheus.Desc

	mu       sync.Mutex
	catalogs []*catalog
}

// registerProfiles has metrics tell of a catalog's profiles until the returned function is called.
func registerProfiles(registerer prometheus.Registerer, of *catalog) (forget func(), err error) {
	collector := &profileCollector{
		profiles: prometheus.NewDesc("pillion_profiles",
			"Profiles by scope (cluster or namespace) and by the status and reason of their condition Ready.",
			[]string{"scope", "ready", "reason"}, nil),
		notReady: prometheus.NewDesc("pillion_profile_not_ready",
			fmt.Sprintf("1 for each profile that is not ready, the first %d by namespace and name; the namespace of a "+
				"ClusterPatternProfile is empty.", maxNotReady),
			[]string{"namespace", "profile", "reason"}, nil),
	}
	if err := registerer.Register(collector); err != nil {
		there := prometheus.AlreadyRegisteredError{}
		if !errors.As(err, &there) {
			return nil, fmt.Errorf("register the profiles' metrics: %w", err)
		}
		shared, ok := there.ExistingCollector.(*profileCollector)
		if !ok {
			return nil, fmt.Errorf("register the profiles' metrics: somebody else has: %w", err)
		}
		collector = shared
	}
	collector.mu.Lock()
	defer collector.mu.Unlock()
	collector.catalogs = append(collector.catalogs, of)
	return func() {
		collector.mu.Lock()
		defer collector.mu.Unlock()
		collector.catalogs = slices.DeleteFunc(collector.catalogs, func(c *catalog) bool { return c == of })
	}, nil
}

// Describe tells which metrics there are.
func (c *profileCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.profiles
	descs <- c.notReady
}

// profileState is what a metric tells of a profile.
type profileState struct {
	namespace, name, reason string
	ready                   metav1.ConditionStatus
}

// Collect tells of the profiles. Of those that a controller has not read yet it tells nothing.
func (c *profileCollector) Collect(collected chan<- prometheus.Metric) {
	c.mu.Lock()
	catalogs := slices.Clone(c.catalogs)
	c.mu.Unlock()
	states := map[profileState]bool{} // a set: what is told twice makes a scrape fail
	for _, of := range catalogs {
		if err := of.states(states); err != nil {
			collected <- prometheus.NewInvalidMetric(c.profiles, err)
			return
		}
	}
	type group struct{ scope, ready, reason string }
	counts := map[group]int{}
	if len(catalogs) > 0 { // so that there is a number where there is no profile
		ready := string(metav1.ConditionTrue)
		counts[group{"cluster", ready, ReasonReady}], counts[group{"namespace", ready, ReasonReady}] = 0, 0
	}
	var notReady []profileState
	for state := range states {
		scope := "namespace"
		if state.namespace == "" {
			scope = "cluster"
		}
		counts[group{scope, string(state.ready), state.reason}]++
		if state.ready != metav1.ConditionTrue {
			notReady = append(notReady, state)
		}
	}
	for of, count := range counts {
		collected <- prometheus.MustNewConstMetric(c.profiles, prometheus.GaugeValue, float64(count), of.scope, of.ready, of.reason)
	}
	slices.SortFunc(notReady, func(a, b profileState) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.reason, b.reason))
	})
	for _, state := range notReady[:min(len(notReady), maxNotReady)] {
		collected <- prometheus.MustNewConstMetric(c.notReady, prometheus.GaugeValue, 1, state.namespace, state.name, state.reason)
	}
}

// states adds the state of each profile.
func (c *catalog) states(to map[profileState]bool) error {
	if c.current() == nil { // nor is the cache filled
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	objects, err := c.objects(ctx)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if isSelfCheck(o) { // it is nobody's, and has metrics of its own
			continue
		}
		state := profileState{namespace: o.GetNamespace(), name: o.GetName(), ready: metav1.ConditionUnknown, reason: reasonPending}
		if ready := meta.FindStatusCondition(o.status.Conditions, v1alpha1.ConditionReady); ready != nil {
			state.ready, state.reason = ready.Status, ready.Reason
			if !slices.Contains(readyReasons(), ready.Reason) {
				state.reason = reasonOther
			}
		}
		to[state] = true
	}
	return nil
}
