package storage

import (
	"context"
	"fmt"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Kinds of a reset.
var (
	Resets        = state.Kind{Namespace: "requests", Type: "StateResets.machine.cosi.dev"}
	ResetStatuses = state.Kind{Namespace: "status", Type: "StateResetStatuses.machine.cosi.dev"}
)

// Resetter acts on StateResets: it gives up the state and has the node rebooted.
type Resetter struct {
	State   state.State
	Output  output.Writer
	Storage *Storage
	// Name is the node's name, which a request must confirm.
	Name func() string
	// Format asks PID 1 to format the partition at the next boot.
	Format func(reason string) error
	// Reboot takes the node down and starts it again.
	Reboot func(ctx context.Context, reason string) error
}

// notice is the time from the answer to the reboot.
const notice = 500 * time.Millisecond

// Run answers requests until ctx is done or one was accepted and the node goes down.
func (r *Resetter) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	view := observe.New(r.State, func() {
		select {
		case changed <- struct{}{}:
		default: // A wake-up is pending.
		}
	}, Resets)
	watched := make(chan error, 1)
	go func() { watched <- view.Run(ctx) }()
	answered := map[string]bool{} // id@version
	for {
		select {
		case <-changed:
		case err := <-watched:
			return err
		}
		for _, request := range observe.Items[machinepb.StateReset](view, Resets) {
			name := request.GetId() + "@" + request.GetVersion()
			if answered[name] {
				continue
			}
			answered[name] = true
			if down, err := r.answer(ctx, request); err != nil || down {
				cancel()
				<-watched
				return err
			}
		}
	}
}

// answer acts on one request, and reports whether the node goes down.
func (r *Resetter) answer(ctx context.Context, request observe.Item[machinepb.StateReset]) (down bool, err error) {
	status := &machinepb.StateResetStatus{ObservedVersion: request.GetVersion(), Ready: true, Reason: "Accepted", Message: "the state is given up, the node reboots"}
	if err := r.reset(request.Spec); err != nil {
		status.Ready, status.Reason, status.Message = false, "Refused", err.Error()
	}
	if err := r.Output.Put(ctx, state.Pointer{Kind: ResetStatuses, ID: request.GetId()}, status); err != nil || !status.Ready {
		return false, err
	}
	select { // the runtime ends with its connections: whoever asked is to have the answer by then
	case <-time.After(notice):
	case <-ctx.Done():
		return true, ctx.Err()
	}
	reason := "the state was reset"
	if request.Spec.GetReason() != "" {
		reason += ": " + request.Spec.GetReason()
	}
	return true, r.Reboot(ctx, reason)
}

func (r *Resetter) reset(request *machinepb.StateReset) error {
	if name := r.Name(); request.GetConfirm() != name {
		return fmt.Errorf("this node is %q, and the request confirms %q", name, request.GetConfirm())
	}
	reason := r.Storage.Status().GetReason()
	damaged := reason == ReasonDamaged || reason == ReasonLocked // whose recovery key is lost
	if damaged && r.Storage.dir == "" {
		return r.Format(request.GetReason())
	}
	err := r.Storage.giveUp()
	if err != nil && damaged && r.Storage.Status().GetDevice() != "" { // nothing can be written there
		return r.Format(request.GetReason())
	}
	return err
}
