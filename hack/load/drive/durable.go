package drive

import (
	"context"
	"fmt"
	"time"
)

// durables are the durable writes of another server, in a second, and what its writers wait for, in ms.
var durables = [3]struct{ rate, p50 string }{{"850-1,280", "1.1"}, {"850-1,280", "13"}, {"850-1,280", "55"}}

const (
	// tenfold is what ten times the writes of another server are, where an fdatasync takes about 1 ms.
	tenfold = 11_000
	// share is how much of the rate in memory durable writes keep, of the same run.
	share = 0.6
)

// Durable measures updates on a server that keeps its data below dir, beside those on one that keeps it in memory. syncs asks it how often
// it has waited for the disk. It fails where there is none.
func Durable(ctx context.Context, durable, memory *Server, dir string, syncs func() (Syncs, error)) ([]Figure, error) {
	if err := refuseMemory(dir); err != nil {
		return nil, err
	}
	durable.syncs = syncs
	var figures []Figure
	for i, n := range Workers {
		sync, err := fdatasync(dir)
		if err != nil {
			return figures, err
		}
		inMemory, err := memory.median(ctx, n, Update)
		if err != nil {
			return figures, err
		}
		measured, err := durable.median(ctx, n, Update)
		if err != nil {
			return figures, err
		}
		figures = append(figures, durableFigures(measured[0], inMemory[0].PerSecond, sync, durables[i].rate, durables[i].p50)...)
		if n == 1 {
			beyond := Figure{Name: "durable update at 1, p50 beyond one fdatasync", Measured: milliseconds(measured[0].P50 - sync), Unit: "ms"}
			figures = append(figures, beyond)
		}
	}
	return figures, nil
}

func durableFigures(r Rate, inMemory float64, sync time.Duration, otherRate, otherP50 string) []Figure {
	name := fmt.Sprintf("durable update at %d", r.Workers)
	rate := Figure{Name: name, Measured: r.PerSecond, Unit: "/s", Other: otherRate, Rate: true}
	part := Figure{Name: name + ", of the rate in memory", Measured: 100 * r.PerSecond / inMemory, Unit: "%", Rate: true}
	if r.Workers > 1 {
		rate.Target, part.Target = tenfold, 100*share
	}
	return []Figure{
		rate, part,
		{Name: name + ", p50", Measured: milliseconds(r.P50), Unit: "ms", Other: otherP50},
		{Name: name + ", p99", Measured: milliseconds(r.P99), Unit: "ms"},
		{Name: name + ", its fdatasyncs", Measured: r.Syncs, Unit: "/s"},
		{Name: name + ", its fdatasyncs, p50", Measured: milliseconds(r.SyncP50), Unit: "ms"},
		{Name: name + ", an fdatasync alone, p50", Measured: milliseconds(sync), Unit: "ms"},
	}
}
