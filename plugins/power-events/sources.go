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
		{Mode: doorbell.Fentry, Open: withLids(doorbell.Probe[note]{Load: loadProbe, Attach: fentry, Decode: decode}.Open)},
		{Mode: doorbell.Kprobe, Open: withLids(doorbell.Probe[note]{Load: loadProbe, Attach: kprobe, Decode: decode}.Open)},
		{Mode: doorbell.Evdev, Open: func() (doorbell.Listener[note], error) {
			s, err := uevent.Open()
			return &withoutBPF{keys: inputs{devInput, identify}, supplies: s}, err
		}},
		{
			Mode: doorbell.Poll, Without: fmt.Sprintf("what happens to a supply is noticed within %v, heat is not; keys and lids are heard by their devices", every),
			Open: func() (doorbell.Listener[note], error) {
				return &withoutBPF{keys: inputs{devInput, identify}, every: every}, nil
			},
		},
	}
}

const devInput = "/dev/input"

// withLids opens a probe that also hears of lids. The button driver of ACPI does not even ask how a lid is before somebody has opened its
// input device (since Linux 4.15): they are held open, and not read.
func withLids(open func() (doorbell.Listener[note], error)) func() (doorbell.Listener[note], error) {
	return func() (doorbell.Listener[note], error) {
		probe, err := open()
		return &lidsOpen{Listener: probe, lids: inputs{devInput, identifyLid}}, err
	}
}

type lidsOpen struct {
	doorbell.Listener[note]
	lids inputs
}

// Listen ends when the probe or the watch over the devices does.
func (l *lidsOpen) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	return together(ctx,
		func(ctx context.Context) error { return l.Listener.Listen(ctx, hear, lost) },
		func(ctx context.Context) error { return l.lids.watch(ctx, func(note) {}, func(uint64) {}) },
	)
}

// together runs all until one of them ends, which ends the others.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(all))
	var running sync.WaitGroup
	for i, run := range all {
		running.Go(func() { defer cancel(); errs[i] = run(ctx) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// withoutBPF hears keys and lids by input devices, and by netlink supplies from the kernel's device events, and heat from what ACPI says. Without
// netlink it looks at the supplies.
type withoutBPF struct {
	supplies *uevent.Socket // nil: none
	every    time.Duration  // how often to look, if there is none
	keys     inputs
}

func (w *withoutBPF) Close() error {
	if w.supplies == nil {
		return nil
	}
	return w.supplies.Close()
}

// Listen ends when one of those ends that it listens to.
func (w *withoutBPF) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	parts := []func(context.Context) error{func(ctx context.Context) error { return w.keys.watch(ctx, hear, lost) }}
	if w.supplies != nil {
		parts = append(parts,
			func(ctx context.Context) error { return watchACPI(ctx, hear, lost) },
			func(ctx context.Context) error { return w.hearSupplies(ctx, hear, lost) },
		)
	} else {
		look := func() ([]note, error) { return []note{{at: doorbell.Now(), what: supply}}, nil }
		parts = append(parts, func(ctx context.Context) error {
			return doorbell.Poller[note]{Every: w.every, Look: look}.Listen(ctx, hear, lost)
		})
	}
	return together(ctx, parts...)
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
