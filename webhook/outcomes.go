package webhook

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

const (
	// maxCountedProfiles bounds how many profiles have series of their own; those that come later share those of otherProfiles until
	// others are deleted.
	maxCountedProfiles = 500

	// What stands for profiles that have no series of their own; no profile can have such a name.
	otherProfiles   = "(other)"
	unknownProfiles = "(unknown)"
)

// outcomeCounts counts outcomes by profile. It is a collector of its own, for series have to go with their profiles, and because few
// of the results and reasons that there are ever come of one profile.
type outcomeCounts struct {
	snapshot    func() *profiles.Snapshot
	description *prometheus.Desc

	mu        sync.Mutex
	byProfile map[profileKey]map[resultReason]uint64
}

type resultReason struct {
	result profiles.Result
	reason weave.Reason
}

func newOutcomeCounts(snapshot func() *profiles.Snapshot) *outcomeCounts {
	return &outcomeCounts{
		snapshot: snapshot,
		description: prometheus.NewDesc("pillion_profile_outcomes_total",
			"What became of each profile in the answers about Pods that are created, without dry runs; namespace is that of a "+
				"PatternProfile and empty for a ClusterPatternProfile. Where a Pod is refused nothing counts as applied.",
			[]string{"namespace", "profile", "result", "reason"}, nil),
		byProfile: map[profileKey]map[resultReason]uint64{},
	}
}

// count counts what a decision says of profiles.
func (c *outcomeCounts) count(all []told) {
	if len(all) == 0 {
		return
	}
	snapshot := c.snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range all {
		t := &all[i]
		key := profileKey{t.Namespace, t.Profile}
		switch {
		case t.Profile == "":
			continue // it is about none
		case !t.exists:
			key = profileKey{"", unknownProfiles}
		}
		c.of(snapshot, key)[resultReason{t.Result, t.Reason}]++
	}
}

// of returns the counts of a profile, or those of others if there is no more room.
func (c *outcomeCounts) of(snapshot *profiles.Snapshot, key profileKey) map[resultReason]uint64 {
	if counts := c.byProfile[key]; counts != nil {
		return counts
	}
	if len(c.byProfile) >= maxCountedProfiles {
		c.forgetGone(snapshot)
	}
	if len(c.byProfile) >= maxCountedProfiles && key.name != unknownProfiles {
		key = profileKey{"", otherProfiles}
		if counts := c.byProfile[key]; counts != nil {
			return counts
		}
	}
	c.byProfile[key] = map[resultReason]uint64{}
	return c.byProfile[key]
}

// forgetGone drops the counts of profiles that do not exist any more.
func (c *outcomeCounts) forgetGone(snapshot *profiles.Snapshot) {
	for key := range c.byProfile {
		if key.name != otherProfiles && key.name != unknownProfiles && snapshot.Profile(key.namespace, key.name) == nil {
			delete(c.byProfile, key)
		}
	}
}

// Describe implements prometheus.Collector.
func (c *outcomeCounts) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- c.description }

// Collect implements prometheus.Collector.
func (c *outcomeCounts) Collect(metrics chan<- prometheus.Metric) {
	for _, metric := range c.collect() {
		metrics <- metric
	}
}

// collect does not hold requests up while somebody reads slowly.
func (c *outcomeCounts) collect() []prometheus.Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetGone(c.snapshot())
	var collected []prometheus.Metric
	for key, counts := range c.byProfile {
		for what, n := range counts {
			collected = append(collected, prometheus.MustNewConstMetric(c.description, prometheus.CounterValue, float64(n),
				key.namespace, key.name, string(what.result), string(what.reason)))
		}
	}
	return collected
}
