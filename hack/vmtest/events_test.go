package vmtest_test

import (
	"math/rand/v2"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestBlockEvents: a disk that is plugged in and out is one event each, and in Disks while it is there; heard by eBPF where
// the kernel lets it in, else by its device events. "make soak WHAT=hotplug-scsi" does it more often.
func TestBlockEvents(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mode        string
		unavailable int
		o           vmtest.Options
		ports       []string
	}{
		{"fentry", 0, vmtest.Options{}, []string{"port0", "scsi"}},
		{"netlink", 2, vmtest.Options{Boot: node.Kernel, CommandLine: "lockdown=confidentiality"}, []string{"scsi"}},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			tc.o.HotplugPorts, tc.o.Extra = 1, hotplug.Arguments
			n := vmtest.Start(t, tc.o)
			n.Ready(t)
			before := generator(t, n, tc.mode)
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
			if after := generator(t, n, tc.mode); after.GetRings() < want || after.GetLost() > 0 {
				t.Errorf("generator: %v; want at least %d rings and none lost", after, want)
			}
		})
	}
}

// generator waits until block-events hears in a mode.
func generator(t *testing.T, n *vmtest.Node, mode string) *eventspb.GeneratorStatus {
	t.Helper()
	status := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", "block-events", status, func(*resourcepb.Metadata) bool { return status.GetMode() == mode })
	return status
}
