package vmtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	kernelpb "github.com/cosi-os/cosi/api/cosi/kernel/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestEvents: a disk that is plugged in and out is one event each, and in Disks while it is there, and so are a medium and a press of the power
// button; heard by eBPF. The node was booted from a USB stick, and keeps its state there. TestGenerators does it where that is forbidden,
// "make soak WHAT=hotplug-usb" more often.
func TestEvents(t *testing.T) {
	vmtest.Parallel(t, 50)
	o := vmtest.Options{File: vmtest.SystemDisk(t, "test-metal", gib), Stick: true, HotplugPorts: 1}
	if vmtest.Arch() == qemu.AMD64 {
		o.Boot = node.BIOS
	}
	for _, bus := range hotplug.Buses {
		o.Extra = append(o.Extra, bus.Arguments...)
	}
	n := vmtest.Start(t, o)
	n.Ready(t)
	checkStick(t, n)
	checkDisks(t, n, "fentry", 0, hotplug.Buses...)
	checkPress(t, n, "fentry", 1)
}

// checkStick: the state is on the stick, and a file system can be mounted from it; the kernel has either as a module.
func checkStick(t *testing.T, n *vmtest.Node) {
	t.Helper()
	state := &machinepb.StateStatus{}
	n.Get(t, "state", "state", state)
	stick, ok := strings.CutSuffix(state.GetDevice(), "5")
	if !state.GetDurable() || !ok || !strings.HasPrefix(stick, "/dev/sd") {
		t.Errorf("state %v; want it on the stick", state)
	}
	n.Converged(t, n.Apply(t, "metadata: {type: MountPoints.storage.cosi.dev, id: esp}\n"+
		"spec: {source: "+stick+"2, target: /var/esp, fstype: vfat, flags: [ro]}\n")...)
	module := &kernelpb.KernelModuleStatus{}
	if n.Get(t, "kernelmodulestatuses", "fs-vfat", module); !module.GetReady() || module.GetReason() != "Loaded" {
		t.Errorf("module of vfat: %v; want it loaded", module)
	}
	n.Apply(t, "metadata: {type: KernelModules.kernel.cosi.dev, id: zfs}\nspec: {}\n")
	n.Until(t, "kernelmodulestatuses", "zfs", module, func(*resourcepb.Metadata) bool { return module.GetReason() == "Missing" })
	// Built in, and without parameters: the kernel says nowhere that it has it.
	n.Apply(t, "metadata: {type: KernelModules.kernel.cosi.dev, id: binfmt_script}\nspec: {}\n")
	n.Until(t, "kernelmodulestatuses", "binfmt_script", module, func(*resourcepb.Metadata) bool { return module.GetReason() == "BuiltIn" })
}

// checkDisks: each disk that comes on a bus, and goes again, rings.
func checkDisks(t *testing.T, n *vmtest.Node, mode string, unavailable int, buses ...hotplug.Bus) {
	t.Helper()
	before := generator(t, n, "block-events", mode)
	if u := before.GetUnavailable(); len(u) != unavailable || len(u) > 0 && u[0].GetWhy() == "" {
		t.Errorf("unavailable: %v; want %d modes, with the reasons", u, unavailable)
	}
	if (before.GetMessage() == "") != (unavailable == 0) {
		t.Errorf("generator %v; want it said what is not heard, without eBPF", before)
	}
	const rounds = 3
	for _, bus := range buses {
		plugDisks(t, n, bus, 0, rounds, 0)
	}
	want := before.GetRings() + uint64(2*rounds*len(buses))
	if after := generator(t, n, "block-events", mode); after.GetRings() < want || after.GetLost() > before.GetLost() {
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

// byFunctions is how generators hear what the kernel's functions do where nothing keeps them from eBPF, and in which mode they never hear on that
// kernel: one that preempts itself, as all since Linux 7.0, leaves out programs of fentry.
func byFunctions(t *testing.T, n *vmtest.Node) (mode string, never []string) {
	t.Helper()
	status := &machinepb.MachineStatus{}
	n.Get(t, "machine", "machine", status)
	if strings.HasPrefix(status.GetKernel(), "6.") {
		return "fentry", nil
	}
	return "kprobe", []string{"fentry"}
}
