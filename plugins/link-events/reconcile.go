package linkevents

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// settle is how long after the last ring everything is looked at once more: the kernel announces that a route goes before it does, and says
// nothing of the routes that go with an address or a link.
const settle = 100 * time.Millisecond

// The next look waits share times as long as the last one took: the more there is to look at, the longer a look takes. At least it waits for
// breath: in a storm there would be hundreds a second, each with a status to write.
const (
	share  = 10
	breath = 20 * time.Millisecond
)

// generator is the plugin at work. The fields behind look are used by reconcile only.
type generator struct {
	bell *doorbell.Bell[note]
	look func() (world, error)

	ring   doorbell.Ring[*eventspb.LinkEvent]
	rung   rung
	world  *world        // as it was looked up last, nil before
	looked time.Duration // when that look began
	rested time.Time     // when the next look may begin
}

func newGenerator(bell *doorbell.Bell[note], look func() (world, error)) *generator {
	// What is said again comes first: addresses and routes that are different stay so as long as there is room.
	same := func(e *eventspb.LinkEvent) string { return e.GetDevice() + " " + e.GetAction() + " " + e.GetMessage() }
	return &generator{bell: bell, look: look, rung: rung{}, ring: doorbell.Ring[*eventspb.LinkEvent]{
		Type:     eventType,
		SetCount: func(e *eventspb.LinkEvent, count uint64) { e.Count = count },
		Same:     append([]func(*eventspb.LinkEvent) string{same}, doorbell.OfDevice[*eventspb.LinkEvent]()...),
	}}
}

// watch has everything looked at when the kernel rings, and again when it has settled.
func (g *generator) watch(ctx context.Context, wake func()) error {
	again := time.AfterFunc(settle, wake)
	defer again.Stop()
	return g.bell.Watch(ctx, func() { wake(); again.Reset(settle) })
}

// reconcile writes an event for each thing that is not as it was.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.rest(ctx); err != nil {
		return err
	}
	if err := g.ring.Begin(ctx, s); err != nil {
		return err
	}
	notes, gap := g.bell.Take()
	began, looks := time.Now(), doorbell.Now()
	found, err := g.look()
	g.rested = time.Now().Add(max(share*time.Since(began), breath))
	if err != nil {
		g.bell.PutBack(notes, gap)
		return err
	}
	// What the kernel has said meanwhile has rung for another look. Of what this one has found it may tell the time.
	more, missed := g.bell.Take()
	gap = max(gap, missed)
	now, clock := doorbell.Now(), time.Now()
	g.rung.hear(append(notes, more...), g.looked, now)
	if g.world != nil {
		for _, c := range found.since(*g.world) {
			at := g.rung.about(now, c.about...)
			c.event.BoottimeNs, c.event.Time = uint64(at), timestamppb.New(doorbell.Boottime(at, now, clock))
			g.bell.Coalesced(max(c.event.GetCount(), 1) - 1)
			g.ring.Add(c.event)
		}
	}
	g.world, g.looked = &found, looks
	if g.ring.Incomplete(gap) {
		g.ring.Add(&eventspb.LinkEvent{
			Action: "Resynchronised", BoottimeNs: uint64(now), Time: timestamppb.New(clock), Message: "events may be missing; the network was looked up",
		})
	}
	return doorbell.Tell(ctx, s, name, g.bell, &g.ring)
}

// rest waits until the next look may begin.
func (g *generator) rest(ctx context.Context) error {
	select {
	case <-time.After(time.Until(g.rested)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
