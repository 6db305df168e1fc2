package blockevents

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// generator is the plugin at work. The fields but bell are used by reconcile only.
type generator struct {
	bell *doorbell.Bell[note]
	sys  string

	ring     doorbell.Ring[*eventspb.BlockEvent]
	world    *world            // as it was looked up last, nil if that may not be how it is
	failures map[device]uint64 // requests that failed
}

func newGenerator(bell *doorbell.Bell[note], sys string) *generator {
	setCount := func(e *eventspb.BlockEvent, count uint64) { e.Count = count }
	return &generator{
		bell: bell, sys: sys, ring: doorbell.Ring[*eventspb.BlockEvent]{Type: eventType, SetCount: setCount, Same: doorbell.OfDevice[*eventspb.BlockEvent]()}, failures: map[device]uint64{},
	}
}

// reconcile looks at the devices, and writes an event for each note of something that has happened.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.ring.Begin(ctx, s); err != nil {
		return err
	}
	notes, gap := g.bell.Take()
	now, clock := doorbell.Now(), time.Now()
	for _, n := range notes {
		switch n.what {
		case again:
			continue
		case ioError:
			g.failures[n.device]++
		}
		g.ring.Add(n.event(now, clock))
	}
	if g.ring.Incomplete(gap) {
		g.ring.Add(&eventspb.BlockEvent{
			Action: "Resynchronised", Time: timestamppb.New(clock), BoottimeNs: uint64(now), Message: "events may be missing; what is in Disks and Partitions was looked up",
		})
	}
	err := g.look(notes, gap)
	if err == nil {
		err = g.writeDevices(ctx, s)
	}
	if err != nil {
		g.world = nil
		g.bell.PutBack(nil, gap)
		return err
	}
	return doorbell.Tell(ctx, s, name, g.bell, &g.ring)
}

// look brings the world up to date: where it has rung, or everywhere when that may not be all.
func (g *generator) look(notes []note, gap doorbell.Gap) error {
	if g.world == nil || gap != doorbell.NoGap || len(notes) == 0 {
		w, err := look(g.sys)
		g.world = &w
		return err
	}
	names := map[string]bool{}
	for _, n := range notes {
		names[strings.ReplaceAll(n.name, "/", "!")] = true // as below /sys
	}
	for id, p := range g.world.partitions {
		if names[p.GetDisk()] {
			names[id] = true // with its disk it is read-only, or gone
		}
	}
	for name := range names {
		g.world.look(g.sys, name)
	}
	return nil
}

// writeDevices makes Disks and Partitions what the world has.
func (g *generator) writeDevices(ctx context.Context, s *sdk.State) error {
	disks, partitions := map[string]proto.Message{}, map[string]proto.Message{}
	there := map[device]bool{}
	for id, d := range g.world.disks {
		number := device{d.GetMajor(), d.GetMinor()}
		d.IoErrors, there[number] = g.failures[number], true
		disks[id] = d
	}
	for number := range g.failures {
		if !there[number] {
			delete(g.failures, number) // the next device of the number is another one
		}
	}
	for id, p := range g.world.partitions {
		partitions[id] = p
	}
	if err := doorbell.WriteAll(ctx, s, diskType, disks); err != nil {
		return err
	}
	return doorbell.WriteAll(ctx, s, partitionType, partitions)
}

// event is what n becomes. now and clock are the same moment.
func (n note) event(now time.Duration, clock time.Time) *eventspb.BlockEvent {
	e := &eventspb.BlockEvent{
		Action: actions[n.what], Device: n.name, DeviceType: "disk", Major: n.device.major, Minor: n.device.minor, BoottimeNs: uint64(n.at),
		Time: timestamppb.New(doorbell.Boottime(n.at, now, clock)), Sector: n.sector, Message: n.message(),
	}
	if n.partition {
		e.DeviceType = "partition"
	}
	return e
}
