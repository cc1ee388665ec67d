package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheSpreadIsTheMedianAndTheQuartiles(t *testing.T) {
	for name, test := range map[string]struct {
		values []time.Duration
		want   spread
	}{
		"one value":      {[]time.Duration{7}, spread{7, 7, 7}},
		"an odd number":  {[]time.Duration{50, 10, 30, 20, 40}, spread{Median: 30, Lower: 20, Upper: 40}},
		"an even number": {[]time.Duration{40, 10}, spread{Median: 25, Lower: 17, Upper: 32}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, spreadOf(test.values)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
