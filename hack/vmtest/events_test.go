package vmtest_test

import (
	"fmt"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestEvents: a disk that is plugged in and out is one event each, and in Disks while it is there, and so are a medium and a press of the power
// button; heard by eBPF. TestGenerators does it where that is forbidden, "make soak WHAT=hotplug-usb" more often.
func TestEvents(t *testing.T) {
	t.Parallel()
	o := vmtest.Options{Definition: "test-metal", Boot: node.Kernel, HotplugPorts: 1}
	for _, bus := range hotplug.Buses {
		o.Extra = append(o.Extra, bus.Arguments...)
	}
	n := vmtest.Start(t, o)
	n.Ready(t)
	checkDisks(t, n, "fentry", 0, hotplug.Buses...)
	checkPress(t, n, "fentry", 1)
}

// checkDisks: each disk that comes on a bus, and goes again, rings.
func checkDisks(t *testing.T, n *vmtest.Node, mode string, unavailable int, buses ...hotplug.Bus) {
	t.Helper()
	before := generator(t, n, "block-events", mode)
	if u := before.GetUnavailable(); len(u) != unavailable || len(u) > 0 && u[0].GetWhy() == "" {
		t.Errorf("unavailable: %v; want %d modes, with the reasons", u, unavailable)
	}
	const rounds = 3
	for _, bus := range buses {
		plugDisks(t, n, bus, 0, rounds, 0)
	}
	want := before.GetRings() + uint64(2*rounds*len(buses))
	if after := generator(t, n, "block-events", mode); after.GetRings() < want || after.GetLost() > 0 {
		t.Errorf("generator: %v; want at least %d rings and none lost", after, want)
	}
}

// checkPress: the button is one event with the kernel's time, the number of which is known, and one ring. A block keeps the node up.
func checkPress(t *testing.T, n *vmtest.Node, mode string, number int) {
	t.Helper()
	before := generator(t, n, "power-events", mode)
	n.Converged(t, n.Apply(t, inhibitors)...)
	if err := n.Monitor.Execute(n.Patience(t, patience), "system_powerdown", nil, nil); err != nil {
		t.Fatal(err)
	}
	event := &powerpb.PowerEvent{}
	var written *resourcepb.Metadata
	n.Until(t, "powerevents", eventID(number), event, func(m *resourcepb.Metadata) bool { written = m; return m != nil })
	if event.GetAction() != "PowerButton" || event.GetDevice() != "Power Button" || event.GetBoottimeNs() == 0 || event.GetCount() != 0 {
		t.Errorf("event %v; want a press of the power button", event)
	}
	took := written.GetCreated().AsTime().Sub(event.GetTime().AsTime())
	t.Logf("from the kernel to the resource: %s", took)
	if took < 0 || took > time.Second*n.Slower() {
		t.Errorf("the press was at %s, and is a resource after %s", event.GetTime().AsTime(), took)
	}
	refused(t, n, "power-button")
	if after := generator(t, n, "power-events", mode); after.GetRings() != before.GetRings()+1 || after.GetLost() > 0 {
		t.Errorf("generator: %v; want one ring more than %d, and none lost", after, before.GetRings())
	}
	if n.Get(t, "powerevents", eventID(number+1), event) != nil {
		t.Errorf("one press is also %v", event)
	}
}

// eventID is the id of an event by its number.
func eventID(number int) string { return fmt.Sprintf("%012d", number) }

// generator waits until a plugin hears in a mode.
func generator(t *testing.T, n *vmtest.Node, plugin, mode string) *eventspb.GeneratorStatus {
	t.Helper()
	status := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", plugin, status, func(*resourcepb.Metadata) bool { return status.GetMode() == mode })
	return status
}
