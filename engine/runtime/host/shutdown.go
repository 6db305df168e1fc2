package host

import (
	"context"
	"time"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/wire"
)

// ShutdownStatuses is the kind by which a plugin with the right Power asks for the node to go down.
var ShutdownStatuses = state.Kind{Namespace: "status", Type: "ShutdownStatuses.power.cosi.dev"}

// reasonDraining in a ShutdownStatus means: now.
const reasonDraining = "Draining"

// drainTime is how long plugins have to let go before PID 1 stops them.
const drainTime = 3 * time.Second

// Shutdown waits for a ShutdownStatus with the reason Draining whose owner has the right Power, drains the plugins and hands over to
// PID 1. It returns after that, or when ctx is done.
func (h *Host) Shutdown(ctx context.Context, s state.State, powerful func(owner string) bool) error {
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default: // A wake-up is pending.
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := observe.New(s, wake, ShutdownStatuses)
	watched := make(chan error, 1)
	go func() { watched <- view.Run(ctx) }()
	for {
		select {
		case <-changed:
			if order := shutdownOrder(view, powerful); order != nil {
				err := h.goDown(ctx, order)
				cancel()
				<-watched
				return err
			}
		case err := <-watched:
			return err
		}
	}
}

func shutdownOrder(view *observe.View, powerful func(string) bool) *wire.Shutdown {
	for _, r := range observe.Items[powerpb.ShutdownStatus](view, ShutdownStatuses) {
		action := r.Spec.GetAction()
		known := action == powerpb.ShutdownRequest_REBOOT || action == powerpb.ShutdownRequest_POWER_OFF
		if known && r.Spec.GetReason() == reasonDraining && powerful(r.GetOwner()) {
			return &wire.Shutdown{Reboot: action == powerpb.ShutdownRequest_REBOOT, Reason: r.Spec.GetMessage()}
		}
	}
	return nil
}

// Reboot drains the plugins and has PID 1 start the node again.
func (h *Host) Reboot(ctx context.Context, reason string) error {
	return h.goDown(ctx, &wire.Shutdown{Reboot: true, Reason: reason})
}

// ResetStorage has PID 1 format a damaged partition at the next boot.
func (h *Host) ResetStorage(reason string) error {
	return h.conn.Send(wire.Down{ResetStorage: &wire.ResetStorage{Reason: reason}})
}

// goDown gives the order though plugins may be late: PID 1 stops what is left. A plugin that has let go is stopped at once, or it would be
// started again and take hold again.
func (h *Host) goDown(ctx context.Context, order *wire.Shutdown) error {
	h.table.Drain(ctx, order.Reason, time.Now().Add(drainTime), func(name string) {
		_ = h.conn.Send(wire.Down{Stop: &wire.Process{Name: name}}) // The order that follows fails the same way.
	})
	return h.conn.Send(wire.Down{Shutdown: order})
}
