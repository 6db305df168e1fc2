package powerevents

import (
	"context"
	"errors"
	"sync"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
)

// sources are the ways to hear, the best first.
func sources() []doorbell.Source[note] {
	// Of thermal zones, in each mode that has eBPF. A kernel may have been built without.
	trip := doorbell.Attachment{Program: "trip", Function: "thermal_zone_trip", Optional: true}
	fentry := []doorbell.Attachment{
		trip, {Program: "fentry_input_event"}, {Program: "fentry_power_supply_changed"}, {Program: "fexit_power_supply_unregister"},
	}
	kprobe := []doorbell.Attachment{
		trip, {Program: "kprobe_input_event", Function: "input_event"}, {Program: "kprobe_power_supply_changed", Function: "power_supply_changed"},
		{Program: "kretprobe_power_supply_unregister", Function: "power_supply_unregister", Return: true},
	}
	return []doorbell.Source[note]{
		{Mode: doorbell.Fentry, Open: doorbell.Probe[note]{Load: loadProbe, Attach: fentry, Decode: decode}.Open},
		{Mode: doorbell.Kprobe, Open: doorbell.Probe[note]{Load: loadProbe, Attach: kprobe, Decode: decode}.Open},
		{Mode: doorbell.Evdev, Open: func() (doorbell.Listener[note], error) {
			s, err := uevent.Open()
			return &withoutBPF{devices: "/dev/input", identify: identify, supplies: s}, err
		}},
	}
}

// withoutBPF hears keys and lids by input devices, supplies by the kernel's device events, and heat by what ACPI says.
type withoutBPF struct {
	supplies *uevent.Socket
	devices  string                                         // /dev/input
	identify func(fd int) (name string, ours bool, _ error) // a device of the kernel; tests have none
}

func (w *withoutBPF) Close() error { return w.supplies.Close() }

// Listen ends when one of the three ends.
func (w *withoutBPF) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var keys, supplies, heat error
	var all sync.WaitGroup
	all.Go(func() { defer cancel(); keys = w.watch(ctx, hear, lost) })
	all.Go(func() { defer cancel(); heat = watchACPI(ctx, hear, lost) })
	all.Go(func() {
		defer cancel()
		supplies = w.supplies.Receive(ctx, func(e uevent.Event) {
			switch {
			case e.Action == uevent.Lost:
				lost(1) // at least
			case e.Variables["SUBSYSTEM"] == "power_supply":
				hear(note{at: doorbell.Now(), what: supply})
			}
		})
	})
	all.Wait()
	return errors.Join(keys, supplies, heat)
}
