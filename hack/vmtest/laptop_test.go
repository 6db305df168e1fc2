package vmtest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestLaptop: whoever watches a laptop from afar sees its adapter, its battery, its lid, its sleep button and when it is too warm, and it goes
// down when the battery is empty or it is too hot; heard by eBPF alone, and without it.
func TestLaptop(t *testing.T) {
	manifest, err := os.ReadFile(vmtest.Image(t, "test", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(manifest, []byte(`- battery\n`)) { // in the definition, which is a text of the manifest's
		t.Skip("the image has no driver of batteries, as the kernel of the cloud flavour: make test-kernels runs this on the metal image")
	}
	vmtest.Parallel(t, 200)
	for _, tc := range []struct {
		mode, commandLine string
		unavailable       int
		end               func(laptop, *testing.T)
	}{
		{"fentry", "", 0, laptop.isHot},
		{"evdev", "lockdown=confidentiality", 2, laptop.isTooHot},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			hardware := vmtest.NewLaptop(t)
			n := vmtest.Start(t, vmtest.Options{
				Definition: "test", Boot: node.Kernel, CommandLine: tc.commandLine, Extra: hardware.Extra,
			})
			n.Ready(t)
			l := laptop{Node: n, hardware: hardware}
			l.supply(t, "BAT0", func(b *powerpb.PowerSupply) bool {
				return b.GetKind() == "Battery" && b.GetStatus() == "Charging" && b.GetCapacity() == 50 && b.GetLevel() == "Normal" && !b.GetPeripheral() &&
					b.GetManufacturer() == "COSI" && b.GetModel() == "COSI-10" && b.GetSerial() == "4711"
			})
			l.supply(t, "ADP0", func(a *powerpb.PowerSupply) bool { return a.GetKind() == "Mains" && a.GetOnline() && a.Capacity == nil })
			n.Converged(t, n.Apply(t, inhibitors)...)
			if u := generator(t, n, "power-events", tc.mode).GetUnavailable(); len(u) != tc.unavailable || len(u) > 0 && u[0].GetWhy() == "" {
				t.Errorf("unavailable: %v; want %d modes, with the reasons", u, tc.unavailable)
			}
			l.watch(t)
			t.Run("Adapter", l.adapter)
			t.Run("Lid", l.lid)
			t.Run("Battery", l.battery)
			if g := generator(t, n, "power-events", tc.mode); g.GetRings() < 20 || g.GetLost() > 0 {
				t.Errorf("generator %v; want that it rang for each change, and none lost", g)
			}
			t.Run("Heat", func(t *testing.T) { tc.end(l, t) })
		})
	}
}

// laptop is a node on one. Its events come one after the other, and no others than those that a test waits for.
type laptop struct {
	*vmtest.Node
	hardware *vmtest.Laptop
	told     chan arrived
}

// arrived is an event that has come to the watcher.
type arrived struct {
	*powerpb.PowerEvent
	written, came time.Time // on the node's clock, and on ours
}

// watch watches PowerEvents from now on, until the test ends.
func (l *laptop) watch(t *testing.T) {
	t.Helper()
	l.told = make(chan arrived, 64)
	kind := l.Kind(t, "powerevents")
	ctx, stop := context.WithCancel(t.Context())
	established, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- l.Client.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapBookmark: true}, func(e *resourcepb.Event) error {
			switch e.GetEventType() {
			case resourcepb.EventType_NOOP:
				close(established)
			case resourcepb.EventType_CREATED:
				event := &powerpb.PowerEvent{}
				if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), event); err != nil {
					return err
				}
				l.told <- arrived{event, e.GetResource().GetMetadata().GetCreated().AsTime(), time.Now()}
			}
			return nil
		})
	}()
	t.Cleanup(func() { stop(); <-ended })
	select {
	case <-established:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
}

// set sets a part of the laptop, and waits for the events that come of it: "LidClosed Lid Switch", "SupplyChanged ADP0 offline".
func (l laptop) set(t *testing.T, part vmtest.Part, state byte, events ...string) {
	t.Helper()
	began := time.Now()
	l.hardware.Set(t, part, state)
	for _, want := range events {
		select {
		case e := <-l.told:
			if got := strings.TrimSpace(e.GetAction() + " " + e.GetDevice() + " " + e.GetMessage()); got != want {
				t.Fatalf("event %v; want %q", e, want)
			}
			took := e.written.Sub(e.GetTime().AsTime())
			t.Logf("%s: %s from the kernel to the resource, %s from the host to the host", want, took, e.came.Sub(began).Round(time.Millisecond))
			if e.GetBoottimeNs() == 0 || took < 0 || took > 5*time.Second*l.Slower() {
				t.Errorf("event %v was at %s, and a resource after %s", e, e.GetTime().AsTime(), took)
			}
		case <-l.Patience(t, 90*time.Second).Done(): // a battery that is silent is looked at once a minute
			t.Fatalf("no event; want %q", want)
		}
	}
}

// supply waits until a power supply is as wanted.
func (l laptop) supply(t *testing.T, id string, wanted func(*powerpb.PowerSupply) bool) {
	t.Helper()
	s := &powerpb.PowerSupply{}
	l.Until(t, "powersupplies", id, s, func(m *resourcepb.Metadata) bool { return m != nil && wanted(s) })
}

