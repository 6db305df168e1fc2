package blockevents

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// kept is how many events are kept.
const kept = 1000

// In a storm, events are written this many at a time and with a pause in between: what more has happened to a device meanwhile is
// counted in its event.
const (
	burst = 100
	pause = 100 * time.Millisecond
)

// generator is the plugin at work. The fields but bell are used by reconcile only.
type generator struct {
	bell *doorbell.Bell[note]
	sys  string

	began     bool
	restarted bool                   // an earlier process has been here, and it has not yet been said that its events are not all
	last      uint64                 // the id of the newest event
	pending   []*eventspb.BlockEvent // not yet written
	failures  map[device]uint64      // requests that failed
	rested    time.Time              // when the next events may be written
}

// reconcile looks at all devices, and writes an event for each note.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.rest(ctx); err != nil {
		return err
	}
	g.begin(s)
	notes, behind := g.bell.Take()
	now, clock := boottime(), time.Now()
	for _, n := range notes {
		if n.what == ioError {
			g.failures[n.device]++
		}
		g.pending = append(g.pending, n.event(now, clock))
	}
	if behind && (g.restarted || g.last > 0) {
		g.restarted = false
		g.pending = append(g.pending, &eventspb.BlockEvent{
			Action: "Resynchronised", Time: timestamppb.New(clock), BoottimeNs: uint64(now), Message: "events may be missing; what is in Disks and Partitions was looked up",
		})
	}
	var coalesced uint64
	g.pending, coalesced = merge(g.pending, burst)
	g.bell.Coalesced(coalesced)
	if err := g.writeDevices(ctx, s); err != nil {
		g.bell.PutBack(nil, behind)
		return err
	}
	if err := g.writeEvents(ctx, s); err != nil {
		return err
	}
	if status := g.bell.Status(); status != nil {
		return s.Write(ctx, generatorType, name, status, nil)
	}
	return nil
}

// rest waits until the next events may be written.
func (g *generator) rest(ctx context.Context) error {
	select {
	case <-time.After(time.Until(g.rested)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin finds out, once, where the ids of an earlier process ended, and whether there was one.
func (g *generator) begin(s *sdk.State) {
	if g.began {
		return
	}
	g.began = true
	for _, id := range s.Outputs(eventType) {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			g.last = max(g.last, n)
		}
	}
	g.restarted = len(s.Outputs(generatorType)) > 0
}

// writeDevices makes Disks and Partitions what /sys says.
func (g *generator) writeDevices(ctx context.Context, s *sdk.State) error {
	w, err := look(g.sys)
	if err != nil {
		return err
	}
	disks, partitions := map[string]proto.Message{}, map[string]proto.Message{}
	there := map[device]bool{}
	for id, d := range w.disks {
		number := device{d.GetMajor(), d.GetMinor()}
		d.IoErrors, there[number] = g.failures[number], true
		disks[id] = d
	}
	for number := range g.failures {
		if !there[number] {
			delete(g.failures, number) // the next device of the number is another one
		}
	}
	for id, p := range w.partitions {
		partitions[id] = p
	}
	if err := writeAll(ctx, s, diskType, disks); err != nil {
		return err
	}
	return writeAll(ctx, s, partitionType, partitions)
}

// writeAll makes the resources of an output these, and no others.
func writeAll(ctx context.Context, s *sdk.State, typ string, all map[string]proto.Message) error {
	for id, spec := range all {
		if err := s.Write(ctx, typ, id, spec, nil); err != nil {
			return err
		}
	}
	for _, id := range s.Outputs(typ) {
		if all[id] == nil {
			if err := s.Delete(ctx, typ, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeEvents writes what is pending, and removes what is too old.
func (g *generator) writeEvents(ctx context.Context, s *sdk.State) error {
	if len(g.pending) == burst {
		g.rested = time.Now().Add(pause)
	}
	for len(g.pending) > 0 {
		if err := s.Write(ctx, eventType, id(g.last+1), g.pending[0], nil); err != nil {
			return err
		}
		g.last++
		g.pending = g.pending[1:]
	}
	ids := s.Outputs(eventType)
	for _, old := range ids[:max(0, len(ids)-kept)] {
		if err := s.Delete(ctx, eventType, old); err != nil {
			return err
		}
	}
	return nil
}

// id of an event: as text they are in the order of their numbers.
func id(n uint64) string { return fmt.Sprintf("%012d", n) }

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

// merge leaves at most so many events: from the oldest on, one that says the same of the same device as a later one is counted in that,
// and so is, if that is not enough, whatever a later one of the device says. It returns how many were merged. What is in no other event
// stays, so that it may leave more.
func merge(events []*eventspb.BlockEvent, most int) (left []*eventspb.BlockEvent, merged uint64) {
	for _, same := range []func(*eventspb.BlockEvent) string{
		func(e *eventspb.BlockEvent) string { return e.GetDevice() + " " + e.GetAction() },
		(*eventspb.BlockEvent).GetDevice,
	} {
		excess := len(events) - most
		if excess <= 0 {
			break
		}
		newest := map[string]*eventspb.BlockEvent{}
		for _, e := range events {
			newest[same(e)] = e
		}
		left = nil
		for _, e := range events {
			into := newest[same(e)]
			if excess == 0 || into == e {
				left = append(left, e)
				continue
			}
			into.Count = max(into.GetCount(), 1) + max(e.GetCount(), 1)
			merged++
			excess--
		}
		events = left
	}
	return events, merged
}
