// Package processevents is the generator for processes: it writes an event for each that crashes or that the kernel kills for want of
// memory, and for each program that is started and is not in the image.
//
// A note says all that there is to know: when it is read, the process may be gone.
package processevents

import (
	_ "embed"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types probe process.bpf.c -- -I../internal/doorbell/bpf

// eventType is the plugin's output beside its GeneratorStatus.
const eventType = "ProcessEvents.events.cosi.dev"

// name is the plugin's, and the id of its GeneratorStatus.
const name = "process-events"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return plugin(&doorbell.Bell[note]{Sources: sources(doorbell.Often)}) }

func plugin(bell *doorbell.Bell[note]) sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{generator(bell).Controller("processes")},
	}
}

// generator is the plugin at work.
func generator(bell *doorbell.Bell[note]) *doorbell.Generator[note, *eventspb.ProcessEvent] {
	return &doorbell.Generator[note, *eventspb.ProcessEvent]{
		Name: name, Bell: bell,
		Event: func(n note, when func(time.Duration) time.Time) (*eventspb.ProcessEvent, bool) {
			return n.event(when), true
		},
		Resynchronised: func(at time.Duration, clock time.Time) *eventspb.ProcessEvent {
			return &eventspb.ProcessEvent{Action: "Resynchronised", Time: timestamppb.New(clock), BoottimeNs: uint64(at), Message: "events may be missing"}
		},
		Ring: doorbell.Ring[*eventspb.ProcessEvent]{
			Type:     eventType,
			SetCount: func(e *eventspb.ProcessEvent, count uint64) { e.Count = count },
			// A program that crashes again and again comes first, then all that a control group goes through.
			Same: []func(*eventspb.ProcessEvent) string{
				func(e *eventspb.ProcessEvent) string {
					return e.GetCgroup() + " " + e.GetAction() + " " + e.GetSignal() + " " + e.GetProcess() + " " + e.GetExecutable()
				},
				func(e *eventspb.ProcessEvent) string { return e.GetCgroup() + " " + e.GetAction() },
			},
		},
	}
}
