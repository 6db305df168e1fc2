package power

import (
	"context"
	"fmt"
	"slices"
	"time"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/sdk"
)

// Ids of the plugin's own requests.
const (
	buttonID  = "power-button"
	heatID    = "heat"
	batteryID = "battery"
)

const (
	// soon is how long after a press of the button the next one overrides inhibitors.
	soon = 5 * time.Second
	// fresh is how old an event may be that is acted on. What is older, this plugin was not there for: nobody expects it any more.
	fresh = 10 * time.Second
	// empty is the percentage at which a battery that tells no level is critical.
	empty = 3
)

type (
	event        = sdk.Resource[*powerpb.PowerEvent]
	supply       = sdk.Resource[*powerpb.PowerSupply]
	shutdownSpec = powerpb.ShutdownRequest
)

// causes turns what happens to the node into requests of the plugin's own. Its field is used by reconcile only.
type causes struct {
	clock   clock
	handled time.Duration // when the last event happened that was acted on
}

func (c *causes) reconcile(ctx context.Context, s *sdk.State) error {
	if err := c.events(ctx, s); err != nil {
		return err
	}
	return battery(ctx, s)
}

// events asks for a power-off for a press of the button, and for heat.
func (c *causes) events(ctx context.Context, s *sdk.State) error {
	var before time.Duration // the press before
	now, handled := c.clock.Boottime(), c.handled
	for _, e := range sdk.List[*powerpb.PowerEvent](s, eventType) {
		at := time.Duration(e.Spec.GetBoottimeNs())
		id, request := asked(e, before > 0 && at-before <= soon)
		if e.Spec.GetAction() == actionPowerButton {
			before = at
		}
		if at <= c.handled || now-at > fresh || request == nil {
			continue
		}
		if err := s.Write(ctx, requestType, id, request, e.Metadata); err != nil {
			return err
		}
		handled = max(handled, at)
	}
	c.handled = handled
	return nil
}

// Actions of events that a request follows.
const (
	actionPowerButton = "PowerButton"
	actionHot         = "Hot"
	actionTooHot      = "TooHot"
)

// asked returns the request that an event leads to, nil for none. again says that it follows another press. With its time each press is a
// request of its own: what is written as it was is not written again.
func asked(e event, again bool) (id string, request *shutdownSpec) {
	at := e.Spec.GetTime().AsTime().UTC().Format("15:04:05.000")
	switch e.Spec.GetAction() {
	case actionPowerButton:
		return buttonID, &shutdownSpec{
			Action: powerpb.ShutdownRequest_POWER_OFF, Reason: fmt.Sprintf("the power button was pressed (%s) at %s", e.Spec.GetDevice(), at),
			Force: again || e.Spec.GetCount() > 1,
		}
	case actionHot, actionTooHot:
		return heatID, &shutdownSpec{
			Action: powerpb.ShutdownRequest_POWER_OFF, Reason: fmt.Sprintf("it is too hot (%s) at %s", e.Spec.GetDevice(), at), Critical: true,
		}
	}
	return "", nil
}

// battery asks for a power-off while the node runs on batteries that are all but empty, and gives that up when it does not any more.
func battery(ctx context.Context, s *sdk.State) error {
	last, ok := exhausted(sdk.List[*powerpb.PowerSupply](s, supplyType))
	if !ok {
		return s.Delete(ctx, requestType, batteryID)
	}
	request := &shutdownSpec{
		Action: powerpb.ShutdownRequest_POWER_OFF, Reason: fmt.Sprintf("the battery is almost empty (%s)", last.GetId()), Critical: true,
	}
	return s.Write(ctx, requestType, batteryID, request, last)
}

// exhausted reports whether the node runs on batteries only, all of them critical. It returns one of them.
func exhausted(all []supply) (last *resourcepb.Metadata, ok bool) {
	all = slices.DeleteFunc(slices.Clone(all), func(p supply) bool { return p.Spec.GetPeripheral() })
	for _, p := range all {
		switch {
		case p.Spec.GetStatus() == "" && p.Spec.GetOnline():
			return nil, false
		case p.Spec.GetStatus() == "":
		case p.Spec.GetStatus() != "Discharging" || !critical(p.Spec):
			return nil, false
		default:
			last = p.Metadata
		}
	}
	return last, last != nil
}

func critical(p *powerpb.PowerSupply) bool {
	if level := p.GetLevel(); level != "" && level != "Unknown" {
		return level == "Critical"
	}
	return p.Capacity != nil && p.GetCapacity() <= empty
}
