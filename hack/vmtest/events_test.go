package vmtest_test

import (
	"math/rand/v2"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// TestBlockEvents: a disk that is plugged in and out is one event each, on every bus, and in Disks while it is there; heard by eBPF.
func TestBlockEvents(t *testing.T) {
	n := vmtest.Start(t, vmtest.Options{HotplugPorts: 1, USB: true, Extra: []string{"-device", "virtio-scsi-pci,id=scsi"}})
	n.Ready(t)
	mode := func(want string) *eventspb.GeneratorStatus {
		status := &eventspb.GeneratorStatus{}
		n.Until(t, "generators", "block-events", status, func(*resourcepb.Metadata) bool { return status.GetMode() == want })
		return status
	}
	before := mode("fentry")
	const rounds = 3
	for _, port := range []string{"port0", "scsi", "usb"} {
		t.Run(port, func(t *testing.T) {
			seed := rand.Uint64()
			r := hotplug.Run(t.Context(), hotplug.Config{
				Machine: n.VM, Client: n.Client, Port: port, Dir: t.TempDir(), Seed: seed, Rounds: rounds, Patience: 15 * time.Second * n.Slower(),
			})
			if r.Done != rounds || len(r.Failures) > 0 {
				t.Errorf("seed %d: %+v", seed, r)
			}
		})
	}
	if after := mode("fentry"); after.GetRings() < before.GetRings()+6*rounds || after.GetLost() > 0 {
		t.Errorf("generator: %v; want at least %d rings more than %v, and none lost", after, 6*rounds, before)
	}
}
