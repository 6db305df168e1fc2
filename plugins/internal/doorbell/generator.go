package doorbell

import (
	"context"
	"time"

	"github.com/cosi-os/cosi/sdk"
)

// Generator writes an event for each note, and nothing else: a note says all that there is to know.
type Generator[N any, E Event] struct {
	// Name is the plugin's, and the id of its GeneratorStatus.
	Name string
	Bell *Bell[N]
	Ring Ring[E]
	// Event is what n becomes; without ok it becomes none. when tells a time of CLOCK_BOOTTIME on the node's clock.
	Event func(n N, when func(time.Duration) time.Time) (e E, ok bool)
	// Resynchronised is the event that says that others may be missing.
	Resynchronised func(at time.Duration, clock time.Time) E
}

// Controller is the one controller of a plugin that is a Generator.
func (g *Generator[N, E]) Controller(name string) sdk.Controller {
	return sdk.Controller{Name: name, Outputs: []string{StatusType}, Events: []string{g.Ring.Type}, Reconcile: g.Reconcile, Watch: g.Bell.Watch}
}

// Reconcile writes the events and the status.
func (g *Generator[N, E]) Reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.Ring.Begin(ctx, s); err != nil {
		return err
	}
	notes, gap := g.Bell.Take()
	now, clock := Now(), time.Now()
	for _, n := range notes {
		if e, ok := g.Event(n, func(at time.Duration) time.Time { return Boottime(at, now, clock) }); ok {
			g.Ring.Add(e)
		}
	}
	if g.Ring.Incomplete(gap) {
		g.Ring.Add(g.Resynchronised(now, clock))
	}
	return Tell(ctx, s, g.Name, g.Bell, &g.Ring)
}
