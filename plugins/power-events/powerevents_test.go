package powerevents

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
	"github.com/cosi-os/cosi/sdk"
)

// kernel is hardware: a /sys of files, and a doorbell.
type kernel struct {
	t     *testing.T
	sys   string
	notes chan note
	lost  chan uint64
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	return &kernel{t, t.TempDir(), make(chan note), make(chan uint64)}
}

// supply makes a power supply, or changes its attributes.
func (k *kernel) supply(name string, attributes map[string]string) {
	k.t.Helper()
	dir := filepath.Join(k.sys, "class", "power_supply", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		k.t.Fatal(err)
	}
	for attribute, text := range attributes {
		if err := os.WriteFile(filepath.Join(dir, attribute), []byte(text), 0o600); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *kernel) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	for {
		select {
		case n := <-k.notes:
			hear(n)
		case n := <-k.lost:
			lost(n)
		case <-ctx.Done():
			return nil
		}
	}
}

func (*kernel) Close() error { return nil }

// start runs the plugin on k, until the test or end ends it.
func (k *kernel) start(r *plugintest.Runtime) (end func()) {
	return k.startWith(r, []doorbell.Source[note]{{Mode: doorbell.Fentry, Open: func() (doorbell.Listener[note], error) { return k, nil }}})
}

func (k *kernel) startWith(r *plugintest.Runtime, sources []doorbell.Source[note]) (end func()) {
	k.t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sdk.Run(ctx, plugin(newGenerator(&doorbell.Bell[note]{Sources: sources}, k.sys)))
	}()
	end = func() { cancel(); <-done }
	k.t.Cleanup(end)
	r.WaitReady()
	return end
}

// wait waits for the nth event.
func wait(r *plugintest.Runtime, n uint64) *powerpb.PowerEvent {
	e := &powerpb.PowerEvent{}
	r.Wait("the event "+doorbell.ID(n), func() bool { return r.Get(doorbell.ID(n), e) != nil })
	return e
}

func TestEvents(t *testing.T) {
	k := newKernel(t)
	k.supply("AC", map[string]string{"type": "Mains\n", "online": "1\n"})
	k.supply("BAT0", map[string]string{
		"type": "Battery\n", "status": "Full\n", "capacity": "100\n", "capacity_level": "Full\n", "model_name": "X1", "manufacturer": "SANYO", "serial_number": " 25 ",
	})
	r := plugintest.Start(t, declared)
	end := k.start(r)
	battery := &powerpb.PowerSupply{}
	if r.Get("BAT0", battery) == nil || battery.GetKind() != "Battery" || battery.GetStatus() != "Full" || battery.GetCapacity() != 100 || battery.GetLevel() != "Full" ||
		battery.GetModel() != "X1" || battery.GetManufacturer() != "SANYO" || battery.GetSerial() != "25" || battery.GetPeripheral() {
		t.Errorf("battery %v", battery)
	}
	mains := &powerpb.PowerSupply{}
	if r.Get("AC", mains) == nil || !mains.GetOnline() || mains.Capacity != nil {
		t.Errorf("mains %v", mains)
	}

	at := doorbell.Now()
	k.notes <- note{at: at, what: powerButton, name: "Power Button"}
	e := wait(r, 1)
	if e.GetAction() != "PowerButton" || e.GetDevice() != "Power Button" || e.GetBoottimeNs() != uint64(at) || time.Since(e.GetTime().AsTime()).Abs() > time.Minute {
		t.Errorf("event %v", e)
	}

	k.supply("AC", map[string]string{"online": "0\n"})
	k.supply("BAT0", map[string]string{"status": "Discharging\n", "capacity": "99\n", "capacity_level": "Normal"})
	k.notes <- note{at: at + 2, what: supply}
	if e := wait(r, 2); e.GetAction() != "SupplyChanged" || e.GetDevice() != "AC" || e.GetMessage() != "offline" || e.GetBoottimeNs() != uint64(at+2) {
		t.Errorf("event %v", e)
	}
	if e := wait(r, 3); e.GetDevice() != "BAT0" || e.GetMessage() != "Discharging" {
		t.Errorf("event %v", e)
	}

	k.supply("BAT0", map[string]string{"capacity": "98\n"})
	k.notes <- note{at: at + 3, what: supply}
	r.Wait("the capacity is seen", func() bool { return r.Get("BAT0", battery) != nil && battery.GetCapacity() == 98 })
	k.supply("BAT0", map[string]string{"capacity_level": "Critical\n"})
	k.notes <- note{at: at + 4, what: supply}
	if e := wait(r, 4); e.GetMessage() != "Discharging, Critical" {
		t.Errorf("event %v; want that 98 %% is none", e)
	}

	if err := os.RemoveAll(filepath.Join(k.sys, "class", "power_supply", "BAT0")); err != nil {
		t.Fatal(err)
	}
	k.notes <- note{at: at + 5, what: supply}
	if e := wait(r, 5); e.GetAction() != "SupplyRemoved" || e.GetDevice() != "BAT0" || r.Get("BAT0", battery) != nil {
		t.Errorf("event %v, battery %v", e, battery)
	}

	k.lost <- 3
	if e := wait(r, 6); e.GetAction() != "Resynchronised" {
		t.Errorf("event %v", e)
	}
	status := &eventspb.GeneratorStatus{}
	r.Wait("the loss is counted", func() bool {
		return r.Get(name, status) != nil && status.GetLost() == 3 && status.GetMode() == "fentry" && status.GetRings() == 5
	})
	end()
	k.supply("UPS", map[string]string{"type": "UPS", "scope": "Device"})
	k.start(r)
	ups := &powerpb.PowerSupply{}
	r.Wait("what came meanwhile is there", func() bool { return r.Get("UPS", ups) != nil })
	if e := wait(r, 7); e.GetAction() != "Resynchronised" || !ups.GetPeripheral() {
		t.Errorf("event %v, supply %v; want that events may be missing", e, ups)
	}
	k.notes <- note{at: at + 6, what: lidClosed, name: "Lid Switch"}
	if e := wait(r, 8); e.GetAction() != "LidClosed" {
		t.Errorf("event %v", e)
	}
}

