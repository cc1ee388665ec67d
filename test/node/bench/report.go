package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The targets.
const (
	// maxAdded is what all four patterns together may add to the start of a Pod, the first sync and the rendering included.
	maxAdded = 2 * time.Second
	// maxEndAdded is how much later a Pod with patterns may be gone. It is what ending each program in turn takes, and far from the
	// grace period, which a program that does not hear SIGTERM would use up.
	maxEndAdded = 500 * time.Millisecond

	maxResidentMiB = 64.0
	maxImageMiB    = 40.0
)

// spread is a median, and the quartiles around it.
type spread struct{ Median, Lower, Upper time.Duration }

func spreadOf(values []time.Duration) spread {
	slices.Sort(values)
	at := func(part float64) time.Duration { // between two values in proportion
		place := part * float64(len(values)-1)
		below := int(place)
		above := min(below+1, len(values)-1)
		return values[below] + time.Duration((place-float64(below))*float64(values[above]-values[below]))
	}
	return spread{Median: at(0.5), Lower: at(0.25), Upper: at(0.75)}
}

func (s spread) String() string {
	return fmt.Sprintf("%.3f  (%.3f to %.3f)", s.Median.Seconds(), s.Lower.Seconds(), s.Upper.Seconds())
}

// figures are what comes of a lane.
type figures struct {
	Lane                  string
	Start, Admission, End spread
	// Broken is of how many Pods a promise did not hold.
	Broken int
	// Starting and Ending are the medians of when things happened.
	Starting, Ending []mark
	Lives            []life
}

func figuresOf(r *result) figures {
	of := func(pick func(*life) time.Duration) spread {
		var values []time.Duration
		for i := range r.lives {
			values = append(values, pick(&r.lives[i]))
		}
		return spreadOf(values)
	}
	f := figures{
		Lane:      r.lane.name,
		Start:     of(func(l *life) time.Duration { return l.Start }),
		Admission: of(func(l *life) time.Duration { return l.Admission }),
		End:       of(func(l *life) time.Duration { return l.End }),
		Starting:  medians(r.lives, func(l *life) []mark { return l.Starting }),
		Ending:    medians(r.lives, func(l *life) []mark { return l.Ending }),
		Lives:     r.lives,
	}
	for i := range r.lives {
		if len(r.lives[i].Broken) > 0 {
			f.Broken++
		}
	}
	return f
}

// medians returns when things happened that happened in most lives. What comes several times in a life, such as a probe, is
// counted by its turn.
func medians(lives []life, pick func(*life) []mark) []mark {
	times := map[string][]time.Duration{}
	for i := range lives {
		turns := map[string]int{}
		for _, m := range pick(&lives[i]) {
			turns[m.What]++
			what := m.What
			if turns[what] > 1 {
				what = fmt.Sprintf("%s, time %d", what, turns[what])
			}
			times[what] = append(times[what], m.At)
		}
	}
	var marks []mark
	for what, at := range times {
		if 2*len(at) > len(lives) {
			marks = append(marks, mark{spreadOf(at).Median, what})
		}
	}
	return order(marks)
}

// target is something to reach.
type target struct {
	What string
	Met  bool
}

type report struct {
	Rounds int
	// CPUs and Load tell whether the machine had other things to do: every figure grows with them.
	CPUs    int
	Load    string
	Lanes   []figures
	Sizes   *sizes
	Targets []target
}

func newReport(rounds int, results []*result, sizes *sizes) *report {
	r := &report{Rounds: rounds, CPUs: runtime.NumCPU(), Load: loadAverage(), Sizes: sizes}
	for _, result := range results {
		r.Lanes = append(r.Lanes, figuresOf(result))
	}
	r.judge()
	return r
}

// loadAverage is that of the last minute, five and fifteen minutes.
func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	words := strings.Fields(string(content))
	return strings.Join(words[:min(3, len(words))], " ")
}

// judge holds the figures to the targets. The first lane is the bare Pod.
func (r *report) judge() {
	add := func(met bool, format string, values ...any) {
		r.Targets = append(r.Targets, target{fmt.Sprintf(format, values...), met})
	}
	bare := r.Lanes[0]
	broken := 0
	for _, lane := range r.Lanes {
		broken += lane.Broken
		if lane.Lane != allLane && lane.Lane != allFromGitLane {
			continue
		}
		added := lane.Start.Median - bare.Start.Median
		add(added <= maxAdded, "%s: the app starts %.3f s later than bare, at most %.1f s", lane.Lane, added.Seconds(), maxAdded.Seconds())
	}
	add(broken == 0, "%d Pods in which a promise was broken at the app's first instruction", broken)
	for _, lane := range r.Lanes[1:] {
		added := lane.End.Median - bare.End.Median
		add(added <= maxEndAdded, "%s: the Pod is gone %.3f s later than bare, at most %.1f s", lane.Lane, added.Seconds(),
			maxEndAdded.Seconds())
	}
	for _, p := range r.Sizes.Processes {
		add(p.ResidentMiB < maxResidentMiB, "%s: %.1f MiB resident, less than %.0f", p.Pod, p.ResidentMiB, maxResidentMiB)
	}
	add(r.Sizes.ImageMiB < maxImageMiB, "Pillion's image: %.1f MiB compressed, less than %.0f", r.Sizes.ImageMiB, maxImageMiB)
}

func (r *report) met() bool {
	return !slices.ContainsFunc(r.Targets, func(t target) bool { return !t.Met })
}

// write writes the report where the flags say.
func (r *report) write(o *options) error {
	if o.json != "" {
		content, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		content = append(content, '\n')
		if o.json == "-" {
			_, err = os.Stdout.Write(content)
			return err
		}
		if err := os.WriteFile(o.json, content, 0o644); err != nil {
			return err
		}
	}
	return r.print(os.Stdout, o.verbose)
}

func (r *report) print(to io.Writer, verbose bool) error {
	if verbose {
		for _, lane := range r.Lanes {
			(&life{Start: lane.Start.Median, End: lane.End.Median, Starting: lane.Starting, Ending: lane.Ending}).print(to,
				"medians, "+lane.Lane)
		}
	}
	fmt.Fprintf(to, "\n%d Pods of each lane, lanes interleaved, seconds: median (quartiles); %d CPUs, load average %s\n\n", r.Rounds, r.CPUs,
		r.Load)
	table := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "lane\tPOST to first instruction\tover bare\tratio\tDELETE to gone\tover bare\tPOST to its answer")
	bare := r.Lanes[0]
	for _, lane := range r.Lanes {
		fmt.Fprintf(table, "%s\t%s\t%+.3f\t%.2f\t%s\t%+.3f\t%s\n", lane.Lane,
			lane.Start, (lane.Start.Median - bare.Start.Median).Seconds(), float64(lane.Start.Median)/float64(bare.Start.Median),
			lane.End, (lane.End.Median - bare.End.Median).Seconds(), lane.Admission)
	}
	fmt.Fprintln(table, "\nprocess\tresident, MiB\tworking set, MiB")
	for _, p := range r.Sizes.Processes {
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\n", p.Pod, p.ResidentMiB, p.WorkingSetMiB)
	}
	fmt.Fprintf(table, "\nPillion's image, compressed: %.1f MiB\n\n", r.Sizes.ImageMiB)
	for _, t := range r.Targets {
		verdict := "met"
		if !t.Met {
			verdict = "MISSED"
		}
		fmt.Fprintf(table, "%s\t%s\n", verdict, t.What)
	}
	return table.Flush()
}
