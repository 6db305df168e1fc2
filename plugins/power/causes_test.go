package power

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// happens has the nth event happen now.
func happens(r *plugintest.Runtime, c *stillClock, n int, action, device string, count uint64) {
	r.Apply(fmt.Sprintf("%012d", n), &powerpb.PowerEvent{
		Action: action, Device: device, BoottimeNs: uint64(c.Boottime()), Time: timestamppb.New(c.Now()), Count: count,
	})
}

func TestPressOfTheButtonPowersOff(t *testing.T) {
	r, c := start(t)
	happens(r, c, 1, "SleepButton", "Sleep Button", 0)
	happens(r, c, 2, actionPowerButton, "Power Button", 0)
	st := waitFor(t, r, buttonID, reasonDraining)
	if want := "power-off: the power button was pressed (Power Button) at 12:00:00.000"; st.GetMessage() != want || st.GetAction() != powerpb.ShutdownRequest_POWER_OFF {
		t.Errorf("status = %v, want a power-off and %q", st, want)
	}
	if m := r.Get(buttonID, &powerpb.ShutdownRequest{}); m.GetOwner() != "power" || m.GetAnnotations()[sdk.Cause] != "PowerEvents.power.cosi.dev/000000000002@1" {
		t.Errorf("request = %v; want the plugin's, for the event", m)
	}
}

// TestSecondPressOverridesABlock: within five seconds; a later one asks again.
func TestSecondPressOverridesABlock(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(block, time.Minute, time.Hour))
	for n, press := range []struct {
		after  time.Duration
		count  uint64
		reason string
	}{{0, 0, reasonRefused}, {5*time.Second + 1e6, 0, reasonRefused}, {5 * time.Second, 0, reasonDraining}} {
		c.forward(press.after)
		happens(r, c, n+1, actionPowerButton, "Power Button", press.count)
		st := &powerpb.ShutdownStatus{}
		r.Wait("the press is answered", func() bool { return r.Get(buttonID, st) != nil && st.GetObservedVersion() == strconv.Itoa(n+1) })
		waitFor(t, r, buttonID, press.reason)
	}
}

// TestTwoPressesInOneEvent: are as good as two.
func TestTwoPressesInOneEvent(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(block, time.Minute, time.Hour))
	happens(r, c, 1, actionPowerButton, "Power Button", 2)
	waitFor(t, r, buttonID, reasonDraining)
}

// TestWhatIsLongAgoIsNotActedOn: by a plugin that was started again, and the request for it is gone.
func TestWhatIsLongAgoIsNotActedOn(t *testing.T) {
	r, c := plugintest.Start(t, declared), newStillClock()
	happens(r, c, 1, actionPowerButton, "Power Button", 0)
	c.forward(fresh + 1)
	run(t, r, plugin(c))
	happens(r, c, 2, actionHot, "acpitz", 0)
	waitFor(t, r, heatID, reasonDraining)
	if r.Get(buttonID, &powerpb.ShutdownRequest{}) != nil {
		t.Error("the press is acted on")
	}
}

func TestHeatIsCritical(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(block, time.Hour, time.Hour))
	happens(r, c, 1, actionTooHot, "acpitz", 0)
	st := waitFor(t, r, heatID, reasonWaiting)
	if want := "power-off: it is too hot (acpitz) at 12:00:00.000; waits for backup of db3 (a snapshot is being written)"; st.GetMessage() != want {
		t.Errorf("status = %v; want %q", st, want)
	}
	c.forward(30 * time.Second)
	waitFor(t, r, heatID, reasonDraining)
}

// TestEmptyBattery: is critical, and is over when the node is plugged in again.
func TestEmptyBattery(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(block, time.Hour, time.Hour))
	r.Apply("AC", &powerpb.PowerSupply{Kind: "Mains"})
	r.Apply("BAT0", &powerpb.PowerSupply{Kind: "Battery", Status: "Discharging", Level: "Critical"})
	waitFor(t, r, batteryID, reasonWaiting)
	r.Apply("AC", &powerpb.PowerSupply{Kind: "Mains", Online: true})
	r.Wait("the request is taken back", func() bool { return r.Get(batteryID, &powerpb.ShutdownStatus{}) == nil })
	r.Apply("AC", &powerpb.PowerSupply{Kind: "Mains"})
	waitFor(t, r, batteryID, reasonWaiting)
	c.forward(30 * time.Second)
	waitFor(t, r, batteryID, reasonDraining)
}

func TestExhausted(t *testing.T) {
	mains := func(online bool) *powerpb.PowerSupply { return &powerpb.PowerSupply{Kind: "Mains", Online: online} }
	battery := func(status, level string, capacity *uint32) *powerpb.PowerSupply {
		return &powerpb.PowerSupply{Kind: "Battery", Status: status, Level: level, Capacity: capacity}
	}
	mouse := battery("Discharging", "Critical", nil)
	mouse.Peripheral = true
	for name, tc := range map[string]struct {
		all  []*powerpb.PowerSupply
		want bool
	}{
		"nothing":               {nil, false},
		"mains":                 {[]*powerpb.PowerSupply{mains(true)}, false},
		"mains off":             {[]*powerpb.PowerSupply{mains(false)}, false},
		"battery":               {[]*powerpb.PowerSupply{battery("Discharging", "Critical", nil)}, true},
		"by percent":            {[]*powerpb.PowerSupply{battery("Discharging", "Unknown", proto.Uint32(3))}, true},
		"not so low":            {[]*powerpb.PowerSupply{battery("Discharging", "", proto.Uint32(4))}, false},
		"level before percent":  {[]*powerpb.PowerSupply{battery("Discharging", "Low", proto.Uint32(1))}, false},
		"tells nothing":         {[]*powerpb.PowerSupply{battery("Discharging", "", nil)}, false},
		"charging":              {[]*powerpb.PowerSupply{battery("Charging", "Critical", nil)}, false},
		"mains and battery":     {[]*powerpb.PowerSupply{mains(true), battery("Discharging", "Critical", nil)}, false},
		"mains off and battery": {[]*powerpb.PowerSupply{mains(false), battery("Discharging", "Critical", nil)}, true},
		"one of two":            {[]*powerpb.PowerSupply{battery("Discharging", "Critical", nil), battery("Discharging", "Normal", nil)}, false},
		"a mouse":               {[]*powerpb.PowerSupply{mouse}, false},
	} {
		var all []supply
		for i, p := range tc.all {
			all = append(all, supply{Metadata: &resourcepb.Metadata{Id: strconv.Itoa(i)}, Spec: p})
		}
		if last, got := exhausted(all); got != tc.want || got != (last != nil) {
			t.Errorf("%s: exhausted = %v, %v; want %v", name, last, got, tc.want)
		}
	}
}
