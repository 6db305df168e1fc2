// Package kernelevents is the generator for the kernel's log: it writes an event for each record that is a warning or worse, from the
// start of the kernel on. It also reports what the kernel said last when it crashed in an earlier boot.
package kernelevents

import (
	"context"
	_ "embed"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// eventType is the output of the log, beside its GeneratorStatus.
const eventType = "KernelEvents.events.cosi.dev"

// name is the plugin's, and the id of its GeneratorStatus.
const name = "kernel-events"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	return plugin(&doorbell.Bell[record]{Sources: []doorbell.Source[record]{{
		Mode: doorbell.Kmsg, Open: func() (doorbell.Listener[record], error) { return openLog("/dev/kmsg") },
	}}}, crashes{"/sys/fs/pstore"})
}

func plugin(bell *doorbell.Bell[record], ends crashes) sdk.Plugin {
	g := newGenerator(bell)
	c := g.Controller("log")
	c.Reconcile = g.reconcile
	return sdk.Plugin{Declaration: declared, Version: Version, Controllers: []sdk.Controller{c, ends.controller()}}
}

// generator is the plugin at work. The fields are used by reconcile only.
type generator struct {
	doorbell.Generator[record, *eventspb.KernelEvent]

	began bool
	next  uint64 // records before it are events already
}

func newGenerator(bell *doorbell.Bell[record]) *generator {
	g := &generator{}
	g.Generator = doorbell.Generator[record, *eventspb.KernelEvent]{
		Name: name, Bell: bell, Event: g.event,
		Resynchronised: func(at time.Duration, clock time.Time) *eventspb.KernelEvent {
			return &eventspb.KernelEvent{Action: resynchronised, Time: timestamppb.New(clock), BoottimeNs: uint64(at), Message: "events may be missing"}
		},
		Ring: doorbell.Ring[*eventspb.KernelEvent]{
			Type:     eventType,
			SetCount: func(e *eventspb.KernelEvent, count uint64) { e.Count = count },
			// What is said again comes first, then all that is said of one device.
			Same: []func(*eventspb.KernelEvent) string{
				func(e *eventspb.KernelEvent) string {
					return e.GetDevice() + " " + e.GetAction() + " " + e.GetMessage()
				},
				func(e *eventspb.KernelEvent) string {
					return e.GetDevice() + " " + e.GetAction() + " " + e.GetSeverity()
				},
			},
		},
	}
	return g
}

// reconcile writes an event for each record. A log is read from its beginning whenever it is opened: what an earlier process has written
// is not written again.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if !g.began {
		events, err := sdk.Fetch[*eventspb.KernelEvent](ctx, s, eventType)
		if err != nil {
			return err
		}
		g.began = true
		for _, e := range events {
			if e.Spec.GetAction() != resynchronised {
				g.next = max(g.next, e.Spec.GetSequence()+1)
			}
		}
	}
	return g.Reconcile(ctx, s)
}

// resynchronised is the action of an event that stands for no record.
const resynchronised = "Resynchronised"

// event is what r becomes, if it has not become one before.
func (g *generator) event(r record, when func(time.Duration) time.Time) (*eventspb.KernelEvent, bool) {
	if r.sequence < g.next {
		return nil, false
	}
	g.next = r.sequence + 1
	return &eventspb.KernelEvent{
		Action: r.action(), Severity: severities[r.severity()], Facility: r.facility(), Subsystem: r.subsystem, Device: r.device, Message: r.text,
		Sequence: r.sequence, BoottimeNs: uint64(r.at), Time: timestamppb.New(when(r.at)),
	}, true
}
