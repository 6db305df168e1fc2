package vmtest_test

import (
	"math/rand/v2"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestEvents: a disk that is plugged in and out is one event each, and in Disks while it is there, and so is a press of the power button; heard
// by eBPF where the kernel lets it in, else by its device events and input devices. "make soak WHAT=hotplug-scsi" does it more often.
func TestEvents(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mode, keys  string
		unavailable int
		o           vmtest.Options
		ports       []string
	}{
		{"fentry", "fentry", 0, vmtest.Options{}, []string{"port0", "scsi"}},
		{"netlink", "evdev", 2, vmtest.Options{Boot: node.Kernel, CommandLine: "lockdown=confidentiality"}, []string{"scsi"}},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			tc.o.HotplugPorts, tc.o.Extra = 1, hotplug.Arguments
			n := vmtest.Start(t, tc.o)
			n.Ready(t)
			before := generator(t, n, "block-events", tc.mode)
			if u := before.GetUnavailable(); len(u) != tc.unavailable || len(u) > 0 && u[0].GetWhy() == "" {
				t.Errorf("unavailable: %v; want %d modes, with the reasons", u, tc.unavailable)
			}
			const rounds = 3
			for _, port := range tc.ports {
				seed := rand.Uint64()
				r := hotplug.Run(t.Context(), hotplug.Config{
					Machine: n.VM, Client: n.Client, Port: port, Dir: t.TempDir(), Seed: seed, Rounds: rounds, Patience: 15 * time.Second * n.Slower(),
				})
				if r.Done != rounds || len(r.Failures) > 0 {
					t.Errorf("%s, seed %d: %+v", port, seed, r)
				}
			}
			want := before.GetRings() + uint64(2*rounds*len(tc.ports))
			if after := generator(t, n, "block-events", tc.mode); after.GetRings() < want || after.GetLost() > 0 {
				t.Errorf("generator: %v; want at least %d rings and none lost", after, want)
			}
			checkPress(t, n, tc.keys)
		})
	}
}

// checkPress: the button is one event with the kernel's time, and one ring. A block keeps the node up.
func checkPress(t *testing.T, n *vmtest.Node, mode string) {
	t.Helper()
	before := generator(t, n, "power-events", mode)
	n.Converged(t, n.Apply(t, inhibitors)...)
	if err := n.Monitor.Execute(n.Patience(t, patience), "system_powerdown", nil, nil); err != nil {
		t.Fatal(err)
	}
	event := &powerpb.PowerEvent{}
	var written *resourcepb.Metadata
	n.Until(t, "powerevents", "000000000001", event, func(m *resourcepb.Metadata) bool { written = m; return m != nil })
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
	if n.Get(t, "powerevents", "000000000002", event) != nil {
		t.Errorf("one press is also %v", event)
	}
}

// generator waits until a plugin hears in a mode.
func generator(t *testing.T, n *vmtest.Node, plugin, mode string) *eventspb.GeneratorStatus {
	t.Helper()
	status := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", plugin, status, func(*resourcepb.Metadata) bool { return status.GetMode() == mode })
	return status
}
