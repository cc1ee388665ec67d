package availability

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// vitals are what a process holds at a moment.
type vitals struct {
	resident    float64 // MiB
	goroutines  float64
	descriptors float64
}

// String tells them.
func (v vitals) String() string {
	return fmt.Sprintf("RSS %.1f MiB, %.0f goroutines, %.0f descriptors", v.resident, v.goroutines, v.descriptors)
}

// takeVitals reads what a process holds.
func takeVitals(ctx context.Context, process *installation.Process) (vitals, error) {
	resident, err := memory(process, "VmRSS")
	if err != nil {
		return vitals{}, err
	}
	goroutines, err := process.Metric(ctx, "go_goroutines")
	if err != nil {
		return vitals{}, err
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", process.Pid()))
	if err != nil {
		return vitals{}, err
	}
	return vitals{resident, goroutines, float64(len(descriptors))}, nil
}

// memory reads a size from a process's status, in MiB: VmRSS is what is resident, VmHWM the most that ever was.
func memory(process *installation.Process, name string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		kib := 0
		if _, err := fmt.Sscanf(line, name+": %d kB", &kib); err == nil {
			return float64(kib) / 1024, nil
		}
	}
	return 0, fmt.Errorf("the status of process %d has no %s", process.Pid(), name)
}

// forgetPeak makes VmHWM begin anew.
func forgetPeak(process *installation.Process) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", process.Pid()), []byte("5"), 0)
}

// awaitVitals returns once a process holds no more than is allowed, and what it holds then.
func awaitVitals(t *testing.T, process *installation.Process, allowed vitals) vitals {
	t.Helper()
	var now vitals
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		var err error
		now, err = takeVitals(ctx, process)
		if err == nil && (now.resident > allowed.resident || now.goroutines > allowed.goroutines || now.descriptors > allowed.descriptors) {
			err = fmt.Errorf("it holds %s; allowed are %s", now, allowed)
		}
		return err == nil, err
	})
	if err != nil {
		t.Error(err)
	}
	return now
}

// sampled are vitals over time.
type sampled []vitals

// sampleVitals takes vitals again and again until ctx ends. What fails the test is told by an error.
func sampleVitals(ctx context.Context, process *installation.Process, period time.Duration, tell func(time.Duration, vitals)) (sampled, error) {
	var all sampled
	start := time.Now()
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return all, nil
		case <-ticker.C:
		}
		now, err := takeVitals(context.WithoutCancel(ctx), process)
		if err != nil {
			return all, err
		}
		all = append(all, now)
		tell(time.Since(start), now)
	}
}

// thirds returns the median of a part of the vitals in each third of the time, and the most there ever was. The first tenth does not
// count: memory is still filling then.
func (s sampled) thirds(part func(vitals) float64) (medians [3]float64, most float64) {
	values := make([]float64, len(s))
	for i := range s {
		values[i] = part(s[i])
		most = max(most, values[i])
	}
	warm := values[len(values)/10:]
	for i := range medians {
		third := slices.Clone(warm[i*len(warm)/3 : (i+1)*len(warm)/3])
		slices.Sort(third)
		if len(third) > 0 {
			medians[i] = third[len(third)/2]
		}
	}
	return medians, most
}

// expectFlat fails the test if a part of the vitals grows: the medians of the last third of the time may be a tenth over the first
// third's, and a little, which is what the garbage collector's rhythm makes of it.
func (s sampled) expectFlat(t *testing.T, name string, part func(vitals) float64, little float64) {
	t.Helper()
	medians, most := s.thirds(part)
	t.Logf("%s: median in each third of the time %.1f, %.1f, %.1f; at most %.1f", name, medians[0], medians[1], medians[2], most)
	if allowed := medians[0]*1.1 + little; medians[2] > allowed {
		t.Errorf("%s grows from %.1f to %.1f; at most %.1f would be flat", name, medians[0], medians[2], allowed)
	}
}
