package powerevents

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// again is for how long a thermal zone must not have been too hot until it is an event once more: the kernel rings as long as it is.
const again = time.Minute

// generator is the plugin at work. The fields but bell are used by reconcile only.
type generator struct {
	bell *doorbell.Bell[note]
	sys  string

	ring     doorbell.Ring[*powerpb.PowerEvent]
	supplies supplies // as they were looked up last, nil before
	hot      map[note]time.Duration
}

func newGenerator(bell *doorbell.Bell[note], sys string) *generator {
	setCount := func(e *powerpb.PowerEvent, count uint64) { e.Count = count }
	return &generator{
		bell: bell, sys: sys, ring: doorbell.Ring[*powerpb.PowerEvent]{Type: eventType, SetCount: setCount, Same: doorbell.OfDevice[*powerpb.PowerEvent]()}, hot: map[note]time.Duration{},
	}
}

// reconcile writes an event for each note, but for supplies one for each that is another than it was.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.ring.Begin(ctx, s); err != nil {
		return err
	}
	notes, gap := g.bell.Take()
	now := moment{doorbell.Now(), time.Now()}
	changed := now.boottime
	for _, n := range notes {
		switch {
		case n.what == supply:
			changed = n.at
		case !g.stillHot(n):
			g.ring.Add(now.event(n.at, actions[n.what], n.name, ""))
		}
	}
	if err := g.look(now, changed); err != nil {
		g.bell.PutBack(nil, gap)
		return err
	}
	if g.ring.Incomplete(gap) {
		g.ring.Add(now.event(now.boottime, "Resynchronised", "", "events may be missing; what is in PowerSupplies was looked up"))
	}
	if err := g.writeSupplies(ctx, s); err != nil {
		return err
	}
	return doorbell.Tell(ctx, s, name, g.bell, &g.ring)
}

// stillHot reports whether n says no more than another one of the same trip did a moment ago.
func (g *generator) stillHot(n note) bool {
	if n.what != hot && n.what != tooHot {
		return false
	}
	trip := note{what: n.what, name: n.name}
	last, known := g.hot[trip]
	g.hot[trip] = n.at
	return known && n.at-last < again
}

// look looks up the supplies and adds an event for each that is not as it was.
func (g *generator) look(now moment, changed time.Duration) error {
	all, err := look(g.sys)
	if err != nil {
		return err
	}
	if g.supplies != nil {
		for _, c := range all.since(g.supplies) {
			g.ring.Add(now.event(changed, c.action, c.device, c.message))
		}
	}
	g.supplies = all
	return nil
}

func (g *generator) writeSupplies(ctx context.Context, s *sdk.State) error {
	all := map[string]proto.Message{}
	for id, supply := range g.supplies {
		all[id] = supply
	}
	return doorbell.WriteAll(ctx, s, supplyType, all)
}