// adapter: it goes and comes, and the battery says what that is to it.
func (l laptop) adapter(t *testing.T) {
	l.set(t, vmtest.Adapter, 0, "SupplyChanged ADP0 offline", "SupplyChanged BAT0 Discharging")
	l.supply(t, "ADP0", func(a *powerpb.PowerSupply) bool { return !a.GetOnline() })
	l.supply(t, "BAT0", func(b *powerpb.PowerSupply) bool { return b.GetStatus() == "Discharging" })
	l.set(t, vmtest.Adapter, 1, "SupplyChanged ADP0 online", "SupplyChanged BAT0 Charging")
	l.supply(t, "ADP0", (*powerpb.PowerSupply).GetOnline)
	// It bounces: what was so in between may be told or not, what is so in the end is.
	l.hardware.Set(t, vmtest.Adapter, 0)
	l.hardware.Set(t, vmtest.Adapter, 1)
	l.hardware.Set(t, vmtest.Adapter, 0)
	l.supply(t, "ADP0", func(a *powerpb.PowerSupply) bool { return !a.GetOnline() })
	l.supply(t, "BAT0", func(b *powerpb.PowerSupply) bool { return b.GetStatus() == "Discharging" })
	l.quiet(t)
	l.set(t, vmtest.Adapter, 1, "SupplyChanged ADP0 online", "SupplyChanged BAT0 Charging")
}

// quiet waits until no event comes for a moment.
func (l laptop) quiet(t *testing.T) {
	t.Helper()
	for {
		select {
		case <-l.told:
		case <-time.After(3 * time.Second):
			return
		}
	}
}

// lid and sleep button: nothing follows.
func (l laptop) lid(t *testing.T) {
	before := list(t, l.Node, "shutdownrequests")
	l.set(t, vmtest.Lid, 0, "LidClosed Lid Switch")
	l.set(t, vmtest.Lid, 1, "LidOpened Lid Switch")
	l.set(t, vmtest.SleepButton, 0, "SleepButton Sleep Button")
	l.set(t, vmtest.SleepButton, 0, "SleepButton Sleep Button")
	if after := list(t, l.Node, "shutdownrequests"); len(after) != len(before) {
		t.Errorf("requests %v; want none for this", after)
	}
}

// battery: it gets low and is all but empty, though the firmware does not always say so. A block is a delay of half a minute then, in which the
// adapter comes back.
func (l laptop) battery(t *testing.T) {
	l.set(t, vmtest.Battery, 9, "SupplyChanged BAT0 Charging, Low")
	l.set(t, vmtest.Battery, 60, "SupplyChanged BAT0 Charging")
	l.set(t, vmtest.Battery, 61)
	l.supply(t, "BAT0", func(b *powerpb.PowerSupply) bool { return b.GetCapacity() == 61 })
	l.set(t, vmtest.Adapter, 0, "SupplyChanged ADP0 offline", "SupplyChanged BAT0 Discharging")
	l.set(t, vmtest.SilentBattery, 10, "SupplyChanged BAT0 Discharging, Low")
	l.set(t, vmtest.Battery, 4)
	l.set(t, vmtest.Battery, 3, "SupplyChanged BAT0 Discharging, Critical") // at once: the kernel asks the battery once a second
	l.waits(t, "battery", "the battery is almost empty (BAT0)")
	l.set(t, vmtest.Adapter, 1, "SupplyChanged ADP0 online", "SupplyChanged BAT0 Charging, Critical")
	request := &powerpb.ShutdownRequest{}
	l.Until(t, "shutdownrequests", "battery", request, func(m *resourcepb.Metadata) bool { return m == nil })
	l.set(t, vmtest.Battery, 50, "SupplyChanged BAT0 Charging")
}

// waits waits until the node's own request waits for who blocks it, for half a minute.
func (l laptop) waits(t *testing.T, id, reason string) {
	t.Helper()
	request, status := &powerpb.ShutdownRequest{}, &powerpb.ShutdownStatus{}
	l.Until(t, "shutdownstatuses", id, status, func(*resourcepb.Metadata) bool { return status.GetReason() == "Waiting" })
	l.Get(t, "shutdownrequests", id, request)
	if !strings.HasPrefix(request.GetReason(), reason) || !request.GetCritical() || request.GetAction() != powerpb.ShutdownRequest_POWER_OFF {
		t.Errorf("request %v; want a critical one: %s", request, reason)
	}
	var blocks bool
	for _, h := range status.GetHolders() {
		blocks = blocks || h.GetHolder() == "raid monitor" && h.GetMode() == powerpb.ShutdownInhibitor_BLOCK
	}
	if took := status.GetUntil().AsTime().Sub(status.GetSince().AsTime()); !blocks || took != 30*time.Second {
		t.Errorf("status %v; want that it waits for the raid monitor, for half a minute", status)
	}
}

// isHot: a zone that is warm is nothing. One that is hot takes the node down, though somebody blocks that, who has two seconds.
func (l laptop) isHot(t *testing.T) {
	l.Converged(t, l.Apply(t, strings.Replace(inhibitors, "replaced, ", "replaced, limit: 2s, ", 1))...)
	from := l.Console.Position()
	l.set(t, vmtest.Temperature, 75)
	l.set(t, vmtest.Temperature, 95, "Hot acpitz")
	l.Expect(t, from, `power: .*it is too hot \(acpitz\).*; waits for .*raid monitor`)
	l.Expect(t, from, `engine: .*powering off`)
	l.off(t)
}

// isTooHot: with the critical trip it is the kernel that switches off, whoever waits.
func (l laptop) isTooHot(t *testing.T) {
	from := l.Console.Position()
	l.set(t, vmtest.Temperature, 75)
	l.set(t, vmtest.Temperature, 95, "Hot acpitz")
	l.waits(t, "heat", "it is too hot (acpitz)")
	l.hardware.Set(t, vmtest.Temperature, 110)
	l.Expect(t, from, `critical temperature reached`)
	l.off(t)
}

func (l laptop) off(t *testing.T) {
	t.Helper()
	ctx := l.Patience(t, moment)
	select {
	case <-l.Done():
	case <-ctx.Done():
		t.Error(errors.Join(errors.New("the node does not power off"), ctx.Err()))
	}
}