// TestWithoutNetlink: a supply that is another than it was is seen when it is looked at again.
func TestWithoutNetlink(t *testing.T) {
	k := newKernel(t)
	k.supply("AC", map[string]string{"type": "Mains\n", "online": "1\n"})
	r := plugintest.Start(t, declared)
	k.startWith(r, doorbelltest.Refused(sources(10*time.Millisecond)))
	doorbelltest.Fallen(t, r, name, doorbell.Poll, "fentry", "kprobe", "evdev")
	k.supply("AC", map[string]string{"online": "0\n"})
	if e := wait(r, 1); e.GetAction() != "SupplyChanged" || e.GetDevice() != "AC" || e.GetMessage() != "offline" || e.GetBoottimeNs() == 0 {
		t.Errorf("event %v", e)
	}
}

// TestASupplyIsLookedAtAgain: what it says right after a note may be what it said before. The event is of when it rang.
func TestASupplyIsLookedAtAgain(t *testing.T) {
	k := newKernel(t)
	k.supply("BAT0", map[string]string{"type": "Battery\n", "status": "Charging\n"})
	r := plugintest.Start(t, declared)
	k.start(r)
	at := doorbell.Now()
	k.notes <- note{at: at, what: supply}
	status := &eventspb.GeneratorStatus{}
	r.Wait("it has rung", func() bool { return r.Get(name, status) != nil && status.GetRings() == 1 })
	k.supply("BAT0", map[string]string{"status": "Discharging\n"})
	if e := wait(r, 1); e.GetMessage() != "Discharging" || e.GetBoottimeNs() != uint64(at) {
		t.Errorf("event %v", e)
	}
}

// TestNext: when supplies are looked at, besides when they ring.
func TestNext(t *testing.T) {
	now := moment{clock: time.Unix(1000, 0)}
	battery := &powerpb.PowerSupply{Status: "Discharging"}
	for name, tc := range map[string]struct {
		supply  *powerpb.PowerSupply
		settled time.Duration // from now
		want    time.Duration // from now; 0 is never
	}{
		"adapter": {&powerpb.PowerSupply{Online: true}, -time.Hour, 0}, "has rung": {&powerpb.PowerSupply{Online: true}, time.Second, time.Second},
		"battery in use": {battery, -time.Hour, time.Minute}, "it has rung": {battery, time.Second, time.Second}, "it rang a while ago": {battery, 0, time.Minute},
		"battery of a mouse": {&powerpb.PowerSupply{Status: "Discharging", Peripheral: true}, 0, 0}, "full": {&powerpb.PowerSupply{Status: "Full"}, 0, 0},
	} {
		g := generator{supplies: supplies{"x": tc.supply}, settled: now.clock.Add(tc.settled)}
		var want time.Time
		if tc.want > 0 {
			want = now.clock.Add(tc.want)
		}
		if got := g.next(now); !got.Equal(want) {
			t.Errorf("%s: next = %v; want %v", name, got, want)
		}
	}
}

// TestHeatIsOneEvent: though the kernel rings as long as it lasts.
func TestHeatIsOneEvent(t *testing.T) {
	g := newGenerator(&doorbell.Bell[note]{}, t.TempDir())
	for _, tc := range []struct {
		n    note
		want bool
	}{
		{note{at: time.Second, what: hot, name: "acpitz"}, false},
		{note{at: 50 * time.Second, what: hot, name: "acpitz"}, true},
		{note{at: 100 * time.Second, what: hot, name: "acpitz"}, true},
		{note{at: 101 * time.Second, what: hot, name: "x86_pkg_temp"}, false},
		{note{at: 102 * time.Second, what: tooHot, name: "acpitz"}, false},
		{note{at: 160 * time.Second, what: hot, name: "acpitz"}, false},
		{note{at: 161 * time.Second, what: powerButton, name: "acpitz"}, false},
		{note{at: 162 * time.Second, what: powerButton, name: "acpitz"}, false},
	} {
		if got := g.stillHot(tc.n); got != tc.want {
			t.Errorf("stillHot(%+v) = %v; want %v", tc.n, got, tc.want)
		}
	}
}
