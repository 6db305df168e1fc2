package power

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// buttonID names the event and the request that a press leads to.
const buttonID = "power-button"

// button turns presses of the power button into PowerEvents and a ShutdownRequest.
type button struct {
	devices  string                                          // /dev/input
	identify func(fd int) (name string, power bool, _ error) // a device of the kernel; tests have none

	clock     clock
	requested uint64 // presses that a request was written for; used by reconcile only

	mu   sync.Mutex // guards the field below
	last press
}

// press is the last press, and how many there have been.
type press struct {
	source string
	at     time.Time
	count  uint64
	again  bool // soon after the one before
}

// soon is how long after a press the next one overrides inhibitors.
const soon = 5 * time.Second

func (b *button) pressed(source string) {
	at := b.clock.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = press{source, at, b.last.count + 1, b.last.count > 0 && at.Sub(b.last.at) <= soon}
}

func (b *button) lastPress() press {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// reconcile shows the last press, and asks for a power-off once for each.
func (b *button) reconcile(ctx context.Context, s *sdk.State) error {
	p := b.lastPress()
	if p.count == 0 {
		return nil
	}
	event := &powerpb.PowerEvent{Source: "evdev " + p.source, Time: timestamppb.New(p.at), Count: p.count}
	if err := s.Write(ctx, eventType, buttonID, event, nil); err != nil {
		return err
	}
	if p.count == b.requested {
		return nil
	}
	// With its time each press is a request of its own: what is written as it was is not written again.
	request := &powerpb.ShutdownRequest{
		Action: powerpb.ShutdownRequest_POWER_OFF,
		Reason: fmt.Sprintf("the power button was pressed (%s) at %s", p.source, p.at.UTC().Format("15:04:05.000")),
		Force:  p.again,
	}
	if err := s.Write(ctx, requestType, buttonID, request, nil); err != nil {
		return err
	}
	b.requested = p.count
	return nil
}
