package powerevents

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/alarm"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// again is for how long a thermal zone must not have been too hot until it is an event once more: the kernel rings as long as it is.
const again = time.Minute

const (
	// settling is how long after a note a supply may still say what it said before: the ACPI driver of batteries asks them once a second
	// (battery.cache_time), and what they notify in between it passes on without asking.
	settling = 1100 * time.Millisecond
	// draining is how often a battery that is being emptied is looked at: the firmware need not say that it is almost empty.
	draining = time.Minute
)

// generator is the plugin at work. The fields but bell and alarm are used by reconcile only.
type generator struct {
	bell  *doorbell.Bell[note]
	alarm *alarm.Alarm
	sys   string

	ring     doorbell.Ring[*powerpb.PowerEvent]
	supplies supplies      // as they were looked up last, nil before
	rang     time.Duration // when a supply rang last
	settled  time.Time     // when what the supplies say is what that was about; zero: they have been looked at since
	hot      map[note]time.Duration
}

func newGenerator(bell *doorbell.Bell[note], sys string) *generator {
	setCount := func(e *powerpb.PowerEvent, count uint64) { e.Count = count }
	return &generator{
		bell: bell, alarm: alarm.New(alarm.System{}), sys: sys, ring: doorbell.Ring[*powerpb.PowerEvent]{Type: eventType, SetCount: setCount, Same: doorbell.OfDevice[*powerpb.PowerEvent]()}, hot: map[note]time.Duration{},
	}
}

// watch hears, and has the supplies looked at when that is due.
func (g *generator) watch(ctx context.Context, wake func()) error {
	return together(ctx,
		func(ctx context.Context) error { return g.bell.Watch(ctx, wake) },
		func(ctx context.Context) error { return g.alarm.Watch(ctx, wake) },
	)
}

// reconcile writes an event for each note, but for supplies one for each that is another than it was.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.ring.Begin(ctx, s); err != nil {
		return err
	}
	notes, gap := g.bell.Take()
	now := moment{doorbell.Now(), time.Now()}
	for _, n := range g.heat(notes, gap != doorbell.NoGap, now) {
		switch {
		case n.what == supply:
			g.rang, g.settled = n.at, now.clock.Add(settling)
		case !g.stillHot(n):
			g.ring.Add(now.event(n.at, actions[n.what], n.name, ""))
		}
	}
	if err := g.look(now); err != nil {
		g.bell.PutBack(nil, gap)
		return err
	}
	g.alarm.Ring(g.next(now))
	if g.ring.Incomplete(gap) {
		g.ring.Add(now.event(now.boottime, "Resynchronised", "", "events may be missing; what is in PowerSupplies was looked up"))
	}
	if err := g.writeSupplies(ctx, s); err != nil {
		return err
	}
	return doorbell.Tell(ctx, s, name, g.bell, &g.ring)
}

// heat returns the notes, those of thermal zones with the names that they have whoever says it. If notes may be missing there is one more for
// each zone that is hot now: Linux 6.12 says it once, as the zone gets so hot.
func (g *generator) heat(notes []note, behind bool, now moment) []note {
	if !behind && !slices.ContainsFunc(notes, note.isHeat) {
		return notes
	}
	all := zones(g.sys)
	for i, n := range notes {
		if z := slices.IndexFunc(all, func(z zone) bool { return n.isHeat() && z.device == n.name }); z >= 0 {
			notes[i].name = all[z].name
		}
	}
	for _, z := range all {
		if behind && z.heat != 0 {
			notes = append(notes, note{at: now.boottime, what: z.heat, name: z.name})
		}
	}
	return notes
}

// stillHot reports whether n says no more than another one of the same trip did a moment ago.
func (g *generator) stillHot(n note) bool {
	if !n.isHeat() {
		return false
	}
	trip := note{what: n.what, name: n.name}
	last, known := g.hot[trip]
	g.hot[trip] = n.at
	return known && n.at-last < again
}

// look looks up the supplies and adds an event for each that is not as it was. It happened when a supply rang last, if that may be why.
func (g *generator) look(now moment) error {
	all, err := look(g.sys)
	if err != nil {
		return err
	}
	changed := now.boottime
	if !g.settled.IsZero() {
		changed = g.rang
	}
	if g.supplies != nil {
		for _, c := range all.since(g.supplies) {
			g.ring.Add(now.event(changed, c.action, c.device, c.message))
		}
	}
	g.supplies = all
	return nil
}

// next is when the supplies are to be looked at again though nothing rings; zero is never.
func (g *generator) next(now moment) time.Time {
	if now.clock.Before(g.settled) {
		return g.settled
	}
	g.settled = time.Time{}
	if g.supplies.draining() {
		return now.clock.Add(draining)
	}
	return time.Time{}
}

func (g *generator) writeSupplies(ctx context.Context, s *sdk.State) error {
	all := map[string]proto.Message{}
	for id, supply := range g.supplies {
		all[id] = supply
	}
	return doorbell.WriteAll(ctx, s, supplyType, all)
}
