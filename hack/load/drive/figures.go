package drive

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Figure is one that was measured, beside what another server of the API takes on such a machine and what ours shall.
type Figure struct {
	Name     string
	Measured float64
	Unit     string
	Other    string  // of another server
	Target   float64 // 0: none
	Rate     bool    // more is better
}

// Verdict says whether the target is met.
func (f Figure) Verdict() string {
	switch {
	case f.Target == 0:
		return ""
	case f.Rate == (f.Measured >= f.Target):
		return "met"
	}
	return "missed"
}

// rates of another server and what an operation costs it, at 1, 16 and 64 workers. Its CPU is known at 16.
var rates = map[Operation]struct {
	others [3]float64 // a second
	cpu    string     // µs
	target float64    // µs: half
}{
	Create:  {[3]float64{4580, 19000, 24900}, "43-49", 21.5},
	Get:     {[3]float64{4650, 21900, 30400}, "30-32", 15},
	Update:  {[3]float64{4610, 16000, 28200}, "35-37", 17.5},
	Destroy: {[3]float64{}, "30", 15},
}

// Workers are how many call at the same time.
var Workers = [3]int{1, 16, 64}

// rounds are how often a rate is measured; the median counts.
const rounds = 3

// Memory measures a server that keeps everything in memory.
func Memory(ctx context.Context, s *Server) ([]Figure, error) {
	idle, err := s.Idle(ctx) // before there is memory that was used for something else
	if err != nil {
		return nil, fmt.Errorf("idle watches: %w", err)
	}
	figures := []Figure{{Name: "an idle watch, memory", Measured: float64(idle) / (1 << 10), Unit: "KiB", Other: "21-23", Target: 12}}
	for i, n := range Workers {
		measured, err := s.median(ctx, n, Create, Get, Update, Destroy)
		if err != nil {
			return figures, err
		}
		for _, r := range measured {
			known := rates[r.Operation]
			name := fmt.Sprintf("%s at %d", r.Operation, n)
			rate := Figure{Name: name, Measured: r.PerSecond, Unit: "/s", Target: known.others[i], Rate: true}
			cpu := Figure{Name: name + ", server CPU", Measured: microseconds(r.CPU), Unit: "µs"}
			if rate.Target > 0 {
				rate.Other = fmt.Sprintf("%.0f", rate.Target)
			}
			if n == 16 {
				cpu.Other, cpu.Target = known.cpu, known.target
			}
			figures = append(figures, rate, cpu)
		}
	}
	reads, err := s.Reads(ctx)
	if err != nil {
		return figures, fmt.Errorf("lists: %w", err)
	}
	figures = append(figures,
		Figure{Name: "list of 10,000, server CPU", Measured: milliseconds(reads.List), Unit: "ms", Other: "59-66", Target: 25},
		Figure{Name: "label query, 1 % of 10,000, server CPU", Measured: milliseconds(reads.Query), Unit: "ms", Other: "1.9", Target: 0.2})
	fan, err := s.FanOut(ctx)
	if err != nil {
		return figures, fmt.Errorf("fan-out: %w", err)
	}
	figures = append(figures,
		Figure{Name: "an update to 1,000 watchers, server CPU", Measured: milliseconds(fan.CPU), Unit: "ms", Other: "8.8", Target: 4.5},
		Figure{Name: "an update to 1,000 watchers, half have it", Measured: milliseconds(fan.Half), Unit: "ms", Other: "7.4", Target: 7.4},
		Figure{Name: "an update to 1,000 watchers, 99 % have it", Measured: milliseconds(fan.P99), Unit: "ms", Other: "28", Target: 28})
	return figures, nil
}

// median measures each operation a few times and returns the round in the middle of each.
func (s *Server) median(ctx context.Context, workers int, operations ...Operation) ([]Rate, error) {
	return s.medianOf(ctx, s.newKind(), workers, operations...)
}

// medianOf measures on resources of a kind that may have others.
func (s *Server) medianOf(ctx context.Context, kind string, workers int, operations ...Operation) ([]Rate, error) {
	all := map[Operation][]Rate{}
	for range rounds {
		measured, err := s.ratesOf(ctx, kind, workers, time.Second, operations...)
		if err != nil {
			return nil, err
		}
		for _, r := range measured {
			all[r.Operation] = append(all[r.Operation], r)
		}
	}
	var medians []Rate
	for _, o := range operations {
		slices.SortFunc(all[o], func(a, b Rate) int { return int(a.PerSecond - b.PerSecond) })
		medians = append(medians, all[o][rounds/2])
	}
	return medians, nil
}

// Print prints figures as a table.
func Print(w io.Writer, figures []Figure) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tMEASURED\tANOTHER SERVER\tTARGET\t")
	for _, f := range figures {
		target, sign := "", "≤"
		if f.Rate {
			sign = "≥"
		}
		if f.Target > 0 {
			target = fmt.Sprintf("%s %g %s", sign, f.Target, f.Unit)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", f.Name, f.value(), f.Other, target, f.Verdict())
	}
	return table.Flush()
}

func (f Figure) value() string {
	if f.Rate {
		return fmt.Sprintf("%.0f %s", f.Measured, f.Unit)
	}
	return fmt.Sprintf("%.2f %s", f.Measured, f.Unit)
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
