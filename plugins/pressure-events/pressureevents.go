// Package pressureevents is the generator for pressure: it has the kernel watch what PressureThresholds ask for, the whole node or a plugin,
// and writes an event whenever tasks had to wait for longer (PSI, Documentation/accounting/psi.rst).
//
// It has no right but to open the files of the kernel that everybody may open. For such a process the kernel measures in windows of whole
// multiples of 2 s, from Linux 6.4 on (Debian's 6.1 does, too); with CAP_SYS_RESOURCE they could be finer, at the price of a real-time thread of
// the kernel's for each group that is watched, and of limits that would not hold for the plugin. Where it does not, the plugin reads once a
// second how long tasks have waited.
package pressureevents

import (
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	_ "github.com/cosi-os/cosi/api/cosi/service/v1alpha1" // PluginStatuses, an input
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs beside its GeneratorStatus.
const (
	pluginType    = "PluginStatuses.service.cosi.dev"
	thresholdType = "PressureThresholds.events.cosi.dev"
	statusType    = "PressureThresholdStatuses.events.cosi.dev"
	eventType     = "PressureEvents.events.cosi.dev"
)

// name is the plugin's, and the id of its GeneratorStatus.
const name = "pressure-events"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return plugin(files{node: "/proc/pressure", groups: "/sys/fs/cgroup/cosi"}) }

func plugin(f files) sdk.Plugin {
	g := newGenerator(f)
	c := g.Controller("pressure")
	// A plugin that starts has a new control group, which its status tells of.
	c.Inputs, c.Outputs = []string{thresholdType, pluginType}, append(c.Outputs, statusType)
	c.Reconcile = g.reconcile
	return sdk.Plugin{Declaration: declared, Version: Version, Controllers: []sdk.Controller{c}}
}

// files are where the kernel has its files of pressure.
type files struct{ node, groups string }

// of is the file that t is about.
func (f files) of(t *eventspb.PressureThreshold) string {
	resource := resources[t.GetResource()]
	switch t.GetPlugin() {
	case "":
		return filepath.Join(f.node, resource)
	case "runtime":
		return filepath.Join(f.groups, "runtime", resource+".pressure")
	}
	return filepath.Join(f.groups, "plugins", t.GetPlugin(), resource+".pressure")
}

var resources = map[eventspb.PressureThreshold_Resource]string{
	eventspb.PressureThreshold_MEMORY: "memory", eventspb.PressureThreshold_CPU: "cpu", eventspb.PressureThreshold_IO: "io",
}

// generator is the plugin at work.
type generator struct {
	doorbell.Generator[note, *eventspb.PressureEvent]

	files    files
	triggers *triggers
}

func newGenerator(f files) *generator {
	t := &triggers{open: map[string]*trigger{}}
	bell := &doorbell.Bell[note]{Sources: sources(t, f.node)}
	return &generator{files: f, triggers: t, Generator: doorbell.Generator[note, *eventspb.PressureEvent]{
		Name: name, Bell: bell, Event: note.event,
		Resynchronised: func(at time.Duration, clock time.Time) *eventspb.PressureEvent {
			return &eventspb.PressureEvent{Action: "Resynchronised", BoottimeNs: uint64(at), Time: timestamppb.New(clock), Message: "events may be missing"}
		},
		Ring: doorbell.Ring[*eventspb.PressureEvent]{
			Type:     eventType,
			SetCount: func(e *eventspb.PressureEvent, count uint64) { e.Count = count },
			Same:     []func(*eventspb.PressureEvent) string{(*eventspb.PressureEvent).GetThreshold},
		},
	}}
}

// sources are the ways to hear, the best first.
func sources(t *triggers, node string) []doorbell.Source[note] {
	return []doorbell.Source[note]{
		{Mode: doorbell.PSI, Open: func() (doorbell.Listener[note], error) { return t, t.begin(node) }},
		{Mode: doorbell.Poll, Open: func() (doorbell.Listener[note], error) { return polled{t}, t.beginPolled(node) }},
	}
}

// reconcile has the kernel watch what is asked for, says of each whether it does, and writes the events.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	var errs []error
	wanted := map[string]*eventspb.PressureThreshold{}
	all := sdk.List[*eventspb.PressureThreshold](s, thresholdType)
	for _, t := range all {
		if !t.TearingDown() {
			wanted[t.GetId()] = t.Spec
		}
	}
	g.triggers.keep(func(id string, t *eventspb.PressureThreshold) bool { return proto.Equal(wanted[id], t) })
	for _, t := range all {
		errs = append(errs, g.apply(ctx, s, t))
	}
	for _, id := range s.Outputs(statusType) {
		if wanted[id] == nil {
			errs = append(errs, s.Delete(ctx, statusType, id))
		}
	}
	return errors.Join(append(errs, g.Reconcile(ctx, s))...)
}

// apply has the kernel watch one threshold, or lets go of one whose trigger is gone.
func (g *generator) apply(ctx context.Context, s *sdk.State, t sdk.Resource[*eventspb.PressureThreshold]) error {
	if t.TearingDown() {
		if err := s.Delete(ctx, statusType, t.GetId()); err != nil {
			return err
		}
		return s.RemoveFinalizer(ctx, t.Metadata)
	}
	if err := s.AddFinalizer(ctx, t.Metadata); err != nil {
		return err
	}
	file := g.files.of(t.Spec)
	status := &eventspb.PressureThresholdStatus{ObservedVersion: t.GetVersion(), Ready: true, Reason: "Watched", Message: file}
	switch err := g.triggers.set(t.GetId(), t.Spec, file); {
	case errors.Is(err, fs.ErrNotExist) && t.Spec.GetPlugin() != "":
		status.Ready, status.Reason, status.Message = false, "NoPlugin", "plugin "+t.Spec.GetPlugin()+" does not run: "+err.Error()
	case err != nil:
		status.Ready, status.Reason, status.Message = false, "Refused", err.Error()
	}
	return s.Write(ctx, statusType, t.GetId(), status, t.Metadata)
}
