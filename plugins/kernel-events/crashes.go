package kernelevents

import (
	"context"
	"slices"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the controller's input and output.
const (
	stateType = "StateStatuses.machine.cosi.dev"
	crashType = "CrashReports.events.cosi.dev"
)

// kept is how many crashes are kept, as reports and by a firmware that has to.
const kept = 16

// crashes reports what pstore has kept of the ends of earlier boots.
type crashes struct{ dir string }

func (c crashes) controller() sdk.Controller {
	return sdk.Controller{Name: "crashes", Inputs: []string{stateType}, Outputs: []string{crashType}, Reconcile: c.reconcile, Watch: watchModules}
}

// watchModules wakes when a module is there: that of the firmware may come later than the plugin.
func watchModules(ctx context.Context, wake func()) error {
	return uevent.Watch(ctx, func(e uevent.Event) {
		if e.Action == uevent.Lost || e.Variables["SUBSYSTEM"] == "module" {
			wake()
		}
	})
}

// reconcile writes a report of each crash, and erases from the firmware what a report on the disk has, or what is too old. A report is
// never written twice: of a crash that has one, a part may be erased already.
func (c crashes) reconcile(ctx context.Context, s *sdk.State) error {
	all, err := readCrashes(c.dir)
	if err != nil {
		return err
	}
	durable := slices.ContainsFunc(sdk.List[*machinepb.StateStatus](s, stateType), func(r sdk.Resource[*machinepb.StateStatus]) bool { return r.Spec.GetDurable() })
	for i, one := range all {
		old := i < len(all)-kept
		if _, there := sdk.Get[*eventspb.CrashReport](s, crashType, one.id()); !there && !old {
			if err := s.Write(ctx, crashType, one.id(), one.report(), nil); err != nil {
				return err
			}
		}
		if durable || old {
			if err := one.erase(); err != nil {
				return err
			}
		}
	}
	ids := s.Outputs(crashType)
	for _, id := range ids[:max(0, len(ids)-kept)] {
		if err := s.Delete(ctx, crashType, id); err != nil {
			return err
		}
	}
	return nil
}
