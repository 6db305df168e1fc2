package powerevents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
)

// sources are the ways to hear, the best first. The last is for a process that may not open a netlink socket, as in a container.
func sources(every time.Duration) []doorbell.Source[note] {
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
		{
			Mode: doorbell.Poll, Without: fmt.Sprintf("what happens to a supply is noticed within %v, heat is not; keys and lids are heard by their devices", every),
			Open: func() (doorbell.Listener[note], error) {
				return &withoutBPF{devices: "/dev/input", identify: identify, every: every}, nil
			},
		},
	}
}

// withoutBPF hears keys and lids by input devices, and by netlink supplies from the kernel's device events, and heat from what ACPI says. Without
// netlink it looks at the supplies.
type withoutBPF struct {
	supplies *uevent.Socket                                 // nil: none
	every    time.Duration                                  // how often to look, if there is none
	devices  string                                         // /dev/input
	identify func(fd int) (name string, ours bool, _ error) // a device of the kernel; tests have none
}

func (w *withoutBPF) Close() error {
	if w.supplies == nil {
		return nil
	}
	return w.supplies.Close()
}

// Listen ends when one of those ends that it listens to.
func (w *withoutBPF) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(context.Context, func(note), func(uint64)) error{w.watch}
	if w.supplies != nil {
		parts = append(parts, watchACPI, w.hearSupplies)
	} else {
		look := func() ([]note, error) { return []note{{at: doorbell.Now(), what: supply}}, nil }
		parts = append(parts, doorbell.Poller[note]{Every: w.every, Look: look}.Listen)
	}
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, listen := range parts {
		all.Go(func() { defer cancel(); errs[i] = listen(ctx, hear, lost) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (w *withoutBPF) hearSupplies(ctx context.Context, hear func(note), lost func(uint64)) error {
	return w.supplies.Receive(ctx, func(e uevent.Event) {
		switch {
		case e.Action == uevent.Lost:
			lost(1) // at least
		case e.Variables["SUBSYSTEM"] == "power_supply":
			hear(note{at: doorbell.Now(), what: supply})
		}
	})
}
